//! One request under way: levels, the steps of the level that is being tried, and what came of them.

use super::device::{Action, Config, Device, Kind, Verb};
use super::history::{Attempt, Evidence, Means, Record, Verdict};
use super::machine::Order;
use super::topology::Level;
use std::collections::VecDeque;

/// One thing that has to be asked of a device.
#[derive(Debug, Clone)]
pub(super) struct Step {
    pub(super) device: String,
    pub(super) verb: Verb,
    /// The level fails with it. (Power that does not come back fails nothing: the node is off.)
    pub(super) vital: bool,
    /// Times it was tried.
    pub(super) tried: u32,
    /// No further try begins after this time.
    pub(super) until_ms: Option<u64>,
    /// It is known that the device reaches the node.
    pub(super) reached: bool,
    /// The device's own delay is over.
    pub(super) delayed: bool,
}

impl Step {
    fn new(device: &str, verb: Verb, vital: bool) -> Self {
        let (tried, until_ms, reached, delayed) = (0, None, false, false);
        Self { device: device.to_owned(), verb, vital, tried, until_ms, reached, delayed }
    }
}

/// What a request waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// For another request about the same node.
    Queued,
    /// For the end of `priority-fencing-delay`.
    Holding(u64),
    /// For nothing, or for the device to be free.
    Ready,
    /// For the end of the device's own delay.
    Delaying(u64),
    /// For an agent, by the number of the attempt.
    Running(u64),
    /// For the node's watchdog.
    Clock(u64),
}

/// A request that has not ended.
#[derive(Debug)]
pub(super) struct Request {
    /// Ids of all that wait for it.
    pub(super) ids: Vec<u64>,
    pub(super) order: Order,
    pub(super) action: Action,
    pub(super) begun_ms: u64,
    pub(super) deadline_ms: Option<u64>,
    pub(super) stage: Stage,
    /// Levels not yet tried.
    levels: VecDeque<Level>,
    /// Number of the level that is being tried.
    number: Option<usize>,
    /// What is left of it.
    pub(super) steps: VecDeque<Step>,
    /// Devices that have confirmed in it: device, node that ran it (none for a watchdog).
    done: Vec<(String, Option<String>)>,
    attempts: Vec<Attempt>,
    pub(super) notes: Vec<String>,
}

impl Request {
    pub(super) fn new(order: Order, action: Action, now_ms: u64) -> Self {
        Self {
            ids: vec![order.id],
            action,
            begun_ms: now_ms,
            deadline_ms: order.timeout_ms.map(|ms| now_ms.saturating_add(ms)),
            order,
            stage: Stage::Queued,
            levels: VecDeque::new(),
            number: None,
            steps: VecDeque::new(),
            done: Vec::new(),
            attempts: Vec::new(),
            notes: Vec::new(),
        }
    }

    pub(super) fn target(&self) -> &str {
        &self.order.target
    }

    /// The next time at which something happens without an event.
    pub(super) fn wake_ms(&self) -> Option<u64> {
        let own = match self.stage {
            Stage::Holding(at) | Stage::Delaying(at) | Stage::Clock(at) => Some(at),
            Stage::Queued | Stage::Ready | Stage::Running(_) => None,
        };
        own.into_iter().chain(self.deadline_ms).min()
    }

    /// Another request for the same result may wait for this one. Not any more once the power is coming back: what is asked for then is
    /// about a node that was alive again.
    pub(super) fn serves(&self, target: &str, action: Action) -> bool {
        let alike = self.action == action || (self.action, action) == (Action::Off, Action::Reboot);
        let reviving = action.fences() && self.steps.front().is_some_and(|s| s.verb == Verb::On);
        self.target() == target && alike && !reviving
    }

    /// Its turn has come.
    pub(super) fn begin(&mut self, config: &Config, now_ms: u64) {
        self.levels = config.levels(self.target(), self.action).into();
        self.stage = Stage::Holding(now_ms.saturating_add(self.order.delay_ms));
    }

    /// Goes on to the next level; false when there is none.
    pub(super) fn next_level(&mut self, config: &Config) -> bool {
        let Some(level) = self.levels.pop_front() else { return false };
        self.number = level.number;
        self.done.clear();
        self.steps = steps(config, &level, self.action, &mut self.notes);
        self.stage = Stage::Ready;
        true
    }

    pub(super) fn tell(&mut self, now_ms: u64, node: Option<&str>, ok: bool, message: String) {
        let Some(step) = self.steps.front() else { return };
        self.attempts.push(Attempt {
            level: self.number,
            device: step.device.clone(),
            verb: step.verb,
            node: node.map(str::to_owned),
            at_ms: now_ms,
            ok,
            message,
        });
    }

    /// The step has succeeded.
    pub(super) fn pass(&mut self, node: Option<&str>) {
        self.stage = Stage::Ready;
        if let Some(step) = self.steps.pop_front()
            && step.vital
        {
            self.done.push((step.device, node.map(str::to_owned)));
        }
    }

    /// The step has failed for good; false when the request has, too.
    pub(super) fn fail(&mut self, config: &Config) -> bool {
        self.stage = Stage::Ready;
        match self.steps.pop_front() {
            Some(step) if !step.vital => {
                let note = format!("{} did not switch it on again: it is off", step.device);
                self.notes.push(note);
                true
            }
            Some(_) | None => self.next_level(config),
        }
    }

    /// What is told when all levels have failed.
    pub(super) fn why(&self) -> String {
        // The last word of each device.
        let mut said: Vec<(&str, String)> = Vec::new();
        for attempt in self.attempts.iter().filter(|a| !a.ok) {
            let on = attempt.node.as_ref().map(|n| format!(" on {n}")).unwrap_or_default();
            let text = format!("{}{on}: {}", attempt.device, attempt.message);
            match said.iter_mut().find(|(device, _)| *device == attempt.device) {
                Some(found) => found.1 = text,
                None => said.push((&attempt.device, text)),
            }
        }
        if said.is_empty() {
            return "no fencing device is configured for it".to_owned();
        }
        said.into_iter().map(|(_, text)| text).collect::<Vec<_>>().join("; ")
    }

    /// What its level has confirmed; nothing when nobody has said anything.
    pub(super) fn evidence(&self, config: &Config, now_ms: u64) -> Option<Evidence> {
        if self.done.is_empty() {
            return None;
        }
        let clock = |id: &str| config.device(id).is_some_and(|d| d.kind == Kind::Watchdog);
        let means = match self.done.iter().any(|(id, _)| clock(id)) {
            true => Means::Watchdog,
            false => Means::Devices,
        };
        Some(Evidence {
            target: self.target().to_owned(),
            action: self.action,
            means,
            devices: self.done.iter().map(|(device, _)| device.clone()).collect(),
            by: self.done.iter().filter_map(|(_, node)| node.clone()).collect(),
            at_ms: now_ms,
        })
    }

    /// The record of it.
    pub(super) fn record(self, verdict: Verdict, now_ms: u64) -> Record {
        Record {
            target: self.order.target,
            action: self.action,
            reason: self.order.reason,
            origin: self.order.origin,
            automatic: self.order.automatic,
            begun_ms: self.begun_ms,
            ended_ms: now_ms,
            verdict,
            attempts: self.attempts,
            notes: self.notes,
        }
    }
}

/// What a level asks of its devices. A reboot over several devices is all off, then all on: one after the other would leave the node
/// running on its other supply all the time. So is that of a device without a reboot. What guards access (`unfences`) is not opened again:
/// the node gets its access back when it joins.
fn steps(
    config: &Config,
    level: &Level,
    action: Action,
    notes: &mut Vec<String>,
) -> VecDeque<Step> {
    let all = |verb: Verb| level.devices.iter().map(move |id| Step::new(id, verb, true));
    if action != Action::Reboot {
        return all(action.into()).collect();
    }
    let known = |id: &String| config.device(id);
    if let [only] = level.devices.as_slice()
        && known(only).is_none_or(Device::reboots)
    {
        return all(Verb::Reboot).collect();
    }
    let mut out: VecDeque<Step> = all(Verb::Off).collect();
    for device in level.devices.iter().filter_map(known) {
        if device.kind == Kind::Watchdog || device.unfences {
            continue;
        }
        if device.abilities.actions.contains(Verb::On.word()) {
            out.push_back(Step::new(&device.id, Verb::On, false));
        } else {
            notes.push(format!("{} cannot switch on: it stays off", device.id));
        }
    }
    out
}
