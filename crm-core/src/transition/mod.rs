//! The transition runner: hands out the actions of a plan in order, takes in what became of them. Pure.
//!
//! Each action goes `waiting -> running -> done | failed`, or `waiting -> skipped` when something it needs did
//! not succeed. Nothing is started twice; after an abort nothing is started at all.

#[cfg(test)]
mod tests;

use crate::plan::{ActionId, ActionKind, Plan};
use std::collections::VecDeque;

/// Actions under way in the whole cluster at one time.
pub const BATCH_LIMIT: usize = 64;
/// Actions under way on one node at one time.
pub const NODE_LIMIT: usize = 8;
/// How long past its own timeout an action may stay unreported, in milliseconds.
pub const REPORT_GRACE_MS: u64 = 30_000;

/// What happens to a transition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// An action was reported.
    Done {
        /// Which.
        action: ActionId,
        /// As expected.
        ok: bool,
    },
    /// A node would not take an order.
    Refused {
        /// Which.
        action: ActionId,
    },
    /// A node is gone: what it was doing will not be reported.
    NodeLost {
        /// Its name.
        node: String,
    },
    /// New information: start nothing more.
    Abort,
    /// Time passed.
    Tick,
}

/// How a transition ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Every action succeeded.
    Complete,
    /// Something failed; what depended on it was left out.
    Failed,
    /// Aborted.
    Aborted,
}

/// What the caller is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Give this order.
    Run {
        /// Which.
        action: ActionId,
        /// What.
        kind: ActionKind,
    },
    /// The transition has ended; nothing more comes.
    Finished(End),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Waiting,
    Running { until_ms: u64 },
    Done,
    Failed,
    Skipped,
}

/// A plan under execution.
#[derive(Debug)]
pub struct Transition {
    plan: Plan,
    id: (u64, u64),
    phases: Vec<Phase>,
    aborted: bool,
    ended: bool,
    effects: VecDeque<Effect>,
}

impl Transition {
    /// A transition that has started nothing; the first [`Event`] (a tick will do) sets it going.
    #[must_use]
    pub fn new(plan: Plan, id: (u64, u64)) -> Self {
        let phases = vec![Phase::Waiting; plan.actions.len()];
        Self { plan, id, phases, aborted: false, ended: false, effects: VecDeque::new() }
    }

    /// Term and number of the plan.
    #[must_use]
    pub const fn id(&self) -> (u64, u64) {
        self.id
    }

    /// Takes in an event.
    pub fn handle(&mut self, now_ms: u64, event: Event) {
        if self.ended {
            return;
        }
        match event {
            Event::Done { action, ok } => self.settle(action, ok),
            Event::Refused { action } => self.settle(action, false),
            Event::NodeLost { node } => self.lose(&node),
            Event::Abort => self.aborted = true,
            Event::Tick => {}
        }
        self.expire(now_ms);
        self.skip_hopeless();
        self.start_ready(now_ms);
        self.end_if_quiet();
    }

    /// The next effect, if any.
    pub fn poll(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// When the first action under way is overdue.
    #[must_use]
    pub fn deadline(&self) -> Option<u64> {
        let until = |phase: &Phase| match phase {
            Phase::Running { until_ms } => Some(*until_ms),
            Phase::Waiting | Phase::Done | Phase::Failed | Phase::Skipped => None,
        };
        self.phases.iter().filter_map(until).min()
    }

    fn settle(&mut self, action: ActionId, ok: bool) {
        let Some(phase) = self.phases.get_mut(index(action)) else { return };
        if matches!(phase, Phase::Running { .. }) {
            *phase = if ok { Phase::Done } else { Phase::Failed };
        }
    }

    fn lose(&mut self, node: &str) {
        for (phase, action) in self.phases.iter_mut().zip(&self.plan.actions) {
            if node_of(&action.kind) == Some(node) && matches!(phase, Phase::Running { .. }) {
                *phase = Phase::Failed;
            }
        }
    }

    fn expire(&mut self, now_ms: u64) {
        for phase in &mut self.phases {
            if matches!(phase, Phase::Running { until_ms } if *until_ms <= now_ms) {
                *phase = Phase::Failed;
            }
        }
    }

    /// Leaves out whatever needs something that will not succeed.
    fn skip_hopeless(&mut self) {
        loop {
            let mut changed = false;
            for at in 0..self.phases.len() {
                let hopeless =
                    |need: &ActionId| matches!(self.phase(*need), Phase::Failed | Phase::Skipped);
                let waiting = self.phases.get(at) == Some(&Phase::Waiting);
                if waiting
                    && self.plan.actions.get(at).is_some_and(|a| a.needs.iter().any(hopeless))
                    && let Some(phase) = self.phases.get_mut(at)
                {
                    *phase = Phase::Skipped;
                    changed = true;
                }
            }
            if !changed {
                return;
            }
        }
    }

    fn phase(&self, action: ActionId) -> Phase {
        self.phases.get(index(action)).copied().unwrap_or(Phase::Skipped)
    }

    fn start_ready(&mut self, now_ms: u64) {
        while !self.aborted {
            let Some(at) = self.next_ready() else { return };
            let Some(action) = self.plan.actions.get(at) else { return };
            let phase = match &action.kind {
                ActionKind::Pseudo { .. } => Phase::Done,
                ActionKind::CancelMonitor { .. } | ActionKind::Cluster(_) => {
                    Phase::Running { until_ms: now_ms + REPORT_GRACE_MS }
                }
                ActionKind::Op(spec) => {
                    Phase::Running { until_ms: now_ms + spec.timeout_ms + REPORT_GRACE_MS }
                }
            };
            if phase != Phase::Done {
                let id = ActionId(u32::try_from(at).unwrap_or(u32::MAX));
                self.effects.push_back(Effect::Run { action: id, kind: action.kind.clone() });
            }
            if let Some(slot) = self.phases.get_mut(at) {
                *slot = phase;
            }
        }
    }

    /// The waiting action of highest priority whose needs are met and whose node has room.
    fn next_ready(&self) -> Option<usize> {
        let running = |node: Option<&str>| {
            let both = self.phases.iter().zip(&self.plan.actions);
            both.filter(|(p, a)| {
                matches!(p, Phase::Running { .. }) && (node.is_none() || node_of(&a.kind) == node)
            })
            .count()
        };
        if running(None) >= BATCH_LIMIT {
            return None;
        }
        let ready = self.plan.actions.iter().enumerate().filter(|(at, action)| {
            self.phases.get(*at) == Some(&Phase::Waiting)
                && action.needs.iter().all(|need| self.phase(*need) == Phase::Done)
                && node_of(&action.kind).is_none_or(|n| running(Some(n)) < NODE_LIMIT)
        });
        ready.min_by_key(|(at, action)| (-i64::from(action.priority), *at)).map(|(at, _)| at)
    }

    fn end_if_quiet(&mut self) {
        let quiet = !self.phases.iter().any(|p| matches!(p, Phase::Running { .. }));
        let waiting = self.phases.contains(&Phase::Waiting);
        if !quiet || (waiting && !self.aborted) {
            return;
        }
        self.ended = true;
        let failed = self.phases.iter().any(|p| matches!(p, Phase::Failed | Phase::Skipped));
        let end = if self.aborted {
            End::Aborted
        } else if failed {
            End::Failed
        } else {
            End::Complete
        };
        self.effects.push_back(Effect::Finished(end));
    }
}

fn index(action: ActionId) -> usize {
    usize::try_from(action.0).unwrap_or(usize::MAX)
}

fn node_of(kind: &ActionKind) -> Option<&str> {
    match kind {
        ActionKind::Op(spec) => Some(&spec.node),
        ActionKind::CancelMonitor { node, .. } => Some(node),
        ActionKind::Cluster(what) => Some(what.node()),
        ActionKind::Pseudo { .. } => None,
    }
}
