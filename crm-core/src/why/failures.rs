//! The failures that are remembered of a resource.

use super::{Facts, Failure};
use crate::cib::{Resource, parse_duration_ms};
use crate::status::{ExecStatus, OpResult, ResourceHistory};

/// Failures of these primitives, newest first.
pub(super) fn of(facts: &Facts<'_>, primitives: &[String], node: Option<&str>) -> Vec<Failure> {
    let mut out: Vec<Failure> = primitives.iter().flat_map(|p| all_of(facts, p)).collect();
    out.retain(|f| node.is_none_or(|n| n == f.node));
    out.sort_by(|a, b| b.when_ms.cmp(&a.when_ms).then_with(|| a.node.cmp(&b.node)));
    out
}

/// Failures of one primitive in the order of the nodes.
fn all_of(facts: &Facts<'_>, primitive: &str) -> Vec<Failure> {
    let timeout = timeout_ms(facts, primitive);
    let mut out = Vec::new();
    for (node, status) in &facts.document.status.nodes {
        for (key, history) in &status.resources {
            let mine =
                key == primitive || key.rsplit_once(':').is_some_and(|(k, _)| k == primitive);
            if mine && (history.fail_count > 0 || history.failure.is_some()) {
                out.push(failure(facts, (node, key), history, timeout));
            }
        }
    }
    out
}

fn last(history: &ResourceHistory) -> Option<&OpResult> {
    // Cured since, and still counted.
    let counted = history.last_failure.as_ref().filter(|_| history.fail_count > 0);
    history.failure.as_ref().or(counted)
}

fn failure(
    facts: &Facts<'_>,
    (node, key): (&str, &str),
    history: &ResourceHistory,
    timeout: u64,
) -> Failure {
    let last = last(history);
    let when = last.map_or(0, |l| l.when_ms);
    let since = if history.last_failure_ms > 0 { history.last_failure_ms } else { when };
    let end = since.saturating_add(timeout);
    Failure {
        resource: key.to_owned(),
        node: node.to_owned(),
        op: last.map(|l| l.op.clone()).unwrap_or_default(),
        interval_ms: last.map_or(0, |l| l.interval_ms),
        rc: last.map_or(0, |l| l.rc),
        ended: match last.map(|l| l.status) {
            Some(ExecStatus::Complete) => "complete",
            Some(ExecStatus::Timeout) => "timeout",
            Some(ExecStatus::NotInstalled) => "not-started",
            Some(ExecStatus::Cancelled) => "cancelled",
            None => "unknown",
        },
        reason: last.map(|l| l.reason.clone()).unwrap_or_default(),
        when_ms: since,
        fail_count: history.fail_count,
        expires_in_ms: (timeout > 0).then(|| end.saturating_sub(facts.document.now_ms)),
    }
}

/// `failure-timeout` in force; 0 = never.
fn timeout_ms(facts: &Facts<'_>, primitive: &str) -> u64 {
    let cib = &facts.document.cib;
    let own = cib.primitive(primitive).and_then(|p| p.meta.get("failure-timeout"));
    let outer = || {
        let mut at = cib.top_of(primitive);
        let mut found = None;
        while let Some(resource) = at {
            found = resource.meta().get("failure-timeout").or(found);
            at = if let Resource::Clone(clone) = resource { Some(&clone.child) } else { None };
        }
        found
    };
    let text = own.or_else(outer).or_else(|| cib.rsc_defaults.get("failure-timeout"));
    text.and_then(parse_duration_ms).unwrap_or(0)
}
