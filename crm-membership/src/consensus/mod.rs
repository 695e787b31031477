//! Raft, as we use it: the types, the durable log, the state machine, the network. Nothing outside this
//! package sees an openraft type.

mod intact;
pub(crate) mod log;
pub(crate) mod machine;
pub(crate) mod network;

use crm_core::store::Outcome;
use crm_quorum::lineage::Generation;
use serde::{Deserialize, Serialize};
use std::fmt;
use uuid::Uuid;

/// What a log entry carries. The command is JSON, so that its shape can grow; the id makes a repeated
/// proposal harmless.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Request {
    /// Made once per proposal, kept over its retries.
    pub(crate) id: Uuid,
    /// JSON of `crm_core::store::Command`; empty for a generation.
    pub(crate) command: Vec<u8>,
    /// A generation of the cluster begins (ADR-0010).
    pub(crate) generation: Option<Box<Generation>>,
}

impl Request {
    pub(crate) fn of(command: Vec<u8>) -> Self {
        Self { id: Uuid::new_v4(), command, generation: None }
    }
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "request {} ({} bytes)", self.id, self.command.len())
    }
}

/// What applying an entry gave; `None` for entries that are raft's own.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Reply {
    pub(crate) outcome: Option<Outcome>,
}

/// A node as raft's membership records it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Peer {
    pub(crate) name: String,
    pub(crate) address: String,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}", self.name, self.address)
    }
}

// One leader per term, as everything that carries a term of ours takes for granted (plans, tokens, signs of a leader). openraft's own
// choice, `leader_id_adv`, lets a voter grant a second candidate of the same term when its id is greater (ADR-0003).
openraft::declare_raft_types!(pub(crate) Types:
    D = Request,
    R = Reply,
    Node = Peer,
    LeaderId = openraft::impls::leader_id_std::LeaderId<Self::Term, Self::NodeId>,
);

pub(crate) type Raft = openraft::Raft<Types, machine::Machine>;
pub(crate) type LogId = openraft::alias::LogIdOf<Types>;
pub(crate) type Vote = openraft::alias::VoteOf<Types>;
pub(crate) type Entry = openraft::alias::EntryOf<Types>;
/// A membership in the words of the takeover.
pub(crate) fn voters_of(membership: &StoredMembership) -> crm_quorum::takeover::Voters {
    crm_quorum::takeover::Voters {
        sets: membership.membership().get_joint_config().clone(),
        at: membership.log_id().as_ref().map_or(0, |id| id.index),
    }
}

pub(crate) type StoredMembership = openraft::alias::StoredMembershipOf<Types>;
pub(crate) type SnapshotMeta = openraft::alias::SnapshotMetaOf<Types>;
pub(crate) type SnapshotData = std::io::Cursor<Vec<u8>>;
pub(crate) type Snapshot = openraft::alias::SnapshotOf<Types, SnapshotData>;
pub(crate) type Metrics = openraft::RaftMetrics<Types>;
