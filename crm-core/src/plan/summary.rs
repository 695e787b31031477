//! One line per change, in Pacemaker's words.

use super::actions::{ActIx, Table, Task};
use super::model::{Model, RscIx};
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
    (0..model.rscs.len()).filter_map(|r| line(model, table, r)).collect()
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
