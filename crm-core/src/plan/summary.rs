//! One line per change, in Pacemaker's words.

use super::actions::{ActIx, Flag, Table, Task};
use super::create::{current_node, needed as needed_of};
use super::model::{Model, NodeIx, RscIx};
use crate::cib::Role;

const fn word(role: Role) -> &'static str {
    match role {
        Role::Stopped => "Stopped",
        Role::Started => "Started",
        Role::Unpromoted => "Unpromoted",
        Role::Promoted => "Promoted",
    }
}

/// The lines, in resource order.
pub(super) fn lines(model: &Model<'_>, table: &Table) -> Vec<String> {
    if !model.props.exact {
        return (0..model.rscs.len()).filter_map(|r| line(model, table, r)).collect();
    }
    let mut out: Vec<String> = Vec::new();
    let armed = super::fence::anything_managed(model);
    for n in 0..model.nodes.len() {
        if let Some(container) = model.nodes[n].kind.container() {
            out.extend(recovered(model, table, n, container));
            continue;
        }
        if !(armed && model.will_fence(n)) {
            continue;
        }
        let why = model.nodes[n].fence.clone().unwrap_or_default();
        let how = model.props.fence_how;
        out.push(format!("* Fence ({how}) {} '{why}'", model.nodes[n].name));
    }
    for act in table.named.values().filter(|a| table.acts[**a].task == Task::Unfence) {
        let told = table.happens(*act) && !table.flags(*act).has(Flag::UNTOLD);
        if let (Some(node), true) = (table.acts[*act].node, told) {
            out.push(format!("* Fence (on) {}", model.nodes[node].name));
        }
    }
    for r in 0..model.rscs.len() {
        out.extend(exact(model, table, r));
    }
    out
}

/// A guest that is fenced by the recovery of what it lives in.
fn recovered(model: &Model<'_>, table: &Table, n: NodeIx, container: RscIx) -> Option<String> {
    let name = model.nodes[n].name;
    let made = |how: &&str| table.named.contains_key(&format!("stonith-{name}-{how}"));
    let how = ["reboot", "off"].into_iter().find(made)?;
    let container = model.rscs[container].id;
    Some(format!("* Fence ({how}) {name} (resource: {container}) 'guest is unclean'"))
}

/// The actions that a resource's line is about.
struct About {
    start: Option<ActIx>,
    stop: Option<ActIx>,
    promote: Option<ActIx>,
    demote: Option<ActIx>,
}

fn about(table: &Table, r: RscIx, now: Option<NodeIx>, next: Option<NodeIx>) -> About {
    let on = |task: Task, node: Option<NodeIx>| match node {
        Some(n) => {
            let here = |a: &ActIx| table.acts[*a].node.is_none_or(|node| node == n);
            table.all(r, task).into_iter().find(here)
        }
        None => table.all(r, task).first().copied(),
    };
    let start = on(Task::Start, next);
    let possible = start.is_some_and(|s| table.flags(s).runnable());
    About {
        start,
        stop: on(Task::Stop, now.filter(|_| possible)).or_else(|| on(Task::Stop, None)),
        promote: on(Task::Promote, next),
        demote: on(Task::Demote, next),
    }
}

/// What is thought to be somewhere is shown as started, even if it is known to be stopped there.
fn shown_role(model: &Model<'_>, r: RscIx) -> Role {
    match model.role(r) {
        Role::Stopped if current_node(model, r).is_some() => Role::Started,
        role @ (Role::Stopped | Role::Started | Role::Unpromoted | Role::Promoted) => role,
    }
}

/// The line as Pacemaker words it; several when several instances stop.
fn exact(model: &Model<'_>, table: &Table, r: RscIx) -> Vec<String> {
    let rsc = &model.rscs[r];
    if !rsc.children.is_empty() || !model.movable(r) {
        return Vec::new();
    }
    let (now, next) = (current_node(model, r), rsc.assigned);
    if now.is_none() && (next.is_none() || rsc.removed) {
        return Vec::new();
    }
    let acts = about(table, r, now, next);
    let one = Line { model, table, r, now, next };
    let (role, next_role) = (shown_role(model, r), rsc.next_role);
    let needed = |a: Option<ActIx>| a.is_some_and(|a| !table.flags(a).optional());
    let stuck = acts.start.is_some_and(|s| !table.flags(s).runnable());
    let failed = rsc.active.iter().any(|a| a.failed);
    let moving = now.is_some() && next.is_some() && now != next;
    if role == next_role {
        return one.same_role(&acts, (failed, moving, stuck)).into_iter().collect();
    }
    let demotes_only = rsc.active.iter().any(|a| a.demote_only);
    if acts.stop.is_some() && (next_role == Role::Stopped || stuck) {
        return one.stops();
    }
    let line = if acts.stop.is_some() && failed && !demotes_only {
        one.write("Recover", now, next, acts.stop)
    } else if moving {
        one.write("Move", now, next, acts.stop)
    } else if super::change::reloads(table, r) {
        one.write("Reload", now, next, acts.start)
    } else if needed(acts.stop) {
        one.write("Restart", now, next, acts.start)
    } else if role == Role::Promoted {
        one.write("Demote", now, next, acts.demote)
    } else if next_role == Role::Promoted {
        one.write("Promote", now, next, acts.promote)
    } else if role == Role::Stopped {
        one.write("Start", now, next, acts.start)
    } else {
        None
    };
    line.into_iter().collect()
}

struct Line<'l, 'a> {
    model: &'l Model<'a>,
    table: &'l Table,
    r: RscIx,
    now: Option<NodeIx>,
    next: Option<NodeIx>,
}

impl Line<'_, '_> {
    fn same_role(
        &self,
        acts: &About,
        (failed, moving, stuck): (bool, bool, bool),
    ) -> Option<String> {
        let (now, next, table) = (self.now, self.next, self.table);
        let into = table.all(self.r, Task::MigrateFrom);
        let needed = |a: Option<ActIx>| a.is_some_and(|a| !table.flags(a).optional());
        if now.is_some() && into.iter().any(|m| table.flags(*m).runnable()) {
            self.write("Migrate", now, next, acts.start)
        } else if super::change::reloads(table, self.r) {
            self.write("Reload", now, next, acts.start)
        } else if !needed(acts.start) {
            let again = needed(acts.demote) && needed(acts.promote);
            again.then(|| self.write("Re-promote", now, next, acts.promote)).flatten()
        } else if stuck {
            self.write("Stop", now, None, acts.stop)
        } else if moving {
            let verb = if failed { "Recover" } else { "Move" };
            self.write(verb, now, next, acts.stop)
        } else if failed {
            self.write("Recover", now, None, acts.stop)
        } else {
            self.write("Restart", now, next, acts.start)
        }
    }

    fn stops(&self) -> Vec<String> {
        let active = self.model.rscs[self.r].active.iter();
        let stop = |n: NodeIx| self.table.all_on(self.r, Task::Stop, n).first().copied();
        active.filter_map(|a| self.write("Stop", Some(a.node), None, stop(a.node))).collect()
    }

    fn write(
        &self,
        verb: &str,
        from: Option<NodeIx>,
        to: Option<NodeIx>,
        act: Option<ActIx>,
    ) -> Option<String> {
        let act = act?;
        let rsc = &self.model.rscs[self.r];
        let (role, next) = (shown_role(self.model, self.r), rsc.next_role);
        let roles = role > Role::Started || next > Role::Unpromoted;
        let at = |n: NodeIx| self.model.nodes[n].name;
        let (old, new) = (word(role), word(next));
        let place = match (from, to) {
            (None, None) => return None,
            (None, Some(to)) if roles => format!("{old} -> {new} {}", at(to)),
            (None, Some(to)) => at(to).to_owned(),
            (Some(from), None) if roles => format!("{old} {}", at(from)),
            (Some(from), None) => at(from).to_owned(),
            (Some(from), Some(to)) if from == to && role == next && roles => {
                format!("{old} {}", at(from))
            }
            (Some(from), Some(to)) if from == to && role == next => at(from).to_owned(),
            (Some(from), Some(to)) if role == next && roles => {
                format!("{} -> {} {old}", at(from), at(to))
            }
            (Some(from), Some(to)) if role == next => format!("{} -> {}", at(from), at(to)),
            (Some(from), Some(to)) if from == to => format!("{old} -> {new} {}", at(from)),
            (Some(from), Some(to)) => format!("{old} {} -> {new} {}", at(from), at(to)),
        };
        let blocked = if self.table.flags(act).runnable() { "" } else { " blocked" };
        Some(format!("* {verb} {} ( {place} ){blocked}", self.model.label(self.r)))
    }
}

fn line(model: &Model<'_>, table: &Table, r: RscIx) -> Option<String> {
    let needed = |task: Task| needed_of(table, r, task);
    let (starts, stops) = (needed(Task::Start), needed(Task::Stop));
    let (promotes, demotes) = (needed(Task::Promote), needed(Task::Demote));
    let all = [&starts, &stops, &promotes, &demotes];
    if all.iter().all(|a| a.is_empty()) {
        return None;
    }
    let runnable = |acts: &[ActIx]| acts.iter().all(|a| table.flags(*a).runnable());
    let blocked = if all.iter().all(|a| runnable(a)) { "" } else { " blocked" };
    let rsc = &model.rscs[r];
    let label = model.label(r);
    let at = |n: usize| model.nodes[n].name;
    let role =
        |role: Role| if role == Role::Started { String::new() } else { format!("{} ", word(role)) };
    let now = rsc.active.first();
    let next = rsc.next_role;
    let failed = rsc.active.iter().any(|a| a.failed);
    let goes_up = !starts.is_empty() && runnable(&starts);
    let halves = table.all(r, Task::MigrateFrom);
    if let (Some(from), Some(to)) = (current_node(model, r), rsc.assigned)
        && halves.iter().any(|half| table.flags(*half).runnable())
    {
        return Some(format!("* Migrate {label} ( {} -> {} ){blocked}", at(from), at(to)));
    }
    let text = match (now, rsc.assigned) {
        (None, Some(to)) => format!("Start {label} ( {}{} )", role(next), at(to)),
        (Some(now), None) => format!("Stop {label} ( {}{} )", role(now.role), at(now.node)),
        (Some(now), Some(to)) if !stops.is_empty() && !goes_up && !starts.is_empty() => {
            let _ = to;
            format!("Stop {label} ( {}{} )", role(now.role), at(now.node))
        }
        (Some(now), Some(to)) if now.node != to => {
            let change = if now.role == next {
                format!("{}{} -> {}", role(next), at(now.node), at(to))
            } else {
                format!("{} {} -> {} {}", word(now.role), at(now.node), word(next), at(to))
            };
            format!("Move {label} ( {change} )")
        }
        (Some(now), Some(to)) if !stops.is_empty() => {
            let verb = if failed { "Recover" } else { "Restart" };
            if now.role == next {
                format!("{verb} {label} ( {}{} )", role(next), at(to))
            } else {
                format!("{verb} {label} ( {} -> {} {} )", word(now.role), word(next), at(to))
            }
        }
        (Some(now), Some(to)) => {
            let verb = if now.role < next { "Promote" } else { "Demote" };
            let verb = if now.role == next { "Re-promote" } else { verb };
            format!("{verb} {label} ( {} -> {} {} )", word(now.role), word(next), at(to))
        }
        (None, None) => return None,
    };
    Some(format!("* {text}{blocked}"))
}
