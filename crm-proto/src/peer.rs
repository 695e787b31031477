//! Bodies of the peer API that are ours: orders from the leader to a node.

use crm_core::cib::Cib;
use crm_core::fencing::Task;
use crm_core::merge::Mark;
use crm_core::plan::OpSpec;
use crm_core::status::Status;
use crm_core::store::VolumeRecord;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Which plan an order belongs to. Ordered: a node refuses an order of an older plan than the newest it has seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PlanId {
    /// Raft term of the leader that made it.
    pub term: u64,
    /// Counts up within the term.
    pub number: u64,
}

/// What a node is told to do. The result comes back through the log (`Command::OpDone`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// The plan.
    pub plan: PlanId,
    /// Index of the action in the plan: reported back with the result.
    pub action: u32,
    /// Session of the addressed node that the plan was made for; refused when it is another.
    pub session: u64,
    /// What.
    pub work: Work,
}

/// The work of an [`Order`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Work {
    /// Run an operation (begin it, when it is a recurring monitor).
    Run(Box<OpSpec>),
    /// Stop a recurring monitor.
    CancelMonitor {
        /// Primitive id.
        resource: String,
        /// Interval.
        interval_ms: u64,
    },
}

/// What a node is asked to do with a fence device. It makes the agent's parameters from its own copy of the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FenceCall {
    /// Device, action, target.
    pub task: Task,
    /// Time limit in milliseconds.
    pub limit_ms: u64,
}

/// What two lines of a cluster that have parted say to each other (ADR-0016).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Parley {
    /// Tell what you have. Changes nothing.
    Tell,
    /// The operator keeps the caller's line: give yours up, and join mine as somebody new.
    GiveUp {
        /// Newest generation of the caller's line.
        winner: String,
        /// CIB version that was looked at before; refused when it is another now.
        version: u64,
        /// Who has ordered it.
        by: String,
        /// Wall clock of the caller, milliseconds.
        when_ms: u64,
    },
    /// The caller has stopped what it ran, kept a copy of its line, and forgets its votes: it needs a new raft id.
    Readmit {
        /// The generation in whose favour it has given up.
        winner: String,
    },
}

/// Answer to a [`Parley`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ParleyAnswer {
    /// To [`Parley::Tell`].
    Line(Box<Line>),
    /// It will be given up, whatever happens now.
    GivingUp,
    /// The place in the winner's cluster.
    Seat {
        /// The new raft id.
        raft_id: u64,
        /// All members, the caller among them.
        seats: Vec<Seat>,
    },
    /// Not done.
    Refused {
        /// Why.
        why: String,
    },
}

/// A member as whoever joins has to know it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seat {
    /// Node name.
    pub name: String,
    /// Raft id.
    pub raft_id: u64,
    /// `HOST:PORT` of the peer API.
    pub address: String,
    /// `HOST:PORT` of each further link.
    #[serde(default)]
    pub links: Vec<String>,
}

/// One of two lines that have parted, as the node that answers sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// The node.
    pub node: String,
    /// Its generations, oldest first.
    pub branch: Vec<Branch>,
    /// Names of the members who vote in it.
    pub voters: BTreeSet<String>,
    /// CIB version.
    pub version: u64,
    /// What is wanted.
    pub cib: Cib,
    /// The revisions kept, oldest first.
    pub revisions: Vec<Mark>,
    /// What is seen.
    pub status: Status,
    /// Authority over volumes, by name.
    pub volumes: BTreeMap<String, VolumeRecord>,
}

/// A generation in a [`Line`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Branch {
    /// Its name.
    pub id: String,
    /// For people.
    pub words: String,
    /// When it began, milliseconds since the epoch by its maker's clock; 0: the founding.
    pub at_ms: u64,
}
