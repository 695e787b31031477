//! What was decided, and why, in words a person can act on.

use std::fmt;

/// The decision of one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// May run resources and fence.
    pub quorate: bool,
    /// `wait_for_all` holds this node back (or would, if the votes were there).
    pub waiting: bool,
    /// The votes.
    pub count: Count,
    /// Why.
    pub reason: Reason,
}

/// Votes, the arbiter's among them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Count {
    /// Present.
    pub have: u64,
    /// Expected.
    pub expected: u64,
    /// Needed.
    pub needed: u64,
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verb = if self.have == 1 { "is" } else { "are" };
        write!(f, "{} of {} votes {verb} here", self.have, self.expected)
    }
}

/// Why a partition is quorate or not. Names are sorted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// Enough votes.
    Enough(Count),
    /// Fewer than a majority, and `two_node` is set.
    TwoNode(Count),
    /// Exactly half, and the node that breaks ties is here.
    TieBroken {
        /// The votes.
        count: Count,
        /// That node.
        node: String,
    },
    /// Not enough votes.
    TooFew {
        /// The votes.
        count: Count,
        /// Counted, and not here.
        missing: Vec<String>,
        /// The arbiter has votes and gives them to somebody else.
        arbiter_away: bool,
    },
    /// Exactly half, and the node that breaks ties is not here.
    TieLost {
        /// The votes.
        count: Count,
        /// That node.
        node: String,
    },
    /// `wait_for_all` holds us back.
    WaitingForAll {
        /// The votes.
        count: Count,
        /// Counted, and not here.
        missing: Vec<String>,
    },
    /// This node is leaving.
    Leaving,
    /// This node is not among the members.
    NoMember,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Enough(count) => write!(f, "{count}, {} needed", count.needed),
            Self::TwoNode(count) => write!(f, "{count}, enough with two_node"),
            Self::TieBroken { count, node } => {
                write!(f, "{count}, exactly half, and `{node}` breaks the tie (auto_tie_breaker)")
            }
            Self::TooFew { count, missing, arbiter_away } => {
                let more = count.needed.saturating_sub(count.have);
                let s = if more == 1 { "" } else { "s" };
                write!(f, "only {count}, {} needed: {more} more vote{s}", count.needed)?;
                let arbiter = arbiter_away.then_some("the arbiter");
                list(f, missing.iter().map(String::as_str).chain(arbiter))
            }
            Self::TieLost { count, node } => write!(
                f,
                "{count}, exactly half, and `{node}`, which breaks the tie, is not: it or 1 more vote is needed"
            ),
            Self::WaitingForAll { count, missing } => {
                write!(f, "wait_for_all: {count}; all of them are needed once")?;
                list(f, missing.iter().map(String::as_str))?;
                write!(
                    f,
                    ", or a peer that is quorate, or {} votes and the wait cancelled by hand",
                    count.needed
                )
            }
            Self::Leaving => {
                f.write_str("this node is leaving the cluster; start it again to take part")
            }
            Self::NoMember => {
                f.write_str("this node is not a member of the cluster; let it join first")
            }
        }
    }
}

fn list<'a>(f: &mut fmt::Formatter<'_>, names: impl Iterator<Item = &'a str>) -> fmt::Result {
    let names: Vec<&str> = names.collect();
    if names.is_empty() { Ok(()) } else { write!(f, " (missing: {})", names.join(", ")) }
}
