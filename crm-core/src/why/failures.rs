//! The failures that are remembered of a resource.

use super::{Facts, Failure};
use crate::cib::{Resource, parse_duration_ms};
use crate::lrm::{Exec, OpRecord};
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
    if !facts.document.records.is_empty() {
        return recorded(facts, primitive, timeout);
    }
    let mut out = Vec::new();
    for (node, status) in &facts.document.status.nodes {
        for (key, history) in &status.resources {
            let mine = same(key, primitive);
            if mine && (history.fail_count > 0 || history.failure.is_some()) {
                out.push(failure(facts, (node, key), history, timeout));
            }
        }
    }
    out
}

/// A recorded name, perhaps with an instance number, is that of the primitive.
fn same(name: &str, primitive: &str) -> bool {
    let numbered = |(id, number): (&str, &str)| id == primitive && number.parse::<u32>().is_ok();
    name == primitive || name.rsplit_once(':').is_some_and(numbered)
}

/// Failures as Pacemaker records them: counts in node attributes, the last one of each operation in the history.
fn recorded(facts: &Facts<'_>, primitive: &str, timeout: u64) -> Vec<Failure> {
    let mut out: Vec<Failure> = Vec::new();
    for (node, status) in &facts.document.status.nodes {
        let value = |prefix: &str, rest: &str| {
            status.attrs.get(&format!("{prefix}{rest}")).map(String::as_str)
        };
        for name in status.attrs.keys() {
            let Some(rest) = name.strip_prefix("fail-count-") else { continue };
            let (key, op) = rest.split_once('#').unwrap_or((rest, ""));
            if !same(key, primitive) {
                continue;
            }
            let count = value("fail-count-", rest).unwrap_or_default();
            let infinite = count.eq_ignore_ascii_case("INFINITY");
            let since = value("last-failure-", rest).and_then(|v| v.parse::<u64>().ok());
            let since_ms = since.unwrap_or(0).saturating_mul(1000);
            let (op, interval) = op.rsplit_once('_').unwrap_or((op, "0"));
            let interval_ms = interval.parse().unwrap_or(0);
            let record = record_of(facts, (node, primitive), (op, interval_ms));
            out.push(Failure {
                resource: key.to_owned(),
                node: node.clone(),
                op: op.to_owned(),
                interval_ms,
                rc: record.map_or(0, |r| r.rc),
                ended: record.map_or("unknown", |r| ended(r.exec)),
                reason: record.map(|r| r.reason.clone()).unwrap_or_default(),
                when_ms: since_ms,
                fail_count: if infinite { 1_000_000 } else { count.parse().unwrap_or(0) },
                expires_in_ms: left(facts, since_ms, timeout),
            });
        }
    }
    out.retain(|f| f.fail_count > 0);
    out
}

/// The last failure of an operation in a node's history.
fn record_of<'a>(
    facts: &Facts<'a>,
    (node, primitive): (&str, &str),
    (op, interval_ms): (&str, u64),
) -> Option<&'a OpRecord> {
    let node = facts.document.records.iter().find(|r| r.name == node)?;
    let mine = node.resources.iter().filter(|r| same(&r.id, primitive));
    let failed = |r: &&OpRecord| {
        let bad = r.exec != Exec::Done || r.expected_rc.is_some_and(|want| want != r.rc);
        bad && r.exec != Exec::Pending && r.op == op && r.interval_ms == interval_ms
    };
    mine.flat_map(|r| &r.ops).filter(failed).max_by_key(|r| r.call_id)
}

const fn ended(exec: Exec) -> &'static str {
    match exec {
        Exec::Done | Exec::Error | Exec::ErrorHard | Exec::ErrorFatal => "complete",
        Exec::Timeout => "timeout",
        Exec::Cancelled => "cancelled",
        Exec::NotSupported | Exec::NotInstalled | Exec::NotConnected | Exec::Invalid => {
            "not-started"
        }
        Exec::Pending => "unknown",
    }
}

/// In how many milliseconds a failure is forgotten.
fn left(facts: &Facts<'_>, since_ms: u64, timeout: u64) -> Option<u64> {
    let end = since_ms.saturating_add(timeout);
    (timeout > 0 && since_ms > 0).then(|| end.saturating_sub(facts.document.now_ms))
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
        expires_in_ms: left(facts, since, timeout),
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
