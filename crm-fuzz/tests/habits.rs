//! The old rules of 2.1.5 that our engine can follow: each decides something else than the rule that took its place, on a cluster of ours.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use crm_core::plan::Habits;
use crm_fuzz::engine::{Levels, ours, ours_with};
use crm_fuzz::generate::{Mask, cluster};
use crm_fuzz::known;
use crm_fuzz::summary::Decision;
use crm_fuzz::tree::Xml;

/// Small clusters on which 2.1.5 was seen to decide what we decide with the old rule alone.
const SEEN: [(&str, u64); 12] = [
    ("wishes-of-few", 1440),
    ("never-gives-way", 2420),
    ("shuffles", 843),
    ("one-go", 864),
    ("groups-speak-late", 1678),
    ("groups-stick", 2076),
    ("never-fades", 411),
    ("new-members-start", 196),
    ("hides-untouched", 2785),
    ("other-roles", 4205),
    ("probes-stop", 688),
    ("unheard", 5573),
];

/// Our decision with an old rule, and without any.
fn old_and_new(name: &str, document: &Xml) -> (Decision, Decision) {
    let habits = known::habits(name).unwrap();
    assert_ne!(habits, Habits::default(), "{name}");
    let (new, _) = ours(document).unwrap();
    let (old, _) = ours_with(document, habits).unwrap();
    (old, new)
}

#[test]
fn each_old_rule_decides_otherwise_than_the_one_that_took_its_place() {
    for (name, seed) in SEEN {
        let document = cluster(seed, &Mask::default());
        let (old, new) = old_and_new(name, &document);
        assert_ne!(Levels::of(&old, &new), Levels::default(), "{name} on cluster {seed}");
    }
}

#[test]
fn what_the_promoted_instance_follows_was_asked_twice() {
    // What it follows is on delta, where no instance may be, and would rather be on gamma than on alpha. `crm_simulate` promotes on gamma.
    let document = Xml::parse(include_str!("data/asked-twice.xml")).unwrap();
    let (old, new) = old_and_new("asked-twice", &document);
    assert_eq!(old.actions, ["Promote r Unpromoted gamma -> Promoted gamma"]);
    assert_eq!(new.actions, ["Promote r Unpromoted alpha -> Promoted alpha"]);
}
