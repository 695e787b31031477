//! The options of service quorum: their text, what they come to for given members, and what is refused.
//!
//! The words are votequorum's (votequorum(5)); where one means something else here, docs/compat.md says so.

use serde::{Deserialize, Serialize};
use std::fmt;
use thiserror::Error;

/// A member of the cluster, as configured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Node name, unique.
    pub name: String,
    /// Node id, unique; `lowest` and `highest` go by it.
    pub id: u64,
    /// Its votes, usually 1; 0 = it does not count.
    pub votes: u32,
}

/// Which node breaks a tie.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TieNode {
    /// The lowest id.
    #[default]
    Lowest,
    /// The highest id.
    Highest,
    /// The first of these names.
    List(Vec<String>),
}

/// To whom the arbiter gives its vote, as far as the number of its votes depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Arbiter {
    /// One vote, for one of two halves (qnetd's `ffsplit`).
    Ffsplit,
    /// As many votes as the nodes have, less one: one node and the arbiter are enough (qnetd's `lms`).
    Lms,
}

/// What the administrator asked for. The default is a plain majority of one vote per member.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own in votequorum(5)")]
pub struct Policy {
    /// Votes the cluster counts on, when more than its members have; with `allow_downscale` the least.
    pub expected_votes: Option<u32>,
    /// One vote is enough in a cluster of two; needs fencing to be safe.
    pub two_node: bool,
    /// Not quorate after a start or a loss until every vote is there at once; `None` = as `two_node`.
    pub wait_for_all: Option<bool>,
    /// Those who are left, and quorate, stop counting those who are lost.
    pub last_man_standing: bool,
    /// How long they wait with that, in milliseconds; `None` = [`WINDOW_MS`].
    pub last_man_standing_window: Option<u64>,
    /// Exactly half of the votes is enough with the node that breaks ties.
    pub auto_tie_breaker: bool,
    /// That node.
    pub auto_tie_breaker_node: TieNode,
    /// Who leaves cleanly is not counted any more.
    pub allow_downscale: bool,
    /// The most votes that were ever expected are expected after a restart, too.
    pub expected_votes_tracking: bool,
    /// A third party with a vote.
    pub arbiter: Option<Arbiter>,
    /// Its votes; `None` = as its kind says.
    pub arbiter_votes: Option<u32>,
}

/// `last_man_standing_window` when it is not set, in milliseconds (votequorum(5)). It has to be longer
/// than the failure detector's dead interval.
pub const WINDOW_MS: u64 = 10_000;

/// All options that [`Policy::set`] takes, with what they take.
pub const OPTIONS: [(&str, &str); 11] = [
    ("expected_votes", "a number from 1"),
    ("two_node", SWITCH),
    ("wait_for_all", SWITCH),
    ("last_man_standing", SWITCH),
    ("last_man_standing_window", "milliseconds from 1, or `10s`"),
    ("auto_tie_breaker", SWITCH),
    ("auto_tie_breaker_node", "`lowest`, `highest` or node names"),
    ("allow_downscale", SWITCH),
    ("expected_votes_tracking", SWITCH),
    ("arbiter", "`ffsplit`, `lms` or `none`"),
    ("arbiter_votes", "a number from 1"),
];
const SWITCH: &str = "`1` or `0`";

/// Why an option was refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PolicyError {
    /// Unknown.
    #[error("unknown quorum option `{option}={value}`; {}", known(option))]
    Unknown {
        /// The option.
        option: String,
        /// The value.
        value: String,
    },
    /// A value that the option does not take.
    #[error("quorum option `{option}` does not take `{value}`; give it {takes}")]
    BadValue {
        /// The option.
        option: String,
        /// The value.
        value: String,
        /// What it takes.
        takes: &'static str,
    },
    /// Two options that exclude each other.
    #[error("`{option}` does not go with `{other}`; {remedy}")]
    Conflict {
        /// The option with its value.
        option: String,
        /// The other one with its value.
        other: String,
        /// What to do.
        remedy: &'static str,
    },
    /// A tie breaker that is no member.
    #[error("`auto_tie_breaker_node` names `{name}`, which is no member; members: {members}")]
    NoSuchMember {
        /// The name.
        name: String,
        /// All members.
        members: String,
    },
}

fn known(option: &str) -> String {
    if matches!(option, "device" | "qdevice") {
        return "its place is taken by `arbiter=ffsplit` and `arbiter=lms`".to_owned();
    }
    let names: Vec<String> = OPTIONS.iter().map(|(name, _)| format!("`{name}`")).collect();
    format!("known: {}", names.join(", "))
}

/// An option that was accepted and has no effect, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notice {
    /// `two_node` with more than two expected votes.
    TwoNodeTooMany {
        /// Votes expected.
        expected: u64,
    },
    /// `two_node` with `auto_tie_breaker`.
    TwoNodeWithTieBreaker,
    /// `auto_tie_breaker` with an odd number of votes and without `wait_for_all`.
    TieBreakerOnOdd {
        /// Votes expected.
        expected: u64,
    },
    /// `last_man_standing` with a node of more than one vote.
    LastManWithVotes,
    /// `expected_votes` below what the members have.
    ExpectedBelowMembers {
        /// What is set.
        set: u64,
        /// What the members have.
        members: u64,
    },
    /// `allow_downscale` without a floor below what the members have.
    DownscaleWithoutFloor,
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TwoNodeTooMany { expected } => write!(
                f,
                "two_node has no effect with {expected} expected votes: a majority is needed"
            ),
            Self::TwoNodeWithTieBreaker => f.write_str(
                "two_node has no effect with auto_tie_breaker: the tie node goes on, not the faster one",
            ),
            Self::TieBreakerOnOdd { expected } => write!(
                f,
                "auto_tie_breaker has no effect with {expected} expected votes, an odd number, unless wait_for_all=1"
            ),
            Self::LastManWithVotes => f.write_str(
                "last_man_standing has no effect when a node has more than one vote: give each node 1",
            ),
            Self::ExpectedBelowMembers { set, members } => write!(
                f,
                "expected_votes={set} has no effect: the members have {members} votes, and no fewer are expected"
            ),
            Self::DownscaleWithoutFloor => f.write_str(
                "allow_downscale has no effect without expected_votes: set it to the fewest votes to expect",
            ),
        }
    }
}

impl Policy {
    /// Sets one option from its text.
    ///
    /// # Errors
    /// When the option is unknown or does not take the value.
    pub fn set(&mut self, option: &str, value: &str) -> Result<(), PolicyError> {
        let Some((_, takes)) = OPTIONS.iter().find(|(name, _)| *name == option) else {
            return Err(PolicyError::Unknown {
                option: option.to_owned(),
                value: value.to_owned(),
            });
        };
        self.assign(option, value).ok_or_else(|| PolicyError::BadValue {
            option: option.to_owned(),
            value: value.to_owned(),
            takes,
        })
    }

    fn assign(&mut self, option: &str, value: &str) -> Option<()> {
        match option {
            "expected_votes" => self.expected_votes = Some(number(value)?),
            "two_node" => self.two_node = switch(value)?,
            "wait_for_all" => self.wait_for_all = Some(switch(value)?),
            "last_man_standing" => self.last_man_standing = switch(value)?,
            "last_man_standing_window" => self.last_man_standing_window = Some(window(value)?),
            "auto_tie_breaker" => self.auto_tie_breaker = switch(value)?,
            "auto_tie_breaker_node" => self.auto_tie_breaker_node = tie_node(value)?,
            "allow_downscale" => self.allow_downscale = switch(value)?,
            "expected_votes_tracking" => self.expected_votes_tracking = switch(value)?,
            "arbiter" => {
                self.arbiter = match value {
                    "none" => None,
                    "ffsplit" => Some(Arbiter::Ffsplit),
                    "lms" => Some(Arbiter::Lms),
                    _ => return None,
                }
            }
            "arbiter_votes" => self.arbiter_votes = Some(number(value)?),
            _ => return None,
        }
        Some(())
    }

    /// Checks the options against each other and the members; tells which of them have no effect.
    ///
    /// # Errors
    /// When two options exclude each other, or the tie node is no member.
    pub fn check(&self, members: &[Member]) -> Result<Vec<Notice>, PolicyError> {
        self.check_arbiter()?;
        let rules = self.rules(members);
        let odd = rules.expected % 2 == 1;
        if self.auto_tie_breaker && self.last_man_standing && odd && !rules.waits {
            return Err(conflict(
                "auto_tie_breaker=1",
                "last_man_standing=1",
                "with an odd number of votes set `wait_for_all=1`, or drop one of them",
            ));
        }
        if let (true, TieNode::List(names)) = (self.auto_tie_breaker, &self.auto_tie_breaker_node)
            && let Some(name) = names.iter().find(|n| members.iter().all(|m| m.name != **n))
        {
            let members: Vec<&str> = members.iter().map(|m| m.name.as_str()).collect();
            return Err(PolicyError::NoSuchMember {
                name: name.clone(),
                members: members.join(", "),
            });
        }
        Ok(self.notices(members, &rules))
    }

    fn check_arbiter(&self) -> Result<(), PolicyError> {
        let Some(arbiter) = self.arbiter else {
            return match self.arbiter_votes {
                None => Ok(()),
                Some(votes) => Err(conflict(
                    &format!("arbiter_votes={votes}"),
                    "arbiter=none",
                    "set `arbiter=ffsplit` or `arbiter=lms`",
                )),
            };
        };
        let word = match arbiter {
            Arbiter::Ffsplit => "arbiter=ffsplit",
            Arbiter::Lms => "arbiter=lms",
        };
        for (set, other, remedy) in [
            (self.two_node, "two_node=1", "drop `two_node`: the arbiter is the third vote"),
            (self.last_man_standing, "last_man_standing=1", "drop it; `arbiter=lms` does as much"),
            (self.auto_tie_breaker, "auto_tie_breaker=1", "drop it: the arbiter breaks ties"),
            (self.allow_downscale, "allow_downscale=1", "drop one of them"),
        ] {
            if set {
                return Err(conflict(word, other, remedy));
            }
        }
        match (arbiter, self.arbiter_votes) {
            (Arbiter::Ffsplit, Some(votes)) if votes != 1 => Err(conflict(
                word,
                &format!("arbiter_votes={votes}"),
                "it has one vote: drop `arbiter_votes`, or set `arbiter=lms`",
            )),
            (Arbiter::Ffsplit | Arbiter::Lms, _) => Ok(()),
        }
    }

    fn notices(&self, members: &[Member], rules: &Rules) -> Vec<Notice> {
        let mut notices = Vec::new();
        let sum = votes_of(members);
        let expected = rules.expected;
        if self.two_node && self.auto_tie_breaker {
            notices.push(Notice::TwoNodeWithTieBreaker);
        } else if self.two_node && !rules.two_node {
            notices.push(Notice::TwoNodeTooMany { expected });
        }
        if self.auto_tie_breaker && rules.tie.is_none() {
            notices.push(Notice::TieBreakerOnOdd { expected });
        }
        if self.last_man_standing && !rules.last_man {
            notices.push(Notice::LastManWithVotes);
        }
        match self.expected_votes.map(u64::from) {
            Some(set) if set < sum && !self.allow_downscale => {
                notices.push(Notice::ExpectedBelowMembers { set, members: sum });
            }
            None if self.allow_downscale => notices.push(Notice::DownscaleWithoutFloor),
            Some(_) | None => {}
        }
        notices
    }

    /// What the options come to for these members. Of options that exclude each other the bold one is off.
    #[must_use]
    pub fn rules(&self, members: &[Member]) -> Rules {
        let sum = votes_of(members);
        let expected = u64::from(self.expected_votes.unwrap_or(0)).max(sum);
        let arbiter_votes = match (self.arbiter, self.arbiter_votes) {
            (None, _) => 0,
            (Some(Arbiter::Ffsplit), _) => 1,
            (Some(Arbiter::Lms), votes) => votes.map_or_else(|| sum.saturating_sub(1), u64::from),
        };
        let waits = self.wait_for_all.unwrap_or(self.two_node);
        let alone = self.arbiter.is_none();
        let tie_breaker = alone && self.auto_tie_breaker && (waits || expected.is_multiple_of(2));
        Rules {
            expected,
            two_node: alone
                && self.two_node
                && !self.auto_tie_breaker
                && members.len() <= 2
                && expected <= 2,
            waits,
            last_man: alone && self.last_man_standing && members.iter().all(|m| m.votes <= 1),
            window_ms: self.last_man_standing_window.unwrap_or(WINDOW_MS),
            tie: tie_breaker.then(|| self.auto_tie_breaker_node.clone()),
            floor: self.expected_votes.filter(|_| alone && self.allow_downscale).map(u64::from),
            tracking: self.expected_votes_tracking,
            arbiter_votes,
        }
    }
}

/// What a [`Policy`] comes to for given members.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a rule of its own")]
pub struct Rules {
    /// Votes expected at first, without the arbiter's.
    pub expected: u64,
    /// One vote is enough.
    pub two_node: bool,
    /// `wait_for_all` applies.
    pub waits: bool,
    /// `last_man_standing` applies.
    pub last_man: bool,
    /// Its window, in milliseconds.
    pub window_ms: u64,
    /// Which node breaks a tie; `None` = there is no tie breaker.
    pub tie: Option<TieNode>,
    /// Clean leaves lower the expected votes down to this.
    pub floor: Option<u64>,
    /// `expected_votes_tracking` applies.
    pub tracking: bool,
    /// Votes of the arbiter, 0 = none.
    pub arbiter_votes: u64,
}

fn votes_of(members: &[Member]) -> u64 {
    members.iter().map(|member| u64::from(member.votes)).sum()
}

fn conflict(option: &str, other: &str, remedy: &'static str) -> PolicyError {
    PolicyError::Conflict { option: option.to_owned(), other: other.to_owned(), remedy }
}

fn switch(value: &str) -> Option<bool> {
    match value {
        "1" | "true" | "yes" | "on" => Some(true),
        "0" | "false" | "no" | "off" => Some(false),
        _ => None,
    }
}

fn number(value: &str) -> Option<u32> {
    value.parse().ok().filter(|n| (1..=1_000_000).contains(n))
}

fn window(value: &str) -> Option<u64> {
    let (digits, unit) = match (value.strip_suffix("ms"), value.strip_suffix('s')) {
        (Some(digits), _) => (digits, 1),
        (None, Some(digits)) => (digits, 1000),
        (None, None) => (value, 1),
    };
    digits.parse::<u64>().ok()?.checked_mul(unit).filter(|ms| *ms > 0)
}

fn tie_node(value: &str) -> Option<TieNode> {
    match value {
        "lowest" => Some(TieNode::Lowest),
        "highest" => Some(TieNode::Highest),
        _ => {
            let names: Vec<String> = value
                .split([' ', ','])
                .filter(|name| !name.is_empty())
                .map(str::to_owned)
                .collect();
            (!names.is_empty()).then_some(TieNode::List(names))
        }
    }
}
