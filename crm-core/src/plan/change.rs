//! Phase 6: what a changed definition asks for: reloads, forgotten histories of what is not configured any more, forgotten failures.

use super::actions::{ActIx, Flag, Table, Task};
use super::model::{Kind, Model, NodeIx, RscIx};
use super::order::{End, Link};
use super::{fence, unfence};
use std::collections::BTreeSet;

/// Makes these actions. Only in plans made as Pacemaker makes them.
pub(super) fn apply(model: &mut Model<'_>, table: &mut Table, now_ms: u64) {
    if !model.props.exact {
        return;
    }
    for r in 0..model.rscs.len() {
        if !matches!(model.rscs[r].kind, Kind::Primitive) {
            continue;
        }
        if model.rscs[r].removed {
            forget(model, table, r, now_ms);
        } else {
            restart(model, table, r);
            reload(model, table, r);
        }
    }
    for (r, node) in model.forgets.clone() {
        if model.nodes[node].available() && !model.rscs[r].now.failed {
            delete(model, table, r, node);
        }
    }
    for (r, node) in model.clears.clone() {
        if model.nodes[node].online {
            let clear = table.make(model, r, Task::ClearFailures, Some(node), false);
            after_fencing(model, table, r, clear);
        }
    }
}

/// A connection that is tried again at intervals is not tried before its node has been fenced, if that is to be.
fn after_fencing(model: &Model<'_>, table: &mut Table, r: RscIx, clear: ActIx) {
    let Some(own) = model.rscs[r].connection_of else { return };
    if model.rscs[r].reconnect_ms > 0 && model.props.fencing {
        let fencing = fence::action(model, table, own);
        table.bind(fencing, clear, Link::FIRST_IMPLIES_THEN);
    }
}

/// A resource that cannot take its new definition while it runs has to start anew, wherever it will be.
fn restart(model: &mut Model<'_>, table: &mut Table, r: RscIx) {
    for seen in model.rscs[r].active.clone() {
        if seen.changed {
            table.make(model, r, Task::Start, None, false);
            unfence::redefined(model, table, r, seen.node);
        }
    }
    for node in model.rscs[r].now.replaced.clone() {
        if model.nodes[node].looked_at() {
            unfence::redefined(model, table, r, node);
        }
    }
}

fn reload(model: &mut Model<'_>, table: &mut Table, r: RscIx) {
    let failed = model.rscs[r].active.iter().any(|a| a.failed);
    for seen in model.rscs[r].active.clone() {
        if !seen.reload || failed || !model.movable(r) || !model.nodes[seen.node].available() {
            continue;
        }
        if model.rscs[r].now.start_pending {
            table.make(model, r, Task::Stop, Some(seen.node), false);
            continue;
        }
        unfence::redefined(model, table, r, seen.node);
        let reload = table.make(model, r, Task::Reload, Some(seen.node), false);
        for task in [Task::Stop, Task::Demote] {
            let link = Link::ORDERED | Link::CANCELS;
            table.order(model, End::Act(reload), End::Op(r, task), link);
        }
    }
}

/// What is not configured any more is forgotten wherever it has a history, after it has been stopped.
fn forget(model: &mut Model<'_>, table: &mut Table, r: RscIx, now_ms: u64) {
    if model.rscs[r].clone.is_some() {
        // Instances that are alike share their histories.
        return;
    }
    let failed = model.rscs[r].active.iter().any(|a| a.failed);
    let told: BTreeSet<NodeIx> = model.rscs[r].now.records.iter().map(|told| told.node).collect();
    for node in told {
        if model.nodes[node].available() && !failed {
            delete(model, table, r, node);
        }
    }
    for node in 0..model.nodes.len() {
        if model.nodes[node].online && model.fresh_fail_count(r, node, now_ms) > 0 {
            let clear = table.make(model, r, Task::ClearFailures, Some(node), false);
            let stop = End::Op(r, Task::Stop);
            table.order(model, End::Act(clear), stop, Link::ORDERED);
        }
    }
}

/// The history of a resource on a node is forgotten between its stop and its start.
fn delete(model: &mut Model<'_>, table: &mut Table, r: RscIx, node: NodeIx) {
    table.make(model, r, Task::Delete, Some(node), false);
    for (first, then) in [(Task::Stop, Task::Delete), (Task::Delete, Task::Start)] {
        table.sequence(model, (r, first), (r, then), Link::ORDERED);
    }
}

/// A reload that was not cancelled.
pub(super) fn reloads(table: &Table, r: RscIx) -> bool {
    table.all(r, Task::Reload).iter().any(|a| {
        let flags = table.flags(*a);
        !flags.has(Flag::OPTIONAL)
    })
}
