//! Differences that are known and meant, by name. Each has its line in docs/compat.md.
//!
//! Most are rules that Pacemaker has changed since 2.1.5. The claim is checked, not guessed: with the old rule our engine must decide exactly
//! what `crm_simulate` 2.1.5 decides, or the difference has another cause and counts.

use crate::engine::{Levels, ours_with};
use crate::summary::Decision;
use crate::tree::Xml;
use crm_core::plan::{Habit, Habits};
use std::collections::{BTreeMap, BTreeSet};

/// An old rule.
#[derive(Clone, Copy)]
enum Rule {
    /// The planner can follow it.
    Habit(Habit),
    /// It amounts to another document.
    Edit(fn(&Xml) -> Xml),
}

/// The old rules, with the names that they have in docs/compat.md.
const OLD_RULES: &[(&str, Rule)] = &[
    ("wishes-of-few", Rule::Habit(Habit::WishesOfFew)),
    ("never-gives-way", Rule::Habit(Habit::NeverGivesWay)),
    ("shuffles", Rule::Habit(Habit::Shuffles)),
    ("one-go", Rule::Habit(Habit::OneGo)),
    ("groups-speak-late", Rule::Habit(Habit::GroupsSpeakLate)),
    ("groups-stick", Rule::Habit(Habit::GroupsStick)),
    ("never-fades", Rule::Habit(Habit::NeverFades)),
    ("new-members-start", Rule::Habit(Habit::NewMembersStart)),
    ("other-roles", Rule::Habit(Habit::OtherRoles)),
    ("hides-untouched", Rule::Habit(Habit::HidesUntouched)),
    ("idle-first", Rule::Habit(Habit::IdleFirst)),
    ("asked-twice", Rule::Habit(Habit::AskedTwice)),
    ("unheard", Rule::Habit(Habit::Unheard)),
    ("probes-stop", Rule::Habit(Habit::ProbesStop)),
    ("roles-in-rules", Rule::Edit(without_roles_in_rules)),
];

/// A rule about a role other than the promoted one was read and never applied.
fn without_roles_in_rules(document: &Xml) -> Xml {
    let ignored = |x: &Xml| {
        x.name == "rsc_location"
            && x.children
                .iter()
                .any(|c| c.name == "rule" && matches!(c.attr("role"), Some("Slave" | "Started")))
    };
    let mut out = document.clone();
    out.children.retain(|c| !ignored(c));
    out.children = out.children.iter().map(without_roles_in_rules).collect();
    out
}

/// The names of all old rules.
pub fn names() -> impl Iterator<Item = &'static str> {
    OLD_RULES.iter().map(|(name, _)| *name)
}

/// The habits with these names, parted by commas.
///
/// # Errors
/// A name that is no habit's.
pub fn habits(list: &str) -> Result<Habits, String> {
    list.split(',').filter(|name| !name.is_empty()).try_fold(Habits::default(), |all, name| {
        match OLD_RULES.iter().find(|(known, _)| *known == name) {
            Some((_, Rule::Habit(habit))) => Ok(all.with(*habit)),
            Some((_, Rule::Edit(_))) => Err(format!("`{name}` is an edit of the document")),
            None => Err(format!("no rule is called `{name}`")),
        }
    })
}

/// How many of them may be needed at once.
const AT_ONCE: u32 = 4;

/// How long to look for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Search {
    /// All pairs, and more only where the second of a pair changes something.
    Quick,
    /// All that may be needed at once.
    Whole,
}

/// The names of the old rules that explain the difference, if it is a known one; as few as do it.
#[must_use]
pub fn name(document: &Xml, theirs: &Decision, search: Search) -> Option<String> {
    let all = || (0..OLD_RULES.len()).map(|i| 1_u32 << i);
    let chosen = |set: u32| OLD_RULES.iter().enumerate().filter(move |(i, _)| set & (1 << i) != 0);
    let decide = |set: u32| {
        let (mut habits, mut edited) = (Habits::default(), document.clone());
        for (_, (_, rule)) in chosen(set) {
            match rule {
                Rule::Habit(habit) => habits = habits.with(*habit),
                Rule::Edit(edit) => edited = edit(&edited),
            }
        }
        ours_with(&edited, habits).ok().map(|(decision, _)| decision)
    };
    let mut tried = BTreeSet::new();
    let mut last = BTreeMap::from([(0, decide(0)?)]);
    while !last.is_empty() {
        let mut next = BTreeMap::new();
        for (set, before) in &last {
            for more in all().map(|bit| set | bit).filter(|more| more != set) {
                if more.count_ones() > AT_ONCE || !tried.insert(more) {
                    continue;
                }
                let Some(after) = decide(more) else { continue };
                if !Levels::of(&after, theirs).decides_differently() {
                    let names: Vec<&str> = chosen(more).map(|(_, (name, _))| *name).collect();
                    return Some(names.join("+"));
                }
                let whole = search == Search::Whole || more.count_ones() != 2;
                if more.count_ones() < AT_ONCE && (whole || after != *before) {
                    next.insert(more, after);
                }
            }
        }
        last = next;
    }
    None
}

/// What our engine prints when it follows all of them.
///
/// # Errors
/// What the reader refuses.
pub fn all_old(document: &Xml) -> Result<String, String> {
    let (mut habits, mut edited) = (Habits::default(), document.clone());
    for (_, rule) in OLD_RULES {
        match rule {
            Rule::Habit(habit) => habits = habits.with(*habit),
            Rule::Edit(edit) => edited = edit(&edited),
        }
    }
    ours_with(&edited, habits).map(|(_, text)| text)
}
