//! Fence devices as the CIB has them: resources of the class `stonith`, with what their agents can do.

use super::topology::Rule;
use crate::cib::{
    Cib, Constraint, LocationTarget, NvSet, Primitive, Resource, Score, parse_duration_ms,
};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// Time that one action of a device may take where nothing else is said (`stonith-timeout`), in milliseconds.
const TIMEOUT_MS: u64 = 60_000;
/// How often an action is tried where nothing else is said (`pcmk_reboot_retries` and its like).
const TRIES: u32 = 2;
/// The agent that stands for a node's own watchdog.
const WATCHDOG_AGENT: &str = "fence_watchdog";
/// Id of the device that `stonith-watchdog-timeout` brings with it.
const WATCHDOG_ID: &str = "watchdog";

/// What is to be done to a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Action {
    /// Switched off.
    Off,
    /// Switched off and on again.
    Reboot,
    /// Given its access (back): unfencing, or power.
    On,
}

impl Action {
    /// Pacemaker's word; `poweroff` is an old one for `off`.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        match word {
            "off" | "poweroff" => Some(Self::Off),
            "reboot" => Some(Self::Reboot),
            "on" => Some(Self::On),
            _ => None,
        }
    }

    /// True for what makes a node harmless.
    #[must_use]
    pub const fn fences(self) -> bool {
        matches!(self, Self::Off | Self::Reboot)
    }

    /// What the node was: "rebooted", "switched off", "given access".
    #[must_use]
    pub const fn done(self) -> &'static str {
        match self {
            Self::Off => "switched off",
            Self::Reboot => "rebooted",
            Self::On => "given access",
        }
    }
}

/// What an agent is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Verb {
    /// Switch a node off.
    Off,
    /// Switch it off and on.
    Reboot,
    /// Switch it on.
    On,
    /// Name the nodes it reaches.
    List,
    /// Say whether a node is on; tells whether the device knows it.
    Status,
    /// Is the device itself there?
    Monitor,
}

impl Verb {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Off, Self::Reboot, Self::On, Self::List, Self::Status, Self::Monitor];

    /// The word in `pcmk_WORD_action`, and the action's name where that is not set.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Reboot => "reboot",
            Self::On => "on",
            Self::List => "list",
            Self::Status => "status",
            Self::Monitor => "monitor",
        }
    }
}

impl From<Action> for Verb {
    fn from(action: Action) -> Self {
        match action {
            Action::Off => Self::Off,
            Action::Reboot => Self::Reboot,
            Action::On => Self::On,
        }
    }
}

/// One thing to ask of a device; the node that runs it makes a [`Call`] of it, so that no password is sent around.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    /// Id of the device.
    pub device: String,
    /// What is asked.
    pub verb: Verb,
    /// The node it is about; none for `list` and `monitor`.
    pub target: Option<String>,
}

/// Parameters of a device or agent. Passwords are not shown by `Debug`.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Params(pub BTreeMap<String, String>);

impl fmt::Debug for Params {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |(name, value): (&'_ String, &'_ String)| {
            let value = if is_secret(name) { "(hidden)" } else { value.as_str() };
            (name.clone(), value.to_owned())
        };
        f.debug_map().entries(self.0.iter().map(shown)).finish()
    }
}

impl Params {
    /// The value of `name`.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// Without what is the cluster's: `pcmk_*`, meta attributes, the action and the name of the machine.
    #[must_use]
    pub fn of_agent(&self) -> Self {
        let foreign = |name: &str| {
            name.starts_with("pcmk_")
                || name.starts_with("CRM_meta_")
                || matches!(name, "crm_feature_set" | "action" | "nodename")
        };
        let own = self.0.iter().filter(|(name, _)| !foreign(name));
        Self(own.map(|(name, value)| (name.clone(), value.clone())).collect())
    }
}

/// True for parameters whose value is never shown.
#[must_use]
pub fn is_secret(name: &str) -> bool {
    const WORDS: [&str; 7] =
        ["passw", "secret", "token", "community", "api_key", "apikey", "hexadecimal_kg"];
    let name = name.to_ascii_lowercase();
    WORDS.iter().any(|word| name.contains(word)) && !name.ends_with("_script")
}

/// True for a parameter that the cluster reads itself and no agent is given.
#[must_use]
pub fn is_own_parameter(name: &str) -> bool {
    let own = [
        "pcmk_host_list",
        "pcmk_host_map",
        "pcmk_host_check",
        "pcmk_host_argument",
        "pcmk_delay_base",
        "pcmk_delay_max",
        "pcmk_action_limit",
    ];
    let of_verb = || {
        let (verb, what) = name.strip_prefix("pcmk_")?.split_once('_')?;
        let known = Verb::ALL.iter().any(|v| v.word() == verb);
        (known && matches!(what, "action" | "timeout" | "retries")).then_some(())
    };
    own.contains(&name) || of_verb().is_some()
}

/// An agent with all that it is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// Agent, `fence_ipmilan`.
    pub agent: String,
    /// What is asked.
    pub verb: Verb,
    /// The agent's word for it: its `action`.
    pub action: String,
    /// All other parameters, without the cluster's own (`pcmk_*`).
    pub params: Params,
    /// Its time limit in milliseconds.
    pub limit_ms: u64,
}

/// What an agent can do, by its metadata.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Abilities {
    /// Names of its actions.
    pub actions: BTreeSet<String>,
    /// `on` runs on the node that is given access (`on_target`).
    pub on_target: bool,
    /// Nodes need its `on` before they may use what it guards (`automatic`).
    pub unfences: bool,
    /// The parameter that names the machine to act on: `plug`, `port` or none.
    pub host_parameter: Option<String>,
}

impl Default for Abilities {
    /// What is taken of an agent whose metadata is not known: all but `list`, the machine named by `port`.
    fn default() -> Self {
        let actions = ["off", "reboot", "on", "status", "monitor"].map(str::to_owned);
        Self {
            actions: actions.into(),
            on_target: false,
            unfences: false,
            host_parameter: Some("port".to_owned()),
        }
    }
}

/// What stands behind a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A fence agent.
    Agent,
    /// The watchdog of each node: it has fired after `stonith-watchdog-timeout`. Nothing is run.
    Watchdog,
}

/// A fence device.
#[derive(Debug, Clone)]
pub struct Device {
    /// Id of its resource.
    pub id: String,
    /// Agent, `fence_ipmilan`.
    pub agent: String,
    /// What stands behind it.
    pub kind: Kind,
    /// Its parameters, those of the cluster (`pcmk_*`) too.
    pub params: Params,
    /// What its agent can do.
    pub abilities: Abilities,
    /// `priority`: higher ones are tried first where no topology says otherwise.
    pub priority: i64,
    /// Nodes that may not run it (location constraints).
    pub barred: BTreeSet<String>,
    /// Nodes need its `on` before they may use what it guards.
    pub unfences: bool,
}

impl Device {
    fn duration(&self, name: &str) -> Option<u64> {
        self.params.get(name).and_then(parse_duration_ms)
    }

    /// The agent's word for an action.
    #[must_use]
    pub fn word(&self, verb: Verb) -> String {
        let word = verb.word();
        self.params.get(&format!("pcmk_{word}_action")).unwrap_or(word).to_owned()
    }

    /// Time one action may take, retries included, in milliseconds.
    #[must_use]
    pub fn limit_ms(&self, verb: Verb, default_ms: u64) -> u64 {
        self.duration(&format!("pcmk_{}_timeout", verb.word())).unwrap_or(default_ms).max(1)
    }

    /// How often an action is tried within its time, at least once.
    #[must_use]
    pub fn tries(&self, verb: Verb) -> u32 {
        let name = format!("pcmk_{}_retries", verb.word());
        self.params.get(&name).and_then(|text| text.parse().ok()).unwrap_or(TRIES).max(1)
    }

    /// Actions it can carry out at once (`pcmk_action_limit`, 1); `None` without a limit (-1).
    #[must_use]
    pub fn slots(&self) -> Option<usize> {
        let limit = self.params.get("pcmk_action_limit").and_then(|text| text.parse::<i64>().ok());
        match limit.unwrap_or(1) {
            n if n < 0 => None,
            n => Some(usize::try_from(n).unwrap_or(usize::MAX).max(1)),
        }
    }

    /// True when a `reboot` is one action: the agent has it, or the configuration names another word for it.
    #[must_use]
    pub fn reboots(&self) -> bool {
        self.kind == Kind::Watchdog
            || self.params.get("pcmk_reboot_action").is_some()
            || self.abilities.actions.contains(Verb::Reboot.word())
    }

    /// What its agent is given for a task. The machine is named by `nodename` and by `pcmk_host_argument` (else the agent's own `plug`
    /// or `port`), unless the device has a fixed value for that.
    #[must_use]
    pub fn call(&self, verb: Verb, target: Option<&str>, limit_ms: u64) -> Call {
        let mut params = self.params.of_agent().0;
        if let Some(target) = target {
            params.insert("nodename".to_owned(), target.to_owned());
            let argument = self.params.get("pcmk_host_argument");
            let argument = argument.or(self.abilities.host_parameter.as_deref());
            if let Some(name) = argument.filter(|name| *name != "none") {
                let fixed = params.get(name).is_some_and(|value| value != "dynamic");
                if !fixed {
                    params.insert(name.to_owned(), self.port(target));
                }
            }
        }
        let (agent, action) = (self.agent.clone(), self.word(verb));
        Call { agent, verb, action, params: Params(params), limit_ms }
    }
}

/// All that the fencer needs of a configuration.
#[derive(Debug, Clone, Default)]
pub struct Config {
    pub(super) devices: BTreeMap<String, Device>,
    pub(super) rules: Vec<Rule>,
    /// Configured nodes with their attributes.
    pub(super) nodes: BTreeMap<String, NvSet>,
    /// `stonith-action`.
    pub action: Option<Action>,
    /// `stonith-timeout` in milliseconds.
    pub timeout_ms: u64,
    /// `priority-fencing-delay` in milliseconds.
    pub priority_delay_ms: u64,
    /// After this time a node's watchdog has fired, in milliseconds (`stonith-watchdog-timeout`); `None`: nothing relies on it.
    pub watchdog_ms: Option<u64>,
}

impl Config {
    /// Reads a CIB. `abilities` by agent; an agent that is not in it is taken by [`Abilities::default`]. `watchdog_ms` is the time after which
    /// the hardware fires: a negative `stonith-watchdog-timeout` means twice that.
    #[must_use]
    pub fn read(cib: &Cib, abilities: &BTreeMap<String, Abilities>, watchdog_ms: u64) -> Self {
        let option = |names: [&str; 2]| names.into_iter().find_map(|n| cib.properties.get(n));
        let duration = |names| option(names).and_then(parse_duration_ms);
        let mut out = Self {
            devices: BTreeMap::new(),
            rules: cib.fencing.iter().map(Rule::new).collect(),
            nodes: cib.nodes.iter().map(|n| (n.name.clone(), n.attributes.clone())).collect(),
            action: option(["stonith-action", "fencing-action"]).and_then(Action::parse),
            timeout_ms: duration(["stonith-timeout", "fencing-timeout"]).unwrap_or(TIMEOUT_MS),
            priority_delay_ms: duration(["priority-fencing-delay"; 2]).unwrap_or(0),
            watchdog_ms: watchdog_timeout_ms(cib, watchdog_ms),
        };
        for resource in &cib.resources {
            out.collect(cib, resource, &mut Vec::new(), abilities);
        }
        let explicit = out.devices.values().any(|d| d.kind == Kind::Watchdog);
        if out.watchdog_ms.is_some() && !explicit && !out.devices.contains_key(WATCHDOG_ID) {
            out.devices.insert(WATCHDOG_ID.to_owned(), implicit_watchdog());
        }
        out
    }

    /// The devices, by id. Those that are switched off (`target-role=Stopped`) are not among them.
    pub fn devices(&self) -> impl Iterator<Item = &Device> {
        self.devices.values()
    }

    /// The device called `id`.
    #[must_use]
    pub fn device(&self, id: &str) -> Option<&Device> {
        self.devices.get(id)
    }

    /// What the agent of a task is given; `None` when the device is gone, or nothing is run for it.
    #[must_use]
    pub fn call(&self, task: &Task, limit_ms: u64) -> Option<Call> {
        let device = self.device(&task.device).filter(|d| d.kind == Kind::Agent)?;
        Some(device.call(task.verb, task.target.as_deref(), limit_ms))
    }

    /// Adds the devices in a resource; `above` are the resources around it, outermost first.
    fn collect<'a>(
        &mut self,
        cib: &'a Cib,
        resource: &'a Resource,
        above: &mut Vec<Holder<'a>>,
        abilities: &BTreeMap<String, Abilities>,
    ) {
        match resource {
            Resource::Primitive(p) => self.add(cib, p, above, abilities),
            Resource::Group(g) => {
                above.push(Holder { id: &g.id, params: &g.params, meta: &g.meta });
                for member in &g.members {
                    self.add(cib, member, above, abilities);
                }
                above.pop();
            }
            Resource::Clone(c) => {
                above.push(Holder { id: &c.id, params: &c.params, meta: &c.meta });
                self.collect(cib, &c.child, above, abilities);
                above.pop();
            }
            Resource::Bundle(_) => {}
        }
    }

    fn add(
        &mut self,
        cib: &Cib,
        p: &Primitive,
        above: &[Holder<'_>],
        abilities: &BTreeMap<String, Abilities>,
    ) {
        if p.agent.class != "stonith" || is_off(cib, p, above) {
            return;
        }
        // The nearest one counts: what was put in first stays.
        let mut params = BTreeMap::new();
        for set in std::iter::once(&p.params).chain(above.iter().rev().map(|h| h.params)) {
            for nv in &set.pairs {
                if let Some(value) = &nv.value {
                    params.entry(nv.name.clone()).or_insert_with(|| value.clone());
                }
            }
        }
        let abilities = abilities.get(&p.agent.kind).cloned().unwrap_or_default();
        let priority = word_of(cib, p, above, "priority").and_then(Score::parse);
        let provides = p.meta.get("provides").is_some_and(|w| w.eq_ignore_ascii_case("unfencing"));
        let device = Device {
            id: p.id.clone(),
            agent: p.agent.kind.clone(),
            kind: if p.agent.kind == WATCHDOG_AGENT { Kind::Watchdog } else { Kind::Agent },
            params: Params(params),
            priority: i64::from(priority.unwrap_or(Score::ZERO).value()),
            barred: barred(cib, p, above),
            unfences: provides || abilities.unfences,
            abilities,
        };
        self.devices.insert(p.id.clone(), device);
    }
}

/// `stonith-watchdog-timeout`, if it is on. A negative one means twice `hardware_ms`, the time after which this node's own watchdog has fired.
#[must_use]
pub fn watchdog_timeout_ms(cib: &Cib, hardware_ms: u64) -> Option<u64> {
    let names = ["stonith-watchdog-timeout", "fencing-watchdog-timeout"];
    let text = names.into_iter().find_map(|name| cib.properties.get(name))?;
    let ms = match text.trim().strip_prefix('-') {
        Some(_) => Some(hardware_ms.saturating_mul(2)),
        None => parse_duration_ms(text),
    };
    ms.filter(|ms| *ms > 0)
}

/// A group or clone around a device.
struct Holder<'a> {
    id: &'a str,
    params: &'a NvSet,
    meta: &'a NvSet,
}

fn implicit_watchdog() -> Device {
    Device {
        id: WATCHDOG_ID.to_owned(),
        agent: WATCHDOG_AGENT.to_owned(),
        kind: Kind::Watchdog,
        params: Params::default(),
        abilities: Abilities::default(),
        // Whatever can switch a node off for certain comes first.
        priority: i64::MIN,
        barred: BTreeSet::new(),
        unfences: false,
    }
}

/// A meta attribute of a primitive: its own, else of what is around it, else the default.
fn word_of<'a>(
    cib: &'a Cib,
    p: &'a Primitive,
    above: &[Holder<'a>],
    name: &str,
) -> Option<&'a str> {
    let inherited = || above.iter().rev().find_map(|holder| holder.meta.get(name));
    p.meta.get(name).or_else(inherited).or_else(|| cib.rsc_defaults.get(name))
}

/// Switched off by `target-role`, its own or that of what is around it. Maintenance and `is-managed` take no device away.
fn is_off(cib: &Cib, p: &Primitive, above: &[Holder<'_>]) -> bool {
    let stopped = |word: Option<&str>| word.is_some_and(|w| w.eq_ignore_ascii_case("stopped"));
    stopped(word_of(cib, p, above, "target-role"))
        || above.iter().any(|holder| stopped(holder.meta.get("target-role")))
}

/// Nodes on which the scores of a device sum up to less than zero; in an asymmetric cluster also those without a score.
fn barred(cib: &Cib, p: &Primitive, above: &[Holder<'_>]) -> BTreeSet<String> {
    let mut scores: BTreeMap<&str, Score> = BTreeMap::new();
    for constraint in &cib.constraints {
        let Constraint::Location(location) = constraint else { continue };
        let meant = match &location.target {
            LocationTarget::Resource(id) => *id == p.id || above.iter().any(|h| h.id == id),
            LocationTarget::Pattern(regex) => {
                regex::Regex::new(regex).is_ok_and(|regex| regex.is_match(&p.id))
            }
        };
        if meant {
            let sum = scores.entry(&location.node).or_insert(Score::ZERO);
            *sum = sum.plus(location.score);
        }
    }
    let symmetric = cib.properties.flag("symmetric-cluster").unwrap_or(true);
    let bad = |name: &str| scores.get(name).map_or(!symmetric, |score| *score < Score::ZERO);
    cib.nodes.iter().filter(|n| bad(&n.name)).map(|n| n.name.clone()).collect()
}
