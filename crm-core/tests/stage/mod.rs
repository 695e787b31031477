//! A controller that does what it is ordered at once, for the tests of its decisions.
#![allow(dead_code, reason = "each test binary uses its part of it")]

use crm_core::controller::{Controller, Effect, Event, Leadership, Peer, Start};
use crm_core::plan::OpSpec;
use crm_core::status::{ExecStatus, NodeStatus, OpResult, rc};
use crm_core::store::{Command, Member, State};
use crm_core::text::{Session, read};
use std::collections::BTreeMap;
use std::sync::Arc;

/// These members, and this configuration.
pub(crate) fn cluster(nodes: &[&str], text: &str) -> Result<State, String> {
    let mut state = State::default();
    for (raft_id, name) in (1..).zip(nodes) {
        let member = Member::new(raft_id, format!("10.0.0.{raft_id}:7631"));
        state.apply(Command::SetMember { name: (*name).to_owned(), member });
    }
    let mut session = Session::new((*state.cib).clone(), state.version);
    read("t", text, &mut session).map_err(|e| format!("{e:?}"))?;
    let cib = Box::new(session.cib().clone());
    let (base, author, message) = (state.version, String::new(), String::new());
    state.apply(Command::CommitCib { base, cib, author, message, when_ms: 0 });
    Ok(state)
}

pub(crate) struct Actor {
    pub(crate) controller: Controller,
    me: String,
    state: State,
    now: u64,
    /// What is active here.
    pub(crate) active: Vec<String>,
    /// What was run, but for monitors.
    pub(crate) ran: Vec<String>,
    /// Whom it had fenced.
    pub(crate) fenced: Vec<String>,
}

impl Actor {
    pub(crate) fn new(me: &str, state: State, active: &[&str]) -> Self {
        let (me, records) = (me.to_owned(), BTreeMap::new());
        let start =
            Start { me: me.clone(), session: 9, current: true, records, dice: 1, now_ms: 0 };
        let active = active.iter().map(|id| (*id).to_owned()).collect();
        let (ran, fenced) = (Vec::new(), Vec::new());
        let mut actor = Self {
            controller: Controller::new(start),
            me,
            state,
            now: 10_000,
            active,
            ran,
            fenced,
        };
        actor.happens(Event::State(Arc::new(actor.state.clone())));
        actor
    }

    pub(crate) fn happens(&mut self, event: Event) {
        self.controller.handle(self.now, self.now, event);
        while let Some(effect) = self.controller.poll() {
            match effect {
                Effect::Order { session, token, work, .. } => {
                    self.happens(Event::Ordered { reply: 1, session, token, work });
                    self.happens(Event::OrderAnswered { token, accepted: true });
                }
                Effect::Run { call_id, spec } => {
                    let result = Box::new(self.run(&spec));
                    self.happens(Event::OpEnded { call_id, result });
                }
                Effect::Fence { task, .. } => self.fenced.extend(task.target),
                Effect::Propose(command) => {
                    self.state.apply(*command);
                    self.happens(Event::State(Arc::new(self.state.clone())));
                    self.happens(Event::Proposed);
                }
                _ => {}
            }
        }
    }

    fn run(&mut self, spec: &OpSpec) -> OpResult {
        let active = self.active.contains(&spec.resource);
        if spec.op != "monitor" {
            self.ran.push(format!("{} {}", spec.op, spec.resource));
        }
        let rc = match spec.op.as_str() {
            "monitor" if active => rc::OK,
            "monitor" => rc::NOT_RUNNING,
            "start" => {
                self.active.push(spec.resource.clone());
                rc::OK
            }
            "stop" => {
                self.active.retain(|id| *id != spec.resource);
                rc::OK
            }
            _ => rc::OK,
        };
        OpResult {
            resource: spec.resource.clone(),
            op: spec.op.clone(),
            interval_ms: spec.interval_ms,
            rc,
            expected_rc: spec.expected_rc,
            status: ExecStatus::Complete,
            reason: String::new(),
            digest: spec.digest,
            call_id: 0,
            when_ms: self.now,
            exec_ms: 1,
            peer: None,
        }
    }

    /// The log has this of another node.
    pub(crate) fn knows(&mut self, node: &str, status: NodeStatus) {
        self.state.apply(Command::SyncNode { node: node.to_owned(), status: Box::new(status) });
        self.happens(Event::State(Arc::new(self.state.clone())));
    }

    pub(crate) fn passes(&mut self, ms: u64) {
        for _ in 0..ms / 250 {
            self.now += 250;
            self.happens(Event::Tick);
        }
    }

    pub(crate) fn hears(&mut self, peers: &[(&str, bool)]) {
        let peers =
            peers.iter().map(|(n, alive)| ((*n).to_owned(), Peer { alive: *alive, session: 7 }));
        self.happens(Event::Peers(peers.collect()));
    }

    /// Raft has a majority, led by this node, or none; these vote.
    pub(crate) fn leads(&mut self, quorate: bool, voters: &[&str]) {
        self.happens(Event::Leadership(Leadership {
            leader: quorate.then(|| self.me.clone()),
            term: 1,
            quorate,
            me_leader: quorate,
            voters: voters.iter().map(|v| (*v).to_owned()).collect(),
            stale: false,
        }));
    }
}
