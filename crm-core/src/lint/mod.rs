//! Configurations that are valid and still not what anyone wants: each finding with its object and its remedy.

use crate::cib::{
    Cib, Colocation, Constraint, LocationTarget, OrderKind, Primitive, Resource, Role, Score,
};
use crate::fencing;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

mod beyond;

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// Stable code, `LINT001`.
    pub code: String,
    /// The object that it is about.
    pub object: String,
    /// What is wrong and what it leads to.
    pub text: String,
    /// What to write or run instead.
    pub remedy: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "warning[{}]: {}: {}\n  = remedy: {}",
            self.code, self.object, self.text, self.remedy
        )
    }
}

/// All findings, by code.
#[must_use]
pub fn lint(cib: &Cib) -> Vec<Finding> {
    let mut lint = Lint { cib, found: Vec::new() };
    lint.reversed_colocation();
    lint.failback();
    lint.cluster();
    for primitive in cib.primitives() {
        lint.primitive(primitive);
    }
    lint.promotables();
    lint.colocation_without_order();
    lint.left_over_moves();
    lint.duplicate_devices();
    lint.beyond();
    lint.found.sort_by(|a, b| (&a.code, &a.object).cmp(&(&b.code, &b.object)));
    lint.found
}

struct Lint<'a> {
    cib: &'a Cib,
    found: Vec<Finding>,
}

impl Lint<'_> {
    fn add(&mut self, code: &str, object: &str, text: String, remedy: String) {
        let (code, object) = (code.to_owned(), object.to_owned());
        self.found.push(Finding { code, object, text, remedy });
    }

    /// LINT001: `colocation c inf: ms:Master group` makes the master follow the group.
    fn reversed_colocation(&mut self) {
        let cib = self.cib;
        for c in colocations(cib) {
            let reversed = c.score > Score::ZERO
                && c.rsc_role == Some(Role::Promoted)
                && c.with_role != Some(Role::Promoted)
                && matches!(cib.resource(&c.rsc), Some(Resource::Clone(_)))
                && !matches!(cib.resource(&c.with), Some(Resource::Clone(_)));
            if reversed {
                self.add(
                    "LINT001",
                    &c.id,
                    format!(
                        "the promoted instance of `{}` follows `{}`: where `{}` may run is decided first, and the data must be there",
                        c.rsc, c.with, c.with
                    ),
                    format!(
                        "turn it round: colocation {} {}: {} {}:Master",
                        c.id, c.score, c.with, c.rsc
                    ),
                );
            }
        }
    }

    /// LINT002: a preference without stickiness moves the resource back as soon as the node returns.
    fn failback(&mut self) {
        let cib = self.cib;
        for constraint in &cib.constraints {
            let Constraint::Location(c) = constraint else { continue };
            let LocationTarget::Resource(resource) = &c.target else { continue };
            if c.score <= Score::ZERO || stickiness(cib, resource) >= c.score {
                continue;
            }
            self.add(
                "LINT002",
                &c.id,
                format!(
                    "automatic failback: `{resource}` prefers `{}` by {} and is not that sticky, so it moves back, with a second interruption, as soon as `{}` returns",
                    c.node, c.score, c.node
                ),
                format!(
                    "rsc_defaults resource-stickiness={}, or remove the preference",
                    match c.score {
                        Score::INF => "inf".to_owned(),
                        score => (i64::from(score.value()) * 2).to_string(),
                    }
                ),
            );
        }
    }

    /// LINT018: devices that cannot do what they are there for, nodes that no device reaches.
    fn coverage(&mut self) {
        let config = fencing::Config::read(self.cib, &BTreeMap::new(), 1);
        if config.devices().next().is_none() {
            return;
        }
        // Of two nodes that lost each other both would wait for the other's reset.
        let rely = config.watchdog_ms.is_some() && self.cib.nodes.len() > 2;
        let armed = self.cib.nodes.iter().filter(|_| rely).map(|n| n.name.clone()).collect();
        let watchdogs = config.devices().any(|d| d.kind == fencing::Kind::Watchdog);
        for finding in config.coverage(&fencing::Answers::default(), &armed, 0).findings {
            let (object, remedy) = match &finding {
                fencing::Finding::NoDevice { node } if watchdogs && !rely => (
                    node,
                    "watchdogs fence where there are three nodes and more and stonith-watchdog-timeout is set (ADR-0013): add a witness, or a device that another node can use",
                ),
                fencing::Finding::NoDevice { node } => (
                    node,
                    "name it in the pcmk_host_list or pcmk_host_map of a device, or correct its fencing_topology",
                ),
                fencing::Finding::OnlyItself { device, .. } => {
                    (device, "let another node run it: correct its location constraints")
                }
                fencing::Finding::UnknownDevice { device, .. } => {
                    (device, "configure it, start it, or take it out of fencing_topology")
                }
            };
            self.add("LINT018", object, finding.to_string(), remedy.to_owned());
        }
    }

    fn cluster(&mut self) {
        let properties = &self.cib.properties;
        let set = "cib-bootstrap-options";
        if !self.cib.fencing_enabled() {
            self.add(
                "LINT003",
                set,
                "fencing is off (stonith-enabled=false): after a broken link both nodes may run the same resources and write different data".to_owned(),
                "configure a fencing device and set stonith-enabled=true".to_owned(),
            );
        } else if !self.cib.primitives().iter().any(|p| p.agent.class == "stonith")
            && fencing::watchdog_timeout_ms(self.cib, 1).is_none()
            && !self.cib.resources.is_empty()
        {
            self.add(
                "LINT009",
                set,
                "fencing is on, but no fencing device is configured: after a node's failure nothing is recovered".to_owned(),
                "configure a fencing device (primitive ... stonith:...)".to_owned(),
            );
        } else {
            self.coverage();
        }
        if properties.get("no-quorum-policy") == Some("ignore") {
            self.add(
                "LINT004",
                set,
                "no-quorum-policy=ignore: a node that is alone goes on as if it were the cluster".to_owned(),
                "leave it out (stop), or use freeze; with two nodes, two_node and wait_for_all decide who goes on".to_owned(),
            );
        }
        if properties.flag("maintenance-mode") == Some(true) {
            self.add(
                "LINT010",
                set,
                "maintenance-mode=true: nothing is monitored, started or recovered".to_owned(),
                "property maintenance-mode=false when the work is done".to_owned(),
            );
        }
    }

    fn primitive(&mut self, p: &Primitive) {
        let monitored = p.ops.iter().any(|op| op.name == "monitor" && op.interval_ms() > 0);
        let fencing = p.agent.class == "stonith";
        if !monitored && !fencing {
            let file_system = p.agent.kind == "Filesystem";
            let (code, text) = if file_system {
                (
                    "LINT005",
                    "the file system is not monitored: a mount that is lost or read-only stays so"
                        .to_owned(),
                )
            } else {
                (
                    "LINT007",
                    "it is not monitored: nobody finds out when it stops working".to_owned(),
                )
            };
            let interval = if file_system { "20s timeout=40s" } else { "10s" };
            let remedy = format!("add `op monitor interval={interval}` to `{}`", p.id);
            self.add(code, &p.id, text, remedy);
        }
        if p.agent.kind == "nfsserver" && p.params.get("nfs_init_script").is_some() {
            self.add(
                "LINT006",
                &p.id,
                "`nfs_init_script` is ignored where systemd or our own agent runs the NFS server"
                    .to_owned(),
                format!("remove `nfs_init_script` from `{}`", p.id),
            );
        }
        for op in &p.ops {
            if op.timeout_ms() == Some(0) {
                let text = format!("`op {}` has a timeout of 0: it would fail at once", op.name);
                self.add("LINT011", &p.id, text, format!("give `op {}` a timeout", op.name));
            }
            if op.name == "stop" && matches!(op.attrs.get("on-fail"), Some("ignore")) {
                self.add(
                    "LINT012",
                    &p.id,
                    "`op stop on-fail=ignore`: a resource that did not stop is started elsewhere"
                        .to_owned(),
                    "remove on-fail=ignore from `op stop`".to_owned(),
                );
            }
        }
    }

    /// LINT008: a promotable primitive needs monitors with two intervals to see both roles.
    fn promotables(&mut self) {
        for resource in &self.cib.resources {
            let Resource::Clone(clone) = resource else { continue };
            if clone.promotable()
                && matches!(clone.meta.flag("notify"), None | Some(false))
                && resource_primitives(resource)
                    .iter()
                    .any(|p| p.agent.provider.as_deref() == Some("linbit"))
            {
                self.add(
                    "LINT013",
                    &clone.id,
                    "`notify` is off; the drbd agent of DRBD itself needs notify=true".to_owned(),
                    format!("add `meta notify=true` to `{}`", clone.id),
                );
            }
            if !clone.promotable() {
                continue;
            }
            for p in resource_primitives(resource) {
                let monitors: Vec<_> = p
                    .ops
                    .iter()
                    .filter(|op| op.name == "monitor" && op.interval_ms() > 0)
                    .collect();
                let master = monitors
                    .iter()
                    .any(|op| matches!(op.attrs.get("role"), Some("Master" | "Promoted")));
                if !monitors.is_empty() && !master {
                    self.add(
                        "LINT008",
                        &p.id,
                        "the promoted instance is not monitored: a monitor without role=Master runs on the others only".to_owned(),
                        format!("add `op monitor role=Master interval=...` with another interval to `{}`", p.id),
                    );
                }
            }
        }
    }

    /// LINT014: colocated for ever, but nothing says which one starts first.
    fn colocation_without_order(&mut self) {
        let cib = self.cib;
        for c in colocations(cib) {
            if c.score != Score::INF {
                continue;
            }
            let (Some(a), Some(b)) = (cib.top_of(&c.rsc), cib.top_of(&c.with)) else { continue };
            let promoted = c.rsc_role.max(c.with_role) == Some(Role::Promoted);
            if !promoted || a.id() == b.id() {
                continue;
            }
            let ordered = cib.constraints.iter().any(|constraint| match constraint {
                Constraint::Order(o) if o.kind == OrderKind::Mandatory => {
                    let mut tops: Vec<&str> = vec![&o.first, &o.then];
                    tops.extend(
                        o.sets.iter().flat_map(|s| &s.members).map(|m| m.resource.as_str()),
                    );
                    let has =
                        |id: &str| tops.iter().any(|t| cib.top_of(t).is_some_and(|r| r.id() == id));
                    has(a.id()) && has(b.id())
                }
                Constraint::Order(_) | Constraint::Location(_) | Constraint::Colocation(_) => false,
            });
            if !ordered {
                let (leader, follower) = if c.with_role == Some(Role::Promoted) {
                    (&c.with, &c.rsc)
                } else {
                    (&c.rsc, &c.with)
                };
                self.add(
                    "LINT014",
                    &c.id,
                    format!("`{follower}` needs the promoted `{leader}` on its node, but no order says that it waits for the promotion"),
                    format!("order {leader}-before-{follower} Mandatory: {leader}:promote {follower}:start"),
                );
            }
        }
    }

    /// LINT015: what `resource move` and `resource ban` left behind.
    fn left_over_moves(&mut self) {
        for constraint in &self.cib.constraints {
            let id = constraint.id();
            if id.starts_with("cli-prefer-") || id.starts_with("cli-ban-") {
                self.add(
                    "LINT015",
                    id,
                    "left over from `resource move` or `resource ban`: it still decides where the resource runs".to_owned(),
                    format!("delete {id}"),
                );
            }
        }
    }

    /// LINT016: two file systems on one device or one directory.
    fn duplicate_devices(&mut self) {
        let all = self.cib.primitives();
        let mounts: Vec<&&Primitive> =
            all.iter().filter(|p| p.agent.kind == "Filesystem").collect();
        for (index, p) in mounts.iter().enumerate() {
            for name in ["device", "directory"] {
                let Some(value) = p.params.get(name) else { continue };
                let first = mounts.iter().take(index).find(|o| o.params.get(name) == Some(value));
                if let Some(first) = first {
                    self.add(
                        "LINT016",
                        &p.id,
                        format!("it has the same {name} as `{}`: {value}", first.id),
                        format!("give one of them another {name}"),
                    );
                }
            }
        }
    }
}

fn colocations(cib: &Cib) -> Vec<&Colocation> {
    let pairs = cib.constraints.iter().filter_map(|c| match c {
        Constraint::Colocation(c) if c.sets.is_empty() => Some(c),
        Constraint::Colocation(_) | Constraint::Location(_) | Constraint::Order(_) => None,
    });
    pairs.collect()
}

fn resource_primitives(resource: &Resource) -> Vec<&Primitive> {
    let mut out = Vec::new();
    resource.collect_primitives(&mut out);
    out
}

/// The stickiness that a resource has: its own, of its parts, or the default.
fn stickiness(cib: &Cib, id: &str) -> Score {
    let read = |text: Option<&str>| text.and_then(Score::parse);
    let default = read(cib.rsc_defaults.get("resource-stickiness"));
    let Some(top) = cib.top_of(id) else { return default.unwrap_or(Score::ZERO) };
    let own = read(top.meta().get("resource-stickiness"));
    let parts = resource_primitives(top)
        .iter()
        .filter_map(|p| read(p.meta.get("resource-stickiness")))
        .max();
    own.or(parts).or(default).unwrap_or(Score::ZERO)
}

#[cfg(test)]
mod tests;
