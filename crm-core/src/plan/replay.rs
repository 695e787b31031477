//! Replays what Pacemaker's nodes have recorded of their operations: what is active where, what failed, and what that asks for.
//!
//! Histories depend on each other: a guest's is worth something only when its connection is up, and that is known from the history of
//! the node that has the connection. So they are read in passes, until no pass reads another one (`records`). This file reads one.

use super::model::{Model, NodeIx, NodeKind, RscIx};
use super::onfail::OnFail;
use super::read::Builder;
use super::told::Told;
use crate::cib::Role;
use crate::lrm::{Exec, NodeRecord, OpRecord, RscRecord, age};
use crate::status::rc;
use std::cmp::Ordering;
use std::collections::BTreeMap;

/// Old and degraded exit codes.
const DEGRADED: i32 = 190;
const DEGRADED_PROMOTED: i32 = 191;

/// Reads the records of all nodes into the model.
pub(super) struct Replay<'b, 'a> {
    pub(super) b: &'b mut Builder<'a>,
    pub(super) records: &'a [NodeRecord],
    /// Records by node name.
    pub(super) by_node: BTreeMap<&'a str, &'a NodeRecord>,
    pub(super) now_ms: u64,
    /// Containers of connections that failed: they are recovered when it is known where they are.
    pub(super) recover: Vec<RscIx>,
}

/// One entry while it is looked at; its result may be read as another one.
#[derive(Clone, Copy)]
pub(super) struct Event<'a> {
    pub(super) r: RscIx,
    pub(super) n: NodeIx,
    pub(super) record: &'a OpRecord,
    exec: Exec,
    pub(super) rc: i32,
}

impl Event<'_> {
    fn probe(&self) -> bool {
        self.record.op == "monitor" && self.record.interval_ms == 0
    }

    fn expected(&self) -> bool {
        self.record.expected_rc == Some(self.rc)
    }
}

/// What the entries read so far ask for.
struct Course<'a> {
    on_fail: OnFail,
    last_failure: Option<&'a OpRecord>,
}

impl<'a> Replay<'_, 'a> {
    pub(super) fn model(&mut self) -> &mut Model<'a> {
        &mut self.b.model
    }

    fn role(&self, r: RscIx) -> Option<Role> {
        self.b.model.rscs[r].now.role
    }

    pub(super) fn set_role(&mut self, r: RscIx, role: Role) {
        self.b.model.rscs[r].now.role = Some(role);
    }

    fn below_started(&self, r: RscIx) -> bool {
        self.role(r).is_none_or(|role| role < Role::Started)
    }

    /// Something runs.
    fn set_active(&mut self, r: RscIx) {
        let role = self.b.model.active_role(r);
        self.set_role(r, role);
    }

    pub(super) fn bundled(&self, r: RscIx) -> bool {
        self.b.model.bundled(r)
    }

    /// Reads what `n` has recorded of one resource.
    pub(super) fn resource(&mut self, n: NodeIx, record: &'a RscRecord) -> Option<RscIx> {
        let locks = self.b.model.props.shutdown_lock_ms.is_some();
        if record.ops.is_empty() && !locks {
            return None;
        }
        let r = match self.find(n, &record.id) {
            Some(r) => r,
            None if record.ops.is_empty() => return None,
            None => self.removed(record),
        };
        let rsc = &self.b.model.rscs[r];
        if rsc.prim.is_some() && rsc.agent.is_some_and(|a| *a != record.agent) {
            self.model().rscs[r].now.replaced.push(n);
        }
        if let Some(since) = record.locked_s {
            self.lock(r, n, since);
        }
        let before = self.b.model.rscs[r].now.role.take();
        let mut course = Course { on_fail: OnFail::Ignore, last_failure: None };
        let ops = crate::lrm::by_age(&record.ops);
        // Whether a failure has expired depends on the other entries, too.
        let told = Told { node: n, id: &record.id, ops: ops.clone(), span: active_span(&ops) };
        self.model().rscs[r].now.records.push(told);
        for op in &ops {
            self.operation(r, n, op, &mut course);
        }
        self.recurring(r, n, &ops);
        self.conclude(r, n, course.on_fail);
        let now = &mut self.b.model.rscs[r].now;
        now.role = now.role.max(before);
        Some(r)
    }

    /// It stays on the node that was shut down, unless it has waited long enough.
    fn lock(&mut self, r: RscIx, n: NodeIx, since_s: u64) {
        let Some(limit_ms) = self.b.model.props.shutdown_lock_ms else { return };
        if since_s == 0 {
            return;
        }
        if limit_ms > 0 && self.now_ms > since_s * 1000 + limit_ms {
            self.model().forgets.push((r, n));
        } else {
            self.model().rscs[r].now.lock = Some(n);
        }
    }

    fn operation(&mut self, r: RscIx, n: NodeIx, record: &'a OpRecord, course: &mut Course<'a>) {
        // What was told to it, and what was asked of its agent, say nothing of its state.
        if record.exec == Exec::Cancelled || matches!(record.op.as_str(), "notify" | "meta-data") {
            return;
        }
        let mut event = Event { r, n, record, exec: record.exec, rc: record.rc };
        let expired = self.expired(&event);
        let masked = !self.bundled(r) && cannot_run(&event);
        self.remap(&mut event, expired, course);
        if expired && masked {
            if self.role(r).is_none_or(|role| role <= Role::Stopped) {
                self.b.model.rscs[r].now.role = None;
            }
            return;
        }
        if expired && !event.expected() {
            let node = &self.b.model.nodes[n];
            if record.interval_ms == 0 {
                return;
            }
            if node.online && node.clean {
                // It is begun again, to hear of the next failure.
                self.model().rscs[r].now.again.push((n, record.id.as_str()));
                return;
            }
        }
        if masked {
            // It cannot run here, so it does not run here.
            self.apply(&event, record.expected_rc.unwrap_or(rc::NOT_RUNNING), course);
            let text = words(record);
            let collective = self.b.model.collective(r);
            self.model().ban(collective, Some(n), "failed", text);
            return;
        }
        self.result(&event, course);
    }

    /// A result as it is to be read.
    fn result(&mut self, event: &Event<'a>, course: &mut Course<'a>) {
        let (r, n, record) = (event.r, event.n, event.record);
        match event.exec {
            Exec::Pending => return self.pending(event, course.last_failure),
            Exec::Done => return self.apply(event, event.rc, course),
            Exec::NotInstalled => {
                let asked = self.b.model.on_fail(r, record);
                let collective = self.b.model.collective(r);
                self.model().ban(collective, Some(n), "failed", words(record));
                return self.failure(event, asked, course);
            }
            Exec::NotConnected => {
                let connection = self.b.model.nodes[n].kind.connection();
                if let Some(connection) = connection.filter(|c| self.b.model.managed(*c)) {
                    self.model().rscs[connection].now.failed = true;
                }
            }
            Exec::Cancelled
            | Exec::Timeout
            | Exec::NotSupported
            | Exec::Error
            | Exec::ErrorHard
            | Exec::ErrorFatal
            | Exec::Invalid => {}
        }
        let asked = self.b.model.on_fail(r, record);
        if asked.0 == OnFail::Ignore || (asked.0 == OnFail::RestartContainer && record.op == "stop")
        {
            self.apply(event, record.expected_rc.unwrap_or(rc::OK), course);
            self.model().rscs[r].now.failures_ignored = true;
            let text = format!("ignored (on-fail=ignore): {}", words(record));
            self.model().because(r, Some(n), "failed", text);
            if asked.0 == OnFail::RestartContainer {
                course.on_fail = course.on_fail.max(asked.0);
            }
            return;
        }
        self.failure(event, asked, course);
        let collective = self.b.model.collective(r);
        if event.exec == Exec::ErrorHard {
            self.model().ban(collective, Some(n), "failed", words(record));
        } else if event.exec == Exec::ErrorFatal {
            self.model().ban(collective, None, "failed", words(record));
        }
    }

    /// Has what failed been long enough ago?
    fn expired(&mut self, event: &Event<'_>) -> bool {
        let (r, n, record) = (event.r, event.n, event.record);
        let timeout = self.b.model.rscs[r].meta.failure_timeout_ms;
        let last = record.id.ends_with("_last_failure_0");
        let reconnect = self.b.model.rscs[r].reconnect_ms > 0;
        let old = |at: u64| timeout > 0 && self.now_ms >= at * 1000 + timeout;
        let mut expired = record.changed_s.is_some_and(old) && !self.waits_for_fencing(event);
        let mut clear = None;
        if expired {
            if self.b.model.fail_count(r, n) > 0 {
                if self.b.model.fresh_fail_count(r, n, self.now_ms) == 0 {
                    clear = Some("it expired");
                } else {
                    expired = false;
                }
            } else if last && reconnect {
                clear = Some("reconnect interval is set");
            }
        }
        let tried = matches!(record.op.as_str(), "start" | "monitor");
        if !expired && last && tried && self.b.model.other_definition(r, n, record) {
            clear = Some("resource parameters have changed");
        }
        if let Some(why) = clear {
            self.model().clear_failures(r, n, why);
        }
        let kept = matches!(
            record.rc,
            rc::OK | rc::RUNNING_PROMOTED | rc::NOT_RUNNING | DEGRADED | DEGRADED_PROMOTED
        );
        expired && !(event.probe() && kept)
    }

    /// The failure of a connection's monitor stands until the node was fenced.
    fn waits_for_fencing(&self, event: &Event<'_>) -> bool {
        let rsc = &self.b.model.rscs[event.r];
        let monitor = event.record.op == "monitor" && event.record.interval_ms > 0;
        rsc.reconnect_ms > 0
            && self.b.model.props.fencing
            && monitor
            && rsc.connection_of.is_some_and(|n| !self.b.model.nodes[n].was_fenced)
    }

    /// What the recorded result means: expectations count, and some codes mean more than they say.
    fn remap(&mut self, event: &mut Event<'_>, expired: bool, course: &mut Course<'a>) {
        event.rc = match event.rc {
            DEGRADED => rc::OK,
            DEGRADED_PROMOTED => rc::RUNNING_PROMOTED,
            other => other,
        };
        let (r, n, probe) = (event.r, event.n, event.probe());
        if !self.bundled(r) && cannot_run(event) {
            event.exec = Exec::Done;
            event.rc = rc::NOT_RUNNING;
        }
        if !matches!(event.exec, Exec::Done | Exec::Error) {
            return;
        }
        event.exec = if event.expected() { Exec::Done } else { Exec::Error };
        match event.rc {
            rc::OK if probe => event.exec = Exec::Done,
            rc::NOT_RUNNING if probe || event.expected() || !self.b.model.managed(r) => {
                event.exec = Exec::Done;
                self.set_role(r, Role::Stopped);
                course.on_fail = OnFail::Ignore;
                self.model().rscs[r].now.preset = None;
            }
            rc::RUNNING_PROMOTED => {
                if probe {
                    event.exec = Exec::Done;
                }
                if !expired || event.expected() {
                    self.set_role(r, Role::Promoted);
                }
            }
            rc::FAILED_PROMOTED => {
                if !expired {
                    self.set_role(r, Role::Promoted);
                }
                event.exec = Exec::Error;
            }
            rc::ERR_CONFIGURED => event.exec = Exec::ErrorFatal,
            rc::ERR_UNIMPLEMENTED if event.record.interval_ms > 0 => {
                event.exec = Exec::NotSupported;
            }
            rc::ERR_UNIMPLEMENTED | rc::ERR_INSTALLED | rc::ERR_ARGS | rc::ERR_PERM => {
                if event.record.op == "stop" && !self.b.model.can_fence(n) {
                    let rsc = &mut self.model().rscs[r];
                    rsc.meta.is_managed = false;
                    rsc.now.held = true;
                }
                event.exec = Exec::ErrorHard;
            }
            rc::OK | rc::NOT_RUNNING => {}
            // A code that means nothing in particular is a failure, whatever was expected.
            _ => event.exec = Exec::Error,
        }
    }

    /// The state after a result that is as it should be (or is taken as such).
    fn apply(&mut self, event: &Event<'a>, code: i32, course: &mut Course<'a>) {
        let (r, task) = (event.r, event.record.op.as_str());
        let mut clears = false;
        if code == rc::ERR_INSTALLED || (!self.bundled(r) && cannot_run(event)) {
            self.set_role(r, Role::Stopped);
        } else if code == rc::NOT_RUNNING {
            clears = true;
        } else {
            match task {
                "monitor" => {
                    clears = course.last_failure.is_some_and(|f| f.key == event.record.key);
                    if self.below_started(r) {
                        self.set_active(r);
                    }
                }
                "start" | "migrate_from" => {
                    self.set_role(r, Role::Started);
                    clears = true;
                }
                "stop" => {
                    self.set_role(r, Role::Stopped);
                    clears = true;
                }
                "promote" => {
                    self.set_role(r, Role::Promoted);
                    clears = true;
                }
                "demote" => {
                    clears = course.on_fail == OnFail::Demote;
                    self.set_role(r, Role::Unpromoted);
                }
                "migrate_to" => self.migrate_to_done(event),
                _ if self.below_started(r) => self.set_active(r),
                _ => {}
            }
        }
        if clears {
            self.clear(r, course);
        }
    }

    fn clear(&mut self, r: RscIx, course: &mut Course<'a>) {
        let clears = match course.on_fail {
            OnFail::Stop | OnFail::Ban | OnFail::Standby | OnFail::Fence => false,
            OnFail::Block
            | OnFail::Ignore
            | OnFail::Demote
            | OnFail::Restart
            | OnFail::RestartContainer => true,
            OnFail::ResetRemote => self.b.model.rscs[r].reconnect_ms == 0,
        };
        if clears {
            course.on_fail = OnFail::Ignore;
            self.model().rscs[r].now.preset = None;
        }
    }

    fn failure(
        &mut self,
        event: &Event<'a>,
        (asked, after): (OnFail, Role),
        course: &mut Course<'a>,
    ) {
        let (r, n) = (event.r, event.n);
        course.last_failure = Some(event.record);
        self.model().because(r, Some(n), "failed", words(event.record));
        course.on_fail = course.on_fail.max(asked);
        match event.record.op.as_str() {
            "stop" => self.model().ban(r, Some(n), "failed", words(event.record)),
            "migrate_to" => self.migrate_to_failed(event),
            "migrate_from" => self.migrate_from_failed(event),
            "promote" => self.set_role(r, Role::Promoted),
            "demote" if asked == OnFail::Block => {
                self.set_role(r, Role::Promoted);
                self.model().rscs[r].now.preset = Some(Role::Stopped);
            }
            "demote" if event.rc == rc::NOT_RUNNING => self.set_role(r, Role::Stopped),
            // To stay promoted would be a loop; it is stopped anyway.
            "demote" => self.set_role(r, Role::Unpromoted),
            _ => {}
        }
        if event.probe() && event.rc == rc::ERR_INSTALLED {
            self.set_role(r, Role::Stopped);
        } else if self.below_started(r) {
            self.set_active(r);
        }
        let now = &mut self.model().rscs[r].now;
        if after != Role::Started && now.preset.is_none_or(|p| p < after) {
            now.preset = Some(after);
        }
        if after == Role::Stopped {
            let collective = self.b.model.collective_of_instances(r);
            self.model().ban(collective, None, "failed", words(event.record));
        }
    }

    fn pending(&mut self, event: &Event<'a>, last_failure: Option<&OpRecord>) {
        let (r, n, record) = (event.r, event.n, event.record);
        let newer = |f: &OpRecord| f.key == record.key && age(f, record, true) == Ordering::Greater;
        if last_failure.is_some_and(newer) {
            return;
        }
        match record.op.as_str() {
            "start" => {
                self.model().rscs[r].now.start_pending = true;
                self.set_active(r);
            }
            "promote" => self.set_role(r, Role::Promoted),
            "migrate_to" if !self.b.model.nodes[n].clean => {
                // It may have arrived there by now.
                let target = record.peer.as_ref().and_then(|(_, t)| self.b.model.node_named(t));
                if let Some(target) = target {
                    self.model().rscs[r].now.stops.push(target);
                }
            }
            _ => {}
        }
        if !event.probe() && self.b.model.rscs[r].now.pending.is_none() {
            self.model().rscs[r].now.pending = Some((record.op.clone(), n));
        }
    }

    /// Recurring operations that are under way.
    fn recurring(&mut self, r: RscIx, n: NodeIx, ops: &[&'a OpRecord]) {
        if !self.b.model.nodes[n].online {
            return;
        }
        for op in since(ops, active_span(ops)) {
            if op.interval_ms > 0 && op.exec != Exec::Pending {
                let again = self.b.model.rscs[r].now.again.contains(&(n, op.id.as_str()));
                if op.digest.is_some() && again {
                    continue;
                }
                let entry = (n, op.op.clone(), op.interval_ms);
                self.model().rscs[r].now.recurring.push(entry);
            }
        }
    }

    /// What the whole history of a resource on a node asks for.
    fn conclude(&mut self, r: RscIx, n: NodeIx, asked: OnFail) {
        if self.role(r).is_some() {
            self.model().note_known(r, n);
        }
        self.lost_with_node(r, n);
        // A node that is fenced takes its failures with it.
        let on_fail = if self.b.model.nodes[n].clean { asked } else { OnFail::Ignore };
        let active = self.role(r).is_some_and(|role| role > Role::Stopped);
        self.carry_out(r, n, on_fail, active);
        let rsc = &self.b.model.rscs[r];
        if let Some(own) = rsc.connection_of.filter(|_| rsc.now.failed)
            && !self.b.model.nodes[own].clean
        {
            self.model().nodes[own].unseen = false;
        }
        if active {
            self.model().add_running(r, n);
            if on_fail != OnFail::Ignore {
                let now = &mut self.model().rscs[r].now;
                now.failed = true;
                now.demote_only = on_fail == OnFail::Demote;
            }
        } else if self.b.model.rscs[r].now.history.as_ref().is_some_and(|h| h.contains(':')) {
            self.model().rscs[r].now.history = None;
        }
        let rsc = &self.b.model.rscs[r];
        if rsc.now.role == Some(Role::Stopped)
            && rsc.now.partial.is_some_and(|(source, _)| source == n)
            && !rsc.active.is_empty()
        {
            self.set_role(r, Role::Started);
        }
    }

    /// A managed resource that is active on a node that is away: the node is to be fenced.
    fn lost_with_node(&mut self, r: RscIx, n: NodeIx) {
        let node = &self.b.model.nodes[n];
        let active = self.role(r).is_some_and(|role| role > Role::Stopped);
        if !active || node.online || node.maintenance || !self.b.model.managed(r) {
            return;
        }
        let id = self.b.model.rscs[r].id;
        let text = format!("{id} is thought to be active there");
        match node.kind {
            NodeKind::Guest { .. } => {
                self.model().rscs[r].now.failed = true;
                self.model().fence_node(n, &text);
            }
            NodeKind::Remote { connection } if self.b.model.props.fencing => {
                if self.b.model.rscs[connection].now.failed {
                    self.model().fence_node(n, &text);
                } else {
                    self.model().nodes[n].unseen = true;
                    let text = format!(
                        "{id} is active there (fencing will be revoked if remote connection can be re-established elsewhere)"
                    );
                    self.model().fence_node(n, &text);
                }
            }
            NodeKind::Cluster if self.b.model.props.fencing => self.model().fence_node(n, &text),
            NodeKind::Remote { .. } | NodeKind::Cluster => {}
        }
    }

    fn carry_out(&mut self, r: RscIx, n: NodeIx, on_fail: OnFail, active: bool) {
        match on_fail {
            OnFail::Ignore => {}
            OnFail::Demote => self.model().rscs[r].now.failed = true,
            OnFail::Fence => {
                let text = format!("{} failed there", self.b.model.rscs[r].id);
                self.model().fence_node(n, &text);
            }
            OnFail::Standby => {
                self.model().nodes[n].standby = true;
                let text = "on-fail=standby".to_owned();
                self.model().because(r, Some(n), "standby", text);
            }
            OnFail::Block => {
                let rsc = &mut self.model().rscs[r];
                rsc.now.held = true;
                let text = "blocked until cleaned up".to_owned();
                self.model().because(r, Some(n), "blocked", text);
            }
            OnFail::Ban => {
                self.model().ban(r, Some(n), "failed", "on-fail=migrate".to_owned());
            }
            OnFail::Stop => self.model().rscs[r].now.preset = Some(Role::Stopped),
            OnFail::Restart => {
                if active {
                    self.model().rscs[r].now.failed = true;
                }
            }
            OnFail::RestartContainer => {
                self.model().rscs[r].now.failed = true;
                if let Some(container) = self.b.model.rscs[r].container {
                    self.recover.push(container);
                }
            }
            OnFail::ResetRemote => self.reset_remote(r, n, active),
        }
    }

    fn reset_remote(&mut self, r: RscIx, n: NodeIx, active: bool) {
        self.model().rscs[r].now.failed = true;
        if self.b.model.props.fencing
            && let Some(own) = self.b.model.rscs[r].connection_of
            && matches!(self.b.model.nodes[own].kind, NodeKind::Remote { .. })
            && !self.b.model.nodes[own].was_fenced
        {
            self.model().fence_node(own, "remote connection is unrecoverable");
        }
        if active {
            self.model().rscs[r].now.stops.push(n);
        }
        if self.b.model.rscs[r].reconnect_ms > 0 {
            self.model().rscs[r].now.preset = Some(Role::Stopped);
        }
    }
}

/// A probe that says that it can not run here at all.
fn cannot_run(event: &Event<'_>) -> bool {
    let record = event.record;
    event.probe()
        && (matches!(record.rc, rc::ERR_INSTALLED | rc::ERR_ARGS)
            || record.exec == Exec::NotInstalled)
}

fn words(record: &OpRecord) -> String {
    let why = if record.reason.is_empty() { String::new() } else { format!(": {}", record.reason) };
    let op = match (record.op.as_str(), record.interval_ms) {
        ("monitor", 0) => "its probe".to_owned(),
        (op, 0) => format!("its {op}"),
        (op, ms) if ms.is_multiple_of(1_000) => format!("its {op} (every {}s)", ms / 1_000),
        (op, ms) => format!("its {op} (every {ms}ms)"),
    };
    format!("{op} returned {}{why}", record.rc)
}

/// Positions of the last start and the last stop in a history, if there are.
fn active_span(ops: &[&OpRecord]) -> (Option<usize>, Option<usize>) {
    let (mut start, mut stop, mut monitor, mut role) = (None, None, None, None);
    for (i, op) in ops.iter().enumerate() {
        match op.op.as_str() {
            "stop" if op.exec == Exec::Done => stop = Some(i),
            "start" | "migrate_from" => start = Some(i),
            "monitor" if monitor <= stop => {
                if matches!(op.rc, rc::OK | rc::RUNNING_PROMOTED) {
                    monitor = Some(i);
                }
            }
            "promote" | "demote" => role = Some(i),
            _ => {}
        }
    }
    (start.or(role).or(monitor), stop)
}

/// Entries since the last start.
pub(super) fn since<'a, 'o>(
    ops: &'o [&'a OpRecord],
    (start, stop): (Option<usize>, Option<usize>),
) -> impl Iterator<Item = &'a OpRecord> + 'o {
    let from = start.unwrap_or(0);
    let stopped = start < stop;
    ops.iter().enumerate().filter_map(move |(i, op)| {
        let over = stopped && stop.is_some_and(|stop| i <= stop);
        (i >= from && !over).then_some(*op)
    })
}
