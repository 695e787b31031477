//! Pacemaker's record of operations (`lrm_rsc_op`) as it stands in the status of a CIB: what is replayed by a planner that decides as
//! Pacemaker does. Our own nodes keep [`crate::status::ResourceHistory`], which says less and needs no replay.

use crate::cib::{AgentName, Role};
use crate::status::{ExecStatus, OpResult, ResourceHistory, Status, rc};

/// How the execution of a recorded operation ended (`op-status`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exec {
    /// Has begun and not ended.
    Pending,
    /// The agent ran to its end.
    Done,
    /// Taken back.
    Cancelled,
    /// Took too long.
    Timeout,
    /// The agent does not have it.
    NotSupported,
    /// Failed; trying again here may help.
    Error,
    /// Failed; trying again here does not help.
    ErrorHard,
    /// Failed; trying again anywhere does not help.
    ErrorFatal,
    /// There is no such agent.
    NotInstalled,
    /// The executor could not be reached.
    NotConnected,
    /// Could not even be tried.
    Invalid,
}

impl Exec {
    /// Reads `op-status`; what is out of range counts as an error.
    #[must_use]
    pub const fn from_code(code: i64) -> Self {
        match code {
            -1 => Self::Pending,
            0 => Self::Done,
            1 => Self::Cancelled,
            2 => Self::Timeout,
            3 => Self::NotSupported,
            5 => Self::ErrorHard,
            6 => Self::ErrorFatal,
            7 => Self::NotInstalled,
            8 => Self::NotConnected,
            9 => Self::Invalid,
            _ => Self::Error,
        }
    }
}

/// One recorded operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpRecord {
    /// Id of the entry: `RSC_last_0`, `RSC_last_failure_0`, `RSC_monitor_10000`.
    pub id: String,
    /// `RSC_OP_INTERVAL`.
    pub key: String,
    /// `start`, `stop`, `promote`, `demote`, `monitor`, `migrate_to`, `migrate_from`, ...
    pub op: String,
    /// 0 for one-shot operations and probes.
    pub interval_ms: u64,
    /// Counts up on a node; −1 while it is pending.
    pub call_id: i64,
    /// How execution ended.
    pub exec: Exec,
    /// Exit code.
    pub rc: i32,
    /// The exit code that was expected, where that is recorded.
    pub expected_rc: Option<i32>,
    /// The planner and its plan: says which of two entries is older when one has no call id.
    pub transition: Option<(String, i64)>,
    /// When the result became this one, seconds since the epoch.
    pub changed_s: Option<u64>,
    /// The agent's own words.
    pub reason: String,
    /// Source and target of a migration.
    pub peer: Option<(String, String)>,
    /// Digest of the parameters it ran with.
    pub digest: Option<String>,
    /// Parameters whose change needs a restart, and their digest.
    pub restart: Option<(String, String)>,
    /// Secret parameters, and the digest without them.
    pub secure: Option<(String, String)>,
}

/// What a node has recorded of one resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RscRecord {
    /// Id as recorded, often with an instance number.
    pub id: String,
    /// Agent.
    pub agent: AgentName,
    /// What it lived in.
    pub container: Option<String>,
    /// Since when it is kept for its node, which was shut down; seconds since the epoch.
    pub locked_s: Option<u64>,
    /// Operations as written.
    pub ops: Vec<OpRecord>,
}

/// What is recorded of one node.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NodeRecord {
    /// Name.
    pub name: String,
    /// A remote node that was fenced and not connected since.
    pub fenced: bool,
    /// By resource, as written.
    pub resources: Vec<RscRecord>,
}

impl NodeRecord {
    /// Takes a finished operation in: it takes the place of the entry of its kind.
    pub fn take(&mut self, agent: AgentName, result: &OpResult, peer: Option<(String, String)>) {
        let id = result.resource.as_str();
        // Older records name instances that are alike by number.
        let alike = |r: &RscRecord| r.id.rsplit_once(':').is_some_and(|(base, _)| base == id);
        let at = self.resources.iter().position(|r| r.id == id);
        let at = at.or_else(|| self.resources.iter().position(alike));
        self.take_at(at, agent, result, peer);
    }

    /// The same for the resource whose record is in this place; a new record for none.
    pub(crate) fn take_at(
        &mut self,
        at: Option<usize>,
        agent: AgentName,
        result: &OpResult,
        peer: Option<(String, String)>,
    ) {
        let id = result.resource.as_str();
        let slot = if result.interval_ms > 0 {
            format!("{id}_{}_{}", result.op, result.interval_ms)
        } else if result.failed() {
            format!("{id}_last_failure_0")
        } else {
            format!("{id}_last_0")
        };
        // As from another planner: what is pending is newer than anything that has ended.
        let transition = Some(("simulation".to_owned(), 0));
        let op = OpRecord { peer, transition, ..operation(result, slot) };
        if let Some(known) = at.and_then(|at| self.resources.get_mut(at)) {
            known.ops.retain(|o| o.id != op.id);
            known.ops.push(op);
            return;
        }
        self.resources.push(RscRecord {
            id: id.to_owned(),
            agent,
            container: None,
            locked_s: None,
            ops: vec![op],
        });
    }
}

fn operation(result: &OpResult, id: String) -> OpRecord {
    OpRecord {
        id,
        key: format!("{}_{}_{}", result.resource, result.op, result.interval_ms),
        op: result.op.clone(),
        interval_ms: result.interval_ms,
        call_id: i64::try_from(result.call_id).unwrap_or(i64::MAX),
        exec: match result.status {
            ExecStatus::Complete => Exec::Done,
            ExecStatus::Timeout => Exec::Timeout,
            ExecStatus::NotInstalled => Exec::NotInstalled,
            ExecStatus::Cancelled => Exec::Cancelled,
        },
        rc: result.rc,
        expected_rc: Some(result.expected_rc),
        transition: None,
        changed_s: Some(result.when_ms / 1000),
        reason: result.reason.clone(),
        peer: None,
        digest: None,
        restart: None,
        secure: None,
    }
}

/// Our own status in Pacemaker's form: enough of it for the planner to find every resource in the state that is known. Counts of failures
/// become node attributes, as Pacemaker has them.
#[must_use]
pub fn of_status(status: &mut Status) -> Vec<NodeRecord> {
    for node in status.nodes.values_mut() {
        for (id, history) in &node.resources {
            let Some(failure) = history.failure.as_ref().or(history.last_failure.as_ref()) else {
                continue;
            };
            if history.fail_count == 0 {
                continue;
            }
            let key = format!("{id}#{}_{}", failure.op, failure.interval_ms);
            let count = if history.start_failed { 1_000_000 } else { history.fail_count };
            node.attrs.insert(format!("fail-count-{key}"), count.to_string());
            let seconds = (history.last_failure_ms / 1000).to_string();
            node.attrs.insert(format!("last-failure-{key}"), seconds);
        }
    }
    let node = |(name, node): (&String, &crate::status::NodeStatus)| NodeRecord {
        name: name.clone(),
        fenced: false,
        resources: node.resources.iter().filter_map(|(id, h)| resource(id, h)).collect(),
    };
    status.nodes.iter().map(node).collect()
}

fn resource(id: &str, history: &ResourceHistory) -> Option<RscRecord> {
    let unknown =
        || AgentName { class: "ocf".to_owned(), provider: None, kind: "unknown".to_owned() };
    let role = history.role?;
    // The state first, then the failure that came after it.
    let at = |op: &str, code: i32, call_id: u64| OpResult {
        resource: id.to_owned(),
        op: op.to_owned(),
        interval_ms: 0,
        rc: code,
        expected_rc: code,
        status: ExecStatus::Complete,
        reason: String::new(),
        digest: 0,
        call_id,
        when_ms: 0,
        exec_ms: 0,
        peer: None,
    };
    let state = match role {
        Role::Stopped => at("monitor", rc::NOT_RUNNING, 1),
        Role::Started => at("start", rc::OK, 1),
        Role::Unpromoted => at("demote", rc::OK, 1),
        Role::Promoted => at("promote", rc::OK, 1),
    };
    let mut ops = vec![operation(&state, format!("{id}_last_0"))];
    for (interval, last) in &history.monitors {
        let mut monitor = at("monitor", if role == Role::Promoted { 8 } else { 0 }, 2);
        monitor.interval_ms = *interval;
        monitor.when_ms = last.as_ref().map_or(0, |l| l.when_ms);
        ops.push(operation(&monitor, format!("{id}_monitor_{interval}")));
    }
    if let Some(failure) = &history.failure {
        let failure = OpResult { resource: id.to_owned(), call_id: 3, ..failure.clone() };
        ops.push(operation(&failure, format!("{id}_last_failure_0")));
    }
    if let Some(pending) = &history.pending {
        let mut begun = at(&pending.op, rc::OK, 0);
        begun.interval_ms = pending.interval_ms;
        let key = format!("{id}_{}_{}", pending.op, pending.interval_ms);
        ops.push(OpRecord { call_id: -1, exec: Exec::Pending, ..operation(&begun, key) });
    }
    Some(RscRecord {
        id: id.to_owned(),
        agent: history.agent.clone().unwrap_or_else(unknown),
        container: None,
        locked_s: None,
        ops,
    })
}

/// Which of two entries of one resource is newer: less = `a` is older, equal = cannot be said. `same_node`: both are of one node, so that
/// their call ids can be compared.
#[must_use]
pub fn age(a: &OpRecord, b: &OpRecord, same_node: bool) -> std::cmp::Ordering {
    use std::cmp::Ordering::{Equal, Greater, Less};
    let (x, y) = (a.call_id, b.call_id);
    if std::ptr::eq(a, b) || (same_node && a.id == b.id) || (x == -1 && y == -1) {
        return Equal;
    }
    if same_node && x >= 0 && x < y {
        return Less;
    }
    if same_node && y >= 0 && x > y {
        return Greater;
    }
    if x >= 0 && y >= 0 && (!same_node || x == y) {
        return match (a.changed_s, b.changed_s) {
            (Some(p), Some(q)) => p.cmp(&q),
            (Some(_) | None, None) | (None, Some(_)) => Equal,
        };
    }
    // One of them is pending: the plan that wanted it tells its age.
    let (Some((p, i)), Some((q, j))) = (&a.transition, &b.transition) else { return Equal };
    if p != q || i == j {
        // Pending operations do not outlive their planner.
        return if y == -1 { Less } else { Greater };
    }
    if (*i >= 0 && i < j) || *j == -1 { Less } else { Greater }
}

/// From the oldest to the newest. (`age` is not an order in the strict sense, so that the library's sort must not be used.)
#[must_use]
pub fn by_age(ops: &[OpRecord]) -> Vec<&OpRecord> {
    if ops.len() < 2 {
        return ops.iter().collect();
    }
    let (left, right) = ops.split_at(ops.len().div_ceil(2));
    let (left, right) = (by_age(left), by_age(right));
    let (mut l, mut r) = (left.into_iter().peekable(), right.into_iter().peekable());
    let mut out = Vec::with_capacity(ops.len());
    while let (Some(a), Some(b)) = (l.peek(), r.peek()) {
        let first = age(a, b, true) != std::cmp::Ordering::Greater;
        out.extend(if first { l.next() } else { r.next() });
    }
    out.extend(l);
    out.extend(r);
    out
}
