//! The same histories folded into what our own nodes keep: for the shell, and for plans as this cluster makes them.

use super::Reader;
use super::tree::Element;
use crate::cib::{AgentName, Role, parse_duration_ms};
use crate::status::{ExecStatus, OpResult, Pending, ResourceHistory, rc};
use std::collections::BTreeMap;

/// One entry of a history.
struct Entry {
    result: OpResult,
    pending: bool,
    /// The other node of a migration.
    peer: Option<(String, String)>,
    /// Digest as written.
    digest: Option<String>,
    /// Parameters that need a restart, and their digest.
    restart: Option<(String, String)>,
    /// Secret parameters, and the digest without them.
    secure: Option<(String, String)>,
    key: String,
}

impl<'a> Reader<'a> {
    pub(super) fn folded(&mut self, states: Element<'a>) {
        for state in states.named("node_state") {
            let Some(name) = self.state_name(state) else { continue };
            let mut found: BTreeMap<String, ResourceHistory> = BTreeMap::new();
            let resources = state.named("lrm").flat_map(|l| l.named("lrm_resources"));
            for element in resources.flat_map(|r| r.named("lrm_resource")) {
                let Some(history) = self.resource_history(element) else { continue };
                let key = self.key(element.word("id"));
                match found.get_mut(&key) {
                    Some(known) if rank(known) >= rank(&history) => {}
                    Some(known) => *known = history,
                    None => {
                        found.insert(key, history);
                    }
                }
            }
            self.fail_counts(&name, &mut found);
            if let Some(node) = self.out.status.nodes.get_mut(&name) {
                node.resources = found;
            }
        }
    }

    fn sticky(&self, failure: &OpResult) -> bool {
        let id = failure.resource.split(':').next().unwrap_or_default();
        let Some(prim) = self.out.cib.primitive(id) else { return false };
        let same =
            |op: &&crate::cib::Op| op.name == failure.op && op.interval_ms() == failure.interval_ms;
        let own = prim.ops.iter().find(same).and_then(|op| op.attrs.get("on-fail"));
        matches!(own, Some("stop" | "standby" | "fence"))
    }

    /// Instances of anonymous clones share their primitive's name; unique ones keep their number.
    fn key(&self, id: &str) -> String {
        let Some((base, _)) = id.rsplit_once(':') else { return id.to_owned() };
        let cib = &self.out.cib;
        if cib.primitive(base).is_none() || cib.primitive(id).is_some() {
            return id.to_owned();
        }
        if crate::plan::globally_unique(cib, base) { id.to_owned() } else { base.to_owned() }
    }

    fn resource_history(&mut self, element: Element<'a>) -> Option<ResourceHistory> {
        let mut entries: Vec<Entry> = Vec::new();
        for op in element.children() {
            if op.name() == "lrm_rsc_op" {
                entries.extend(entry(op, element.word("id")));
            } else {
                self.unknown(op, "lrm_resource");
            }
        }
        if entries.is_empty() {
            return None;
        }
        entries.sort_by_key(|e| (e.pending, e.result.call_id));
        let mut history = ResourceHistory {
            agent: Some(AgentName {
                class: element.word("class").to_owned(),
                provider: element.attr("provider").map(str::to_owned),
                kind: element.word("type").to_owned(),
            }),
            ..ResourceHistory::default()
        };
        for entry in entries {
            let sticky = history.failure.as_ref().is_some_and(|f| self.sticky(f));
            let failure = history.failure.clone().filter(|_| sticky);
            replay(&mut history, entry);
            // What asks for more than a restart is not cured by what happened since.
            if history.role.is_some_and(|r| r != Role::Stopped) {
                history.failure = history.failure.take().or(failure);
            }
        }
        Some(history)
    }

    /// `fail-count-RSC#op_interval` and `fail-count-RSC`, with the times of the last failures.
    fn fail_counts(&self, node: &str, found: &mut BTreeMap<String, ResourceHistory>) {
        let Some(status) = self.out.status.nodes.get(node) else { return };
        for (name, value) in &status.attrs {
            let (prefix, count) = if name.starts_with("fail-count-") {
                ("fail-count-", true)
            } else if name.starts_with("last-failure-") {
                ("last-failure-", false)
            } else {
                continue;
            };
            let rest = name.strip_prefix(prefix).unwrap_or_default();
            let id = rest.split('#').next().unwrap_or_default();
            let entry = found.entry(self.key(id)).or_default();
            if count {
                let infinite = value.eq_ignore_ascii_case("INFINITY");
                let number = if infinite { 1_000_000 } else { value.parse().unwrap_or(0) };
                entry.fail_count = entry.fail_count.saturating_add(number).min(1_000_000);
            } else {
                let ms = value.parse::<u64>().unwrap_or(0).saturating_mul(1000);
                entry.last_failure_ms = entry.last_failure_ms.max(ms);
            }
        }
    }
}

/// Of two instances' histories on one node the one that says more is kept.
fn rank(history: &ResourceHistory) -> u8 {
    match history.role {
        None => 0,
        Some(Role::Stopped) => 1,
        Some(Role::Started | Role::Unpromoted) => 2,
        Some(Role::Promoted) => 3,
    }
}

fn entry(op: Element<'_>, resource: &str) -> Option<Entry> {
    let number = |name: &str| op.attr(name).and_then(|v| v.parse::<i64>().ok());
    let status = number("op-status").unwrap_or(0);
    let exec = match status {
        -1 | 0 | 4 | 5 | 6 => ExecStatus::Complete,
        1 => return None,
        2 => ExecStatus::Timeout,
        3 | 7..=9 => ExecStatus::NotInstalled,
        _ => ExecStatus::Complete,
    };
    // transition-key: action:transition:expected:planner
    let expected = op.attr("transition-key").and_then(|k| k.split(':').nth(2)?.parse().ok());
    let code = number("rc-code").and_then(|c| i32::try_from(c).ok()).unwrap_or(0);
    let task = op.word("operation");
    let seconds = op.attr("last-rc-change").and_then(|v| v.parse::<u64>().ok()).unwrap_or(0);
    let interval = op.attr("interval").unwrap_or("0");
    // Here an interval is a bare number of milliseconds.
    let interval_ms = interval.parse().ok().or_else(|| parse_duration_ms(interval)).unwrap_or(0);
    let peer = op.attr("migrate_source").zip(op.attr("migrate_target"));
    let listed = |list: &str, digest: &str| {
        let both = op.attr(list).zip(op.attr(digest));
        both.map(|(list, digest)| (list.to_owned(), digest.to_owned()))
    };
    Some(Entry {
        pending: status == -1,
        peer: peer.map(|(s, t)| (s.to_owned(), t.to_owned())),
        digest: op.attr("op-digest").map(str::to_owned),
        restart: listed("op-force-restart", "op-restart-digest"),
        secure: listed("op-secure-params", "op-secure-digest"),
        key: op
            .attr("operation_key")
            .map_or_else(|| format!("{resource}_{task}_{interval_ms}"), str::to_owned),
        result: OpResult {
            resource: resource.to_owned(),
            op: task.to_owned(),
            interval_ms,
            rc: code,
            expected_rc: expected.unwrap_or(rc::OK),
            status: exec,
            reason: op.word("exit-reason").to_owned(),
            digest: 0,
            call_id: number("call-id").and_then(|c| u64::try_from(c).ok()).unwrap_or(0),
            when_ms: seconds.saturating_mul(1000),
            exec_ms: op.attr("exec-time").and_then(|v| v.parse().ok()).unwrap_or(0),
        },
    })
}

/// Takes one operation in.
fn replay(history: &mut ResourceHistory, entry: Entry) {
    let result = entry.result;
    if entry.pending {
        history.pending = Some(Pending { op: result.op.clone(), interval_ms: result.interval_ms });
        match result.op.as_str() {
            "start" | "migrate_from" | "promote"
                if history.role.is_none_or(|r| r == Role::Stopped) =>
            {
                history.role = Some(Role::Started);
            }
            "migrate_to" | "stop" | "demote" if history.role.is_none() => {
                history.role = Some(Role::Started);
            }
            _ => {}
        }
        return;
    }
    history.pending = None;
    if result.interval_ms > 0 {
        history.monitors.insert(result.interval_ms, Some(result.clone()));
    }
    if result.op == "start"
        || result.op == "migrate_from"
        || (result.op == "monitor" && result.interval_ms == 0)
    {
        history.params_md5 = entry.digest;
        history.restart_md5 = entry.restart;
        history.secure_md5 = entry.secure;
    }
    let degraded = matches!(result.rc, 190 | 191);
    if failed(&result) && !degraded {
        failure(history, result);
        return;
    }
    let cured = history.failure.as_ref().is_some_and(|f| {
        format!("{}_{}_{}", f.resource, f.op, f.interval_ms) == entry.key
            || f.op == result.op && f.interval_ms == result.interval_ms
    });
    let role = match (result.op.as_str(), result.rc) {
        ("start" | "migrate_from", _) => Role::Started,
        ("stop", _) | ("monitor", rc::NOT_RUNNING) => Role::Stopped,
        ("promote", _) | ("monitor", rc::RUNNING_PROMOTED | 191) => Role::Promoted,
        ("demote", _) => Role::Unpromoted,
        ("migrate_to", _) => {
            history.migration = entry.peer;
            Role::Started
        }
        ("monitor", _) if history.role == Some(Role::Promoted) && result.interval_ms == 0 => {
            Role::Started
        }
        ("monitor", _) => history.role.filter(|r| *r != Role::Stopped).unwrap_or(Role::Started),
        _ => return,
    };
    if result.op != "migrate_to" {
        history.migration = None;
    }
    let clears =
        matches!(result.op.as_str(), "start" | "stop" | "promote" | "demote" | "migrate_from")
            || (result.op == "monitor" && result.rc == rc::NOT_RUNNING);
    if clears || cured {
        history.failure = None;
    }
    if result.op == "stop" {
        history.monitors.clear();
    }
    history.role = Some(role);
    if result.op != "monitor" || result.interval_ms == 0 {
        history.last = Some(result);
    }
}

/// Not what was expected; recorded codes and expectations decide, a probe may find what it finds.
fn failed(result: &OpResult) -> bool {
    if result.op == "monitor" && result.interval_ms == 0 && result.status == ExecStatus::Complete {
        return !matches!(result.rc, rc::OK | rc::NOT_RUNNING | rc::RUNNING_PROMOTED);
    }
    if result.op == "stop" && result.rc == rc::NOT_RUNNING && result.status == ExecStatus::Complete
    {
        return false;
    }
    result.failed()
}

fn failure(history: &mut ResourceHistory, result: OpResult) {
    let probe = result.op == "monitor" && result.interval_ms == 0;
    let role = match (result.status, result.rc) {
        (ExecStatus::NotInstalled, _) | (_, rc::ERR_INSTALLED) if probe => Some(Role::Stopped),
        (ExecStatus::Complete, rc::NOT_RUNNING) => Some(Role::Stopped),
        (ExecStatus::Complete, rc::RUNNING_PROMOTED | rc::FAILED_PROMOTED) => Some(Role::Promoted),
        _ if probe => Some(Role::Started),
        _ if result.op == "start" && history.role.is_none_or(|r| r == Role::Stopped) => {
            Some(Role::Started)
        }
        _ if matches!(result.op.as_str(), "promote" | "demote") => Some(Role::Promoted),
        _ if history.role.is_none() => Some(Role::Started),
        _ => None,
    };
    if let Some(role) = role {
        history.role = Some(role);
    }
    history.last_failure_ms = history.last_failure_ms.max(result.when_ms);
    history.last = Some(result.clone());
    history.failure = Some(result);
}
