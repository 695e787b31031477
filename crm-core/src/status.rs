//! Status: what is seen. One entry per node, written by that node itself (through the log), except `online`.
//!
//! A node's entry belongs to one session of its daemon: results of an older session are dropped.

use crate::cib::{AgentName, Primitive, Role};
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
    /// `start`, `stop`, `promote`, `demote`, `monitor`, `notify`, `migrate_to`, `migrate_from`.
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
    /// The other node of a live migration: of `migrate_to` the target, of `migrate_from` the source.
    #[serde(default)]
    pub peer: Option<String>,
}

impl OpResult {
    /// A notification: what the instance makes of it is its own affair (the node's log has it), nothing fails or waits because of it.
    #[must_use]
    pub fn is_told(&self) -> bool {
        self.op == "notify"
    }

    /// Not what was expected. A probe (`monitor`, interval 0) that found something else than expected is no failure when its code is 0, 7 or 8.
    #[must_use]
    pub fn failed(&self) -> bool {
        if self.is_told() {
            return false;
        }
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
    /// The last failure that counts, cured or not: what the operator is shown until a cleanup or until it expires.
    #[serde(default)]
    pub last_failure: Option<OpResult>,
    /// Digest of the parameters of the last start (or of the probe that found it active).
    pub digest: u64,
    /// Failures counted since the last cleanup.
    pub fail_count: u32,
    /// A start failed here: the fail count is infinity (`start-failure-is-fatal`).
    pub start_failed: bool,
    /// Wall clock of the last failure, milliseconds since the epoch.
    pub last_failure_ms: u64,
    /// The agent it ran with, where that is known: all that is left of a resource that is not configured any more.
    #[serde(default)]
    pub agent: Option<AgentName>,
    /// An operation that has begun and not ended.
    #[serde(default)]
    pub pending: Option<Pending>,
    /// Target of a live migration that has begun here: until it is stopped here, it may run there. Empty when it has been stopped there since.
    #[serde(default)]
    pub migrated_to: Option<String>,
    /// Pacemaker's digest of the parameters it runs with.
    #[serde(default)]
    pub params_md5: Option<String>,
    /// Parameters whose change needs a restart, and Pacemaker's digest of these.
    #[serde(default)]
    pub restart_md5: Option<(String, String)>,
    /// Secret parameters, and Pacemaker's digest without these.
    #[serde(default)]
    pub secure_md5: Option<(String, String)>,
}

/// An operation under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pending {
    /// Which.
    pub op: String,
    /// 0 for one-shot operations and probes.
    pub interval_ms: u64,
}

/// A ticket: the right of this cluster (as opposed to one at another site) to run what needs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ticket {
    /// The cluster has it.
    pub granted: bool,
    /// It is about to be given up.
    pub standby: bool,
}

/// An action of a plan: the mark that an order carries and its report brings back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Token {
    /// Raft term of the planner.
    pub term: u64,
    /// Number of the plan within the term.
    pub plan: u64,
    /// Index of the action in the plan.
    pub action: u32,
}

/// Actions of one plan that a node has finished; a newer plan's first report replaces it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Done {
    /// Raft term of the planner.
    pub term: u64,
    /// Number of the plan within the term.
    pub plan: u64,
    /// Action index and whether it went as expected.
    pub actions: BTreeMap<u32, bool>,
}

impl Done {
    /// Notes that an action has ended. Reports of older plans are ignored.
    pub fn note(&mut self, token: Token, ok: bool) {
        if (token.term, token.plan) > (self.term, self.plan) {
            *self = Self { term: token.term, plan: token.plan, actions: BTreeMap::new() };
        }
        if (token.term, token.plan) == (self.term, self.plan) {
            self.actions.insert(token.action, ok);
        }
    }
}

/// What is seen of one node.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Session the entry belongs to (0 = never seen).
    pub session: u64,
    /// Reports of this session taken in so far: a repeated one is dropped.
    pub last_seq: u64,
    /// What this node has finished of the newest plan it worked for.
    pub done: Done,
    /// Transient attributes (`master-RSC` promotion scores, the user's own).
    pub attrs: BTreeMap<String, String>,
    /// By primitive id.
    pub resources: BTreeMap<String, ResourceHistory>,
}

impl NodeStatus {
    /// Takes in the result of an operation and marks the order it answers as done.
    pub fn take_result(&mut self, token: Option<Token>, result: &OpResult) {
        if let Some(token) = token {
            // A probe that found it running is no failure, but what waits for the probe was planned without knowing.
            let as_said = result.is_told() || result.rc == result.expected_rc;
            let expected = !result.failed() && as_said;
            self.done.note(token, expected);
        }
        self.record(result);
    }

    /// Forgets a recurring monitor that was cancelled by an order.
    pub fn forget_monitor(&mut self, token: Token, resource: &str, interval_ms: u64) {
        if let Some(history) = self.resources.get_mut(resource) {
            history.monitors.remove(&interval_ms);
        }
        self.done.note(token, true);
    }

    /// Takes in the result of an operation. Returns false when it changed nothing.
    pub fn record(&mut self, result: &OpResult) -> bool {
        if result.is_told() {
            return false;
        }
        let entry = self.resources.entry(result.resource.clone()).or_default();
        entry.record(result)
    }
}

impl ResourceHistory {
    fn record(&mut self, result: &OpResult) -> bool {
        let before = self.clone();
        let failed = result.failed();
        if result.op != "monitor" {
            self.pending = None;
        }
        if result.interval_ms > 0 {
            self.monitors.insert(result.interval_ms, Some(result.clone()));
        }
        if failed {
            self.note_failure(result);
        } else {
            self.note_success(result);
        }
        *self != before
    }

    fn note_failure(&mut self, result: &OpResult) {
        self.fail_count = self.fail_count.saturating_add(1);
        self.last_failure_ms = result.when_ms;
        self.start_failed |= result.op == "start";
        if let Some(role) = role_after_failure(result) {
            self.role = Some(role);
        }
        if result.op == "migrate_to" {
            self.migrated_to.clone_from(&result.peer);
        }
        let arrives = matches!(result.op.as_str(), "start" | "migrate_from");
        if arrives && self.role.is_none_or(|r| r == Role::Stopped) {
            // What a failed start left behind is unknown: it counts as active until a stop succeeds.
            self.role = Some(Role::Started);
        }
        self.last = Some(result.clone());
        self.failure = Some(result.clone());
        self.last_failure = Some(result.clone());
    }

    fn note_success(&mut self, result: &OpResult) {
        if result.op == "migrate_to" {
            // What is left of it here has to be stopped, so that its role stays.
            self.migrated_to.clone_from(&result.peer);
            self.last = Some(result.clone());
            return;
        }
        let role = match (result.op.as_str(), result.rc) {
            ("start" | "migrate_from", _) => Some(Role::Started),
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
        if matches!(result.op.as_str(), "start" | "stop") {
            self.migrated_to = None;
        }
        if matches!(result.op.as_str(), "start" | "migrate_from")
            || (result.op == "monitor" && result.interval_ms == 0)
        {
            self.digest = result.digest;
        }
    }
}

/// The role that a failed operation proves, if it proves one.
fn role_after_failure(result: &OpResult) -> Option<Role> {
    let probe = result.op == "monitor" && result.interval_ms == 0;
    match (result.status, result.rc) {
        (ExecStatus::NotInstalled, _) if probe => Some(Role::Stopped),
        (ExecStatus::Complete, rc::ERR_INSTALLED) if probe => Some(Role::Stopped),
        (ExecStatus::Complete, rc::NOT_RUNNING) => Some(Role::Stopped),
        // It was watched that nothing runs (`role=Stopped`), and something does.
        (ExecStatus::Complete, rc::OK) if result.expected_rc == rc::NOT_RUNNING => {
            Some(Role::Started)
        }
        (ExecStatus::Complete, rc::RUNNING_PROMOTED | rc::FAILED_PROMOTED) => Some(Role::Promoted),
        // A probe that cannot tell: it counts as active until a stop succeeds.
        _ if probe => Some(Role::Started),
        _ => None,
    }
}

impl Status {
    /// What a node said is replaced by what it says now, or by nothing. What had been on its way from there to another node by live
    /// migration may have arrived: if that is not told any more, the other node has to look for it.
    pub fn replace(&mut self, node: &str, with: NodeStatus) {
        let old = self.nodes.insert(node.to_owned(), with);
        let told = |s: &Self, id: &str| {
            s.nodes.get(node).and_then(|n| n.resources.get(id)?.migrated_to.as_ref()).is_some()
        };
        for (id, history) in old.into_iter().flat_map(|o| o.resources) {
            if !told(self, &id) {
                self.look_again(&id, &history);
            }
        }
    }

    /// The target of a live migration that began in this history, of which no more is known, has to be probed.
    pub(crate) fn look_again(&mut self, id: &str, history: &ResourceHistory) {
        let target = history.migrated_to.as_ref().and_then(|t| self.nodes.get_mut(t));
        let Some(target) = target else { return };
        if target.resources.get(id).is_some_and(|there| there.role == Some(Role::Stopped)) {
            target.resources.remove(id);
        }
    }

    /// A resource has been stopped on a node: nothing is on its way there any more.
    pub(crate) fn arrived_in_vain(&mut self, node: &str, id: &str) {
        for status in self.nodes.values_mut() {
            if let Some(history) = status.resources.get_mut(id)
                && history.migrated_to.as_deref() == Some(node)
            {
                history.migrated_to = Some(String::new());
            }
        }
    }
}

/// Everything seen.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Status {
    /// By node name.
    pub nodes: BTreeMap<String, NodeStatus>,
    /// Tickets by name.
    #[serde(default)]
    pub tickets: BTreeMap<String, Ticket>,
    /// What is known to be somewhere and is not configured any more, by primitive id. Not stored: whoever plans looks it up
    /// ([`crate::store::State::removed`]).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub removed: BTreeMap<String, Removed>,
}

/// A primitive as it was configured last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Removed {
    /// Its definition, with the parameters of the group and the clone that it was in.
    pub primitive: Primitive,
    /// It had instances.
    pub cloned: bool,
    /// They could be promoted.
    pub promotable: bool,
}
