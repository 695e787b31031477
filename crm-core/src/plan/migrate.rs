//! Live migration: a move without a stop, while nothing that it stands on is taken away.
//!
//! The two halves stand beside the stop and the start. When one of these cannot be part of a migration any more (`spread` finds out), the halves
//! become impossible and the start a real one again.

use super::actions::{Flag, Table, Task};
use super::model::{Model, NodeIx, RscIx};
use super::order::{End, Link};

/// May the resource move without a stop?
pub(super) fn possible(model: &Model<'_>, r: RscIx) -> bool {
    let rsc = &model.rscs[r];
    let clean = |n: NodeIx| !model.unclean(n);
    rsc.meta.allow_migrate
        && model.movable(r)
        && !rsc.active.iter().any(|a| a.failed)
        && !rsc.now.start_pending
        && !rsc.now.no_migration
        && super::create::current_node(model, r).is_some_and(clean)
        && rsc.assigned.is_some_and(clean)
}

/// Makes the two halves.
pub(super) fn create(
    model: &mut Model<'_>,
    table: &mut Table,
    r: RscIx,
    (from, to): (NodeIx, NodeIx),
) {
    let start = table.make(model, r, Task::Start, Some(to), true);
    let stop = table.make(model, r, Task::Stop, Some(from), true);
    let half_way = model.rscs[r].now.partial.is_some();
    let out = (!half_way).then(|| table.make(model, r, Task::MigrateTo, Some(from), true));
    let into = table.make(model, r, Task::MigrateFrom, Some(to), true);
    for act in [start, stop, into].into_iter().chain(out) {
        table.set(act, Flag::MIGRATABLE);
    }
    table.set(start, Flag::PSEUDO);
    let needs = table.acts[start].needs;
    table.acts[out.unwrap_or(into)].needs = needs;
    let halves = Link::ORDERED | Link::MIGRATION;
    let first = if half_way { Task::MigrateFrom } else { Task::MigrateTo };
    table.sequence(model, (r, Task::Monitor), (r, first), Link::ORDERED);
    if !half_way {
        table.sequence(model, (r, Task::MigrateTo), (r, Task::MigrateFrom), halves);
    }
    table.sequence(model, (r, Task::MigrateFrom), (r, Task::Stop), halves);
    table.sequence(model, (r, Task::MigrateFrom), (r, Task::Start), halves | Link::ELSE_THEN);
}

/// An order between two resources holds for their migrations too.
pub(super) fn equivalents(model: &Model<'_>, table: &mut Table, first: End, then: End) {
    let ((Some(a), first), (Some(b), then)) = (table.end(first), table.end(then)) else { return };
    if a == b || model.is_inside(a, b) || model.is_inside(b, a) {
        return;
    }
    let migrates = |r: RscIx| model.rscs[r].meta.allow_migrate;
    if !migrates(b) {
        return;
    }
    let plain =
        if migrates(a) { Link::ORDERED | Link::UNLESS_FIRST_MIGRATES } else { Link::ORDERED };
    match (first, then) {
        (Task::Start, Task::Start) => {
            if migrates(a) {
                table.sequence(model, (a, Task::MigrateFrom), (b, Task::MigrateTo), Link::ORDERED);
            }
            table.sequence(model, (a, Task::Start), (b, Task::MigrateTo), plain);
        }
        (Task::Stop, Task::Stop) => {
            // What moves by a restart below has to be down before this one leaves.
            table.sequence(model, (a, Task::Stop), (b, Task::MigrateTo), plain);
            if model.rscs[b].now.partial.is_some() {
                table.sequence(model, (a, Task::Stop), (b, Task::MigrateFrom), plain);
            }
        }
        (Task::Promote, Task::Start) => {
            table.sequence(model, (a, Task::Promote), (b, Task::MigrateTo), Link::ORDERED);
        }
        (Task::Demote, Task::Stop) => {
            table.sequence(model, (a, Task::Demote), (b, Task::MigrateTo), Link::ORDERED);
            if model.rscs[b].now.partial.is_some() {
                table.sequence(model, (a, Task::Demote), (b, Task::MigrateFrom), Link::ORDERED);
            }
        }
        _ => {}
    }
}
