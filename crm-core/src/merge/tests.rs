//! Laws of the merge, on random configurations; and its words, on a few chosen ones.

use super::pieces::Flat;
use super::{Choices, Difference, Fate, Mark, Side, Trouble, base, compare, merge};
use crate::cib::Cib;
use crate::diff::render;
use crate::store::Revision;
use crate::text::{Session, read};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;

fn cib(text: &str) -> Cib {
    let mut session = Session::new(Cib::default(), 1);
    read("t", text, &mut session).unwrap();
    session.cib().clone()
}

/// Objects without their order.
fn meaning(cib: &Cib) -> Flat {
    let mut flat = Flat::of(cib);
    flat.order.sort();
    flat
}

/// What a random configuration is made of.
#[derive(Debug, Clone)]
struct Recipe {
    primitives: Vec<Option<u8>>,
    /// Members of a group, by number of the primitive.
    group: Vec<usize>,
    cloned: bool,
    scores: Vec<Option<u8>>,
    options: Vec<Option<u8>>,
    standby: Option<bool>,
    volume: Option<u8>,
}

fn recipe() -> impl Strategy<Value = Recipe> {
    let some = |n| prop::collection::vec(prop::option::of(0..2_u8), n);
    let group = prop::sample::subsequence(vec![0_usize, 1, 2], 0..=3).prop_shuffle();
    let parts = (some(5), group, any::<bool>(), some(2), some(4));
    let more = (prop::option::of(any::<bool>()), prop::option::of(1..3_u8));
    (parts, more).prop_map(|((primitives, group, cloned, scores, options), (standby, volume))| {
        Recipe { primitives, group, cloned, scores, options, standby, volume }
    })
}

impl Recipe {
    fn statements(&self) -> Vec<String> {
        let mut out = vec![match self.standby {
            None => "node 1: alpha".to_owned(),
            Some(on) => format!("node 1: alpha attributes standby={on}"),
        }];
        let there = |n: &usize| self.primitives[*n].is_some();
        for (n, value) in self.primitives.iter().enumerate() {
            out.extend(value.map(|v| format!("primitive p{n} Dummy params fake={v}")));
        }
        let members: Vec<String> =
            self.group.iter().filter(|n| there(n)).map(|n| format!("p{n}")).collect();
        if !members.is_empty() {
            out.push(format!("group g {}", members.join(" ")));
        }
        if self.cloned && there(&4) {
            out.push("clone c p4".to_owned());
        }
        for (n, score) in self.scores.iter().enumerate() {
            let score = score.filter(|_| there(&3));
            out.extend(score.map(|s| format!("location l{n} p3 {s}: alpha")));
        }
        for (n, value) in self.options.iter().enumerate() {
            let set = ["property", "rsc_defaults", "op_defaults"][n % 3];
            out.extend(value.map(|v| format!("{set} o{n}={v}")));
        }
        let volume = |size| format!("volume r0 size={size}GiB replica=alpha:/dev/vg/r0");
        out.extend(self.volume.map(volume));
        out
    }

    fn cib(&self) -> Cib {
        cib(&format!("{}\n", self.statements().join("\n")))
    }
}

fn mirrored(fate: Fate) -> Fate {
    match fate {
        Fate::Only(Side::Ours) => Fate::Only(Side::Theirs),
        Fate::Only(Side::Theirs) => Fate::Only(Side::Ours),
        same @ (Fate::Alike | Fate::Conflict) => same,
    }
}

fn prefer(side: Side) -> Choices {
    Choices { prefer: Some(side), take: BTreeMap::new() }
}

fn fates(differences: &[Difference]) -> Vec<(String, Fate)> {
    differences.iter().map(|d| (d.object.clone(), d.fate)).collect()
}

proptest! {
    #[test]
    fn what_only_one_side_changed_is_taken_whole(b in recipe(), x in recipe()) {
        let (b, x) = (b.cib(), x.cib());
        let none = Choices::default();
        prop_assert_eq!(merge(Some(&b), &x, &b, &none).unwrap(), x.clone());
        prop_assert_eq!(merge(Some(&b), &x, &x, &none).unwrap(), x.clone());
        let theirs = merge(Some(&b), &b, &x, &none).unwrap();
        prop_assert_eq!(meaning(&theirs), meaning(&x));
    }

    #[test]
    fn the_sides_are_equal_but_in_conflicts(b in recipe(), o in recipe(), t in recipe()) {
        let (b, o, t) = (b.cib(), o.cib(), t.cib());
        let there = merge(Some(&b), &o, &t, &prefer(Side::Ours));
        let back = merge(Some(&b), &t, &o, &prefer(Side::Theirs));
        match (&there, &back) {
            (Ok(there), Ok(back)) => prop_assert_eq!(meaning(there), meaning(back)),
            (Err(Trouble::Torn(_)), Err(Trouble::Torn(_))) => {}
            other => prop_assert!(false, "{:?}", other),
        }
        let mirror: Vec<_> = fates(&compare(Some(&b), &o, &t))
            .into_iter()
            .map(|(object, fate)| (object, mirrored(fate)))
            .collect();
        prop_assert_eq!(mirror, fates(&compare(Some(&b), &t, &o)));
    }

    #[test]
    fn a_merge_is_done_once(b in recipe(), o in recipe(), t in recipe(), known in any::<bool>()) {
        let (b, o, t) = (b.cib(), o.cib(), t.cib());
        let b = known.then_some(&b);
        if let Ok(once) = merge(b, &o, &t, &prefer(Side::Ours)) {
            prop_assert_eq!(merge(b, &once, &t, &prefer(Side::Ours)).unwrap(), once.clone());
            // As a base of its own it leaves nothing to be done.
            prop_assert_eq!(merge(Some(&once), &once, &once, &Choices::default()).unwrap(), once);
        }
    }

    #[test]
    fn the_order_of_objects_changes_nothing(b in recipe(), o in recipe(), t in recipe()) {
        let turned = |cib: &Cib| {
            let mut cib = cib.clone();
            cib.resources.reverse();
            cib.constraints.reverse();
            cib.properties.pairs.reverse();
            cib
        };
        let (b, o, t) = (b.cib(), o.cib(), t.cib());
        let plain = merge(Some(&b), &o, &t, &prefer(Side::Ours));
        let other = merge(Some(&turned(&b)), &turned(&o), &turned(&t), &prefer(Side::Ours));
        prop_assert_eq!(plain.ok().map(|c| meaning(&c)), other.ok().map(|c| meaning(&c)));
        let before = compare(Some(&b), &o, &t);
        prop_assert_eq!(before, compare(Some(&turned(&b)), &turned(&o), &turned(&t)));
    }

    #[test]
    fn a_choice_decides_its_object_alone(b in recipe(), o in recipe(), t in recipe()) {
        let (b, o, t) = (b.cib(), o.cib(), t.cib());
        for difference in compare(Some(&b), &o, &t) {
            let mut choices = prefer(Side::Ours);
            choices.take.insert(difference.object.clone(), Side::Theirs);
            let Ok(merged) = merge(Some(&b), &o, &t, &choices) else { continue };
            let left = compare(Some(&t), &merged, &t);
            prop_assert!(left.iter().all(|d| d.object != difference.object), "{:?}", difference);
        }
    }
}

const BASE: &str =
    "primitive web Dummy params fake=1\nprimitive db Dummy\nproperty stonith-enabled=true\n";

#[test]
fn each_object_is_told_who_changed_it_in_the_words_of_configure() {
    let b = cib(BASE);
    let ours = cib(
        "primitive web Dummy params fake=2\nprimitive db Dummy\nprimitive both Dummy\nproperty stonith-enabled=false\n",
    );
    let theirs = cib(
        "primitive web Dummy params fake=3\nprimitive both Dummy\nprimitive new Dummy\nproperty stonith-enabled=true cluster-delay=5\n",
    );
    let found = compare(Some(&b), &ours, &theirs);
    let line = |d: &Difference| {
        let words = |side| d.change(side).map(|c| render(&[c])).unwrap_or_default();
        format!("{} {:?}\n{}|{}", d.object, d.fate, words(Side::Ours), words(Side::Theirs))
    };
    let told: Vec<String> = found.iter().map(line).collect();
    assert_eq!(
        told,
        [
            "both Alike\n+ primitive both Dummy\n|+ primitive both Dummy\n",
            "db Only(Theirs)\n|- primitive db Dummy\n",
            "new Only(Theirs)\n|+ primitive new Dummy\n",
            "web Conflict\n~ primitive web Dummy\n    - params fake=1\n    + params fake=2\n|~ primitive web Dummy\n    - params fake=1\n    + params fake=3\n",
            "cluster-delay Only(Theirs)\n|+ property cluster-delay=5\n",
            "stonith-enabled Only(Ours)\n~ property stonith-enabled\n    - property stonith-enabled=true\n    + property stonith-enabled=false\n|",
        ]
    );
    let open = merge(Some(&b), &ours, &theirs, &Choices::default()).unwrap_err();
    assert_eq!(open, Trouble::Undecided(vec!["web".to_owned()]));
    let mut choices = Choices::default();
    choices.take.insert("web".to_owned(), Side::Theirs);
    choices.take.insert("db".to_owned(), Side::Ours);
    let merged = merge(Some(&b), &ours, &theirs, &choices).unwrap();
    assert_eq!(merged.primitive("web").unwrap().params.get("fake"), Some("3"));
    assert!(merged.primitive("db").is_some() && merged.primitive("new").is_some());
    assert_eq!(merged.properties.get("stonith-enabled"), Some("false"));
    choices.take.insert("nobody".to_owned(), Side::Ours);
    let unknown = merge(Some(&b), &ours, &theirs, &choices).unwrap_err();
    assert_eq!(unknown.to_string(), "nobody is no object in which the two differ");
}

#[test]
fn what_does_not_fit_together_is_refused_as_a_whole() {
    let b = cib("primitive a Dummy\nprimitive b Dummy\nprimitive c Dummy\n");
    let one = cib("primitive a Dummy\nprimitive b Dummy\nprimitive c Dummy\ngroup g a b\n");
    let two = cib("primitive a Dummy\nprimitive b Dummy\nprimitive c Dummy\ngroup h a c\n");
    let torn = merge(Some(&b), &one, &two, &Choices::default()).unwrap_err();
    assert_eq!(torn.to_string(), "the objects do not fit together: a would be in g and in h");
    let less = cib("primitive b Dummy\nprimitive c Dummy\n");
    let torn = merge(Some(&b), &one, &less, &Choices::default()).unwrap_err();
    assert!(torn.to_string().ends_with("g holds a, which is not there"), "{torn}");
}

#[test]
fn without_a_base_whatever_one_side_has_is_kept_and_what_differs_is_a_conflict() {
    let ours = cib("primitive web Dummy params fake=2\nprimitive db Dummy\n");
    let theirs = cib("primitive web Dummy params fake=3\nprimitive new Dummy\n");
    let found = fates(&compare(None, &ours, &theirs));
    let want = [
        ("db", Fate::Only(Side::Ours)),
        ("new", Fate::Only(Side::Theirs)),
        ("web", Fate::Conflict),
    ];
    assert_eq!(found, want.map(|(name, fate)| (name.to_owned(), fate)));
}

#[test]
fn the_base_is_the_last_revision_of_the_common_run() {
    let revision = |version, author: &str| {
        let cib = Arc::new(cib(&format!("property o={version}\n")));
        let (author, message) = (author.to_owned(), "edit".to_owned());
        Arc::new(Revision { version, author, message, when_ms: 5, cib })
    };
    let line = |own: &str, range: std::ops::Range<u64>, parted: u64| -> Vec<Arc<Revision>> {
        range.map(|v| revision(v, if v < parted { "common" } else { own })).collect()
    };
    let marks = |line: &[Arc<Revision>]| line.iter().map(|r| Mark::of(r)).collect::<Vec<_>>();
    let found = |ours: &[Arc<Revision>], theirs: &[Arc<Revision>]| {
        base(ours, &marks(theirs)).map(|r| r.version)
    };
    let ours = line("alpha", 1..9, 5);
    assert_eq!(found(&ours, &line("beta", 3..7, 5)), Some(4));
    assert_eq!(found(&ours, &line("beta", 1..5, 5)), Some(4), "they have changed nothing");
    assert_eq!(found(&ours, &line("beta", 5..7, 5)), None, "they keep no common one");
    assert_eq!(found(&ours, &line("beta", 20..30, 5)), None);
    // Chance after the parting is no common history.
    let mut again = line("beta", 3..7, 5);
    again.push(revision(7, "alpha"));
    assert_eq!(found(&ours, &again), Some(4));
}
