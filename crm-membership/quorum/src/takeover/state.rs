//! What people are told: the node's situation in one sentence, and why an order is refused.

use super::{Service, Step, Takeover};
use crate::lineage::RaftId;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt;
use thiserror::Error;

/// Why a node waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Wait {
    /// It has no mark: the others may have gone on without it.
    NotUp,
    /// The last change of the members is not complete, and the other side may have completed it.
    Unsettled,
    /// There are more than two voters: a majority is needed, no takeover.
    Majority,
    /// It is no voter (yet).
    NoVoter,
}

/// The situation of a node. Names are of nodes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum State {
    /// A quorum stands behind the leader.
    Quorate,
    /// The only voter.
    Alone {
        /// The generation.
        generation: u64,
    },
    /// The only voter, and not elected yet.
    Starting,
    /// The peer is there or not known to be lost; there is no leader yet.
    Electing {
        /// Who.
        peer: String,
    },
    /// The peer is lost and not confirmed off.
    Fencing {
        /// Who.
        peer: String,
    },
    /// The peer is confirmed off, the takeover is under way.
    TakingOver {
        /// Left behind.
        without: Vec<String>,
        /// Proof there is none: an operator ordered it.
        unfenced: bool,
        /// What is done at this moment.
        doing: String,
    },
    /// Cannot go on by itself.
    Waiting {
        /// For whom.
        missing: Vec<String>,
        /// Why.
        why: Wait,
    },
    /// The cluster has gone on without this node.
    Stale {
        /// Who told.
        by: String,
        /// What ran here is stopped: it asks to be taken back.
        stopped: bool,
    },
    /// Both sides went on.
    Diverged {
        /// The other side.
        peer: String,
        /// Common generations.
        common: usize,
    },
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Quorate => write!(f, "in quorum"),
            Self::Alone { generation: 0 } => write!(f, "in quorum: the only voter"),
            Self::Alone { generation } => {
                write!(f, "in quorum: the only voter since generation {generation}")
            }
            Self::Starting => write!(f, "starting: the only voter, about to lead"),
            Self::Electing { peer } => write!(f, "no leader yet: electing one with {peer}"),
            Self::Fencing { peer } => write!(
                f,
                "{peer} is lost: waiting until it is confirmed off; what runs here goes on, nothing new begins"
            ),
            Self::TakingOver { without, unfenced, doing } => {
                let why = if *unfenced { "forced, UNFENCED" } else { "confirmed off" };
                write!(f, "going on without {} ({why}): {doing}", without.join(", "))
            }
            Self::Waiting { missing, why } => {
                write!(f, "waiting for {}: {why}", missing.join(", "))
            }
            Self::Stale { by, stopped: false } => {
                write!(f, "{by} has gone on without this node: stopping what runs here")
            }
            Self::Stale { by, stopped: true } => {
                write!(f, "{by} has gone on without this node: asking to be taken back")
            }
            Self::Diverged { peer, common } => write!(
                f,
                "DIVERGED from {peer} after generation {}: both sides have gone on; `crm cluster merge` shows the two, and keeps one with what the other has changed",
                common.saturating_sub(1)
            ),
        }
    }
}

impl fmt::Display for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotUp => "this node was not up when the cluster last had quorum",
            Self::Unsettled => "the last change of the members may be complete there only",
            Self::Majority => "a majority of the voters is needed",
            Self::NoVoter => "this node does not vote yet",
        })
    }
}

/// Why an order is refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Refused {
    /// Nothing to force.
    #[error("this node has quorum")]
    HasQuorum,
    /// One takeover at a time.
    #[error("a takeover is under way")]
    UnderWay,
    /// The others may have gone on.
    #[error(
        "other voters may live (raft ids {peers:?}): fence them, confirm with `crm node fence --confirm` that they are off, or, of two nodes, give --accept-divergence"
    )]
    MayLive {
        /// Who.
        peers: BTreeSet<RaftId>,
    },
    /// The others are off, and had a majority without this node.
    #[error("the others may have had entries that are not here; --accept-divergence gives them up")]
    MayMiss,
    /// A newer or another line is known to exist.
    #[error(
        "others have gone on without this node: rejoin or merge; `crm cluster force --accept-divergence` gives up what they wrote"
    )]
    GoneOn,
    /// Its line lost a merge.
    #[error(
        "this node gives up its line (`crm cluster merge`); --accept-divergence takes that back"
    )]
    GivingUp,
    /// It has no say.
    #[error("this node is not a voter of the newest generation it knows")]
    NotVoter,
    /// Only two can.
    #[error("this is not one of exactly two voters in a settled membership")]
    NotAPair,
    /// Nothing to merge.
    #[error("the cluster has not diverged")]
    NotDiverged,
    /// Neither side is meant.
    #[error("that is the newest generation of neither side")]
    UnknownWinner,
}

impl Takeover {
    /// The situation, for `crm cluster status`; `name` gives nodes their names.
    pub fn state(&self, name: impl Fn(RaftId) -> String) -> State {
        if let Some(stale) = &self.stale {
            return State::Stale { by: name(stale.by), stopped: stale.stopped };
        }
        if let Some(foreign) = &self.durable.diverged {
            return State::Diverged { peer: name(foreign.peer), common: foreign.common };
        }
        if let (Some(intent), Some(step)) = (&self.durable.intent, self.step()) {
            let doing = match step {
                Step::Elect => "being elected",
                Step::Propose(_) => "recording the new generation",
                Step::Alone => "becoming the only voter",
            };
            let unfenced = matches!(intent.cause, crate::lineage::Cause::Forced { .. });
            let without = intent.evicted.iter().map(|id| name(*id)).collect();
            return State::TakingOver { without, unfenced, doing: doing.to_owned() };
        }
        let only = self.effective.only(self.me.id);
        match self.service() {
            Service::Full if only => {
                State::Alone { generation: self.durable.lineage.next().saturating_sub(1) }
            }
            Service::Full => State::Quorate,
            Service::Hold | Service::No if only => State::Starting,
            Service::Hold | Service::No => self.waiting(name),
        }
    }

    fn waiting(&self, name: impl Fn(RaftId) -> String) -> State {
        let mut others = self.effective.all();
        others.remove(&self.me.id);
        let missing = others.iter().map(|id| name(*id)).collect();
        if self.outside() {
            return State::Waiting { missing, why: Wait::NoVoter };
        }
        let Some(peer) = self.pair() else {
            let why = if others.len() > 1 { Wait::Majority } else { Wait::Unsettled };
            return State::Waiting { missing, why };
        };
        let able = self.may_take_over().is_some();
        match (able, self.lost.contains(&peer), self.heard.contains_key(&peer)) {
            (true, true, _) => State::Fencing { peer: name(peer) },
            (true, false, _) | (false, false, true) => State::Electing { peer: name(peer) },
            (false, ..) => State::Waiting { missing, why: Wait::NotUp },
        }
    }
}
