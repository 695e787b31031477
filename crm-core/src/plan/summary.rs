//! One line per change, in Pacemaker's words.

use super::actions::{ActIx, Table, Task};
use super::model::{Model, RscIx, Seen};
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
    for n in (0..model.nodes.len()).filter(|n| model.will_fence(*n)) {
        let why = model.nodes[n].fence.clone().unwrap_or_default();
        let how = model.props.fence_how;
        out.push(format!("* Fence ({how}) {} '{why}'", model.nodes[n].name));
    }
    for r in 0..model.rscs.len() {
        out.extend(exact(model, table, r));
    }
    out
}

/// A role as Pacemaker shows it before a node: only where there are several.
fn named(role: Role) -> String {
    match role {
        Role::Started | Role::Stopped => String::new(),
        Role::Unpromoted | Role::Promoted => format!("{} ", word(role)),
    }
}

/// What changes: role, node, or both.
fn place((role, next): (Role, Role), (from, to): (&str, &str)) -> String {
    match (role == next, from != to) {
        (true, false) => format!("{}{to}", named(role)),
        (true, true) => format!("{from} -> {to} {}", named(role)).trim_end().to_owned(),
        (false, false) => format!("{} -> {} {to}", word(role), word(next)),
        (false, true) => format!("{} {from} -> {} {to}", word(role), word(next)),
    }
}

/// The line as Pacemaker words it; several when several instances stop.
fn exact(model: &Model<'_>, table: &Table, r: RscIx) -> Vec<String> {
    let rsc = &model.rscs[r];
    let acts = |task: Task| table.tasks(r, task).to_vec();
    let needed = |a: &ActIx| table.acts[*a].required;
    let (starts, stops) = (acts(Task::Start), acts(Task::Stop));
    let (promotes, demotes) = (acts(Task::Promote), acts(Task::Demote));
    let label = model.label(r);
    if ![&starts, &stops, &promotes, &demotes].iter().any(|all| all.iter().any(needed)) {
        let reload = rsc.active.iter().find(|a| a.reload && Some(a.node) == rsc.assigned);
        let line = |a: &Seen| format!("* Reload {label} ( {} )", model.nodes[a.node].name);
        return reload.filter(|_| model.movable(r)).map(line).into_iter().collect();
    }
    let at = |n: usize| model.nodes[n].name;
    let now =
        rsc.active.iter().find(|a| Some(a.node) == rsc.assigned).or_else(|| rsc.active.first());
    let role = now.map_or(Role::Stopped, |s| s.role);
    let next = rsc.next_role;
    let failed = rsc.active.iter().any(|a| a.failed);
    let start_needed = starts.iter().any(needed);
    let start_stuck = starts.iter().any(|a| needed(a) && !table.acts[*a].runnable);
    let stop_needed = stops.iter().any(needed);
    let blocked = |acts: &[ActIx]| {
        if acts.iter().any(|a| needed(a) && !table.acts[*a].runnable) { " blocked" } else { "" }
    };
    let (Some(now), Some(to)) = (now, rsc.assigned.filter(|_| !(start_stuck && stop_needed)))
    else {
        if now.is_none() {
            let Some(to) = rsc.assigned else { return Vec::new() };
            let text = if next == Role::Promoted {
                format!("* Promote {label} ( Stopped -> Promoted {} )", at(to))
            } else {
                format!("* Start {label} ( {} )", at(to))
            };
            return vec![format!("{text}{}", blocked(&starts))];
        }
        let stopped = rsc
            .active
            .iter()
            .filter(|a| stops.iter().any(|s| needed(s) && table.acts[*s].node == Some(a.node)));
        return stopped
            .map(|a| {
                format!("* Stop {label} ( {}{} ){}", named(a.role), at(a.node), blocked(&stops))
            })
            .collect();
    };
    let moving = now.node != to;
    let place = place((role, next), (at(now.node), at(to)));
    let verb = if rsc.migrates.is_some() {
        "Migrate"
    } else if (start_needed || stop_needed) && failed {
        "Recover"
    } else if moving {
        "Move"
    } else if start_needed || stop_needed {
        "Restart"
    } else if role == next {
        "Re-promote"
    } else if role == Role::Promoted {
        "Demote"
    } else {
        "Promote"
    };
    vec![format!("* {verb} {label} ( {place} )")]
}

fn line(model: &Model<'_>, table: &Table, r: RscIx) -> Option<String> {
    let needed = |task: Task| {
        table.tasks(r, task).iter().copied().filter(|a| table.acts[*a].required).collect::<Vec<_>>()
    };
    let (starts, stops) = (needed(Task::Start), needed(Task::Stop));
    let (promotes, demotes) = (needed(Task::Promote), needed(Task::Demote));
    let all = [&starts, &stops, &promotes, &demotes];
    if all.iter().all(|a| a.is_empty()) {
        return None;
    }
    let runnable = |acts: &[ActIx]| acts.iter().all(|a| table.acts[*a].runnable);
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
