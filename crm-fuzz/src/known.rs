//! Differences that are known and meant, by name. Each has its line in docs/compat.md.
//!
//! Most are rules that Pacemaker has changed since 2.1.5. The claim is checked, not guessed: with the old rule our engine must decide exactly
//! what `crm_simulate` 2.1.5 decides, or the difference has another cause and counts.

use crate::engine::{Levels, ours_with};
use crate::summary::Decision;
use crate::tree::Xml;
use crm_core::plan::{Habit, Habits};

/// The old rules, with the names that they have in docs/compat.md.
pub const OLD_RULES: &[(&str, Habit)] = &[
    ("wishes-of-few", Habit::WishesOfFew),
    ("never-gives-way", Habit::NeverGivesWay),
    ("shuffles", Habit::Shuffles),
    ("one-go", Habit::OneGo),
    ("groups-speak-late", Habit::GroupsSpeakLate),
    ("groups-stick", Habit::GroupsStick),
    ("rounds-to-nothing", Habit::RoundsToNothing),
];

/// The names of the old rules that explain the difference, if it is a known one; as few as do it.
#[must_use]
pub fn name(document: &Xml, theirs: &Decision) -> Option<String> {
    let mut sets: Vec<u32> = (1..1 << OLD_RULES.len()).collect();
    sets.sort_by_key(|set| (set.count_ones(), *set));
    let chosen = |set: u32| OLD_RULES.iter().enumerate().filter(move |(i, _)| set & (1 << i) != 0);
    sets.into_iter().find_map(|set| {
        let habits = chosen(set).fold(Habits::default(), |all, (_, (_, habit))| all.with(*habit));
        let (old, _) = ours_with(document, habits).ok()?;
        let same = !Levels::of(&old, theirs).decides_differently();
        same.then(|| chosen(set).map(|(_, (name, _))| *name).collect::<Vec<_>>().join("+"))
    })
}
