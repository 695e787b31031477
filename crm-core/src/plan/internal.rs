//! Phase 5: the orders that resources bring with them: stop before start, members of groups one after the other, clones as a whole.

use super::Habit;
use super::actions::{Table, Task};
use super::model::{Kind, Model, RscIx};
use super::order::{End, Link};

/// Notes them for all resources.
pub(super) fn note(model: &Model<'_>, table: &mut Table) {
    for top in &model.tops {
        resource(model, table, *top);
    }
}

pub(super) fn resource(model: &Model<'_>, table: &mut Table, r: RscIx) {
    match &model.rscs[r].kind {
        Kind::Primitive => primitive(model, table, r),
        Kind::Group { ordered, .. } => group(model, table, r, *ordered),
        Kind::Clone(_) if model.rscs[r].bundle.is_some() => {
            super::bundle_order::note(model, table, r);
        }
        Kind::Clone(info) => clone(model, table, r, info.ordered),
    }
}

fn primitive(model: &Model<'_>, table: &mut Table, r: RscIx) {
    if !model.movable(r) {
        return;
    }
    let restart = Link::ORDERED | Link::FIRST_IMPLIES_THEN | Link::RESTART;
    table.sequence(model, (r, Task::Stop), (r, Task::Start), restart);
    let top = model.top(r);
    if model.rscs[top].promotable() || model.role(r) > crate::cib::Role::Unpromoted {
        let demote = Link::PROMOTED_THEN_IMPLIES_FIRST;
        table.sequence(model, (r, Task::Demote), (r, Task::Stop), demote);
        table.sequence(model, (r, Task::Start), (r, Task::Promote), Link::BLOCKS);
    }
    super::unfence::order(model, table, r);
    if model.counts_capacity()
        && model.rscs[r].prim.is_some_and(|p| !p.utilization.pairs.is_empty())
    {
        capacity(model, table, r);
    }
    if let Some(container) = model.rscs[r].container {
        inside(model, table, r, container);
    }
}

/// What lives inside something comes after it and goes before it.
fn inside(model: &Model<'_>, table: &mut Table, r: RscIx, container: RscIx) {
    let connection = model.rscs[r].connection_of.is_some();
    if connection {
        // A container that is found to run after all spares the connection its recovery.
        let probe = (container, Task::Monitor);
        table.sequence(model, probe, (r, Task::Stop), Link::ORDERED);
    } else {
        let way = |c: &RscIx| model.rscs[*c].connection_of.is_some();
        if way(&container) || model.rscs[container].fillers.iter().any(way) {
            // It runs on the node that lives there.
            return;
        }
    }
    let up = Link::FIRST_IMPLIES_THEN | Link::BLOCKS;
    table.sequence(model, (container, Task::Start), (r, Task::Start), up);
    table.sequence(model, (r, Task::Stop), (container, Task::Stop), Link::THEN_IMPLIES_FIRST);
}

/// What leaves a node sets its share free before others come; every node it may run on is in this.
fn capacity(model: &Model<'_>, table: &mut Table, r: RscIx) {
    let freed = |table: &mut Table, node: usize| {
        let name = format!("load_stopped_{}", model.nodes[node].name);
        let point = table.named(&name, Task::Point, Some(node));
        table.clear(point, super::actions::Flag::OPTIONAL);
        point
    };
    for seen in &model.rscs[r].active {
        let point = freed(table, seen.node);
        table.order(model, End::Op(r, Task::Stop), End::Act(point), Link::FREED);
    }
    for node in 0..model.nodes.len() {
        if model.rscs[r].opted_in.get(node) == Some(&false) {
            continue;
        }
        let point = freed(table, node);
        table.order(model, End::Act(point), End::Op(r, Task::Start), Link::FREED);
        table.order(model, End::Act(point), End::Op(r, Task::MigrateTo), Link::FREED);
    }
}

fn promotable(model: &Model<'_>, r: RscIx) -> bool {
    model.rscs[model.top(r)].promotable()
}

fn group(model: &Model<'_>, table: &mut Table, r: RscIx, ordered: bool) {
    table.sequence(model, (r, Task::Stop), (r, Task::Stopped), Link::BLOCKS);
    table.sequence(model, (r, Task::Stopped), (r, Task::Start), Link::ORDERED);
    table.sequence(model, (r, Task::Start), (r, Task::Running), Link::BLOCKS);
    let mut before: Option<RscIx> = None;
    let mut last_active: Option<RscIx> = None;
    for member in model.rscs[r].children.clone() {
        resource(model, table, member);
        member_of(model, table, r, member, (ordered, before));
        let active = |m: RscIx| !model.rscs[m].active.is_empty();
        if active(member) {
            let gap = ordered && before.is_some_and(|b| !active(b));
            if let (true, Some(last)) = (gap, last_active) {
                // A group with a hole in the middle stops in sequence all the same.
                table.sequence(model, (member, Task::Stop), (last, Task::Stop), Link::ORDERED);
            }
            last_active = Some(member);
        }
        before = Some(member);
    }
}

/// The group's points around a member, and the member after the one before it.
fn member_of(
    model: &Model<'_>,
    table: &mut Table,
    group: RscIx,
    member: RscIx,
    (ordered, before): (bool, Option<RscIx>),
) {
    let head = ordered && before.is_none();
    let down = if head { Link::SHOWS_FIRST | Link::ORDERED } else { Link::SHOWS_FIRST };
    let after_down = if head { Link::FIRST_IMPLIES_THEN } else { Link::SHOWS_THEN };
    let up = Link::BLOCKS | Link::FIRST_IMPLIES_THEN | Link::SHOWS_THEN;
    let roles = promotable(model, member);
    if roles {
        table.sequence(model, (group, Task::Demote), (member, Task::Demote), down);
        table.sequence(model, (member, Task::Demote), (group, Task::Demoted), after_down);
        table.sequence(model, (member, Task::Promote), (group, Task::Promoted), up);
        table.sequence(model, (group, Task::Promote), (member, Task::Promote), Link::SHOWS_FIRST);
    }
    table.sequence(model, (group, Task::Stop), (member, Task::Stop), down);
    table.sequence(model, (member, Task::Stop), (group, Task::Stopped), after_down);
    table.sequence(model, (group, Task::Start), (member, Task::Start), Link::SHOWS_FIRST);
    table.sequence(model, (member, Task::Start), (group, Task::Running), up);
    if !ordered {
        let each = Link::ORDERED | Link::BLOCKS | Link::SHOWS_FIRST;
        table.sequence(model, (group, Task::Start), (member, Task::Start), each);
        if roles {
            table.sequence(model, (group, Task::Promote), (member, Task::Promote), each);
        }
        return;
    }
    let Some(before) = before else { return };
    let chain = Link::BLOCKS | Link::FIRST_IMPLIES_THEN;
    table.sequence(model, (before, Task::Start), (member, Task::Start), chain);
    let back = Link::ORDERED | Link::RESTART;
    table.sequence(model, (member, Task::Stop), (before, Task::Stop), back);
    let active = |m: RscIx| !model.rscs[m].active.is_empty();
    if active(member) && !active(before) && !model.habit(Habit::NewMembersStart) {
        // A new member in the middle: the later one stops before it starts.
        let link = Link::THEN_IMPLIES_FIRST | Link::BLOCKS;
        table.sequence(model, (member, Task::Stop), (before, Task::Start), link);
    }
    if roles {
        table.sequence(model, (before, Task::Promote), (member, Task::Promote), chain);
        table.sequence(model, (member, Task::Demote), (before, Task::Demote), Link::ORDERED);
    }
}

fn clone(model: &Model<'_>, table: &mut Table, r: RscIx, ordered: bool) {
    table.sequence(model, (r, Task::Stopped), (r, Task::Start), Link::ORDERED);
    table.sequence(model, (r, Task::Start), (r, Task::Running), Link::BLOCKS);
    table.sequence(model, (r, Task::Stop), (r, Task::Stopped), Link::BLOCKS);
    let roles = model.rscs[r].promotable();
    if roles {
        table.sequence(model, (r, Task::Demoted), (r, Task::Stop), Link::ORDERED);
        table.sequence(model, (r, Task::Running), (r, Task::Promote), Link::BLOCKS);
    }
    let instances = model.rscs[r].children.clone();
    for (at, instance) in instances.iter().copied().enumerate() {
        resource(model, table, instance);
        let up = Link::BLOCKS | Link::SHOWS_FIRST;
        table.sequence(model, (r, Task::Start), (instance, Task::Start), up);
        table.sequence(model, (instance, Task::Start), (r, Task::Running), Link::SHOWS_THEN);
        table.sequence(model, (r, Task::Stop), (instance, Task::Stop), Link::SHOWS_FIRST);
        table.sequence(model, (instance, Task::Stop), (r, Task::Stopped), Link::SHOWS_THEN);
        // Against all later ones: the next one may have nothing to do.
        for later in instances.iter().skip(at + 1).filter(|_| ordered) {
            table.sequence(model, (instance, Task::Start), (*later, Task::Start), Link::ORDERED);
            table.sequence(model, (*later, Task::Stop), (instance, Task::Stop), Link::ORDERED);
        }
    }
    if roles {
        promotable_clone(model, table, r, ordered);
    }
}

/// A collection with roles goes down as a whole before it comes up.
pub(super) fn roles(model: &Model<'_>, table: &mut Table, r: RscIx) {
    let whole = [
        (Task::Stopped, Task::Start),
        (Task::Stopped, Task::Promote),
        (Task::Demoted, Task::Stop),
        (Task::Demoted, Task::Start),
        (Task::Demoted, Task::Promote),
        (Task::Running, Task::Promote),
    ];
    for (first, then) in whole {
        table.sequence(model, (r, first), (r, then), Link::ORDERED);
    }
}

fn promotable_clone(model: &Model<'_>, table: &mut Table, r: RscIx, ordered: bool) {
    roles(model, table, r);
    for (first, then) in [(Task::Promote, Task::Promoted), (Task::Demote, Task::Demoted)] {
        table.sequence(model, (r, first), (r, then), Link::ORDERED);
    }
    let mut before: Option<RscIx> = None;
    for instance in model.rscs[r].children.clone() {
        table.sequence(model, (r, Task::Demote), (instance, Task::Demote), Link::SHOWS_FIRST);
        table.sequence(model, (instance, Task::Demote), (r, Task::Demoted), Link::SHOWS_THEN);
        let up = Link::BLOCKS | Link::SHOWS_FIRST;
        table.sequence(model, (r, Task::Promote), (instance, Task::Promote), up);
        table.sequence(model, (instance, Task::Promote), (r, Task::Promoted), Link::SHOWS_THEN);
        if let (true, Some(before)) = (ordered, before) {
            let two = (before, Task::Promote);
            table.sequence(model, two, (instance, Task::Promote), Link::ORDERED);
            table.sequence(model, (instance, Task::Demote), (before, Task::Demote), Link::ORDERED);
        }
        before = Some(instance);
    }
}
