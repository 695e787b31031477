//! Bodies of the peer API that are ours: orders from the leader to a node.

use crm_core::fencing::Task;
use crm_core::plan::OpSpec;
use serde::{Deserialize, Serialize};

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
