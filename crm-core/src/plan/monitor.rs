//! Recurring monitors: those that run already, and which begin and which end with a plan.

use super::actions::{ActIx, Flag, Table, Task};
use super::history::op_role;
use super::model::{Kind, Model, NodeIx, RscIx};
use super::order::{End, Link};
use crate::cib::{Op, Role, parse_bool};
use crate::status::rc;

/// Notes the monitors that run, as possibilities; those that are not configured any more end.
pub(super) fn running(model: &mut Model<'_>, table: &mut Table) {
    for r in 0..model.rscs.len() {
        if !matches!(model.rscs[r].kind, Kind::Primitive) {
            continue;
        }
        for node in told_nodes(model, r) {
            for interval in intervals(model, r, node) {
                table.make_every(model, (r, Task::Monitor, interval), Some(node), true);
                ends(model, table, r, node, interval);
            }
        }
    }
}

/// Nodes whose histories of the resource are its own: instances that are alike share one, it is the active one's.
fn told_nodes(model: &Model<'_>, r: RscIx) -> Vec<NodeIx> {
    if model.props.exact {
        return (0..model.nodes.len()).filter(|n| model.nodes[*n].online).collect();
    }
    let alike = model.rscs[r]
        .clone
        .is_some_and(|c| model.rscs[c].clone_info().is_some_and(|i| !i.globally_unique));
    let here = |n: &NodeIx| {
        model.nodes[*n].online && (!alike || model.rscs[r].active.iter().any(|a| a.node == *n))
    };
    (0..model.nodes.len()).filter(here).collect()
}

fn intervals(model: &Model<'_>, r: RscIx, node: NodeIx) -> Vec<u64> {
    if model.props.exact {
        let here = |(n, op, _): &&(NodeIx, String, u64)| *n == node && op == "monitor";
        return model.rscs[r].now.recurring.iter().filter(here).map(|(_, _, ms)| *ms).collect();
    }
    let status = model.status.nodes.get(model.nodes[node].name);
    let history = status.and_then(|s| s.resources.get(&model.key(r)));
    history.map(|h| h.monitors.keys().copied().collect()).unwrap_or_default()
}

fn ends(model: &mut Model<'_>, table: &mut Table, r: RscIx, node: NodeIx, interval: u64) {
    let rsc = &model.rscs[r];
    let active = rsc.active.iter().any(|a| a.node == node);
    if !active || rsc.removed || !(model.nodes[node].available() || model.nodes[node].maintenance) {
        return;
    }
    let frozen = in_maintenance(model, r) || model.nodes[node].maintenance;
    let known = |op: &Op| op.name == "monitor" && op.interval_ms() == interval && enabled(op);
    let configured = rsc.prim.is_some_and(|p| p.ops.iter().any(known));
    if frozen || !configured {
        let cancel = table.make_every(model, (r, Task::Cancel, interval), Some(node), false);
        table.order(model, End::Op(r, Task::Stop), End::Act(cancel), Link::ORDERED);
    }
}

fn in_maintenance(model: &Model<'_>, r: RscIx) -> bool {
    model.rscs[r].meta.maintenance || model.props.maintenance_mode
}

fn enabled(op: &Op) -> bool {
    op.attrs.get("enabled").and_then(parse_bool).unwrap_or(true)
}

/// Makes the monitors that the resource's next role asks for.
pub(super) fn recurring(model: &mut Model<'_>, table: &mut Table, r: RscIx) {
    if in_maintenance(model, r) || model.rscs[r].blocked() {
        return;
    }
    let Some(prim) = model.rscs[r].prim else { return };
    let node = model.rscs[r].assigned;
    let active = node.is_some_and(|n| !model.nodes[n].maintenance)
        && (model.rscs[r].next_role != Role::Stopped || !model.movable(r));
    let start = node.filter(|_| active).map(|n| {
        // What is not managed is not started, whatever a restart would take.
        (table.make(model, r, Task::Start, Some(n), true), n)
    });
    let mut seen = Vec::new();
    for (at, op) in prim.ops.iter().enumerate() {
        let interval = op.interval_ms();
        if op.name != "monitor" || interval == 0 || !enabled(op) || seen.contains(&interval) {
            continue;
        }
        seen.push(interval);
        let alike = |o: &&Op| o.name == op.name && o.interval_ms() == interval;
        if model.props.exact && prim.ops.iter().filter(alike).count() > 1 {
            // Their histories could not be told apart: Pacemaker runs neither.
            continue;
        }
        let one = Every { r, op: at, interval, role: op_role(op) };
        if one.role == Some(Role::Stopped) {
            where_stopped(model, table, one, node);
        } else if let Some((start, node)) = start {
            where_active(model, table, one, (start, node));
        }
    }
}

/// A configured recurring monitor.
#[derive(Debug, Clone, Copy)]
struct Every {
    r: RscIx,
    op: usize,
    interval: u64,
    role: Option<Role>,
}

fn where_active(
    model: &mut Model<'_>,
    table: &mut Table,
    one: Every,
    (start, node): (ActIx, NodeIx),
) {
    let Every { r, op, interval, role } = one;
    let known = table.recurring(r, interval, node);
    let runs =
        known.is_some_and(|a| !table.flags(a).has(Flag::AGAIN)) && table.flags(start).optional();
    let next = model.rscs[r].next_role;
    let now = model.role(r);
    let fits = match role {
        Some(Role::Started | Role::Unpromoted) if !model.props.exact => next != Role::Promoted,
        Some(role) => role == next,
        None => next != Role::Promoted,
    };
    if !fits {
        if runs {
            stop_monitor(model, table, one, node, now);
        }
        return;
    }
    let monitor = table.make_every(model, (r, Task::Monitor, interval), Some(node), runs);
    table.acts[monitor].config = Some(op);
    let usable = model.nodes[node].online && !model.unclean(node);
    if !table.flags(start).runnable() || !usable {
        table.clear(monitor, Flag::RUNNABLE);
    }
    if next == Role::Promoted {
        table.acts[monitor].expected_rc = rc::RUNNING_PROMOTED;
    }
    if !model.movable(r) {
        return;
    }
    let follows = Link::FIRST_IMPLIES_THEN | Link::BLOCKS;
    let end = End::Act(monitor);
    table.order(model, End::Op(r, Task::Start), end, follows);
    table.order(model, End::Op(r, Task::Reload), end, follows);
    let after = Link::ORDERED | Link::BLOCKS;
    if next == Role::Promoted {
        table.order(model, End::Op(r, Task::Promote), end, after);
    } else if now == Role::Promoted {
        table.order(model, End::Op(r, Task::Demote), end, after);
    }
}

/// A monitor of another role ends before the role changes.
fn stop_monitor(model: &mut Model<'_>, table: &mut Table, one: Every, node: NodeIx, now: Role) {
    let r = one.r;
    let cancel = table.make_every(model, (r, Task::Cancel, one.interval), Some(node), false);
    let next = model.rscs[r].next_role;
    let after = match (now, next) {
        (Role::Promoted, _) => Task::Demote,
        (Role::Started | Role::Unpromoted, Role::Promoted) => Task::Promote,
        (Role::Started | Role::Unpromoted, Role::Stopped) => Task::Stop,
        _ => return,
    };
    table.order(model, End::Act(cancel), End::Op(r, after), Link::BLOCKS);
}

/// Monitors that look that nothing runs, on all other nodes.
fn where_stopped(model: &mut Model<'_>, table: &mut Table, one: Every, node: Option<NodeIx>) {
    let Every { r, op, interval, .. } = one;
    let unique = model.rscs[r]
        .clone
        .is_none_or(|c| model.rscs[c].clone_info().is_some_and(|i| i.globally_unique));
    if !unique {
        return;
    }
    for there in 0..model.nodes.len() {
        let known = table.recurring(r, interval, there);
        if node == Some(there) {
            if known.is_some() {
                let cancel =
                    table.make_every(model, (r, Task::Cancel, interval), Some(there), false);
                if model.rscs[r].next_role != Role::Stopped {
                    let start = End::Op(r, Task::Start);
                    table.order(model, End::Act(cancel), start, Link::BLOCKS);
                }
            }
            continue;
        }
        let key = (r, Task::Monitor, interval);
        let monitor = table.make_every(model, key, Some(there), known.is_some());
        table.acts[monitor].config = Some(op);
        table.acts[monitor].expected_rc = rc::NOT_RUNNING;
        if model.movable(r) {
            for probe in table.all_on(r, Task::Monitor, there) {
                table.bind(probe, monitor, Link::BLOCKS);
            }
        }
        after_stops(model, table, r, there, monitor);
        if !model.nodes[there].online || model.unclean(there) {
            table.clear(monitor, Flag::RUNNABLE);
        }
    }
}

fn after_stops(model: &Model<'_>, table: &mut Table, r: RscIx, node: NodeIx, monitor: ActIx) {
    for stop in table.all_on(r, Task::Stop, node) {
        let flags = table.flags(stop);
        if !flags.optional() && !model.movable(r) {
            table.set(monitor, Flag::OPTIONAL);
        }
        if !flags.runnable() {
            table.clear(monitor, Flag::RUNNABLE);
        }
        if model.movable(r) {
            let link = Link::FIRST_IMPLIES_THEN | Link::BLOCKS;
            table.order(model, End::Act(stop), End::Act(monitor), link);
        }
    }
}
