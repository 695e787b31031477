//! A simulation in our own words: now, what is decided and why, the steps, then.

use super::Told;
use super::steps::{Step, steps};
use crate::ui::table;
use crm_core::cib::Role;
use crm_core::plan::{NodePicture, Picture, RscPicture, picture};
use crm_core::simulate::input_for;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

/// All sections.
pub(super) fn render(told: &Told<'_>) -> String {
    let run = told.run;
    let mut out = String::new();
    if told.assumed.is_empty() {
        section(&mut out, "Now", &shown(&run.before));
    } else {
        // As it is; what is assumed comes after.
        let now = picture(&input_for(told.scene.unchanged(), told.scene.mind));
        section(&mut out, "Now", &shown(&now));
        let lines: Vec<String> = told.assumed.iter().map(|a| lower(a)).collect();
        section(&mut out, "As if", &lines);
    }
    let decided = decided(told);
    if decided.is_empty() && !told.placeless.is_empty() {
        section(&mut out, "Decided", &["nothing can be done".to_owned()]);
        section(&mut out, "Not as it is to be", &told.placeless);
    } else if decided.is_empty() {
        section(&mut out, "Decided", &["nothing: all is as it is to be".to_owned()]);
    } else {
        section(&mut out, "Decided", &decided);
    }
    let steps = steps(run);
    if !steps.is_empty() {
        section(&mut out, "Steps", &step_lines(&steps));
        if let Some(end) = &run.end {
            section(&mut out, "Then", &shown(&end.after));
        }
    }
    out
}

fn section(out: &mut String, title: &str, lines: &[String]) {
    let _infallible = writeln!(out, "{title}:");
    for line in lines {
        let _infallible = writeln!(out, "  {line}");
    }
}

/// The first letter small.
fn lower(text: &str) -> String {
    let mut chars = text.chars();
    match chars.next() {
        Some(first) => first.to_lowercase().chain(chars).collect(),
        None => String::new(),
    }
}

/// `Move web ( alpha -> delta )` as `move web: alpha -> delta`, with its reason.
fn decided(told: &Told<'_>) -> Vec<String> {
    let mut rows = Vec::new();
    for line in &told.run.plan.summary {
        let line = line.trim_start_matches("* ").trim();
        if let Some(row) = fence_row(line) {
            rows.push(row);
            continue;
        }
        let (what, rest) = line.split_once(" ( ").unwrap_or((line, ""));
        let (place, note) = rest.split_once(" )").unwrap_or((rest, ""));
        let mut words = what.splitn(2, ' ');
        let verb = lower(words.next().unwrap_or_default());
        let label = words.next().unwrap_or_default();
        let place = format!("{}{note}", place.trim());
        let why = told.causes.get(label).cloned().unwrap_or_default();
        rows.push(vec![verb, label.to_owned(), place, why]);
    }
    let text = table(&rows, "");
    text.lines().map(str::to_owned).collect()
}

/// `Fence (reboot) alpha 'why'` as `fence alpha: reboot, why`.
fn fence_row(line: &str) -> Option<Vec<String>> {
    let (how, rest) = line.strip_prefix("Fence (")?.split_once(") ")?;
    let (node, why) = rest.split_once(' ').unwrap_or((rest, ""));
    let why = why.trim_matches('\'').to_owned();
    Some(vec!["fence".to_owned(), node.to_owned(), how.to_owned(), why])
}

fn step_lines(steps: &[Step]) -> Vec<String> {
    let width = steps.len().to_string().len();
    let longest = steps.iter().map(|s| s.text.chars().count()).max().unwrap_or(0);
    let mut lines = Vec::new();
    for (index, step) in steps.iter().enumerate() {
        let mut line = format!("{:>width$}. {}", index + 1, step.text);
        let fill = longest - step.text.chars().count() + 2;
        let after: Vec<String> = step.after.iter().map(|n| (n + 1).to_string()).collect();
        let mut notes = Vec::new();
        if !after.is_empty() {
            notes.push(format!("after {}", after.join(", ")));
        }
        if !step.executed {
            notes.push("not reached".to_owned());
        }
        if !notes.is_empty() {
            line.extend(std::iter::repeat_n(' ', fill));
            line.push_str(&notes.join("; "));
        }
        lines.push(line);
    }
    lines
}

/// Nodes with what runs there, then what runs nowhere.
fn shown(picture: &Picture) -> Vec<String> {
    let mut on: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    let mut idle: Vec<&str> = Vec::new();
    let mut listed: BTreeSet<&str> = BTreeSet::new();
    for leaf in picture.resources.iter().flat_map(RscPicture::leaves) {
        for (node, role) in &leaf.active {
            on.entry(node).or_default().push(active(leaf, *role));
        }
    }
    for top in &picture.resources {
        let leaves = top.leaves();
        let active = leaves.iter().filter(|l| !l.active.is_empty());
        let active: BTreeSet<&str> = active.map(|l| l.label.as_str()).collect();
        for leaf in leaves.iter().map(|l| l.label.as_str()) {
            if !active.contains(leaf) && listed.insert(leaf) {
                idle.push(leaf);
            }
        }
    }
    let mut rows: Vec<Vec<String>> = Vec::new();
    for node in &picture.nodes {
        let here = on.get(node.name.as_str()).map(|all| all.join(", ")).unwrap_or_default();
        rows.push(vec![node.name.clone(), node_word(node), here]);
    }
    let mut lines: Vec<String> = table(&rows, "").lines().map(str::to_owned).collect();
    if !idle.is_empty() {
        lines.push(format!("stopped: {}", idle.join(", ")));
    }
    lines
}

fn active(leaf: &RscPicture, role: Role) -> String {
    let mut notes = Vec::new();
    match role {
        Role::Promoted => notes.push("promoted"),
        Role::Unpromoted => notes.push("unpromoted"),
        Role::Started | Role::Stopped => {}
    }
    if leaf.failed {
        notes.push("failed");
    }
    if leaf.blocked {
        notes.push("blocked");
    }
    if !leaf.managed {
        notes.push("unmanaged");
    }
    if leaf.removed {
        notes.push("not configured");
    }
    match notes.as_slice() {
        [] => leaf.label.clone(),
        notes => format!("{} ({})", leaf.label, notes.join(", ")),
    }
}

/// A node in a word or two.
fn node_word(node: &NodePicture) -> String {
    let word = if node.pending {
        "pending"
    } else if node.online && !node.clean {
        "unclean"
    } else if !node.online && !node.clean {
        "lost"
    } else if !node.online {
        "offline"
    } else if node.standby {
        return "standby".to_owned();
    } else if node.maintenance {
        "maintenance"
    } else {
        "online"
    };
    if node.standby && !node.online { format!("{word}, standby") } else { word.to_owned() }
}
