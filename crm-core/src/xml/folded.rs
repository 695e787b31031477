//! The same histories folded into what our own nodes keep: for the shell, and for plans as this cluster makes them.

use super::Document;
use crate::cib::{Cib, Primitive, Role};
use crate::lrm::{Exec, OpRecord, RscRecord};
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

impl Document {
    /// Makes [`Self::status`]'s histories from the records. A plan as Pacemaker makes it does without them.
    pub fn fold(&mut self) {
        let fold = Fold::of(&self.cib);
        for node in &self.records {
            let mut found: BTreeMap<String, ResourceHistory> = BTreeMap::new();
            for resource in &node.resources {
                let Some(history) = fold.history(resource) else { continue };
                let key = fold.key(&resource.id);
                match found.get_mut(&key) {
                    Some(known) if rank(known) >= rank(&history) => {}
                    Some(known) => *known = history,
                    None => {
                        found.insert(key, history);
                    }
                }
            }
            if let Some(status) = self.status.nodes.get_mut(&node.name) {
                fold.fail_counts(&status.attrs, &mut found);
                status.resources = found;
            }
        }
    }
}

/// What is asked of the configuration for every entry.
struct Fold<'a> {
    cib: &'a Cib,
    primitives: BTreeMap<&'a str, &'a Primitive>,
}

impl<'a> Fold<'a> {
    fn of(cib: &'a Cib) -> Self {
        let mut primitives = BTreeMap::new();
        for prim in cib.primitives() {
            primitives.entry(prim.id.as_str()).or_insert(prim);
        }
        Self { cib, primitives }
    }

    fn sticky(&self, failure: &OpResult) -> bool {
        let id = failure.resource.split(':').next().unwrap_or_default();
        let Some(prim) = self.primitives.get(id) else { return false };
        let same =
            |op: &&crate::cib::Op| op.name == failure.op && op.interval_ms() == failure.interval_ms;
        let own = prim.ops.iter().find(same).and_then(|op| op.attrs.get("on-fail"));
        matches!(own, Some("stop" | "standby" | "fence"))
    }

    /// Instances of anonymous clones share their primitive's name; unique ones keep their number.
    fn key(&self, id: &str) -> String {
        let Some((base, _)) = id.rsplit_once(':') else { return id.to_owned() };
        if !self.primitives.contains_key(base) || self.primitives.contains_key(id) {
            return id.to_owned();
        }
        if crate::plan::globally_unique(self.cib, base) { id.to_owned() } else { base.to_owned() }
    }

    fn history(&self, record: &RscRecord) -> Option<ResourceHistory> {
        let ops = record.ops.iter();
        let mut entries: Vec<Entry> = ops.filter_map(|op| entry(op, &record.id)).collect();
        if entries.is_empty() {
            return None;
        }
        entries.sort_by_key(|e| (e.pending, e.result.call_id));
        let mut history =
            ResourceHistory { agent: Some(record.agent.clone()), ..ResourceHistory::default() };
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
    fn fail_counts(
        &self,
        attrs: &BTreeMap<String, String>,
        found: &mut BTreeMap<String, ResourceHistory>,
    ) {
        for (name, value) in attrs {
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

fn entry(op: &OpRecord, resource: &str) -> Option<Entry> {
    let status = match op.exec {
        Exec::Cancelled => return None,
        Exec::Timeout => ExecStatus::Timeout,
        Exec::NotSupported | Exec::NotInstalled | Exec::NotConnected | Exec::Invalid => {
            ExecStatus::NotInstalled
        }
        Exec::Pending | Exec::Done | Exec::Error | Exec::ErrorHard | Exec::ErrorFatal => {
            ExecStatus::Complete
        }
    };
    Some(Entry {
        pending: op.exec == Exec::Pending,
        peer: op.peer.clone(),
        digest: op.digest.clone(),
        restart: op.restart.clone(),
        secure: op.secure.clone(),
        key: op.key.clone(),
        result: OpResult {
            resource: resource.to_owned(),
            op: op.op.clone(),
            interval_ms: op.interval_ms,
            rc: op.rc,
            expected_rc: op.expected_rc.unwrap_or(rc::OK),
            status,
            reason: op.reason.clone(),
            digest: 0,
            call_id: u64::try_from(op.call_id).unwrap_or(0),
            when_ms: op.changed_s.unwrap_or(0).saturating_mul(1000),
            exec_ms: 0,
            peer: None,
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
            history.migrated_to = entry.peer.map(|(_, target)| target);
            Role::Started
        }
        ("monitor", _) if history.role == Some(Role::Promoted) && result.interval_ms == 0 => {
            Role::Started
        }
        ("monitor", _) => history.role.filter(|r| *r != Role::Stopped).unwrap_or(Role::Started),
        _ => return,
    };
    if result.op != "migrate_to" {
        history.migrated_to = None;
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
