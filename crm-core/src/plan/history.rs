//! Reads a node's history of a primitive: what is active there, what failed, what the failure asks for.

use super::digest::digest;
use super::meta;
use super::model::{Meta, NodeIx, Properties, Seen};
use crate::cib::{NvSet, Primitive, Role};
use crate::status::{ExecStatus, OpResult, ResourceHistory, rc};
use std::collections::BTreeMap;

/// What a failure asks for (`on-fail`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum OnFail {
    Ignore,
    Restart,
    Block,
    Stop,
    Standby,
    Fence,
    Demote,
}

/// What is needed to read a history.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    pub(super) props: &'a Properties,
    pub(super) op_defaults: &'a NvSet,
    pub(super) now_ms: u64,
}

/// One primitive as it is configured.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted<'a> {
    pub(super) prim: &'a Primitive,
    pub(super) meta: &'a Meta,
    pub(super) params: &'a BTreeMap<String, String>,
    pub(super) promotable: bool,
}

/// What a history says.
#[derive(Debug, Default)]
pub(super) struct Finding {
    /// Active here.
    pub(super) seen: Option<Seen>,
    /// State unknown: probe it.
    pub(super) unknown: bool,
    /// The node is banned for the primitive: code and words.
    pub(super) ban: Option<(&'static str, String)>,
    /// The whole node is to be left by everything (`on-fail=standby`): words.
    pub(super) standby: Option<String>,
    /// The node is to be fenced: words.
    pub(super) fence: Option<String>,
    /// Something to tell without a ban: code and words.
    pub(super) note: Option<(&'static str, String)>,
}

/// Fail count that counts: `None` = infinity, expired failures are zero.
pub(super) fn fail_count(
    history: &ResourceHistory,
    meta: &Meta,
    props: &Properties,
    now: u64,
) -> Option<u32> {
    if expired(history, meta, now) {
        return Some(0);
    }
    let fatal = history.start_failed && props.start_failure_is_fatal && !props.exact;
    (!fatal).then_some(history.fail_count)
}

const fn expired(history: &ResourceHistory, meta: &Meta, now: u64) -> bool {
    meta.failure_timeout_ms > 0
        && history.last_failure_ms > 0
        && now.saturating_sub(history.last_failure_ms) > meta.failure_timeout_ms
}

/// A failure that no retry on this node cures.
fn hard(result: &OpResult) -> bool {
    match result.status {
        ExecStatus::NotInstalled => true,
        ExecStatus::Complete => matches!(
            result.rc,
            rc::ERR_ARGS
                | rc::ERR_UNIMPLEMENTED
                | rc::ERR_PERM
                | rc::ERR_INSTALLED
                | rc::ERR_CONFIGURED
        ),
        ExecStatus::Timeout | ExecStatus::Cancelled => false,
    }
}

fn is_probe(result: &OpResult) -> bool {
    result.op == "monitor" && result.interval_ms == 0
}

fn words(result: &OpResult) -> String {
    let how = match result.status {
        ExecStatus::Complete => format!("returned {}", result.rc),
        ExecStatus::Timeout => "timed out".to_owned(),
        ExecStatus::NotInstalled => "could not be started".to_owned(),
        ExecStatus::Cancelled => "was cancelled".to_owned(),
    };
    let why = if result.reason.is_empty() { String::new() } else { format!(": {}", result.reason) };
    let op = match (result.op.as_str(), result.interval_ms) {
        ("monitor", 0) => "its probe".to_owned(),
        (op, 0) => format!("its {op}"),
        (op, ms) if ms.is_multiple_of(1_000) => format!("its {op} (every {}s)", ms / 1_000),
        (op, ms) => format!("its {op} (every {ms}ms)"),
    };
    format!("{op} {how}{why}")
}

impl Reader<'_> {
    fn on_fail(&self, prim: &Primitive, failure: &OpResult) -> OnFail {
        let own = prim
            .ops
            .iter()
            .find(|op| op.name == failure.op && op.interval_ms() == failure.interval_ms)
            .and_then(|op| op.attrs.get("on-fail"));
        match own.or_else(|| self.op_defaults.get("on-fail")) {
            Some("ignore") => OnFail::Ignore,
            Some("block") => OnFail::Block,
            // Without fencing Pacemaker stops the resource instead.
            Some("fence") if self.props.fencing && self.props.fence_device => OnFail::Fence,
            Some("demote") => OnFail::Demote,
            Some("stop" | "fence") => OnFail::Stop,
            Some("standby") => OnFail::Standby,
            Some("restart") if failure.op != "stop" => OnFail::Restart,
            Some(_) | None
                if failure.op == "stop" && self.props.fencing && self.props.fence_device =>
            {
                OnFail::Fence
            }
            Some(_) | None if failure.op == "stop" => OnFail::Block,
            Some(_) | None => OnFail::Restart,
        }
    }

    /// Reads the history of a primitive on an online node (or on one whose state is frozen as last seen).
    pub(super) fn read(
        &self,
        node: NodeIx,
        wanted: Wanted<'_>,
        history: Option<&ResourceHistory>,
    ) -> Finding {
        let Some(history) = history else { return Finding { unknown: true, ..Finding::default() } };
        let mut finding = Finding::default();
        self.threshold(wanted.meta, history, &mut finding);
        let failure = history
            .failure
            .as_ref()
            .filter(|f| f.op == "stop" || !expired(history, wanted.meta, self.now_ms))
            .filter(|f| !self.demoted_since(wanted.prim, f, history));
        let role = match history.role {
            Some(role) => normal(role, wanted.promotable),
            None if failure.is_none() => {
                finding.unknown = true;
                return finding;
            }
            None => Role::Stopped,
        };
        let mut seen = Seen {
            node,
            role,
            failed: false,
            blocked: false,
            changed: false,
            reload: false,
            demote_failed: false,
            demote_only: false,
            found: history.last.as_ref().is_some_and(is_probe),
            halt: false,
        };
        if let Some(failure) = failure {
            self.apply_failure(wanted, failure, &mut seen, &mut finding);
        }
        if seen.role != Role::Stopped {
            let wanted_digest = digest(wanted.params);
            seen.changed = history.digest != 0 && history.digest != wanted_digest;
            finding.seen = Some(seen);
        }
        finding
    }

    /// The failure asked for a demotion (`on-fail=demote`), and it has been demoted since.
    fn demoted_since(
        &self,
        prim: &Primitive,
        failure: &OpResult,
        history: &ResourceHistory,
    ) -> bool {
        let later = |l: &OpResult| {
            !l.failed()
                && l.call_id > failure.call_id
                && matches!(l.op.as_str(), "demote" | "promote")
        };
        self.on_fail(prim, failure) == OnFail::Demote && history.last.as_ref().is_some_and(later)
    }

    fn threshold(&self, meta: &Meta, history: &ResourceHistory, finding: &mut Finding) {
        match fail_count(history, meta, self.props, self.now_ms) {
            None => {
                finding.ban = Some((
                    "failed",
                    "start failed here (fail count INFINITY) and start-failure-is-fatal is on"
                        .to_owned(),
                ));
            }
            Some(count) if meta.migration_threshold > 0 && count >= meta.migration_threshold => {
                let limit = meta.migration_threshold;
                finding.ban = Some((
                    "migration-threshold",
                    format!("fail count {count} has reached migration-threshold {limit}"),
                ));
            }
            Some(_) => {}
        }
    }

    fn apply_failure(
        &self,
        wanted: Wanted<'_>,
        failure: &OpResult,
        seen: &mut Seen,
        finding: &mut Finding,
    ) {
        let running = if wanted.promotable { Role::Unpromoted } else { Role::Started };
        // A recurring operation that says so has been able to do it before.
        let recurring =
            self.props.exact && failure.rc == rc::ERR_UNIMPLEMENTED && failure.interval_ms > 0;
        if hard(failure) && !recurring {
            finding.ban = Some(("failed", words(failure)));
            if is_probe(failure) {
                // It cannot run here, so it does not run here.
                seen.role = Role::Stopped;
                return;
            }
        }
        let on_fail = self.on_fail(wanted.prim, failure);
        if on_fail == OnFail::Ignore {
            if failure.op == "stop" {
                seen.role = Role::Stopped;
            } else if seen.role == Role::Stopped && !is_probe(failure) {
                seen.role = running;
            }
            if self.props.exact {
                finding.ban = None;
            }
            finding.note =
                Some(("failed", format!("ignored (on-fail=ignore): {}", words(failure))));
            return;
        }
        if seen.role == Role::Stopped {
            seen.role = running;
        }
        match failure.op.as_str() {
            "promote" => seen.role = Role::Promoted,
            "demote" if self.props.exact && on_fail != OnFail::Block => {
                // To stay promoted would be a loop; it is stopped anyway.
                seen.role = Role::Unpromoted;
            }
            "demote" => {
                seen.role = Role::Promoted;
                seen.demote_failed = true;
            }
            _ => {}
        }
        if seen.role == Role::Promoted && !wanted.promotable {
            seen.role = Role::Started;
        }
        seen.failed = true;
        consequence(on_fail, failure, seen, finding);
    }
}

/// What `on-fail` makes of a failure.
fn consequence(on_fail: OnFail, failure: &OpResult, seen: &mut Seen, finding: &mut Finding) {
    match on_fail {
        OnFail::Block => {
            seen.blocked = true;
            let text = format!("blocked until cleaned up: {}", words(failure));
            finding.note = Some(("blocked", text));
        }
        OnFail::Stop => {
            seen.halt = true;
            let text = format!("stopped until cleaned up (on-fail=stop): {}", words(failure));
            finding.note = Some(("failed", text));
        }
        OnFail::Standby => {
            finding.standby = Some(format!("on-fail=standby: {}", words(failure)));
        }
        OnFail::Fence => {
            // It may run there until the node is confirmed off.
            seen.blocked = true;
            finding.fence = Some(format!("{} failed there: {}", failure.resource, words(failure)));
            let text = format!("waits until its node is fenced: {}", words(failure));
            finding.note = Some(("blocked", text));
        }
        OnFail::Demote => {
            seen.demote_only = seen.role == Role::Promoted;
            finding.note = Some(("failed", words(failure)));
        }
        OnFail::Restart | OnFail::Ignore => {
            finding.note = Some(("failed", words(failure)));
        }
    }
}

/// A primitive of a promotable clone is unpromoted where others are started, and the other way round.
const fn normal(role: Role, promotable: bool) -> Role {
    match role {
        Role::Stopped => Role::Stopped,
        Role::Started | Role::Unpromoted if promotable => Role::Unpromoted,
        Role::Promoted if promotable => Role::Promoted,
        Role::Started | Role::Unpromoted | Role::Promoted => Role::Started,
    }
}

/// Role in which op's monitors run, if the op names one.
pub(super) fn op_role(op: &crate::cib::Op) -> Option<Role> {
    op.attrs.get("role").and_then(meta::parse_role)
}
