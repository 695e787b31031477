//! The old rules of 2.1.5 that our engine can follow: each decides something else than the rule that took its place, on a cluster of ours.

use crm_core::plan::Habits;
use crm_fuzz::engine::{Levels, ours, ours_with};
use crm_fuzz::generate::{Mask, cluster};
use crm_fuzz::known;

/// Small clusters on which 2.1.5 was seen to decide what we decide with the old rule alone.
const SEEN: [(&str, u64); 9] = [
    ("wishes-of-few", 1440),
    ("never-gives-way", 2420),
    ("shuffles", 843),
    ("one-go", 864),
    ("groups-speak-late", 1678),
    ("groups-stick", 2076),
    ("never-fades", 411),
    ("new-members-start", 196),
    ("hides-untouched", 2785),
];

#[test]
fn each_old_rule_decides_otherwise_than_the_one_that_took_its_place() {
    for (name, seed) in SEEN {
        let document = cluster(seed, &Mask::default());
        let habits = known::habits(name).unwrap();
        assert_ne!(habits, Habits::default(), "{name}");
        let (new, _) = ours(&document).unwrap();
        let (old, _) = ours_with(&document, habits).unwrap();
        assert_ne!(Levels::of(&old, &new), Levels::default(), "{name} on cluster {seed}");
    }
}
