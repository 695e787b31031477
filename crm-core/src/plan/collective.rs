//! Actions of groups and clones: what they are, as their members make them, and how what binds them reaches the members.

use super::Habit;
use super::actions::{ActIx, Flag, Flags, Stage, Task};
use super::model::{Kind, Model, NodeIx, RscIx};
use super::order::Link;
use super::spread::{Changed, Meaning, Spread};
use crate::cib::{Role, Score};

/// The task of a member that stands for a collection's task.
fn member_task(model: &Model<'_>, member: RscIx, task: Task) -> Task {
    if matches!(model.rscs[member].kind, Kind::Primitive) { task.operation() } else { task }
}

/// The task of an instance that stands for a clone's task; what instances are told of counts as what it is about.
fn instance_task(model: &Model<'_>, clone: RscIx, task: Task) -> Option<Task> {
    let first = *model.rscs[clone].children.first()?;
    let about = if let Task::Notify(_, of) = task { of.task() } else { task };
    Some(member_task(model, first, about))
}

/// Flags of an action as an edge sees them; `node` is where the other side is.
pub(super) fn flags_for(spread: &mut Spread<'_, '_>, act: ActIx, node: Option<NodeIx>) -> Flags {
    let Some(r) = spread.table.acts[act].rsc else { return spread.table.flags(act) };
    let flags = flags_of(spread, act, None);
    // A bundle counts as a whole wherever its containers are.
    let rsc = &spread.model.rscs[r];
    if node.is_none() || rsc.clone_info().is_none() || rsc.bundle.is_some() {
        return flags;
    }
    let mut there = flags_of(spread, act, node);
    if flags.runnable() {
        // It only matters whether it can be done anywhere.
        there.set(Flag::RUNNABLE);
    }
    there
}

/// Flags of an action; those of a collection are gathered from its members, and kept.
pub(super) fn flags_of(spread: &mut Spread<'_, '_>, act: ActIx, node: Option<NodeIx>) -> Flags {
    let Some(r) = spread.table.acts[act].rsc else { return spread.table.flags(act) };
    let before = spread.table.flags(act);
    let flags = match spread.model.rscs[r].kind {
        Kind::Primitive => return before,
        Kind::Group { .. } => group_flags(spread, r, act, node),
        Kind::Clone(_) => clone_flags(spread, r, act, node),
    };
    if spread.table.flags(act) != before
        && !(spread.model.habit(Habit::Unheard) && spread.is_group(r))
    {
        spread.again_with_followers(act);
    }
    flags
}

fn group_flags(spread: &mut Spread<'_, '_>, r: RscIx, act: ActIx, node: Option<NodeIx>) -> Flags {
    let mut flags = Flags::collective();
    let own = spread.table.acts[act].task;
    for at in 0..spread.model.rscs[r].children.len() {
        let member = spread.model.rscs[r].children[at];
        let task = member_task(spread.model, member, own);
        let Some(action) = spread.table.find(member, task, node) else {
            if !matches!(task, Task::Stop | Task::Demote) {
                flags.clear(Flag::RUNNABLE);
            }
            continue;
        };
        let theirs = flags_of(spread, action, node);
        if !theirs.optional() {
            flags.clear(Flag::OPTIONAL);
            spread.table.clear(act, Flag::OPTIONAL);
        }
        if task != own && !theirs.runnable() {
            flags.clear(Flag::RUNNABLE);
            spread.table.clear(act, Flag::RUNNABLE);
        }
    }
    flags
}

fn clone_flags(spread: &mut Spread<'_, '_>, r: RscIx, act: ActIx, node: Option<NodeIx>) -> Flags {
    let mut flags = Flags::collective();
    let own = spread.table.acts[act].task;
    let Some(task) = instance_task(spread.model, r, own) else {
        return flags;
    };
    let mut any = false;
    for instance in spread.model.doers(r, own) {
        let primitive = matches!(spread.model.rscs[instance].kind, Kind::Primitive);
        let there = node.filter(|_| primitive);
        let Some(action) = spread.table.find(instance, task, there) else { continue };
        let theirs = flags_of(spread, action, node);
        if !theirs.optional() {
            flags.clear(Flag::OPTIONAL);
            spread.table.clear(act, Flag::OPTIONAL);
        }
        any |= theirs.runnable();
    }
    if !any {
        flags.clear(Flag::RUNNABLE);
        if node.is_none() {
            spread.table.clear(act, Flag::RUNNABLE);
        }
    }
    flags
}

/// Applies a meaning for the resource `holder` and, where the action is a collection's, for its members.
pub(super) fn update(
    spread: &mut Spread<'_, '_>,
    holder: RscIx,
    (first, then): (ActIx, ActIx),
    meaning: Meaning,
) -> Changed {
    match spread.model.rscs[holder].kind {
        Kind::Primitive => basic(spread, first, then, meaning),
        Kind::Group { .. } => {
            let mut changed = basic(spread, first, then, meaning);
            for member in children_of(spread, then) {
                let task = spread.table.acts[then].task;
                if let Some(act) = spread.table.find(member, task, meaning.node) {
                    changed = changed.or(nested(spread, member, (first, act), meaning));
                }
            }
            changed
        }
        Kind::Clone(_) if interleaves(spread, first, then) => {
            interleaved(spread, first, then, meaning)
        }
        Kind::Clone(_) => {
            let mut changed = basic(spread, first, then, meaning);
            for instance in children_of(spread, then) {
                let task = spread.table.acts[then].task;
                let Some(act) = spread.table.find(instance, task, meaning.node) else { continue };
                if flags_of(spread, act, meaning.node).runnable() {
                    changed = changed.or(nested(spread, instance, (first, act), meaning));
                }
            }
            changed
        }
    }
}

fn children_of(spread: &Spread<'_, '_>, act: ActIx) -> Vec<RscIx> {
    let rsc = spread.table.acts[act].rsc;
    rsc.map(|r| spread.model.rscs[r].children.clone()).unwrap_or_default()
}

fn basic(spread: &mut Spread<'_, '_>, first: ActIx, then: ActIx, meaning: Meaning) -> Changed {
    if meaning.link == Link::NESTED_PROBE {
        let active = spread.table.acts[first].rsc.is_some_and(|r| spread.model.is_active(r));
        if active {
            return Changed::default();
        }
        return spread.basic(first, then, Meaning { link: Link::BLOCKS, ..meaning });
    }
    spread.basic(first, then, meaning)
}

/// A member's action changes on behalf of its collection's.
fn nested(
    spread: &mut Spread<'_, '_>,
    member: RscIx,
    (first, act): (ActIx, ActIx),
    meaning: Meaning,
) -> Changed {
    let changed = update(spread, member, (first, act), meaning);
    if changed.then {
        if !spread.table.flags(act).runnable() {
            block_dependents(spread, act);
        }
        spread.again_with_followers(act);
    }
    changed
}

/// Two clones of which one asks to be matched instance by instance: the later one on the way up, the first on the way down.
fn interleaves(spread: &Spread<'_, '_>, first: ActIx, then: ActIx) -> bool {
    let (Some(a), Some(b)) = (spread.table.acts[first].rsc, spread.table.acts[then].rsc) else {
        return false;
    };
    let info = |r: RscIx| spread.model.rscs[r].clone_info();
    let (Some(first_info), Some(then_info)) = (info(a), info(b)) else { return false };
    let down = matches!(spread.table.acts[then].task, Task::Stop | Task::Demote);
    a != b && if down { first_info.interleave } else { then_info.interleave }
}

fn interleaved(
    spread: &mut Spread<'_, '_>,
    first: ActIx,
    then: ActIx,
    meaning: Meaning,
) -> Changed {
    let mut changed = Changed::default();
    let Some(clone) = spread.table.acts[first].rsc else { return changed };
    let first_task = spread.table.acts[first].task;
    let Some(task) = instance_task(spread.model, clone, first_task) else { return changed };
    let about =
        if let Task::Notify(Stage::PostDone, of) = first_task { of.task() } else { first_task };
    let current = matches!(about, Task::Stopped | Task::Demoted);
    for instance in children_of(spread, then) {
        let Some(partner) = partner(spread.model, instance, clone, current) else {
            let needs = Link::BLOCKS | Link::FIRST_IMPLIES_THEN;
            if !current && meaning.link.any(needs) && unassign(spread, instance) {
                changed.then = true;
            }
            continue;
        };
        let then_task = spread.table.acts[then].task;
        // What runs in a container is on a node of its own.
        let find = |spread: &Spread<'_, '_>, r: RscIx, task: Task, first: bool| match spread
            .model
            .partaker(r, task, first)
        {
            Some(inner) => spread.table.find(inner, task.operation(), None),
            None => spread.table.find(r, task, meaning.node),
        };
        let Some(a) = find(spread, partner, task, true) else { continue };
        let Some(b) = find(spread, instance, then_task, false) else { continue };
        if spread.table.bind(a, b, meaning.link) {
            spread.again(b);
        }
        let seen = flags_of(spread, a, meaning.node);
        changed = changed.or(nested(spread, instance, (a, b), Meaning { seen, ..meaning }));
    }
    changed
}

/// The instance of `clone` that belongs to another clone's instance: the one on the same node.
pub(super) fn partner(
    model: &Model<'_>,
    instance: RscIx,
    clone: RscIx,
    current: bool,
) -> Option<RscIx> {
    let on = |node: NodeIx| {
        model.rscs[clone].children.iter().copied().find(|i| {
            *i != instance
                && !model.leaves(*i).iter().any(|l| model.rscs[*l].blocked())
                && model.location(*i, current) == Some(node)
        })
    };
    if let Some(node) = model.location(instance, current) {
        return on(node);
    }
    let leaf = model.leaves(instance).first().copied()?;
    let mut nodes: Vec<NodeIx> =
        (0..model.nodes.len()).filter(|n| model.nodes[*n].available()).collect();
    let score = |n: NodeIx| model.rscs[leaf].scores.get(n).copied().unwrap_or(Score::ZERO);
    nodes.sort_by(|a, b| {
        let names = || model.nodes[*a].name.cmp(model.nodes[*b].name);
        score(*b).cmp(&score(*a)).then_with(names)
    });
    nodes.into_iter().find_map(on)
}

/// An instance without a partner does not come up.
#[expect(clippy::wildcard_enum_match_arm, reason = "other actions need the start, and follow it")]
fn unassign(spread: &mut Spread<'_, '_>, instance: RscIx) -> bool {
    let mut changed = false;
    for leaf in spread.model.leaves(instance) {
        if spread.model.rscs[leaf].assigned.is_none() || !spread.model.movable(leaf) {
            continue;
        }
        changed = true;
        spread.model.rscs[leaf].assigned = None;
        spread.model.rscs[leaf].next_role = Role::Stopped;
        let text = "waits for its partner on the same node, which is not going to run".to_owned();
        spread.model.because(leaf, None, "order", text);
        for act in spread.table.of[leaf].clone() {
            let entry = &spread.table.acts[act];
            let (task, every) = (entry.task, entry.interval_ms > 0);
            match task {
                Task::Stop => spread.table.clear(act, Flag::OPTIONAL),
                Task::Start => spread.table.clear(act, Flag::RUNNABLE),
                _ if every
                    && spread.table.acts[act].expected_rc != crate::status::rc::NOT_RUNNING =>
                {
                    spread.table.clear(act, Flag::RUNNABLE);
                }
                _ => {}
            }
            spread.again_with_followers(act);
        }
    }
    changed
}

/// What must be where an impossible start or promotion would have been does not come up either.
pub(super) fn block_dependents(spread: &mut Spread<'_, '_>, act: ActIx) {
    let entry = &spread.table.acts[act];
    let task = entry.task;
    if entry.flags.runnable() || !task.rises() {
        return;
    }
    let Some(r) = entry.rsc else { return };
    let top = spread.model.top(r);
    // A container that cannot start leaves the others of its bundle.
    let top = spread.model.bundle_of(top).unwrap_or(top);
    if spread.model.habit(Habit::GroupsSpeakLate) && spread.is_group(top) {
        // What follows it has become its last member's affair.
        return;
    }
    for child in spread.model.parts(top) {
        let possible = |a: ActIx| spread.table.flags(a).runnable();
        if spread.table.find(child, task, None).is_none_or(possible) {
            return;
        }
    }
    for ix in spread.model.with_this_list(top) {
        let c = &spread.model.colocs[ix];
        if c.score < Score::INF || c.internal {
            continue;
        }
        if task == Task::Promote && c.primary_role != Some(Role::Promoted) {
            continue;
        }
        let lost =
            if c.dependent_role == Some(Role::Promoted) { Task::Promote } else { Task::Start };
        let dependent = c.dependent;
        mark_blocked(spread, dependent, lost, top);
    }
}

fn mark_blocked(spread: &mut Spread<'_, '_>, r: RscIx, task: Task, by: RscIx) {
    for act in spread.table.all(r, task) {
        if !spread.table.flags(act).runnable() {
            continue;
        }
        spread.table.clear(act, Flag::RUNNABLE);
        let node = spread.table.acts[act].node;
        let text = format!("follows {}, which is not going to be there", spread.model.rscs[by].id);
        spread.model.because(r, node, "colocation", text);
        block_dependents(spread, act);
        if spread.model.habit(Habit::Unheard) {
            spread.again(act);
        } else {
            spread.again_with_followers(act);
        }
    }
    for child in spread.model.rscs[r].children.clone() {
        mark_blocked(spread, child, task, by);
    }
}
