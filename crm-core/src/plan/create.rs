//! Phase 8: the actions that bring each resource from its role and node to those it is to have.
//!
//! First the way down to a stop and up again, as possibilities that a restart would take; then the steps that the change of role needs.
//! Collections get their points in the order, needed when any member needs them.

use super::actions::{ActIx, Flag, Table, Task};
use super::model::{Kind, Model, MultipleActive, NodeIx, RscIx};
use super::{migrate, monitor, notify, unfence};
use crate::cib::Role;

/// Makes the actions of all resources.
pub(super) fn apply(model: &mut Model<'_>, table: &mut Table) {
    for top in model.tops.clone() {
        resource(model, table, top);
    }
}

pub(super) fn resource(model: &mut Model<'_>, table: &mut Table, r: RscIx) {
    match model.rscs[r].kind.clone() {
        Kind::Primitive => primitive(model, table, r),
        Kind::Group { .. } => group(model, table, r),
        Kind::Clone(_) if model.rscs[r].bundle.is_some() => {
            super::bundle_order::create(model, table, r);
        }
        Kind::Clone(info) => {
            instances(model, table, r);
            if info.promotable {
                promotions(model, table, r);
            }
        }
    }
}

fn group(model: &mut Model<'_>, table: &mut Table, r: RscIx) {
    for member in model.rscs[r].children.clone() {
        resource(model, table, member);
    }
    let mut tasks = vec![Task::Start, Task::Running, Task::Stop, Task::Stopped];
    if model.rscs[model.top(r)].promotable() {
        tasks.extend([Task::Demote, Task::Demoted, Task::Promote, Task::Promoted]);
    }
    for task in tasks {
        table.point(model, r, task, true, true);
    }
}

/// What the instances of a clone are about to do.
#[derive(Debug, Default, Clone, Copy)]
#[expect(clippy::struct_excessive_bools, reason = "each is one independent fact")]
struct Doing {
    active: bool,
    starting: bool,
    stopping: bool,
    restarting: bool,
}

#[expect(clippy::wildcard_enum_match_arm, reason = "only starts and stops count")]
fn doing(model: &Model<'_>, table: &Table, r: RscIx, sum: &mut Doing) {
    if !model.rscs[r].children.is_empty() {
        for child in &model.rscs[r].children {
            doing(model, table, *child, sum);
        }
        return;
    }
    sum.active |= !model.rscs[r].active.is_empty();
    let (mut starting, mut stopping) = (false, false);
    for act in &table.of[r] {
        let flags = table.flags(*act);
        match table.acts[*act].task {
            Task::Start => starting |= !flags.optional() && flags.runnable(),
            Task::Stop => {
                stopping |= !flags.optional() && (flags.runnable() || flags.pseudo());
            }
            _ => {}
        }
    }
    sum.starting |= starting;
    sum.stopping |= stopping;
    sum.restarting |= starting && stopping;
}

fn instances(model: &mut Model<'_>, table: &mut Table, r: RscIx) {
    for instance in model.rscs[r].children.clone() {
        resource(model, table, instance);
    }
    let [(start, started), (stop, stopped)] = points(model, table, r);
    notify::points(model, table, r, (Task::Start, start, started));
    notify::points(model, table, r, (Task::Stop, stop, stopped));
    notify::sequence(model, table, r, &[(Task::Stop, Task::Start)]);
}

/// The points of a collection around the starts and stops of its instances.
pub(super) fn points(model: &mut Model<'_>, table: &mut Table, r: RscIx) -> [(ActIx, ActIx); 2] {
    let mut sum = Doing::default();
    for instance in &model.rscs[r].children {
        doing(model, table, *instance, &mut sum);
    }
    let start = table.point(model, r, Task::Start, !sum.starting, true);
    let up = sum.active || sum.starting;
    let started = table.point(model, r, Task::Running, !sum.starting, up);
    let stop = table.point(model, r, Task::Stop, !sum.stopping, true);
    let stopped = table.point(model, r, Task::Stopped, !sum.stopping, true);
    if !sum.restarting {
        table.set(stop, Flag::MIGRATABLE);
    }
    [(start, started), (stop, stopped)]
}

fn promotions(model: &mut Model<'_>, table: &mut Table, r: RscIx) {
    let leaves = model.leaves(r);
    let any = |table: &Table, task: Task| {
        let mut acts = leaves.iter().flat_map(|l| table.all(*l, task));
        acts.any(|a| !table.flags(a).optional())
    };
    for (task, done) in [(Task::Promote, Task::Promoted), (Task::Demote, Task::Demoted)] {
        let needed = any(table, task);
        let begin = table.point(model, r, task, !needed, true);
        let end = table.point(model, r, done, !needed, true);
        notify::points(model, table, r, (task, begin, end));
    }
    let order = [
        (Task::Stop, Task::Promote),
        (Task::Start, Task::Promote),
        (Task::Demote, Task::Promote),
        (Task::Demote, Task::Start),
        (Task::Demote, Task::Stop),
    ];
    notify::sequence(model, table, r, &order);
}

/// How a primitive has to change.
#[derive(Debug, Default, Clone, Copy)]
#[expect(clippy::struct_excessive_bools, reason = "each is one independent need")]
struct Change {
    stop: bool,
    promote: bool,
    migrate: bool,
    /// Of several active nodes the right one is left alone.
    spare: bool,
}

/// The node a resource is thought to run on.
pub(super) fn current_node(model: &Model<'_>, r: RscIx) -> Option<NodeIx> {
    let rsc = &model.rscs[r];
    if let Some((from, _)) = rsc.now.partial
        && rsc.active.iter().any(|a| a.node == from)
    {
        return Some(from);
    }
    let good = |n: NodeIx| model.nodes[n].online && !model.unclean(n);
    let first = rsc.active.first().map(|a| a.node);
    if model.needs_fencing(r) || !model.props.exact {
        return first;
    }
    rsc.active.iter().map(|a| a.node).find(|n| good(*n)).or(first)
}

fn change(model: &mut Model<'_>, r: RscIx, now: Option<NodeIx>) -> Change {
    let mut out = Change::default();
    let to = model.rscs[r].assigned;
    let good = |n: NodeIx| model.nodes[n].online && !model.unclean(n);
    let all = model.rscs[r].active.len();
    let clean = model.rscs[r].active.iter().filter(|a| good(a.node)).count();
    let moving =
        now.is_some() && to.is_some() && now != to && model.rscs[r].next_role >= Role::Started;
    if moving {
        out.migrate = migrate::possible(model, r);
        out.stop = true;
    }
    let mut several = false;
    match model.rscs[r].now.partial {
        Some((from, target))
            if out.migrate && all == 2 && now == Some(from) && to == Some(target) => {}
        Some(_) => {
            out.stop = true;
            out.migrate = false;
            model.rscs[r].now.partial = None;
        }
        None if model.needs_fencing(r) => several = all > 1,
        None => several = clean > 1,
    }
    if several {
        match model.rscs[r].meta.multiple_active {
            MultipleActive::StopStart => out.stop = true,
            MultipleActive::StopUnexpected => {
                out.stop = true;
                out.spare = true;
            }
            MultipleActive::StopOnly | MultipleActive::Block => {}
        }
    }
    let failed = model.rscs[r].active.iter().any(|a| a.failed);
    let only_demote = model.rscs[r].active.iter().any(|a| a.demote_only);
    if moving {
        // What follows is about resources that stay.
    } else if failed && !only_demote {
        out.stop = true;
    } else if failed {
        out.promote = model.rscs[r].next_role == Role::Promoted;
    } else if model.rscs[r].blocked() {
        out.stop = true;
    }
    out
}

fn primitive(model: &mut Model<'_>, table: &mut Table, r: RscIx) {
    let now = current_node(model, r);
    let to = model.rscs[r].assigned;
    for node in model.rscs[r].now.dangling.clone() {
        let stop = table.make(model, r, Task::Stop, Some(node), false);
        table.set(stop, Flag::DANGLING);
    }
    for node in model.rscs[r].now.stops.clone() {
        table.make(model, r, Task::Stop, Some(node), false);
    }
    let mut change = change(model, r, now);
    let role = model.role(r);
    let changed = model.rscs[r].active.iter().any(|a| a.changed);
    if changed && to.is_some() && model.movable(r) && !model.props.exact {
        // Its definition is another now. (Exact plans know that before anything is placed.)
        table.make(model, r, Task::Start, to, false);
    }
    if model.rscs[r].now.start_pending && (to.is_some() || model.props.exact) {
        // It is asked for again, so that its end is waited for; without a node it is impossible.
        let start = table.make(model, r, Task::Start, to, true);
        table.set(start, Flag::ALWAYS);
    }
    let whole = !model.rscs[r].blocked() && !model.rscs[r].active.iter().any(|a| a.failed);
    let asks = if model.props.exact { whole } else { !change.stop };
    if role > Role::Started && now.is_some() && to.is_some() && asks {
        let start = table.make(model, r, Task::Start, to, true);
        change.stop |= !table.flags(start).optional();
    }
    let mut steps = Steps { model, table, r, spare: change.spare, restarting: true };
    steps.restart(role, change);
    steps.restarting = false;
    steps.onward(role);
    monitor::recurring(model, table, r);
    if let (true, Some(from), Some(to)) = (change.migrate, now, to) {
        migrate::create(model, table, r, (from, to));
    }
    super::withhold::apply(model, table, r);
}

struct Steps<'s, 'a> {
    model: &'s mut Model<'a>,
    table: &'s mut Table,
    r: RscIx,
    spare: bool,
    restarting: bool,
}

/// The next role on the way from one to another.
const fn towards(from: Role, to: Role) -> Role {
    match (from, to) {
        (Role::Stopped, Role::Promoted) => Role::Unpromoted,
        (Role::Promoted, Role::Stopped | Role::Started) => Role::Unpromoted,
        (Role::Unpromoted, Role::Started) => Role::Stopped,
        (_, to) => to,
    }
}

impl Steps<'_, '_> {
    fn restart(&mut self, role: Role, change: Change) {
        let mut at = role;
        while at != Role::Stopped {
            let next = towards(at, Role::Stopped);
            // Where a demotion is the cure, it comes before the promotion that follows.
            let needed = change.stop || (at == Role::Promoted && change.promote);
            self.step(at, next, !needed);
            at = next;
        }
        let (next_role, blocked) =
            (self.model.rscs[self.r].next_role, self.model.rscs[self.r].blocked());
        while role <= next_role && at != role && !blocked {
            let next = towards(at, role);
            let needed = change.stop || (next == Role::Promoted && change.promote);
            self.step(at, next, !needed);
            at = next;
        }
    }

    fn onward(&mut self, role: Role) {
        let mut at = role;
        let mut left = 4;
        while at != self.model.rscs[self.r].next_role && left > 0 {
            let next = towards(at, self.model.rscs[self.r].next_role);
            self.step(at, next, false);
            at = next;
            left -= 1;
        }
    }

    fn step(&mut self, from: Role, to: Role, optional: bool) {
        match (from, to) {
            (Role::Stopped, Role::Started | Role::Unpromoted) => self.start(optional),
            (Role::Started | Role::Unpromoted, Role::Stopped) => self.stop(optional),
            (Role::Started | Role::Unpromoted, Role::Promoted) => self.promote(optional),
            (Role::Promoted, _) => self.demote(optional),
            _ => {}
        }
    }

    /// Of several nodes where it is active this is the right one.
    fn expected(&self, node: NodeIx) -> bool {
        let rsc = &self.model.rscs[self.r];
        self.spare && self.restarting && rsc.next_role > Role::Stopped && rsc.assigned == Some(node)
    }

    fn stop(&mut self, optional: bool) {
        let r = self.r;
        for seen in self.model.rscs[r].active.clone() {
            if self.expected(seen.node) {
                continue;
            }
            let mut optional = optional;
            if let Some((_, target)) = self.model.rscs[r].now.partial {
                if seen.node == target && self.model.rscs[r].assigned == Some(target) {
                    continue;
                }
                if seen.node == target {
                    optional = false;
                }
            }
            let stop = self.table.make(self.model, r, Task::Stop, Some(seen.node), optional);
            if !self.model.movable(r) {
                self.table.clear(stop, Flag::RUNNABLE);
            }
            unfence::after_stop(self.model, self.table, r, seen.node, stop);
        }
    }

    fn start(&mut self, optional: bool) {
        let Some(node) = self.model.rscs[self.r].assigned else { return };
        let start = self.table.make(self.model, self.r, Task::Start, Some(node), true);
        let link = super::order::Link::FIRST_IMPLIES_THEN;
        unfence::before(self.model, self.table, self.r, node, (start, link));
        if self.table.flags(start).runnable() && !optional {
            self.table.clear(start, Flag::OPTIONAL);
        }
        if self.expected(node) {
            self.table.set(start, Flag::PSEUDO);
        }
    }

    fn demote(&mut self, optional: bool) {
        let r = self.r;
        for seen in self.model.rscs[r].active.clone() {
            if self.expected(seen.node) {
                continue;
            }
            let demote = self.table.make(self.model, r, Task::Demote, Some(seen.node), optional);
            if seen.demote_failed && !self.model.props.exact {
                // It failed; stopping is the way out. The point keeps its place in the order.
                self.table.set(demote, Flag::PSEUDO);
                self.table.set(demote, Flag::RUNNABLE);
            }
        }
    }

    fn promote(&mut self, optional: bool) {
        let Some(node) = self.model.rscs[self.r].assigned else { return };
        let starts = self.table.all_on(self.r, Task::Start, node);
        if starts.iter().all(|s| self.table.flags(*s).runnable()) {
            let promote = self.table.make(self.model, self.r, Task::Promote, Some(node), optional);
            if self.expected(node) {
                self.table.set(promote, Flag::PSEUDO);
            }
            return;
        }
        for promote in self.table.all_on(self.r, Task::Promote, node) {
            self.table.clear(promote, Flag::RUNNABLE);
        }
    }
}

/// The actions of a resource with a task that are needed somewhere.
pub(super) fn needed(table: &Table, r: RscIx, task: Task) -> Vec<ActIx> {
    let mut out = table.all(r, task);
    out.retain(|a| !table.flags(*a).optional() && table.acts[*a].node.is_some());
    out
}
