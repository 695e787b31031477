//! Recurring monitors: which begin and which end, once it is known what restarts.

use super::actions::{ActIx, Link, Table, Task, What};
use super::history::op_role;
use super::model::{Kind, Model, NodeIx, RscIx};
use crate::cib::{Op, Role, parse_bool};
use std::collections::BTreeSet;

/// What a primitive will be on a node when the plan is done.
struct Future {
    node: NodeIx,
    role: Role,
    /// It is stopped and started again: its monitors are gone by then.
    fresh: bool,
}

/// Adds the monitors' actions.
pub(super) fn add(model: &Model<'_>, table: &mut Table) {
    for r in 0..model.rscs.len() {
        if matches!(model.rscs[r].kind, Kind::Primitive) {
            add_for(model, table, r);
        }
    }
}

fn add_for(model: &Model<'_>, table: &mut Table, r: RscIx) {
    let rsc = &model.rscs[r];
    let Some(prim) = rsc.prim else { return };
    let Some(future) = future(model, table, r) else { return };
    let frozen = rsc.meta.maintenance
        || model.props.maintenance_mode
        || model.nodes[future.node].maintenance;
    let wanted: Vec<(usize, u64)> = prim
        .ops
        .iter()
        .enumerate()
        .filter(|(_, op)| !frozen && applies(op, future.role))
        .map(|(i, op)| (i, op.interval_ms()))
        .collect();
    let running: BTreeSet<u64> = if future.fresh {
        BTreeSet::new()
    } else if model.props.exact {
        let here =
            rsc.now.recurring.iter().filter(|(n, op, _)| *n == future.node && op == "monitor");
        here.map(|(_, _, interval)| *interval).collect()
    } else {
        let node = model.status.nodes.get(model.nodes[future.node].name);
        let history = node.and_then(|n| n.resources.get(&model.key(r)));
        history.map(|h| h.monitors.keys().copied().collect()).unwrap_or_default()
    };
    for interval in &running {
        if !wanted.iter().any(|(_, i)| i == interval) {
            let cancel = needed(table, What::Cancel(*interval), r, future.node);
            for task in [Task::Promote, Task::Demote] {
                for act in table.tasks(r, task).to_vec() {
                    table.link(cancel, act, Link::ORDER);
                }
            }
        }
    }
    for (op, interval) in wanted {
        if !running.contains(&interval) {
            let monitor = needed(table, What::Monitor(op), r, future.node);
            for task in [Task::Start, Task::Promote, Task::Demote] {
                for act in table.tasks(r, task).to_vec() {
                    table.link(act, monitor, Link::ORDER);
                }
            }
        }
    }
}

fn needed(table: &mut Table, what: What, r: RscIx, node: NodeIx) -> ActIx {
    let act = table.add(what, r, Some(node));
    table.acts[act].required = true;
    act
}

/// `None` when it will not run, or when nothing about it may be touched.
fn future(model: &Model<'_>, table: &Table, r: RscIx) -> Option<Future> {
    let rsc = &model.rscs[r];
    if !model.movable(r) {
        let seen = rsc.sole_active().filter(|s| !s.blocked && model.nodes[s.node].online)?;
        return Some(Future { node: seen.node, role: seen.role, fresh: false });
    }
    let node = rsc.assigned?;
    let start = table.acts.get(*table.tasks(r, Task::Start).first()?)?;
    if start.required && !start.runnable {
        return None;
    }
    let possible = |a: &ActIx| table.acts[*a].runnable || !table.acts[*a].required;
    let role = match rsc.next_role {
        Role::Promoted if table.tasks(r, Task::Promote).iter().all(possible) => Role::Promoted,
        Role::Promoted => Role::Unpromoted,
        role @ (Role::Stopped | Role::Started | Role::Unpromoted) => role,
    };
    Some(Future { node, role, fresh: start.required })
}

/// A monitor runs in the role it names; without one, wherever the resource is not promoted.
fn applies(op: &Op, role: Role) -> bool {
    let enabled = op.attrs.get("enabled").and_then(parse_bool).unwrap_or(true);
    let fits = match op_role(op) {
        Some(Role::Promoted) => role == Role::Promoted,
        Some(Role::Stopped) => false,
        Some(Role::Started | Role::Unpromoted) | None => role != Role::Promoted,
    };
    enabled && fits && op.name == "monitor" && op.interval_ms() > 0
}
