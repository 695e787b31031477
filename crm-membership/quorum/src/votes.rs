//! Service quorum: may this partition start resources and fence? (design/membership.md 1.1)
//!
//! Consensus quorum (a raft majority) gates writes and is another matter.

use serde::{Deserialize, Serialize};
use std::fmt;
use thiserror::Error;

/// What the administrator asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Policy {
    /// Votes the cluster counts on; `None` = one per member.
    pub expected_votes: Option<u32>,
    /// One vote is enough in a cluster of two; needs fencing to be safe.
    pub two_node: bool,
    /// Not quorate after a start until every vote was seen at once; `None` = as `two_node`.
    pub wait_for_all: Option<bool>,
}

/// Why an option was refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PolicyError {
    /// Known from votequorum, not built yet.
    #[error(
        "quorum option `{option}` is not supported yet; use `two_node`, `wait_for_all` or a third node"
    )]
    NotSupported {
        /// The option.
        option: String,
    },
    /// Unknown.
    #[error(
        "unknown quorum option `{option}`; known: `expected_votes`, `two_node`, `wait_for_all`"
    )]
    Unknown {
        /// The option.
        option: String,
    },
    /// A value that the option does not take.
    #[error("quorum option `{option}` does not take `{value}`")]
    BadValue {
        /// The option.
        option: String,
        /// The value.
        value: String,
    },
    /// `two_node` in a bigger cluster.
    #[error("`two_node` needs at most 2 expected votes, not {expected}")]
    TwoNodeTooMany {
        /// Votes expected.
        expected: u32,
    },
}

/// Words of votequorum that this engine does not have yet.
const LATER: [&str; 9] = [
    "last_man_standing",
    "last_man_standing_window",
    "auto_tie_breaker",
    "auto_tie_breaker_node",
    "allow_downscale",
    "expected_votes_tracking",
    "device",
    "qdevice",
    "arbiter",
];

impl Policy {
    /// Sets one option from its text.
    ///
    /// # Errors
    /// When the option is unknown, not supported yet, or does not take the value.
    pub fn set(&mut self, option: &str, value: &str) -> Result<(), PolicyError> {
        let bad = || PolicyError::BadValue { option: option.to_owned(), value: value.to_owned() };
        match option {
            "expected_votes" => {
                let votes: u32 = value.parse().map_err(|_| bad())?;
                if votes == 0 {
                    return Err(bad());
                }
                self.expected_votes = Some(votes);
            }
            "two_node" => self.two_node = switch(value).ok_or_else(bad)?,
            "wait_for_all" => self.wait_for_all = Some(switch(value).ok_or_else(bad)?),
            later if LATER.contains(&later) => {
                return Err(PolicyError::NotSupported { option: option.to_owned() });
            }
            _ => return Err(PolicyError::Unknown { option: option.to_owned() }),
        }
        Ok(())
    }

    /// Checks the options against each other.
    ///
    /// # Errors
    /// When `two_node` is set for a cluster that has more than two votes.
    pub fn check(&self, members: u32) -> Result<(), PolicyError> {
        let expected = self.expected(members);
        if self.two_node && expected > 2 {
            return Err(PolicyError::TwoNodeTooMany { expected });
        }
        Ok(())
    }

    /// Whether `wait_for_all` applies; `two_node` turns it on unless it is set.
    #[must_use]
    pub fn waits(&self) -> bool {
        self.wait_for_all.unwrap_or(self.two_node)
    }

    fn expected(&self, members: u32) -> u32 {
        self.expected_votes.unwrap_or(members).max(1)
    }
}

fn switch(value: &str) -> Option<bool> {
    match value {
        "1" | "true" | "yes" | "on" => Some(true),
        "0" | "false" | "no" | "off" => Some(false),
        _ => None,
    }
}

/// What is seen now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Votes {
    /// The options.
    pub policy: Policy,
    /// Members, one vote each.
    pub members: u32,
    /// Votes present, ours among them.
    pub present: u32,
    /// The wait-for-all flag kept by the caller: set at start and whenever [`Verdict::waiting`] says so.
    pub waiting: bool,
    /// A peer that is quorate and not waiting is present: its word clears our flag.
    pub settled_peer: bool,
}

/// The decision, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// May act.
    pub quorate: bool,
    /// The wait-for-all flag afterwards, for the caller to keep.
    pub waiting: bool,
    /// Why.
    pub reason: Reason,
}

/// Why a partition is quorate or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// Enough votes.
    Enough {
        /// Votes present.
        present: u32,
        /// Votes needed.
        needed: u32,
    },
    /// One vote of two, by `two_node`.
    TwoNode {
        /// Votes present.
        present: u32,
    },
    /// Not enough votes.
    TooFew {
        /// Votes present.
        present: u32,
        /// Votes needed.
        needed: u32,
    },
    /// `wait_for_all` holds us back.
    WaitingForAll {
        /// Votes present.
        present: u32,
        /// Votes expected.
        expected: u32,
    },
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Enough { present, needed } => write!(f, "{present} votes, {needed} needed"),
            Self::TwoNode { present } => write!(f, "{present} of 2 votes, two_node is set"),
            Self::TooFew { present, needed } => {
                write!(f, "only {present} votes, {needed} needed")
            }
            Self::WaitingForAll { present, expected } => {
                write!(f, "wait_for_all: {present} of {expected} votes seen since the start")
            }
        }
    }
}

/// Decides service quorum. More members than expected votes raise the expectation; losing quorum sets
/// the wait-for-all flag again.
#[must_use]
pub fn service_quorum(votes: &Votes) -> Verdict {
    let expected = votes.policy.expected(votes.members).max(votes.present);
    let present = votes.present;
    let two_node = votes.policy.two_node && expected <= 2;
    let needed = if two_node { 1 } else { expected / 2 + 1 };
    let waits = votes.policy.waits();
    let waiting = waits && votes.waiting && !votes.settled_peer && present < expected;
    if present < needed {
        return Verdict {
            quorate: false,
            waiting: waits,
            reason: Reason::TooFew { present, needed },
        };
    }
    if waiting {
        return Verdict {
            quorate: false,
            waiting,
            reason: Reason::WaitingForAll { present, expected },
        };
    }
    let reason = if two_node && present < 2 {
        Reason::TwoNode { present }
    } else {
        Reason::Enough { present, needed }
    };
    Verdict { quorate: true, waiting: false, reason }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Columns: options | members present flags -> decision. `w` = waiting, `s` = a settled peer is there.
    const TABLE: &str = "
        -                              | 1 1   -> quorate: 1 votes, 1 needed
        -                              | 2 1   -> refused: only 1 votes, 2 needed
        -                              | 2 2   -> quorate: 2 votes, 2 needed
        -                              | 3 1   -> refused: only 1 votes, 2 needed
        -                              | 3 2   -> quorate: 2 votes, 2 needed
        -                              | 4 2   -> refused: only 2 votes, 3 needed
        -                              | 5 3   -> quorate: 3 votes, 3 needed
        -                              | 3 2 w -> quorate: 2 votes, 2 needed
        expected_votes=5               | 3 2   -> refused: only 2 votes, 3 needed
        expected_votes=1               | 3 3   -> quorate: 3 votes, 2 needed
        two_node=1                     | 2 1   -> quorate: 1 of 2 votes, two_node is set
        two_node=1                     | 2 1 w -> waiting: wait_for_all: 1 of 2 votes seen since the start
        two_node=1                     | 2 2 w -> quorate: 2 votes, 1 needed
        two_node=1 wait_for_all=0      | 2 1 w -> quorate: 1 of 2 votes, two_node is set
        two_node=1                     | 3 1   -> refused+w: only 1 votes, 2 needed
        wait_for_all=1                 | 3 2 w -> waiting: wait_for_all: 2 of 3 votes seen since the start
        wait_for_all=1                 | 3 2 ws -> quorate: 2 votes, 2 needed
        wait_for_all=1                 | 3 3 w -> quorate: 3 votes, 2 needed
        wait_for_all=1                 | 3 2   -> quorate: 2 votes, 2 needed
        wait_for_all=1                 | 3 1   -> refused+w: only 1 votes, 2 needed
    ";

    fn run(line: &str) -> (String, String) {
        let (input, want) = line.split_once("->").unwrap();
        let (options, seen) = input.split_once('|').unwrap();
        let mut policy = Policy::default();
        for option in options.split_whitespace().filter(|o| *o != "-") {
            let (name, value) = option.split_once('=').unwrap();
            policy.set(name, value).unwrap();
        }
        let mut words = seen.split_whitespace();
        let mut number = || words.next().unwrap().parse().unwrap();
        let (members, present) = (number(), number());
        let flags = words.next().unwrap_or("");
        let verdict = service_quorum(&Votes {
            policy,
            members,
            present,
            waiting: flags.contains('w'),
            settled_peer: flags.contains('s'),
        });
        let word = match (verdict.quorate, verdict.waiting, verdict.reason) {
            (true, _, _) => "quorate",
            (false, _, Reason::WaitingForAll { .. }) => "waiting",
            (false, true, _) => "refused+w",
            (false, false, _) => "refused",
        };
        (format!("{word}: {}", verdict.reason), want.trim().to_owned())
    }

    #[test]
    fn verdicts_match_the_table() {
        for line in TABLE.lines().filter(|l| l.contains("->")) {
            let (got, want) = run(line);
            assert_eq!(got, want, "{line}");
        }
    }

    #[test]
    fn options_of_later_work_are_refused_by_name() {
        for option in LATER {
            let refused = Policy::default().set(option, "1").unwrap_err();
            assert_eq!(refused, PolicyError::NotSupported { option: option.to_owned() });
        }
        assert!(matches!(Policy::default().set("twonode", "1"), Err(PolicyError::Unknown { .. })));
        assert!(matches!(
            Policy::default().set("two_node", "maybe"),
            Err(PolicyError::BadValue { .. })
        ));
        let mut policy = Policy::default();
        policy.set("two_node", "1").unwrap();
        assert_eq!(policy.check(3), Err(PolicyError::TwoNodeTooMany { expected: 3 }));
        assert_eq!(policy.check(2), Ok(()));
    }

    proptest! {
        #[test]
        fn two_partitions_are_never_both_quorate_without_two_node(
            members in 1u32..40, here in 0u32..40, expected in proptest::option::of(1u32..60)
        ) {
            prop_assume!(here <= members);
            let verdict = |present| service_quorum(&Votes {
                policy: Policy {
                    expected_votes: expected.map(|e| e.max(members)),
                    ..Policy::default()
                },
                members, present, waiting: false, settled_peer: false,
            });
            prop_assert!(!(verdict(here).quorate && verdict(members - here).quorate));
        }
    }
}
