//! Phase 11, second half: "needed", "impossible" and "migratable" spread along the edges until nothing changes.
//!
//! Flags of actions are only ever taken away (counting points are the exception: they are counted anew each time, from inputs that only ever
//! lose), so this ends. A collection's action is judged by those of its members, for a node if the other side of the edge has one.

use super::actions::{ActIx, EdgeIx, Flag, Flags, Of, Stage, Table, Task};
use super::collective;
use super::model::{Kind, Model, NodeIx, RscIx};
use super::order::Link;
use crate::cib::Role;
use std::collections::{BTreeSet, VecDeque};

/// The work left.
pub(super) struct Spread<'s, 'a> {
    pub(super) model: &'s mut Model<'a>,
    pub(super) table: &'s mut Table,
    queue: VecDeque<ActIx>,
    queued: Vec<bool>,
    /// Present when all is settled and only the reasons are missing.
    telling: Option<Telling>,
}

/// What is told of steps that wait in vain: everything that blocks, and once.
struct Telling {
    told: BTreeSet<(RscIx, RscIx, Option<NodeIx>, &'static str)>,
    /// What was impossible from the beginning needs no further reason.
    impossible: Vec<bool>,
}

/// What one edge has changed.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Changed {
    pub(super) first: bool,
    pub(super) then: bool,
}

impl Changed {
    pub(super) const fn or(self, other: Self) -> Self {
        Self { first: self.first || other.first, then: self.then || other.then }
    }
}

/// Which meaning of an edge is applied, and to which flags.
#[derive(Debug, Clone, Copy)]
pub(super) struct Meaning {
    pub(super) link: Link,
    /// The first action's flags as they are seen from the other side.
    pub(super) seen: Flags,
    /// Node to which a collection's members are limited.
    pub(super) node: Option<usize>,
}

/// What is impossible from the start makes impossible what must be with it.
pub(super) fn block(model: &mut Model<'_>, table: &mut Table) {
    let queued = vec![true; table.acts.len()];
    let mut spread = Spread { model, table, queue: VecDeque::new(), queued, telling: None };
    for act in 0..spread.table.acts.len() {
        collective::block_dependents(&mut spread, act);
    }
}

/// Spreads until nothing changes.
pub(super) fn settle(model: &mut Model<'_>, table: &mut Table) {
    let count = table.acts.len();
    let impossible: Vec<bool> = (0..count).map(|a| !table.flags(a).runnable()).collect();
    let queue = (0..count).rev().collect();
    let mut spread = Spread { model, table, queue, queued: vec![true; count], telling: None };
    spread.run();
    if (0..count).any(|a| !impossible[a] && !spread.table.flags(a).runnable()) {
        // Which of several blockers came first is chance; when nothing changes any more, all of them are there.
        spread.telling = Some(Telling { told: BTreeSet::new(), impossible });
        spread.queue = (0..spread.table.acts.len()).collect();
        spread.queued = vec![true; spread.table.acts.len()];
        spread.run();
    }
}

impl Spread<'_, '_> {
    fn run(&mut self) {
        while let Some(act) = self.queue.pop_front() {
            self.queued[act] = false;
            self.update(act);
        }
    }

    pub(super) fn again(&mut self, act: ActIx) {
        if self.queued.len() <= act {
            self.queued.resize(act + 1, false);
        }
        if !std::mem::replace(&mut self.queued[act], true) {
            self.queue.push_back(act);
        }
    }

    /// An action and all after it are looked at again.
    pub(super) fn again_with_followers(&mut self, act: ActIx) {
        self.again(act);
        for at in 0..self.table.acts[act].after.len() {
            let then = self.table.edges[self.table.acts[act].after[at]].then;
            self.again(then);
        }
    }

    fn node_of(&self, act: ActIx) -> Option<usize> {
        let entry = &self.table.acts[act];
        match entry.rsc {
            Some(r) if entry.task == Task::Start && self.is_group(r) => {
                self.model.location(r, false)
            }
            _ => entry.node,
        }
    }

    pub(super) fn is_group(&self, r: RscIx) -> bool {
        matches!(self.model.rscs[r].kind, Kind::Group { .. })
    }

    /// Applies all edges into an action.
    fn update(&mut self, then: ActIx) {
        let old = self.table.flags(then);
        let counts = old.has(Flag::COUNTS);
        if counts {
            self.table.acts[then].found = 0;
            self.table.clear(then, Flag::RUNNABLE);
        }
        let mut changed_then = false;
        let mut at = 0;
        // Edges that are added meanwhile come at the end and are seen too.
        while let Some(edge) = self.table.acts[then].before.get(at).copied() {
            at += 1;
            let changed = self.edge(edge);
            changed_then |= changed.then;
        }
        let now = self.table.flags(then);
        if counts {
            changed_then = now != old;
        }
        if changed_then {
            if old.runnable() && !now.runnable() {
                collective::block_dependents(self, then);
            }
            self.again_with_followers(then);
        }
    }

    fn edge(&mut self, edge: EdgeIx) -> Changed {
        let super::actions::Edge { first, then, link, .. } = self.table.edges[edge];
        if link.is_none() {
            return Changed::default();
        }
        let (first_node, then_node) = (self.node_of(first), self.node_of(then));
        if link.any(Link::SAME_NODE)
            && first_node.is_some()
            && then_node.is_some()
            && first_node != then_node
        {
            self.table.edges[edge].link = Link::NONE;
            return Changed::default();
        }
        if link.any(Link::CANCELS)
            && self.table.acts[first].rsc.is_some()
            && !self.table.flags(then).optional()
        {
            self.table.set(first, Flag::OPTIONAL);
        }
        let real = self.completed(first, then);
        if real != first {
            if self.table.bind(real, then, link) {
                return Changed { first: false, then: true };
            }
            return Changed::default();
        }
        let seen = collective::flags_for(self, first, then_node);
        let then_seen = collective::flags_for(self, then, first_node);
        let changed = self.apply(edge, (first, seen), (then, then_seen));
        if changed.first {
            self.again_with_followers(first);
        }
        changed
    }

    /// What comes after a collection's action waits until that is complete.
    fn completed(&self, first: ActIx, then: ActIx) -> ActIx {
        let (Some(a), Some(b)) = (self.table.acts[first].rsc, self.table.acts[then].rsc) else {
            return first;
        };
        if a == b || self.model.is_inside(b, a) || self.model.rscs[a].children.is_empty() {
            return first;
        }
        if self.model.rscs[a].bundle.as_ref().is_some_and(|b| b.told) {
            // What a bundle tells its instances is told by the clone inside: the whole has no point for that, and stands for itself.
            return first;
        }
        let entry = &self.table.acts[first];
        let Some(done) = entry.task.completion().filter(|_| entry.interval_ms == 0) else {
            return first;
        };
        let told = Of::about(done)
            .filter(|_| self.model.rscs[a].clone_info().is_some())
            .and_then(|of| self.table.find(a, Task::Notify(Stage::PostDone, of), None));
        told.or_else(|| self.table.find(a, done, None)).unwrap_or(first)
    }

    /// All meanings of an edge.
    fn apply(
        &mut self,
        edge: EdgeIx,
        (first, seen): (ActIx, Flags),
        (then, then_seen): (ActIx, Flags),
    ) -> Changed {
        let mut changed = Changed::default();
        let mut link = self.table.edges[edge].link;
        let mut node = self.table.acts[then].node;
        if link.any(Link::FIRST_IMPLIES_THEN_THERE) {
            link = link.without(Link::FIRST_IMPLIES_THEN_THERE) | Link::FIRST_IMPLIES_THEN;
            node = self.table.acts[first].node;
        }
        let then_rsc = self.table.acts[then].rsc;
        let meanings = [
            Link::FIRST_IMPLIES_THEN,
            Link::RESTART,
            Link::THEN_IMPLIES_FIRST,
            Link::PROMOTED_THEN_IMPLIES_FIRST,
            Link::COUNTED,
            Link::NESTED_PROBE,
            Link::BLOCKS,
            Link::MIGRATION,
            Link::ELSE_THEN,
            Link::ASYMMETRIC,
        ];
        for one in meanings.into_iter().filter(|m| link.any(*m)) {
            let flags = if one == Link::THEN_IMPLIES_FIRST { then_seen } else { seen };
            let meaning = Meaning { link: one, seen: flags, node };
            let holder =
                if one == Link::THEN_IMPLIES_FIRST { self.table.acts[first].rsc } else { then_rsc };
            changed = changed.or(match holder {
                Some(r) => collective::update(self, r, (first, then), meaning),
                None => self.plain(first, then, meaning),
            });
        }
        if self.table.flags(first).runnable() && link.any(Link::SHOWS_THEN) && !seen.optional() {
            self.table.set(then, Flag::ALWAYS);
        }
        if link.any(Link::SHOWS_FIRST) && !then_seen.optional() {
            self.table.set(first, Flag::ALWAYS);
        }
        let binds = Link::FIRST_IMPLIES_THEN | Link::THEN_IMPLIES_FIRST | Link::RESTART;
        if link.any(binds) && self.held(first) && self.table.flags(then).runnable() {
            // What cannot be taken down keeps what lies under it up.
            self.table.clear(then, Flag::RUNNABLE);
            self.explain_held(first, then);
            changed.then = true;
        }
        changed
    }

    /// The stop of a blocked resource.
    fn held(&self, act: ActIx) -> bool {
        let entry = &self.table.acts[act];
        entry.task == Task::Stop
            && !entry.flags.runnable()
            && entry.rsc.is_some_and(|r| self.model.rscs[r].blocked())
    }

    fn explain_held(&mut self, first: ActIx, then: ActIx) {
        let (Some(above), Some(below)) = (self.table.acts[first].rsc, self.table.acts[then].rsc)
        else {
            return;
        };
        let node = self.table.acts[then].node;
        let above = self.model.rscs[above].id;
        let text = format!("stays up: {above} above it is blocked");
        self.model.because(below, node, "blocked", text).by(above);
    }

    /// A meaning applied where no resource has a say.
    fn plain(&mut self, first: ActIx, then: ActIx, meaning: Meaning) -> Changed {
        let flags = self.table.flags(then);
        let mut changed = Changed::default();
        match meaning.link {
            Link::FIRST_IMPLIES_THEN if !meaning.seen.optional() && flags.optional() => {
                self.table.clear(then, Flag::OPTIONAL);
                changed.then = true;
            }
            Link::COUNTED if meaning.seen.runnable() => {
                self.table.acts[then].found += 1;
                if self.table.acts[then].found >= self.table.acts[then].enough {
                    self.table.set(then, Flag::RUNNABLE);
                }
            }
            Link::BLOCKS if !meaning.seen.runnable() && flags.runnable() => {
                self.table.clear(then, Flag::RUNNABLE);
                changed.then = true;
            }
            Link::THEN_IMPLIES_FIRST
                if !meaning.seen.optional() && self.table.flags(first).optional() =>
            {
                self.table.clear(first, Flag::OPTIONAL);
                changed.first = true;
            }
            _ => {}
        }
        changed
    }

    /// A meaning applied to two actions, as primitives have them.
    pub(super) fn basic(&mut self, first: ActIx, then: ActIx, meaning: Meaning) -> Changed {
        let (first_old, then_old) = (self.table.flags(first), self.table.flags(then));
        let seen = meaning.seen;
        match meaning.link {
            Link::ASYMMETRIC => self.asymmetric(first, then),
            // What migrates goes on living: nothing above it has to stop. What stops for good makes the start above it impossible, and that is
            // what stops it there; so Pacemaker only takes the migration away, also where it is another node's instance that stops.
            Link::THEN_IMPLIES_FIRST
                if !then_old.migratable()
                    && !(if self.model.props.exact { then_old } else { seen }).optional() =>
            {
                if !self.model.props.exact {
                    self.table.clear(first, Flag::OPTIONAL);
                }
                self.table.clear(first, Flag::MIGRATABLE);
            }
            Link::PROMOTED_THEN_IMPLIES_FIRST => {
                let promoted = self.table.acts[then].rsc.map(|r| self.model.role(r));
                if promoted == Some(Role::Promoted) && !then_old.optional() {
                    self.table.clear(first, Flag::OPTIONAL);
                    if !then_old.migratable() {
                        self.table.clear(first, Flag::MIGRATABLE);
                    }
                }
            }
            Link::MIGRATION => {
                if !(then_old.migratable() && then_old.runnable()) {
                    self.table.clear(first, Flag::RUNNABLE);
                }
                if !then_old.optional() {
                    self.table.clear(first, Flag::OPTIONAL);
                }
            }
            Link::ELSE_THEN if !first_old.runnable() => {
                self.table.clear(then, Flag::MIGRATABLE);
                self.table.clear(then, Flag::PSEUDO);
            }
            Link::BLOCKS if !seen.runnable() => {
                if then_old.runnable() {
                    self.table.clear(then, Flag::RUNNABLE);
                    self.table.clear(then, Flag::MIGRATABLE);
                }
                self.explain_blocked(first, then);
            }
            Link::FIRST_IMPLIES_THEN
                if then_old.optional() && !seen.optional() && !first_old.migratable() =>
            {
                self.table.clear(then, Flag::OPTIONAL);
            }
            Link::RESTART => self.restart(first, then),
            _ => {}
        }
        Changed {
            first: self.table.flags(first) != first_old,
            then: self.table.flags(then) != then_old,
        }
    }

    fn explain_blocked(&mut self, first: ActIx, then: ActIx) {
        let Some(telling) = &mut self.telling else { return };
        if telling.impossible.get(then).copied().unwrap_or(false) {
            return;
        }
        let (Some(a), Some(b)) = (self.table.acts[first].rsc, self.table.acts[then].rsc) else {
            return;
        };
        if a == b || self.model.is_inside(b, a) || !self.model.rscs[b].children.is_empty() {
            return;
        }
        let verb = self.table.acts[first].task.operation().word();
        let node = self.table.acts[then].node;
        if !telling.told.insert((b, a, node, verb)) {
            return;
        }
        let other = self.model.rscs[a].id;
        let text = format!("waits for {verb} of {other}, which is not going to happen");
        self.model.because(b, node, "order", text).by(other);
    }

    fn asymmetric(&mut self, first: ActIx, then: ActIx) {
        let Some(r) = self.table.acts[then].rsc else { return };
        if self.table.flags(first).runnable() {
            return;
        }
        if self.table.flags(then).optional() {
            let role = self.model.role(r);
            let task = self.table.acts[then].task;
            let only_here = self
                .model
                .location(r, true)
                .is_some_and(|n| self.table.acts[then].node.is_none_or(|t| t == n));
            let settled = (role == Role::Stopped && task == Task::Stop)
                || (role >= Role::Started && task == Task::Start && only_here);
            if settled {
                return;
            }
        }
        self.table.clear(then, Flag::OPTIONAL);
        self.table.clear(then, Flag::RUNNABLE);
        self.explain_blocked(first, then);
    }

    /// Stop (`first`) and start or stop below (`then`).
    fn restart(&mut self, first: ActIx, then: ActIx) {
        let then_flags = self.table.flags(then);
        let (a, b) = (self.table.acts[first].rsc, self.table.acts[then].rsc);
        let again = !then_flags.optional();
        let gone = !then_flags.runnable() && a == b && b.is_some_and(|r| self.model.movable(r));
        if !again && !gone {
            return;
        }
        if self.table.flags(first).runnable() || again {
            self.table.clear(first, Flag::OPTIONAL);
        }
        if !then_flags.migratable() {
            self.table.clear(first, Flag::MIGRATABLE);
        }
        let first_flags = self.table.flags(first);
        if !first_flags.optional() && !first_flags.runnable() {
            self.table.clear(then, Flag::RUNNABLE);
        }
    }
}
