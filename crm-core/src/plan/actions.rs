//! The actions of a plan: made on demand, one for each resource, task, interval and node, and the edges between them.
//!
//! An action begins as a possibility. What makes it needed (not [`Flag::OPTIONAL`]) or impossible (not [`Flag::RUNNABLE`]) is found by the
//! phases in turn: `create` asks for what a change of role takes, `spread` passes it on along the edges, `graph` keeps what is needed and possible.

use super::model::{Model, NoQuorum, NodeIx, RscIx};
use super::order::{Link, Ordering};
use crate::cib::Role;
use std::collections::BTreeMap;

/// Index of an action in the table.
pub(super) type ActIx = usize;
/// Index of an edge in the table.
pub(super) type EdgeIx = usize;

/// What is done to a resource or a node. Collections have the first eight as points in the order, primitives the even ones as operations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Task {
    Start,
    Running,
    Stop,
    Stopped,
    Promote,
    Promoted,
    Demote,
    Demoted,
    /// A probe (interval 0) or a recurring monitor.
    Monitor,
    /// A recurring monitor ends.
    Cancel,
    MigrateTo,
    MigrateFrom,
    Reload,
    /// The history is forgotten.
    Delete,
    ClearFailures,
    /// Instances are told: when, and of what.
    Notify(Stage, Of),
    Fence,
    /// A fenced node may use its storage again.
    Unfence,
    Shutdown,
    /// A named point in the order.
    Point,
}

/// When instances are told of an action.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Stage {
    Pre,
    PreDone,
    Post,
    PostDone,
}

/// What instances are told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Of {
    Start,
    Running,
    Stop,
    Stopped,
    Promote,
    Promoted,
    Demote,
    Demoted,
    Fence,
}

impl Of {
    pub(super) const fn task(self) -> Task {
        match self {
            Self::Start => Task::Start,
            Self::Running => Task::Running,
            Self::Stop => Task::Stop,
            Self::Stopped => Task::Stopped,
            Self::Promote => Task::Promote,
            Self::Promoted => Task::Promoted,
            Self::Demote => Task::Demote,
            Self::Demoted => Task::Demoted,
            Self::Fence => Task::Fence,
        }
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "nothing else is told of")]
    pub(super) const fn about(task: Task) -> Option<Self> {
        Some(match task {
            Task::Start => Self::Start,
            Task::Running => Self::Running,
            Task::Stop => Self::Stop,
            Task::Stopped => Self::Stopped,
            Task::Promote => Self::Promote,
            Task::Promoted => Self::Promoted,
            Task::Demote => Self::Demote,
            Task::Demoted => Self::Demoted,
            Task::Fence => Self::Fence,
            _ => return None,
        })
    }
}

impl Task {
    /// What undoes it.
    #[expect(clippy::wildcard_enum_match_arm, reason = "nothing else can be undone")]
    pub(super) const fn inverse(self) -> Self {
        match self {
            Self::Start => Self::Stop,
            Self::Stop => Self::Start,
            Self::Promote => Self::Demote,
            Self::Demote => Self::Promote,
            other => other,
        }
    }

    /// Brings a resource up.
    pub(super) const fn rises(self) -> bool {
        matches!(self, Self::Start | Self::Promote)
    }

    /// The point at which it is complete for a collection.
    #[expect(clippy::wildcard_enum_match_arm, reason = "nothing else has a completion")]
    pub(super) const fn completion(self) -> Option<Self> {
        Some(match self {
            Self::Start | Self::Running => Self::Running,
            Self::Stop | Self::Stopped => Self::Stopped,
            Self::Promote | Self::Promoted => Self::Promoted,
            Self::Demote | Self::Demoted => Self::Demoted,
            _ => return None,
        })
    }

    /// The operation of a primitive whose completion it is.
    #[expect(clippy::wildcard_enum_match_arm, reason = "everything else stands for itself")]
    pub(super) const fn operation(self) -> Self {
        match self {
            Self::Running => Self::Start,
            Self::Stopped => Self::Stop,
            Self::Promoted => Self::Promote,
            Self::Demoted => Self::Demote,
            other => other,
        }
    }

    /// Pacemaker's word.
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Running => "running",
            Self::Stop => "stop",
            Self::Stopped => "stopped",
            Self::Promote => "promote",
            Self::Promoted => "promoted",
            Self::Demote => "demote",
            Self::Demoted => "demoted",
            Self::Monitor => "monitor",
            Self::Cancel => "cancel",
            Self::MigrateTo => "migrate_to",
            Self::MigrateFrom => "migrate_from",
            Self::Reload => "reload-agent",
            Self::Delete => "delete",
            Self::ClearFailures => "clear_failcount",
            Self::Notify(..) => "notify",
            Self::Fence => "stonith",
            Self::Unfence => "on",
            Self::Shutdown => "do_shutdown",
            Self::Point => "point",
        }
    }

    /// How an instance that has a history is told of after it was fenced: its end is called a stop.
    const fn after_fencing(self) -> Option<&'static str> {
        if let Self::Notify(stage, Of::Fence) = self {
            return match stage {
                Stage::Post => Some("post_notify_stop"),
                Stage::PostDone => Some("notified"),
                Stage::Pre | Stage::PreDone => None,
            };
        }
        None
    }

    /// Pacemaker's key without the resource and the interval.
    pub(super) fn key(self) -> String {
        let Self::Notify(stage, of) = self else { return self.word().to_owned() };
        let stage = match stage {
            Stage::Pre => "pre",
            Stage::PreDone => "confirmed-pre",
            Stage::Post => "post",
            Stage::PostDone => "confirmed-post",
        };
        format!("{stage}_notify_{}", of.task().word())
    }
}

/// What is known of an action.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Flags(u16);

/// One flag of an action.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Flag(u16);

impl Flag {
    /// Not needed (so far).
    pub(super) const OPTIONAL: Self = Self(1);
    /// Possible (so far).
    pub(super) const RUNNABLE: Self = Self(2);
    /// Nothing is executed: a point in the order.
    pub(super) const PSEUDO: Self = Self(4);
    /// Part of a live migration.
    pub(super) const MIGRATABLE: Self = Self(8);
    /// Kept in the graph without being needed.
    pub(super) const ALWAYS: Self = Self(16);
    /// Possible when enough of its inputs are.
    pub(super) const COUNTS: Self = Self(32);
    /// A recurring monitor that begins anew with changed settings.
    pub(super) const AGAIN: Self = Self(64);
    /// Ends a migration that was left half-way.
    pub(super) const DANGLING: Self = Self(128);
    /// Needed for a reason that no line of the summary tells.
    pub(super) const UNTOLD: Self = Self(256);
}

impl Flags {
    pub(super) const fn of(optional: bool) -> Self {
        Self(if optional { Flag::OPTIONAL.0 | Flag::RUNNABLE.0 } else { Flag::RUNNABLE.0 })
    }

    /// What a collection's action begins with, before its members have a say.
    pub(super) const fn collective() -> Self {
        Self(Flag::OPTIONAL.0 | Flag::RUNNABLE.0 | Flag::PSEUDO.0)
    }

    pub(super) const fn has(self, flag: Flag) -> bool {
        self.0 & flag.0 != 0
    }

    pub(super) const fn set(&mut self, flag: Flag) {
        self.0 |= flag.0;
    }

    pub(super) const fn clear(&mut self, flag: Flag) {
        self.0 &= !flag.0;
    }

    pub(super) const fn optional(self) -> bool {
        self.has(Flag::OPTIONAL)
    }

    pub(super) const fn runnable(self) -> bool {
        self.has(Flag::RUNNABLE)
    }

    pub(super) const fn pseudo(self) -> bool {
        self.has(Flag::PSEUDO)
    }

    pub(super) const fn migratable(self) -> bool {
        self.has(Flag::MIGRATABLE)
    }
}

/// What must be there before a start or promotion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Needs {
    Nothing,
    Quorum,
    Fencing,
}

/// An action.
#[derive(Debug)]
pub(super) struct Act {
    pub(super) rsc: Option<RscIx>,
    pub(super) task: Task,
    pub(super) interval_ms: u64,
    pub(super) node: Option<NodeIx>,
    /// Name of an action of no resource.
    pub(super) name: String,
    pub(super) flags: Flags,
    pub(super) needs: Needs,
    /// How many of its inputs must be possible, and how many were found to be.
    pub(super) enough: u32,
    pub(super) found: u32,
    /// Configured operation of the primitive (recurring monitors).
    pub(super) config: Option<usize>,
    /// Exit code that is expected, when it is not 0.
    pub(super) expected_rc: i32,
    /// What it comes after and before.
    pub(super) before: Vec<EdgeIx>,
    pub(super) after: Vec<EdgeIx>,
}

/// `first` before `then`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Edge {
    pub(super) first: ActIx,
    pub(super) then: ActIx,
    /// What it means now; none when it was found not to apply.
    pub(super) link: Link,
    /// What it meant when it was made.
    pub(super) made: Link,
}

/// All actions, and all orders between them.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) acts: Vec<Act>,
    pub(super) edges: Vec<Edge>,
    /// Actions by resource, oldest first.
    pub(super) of: Vec<Vec<ActIx>>,
    /// Actions of no resource, by name.
    pub(super) named: BTreeMap<String, ActIx>,
    /// Orders that are not bound to actions yet, oldest first.
    pub(super) orders: Vec<Ordering>,
    /// Edges into actions that have very many, by the other end.
    dense: BTreeMap<ActIx, BTreeMap<ActIx, Vec<EdgeIx>>>,
    /// The actions of resources that have many.
    many: BTreeMap<RscIx, Many>,
    /// As Pacemaker has them.
    exact: bool,
}

/// Edges, and actions, that are looked through one by one; more are looked up.
const SCANNED: usize = 32;

/// Actions of one resource, oldest first.
#[derive(Debug, Default)]
struct Many {
    by_task: BTreeMap<Task, Vec<ActIx>>,
    by_interval: BTreeMap<(Task, u64), Vec<ActIx>>,
}

impl Many {
    fn add(&mut self, act: ActIx, task: Task, interval_ms: u64) {
        self.by_task.entry(task).or_default().push(act);
        self.by_interval.entry((task, interval_ms)).or_default().push(act);
    }
}

impl Table {
    pub(super) fn new(model: &Model<'_>) -> Self {
        Self {
            acts: Vec::new(),
            edges: Vec::new(),
            of: vec![Vec::new(); model.rscs.len()],
            named: BTreeMap::new(),
            orders: Vec::new(),
            dense: BTreeMap::new(),
            many: BTreeMap::new(),
            exact: model.props.exact,
        }
    }

    fn push(&mut self, rsc: Option<RscIx>, task: Task, optional: bool) -> ActIx {
        self.acts.push(Act {
            rsc,
            task,
            interval_ms: 0,
            node: None,
            name: String::new(),
            flags: Flags::of(optional),
            needs: Needs::Nothing,
            enough: 0,
            found: 0,
            config: None,
            expected_rc: 0,
            before: Vec::new(),
            after: Vec::new(),
        });
        self.acts.len() - 1
    }

    pub(super) fn flags(&self, act: ActIx) -> Flags {
        self.acts[act].flags
    }

    pub(super) fn set(&mut self, act: ActIx, flag: Flag) {
        self.acts[act].flags.set(flag);
    }

    pub(super) fn clear(&mut self, act: ActIx, flag: Flag) {
        self.acts[act].flags.clear(flag);
    }

    /// Needed and not impossible.
    pub(super) fn happens(&self, act: ActIx) -> bool {
        let flags = self.flags(act);
        !flags.optional() && flags.runnable()
    }

    /// The newest action of a resource with this task; with a node, the one there.
    pub(super) fn find(&self, rsc: RscIx, task: Task, node: Option<NodeIx>) -> Option<ActIx> {
        let fits = |a: &&ActIx| {
            let act = &self.acts[**a];
            act.task == task && (node.is_none() || act.node == node)
        };
        self.with_task(rsc, task).iter().rev().find(fits).copied()
    }

    /// All one-shot actions of a resource with this task.
    pub(super) fn all(&self, rsc: RscIx, task: Task) -> Vec<ActIx> {
        let fits = |a: &&ActIx| self.acts[**a].task == task && self.acts[**a].interval_ms == 0;
        self.with_interval(rsc, task, 0).iter().filter(fits).copied().collect()
    }

    /// The same on one node.
    pub(super) fn all_on(&self, rsc: RscIx, task: Task, node: NodeIx) -> Vec<ActIx> {
        let mut out = self.all(rsc, task);
        out.retain(|a| self.acts[*a].node == Some(node));
        out
    }

    /// The recurring monitor with this interval on a node.
    pub(super) fn recurring(&self, rsc: RscIx, interval_ms: u64, node: NodeIx) -> Option<ActIx> {
        let fits = |a: &&ActIx| {
            let act = &self.acts[**a];
            act.task == Task::Monitor && act.interval_ms == interval_ms && act.node == Some(node)
        };
        self.with_interval(rsc, Task::Monitor, interval_ms).iter().find(fits).copied()
    }

    /// A resource's actions, as far as can be told without a search only those with a task.
    fn with_task(&self, rsc: RscIx, task: Task) -> &[ActIx] {
        match self.many.get(&rsc).filter(|_| self.of[rsc].len() > SCANNED) {
            Some(many) => many.by_task.get(&task).map_or(&[], Vec::as_slice),
            None => &self.of[rsc],
        }
    }

    /// The same with an interval.
    fn with_interval(&self, rsc: RscIx, task: Task, interval_ms: u64) -> &[ActIx] {
        match self.many.get(&rsc).filter(|_| self.of[rsc].len() > SCANNED) {
            Some(many) => many.by_interval.get(&(task, interval_ms)).map_or(&[], Vec::as_slice),
            None => &self.of[rsc],
        }
    }

    /// Notes an action as one of a resource's.
    fn belongs(&mut self, rsc: RscIx, act: ActIx) {
        self.of[rsc].push(act);
        let count = self.of[rsc].len();
        if count <= SCANNED {
            return;
        }
        let acts = &self.acts;
        let many = self.many.entry(rsc).or_default();
        let new = if count == SCANNED + 1 { &self.of[rsc][..] } else { &[act] };
        for act in new {
            many.add(*act, acts[*act].task, acts[*act].interval_ms);
        }
    }

    /// The one-shot action of a resource on a node; made when it is not there yet, needed when `optional` is false.
    pub(super) fn make(
        &mut self,
        model: &mut Model<'_>,
        rsc: RscIx,
        task: Task,
        node: Option<NodeIx>,
        optional: bool,
    ) -> ActIx {
        self.make_every(model, (rsc, task, 0), node, optional)
    }

    /// The same with an interval.
    pub(super) fn make_every(
        &mut self,
        model: &mut Model<'_>,
        (rsc, task, interval_ms): (RscIx, Task, u64),
        node: Option<NodeIx>,
        optional: bool,
    ) -> ActIx {
        let fits = |a: &&ActIx| {
            let act = &self.acts[**a];
            act.task == task
                && act.interval_ms == interval_ms
                && (node.is_none() || act.node.is_none() || act.node == node)
        };
        let act = match self.with_interval(rsc, task, interval_ms).iter().find(fits).copied() {
            Some(act) => {
                if self.acts[act].node.is_none() {
                    self.acts[act].node = node;
                }
                act
            }
            None => {
                let act = self.push(Some(rsc), task, optional);
                self.acts[act].interval_ms = interval_ms;
                self.acts[act].node = node;
                self.acts[act].needs = needs(model, rsc, task);
                self.belongs(rsc, act);
                act
            }
        };
        let shot = node.is_some() && interval_ms == 0;
        if shot && !model.movable(rsc) {
            self.set(act, Flag::OPTIONAL);
        } else if !optional {
            self.clear(act, Flag::OPTIONAL);
        }
        if self.possible(model, act) {
            self.set(act, Flag::RUNNABLE);
        } else {
            self.clear(act, Flag::RUNNABLE);
        }
        act
    }

    /// A point in the order of a collection's own actions.
    pub(super) fn point(
        &mut self,
        model: &mut Model<'_>,
        rsc: RscIx,
        task: Task,
        optional: bool,
        runnable: bool,
    ) -> ActIx {
        let act = self.make(model, rsc, task, None, optional);
        self.set(act, Flag::PSEUDO);
        if runnable {
            self.set(act, Flag::RUNNABLE);
        }
        act
    }

    /// An action of no resource; made when it is not there yet.
    pub(super) fn named(&mut self, name: &str, task: Task, node: Option<NodeIx>) -> ActIx {
        if let Some(act) = self.named.get(name) {
            return *act;
        }
        let act = self.push(None, task, true);
        self.acts[act].node = node;
        name.clone_into(&mut self.acts[act].name);
        if task == Task::Point {
            self.set(act, Flag::PSEUDO);
        }
        self.named.insert(name.to_owned(), act);
        act
    }

    /// Can it be done where it is to be done?
    fn possible(&self, model: &mut Model<'_>, act: ActIx) -> bool {
        let entry = &self.acts[act];
        let Some(rsc) = entry.rsc else { return true };
        if entry.flags.pseudo() {
            return entry.flags.runnable();
        }
        let Some(node) = entry.node else { return false };
        let guest = model.nodes[node].kind.container().is_some() && !model.nodes[node].reset;
        if !model.nodes[node].online && !guest {
            let unclean = model.unclean(node);
            let stop = entry.task == Task::Stop && model.movable(rsc);
            if stop && !unclean && model.props.exact {
                model.nodes[node].fence = Some("stop is unrunnable".to_owned());
            }
            return false;
        }
        if model.nodes[node].pending {
            return false;
        }
        let frozen = !model.quorate && model.props.no_quorum == NoQuorum::Freeze;
        match entry.needs {
            Needs::Nothing => true,
            // Freezing forbids what is more than before, and allows nothing that was impossible.
            Needs::Quorum | Needs::Fencing
                if frozen && model.props.exact && allowed_by_quorum(model, rsc) =>
            {
                entry.flags.runnable()
            }
            Needs::Quorum | Needs::Fencing if allowed_by_quorum(model, rsc) => true,
            Needs::Quorum | Needs::Fencing => {
                if entry.flags.runnable() {
                    model.because(rsc, Some(node), "no-quorum", "no quorum".to_owned());
                }
                false
            }
        }
    }

    /// Binds two actions at once; tells whether that is new.
    pub(super) fn bind(&mut self, first: ActIx, then: ActIx, link: Link) -> bool {
        if first == then || link.is_none() {
            return false;
        }
        let mut link = link;
        self.index(first, then);
        for edge in self.candidates(first, then) {
            let edge = &self.edges[*edge];
            if edge.first != first || edge.then != then {
                continue;
            }
            if self.exact && edge.made.resembles(link) {
                // Of two orders that have anything in common Pacemaker keeps the first.
                return false;
            }
            link = link.without(edge.made);
        }
        if link.is_none() {
            return false;
        }
        let edge = self.edges.len();
        self.edges.push(Edge { first, then, link, made: link });
        self.acts[first].after.push(edge);
        self.acts[then].before.push(edge);
        if let Some(by_first) = self.dense.get_mut(&then) {
            by_first.entry(first).or_default().push(edge);
        }
        true
    }

    fn few(&self, first: ActIx, then: ActIx) -> bool {
        self.acts[first].after.len().min(self.acts[then].before.len()) <= SCANNED
    }

    /// Makes it possible to look up the edges between two actions where there are many to look through.
    fn index(&mut self, first: ActIx, then: ActIx) {
        if self.few(first, then) || self.dense.contains_key(&then) {
            return;
        }
        let mut by_first: BTreeMap<ActIx, Vec<EdgeIx>> = BTreeMap::new();
        for edge in &self.acts[then].before {
            by_first.entry(self.edges[*edge].first).or_default().push(*edge);
        }
        self.dense.insert(then, by_first);
    }

    /// Edges among which those between two actions are.
    fn candidates(&self, first: ActIx, then: ActIx) -> &[EdgeIx] {
        let (out, into) = (&self.acts[first].after, &self.acts[then].before);
        match self.dense.get(&then).filter(|_| !self.few(first, then)) {
            Some(by_first) => by_first.get(&first).map_or(&[], Vec::as_slice),
            None if out.len() < into.len() => out,
            None => into,
        }
    }

    /// Pacemaker's key of an action.
    pub(super) fn key(&self, model: &Model<'_>, act: ActIx) -> String {
        let entry = &self.acts[act];
        match entry.rsc {
            Some(r) => {
                let alike = model.rscs[r].clone.is_some() && !model.unique(r);
                if let Some(end) = entry.task.after_fencing().filter(|_| alike) {
                    return format!("{}_{end}_0", model.rscs[r].id);
                }
                format!("{}_{}_{}", model.label(r), entry.task.key(), entry.interval_ms)
            }
            None => entry.name.clone(),
        }
    }
}

/// What starts and promotions of a resource need.
fn needs(model: &Model<'_>, rsc: RscIx, task: Task) -> Needs {
    if !task.rises() {
        return Needs::Nothing;
    }
    if model.needs_fencing(rsc) {
        Needs::Fencing
    } else if model.rscs[rsc].meta.needs_quorum {
        Needs::Quorum
    } else {
        Needs::Nothing
    }
}

/// Without quorum the policy decides what may still be brought up.
fn allowed_by_quorum(model: &mut Model<'_>, rsc: RscIx) -> bool {
    if model.quorate || !model.props.exact {
        return true;
    }
    let role = model.role(rsc);
    match model.props.no_quorum {
        NoQuorum::Ignore => true,
        NoQuorum::Stop | NoQuorum::Suicide => false,
        NoQuorum::Freeze => model.is_active(rsc) && model.rscs[rsc].next_role <= role,
        NoQuorum::Demote if matches!(role, Role::Promoted | Role::Unpromoted) => {
            let next = &mut model.rscs[rsc].next_role;
            *next = (*next).min(Role::Unpromoted);
            true
        }
        NoQuorum::Demote => false,
    }
}

impl Model<'_> {
    /// The role a resource has now; of a collection, the highest of its members'.
    pub(super) fn role(&self, rsc: RscIx) -> Role {
        let roles = |r: RscIx| self.rscs[r].active.iter().map(|a| a.role).max();
        let best = if self.rscs[rsc].children.is_empty() {
            roles(rsc)
        } else {
            self.leaves(rsc).into_iter().filter_map(roles).max()
        };
        best.unwrap_or(Role::Stopped)
    }

    /// The node has to be fenced.
    pub(super) fn unclean(&self, node: NodeIx) -> bool {
        !self.nodes[node].clean || self.nodes[node].fence.is_some()
    }

    /// A device that fences.
    pub(super) fn fences(&self, rsc: RscIx) -> bool {
        self.rscs[rsc].agent.is_some_and(|a| a.class == "stonith")
    }

    /// It may start only when every node that has to be fenced has been.
    pub(super) fn needs_fencing(&self, rsc: RscIx) -> bool {
        self.rscs[rsc].meta.needs_fencing && !(self.props.exact && self.fences(rsc))
    }

    /// Is `above` a parent of `rsc`, at any height?
    pub(super) fn is_inside(&self, rsc: RscIx, above: RscIx) -> bool {
        let mut at = self.rscs[rsc].parent;
        while let Some(parent) = at {
            if parent == above {
                return true;
            }
            at = self.rscs[parent].parent;
        }
        false
    }

    /// The one node where a resource will be (or, with `current`, is).
    pub(super) fn location(&self, rsc: RscIx, current: bool) -> Option<NodeIx> {
        if self.rscs[rsc].children.is_empty() {
            let r = &self.rscs[rsc];
            return if current { r.sole_active().map(|s| s.node) } else { r.assigned };
        }
        let mut found = None;
        for leaf in self.leaves(rsc) {
            let r = &self.rscs[leaf];
            let nodes: Vec<NodeIx> = if current {
                r.active.iter().map(|a| a.node).collect()
            } else {
                r.assigned.into_iter().collect()
            };
            for node in nodes {
                if found.is_some_and(|f| f != node) {
                    return None;
                }
                found = Some(node);
            }
        }
        found
    }
}
