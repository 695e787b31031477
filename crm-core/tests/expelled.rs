//! A node that the others have removed: it stops what it runs, whatever the configuration says of quorum, and then its daemon may end.

use crm_core::controller::{Controller, Effect, Event, Mode, Start};
use crm_core::plan::OpSpec;
use crm_core::status::{ExecStatus, OpResult, rc};
use crm_core::store::{Command, Member, State};
use crm_core::text::{Session, read};
use std::collections::BTreeMap;
use std::sync::Arc;

const WORDS: &str = "gamma was removed from cluster lab";

/// Controller of gamma, which does what it is ordered at once.
struct Gamma {
    controller: Controller,
    now: u64,
    /// What is active here.
    active: Vec<String>,
    ran: Vec<String>,
}

impl Gamma {
    fn new(state: State, active: &[&str]) -> Self {
        let records = BTreeMap::new();
        let (me, session) = ("gamma".to_owned(), 9);
        let start = Start { me, session, current: true, records, dice: 1, now_ms: 0 };
        let active = active.iter().map(|id| (*id).to_owned()).collect();
        let controller = Controller::new(start);
        let mut gamma = Self { controller, now: 10_000, active, ran: Vec::new() };
        gamma.happens(Event::State(Arc::new(state)));
        gamma
    }

    fn happens(&mut self, event: Event) {
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

    fn passes(&mut self, ms: u64) {
        for _ in 0..ms / 250 {
            self.now += 250;
            self.happens(Event::Tick);
        }
    }
}

fn cluster(nodes: &[&str], properties: &str) -> Result<State, String> {
    let mut state = State::default();
    for (raft_id, name) in (1..).zip(nodes) {
        let member = Member::new(raft_id, format!("10.0.0.{raft_id}:7631"));
        state.apply(Command::SetMember { name: (*name).to_owned(), member });
    }
    let text = format!(
        "primitive web ocf:heartbeat:Dummy op monitor interval=10s\nproperty {properties}\n"
    );
    let mut session = Session::new((*state.cib).clone(), state.version);
    read("t", &text, &mut session).map_err(|e| format!("{e:?}"))?;
    let cib = Box::new(session.cib().clone());
    let (base, author, message) = (state.version, String::new(), String::new());
    state.apply(Command::CommitCib { base, cib, author, message, when_ms: 0 });
    Ok(state)
}

#[test]
fn a_removed_node_stops_what_it_runs_and_only_then_may_go() -> Result<(), String> {
    for properties in [
        "stonith-enabled=false no-quorum-policy=ignore",
        "stonith-enabled=false no-quorum-policy=freeze",
        "stonith-enabled=false maintenance-mode=true",
    ] {
        let state = cluster(&["alpha", "gamma"], properties)?;
        let mut gamma = Gamma::new(state, &["web"]);
        gamma.happens(Event::Expelled(WORDS.to_owned()));
        assert_eq!(gamma.controller.may_go(), None, "it has not even looked what it runs");
        gamma.passes(5_000);
        assert_eq!(gamma.controller.mode(), Mode::NoQuorum);
        assert_eq!(gamma.ran, ["stop web"], "{properties}");
        assert_eq!(gamma.controller.may_go(), Some(WORDS), "{properties}");
    }
    Ok(())
}

#[test]
fn a_removed_node_that_has_read_of_its_removal_still_stops_what_it_runs() -> Result<(), String> {
    let mut state = cluster(&["alpha", "gamma"], "stonith-enabled=false")?;
    let (by, name) = ("root@alpha".to_owned(), "gamma".to_owned());
    state.apply(Command::RemoveMember { name, raft_id: 2, force: true, by, when_ms: 0 });
    let mut gamma = Gamma::new(state, &["web"]);
    gamma.happens(Event::Expelled(WORDS.to_owned()));
    gamma.passes(5_000);
    assert_eq!(gamma.ran, ["stop web"]);
    assert!(gamma.controller.may_go().is_some());
    Ok(())
}

#[test]
fn a_member_may_not_go() -> Result<(), String> {
    let state = cluster(&["alpha", "gamma"], "stonith-enabled=false")?;
    let mut gamma = Gamma::new(state, &[]);
    gamma.passes(5_000);
    assert_eq!(gamma.controller.may_go(), None);
    Ok(())
}
