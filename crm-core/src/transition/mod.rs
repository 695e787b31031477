//! The transition runner: hands out the actions of a plan in order, takes in what became of them. Pure.
//!
//! Each action goes `waiting -> running -> done | failed`, or `waiting -> skipped` when something it needs did
//! not succeed. Nothing is started twice; after an abort nothing is started at all. A report that comes after its action was given up is
//! not heard here: the status has it, and the next plan is made from that. The work is linear in actions and needs, whatever the plan's size.

#[cfg(test)]
mod tests;

use crate::cib::Cib;
use crate::plan::{ActionId, ActionKind, Plan};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Actions under way in the whole cluster at one time, unless `batch-limit` says otherwise.
pub const BATCH_LIMIT: usize = 64;
/// Actions under way on one node at one time, unless `node-action-limit` says otherwise.
pub const NODE_LIMIT: usize = 8;
/// How long past its own timeout an action may stay unreported, in milliseconds.
pub const REPORT_GRACE_MS: u64 = 30_000;

/// How much may be under way at one time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// In the whole cluster (`batch-limit`).
    pub batch: usize,
    /// On one node (`node-action-limit`).
    pub node: usize,
    /// Live migrations on one node, both halves counted (`migration-limit`).
    pub migrations: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { batch: BATCH_LIMIT, node: NODE_LIMIT, migrations: usize::MAX }
    }
}

impl Limits {
    /// As the cluster properties say. 0 (for `migration-limit` also -1), or nothing that is a number, is the default.
    #[must_use]
    pub fn of(cib: &Cib) -> Self {
        let default = Self::default();
        let number = |name: &str, default: usize| {
            let wanted = cib.properties.get(name).and_then(|value| value.trim().parse().ok());
            wanted.filter(|n| *n > 0).unwrap_or(default)
        };
        Self {
            batch: number("batch-limit", default.batch),
            node: number("node-action-limit", default.node),
            migrations: number("migration-limit", default.migrations),
        }
    }
}

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

/// What is ready and under way on one node.
#[derive(Debug, Default)]
struct Lane {
    /// Ready actions, the most important first: negated priority, place in the plan.
    ready: BTreeSet<(i64, usize)>,
    /// Ready halves of migrations.
    ready_migrations: BTreeSet<(i64, usize)>,
    running: usize,
    running_migrations: usize,
}

impl Lane {
    /// The most important action that may begin.
    fn next(&self, limits: Limits) -> Option<(i64, usize)> {
        if self.running >= limits.node {
            return None;
        }
        let migration = self.ready_migrations.first();
        let migration = migration.filter(|_| self.running_migrations < limits.migrations);
        self.ready.first().into_iter().chain(migration).min().copied()
    }
}

/// A plan under execution.
#[derive(Debug)]
pub struct Transition {
    plan: Plan,
    id: (u64, u64),
    limits: Limits,
    phases: Vec<Phase>,
    /// By action: which ones need it.
    followers: Vec<Vec<usize>>,
    /// By action: how many of its needs have not succeeded yet.
    missing: Vec<usize>,
    /// Ready pseudo-actions: they take no time and no room.
    points: Vec<usize>,
    lanes: BTreeMap<String, Lane>,
    /// Actions under way by the time when they are given up.
    overdue: BTreeSet<(u64, usize)>,
    waiting: usize,
    failed: bool,
    aborted: bool,
    ended: bool,
    effects: VecDeque<Effect>,
}

impl Transition {
    /// A transition that has started nothing; the first [`Event`] (a tick will do) sets it going.
    #[must_use]
    pub fn new(plan: Plan, id: (u64, u64), limits: Limits) -> Self {
        let count = plan.actions.len();
        let mut transition = Self {
            id,
            limits,
            phases: vec![Phase::Waiting; count],
            followers: vec![Vec::new(); count],
            missing: vec![0; count],
            points: Vec::new(),
            lanes: BTreeMap::new(),
            overdue: BTreeSet::new(),
            waiting: count,
            failed: false,
            aborted: false,
            ended: false,
            effects: VecDeque::new(),
            plan,
        };
        let mut hopeless = Vec::new();
        for (at, action) in transition.plan.actions.iter().enumerate() {
            for need in &action.needs {
                match transition.followers.get_mut(index(*need)) {
                    Some(followers) => followers.push(at),
                    None => hopeless.push(at), // what is not in the plan will not succeed
                }
            }
            if let Some(missing) = transition.missing.get_mut(at) {
                *missing = action.needs.len();
            }
        }
        transition.skip(hopeless);
        for at in 0..count {
            transition.ready_if_complete(at);
        }
        transition
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
            Event::Done { action, ok } => self.settle(index(action), ok),
            Event::Refused { action } => self.settle(index(action), false),
            Event::NodeLost { node } => self.lose(&node),
            Event::Abort => self.aborted = true,
            Event::Tick => {}
        }
        self.expire(now_ms);
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
        self.overdue.first().map(|(until_ms, _)| *until_ms)
    }

    fn settle(&mut self, at: usize, ok: bool) {
        let Some(Phase::Running { until_ms }) = self.phases.get(at).copied() else { return };
        self.overdue.remove(&(until_ms, at));
        let kind = self.plan.actions.get(at).map(|a| &a.kind);
        if let Some(lane) = kind.and_then(node_of).and_then(|n| self.lanes.get_mut(n)) {
            lane.running = lane.running.saturating_sub(1);
            if kind.is_some_and(is_migration) {
                lane.running_migrations = lane.running_migrations.saturating_sub(1);
            }
        }
        if ok {
            self.succeed(at);
        } else {
            self.set(at, Phase::Failed);
            self.failed = true;
            self.skip(self.followers.get(at).cloned().unwrap_or_default());
        }
    }

    fn set(&mut self, at: usize, phase: Phase) {
        if let Some(slot) = self.phases.get_mut(at) {
            *slot = phase;
        }
    }

    fn succeed(&mut self, at: usize) {
        self.set(at, Phase::Done);
        for follower in self.followers.get(at).cloned().unwrap_or_default() {
            if let Some(missing) = self.missing.get_mut(follower) {
                *missing = missing.saturating_sub(1);
            }
            self.ready_if_complete(follower);
        }
    }

    fn ready_if_complete(&mut self, at: usize) {
        let waits = self.phases.get(at) == Some(&Phase::Waiting);
        let Some(action) = self.plan.actions.get(at) else { return };
        if !waits || self.missing.get(at) != Some(&0) {
            return;
        }
        let key = (-i64::from(action.priority), at);
        let Some(node) = node_of(&action.kind) else {
            self.points.push(at);
            return;
        };
        let lane = self.lanes.entry(node.to_owned()).or_default();
        if is_migration(&action.kind) {
            lane.ready_migrations.insert(key);
        } else {
            lane.ready.insert(key);
        }
    }

    /// Leaves out whatever needs something that will not succeed.
    fn skip(&mut self, mut hopeless: Vec<usize>) {
        while let Some(at) = hopeless.pop() {
            if self.phases.get(at) == Some(&Phase::Waiting) {
                self.set(at, Phase::Skipped);
                self.waiting -= 1;
                self.failed = true;
                hopeless.extend(self.followers.get(at).into_iter().flatten());
            }
        }
    }

    fn lose(&mut self, node: &str) {
        let here =
            |at: &usize| self.plan.actions.get(*at).is_some_and(|a| node_of(&a.kind) == Some(node));
        let lost: Vec<usize> = self.overdue.iter().map(|(_, at)| *at).filter(here).collect();
        for at in lost {
            self.settle(at, false);
        }
    }

    fn expire(&mut self, now_ms: u64) {
        while let Some((until_ms, at)) = self.overdue.first().copied()
            && until_ms <= now_ms
        {
            self.settle(at, false);
        }
    }

    fn start_ready(&mut self, now_ms: u64) {
        while !self.aborted {
            if let Some(point) = self.points.pop() {
                self.waiting -= 1;
                self.succeed(point);
                continue;
            }
            if self.overdue.len() >= self.limits.batch {
                return;
            }
            let limits = self.limits;
            let next = self.lanes.values().filter_map(|lane| lane.next(limits)).min();
            let Some(key) = next else { return };
            self.start(now_ms, key);
        }
    }

    fn start(&mut self, now_ms: u64, key: (i64, usize)) {
        let at = key.1;
        let Some(action) = self.plan.actions.get(at) else { return };
        let timeout_ms = match &action.kind {
            ActionKind::Op(spec) => spec.timeout_ms,
            ActionKind::Pseudo { .. }
            | ActionKind::CancelMonitor { .. }
            | ActionKind::Cluster(_) => 0,
        };
        let until_ms = now_ms.saturating_add(timeout_ms).saturating_add(REPORT_GRACE_MS);
        if let Some(lane) = node_of(&action.kind).and_then(|n| self.lanes.get_mut(n)) {
            lane.running += 1;
            if lane.ready_migrations.remove(&key) {
                lane.running_migrations += 1;
            }
            lane.ready.remove(&key);
        }
        let id = ActionId(u32::try_from(at).unwrap_or(u32::MAX));
        self.effects.push_back(Effect::Run { action: id, kind: action.kind.clone() });
        self.overdue.insert((until_ms, at));
        self.waiting -= 1;
        self.set(at, Phase::Running { until_ms });
    }

    fn end_if_quiet(&mut self) {
        if !self.overdue.is_empty() {
            return;
        }
        self.ended = true;
        let end = if self.aborted {
            End::Aborted
        } else if self.failed || self.waiting > 0 {
            // What still waits and is not ready waits for itself.
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

fn is_migration(kind: &ActionKind) -> bool {
    matches!(kind, ActionKind::Op(spec) if spec.op == "migrate_to" || spec.op == "migrate_from")
}
