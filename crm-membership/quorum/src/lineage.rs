//! Generations of a cluster: who took it over from whom, with what proof, and how two nodes' lists of them
//! compare (design/membership.md 3.2).

use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use thiserror::Error;

/// A voter in the raft log. Never used again once its data directory was emptied.
pub type RaftId = u64;

/// Names one generation: a uuid made by the caller. The first is the cluster's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct GenerationId(pub [u8; 16]);

impl fmt::Display for GenerationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, byte) in self.0.iter().enumerate() {
            if matches!(at, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

/// A text that is no uuid.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("`{text}` is no uuid")]
pub struct BadId {
    /// The text.
    pub text: String,
}

impl FromStr for GenerationId {
    type Err = BadId;

    /// Reads what `Display` writes, in either case.
    fn from_str(text: &str) -> Result<Self, BadId> {
        let bad = || BadId { text: text.to_owned() };
        let lengths = text.split('-').map(str::len);
        if !lengths.eq([8, 4, 4, 4, 12]) {
            return Err(bad());
        }
        let mut digits = text.chars().filter(|c| *c != '-').map(|c| c.to_digit(16));
        let mut digit = || digits.next().flatten().and_then(|d| u8::try_from(d).ok());
        let mut id = [0; 16];
        for byte in &mut id {
            let (high, low) = digit().zip(digit()).ok_or_else(bad)?;
            *byte = high << 4 | low;
        }
        Ok(Self(id))
    }
}

/// How it is known that a peer was off.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum How {
    /// A fence agent said so.
    Device {
        /// The agent, as `fence_ipmilan`.
        agent: String,
        /// The device of the configuration.
        device: String,
    },
    /// A person said so (`crm node fence --confirm`).
    Hand {
        /// Who.
        operator: String,
    },
}

/// The peer's power was off, or it was reset, at some moment after its fencing began. A device that only
/// cuts it off from storage or network proves nothing here: the peer would keep its mark in `/run`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Evidence {
    /// Who was off.
    pub peer: RaftId,
    /// The newest start of its daemon that had been heard of when the fencing began.
    pub incarnation: u64,
    /// How it is known.
    pub how: How,
    /// When, in milliseconds of the wall clock; for people only.
    pub at_ms: u64,
}

/// Why a node could be sure that the peer had not gone on without it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Currency {
    /// It was up without interruption since it last heard from the peer.
    Up,
    /// A person said so.
    Word {
        /// Who.
        operator: String,
    },
}

/// Why a generation began.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Cause {
    /// The cluster was founded.
    Founded,
    /// The peer was confirmed to be off.
    Fenced {
        /// The proof.
        evidence: Evidence,
        /// Why nothing newer can exist.
        currency: Currency,
    },
    /// A person ordered it without proof: the others may have gone on. Shown as UNFENCED.
    Forced {
        /// Who.
        operator: String,
    },
}

/// One generation.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Generation {
    /// Counts from 0, the founding.
    pub number: u64,
    /// Its name.
    pub id: GenerationId,
    /// Who made it.
    pub by: RaftId,
    /// Whom it leaves behind.
    pub evicted: BTreeSet<RaftId>,
    /// Why.
    pub cause: Cause,
    /// When, in milliseconds of the wall clock; for people only.
    pub at_ms: u64,
}

impl Generation {
    /// How it came to be, for people; `name` gives nodes their names.
    #[must_use]
    pub fn words(&self, name: impl Fn(RaftId) -> String) -> String {
        let (number, id, by) = (self.number, self.id, name(self.by));
        let how = match &self.cause {
            Cause::Founded => "the founding".to_owned(),
            Cause::Forced { operator } => format!("UNFENCED, forced on {by} by {operator}"),
            Cause::Fenced { evidence, currency } => {
                let peer = name(evidence.peer);
                let off = match &evidence.how {
                    How::Device { agent, device } => format!("fenced by `{device}` ({agent})"),
                    How::Hand { operator } => format!("confirmed off by {operator}"),
                };
                let newer = match currency {
                    Currency::Up => String::new(),
                    Currency::Word { operator } => {
                        format!("; {operator} said that it had nothing newer")
                    }
                };
                format!("{by} without {peer}, which was {off}{newer}")
            }
        };
        format!("generation {number} ({id}): {how}")
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words(|id| format!("raft id {id}")))
    }
}

/// How the other's list compares with mine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Relation {
    /// The same.
    Equal,
    /// Mine is the beginning of theirs: I am stale.
    MineStale,
    /// Theirs is the beginning of mine: they are stale.
    TheirsStale,
    /// Neither: both sides went on without the other.
    Diverged {
        /// How many generations are common.
        common: usize,
    },
}

/// Compares two lists of generations, oldest first.
#[must_use]
pub fn relation(mine: &[GenerationId], theirs: &[GenerationId]) -> Relation {
    let common = mine.iter().zip(theirs).take_while(|(a, b)| a == b).count();
    match (common == mine.len(), common == theirs.len()) {
        (true, true) => Relation::Equal,
        (true, false) => Relation::MineStale,
        (false, true) => Relation::TheirsStale,
        (false, false) => Relation::Diverged { common },
    }
}

/// A generation that does not follow the ones before.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("generation {number} cannot follow generation {last}")]
pub struct Gap {
    /// What should follow.
    pub number: u64,
    /// The last one.
    pub last: u64,
}

/// The generations that a node's log has lived through, oldest first; never empty.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Lineage(Vec<Generation>);

impl Lineage {
    /// That of a new cluster, and of a node that has just joined one.
    #[must_use]
    pub fn founded(cluster: GenerationId) -> Self {
        Self(vec![Generation {
            number: 0,
            id: cluster,
            by: 0,
            evicted: BTreeSet::new(),
            cause: Cause::Founded,
            at_ms: 0,
        }])
    }

    /// All of them.
    #[must_use]
    pub fn generations(&self) -> &[Generation] {
        &self.0
    }

    /// Their names, as every call carries them.
    #[must_use]
    pub fn ids(&self) -> Vec<GenerationId> {
        self.0.iter().map(|g| g.id).collect()
    }

    /// The one by that name.
    #[must_use]
    pub fn get(&self, id: GenerationId) -> Option<&Generation> {
        self.0.iter().find(|g| g.id == id)
    }

    /// Number of the next one.
    #[must_use]
    pub fn next(&self) -> u64 {
        self.0.last().map_or(0, |last| last.number + 1)
    }

    /// Adds one; false when it is there already (a proposal may be committed twice).
    ///
    /// # Errors
    /// When it does not follow the last one.
    pub fn push(&mut self, generation: Generation) -> Result<bool, Gap> {
        if self.get(generation.id).is_some() {
            return Ok(false);
        }
        if generation.number != self.next() {
            let last = self.next().saturating_sub(1);
            return Err(Gap { number: generation.number, last });
        }
        self.0.push(generation);
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u8) -> GenerationId {
        GenerationId([n; 16])
    }

    #[test]
    fn lists_compare_as_beginnings_of_each_other() {
        let table: [(&[u8], &[u8], Relation); 5] = [
            (&[1, 2], &[1, 2], Relation::Equal),
            (&[1], &[1, 2], Relation::MineStale),
            (&[1, 2], &[1], Relation::TheirsStale),
            (&[1, 2], &[1, 3], Relation::Diverged { common: 1 }),
            (&[1], &[2, 1], Relation::Diverged { common: 0 }),
        ];
        for (mine, theirs, want) in table {
            let ids = |list: &[u8]| list.iter().map(|n| id(*n)).collect::<Vec<_>>();
            assert_eq!(relation(&ids(mine), &ids(theirs)), want, "{mine:?} {theirs:?}");
        }
    }

    #[test]
    fn a_name_is_read_as_it_is_written() {
        let name = GenerationId(*b"0123456789abcdef");
        assert_eq!(name.to_string().to_uppercase().parse(), Ok(name));
        for bad in
            ["", "30313233-3435-3637-3839-61626364656", "30313233-3435-3637-3839-6162636465x6"]
        {
            assert_eq!(bad.parse::<GenerationId>(), Err(BadId { text: bad.to_owned() }));
        }
        assert!("é0313233-3435-3637-3839-61626364656".parse::<GenerationId>().is_err());
    }

    #[test]
    fn a_generation_is_added_once_and_in_order() {
        let mut lineage = Lineage::founded(id(0));
        let next = Generation { number: 1, id: id(1), ..lineage.generations()[0].clone() };
        assert_eq!(lineage.push(next.clone()), Ok(true));
        assert_eq!(lineage.push(next.clone()), Ok(false));
        let late = Generation { number: 1, id: id(2), ..next };
        assert_eq!(lineage.push(late), Err(Gap { number: 1, last: 1 }));
        assert_eq!(lineage.ids(), [id(0), id(1)]);
    }

    #[test]
    fn a_generation_says_who_and_by_what_proof() {
        let evidence = Evidence {
            peer: 2,
            incarnation: 7,
            how: How::Device { agent: "fence_virsh".into(), device: "f-beta".into() },
            at_ms: 0,
        };
        let mut g = Generation {
            number: 1,
            id: GenerationId(*b"0123456789abcdef"),
            by: 1,
            evicted: BTreeSet::from([2]),
            cause: Cause::Fenced { evidence, currency: Currency::Up },
            at_ms: 0,
        };
        let name = "generation 1 (30313233-3435-3637-3839-616263646566): ";
        assert_eq!(
            g.to_string(),
            format!(
                "{name}raft id 1 without raft id 2, which was fenced by `f-beta` (fence_virsh)"
            )
        );
        g.cause = Cause::Forced { operator: "root".into() };
        let named = g.words(|id| ["?", "alpha"][usize::try_from(id).unwrap()].to_owned());
        assert_eq!(named, format!("{name}UNFENCED, forced on alpha by root"));
    }
}
