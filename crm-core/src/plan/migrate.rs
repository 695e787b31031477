//! Live migration: a move without a stop, when nothing that it stands on is taken away.

use super::actions::{ActIx, Link, Table, Task, What};
use super::model::{Kind, Model, NodeIx, RscIx};
use super::order::Pair;
use crate::cib::OrderKind;

/// Turns moves into migrations where that is possible. Only in plans made as Pacemaker makes them.
pub(super) fn bind(model: &mut Model<'_>, table: &mut Table, pairs: &[Pair<'_>]) {
    if !model.props.exact {
        return;
    }
    for r in 0..model.rscs.len() {
        model.rscs[r].migrates = candidate(model, table, r);
    }
    veto(model, table, pairs);
    for r in 0..model.rscs.len() {
        if let Some((from, to)) = model.rscs[r].migrates {
            migrate(table, r, from, to);
        }
    }
}

fn candidate(model: &Model<'_>, table: &Table, r: RscIx) -> Option<(NodeIx, NodeIx)> {
    let rsc = &model.rscs[r];
    if !matches!(rsc.kind, Kind::Primitive) || !rsc.meta.allow_migrate || !model.movable(r) {
        return None;
    }
    let seen = rsc.sole_active().filter(|s| !s.failed && !s.changed && !s.blocked)?;
    let to = rsc.assigned.filter(|to| *to != seen.node)?;
    let from = &model.nodes[seen.node];
    let start = table.tasks(r, Task::Start).first()?;
    let ready = from.online && from.clean && from.fence.is_none() && table.acts[*start].runnable;
    ready.then_some((seen.node, to))
}

/// What stands on something that is stopped or started in the same plan cannot be alive all the time.
fn veto(model: &mut Model<'_>, table: &Table, pairs: &[Pair<'_>]) {
    loop {
        let mut lost = Vec::new();
        for pair in pairs.iter().filter(|p| p.kind == OrderKind::Mandatory) {
            if !pair.first_task.rises() || !pair.then_task.rises() {
                continue;
            }
            let changes = |f: RscIx| {
                let needed =
                    |task: Task| table.tasks(f, task).iter().any(|a| table.acts[*a].required);
                model.rscs[f].migrates.is_none() && (needed(Task::Start) || needed(Task::Stop))
            };
            let first = model.leaves(pair.first);
            for then in model.leaves(pair.then) {
                let Some((from, to)) = model.rscs[then].migrates else { continue };
                let near = |f: &RscIx| {
                    let at = |n: NodeIx| {
                        let all = [Task::Start, Task::Stop];
                        let mut acts = all.iter().flat_map(|t| table.tasks(*f, *t));
                        acts.any(|a| table.acts[*a].node == Some(n))
                    };
                    model.rscs[*f].clone.is_none() || at(from) || at(to)
                };
                if first.iter().any(|f| changes(*f) && near(f)) {
                    lost.push(then);
                }
            }
        }
        if lost.is_empty() {
            return;
        }
        for r in lost {
            model.rscs[r].migrates = None;
        }
    }
}

/// to, from, then the stop that cleans up; the start is only a point.
fn migrate(table: &mut Table, r: RscIx, from: NodeIx, to: NodeIx) {
    let out = table.add(What::MigrateTo, r, Some(from));
    let into = table.add(What::MigrateFrom, r, Some(to));
    let starts: Vec<ActIx> = table.tasks(r, Task::Start).to_vec();
    let stops: Vec<ActIx> = table.tasks(r, Task::Stop).to_vec();
    table.acts[out].required = true;
    table.acts[into].required = true;
    table.link(out, into, Link::ORDER | Link::BLOCKS);
    for stop in &stops {
        table.link(into, *stop, Link::ORDER);
    }
    for start in &starts {
        table.acts[*start].implied = true;
        table.link(into, *start, Link::ORDER | Link::BLOCKS);
        // It goes on living: what stands on it stays.
        table.relax(*start);
    }
    for stop in stops {
        table.relax(stop);
    }
}
