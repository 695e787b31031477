//! Status: what is seen. One entry per node, written by that node itself (through the log), except `online`.
//!
//! A node's entry belongs to one session of its daemon: results of an older session are dropped.

use crate::cib::Role;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// OCF exit codes (OCF resource agent API 1.1, section 3.4.3) as data.
pub mod rc {
    /// Success; for a monitor: running.
    pub const OK: i32 = 0;
    /// Generic error.
    pub const ERR_GENERIC: i32 = 1;
    /// Bad arguments or parameters on this node.
    pub const ERR_ARGS: i32 = 2;
    /// Action not implemented.
    pub const ERR_UNIMPLEMENTED: i32 = 3;
    /// No permission.
    pub const ERR_PERM: i32 = 4;
    /// Something needed is not installed.
    pub const ERR_INSTALLED: i32 = 5;
    /// Configuration invalid on every node.
    pub const ERR_CONFIGURED: i32 = 6;
    /// Cleanly stopped.
    pub const NOT_RUNNING: i32 = 7;
    /// Running and promoted.
    pub const RUNNING_PROMOTED: i32 = 8;
    /// Promoted but failed.
    pub const FAILED_PROMOTED: i32 = 9;
}

/// How the execution itself ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExecStatus {
    /// The agent ran to its end; its exit code counts.
    Complete,
    /// Killed after its timeout.
    Timeout,
    /// Could not be started (agent missing, fork failed).
    NotInstalled,
    /// Cancelled before it ended.
    Cancelled,
}

/// Result of one operation on one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpResult {
    /// Primitive id (anonymous clones: without instance number).
    pub resource: String,
    /// `start`, `stop`, `promote`, `demote`, `monitor`, `notify`.
    pub op: String,
    /// 0 for one-shot operations and probes.
    pub interval_ms: u64,
    /// OCF exit code (meaningful when `status` is `Complete`).
    pub rc: i32,
    /// The exit code that would have meant "as expected".
    pub expected_rc: i32,
    /// How execution ended.
    pub status: ExecStatus,
    /// Agent's own words for a failure (`ocf_exit_reason`, last line of stderr).
    pub reason: String,
    /// Digest of the parameters it ran with (`plan::digest`).
    pub digest: u64,
    /// Counts up within a session.
    pub call_id: u64,
    /// Wall clock at completion, milliseconds since the epoch (display and failure expiry only).
    pub when_ms: u64,
    /// Run time.
    pub exec_ms: u64,
}

impl OpResult {
    /// Not what was expected. A probe (`monitor`, interval 0) that found something else than expected is no failure when its code is 0, 7 or 8.
    #[must_use]
    pub fn failed(&self) -> bool {
        if self.status != ExecStatus::Complete {
            return true;
        }
        let probe = self.op == "monitor" && self.interval_ms == 0;
        if probe && matches!(self.rc, rc::OK | rc::NOT_RUNNING | rc::RUNNING_PROMOTED) {
            return false;
        }
        self.rc != self.expected_rc
    }
}

/// What a node knows of one primitive.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ResourceHistory {
    /// Role after the last operation that tells it; `None` = not probed yet in this session.
    pub role: Option<Role>,
    /// The last operation that set the role (probe, start, stop, promote, demote, or a monitor that found another state).
    pub last: Option<OpResult>,
    /// Recurring monitors that are active, by interval; value = last result, `None` until the first one.
    pub monitors: BTreeMap<u64, Option<OpResult>>,
    /// The failure not yet cured by a later success, if any.
    pub failure: Option<OpResult>,
    /// Digest of the parameters of the last start (or of the probe that found it active).
    pub digest: u64,
    /// Failures counted since the last cleanup.
    pub fail_count: u32,
    /// A start failed here: the fail count is infinity (`start-failure-is-fatal`).
    pub start_failed: bool,
    /// Wall clock of the last failure, milliseconds since the epoch.
    pub last_failure_ms: u64,
}

/// What is seen of one node.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Session the entry belongs to (0 = never seen).
    pub session: u64,
    /// Transient attributes (`master-RSC` promotion scores, the user's own).
    pub attrs: BTreeMap<String, String>,
    /// By primitive id.
    pub resources: BTreeMap<String, ResourceHistory>,
}

impl NodeStatus {
    /// Takes in the result of an operation. Returns false when it changed nothing.
    pub fn record(&mut self, result: OpResult) -> bool {
        let entry = self.resources.entry(result.resource.clone()).or_default();
        entry.record(result)
    }
}

impl ResourceHistory {
    fn record(&mut self, result: OpResult) -> bool {
        let before = self.clone();
        let failed = result.failed();
        if result.interval_ms > 0 {
            self.monitors.insert(result.interval_ms, Some(result.clone()));
        }
        if failed {
            self.note_failure(&result);
        } else {
            self.note_success(&result);
        }
        *self != before
    }

    fn note_failure(&mut self, result: &OpResult) {
        self.fail_count = self.fail_count.saturating_add(1);
        self.last_failure_ms = result.when_ms;
        self.start_failed |= result.op == "start";
        if result.status == ExecStatus::Complete {
            match result.rc {
                rc::NOT_RUNNING => self.role = Some(Role::Stopped),
                rc::RUNNING_PROMOTED => self.role = Some(Role::Promoted),
                _ if result.op == "monitor" && result.interval_ms == 0 => {
                    self.role = Some(Role::Started);
                }
                _ => {}
            }
        }
        if result.op == "start" && self.role.is_none_or(|r| r == Role::Stopped) {
            // What a failed start left behind is unknown: it counts as active until a stop succeeds.
            self.role = Some(Role::Started);
        }
        self.last = Some(result.clone());
        self.failure = Some(result.clone());
    }

    fn note_success(&mut self, result: &OpResult) {
        let role = match (result.op.as_str(), result.rc) {
            ("start", _) => Some(Role::Started),
            ("stop", _) | ("monitor", rc::NOT_RUNNING) => Some(Role::Stopped),
            ("promote", _) | ("monitor", rc::RUNNING_PROMOTED) => Some(Role::Promoted),
            ("demote", _) => Some(Role::Unpromoted),
            ("monitor", _) => match self.role {
                Some(Role::Promoted) if result.interval_ms > 0 => Some(Role::Unpromoted),
                Some(role) if result.interval_ms > 0 => Some(role),
                _ => Some(Role::Started),
            },
            _ => return,
        };
        let changes_role = result.op != "monitor" || result.interval_ms == 0 || role != self.role;
        self.role = role;
        if changes_role {
            self.last = Some(result.clone());
        }
        if result.op == "stop" || self.failure.as_ref().is_some_and(|f| f.op == result.op) {
            self.failure = None;
        }
        if result.op == "stop" {
            self.monitors.clear();
        }
        if result.op == "start" || (result.op == "monitor" && result.interval_ms == 0) {
            self.digest = result.digest;
        }
    }
}

/// Everything seen.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Status {
    /// By node name.
    pub nodes: BTreeMap<String, NodeStatus>,
}
