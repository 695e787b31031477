//! Instances of a clone are told before and after others of it start, stop, are promoted or demoted (`notify`).

use super::actions::{ActIx, Flag, Of, Stage, Table, Task};
use super::model::{Kind, Model, NodeIx, RscIx};
use super::order::Link;
use crate::cib::Role;

/// Is the clone, or what the instance is part of, to be told?
pub(super) fn wanted(model: &Model<'_>, r: RscIx) -> bool {
    let clone = if model.rscs[r].clone_info().is_some() { Some(r) } else { model.rscs[r].clone };
    let told = clone.and_then(|c| model.rscs[c].clone_info()).is_some_and(|info| info.notify);
    told || model.told_with_bundle(r)
}

fn point(
    model: &mut Model<'_>,
    table: &mut Table,
    r: RscIx,
    (stage, about): (Stage, ActIx),
) -> Option<ActIx> {
    let of = Of::about(table.acts[about].task)?;
    let optional = table.flags(about).optional();
    Some(table.point(model, r, Task::Notify(stage, of), optional, true))
}

/// The points around an action of a clone: told before, acted, told after.
pub(super) fn points(
    model: &mut Model<'_>,
    table: &mut Table,
    r: RscIx,
    (_, begin, end): (Task, ActIx, ActIx),
) {
    if !wanted(model, r) {
        return;
    }
    let pre = point(model, table, r, (Stage::Pre, begin));
    let pre_done = point(model, table, r, (Stage::PreDone, begin));
    let (Some(pre), Some(pre_done)) = (pre, pre_done) else { return };
    table.bind(pre, pre_done, Link::ORDERED);
    table.bind(pre_done, begin, Link::ORDERED);
    if let Some(post) = after(model, table, r, end) {
        table.bind(pre_done, post, Link::ORDERED);
    }
}

/// The points after an action.
fn after(model: &mut Model<'_>, table: &mut Table, r: RscIx, end: ActIx) -> Option<ActIx> {
    let post = point(model, table, r, (Stage::Post, end))?;
    let post_done = point(model, table, r, (Stage::PostDone, end))?;
    if !table.flags(end).runnable() {
        table.clear(post, Flag::RUNNABLE);
        table.clear(post_done, Flag::RUNNABLE);
    }
    table.bind(end, post, Link::FIRST_IMPLIES_THEN);
    table.bind(post, post_done, Link::FIRST_IMPLIES_THEN);
    Some(post)
}

/// All are told of one thing before the next begins.
pub(super) fn sequence(model: &Model<'_>, table: &mut Table, r: RscIx, pairs: &[(Task, Task)]) {
    if !wanted(model, r) {
        return;
    }
    for (first, then) in pairs {
        let done =
            first.completion().and_then(Of::about).map(|of| Task::Notify(Stage::PostDone, of));
        let pre = Of::about(*then).map(|of| Task::Notify(Stage::Pre, of));
        let find = |task: Option<Task>| task.and_then(|t| table.find(r, t, None));
        if let (Some(done), Some(pre)) = (find(done), find(pre)) {
            table.bind(done, pre, Link::ORDERED);
        }
    }
}

/// What fencing stopped is told of after it: to the other instances, as a stop.
pub(super) fn after_fencing(model: &mut Model<'_>, table: &mut Table, r: RscIx, fencing: ActIx) {
    if !wanted(model, r) {
        return;
    }
    let Some(post) = after(model, table, r, fencing) else { return };
    let done = table.find(r, Task::Notify(Stage::PostDone, Of::Fence), None);
    let Some(post_done) = done else { return };
    let points = Points { pre: None, post, post_done };
    for leaf in model.leaves(model.top(r)) {
        tell_leaf(model, table, leaf, Task::Stop, points);
    }
}

/// Phase 12: the operations that tell the instances, once it is known what happens.
pub(super) fn tell(model: &mut Model<'_>, table: &mut Table) {
    for r in 0..model.rscs.len() {
        if !matches!(model.rscs[r].kind, Kind::Clone(_)) || !wanted(model, r) {
            continue;
        }
        for task in [Task::Start, Task::Stop, Task::Promote, Task::Demote] {
            tell_of(model, table, r, task);
        }
    }
}

/// The points of a clone for one task.
#[derive(Debug, Clone, Copy)]
struct Points {
    pre: Option<(ActIx, ActIx)>,
    post: ActIx,
    post_done: ActIx,
}

fn tell_of(model: &mut Model<'_>, table: &mut Table, clone: RscIx, task: Task) {
    let find = |stage: Stage, task: Option<Task>| {
        table.find(clone, Task::Notify(stage, task.and_then(Of::about)?), None)
    };
    let (begin, end) = (Some(task), task.completion());
    let (Some(pre), Some(pre_done), Some(post), Some(post_done)) = (
        find(Stage::Pre, begin),
        find(Stage::PreDone, begin),
        find(Stage::Post, end),
        find(Stage::PostDone, end),
    ) else {
        return;
    };
    let leaves = model.leaves(clone);
    let any = leaves.iter().any(|l| {
        let acts = table.all(*l, task).into_iter();
        acts.filter(|a| table.acts[*a].node.is_some()).any(|a| table.happens(a))
    });
    if task != Task::Stop && !any {
        return;
    }
    let points = Points { pre: Some((pre, pre_done)), post, post_done };
    for leaf in leaves {
        tell_leaf(model, table, leaf, task, points);
    }
}

fn tell_leaf(model: &mut Model<'_>, table: &mut Table, r: RscIx, task: Task, points: Points) {
    if matches!(task, Task::Stop | Task::Demote) {
        let stop = table.find(r, Task::Stop, None);
        for seen in model.rscs[r].active.clone() {
            let fenced = stop.is_some_and(|s| table.flags(s).pseudo())
                && (model.unclean(seen.node) || model.nodes[seen.node].reset);
            if fenced {
                continue;
            }
            before(model, table, (r, task), seen.node, points);
            let stays = stop.is_none_or(|s| table.flags(s).optional());
            if task == Task::Demote || stays {
                afterwards(model, table, (r, task), seen.node, points);
            }
        }
        return;
    }
    let Some(node) = model.rscs[r].assigned.filter(|_| model.rscs[r].next_role != Role::Stopped)
    else {
        return;
    };
    let start = table.find(r, Task::Start, None);
    if start.is_some_and(|s| !table.flags(s).optional() && !table.flags(s).runnable()) {
        // It is not going to be there.
        return;
    }
    if task != Task::Start || start.is_none_or(|s| table.flags(s).optional()) {
        before(model, table, (r, task), node, points);
    }
    afterwards(model, table, (r, task), node, points);
}

fn before(
    model: &mut Model<'_>,
    table: &mut Table,
    what: (RscIx, Task),
    node: NodeIx,
    points: Points,
) {
    if let Some((pre, pre_done)) = points.pre {
        one(model, table, what, node, (Stage::Pre, pre, pre_done));
    }
}

fn afterwards(
    model: &mut Model<'_>,
    table: &mut Table,
    what: (RscIx, Task),
    node: NodeIx,
    points: Points,
) {
    one(model, table, what, node, (Stage::Post, points.post, points.post_done));
    for act in table.of[what.0].clone() {
        let entry = &table.acts[act];
        if entry.interval_ms > 0 && entry.task == Task::Monitor {
            table.bind(points.post_done, act, Link::ORDERED);
        }
    }
}

fn one(
    model: &mut Model<'_>,
    table: &mut Table,
    (r, task): (RscIx, Task),
    node: NodeIx,
    (stage, point, done): (Stage, ActIx, ActIx),
) {
    let flags = table.flags(point);
    let Some(of) = Of::about(task) else { return };
    if !model.nodes[node].online || !flags.runnable() {
        return;
    }
    let told = Task::Notify(stage, of);
    let act = table.make(model, r, told, Some(node), flags.optional());
    table.bind(point, act, Link::ORDERED);
    table.bind(act, done, Link::ORDERED);
}
