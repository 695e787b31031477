//! Single clusters on which the two engines decide differently for a reason that is known and is no rule: what 2.1.5 does there is a slip of its own.
//!
//! Each line of `named.txt` names a seed, the cause (with its line in docs/compat.md), and the difference itself as a number: when either side
//! decides something else, the name does not hold any more and the seed counts as different.

use crate::summary::{Decision, Scene};
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// What is recorded, by seed.
#[derive(Debug, Clone, Default)]
pub struct Named(BTreeMap<u64, (String, u64)>);

impl Named {
    /// The list that is kept beside this file.
    ///
    /// # Errors
    /// The line that is none.
    pub fn recorded() -> Result<Self, String> {
        Self::read(include_str!("named.txt"))
    }

    /// Reads `SEED CAUSE DIFFERENCE` lines; `#` begins a comment.
    ///
    /// # Errors
    /// The line that is none.
    pub fn read(text: &str) -> Result<Self, String> {
        let mut out = BTreeMap::new();
        let lines = text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#'));
        for line in lines {
            let words: Vec<&str> = line.split_whitespace().collect();
            let entry = match words.as_slice() {
                [seed, cause, mark] => seed
                    .parse()
                    .ok()
                    .zip(u64::from_str_radix(mark, 16).ok())
                    .map(|(seed, mark)| (seed, ((*cause).to_owned(), mark))),
                _ => None,
            };
            let (seed, named) = entry.ok_or_else(|| format!("named.txt: {line:?}"))?;
            if out.insert(seed, named).is_some() {
                return Err(format!("named.txt: {seed} is there twice"));
            }
        }
        Ok(Self(out))
    }

    /// The cause of the seed's difference, if it is still the one that was named.
    #[must_use]
    pub fn cause(&self, seed: u64, ours: &Decision, theirs: &Decision) -> Option<&str> {
        let (cause, recorded) = self.0.get(&seed)?;
        (*recorded == mark(ours, theirs)).then_some(cause.as_str())
    }

    /// All causes.
    pub fn causes(&self) -> impl Iterator<Item = &str> {
        self.0.values().map(|(cause, _)| cause.as_str())
    }
}

/// The difference between two decisions as a number.
#[must_use]
pub fn mark(ours: &Decision, theirs: &Decision) -> u64 {
    let mut text = String::new();
    for (ours, theirs) in [(ours, theirs), (theirs, ours)] {
        for action in ours.actions.iter().filter(|a| !theirs.actions.contains(a)) {
            let _infallible = writeln!(text, "{action}");
        }
        let other = places(&theirs.after);
        for place in places(&ours.after).into_iter().filter(|p| !other.contains(p)) {
            let _infallible = writeln!(text, "{place}");
        }
        text.push_str("--\n");
    }
    // FNV-1a: the same number on every machine and by every compiler.
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |sum: u64, byte| {
        (sum ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// What is seen at the end, one line each.
fn places(scene: &Scene) -> Vec<String> {
    let resources = scene.resources.iter().map(|(name, at)| format!("{name} {at:?}"));
    resources.chain(scene.nodes.iter().map(|(name, state)| format!("{name} {state:?}"))).collect()
}

#[cfg(test)]
mod tests {
    use super::{Named, mark};
    use crate::known;
    use crate::summary::Decision;

    fn decision(actions: &[&str]) -> Decision {
        let actions = actions.iter().map(|a| (*a).to_owned()).collect();
        Decision { actions, ..Decision::default() }
    }

    #[test]
    fn a_name_holds_only_for_the_difference_that_was_named() {
        let (ours, theirs) = (decision(&["Start a", "Stop b"]), decision(&["Start a"]));
        let list = format!("# why\n7 some-cause {:x}\n", mark(&ours, &theirs));
        let named = Named::read(&list).unwrap();
        assert_eq!(named.cause(7, &ours, &theirs), Some("some-cause"));
        assert_eq!(named.cause(8, &ours, &theirs), None);
        // The other way round, or something else: another difference.
        assert_eq!(named.cause(7, &theirs, &ours), None);
        assert_eq!(named.cause(7, &decision(&["Start a", "Stop c"]), &theirs), None);
        // What both do does not matter.
        let both = (decision(&["Stop b", "Move d"]), decision(&["Move d"]));
        assert_eq!(named.cause(7, &both.0, &both.1), Some("some-cause"));
    }

    #[test]
    fn a_line_that_is_none_and_a_seed_named_twice_are_refused() {
        assert!(Named::read("7 cause").is_err());
        assert!(Named::read("7 cause zz").is_err());
        assert!(Named::read("7 a 1\n7 b 2").is_err());
    }

    #[test]
    fn every_cause_and_every_old_rule_is_explained_in_the_documentation() {
        let named = Named::recorded().unwrap();
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/compat.md");
        let text = std::fs::read_to_string(path).unwrap();
        let causes = named.causes().map(str::to_owned).chain(known::names().map(str::to_owned));
        for cause in causes {
            assert!(text.contains(&format!("| `{cause}` |")), "{cause} is not in docs/compat.md");
        }
    }
}
