//! The node's own operations: one at a time per resource, recurring monitors by their clock, results into the node's status.

use super::{Controller, Effect};
use crate::cib::Role;
use crate::plan::{ActionKind, OpSpec};
use crate::status::{ExecStatus, NodeStatus, OpResult, Token, rc};
use crate::store::Command;
use std::collections::BTreeMap;

#[derive(Debug)]
struct Running {
    call_id: u64,
    spec: OpSpec,
    tokens: Vec<Token>,
}

#[derive(Debug)]
struct Monitor {
    spec: OpSpec,
    due_ms: u64,
    tokens: Vec<Token>,
}

/// Operations of this node.
#[derive(Debug, Default)]
pub(super) struct Own {
    /// The truth about this node.
    pub(super) status: NodeStatus,
    /// Reports made in this session.
    pub(super) seq: u64,
    calls: u64,
    newest: (u64, u64),
    running: BTreeMap<String, Running>,
    queued: BTreeMap<String, (OpSpec, Token)>,
    /// Live migrations that wait until the log has it that they begin.
    leaving: BTreeMap<String, (OpSpec, Vec<Token>)>,
    monitors: BTreeMap<(String, u64), Monitor>,
}

impl Own {
    /// When the next recurring monitor is due.
    pub(super) fn next_due(&self) -> Option<u64> {
        self.monitors
            .iter()
            .filter(|((resource, _), _)| !self.busy(resource))
            .map(|(_, m)| m.due_ms)
            .min()
    }

    /// Something is done to the resource, or is about to be.
    fn busy(&self, resource: &str) -> bool {
        self.running.contains_key(resource) || self.leaving.contains_key(resource)
    }

    /// Number of the newest plan of `term` that this node has had an order of.
    pub(super) const fn newest_plan(&self, term: u64) -> u64 {
        if self.newest.0 == term { self.newest.1 } else { 0 }
    }

    /// An operation that changes something is under way.
    pub(super) fn changing(&self) -> bool {
        self.running.values().any(|r| r.spec.op != "monitor")
    }

    fn begin(&mut self, spec: OpSpec, tokens: Vec<Token>) -> Effect {
        self.calls += 1;
        let call_id = self.calls;
        let boxed = Box::new(spec.clone());
        self.running.insert(spec.resource.clone(), Running { call_id, spec, tokens });
        Effect::Run { call_id, spec: boxed }
    }
}

fn same_work(a: &OpSpec, b: &OpSpec) -> bool {
    a.op == b.op
        && a.interval_ms == b.interval_ms
        && a.digest == b.digest
        && a.agent == b.agent
        && a.peer() == b.peer()
}

impl Controller {
    /// Takes an order, or says why not.
    pub(super) fn ordered(
        &mut self,
        session: u64,
        token: Token,
        work: ActionKind,
    ) -> Result<(), String> {
        if session != self.session {
            return Err(format!("meant for session {session}, this is {}", self.session));
        }
        if (token.term, token.plan) < self.own.newest {
            return Err("of an older plan".to_owned());
        }
        self.own.newest = (token.term, token.plan);
        match work {
            ActionKind::Op(spec) => self.order_op(*spec, token),
            ActionKind::CancelMonitor { node: _, resource, interval_ms } => {
                self.cancel_monitor(token, resource, interval_ms);
                Ok(())
            }
            ActionKind::Cluster(what) => Err(format!("{what:?} is not for a node")),
            ActionKind::Pseudo { name } => Err(format!("`{name}` is not for a node")),
        }
    }

    fn cancel_monitor(&mut self, token: Token, resource: String, interval_ms: u64) {
        self.own.monitors.remove(&(resource.clone(), interval_ms));
        self.own.status.forget_monitor(token, &resource, interval_ms);
        self.own.seq += 1;
        if self.leadership.quorate && self.published {
            let (node, session, seq) = (self.me.clone(), self.session, self.own.seq);
            self.own.status.last_seq = seq;
            let command =
                Command::MonitorCancelled { node, session, seq, token, resource, interval_ms };
            self.propose(command);
        }
    }

    fn order_op(&mut self, spec: OpSpec, token: Token) -> Result<(), String> {
        if spec.interval_ms > 0 {
            let key = (spec.resource.clone(), spec.interval_ms);
            let now_ms = self.now_ms;
            let monitor = Monitor { spec, due_ms: now_ms, tokens: vec![token] };
            self.own.monitors.insert(key, monitor);
            return Ok(());
        }
        if let Some(running) = self.own.running.get_mut(&spec.resource) {
            if same_work(&running.spec, &spec) {
                running.tokens.push(token);
                return Ok(());
            }
            if running.spec.op != "monitor" || self.own.queued.contains_key(&spec.resource) {
                return Err(format!("{} of {} is still running", running.spec.op, spec.resource));
            }
            self.own.queued.insert(spec.resource.clone(), (spec, token));
            return Ok(());
        }
        if let Some((announced, tokens)) = self.own.leaving.get_mut(&spec.resource) {
            // The word that it moves may be in the log already: nothing else is done to it first.
            if same_work(announced, &spec) {
                tokens.push(token);
                return Ok(());
            }
            return Err(format!("a live migration of {} is about to begin", spec.resource));
        }
        self.begin_op(spec, token)
    }

    fn begin_op(&mut self, mut spec: OpSpec, token: Token) -> Result<(), String> {
        if spec.op == "promote" && !self.clear_promotion(&mut spec, token)? {
            return Ok(()); // held until the record is written; see `volumes`
        }
        if spec.op == "migrate_to" {
            return self.announce_migration(spec, token);
        }
        if matches!(spec.op.as_str(), "stop" | "demote") {
            // Its monitors would only see it go; the plan begins those that are wanted afterwards.
            self.own.monitors.retain(|(resource, _), _| *resource != spec.resource);
        }
        let effect = self.own.begin(spec, vec![token]);
        self.effects.push_back(effect);
        Ok(())
    }

    /// A live migration begins when the log says so: then nobody who loses sight of this node takes it that the resource is not on its
    /// way to the other one.
    fn announce_migration(&mut self, spec: OpSpec, token: Token) -> Result<(), String> {
        let Some(target) = spec.peer() else {
            return Err(format!("migrate_to of {} without a target", spec.resource));
        };
        if !self.leadership.quorate || !self.published {
            return Err("no live migration without a quorum".to_owned());
        }
        let (node, session) = (self.me.clone(), self.session);
        let resource = spec.resource.clone();
        self.propose(Command::MigrationBegins { node, session, resource, target });
        self.own.leaving.insert(spec.resource.clone(), (spec, vec![token]));
        Ok(())
    }

    /// Runs the live migrations that the log knows of now.
    pub(super) fn release_migrations(&mut self) {
        let logged = self.state.status.nodes.get(&self.me).filter(|n| n.session == self.session);
        let known = |spec: &OpSpec| {
            let history = logged.and_then(|n| n.resources.get(&spec.resource));
            history.is_some_and(|h| h.pending.is_some() && h.migrated_to == spec.peer())
        };
        let go: Vec<(OpSpec, Vec<Token>)> =
            self.own.leaving.extract_if(.., |_, (spec, _)| known(spec)).map(|(_, go)| go).collect();
        for (spec, tokens) in go {
            // Its monitors would only see it go.
            self.own.monitors.retain(|(resource, _), _| *resource != spec.resource);
            let effect = self.own.begin(spec, tokens);
            self.effects.push_back(effect);
        }
    }

    /// Live migrations that have not begun belong to a session that is over.
    pub(super) fn forget_migrations(&mut self) {
        for resource in std::mem::take(&mut self.own.leaving).into_keys() {
            if let Some(history) = self.own.status.resources.get_mut(&resource) {
                history.pending = None;
                history.migrated_to = None;
            }
        }
    }

    /// Runs a promotion that was held, now that its record is written.
    pub(super) fn release_promotion(&mut self, spec: OpSpec, token: Token) {
        let effect = self.own.begin(spec, vec![token]);
        self.effects.push_back(effect);
    }

    /// Starts recurring monitors that are due and whose resource is free.
    pub(super) fn start_due_operations(&mut self) {
        let due: Vec<(String, u64)> = self
            .own
            .monitors
            .iter()
            .filter(|(_, m)| m.due_ms <= self.now_ms)
            .map(|(key, _)| key.clone())
            .collect();
        for key in due {
            if self.own.busy(&key.0) {
                continue;
            }
            let Some(monitor) = self.own.monitors.get_mut(&key) else { continue };
            monitor.due_ms = self.now_ms + key.1;
            let tokens = std::mem::take(&mut monitor.tokens);
            let spec = monitor.spec.clone();
            let effect = self.own.begin(spec, tokens);
            self.effects.push_back(effect);
        }
    }

    /// An operation ended: note it, report it, run what waited for it.
    pub(super) fn op_ended(&mut self, call_id: u64, result: OpResult) {
        let found = self.own.running.iter().find(|(_, r)| r.call_id == call_id);
        let Some(resource) = found.map(|(resource, _)| resource.clone()) else { return };
        let Some(running) = self.own.running.remove(&resource) else { return };
        let interval_ms = running.spec.interval_ms;
        let recurring = interval_ms > 0;
        if let Some(monitor) = self.own.monitors.get_mut(&(resource.clone(), interval_ms)) {
            monitor.due_ms = self.now_ms + interval_ms;
        }
        // A monitor that was cancelled, or overtaken by a stop, while it ran tells nothing any more.
        let overtaken = recurring
            && (!self.own.monitors.contains_key(&(resource.clone(), interval_ms))
                || self.own.queued.contains_key(&resource));
        if !result.failed() {
            self.promoted_without(&running.spec);
        }
        if !overtaken || !running.tokens.is_empty() {
            self.report(&running.tokens, result, recurring);
        }
        if let Some((spec, token)) = self.own.queued.remove(&resource)
            && let Err(why) = self.begin_op(spec, token)
        {
            self.lead.refused_late(token, &why);
        }
    }

    /// The data plane lost its primary: a failure of the promoted instance here, unless an operation on it is under way.
    pub(super) fn lost_primary(&mut self, resource: &str, volume: &str) {
        let Some(history) = self.own.status.resources.get(resource) else { return };
        if history.role != Some(Role::Promoted) || self.own.running.contains_key(resource) {
            return;
        }
        self.own.calls += 1;
        let result = OpResult {
            resource: resource.to_owned(),
            op: "monitor".to_owned(),
            interval_ms: 0,
            rc: rc::FAILED_PROMOTED,
            expected_rc: rc::RUNNING_PROMOTED,
            status: ExecStatus::Complete,
            reason: format!("volume {volume} lost its device with its daemon"),
            digest: history.digest,
            call_id: self.own.calls,
            when_ms: self.wall_ms,
            exec_ms: 0,
            peer: None,
        };
        self.report(&[], result, false);
    }

    fn report(&mut self, tokens: &[Token], result: OpResult, recurring: bool) {
        if recurring && tokens.is_empty() && self.nothing_new(&result) {
            return;
        }
        let first = tokens.first().copied();
        self.own.seq += 1;
        self.own.status.last_seq = self.own.seq;
        for token in tokens.iter().skip(1) {
            self.own.status.done.note(*token, !result.failed());
        }
        self.own.status.take_result(tokens.last().copied().or(first), &result);
        if self.leadership.quorate && self.published {
            self.propose(Command::OpDone {
                node: self.me.clone(),
                session: self.session,
                seq: self.own.seq,
                token: tokens.last().copied(),
                result: Box::new(result),
            });
        }
    }

    fn nothing_new(&self, result: &OpResult) -> bool {
        let known = self.own.status.resources.get(&result.resource);
        known
            .and_then(|h| h.monitors.get(&result.interval_ms))
            .and_then(Option::as_ref)
            .is_some_and(|last| !last.failed() && !result.failed() && last.rc == result.rc)
    }
}
