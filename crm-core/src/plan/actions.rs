//! Phase 8: the actions that could be needed, as a table with flags; `order` decides which are.

use super::model::{Kind, Model, MultipleActive, NoQuorum, NodeIx, RscIx};
use crate::cib::Role;
use std::ops::BitOr;

/// Index of an action in the table.
pub(super) type ActIx = usize;

/// What is done to a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Task {
    Start,
    Stop,
    Promote,
    Demote,
}

impl Task {
    pub(super) const ALL: [Self; 4] = [Self::Start, Self::Stop, Self::Promote, Self::Demote];

    pub(super) const fn inverse(self) -> Self {
        match self {
            Self::Start => Self::Stop,
            Self::Stop => Self::Start,
            Self::Promote => Self::Demote,
            Self::Demote => Self::Promote,
        }
    }

    /// Brings a resource up (as opposed to down).
    pub(super) const fn rises(self) -> bool {
        matches!(self, Self::Start | Self::Promote)
    }

    pub(super) const fn op(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Promote => "promote",
            Self::Demote => "demote",
        }
    }

    /// Pacemaker's word for "done" of a collection.
    pub(super) const fn completion(self) -> &'static str {
        match self {
            Self::Start => "running",
            Self::Stop => "stopped",
            Self::Promote => "promoted",
            Self::Demote => "demoted",
        }
    }
}

/// What an entry of the table is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum What {
    /// An operation on a primitive.
    Do(Task),
    /// A point in the order.
    Point(String),
    Probe,
    /// A recurring monitor begins; index of the op in the primitive.
    Monitor(usize),
    /// A recurring monitor ends.
    Cancel(u64),
    /// The agent takes changed parameters without a restart.
    Reload,
    /// First half of a migration.
    MigrateTo,
    /// Second half.
    MigrateFrom,
    /// The node is cut off.
    Fence,
    /// The node's services end.
    Shutdown,
    /// The history is forgotten.
    Forget,
}

/// An entry of the table.
#[derive(Debug)]
pub(super) struct Act {
    pub(super) what: What,
    pub(super) rsc: RscIx,
    pub(super) node: Option<NodeIx>,
    pub(super) required: bool,
    pub(super) runnable: bool,
    /// Nothing is done: fencing has done it, or a migration.
    pub(super) implied: bool,
    /// Of the inputs of which some suffice: how many are as wanted without any action.
    pub(super) granted: u32,
    /// How many of those inputs suffice.
    pub(super) enough: u32,
}

/// How two actions are bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Link(u8);

impl Link {
    /// First ends before then begins.
    pub(super) const ORDER: Self = Self(1);
    /// First needed ⇒ then needed.
    pub(super) const IMPLIES_THEN: Self = Self(2);
    /// Then needed ⇒ first needed.
    pub(super) const IMPLIES_FIRST: Self = Self(4);
    /// First impossible ⇒ then impossible.
    pub(super) const BLOCKS: Self = Self(8);
    /// Then impossible ⇒ first needed (what can not start again must stop).
    pub(super) const GIVES_UP: Self = Self(16);
    /// First needed but impossible ⇒ then impossible.
    pub(super) const BLOCKS_IF_NEEDED: Self = Self(32);
    /// First is one of the inputs of which one suffices.
    pub(super) const ANY: Self = Self(64);

    const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    pub(super) const fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

impl BitOr for Link {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// The entries of one resource.
#[derive(Debug, Default, Clone)]
pub(super) struct Own {
    /// Operations of a primitive by task (stops and demotes may be several).
    pub(super) tasks: [Vec<ActIx>; 4],
    /// First point of a collection by task.
    pub(super) begin: [Option<ActIx>; 4],
    /// Last point of a collection by task.
    pub(super) end: [Option<ActIx>; 4],
}

/// All entries and how they are bound.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) acts: Vec<Act>,
    pub(super) out: Vec<Vec<(ActIx, Link)>>,
    pub(super) into: Vec<Vec<(ActIx, Link)>>,
    pub(super) own: Vec<Own>,
}

impl Table {
    /// Makes the entries of all resources, with what binds the entries of one resource to each other.
    pub(super) fn build(model: &mut Model<'_>) -> Self {
        let mut table = Self {
            acts: Vec::new(),
            out: Vec::new(),
            into: Vec::new(),
            own: vec![Own::default(); model.rscs.len()],
        };
        for r in 0..model.rscs.len() {
            if matches!(model.rscs[r].kind, Kind::Primitive) {
                table.primitive(model, r);
            }
        }
        // Children come after their parents: going backwards, inner collections are ready first.
        for r in (0..model.rscs.len()).rev() {
            if !matches!(model.rscs[r].kind, Kind::Primitive) {
                table.collection(model, r);
            }
        }
        table
    }

    pub(super) fn add(&mut self, what: What, rsc: RscIx, node: Option<NodeIx>) -> ActIx {
        self.acts.push(Act {
            what,
            rsc,
            node,
            required: false,
            runnable: true,
            implied: false,
            granted: 0,
            enough: 1,
        });
        self.out.push(Vec::new());
        self.into.push(Vec::new());
        self.acts.len() - 1
    }

    pub(super) fn link(&mut self, first: ActIx, then: ActIx, link: Link) {
        if first == then {
            return;
        }
        self.out[first].push((then, link));
        self.into[then].push((first, link));
    }

    /// The action is needed without making others needed; its own resource's actions keep their bonds.
    pub(super) fn relax(&mut self, act: ActIx) {
        let rsc = self.acts[act].rsc;
        for (then, link) in self.out[act].clone() {
            if self.acts[then].rsc != rsc {
                self.relink(act, then, link.without(Link::IMPLIES_THEN));
            }
        }
        for (first, link) in self.into[act].clone() {
            if self.acts[first].rsc != rsc {
                self.relink(first, act, link.without(Link::IMPLIES_FIRST));
            }
        }
    }

    fn relink(&mut self, first: ActIx, then: ActIx, now: Link) {
        for (act, link) in &mut self.out[first] {
            if *act == then {
                *link = now;
            }
        }
        for (act, link) in &mut self.into[then] {
            if *act == first {
                *link = now;
            }
        }
    }

    pub(super) fn tasks(&self, rsc: RscIx, task: Task) -> &[ActIx] {
        &self.own[rsc].tasks[task as usize]
    }

    fn operation(&mut self, rsc: RscIx, task: Task, node: NodeIx, required: bool) -> ActIx {
        let act = self.add(What::Do(task), rsc, Some(node));
        self.acts[act].required = required;
        self.own[rsc].tasks[task as usize].push(act);
        act
    }

    /// The way down and the way up of a primitive; what stays has both as possibilities, so that an order can make it restart.
    fn primitive(&mut self, model: &mut Model<'_>, r: RscIx) {
        if !model.movable(r) {
            return;
        }
        let rsc = &model.rscs[r];
        let (chosen, next) = (rsc.assigned, rsc.next_role);
        let active = rsc.active.clone();
        let several = active.len() > 1 && rsc.meta.multiple_active == MultipleActive::StopStart;
        let again = several || active.iter().any(|a| (a.failed && !a.demote_only) || a.changed);
        let mut down = Vec::new();
        let mut role_here = None;
        for seen in &active {
            let stays = chosen == Some(seen.node) && !again;
            let stop = self.operation(r, Task::Stop, seen.node, !stays);
            self.imply(model, stop);
            down.push(stop);
            if chosen == Some(seen.node) {
                role_here = Some(seen.role);
            }
            if seen.role == Role::Promoted {
                let leaves_role = !stays || next != Role::Promoted;
                let demote = self.operation(r, Task::Demote, seen.node, leaves_role);
                if seen.demote_failed && !model.props.exact {
                    // It failed; stopping is the way out. The point keeps its place in the order.
                    self.acts[demote].what = What::Point(format!("{}_demote_0", model.label(r)));
                }
                self.imply(model, demote);
                self.link(demote, stop, Link::ORDER | Link::IMPLIES_FIRST | Link::BLOCKS_IF_NEEDED);
            }
        }
        let Some(node) = chosen else { return };
        let start = self.operation(r, Task::Start, node, role_here.is_none() || again);
        for stop in down {
            let restart = Link::IMPLIES_THEN | Link::IMPLIES_FIRST | Link::GIVES_UP;
            self.link(stop, start, Link::ORDER | restart | Link::BLOCKS_IF_NEEDED);
        }
        let mut rising = vec![start];
        if next == Role::Promoted {
            let stays = role_here == Some(Role::Promoted) && !again;
            let promote = self.operation(r, Task::Promote, node, !stays);
            self.link(start, promote, Link::ORDER | Link::IMPLIES_THEN | Link::BLOCKS);
            for demote in self.tasks(r, Task::Demote).to_vec() {
                let restart = Link::IMPLIES_THEN | Link::IMPLIES_FIRST | Link::GIVES_UP;
                self.link(demote, promote, Link::ORDER | restart | Link::BLOCKS_IF_NEEDED);
            }
            rising.push(promote);
        }
        if active.iter().any(|a| a.reload && Some(a.node) == chosen) {
            let reload = self.add(What::Reload, r, chosen);
            self.acts[reload].required = true;
            for act in &rising {
                self.link(reload, *act, Link::ORDER);
            }
        }
        self.refuse(model, r, role_here, &rising);
    }

    /// What is to be done on a node that is fenced is done by that; on one that is away and is not fenced it is impossible.
    fn imply(&mut self, model: &Model<'_>, act: ActIx) {
        let Some(node) = self.acts[act].node else { return };
        if model.will_fence(node) {
            self.acts[act].implied = true;
        } else if !model.nodes[node].online || model.nodes[node].pending {
            self.acts[act].runnable = false;
        }
    }

    /// Starts and promotes that must not happen now.
    fn refuse(
        &mut self,
        model: &mut Model<'_>,
        r: RscIx,
        role_here: Option<Role>,
        rising: &[ActIx],
    ) {
        let next = model.rscs[r].next_role;
        let capped = match model.props.no_quorum {
            NoQuorum::Freeze => {
                model.rscs[r].active.is_empty() || role_here.is_some_and(|now| next > now)
            }
            NoQuorum::Demote => model.rscs[r].active.is_empty(),
            NoQuorum::Stop | NoQuorum::Suicide | NoQuorum::Ignore => false,
        };
        let node = model.rscs[r].assigned;
        let stops = matches!(model.props.no_quorum, NoQuorum::Stop | NoQuorum::Suicide);
        if model.props.exact && !model.quorate && stops && model.rscs[r].meta.needs_quorum {
            // Not even what runs may go on: what cannot start again stops.
            model.because(r, node, "no-quorum", "no quorum".to_owned());
            for act in rising {
                self.acts[*act].runnable = false;
            }
            return;
        }
        if !model.quorate && capped {
            let text = "no quorum: nothing new is started".to_owned();
            model.because(r, node, "no-quorum", text);
        } else if let Some(text) = model.waits_for_fencing(r).or_else(|| model.waits_for_report(r))
        {
            let needed = rising.iter().any(|a| self.acts[*a].required);
            if !needed {
                return;
            }
            model.because(r, node, "unclean", text);
        } else {
            return;
        }
        for act in rising {
            if self.acts[*act].required {
                self.acts[*act].runnable = false;
            }
        }
    }

    /// First and last points of a group or clone.
    fn collection(&mut self, model: &Model<'_>, r: RscIx) {
        let any = matches!(model.rscs[r].kind, Kind::Clone(_));
        let roles = model.rscs[r].promotable()
            || model.rscs[r].clone.is_some_and(|c| model.rscs[c].promotable());
        for task in Task::ALL {
            if !roles && matches!(task, Task::Promote | Task::Demote) {
                continue;
            }
            self.points(model, r, task, any);
        }
        let end = self.own[r].end;
        let begin = self.own[r].begin;
        let sequence = [
            (Task::Stop, Task::Start),
            (Task::Stop, Task::Promote),
            (Task::Demote, Task::Start),
            (Task::Demote, Task::Stop),
            (Task::Demote, Task::Promote),
            (Task::Start, Task::Promote),
        ];
        for (first, then) in sequence {
            if let (Some(e), Some(b)) = (end[first as usize], begin[then as usize]) {
                self.link(e, b, Link::ORDER);
            }
        }
    }

    fn points(&mut self, model: &Model<'_>, r: RscIx, task: Task, any: bool) {
        let label = model.label(r);
        let begin = self.add(What::Point(format!("{label}_{}_0", task.op())), r, None);
        let end = self.add(What::Point(format!("{label}_{}_0", task.completion())), r, None);
        self.own[r].begin[task as usize] = Some(begin);
        self.own[r].end[task as usize] = Some(end);
        self.link(begin, end, Link::ORDER);
        let (mut possible, mut granted) = (false, 0);
        let mut missing = false;
        for child in model.rscs[r].children.clone() {
            let (begins, ends) = (self.begins(child, task), self.ends(child, task));
            for b in &begins {
                self.link(begin, *b, Link::ORDER | Link::IMPLIES_FIRST);
            }
            for e in &ends {
                let rising = if any { Link::ANY } else { Link::BLOCKS };
                let down = Link::BLOCKS_IF_NEEDED;
                let spread = if task.rises() { rising } else { down };
                self.link(*e, end, Link::ORDER | Link::IMPLIES_THEN | spread);
                possible |= self.acts[*e].runnable;
            }
            let satisfied = model.satisfied(child, task);
            granted += u32::from(satisfied);
            missing |= ends.is_empty() && !satisfied;
        }
        if task.rises() {
            self.acts[end].granted = granted;
            self.acts[end].runnable = if any { possible || granted > 0 } else { !missing };
        }
    }

    /// Where an action on `rsc` begins: the operation, or a collection's first point.
    pub(super) fn begins(&self, rsc: RscIx, task: Task) -> Vec<ActIx> {
        let own = &self.own[rsc];
        own.begin[task as usize].map_or_else(|| own.tasks[task as usize].clone(), |b| vec![b])
    }

    /// Where an action on `rsc` ends.
    pub(super) fn ends(&self, rsc: RscIx, task: Task) -> Vec<ActIx> {
        let own = &self.own[rsc];
        own.end[task as usize].map_or_else(|| own.tasks[task as usize].clone(), |e| vec![e])
    }

    /// The operations of an action on `rsc`.
    pub(super) fn operations(&self, model: &Model<'_>, rsc: RscIx, task: Task) -> Vec<ActIx> {
        let leaves = model.leaves(rsc).into_iter();
        leaves.flat_map(|l| self.tasks(l, task).iter().copied()).collect()
    }
}

impl Model<'_> {
    /// Nothing has to be done for `task` to count as done, and nothing will be done.
    pub(super) fn satisfied(&self, rsc: RscIx, task: Task) -> bool {
        self.leaves(rsc).into_iter().all(|leaf| {
            let r = &self.rscs[leaf];
            match task {
                Task::Start => {
                    let held = self.props.exact && r.blocked() && r.active.iter().any(|a| a.failed);
                    !self.movable(leaf) && !r.active.is_empty() && !held
                }
                Task::Promote => {
                    !self.movable(leaf) && r.active.iter().any(|a| a.role == Role::Promoted)
                }
                Task::Stop => r.active.is_empty(),
                Task::Demote => r.active.iter().all(|a| a.role != Role::Promoted),
            }
        })
    }
}
