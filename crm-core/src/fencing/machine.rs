//! The machine: requests in, attempts out, one verdict for each request.
//!
//! Laws (tests/laws.rs): every request ends; nothing is confirmed unless every device of one level said so, a watchdog had its time, or a
//! person said so; requests for one node with one result are merged; no node fences itself.

use super::device::{Action, Config, Device, Kind, Task, Verb};
use super::history::{Evidence, History, Means, Record, Verdict};
use super::hosts::{Answers, Query, Reach};
use super::request::{Request, Stage};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// An answer that is this late after its time limit does not come any more, in milliseconds.
pub const ANSWER_GRACE_MS: u64 = 10_000;

/// A request for fencing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// Number that the caller knows it by; one that is under way is not taken twice.
    pub id: u64,
    /// The node.
    pub target: String,
    /// What is to be done; `None`: `stonith-action`, by default a reboot.
    pub action: Option<Action>,
    /// Why, in words that go on after "because".
    pub reason: String,
    /// Who asks: a node, or a person.
    pub origin: String,
    /// The cluster asks, not a person: the rule against loops holds.
    pub automatic: bool,
    /// It fails when it has not ended after this time; `None`: when every device has had its time.
    pub timeout_ms: Option<u64>,
    /// Time to wait first ([`super::priority_delay_ms`]).
    pub delay_ms: u64,
    /// A random number, for `pcmk_delay_max`.
    pub dice: u64,
}

/// What the machine is to know of the nodes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct World {
    /// The node this machine runs on.
    pub here: String,
    /// Nodes that can run agents.
    pub live: BTreeSet<String>,
    /// Nodes that are reset by their own watchdog within `stonith-watchdog-timeout` after they lost us. The caller answers for that: the
    /// watchdog was armed when last heard of, and the node has lost its quorum with us (so never the other one of two equal nodes).
    pub armed: BTreeSet<String>,
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Answer {
    /// The agent's exit code; `None` when it was killed after its time, or could not be run.
    pub exit: Option<i32>,
    /// Its output (`list`).
    pub stdout: String,
    /// Its message, without secrets.
    pub message: String,
}

/// What happens.
#[derive(Debug)]
pub enum Event {
    /// There is a new configuration. Requests under way go on with it.
    Configure(Box<Config>),
    /// Nodes came or went.
    World(World),
    /// A device was started on a node and its monitor succeeded: that node is asked first.
    Registered {
        /// Device.
        device: String,
        /// Node.
        node: String,
    },
    /// A device was stopped on a node, or its monitor failed.
    Unregistered {
        /// Device.
        device: String,
        /// Node.
        node: String,
    },
    /// A node is to be fenced, or to be given access.
    Request(Order),
    /// An attempt has ended.
    Answer {
        /// Its number.
        attempt: u64,
        /// How.
        answer: Answer,
    },
    /// A person says that a node is off.
    Confirm {
        /// The node.
        target: String,
        /// Who says so.
        by: String,
    },
    /// A node has been a member without interruption for [`super::HEALTHY_AFTER_MS`].
    Healthy {
        /// The node.
        node: String,
    },
    /// Time has passed.
    Tick,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Have `node` run the agent of a device; answer with [`Event::Answer`].
    Run {
        /// Number of the attempt.
        attempt: u64,
        /// The node that runs it.
        node: String,
        /// What is asked; [`Config::call`] there makes the agent's parameters of it.
        task: Task,
        /// Time limit in milliseconds.
        limit_ms: u64,
    },
    /// The result of an attempt is not wanted any more: kill it. No answer is needed.
    Cancel {
        /// Number of the attempt.
        attempt: u64,
        /// The node that runs it.
        node: String,
    },
    /// Requests have ended with one result, which is in [`Fencer::history`] already. Without ids it was confirmed by hand unasked.
    Ended {
        /// Their numbers.
        ids: Vec<u64>,
        /// What came of them.
        record: Box<Record>,
    },
}

#[derive(Debug)]
struct Running {
    request: u64,
    node: String,
    task: Task,
    /// Without an answer by then there will be none.
    until_ms: u64,
}

/// The fencer of the node that leads.
#[derive(Debug, Default)]
pub struct Fencer {
    config: Config,
    world: World,
    answers: Answers,
    /// Where devices are started.
    registered: BTreeMap<String, BTreeSet<String>>,
    requests: BTreeMap<u64, Request>,
    running: BTreeMap<u64, Running>,
    /// The next number of a request (of ours) or attempt.
    next: u64,
    history: History,
}

impl Fencer {
    /// A fencer that goes on from the history that the cluster has kept.
    #[must_use]
    pub fn new(history: History) -> Self {
        Self { history, ..Self::default() }
    }

    /// Takes over what the cluster has kept, in place of what is known here.
    pub fn remember(&mut self, history: History) {
        self.history = history;
    }

    /// All that has ended.
    #[must_use]
    pub const fn history(&self) -> &History {
        &self.history
    }

    /// The configuration.
    #[must_use]
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// What devices have answered, for [`Config::coverage`].
    #[must_use]
    pub const fn answers(&self) -> &Answers {
        &self.answers
    }

    /// Nodes that are being fenced.
    #[must_use]
    pub fn pending(&self) -> BTreeSet<&str> {
        let fencing = self.requests.values().filter(|r| r.action.fences());
        fencing.map(Request::target).collect()
    }

    /// When [`Event::Tick`] is due, in milliseconds since the epoch.
    #[must_use]
    pub fn next_wake_ms(&self) -> Option<u64> {
        let attempts = self.running.values().map(|r| r.until_ms);
        self.requests.values().filter_map(Request::wake_ms).chain(attempts).min()
    }

    /// Takes an event, at a time that never goes back.
    pub fn handle(&mut self, now_ms: u64, event: Event) -> Vec<Effect> {
        let mut out = Vec::new();
        match event {
            Event::Configure(config) => {
                self.config = *config;
                self.answers.clear();
            }
            Event::World(world) => self.world = world,
            Event::Registered { device, node } => {
                self.registered.entry(device).or_default().insert(node);
            }
            Event::Unregistered { device, node } => {
                if let Some(nodes) = self.registered.get_mut(&device) {
                    nodes.remove(&node);
                }
            }
            Event::Request(order) => self.request(now_ms, order),
            Event::Answer { attempt, answer } => self.answer(now_ms, attempt, &answer, &mut out),
            Event::Confirm { target, by } => self.confirm(now_ms, &target, &by, &mut out),
            Event::Healthy { node } => self.history.healthy(&node, now_ms),
            Event::Tick => {}
        }
        self.give_up(now_ms, &mut out);
        self.drive(now_ms, &mut out);
        out
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn request(&mut self, now_ms: u64, order: Order) {
        if self.requests.values().any(|r| r.ids.contains(&order.id)) {
            return;
        }
        let wanted = order.action.or(self.config.action).unwrap_or(Action::Reboot);
        let (mut action, mut note) = (wanted, None);
        let times = self.history.looping(&order.target, now_ms);
        if let Some(times) = times.filter(|_| order.automatic && wanted == Action::Reboot) {
            action = Action::Off;
            note = Some(format!(
                "switched off, not rebooted: it was fenced {times} times within an hour and was not healthy in between"
            ));
        }
        if let Some(same) = self.requests.values_mut().find(|r| r.serves(&order.target, action)) {
            same.ids.push(order.id);
            same.notes.push(format!("{} asked for it too, because {}", order.origin, order.reason));
            return;
        }
        let mut request = Request::new(order, action, now_ms);
        request.notes.extend(note);
        let number = self.number();
        self.requests.insert(number, request);
    }

    /// Attempts and requests whose time is over, and attempts of nodes that are gone.
    fn give_up(&mut self, now_ms: u64, out: &mut Vec<Effect>) {
        let silent: Vec<(u64, String)> = self
            .running
            .iter()
            .filter_map(|(attempt, r)| {
                let lost = !self.world.live.contains(&r.node) && r.node != self.world.here;
                let why = match (lost, now_ms >= r.until_ms) {
                    (true, _) => format!("{} was lost while it ran this", r.node),
                    (false, true) => format!("no answer from {}", r.node),
                    (false, false) => return None,
                };
                Some((*attempt, why))
            })
            .collect();
        for (attempt, message) in silent {
            if let Some(running) = self.running.get(&attempt) {
                out.push(Effect::Cancel { attempt, node: running.node.clone() });
            }
            let answer = Answer { exit: None, stdout: String::new(), message };
            self.answer(now_ms, attempt, &answer, out);
        }
        let late = |r: &Request| r.deadline_ms.is_some_and(|at| now_ms >= at);
        let late: Vec<u64> =
            self.requests.iter().filter(|(_, r)| late(r)).map(|(n, _)| *n).collect();
        for number in late {
            self.end(now_ms, number, out, |request| {
                let after = now_ms.saturating_sub(request.begun_ms);
                let why = format!("it took longer than {after} ms ({})", request.why());
                Verdict::Failed { why }
            });
        }
    }

    /// Ends a request; what still runs for it is called off.
    fn end(
        &mut self,
        now_ms: u64,
        number: u64,
        out: &mut Vec<Effect>,
        verdict: impl FnOnce(&Request) -> Verdict,
    ) {
        let Some(request) = self.requests.remove(&number) else { return };
        let verdict = verdict(&request);
        if let Stage::Running(attempt) = request.stage
            && let Some(running) = self.running.remove(&attempt)
        {
            out.push(Effect::Cancel { attempt, node: running.node });
        }
        let ids = request.ids.clone();
        let record = request.record(verdict, now_ms);
        self.history.push(record.clone());
        out.push(Effect::Ended { ids, record: Box::new(record) });
    }

    fn confirm(&mut self, now_ms: u64, target: &str, by: &str, out: &mut Vec<Effect>) {
        let evidence = |action| Evidence {
            target: target.to_owned(),
            action,
            means: Means::Hand,
            devices: Vec::new(),
            by: vec![by.to_owned()],
            at_ms: now_ms,
        };
        let meant = |r: &Request| r.target() == target && r.action.fences();
        let asked: Vec<u64> =
            self.requests.iter().filter(|(_, r)| meant(r)).map(|(n, _)| *n).collect();
        if asked.is_empty() {
            let record = Record {
                target: target.to_owned(),
                action: Action::Off,
                reason: "a person said so".to_owned(),
                origin: by.to_owned(),
                automatic: false,
                begun_ms: now_ms,
                ended_ms: now_ms,
                verdict: Verdict::Confirmed(evidence(Action::Off)),
                attempts: Vec::new(),
                notes: Vec::new(),
            };
            self.history.push(record.clone());
            out.push(Effect::Ended { ids: Vec::new(), record: Box::new(record) });
        }
        for number in asked {
            self.end(now_ms, number, out, |r| Verdict::Confirmed(evidence(r.action)));
        }
    }

    /// Takes every request as far as it goes.
    fn drive(&mut self, now_ms: u64, out: &mut Vec<Effect>) {
        loop {
            let numbers: Vec<u64> = self.requests.keys().copied().collect();
            let mut ended = false;
            for number in numbers {
                ended |= self.advance(now_ms, number, out);
            }
            // Others may have waited for what has ended.
            if !ended {
                return;
            }
        }
    }

    /// Takes one request as far as it goes; true when it has ended.
    fn advance(&mut self, now_ms: u64, number: u64, out: &mut Vec<Effect>) -> bool {
        loop {
            let Some(request) = self.requests.get(&number) else { return false };
            match request.stage {
                Stage::Queued => {
                    let target = request.target();
                    if self.requests.range(..number).any(|(_, other)| other.target() == target) {
                        return false;
                    }
                    let config = &self.config;
                    if let Some(request) = self.requests.get_mut(&number) {
                        request.begin(config, now_ms);
                    }
                }
                Stage::Holding(at) if now_ms >= at => {
                    let config = &self.config;
                    let more = self.requests.get_mut(&number).is_some_and(|r| r.next_level(config));
                    if !more {
                        self.end(now_ms, number, out, failed);
                        return true;
                    }
                }
                Stage::Delaying(at) if now_ms >= at => self.stage(number, Stage::Ready),
                Stage::Clock(_) if !self.world.armed.contains(request.target()) => {
                    // It may have been fed again: the time begins anew.
                    let why = "it was heard, or we were not there, while its watchdog had its time";
                    let why = why.to_owned();
                    if let Some(request) = self.requests.get_mut(&number) {
                        request.tell(now_ms, None, false, why);
                    }
                    if self.fail(now_ms, number, out) {
                        return true;
                    }
                }
                Stage::Clock(at) if now_ms >= at => {
                    if let Some(request) = self.requests.get_mut(&number) {
                        request.tell(
                            now_ms,
                            None,
                            true,
                            "the watchdog has had its time".to_owned(),
                        );
                        request.pass(None);
                    }
                }
                Stage::Holding(_) | Stage::Delaying(_) | Stage::Clock(_) | Stage::Running(_) => {
                    return false;
                }
                Stage::Ready => match self.step(now_ms, number, out) {
                    Next::Wait => return false,
                    Next::Stage(stage) => self.stage(number, stage),
                    Next::Skip => {
                        if let Some(request) = self.requests.get_mut(&number) {
                            request.steps.pop_front();
                        }
                    }
                    Next::Refuse(why) => {
                        if let Some(request) = self.requests.get_mut(&number) {
                            request.tell(now_ms, None, false, why);
                        }
                        if self.fail(now_ms, number, out) {
                            return true;
                        }
                    }
                    Next::Done => {
                        self.done(now_ms, number, out);
                        return true;
                    }
                },
            }
        }
    }

    /// A level is complete.
    fn done(&mut self, now_ms: u64, number: u64, out: &mut Vec<Effect>) {
        let evidence = self.requests.get(&number).and_then(|r| r.evidence(&self.config, now_ms));
        self.end(now_ms, number, out, |r| evidence.map_or_else(|| failed(r), Verdict::Confirmed));
    }

    fn stage(&mut self, number: u64, stage: Stage) {
        if let Some(request) = self.requests.get_mut(&number) {
            request.stage = stage;
        }
    }

    /// The step has failed for good; true when the request has ended with it.
    fn fail(&mut self, now_ms: u64, number: u64, out: &mut Vec<Effect>) -> bool {
        let config = &self.config;
        let more = self.requests.get_mut(&number).is_some_and(|r| r.fail(config));
        if !more {
            self.end(now_ms, number, out, failed);
        }
        !more
    }

    /// What is to be done for the step that a request has come to.
    fn step(&mut self, now_ms: u64, number: u64, out: &mut Vec<Effect>) -> Next {
        let Some(request) = self.requests.get_mut(&number) else { return Next::Wait };
        let target = request.target().to_owned();
        let dice = request.order.dice;
        let Some(step) = request.steps.front_mut() else { return Next::Done };
        let Some(device) = self.config.device(&step.device) else {
            return Next::Refuse("there is no such device, or it is switched off".to_owned());
        };
        let mut verb = step.verb;
        if !step.reached {
            match device.reach(&target, &self.answers, &self.world.armed, now_ms) {
                Reach::Yes => step.reached = true,
                // Access is given by those that guard something from this node; the others have no part in it.
                Reach::No(_) if step.verb == Verb::On && device.unfences => return Next::Skip,
                Reach::No(why) => return Next::Refuse(why),
                Reach::Ask(Query::List) => verb = Verb::List,
                Reach::Ask(Query::Status) => verb = Verb::Status,
            }
        }
        if device.kind == Kind::Watchdog {
            return match self.config.watchdog_ms {
                Some(ms) if step.verb != Verb::On => {
                    Next::Stage(Stage::Clock(now_ms.saturating_add(ms)))
                }
                Some(_) | None => Next::Refuse("no watchdog is relied on".to_owned()),
            };
        }
        let nodes = executors(&self.world, self.registered.get(&device.id), device, verb, &target);
        let turn = usize::try_from(step.tried).unwrap_or(0) % nodes.len().max(1);
        let Some(node) = nodes.into_iter().nth(turn) else {
            return Next::Refuse("no node that lives may run it".to_owned());
        };
        let fences = matches!(verb, Verb::Off | Verb::Reboot);
        if fences && !std::mem::replace(&mut step.delayed, true) {
            let delay = device.delay_ms(&target, dice);
            if delay > 0 {
                return Next::Stage(Stage::Delaying(now_ms.saturating_add(delay)));
            }
        }
        let busy = self.running.values().filter(|r| r.task.device == device.id).count();
        if device.slots().is_some_and(|slots| busy >= slots) {
            return Next::Wait;
        }
        let mut limit_ms = device.limit_ms(verb, self.config.timeout_ms);
        if verb == step.verb {
            let until = *step.until_ms.get_or_insert_with(|| now_ms.saturating_add(limit_ms));
            limit_ms = until.saturating_sub(now_ms);
            if limit_ms == 0 {
                return Next::Refuse("no time was left for another try".to_owned());
            }
        }
        let about = (verb != Verb::List).then(|| target.clone());
        let task = Task { device: device.id.clone(), verb, target: about };
        let attempt = self.number();
        let until_ms = now_ms.saturating_add(limit_ms).saturating_add(ANSWER_GRACE_MS);
        out.push(Effect::Run { attempt, node: node.clone(), task: task.clone(), limit_ms });
        self.running.insert(attempt, Running { request: number, node, task, until_ms });
        Next::Stage(Stage::Running(attempt))
    }

    /// An attempt has ended. What was called off, or is not known, is not heard.
    fn answer(&mut self, now_ms: u64, attempt: u64, answer: &Answer, out: &mut Vec<Effect>) {
        let Some(Running { request: number, node, task, .. }) = self.running.remove(&attempt)
        else {
            return;
        };
        let Some(request) = self.requests.get_mut(&number) else { return };
        let message = words(answer);
        match task.verb {
            Verb::List => {
                let output = (answer.exit == Some(0)).then_some(answer.stdout.as_str());
                if output.is_none() {
                    let note = format!("{} on {node} could not list: {message}", task.device);
                    request.notes.push(note);
                }
                self.answers.listed(now_ms, &task.device, output);
                request.stage = Stage::Ready;
            }
            // 0: it is on, 2: it is off; both know it (fence agent API).
            Verb::Status => {
                let knows = matches!(answer.exit, Some(0 | 2));
                let refusal = (!knows).then(|| format!("it does not know it: {message}"));
                self.answers.checked(now_ms, &task.device, request.target(), refusal);
                request.stage = Stage::Ready;
            }
            Verb::Off | Verb::Reboot | Verb::On | Verb::Monitor => {
                let ok = answer.exit == Some(0);
                request.tell(now_ms, Some(&node), ok, message);
                if ok {
                    request.pass(Some(&node));
                    return;
                }
                let tries = self.config.device(&task.device).map_or(1, |d| d.tries(task.verb));
                let again = request.steps.front_mut().is_some_and(|step| {
                    step.tried += 1;
                    step.tried < tries && step.until_ms.is_none_or(|until| now_ms < until)
                });
                if again {
                    request.stage = Stage::Ready;
                } else {
                    self.fail(now_ms, number, out);
                }
            }
        }
    }
}

/// What comes next for a step.
enum Next {
    /// The device is busy.
    Wait,
    Stage(Stage),
    /// It need not be done.
    Skip,
    /// It cannot be done.
    Refuse(String),
    /// The level is complete.
    Done,
}

fn failed(request: &Request) -> Verdict {
    Verdict::Failed { why: request.why() }
}

fn words(answer: &Answer) -> String {
    let said = answer.message.trim();
    match answer.exit {
        Some(0) => said.to_owned(),
        Some(code) if said.is_empty() => format!("it ended with {code} without a message"),
        None if said.is_empty() => "it was killed after its time".to_owned(),
        Some(_) | None => said.to_owned(),
    }
}

/// The nodes that may run a device, in the order in which they are asked: where it is started, then this one, then the others. A node does
/// not fence itself: it would have to be believed afterwards. Access it may give itself, and some agents can give it only there.
fn executors(
    world: &World,
    registered: Option<&BTreeSet<String>>,
    device: &Device,
    verb: Verb,
    target: &str,
) -> Vec<String> {
    let rank = |node: &&String| {
        let started = registered.is_some_and(|nodes| nodes.contains(*node));
        (*node == target, !started, **node != world.here, (*node).clone())
    };
    let here = Some(&world.here).filter(|name| !name.is_empty() && !world.live.contains(*name));
    let may = |node: &&String| {
        let own = *node == target;
        let there = if device.abilities.on_target && verb == Verb::On { own } else { true };
        there && (!own || verb == Verb::On) && !device.barred.contains(*node)
    };
    let mut nodes: Vec<&String> = world.live.iter().chain(here).filter(may).collect();
    nodes.sort_by_key(rank);
    nodes.into_iter().cloned().collect()
}
