//! A live migration in the hands of the source's controller: announced, begun once, not disturbed.

use crm_core::cib::Role;
use crm_core::controller::{Controller, Effect, Event, Leadership, Start};
use crm_core::plan::{ActionKind, OpSpec};
use crm_core::status::{NodeStatus, OpResult, ResourceHistory, Token};
use crm_core::store::{Command, Member, State};
use std::collections::BTreeMap;
use std::sync::Arc;

fn spec(op: &str, interval_ms: u64, target: Option<&str>) -> OpSpec {
    let pair = |t: &str| ("CRM_meta_migrate_target".to_owned(), t.to_owned());
    OpSpec {
        node: "alpha".to_owned(),
        resource: "vm".to_owned(),
        agent: "ocf:heartbeat:Dummy".to_owned(),
        op: op.to_owned(),
        interval_ms,
        timeout_ms: 20_000,
        expected_rc: 0,
        params: target.map(pair).into_iter().collect(),
        digest: 1,
    }
}

/// The controller of alpha, and what the log has.
struct Alpha {
    controller: Controller,
    state: State,
    now: u64,
    session: u64,
    replies: u64,
    answers: Vec<Result<(), String>>,
    began: Vec<OpSpec>,
    proposed: Vec<Command>,
}

impl Alpha {
    fn new() -> Self {
        let mut state = State::default();
        for (raft_id, name) in [(1, "alpha"), (2, "beta"), (3, "gamma")] {
            let member = Member::new(raft_id, format!("10.0.0.{raft_id}:7631"));
            state.apply(Command::SetMember { name: name.to_owned(), member });
        }
        let (me, session, current) = ("alpha".to_owned(), 1, true);
        let start = Start { me, session, current, records: BTreeMap::new(), dice: 0, now_ms: 0 };
        let mut alpha = Self {
            controller: Controller::new(start),
            state,
            now: 60_000,
            session: 0,
            replies: 0,
            answers: Vec::new(),
            began: Vec::new(),
            proposed: Vec::new(),
        };
        alpha.publish();
        let leader = Some("beta".to_owned());
        let leadership = Leadership {
            leader,
            term: 1,
            quorate: true,
            me_leader: false,
            ..Leadership::default()
        };
        alpha.happens(Event::Leadership(leadership));
        alpha.settle();
        // It runs here, and is watched.
        let status = alpha.state.status.nodes.get_mut("alpha").map(|node| {
            let history = ResourceHistory { role: Some(Role::Started), ..Default::default() };
            node.resources.insert("vm".to_owned(), history);
        });
        assert!(status.is_some(), "published");
        alpha.publish();
        alpha
    }

    fn publish(&mut self) {
        self.happens(Event::State(Arc::new(self.state.clone())));
    }

    fn happens(&mut self, event: Event) {
        self.controller.handle(self.now, self.now, event);
        while let Some(effect) = self.controller.poll() {
            match effect {
                Effect::Propose(command) => self.proposed.push(*command),
                Effect::SetSession(session) => self.session = session,
                Effect::AnswerOrder { result, .. } => self.answers.push(result),
                Effect::Run { spec, .. } => self.began.push(*spec),
                _ => {}
            }
        }
    }

    /// Everything proposed gets into the log.
    fn settle(&mut self) {
        while !self.proposed.is_empty() {
            for command in std::mem::take(&mut self.proposed) {
                self.state.apply(command);
                self.publish();
                self.happens(Event::Proposed);
            }
        }
    }

    fn order(&mut self, spec: OpSpec, action: u32) -> Result<(), String> {
        self.replies += 1;
        let token = Token { term: 1, plan: 1, action };
        let (reply, session) = (self.replies, self.session);
        let work = ActionKind::Op(Box::new(spec));
        self.happens(Event::Ordered { reply, session, token, work });
        self.answers.pop().ok_or("no answer")?
    }

    fn begun(&self, op: &str) -> usize {
        self.began.iter().filter(|spec| spec.op == op).count()
    }

    fn history(&self) -> Option<&ResourceHistory> {
        self.state.status.nodes.get("alpha")?.resources.get("vm")
    }
}

#[test]
fn it_begins_when_the_log_has_it_and_once_however_often_it_is_ordered() {
    let mut alpha = Alpha::new();
    assert_eq!(alpha.order(spec("migrate_to", 0, Some("beta")), 4), Ok(()));
    assert_eq!(alpha.begun("migrate_to"), 0, "not in the log yet");
    // The answer was lost, and the order comes again.
    assert_eq!(alpha.order(spec("migrate_to", 0, Some("beta")), 4), Ok(()));
    alpha.settle();
    assert_eq!(alpha.begun("migrate_to"), 1);
    assert_eq!(alpha.order(spec("migrate_to", 0, Some("beta")), 4), Ok(()));
    assert_eq!(alpha.begun("migrate_to"), 1);
}

#[test]
fn to_another_node_is_another_migration() {
    let mut alpha = Alpha::new();
    assert_eq!(alpha.order(spec("migrate_to", 0, Some("beta")), 4), Ok(()));
    assert!(alpha.order(spec("migrate_to", 0, Some("gamma")), 5).is_err(), "announced to beta");
    alpha.settle();
    assert!(alpha.order(spec("migrate_to", 0, Some("gamma")), 6).is_err(), "runs to beta");
    assert_eq!(alpha.begun("migrate_to"), 1);
}

#[test]
fn once_announced_nothing_else_is_done_to_it() {
    let mut alpha = Alpha::new();
    assert_eq!(alpha.order(spec("monitor", 10_000, None), 1), Ok(()));
    let first = alpha.began.pop();
    assert_eq!(first.map(|s| s.op).as_deref(), Some("monitor"));
    let result = OpResult {
        resource: "vm".to_owned(),
        op: "monitor".to_owned(),
        interval_ms: 10_000,
        rc: 0,
        expected_rc: 0,
        status: crm_core::status::ExecStatus::Complete,
        reason: String::new(),
        digest: 1,
        call_id: 1,
        when_ms: 1,
        exec_ms: 1,
        peer: None,
    };
    alpha.happens(Event::OpEnded { call_id: 1, result: Box::new(result) });
    alpha.settle();
    assert_eq!(alpha.order(spec("migrate_to", 0, Some("beta")), 4), Ok(()));
    assert!(alpha.order(spec("monitor", 0, None), 5).is_err(), "a probe");
    assert!(alpha.order(spec("stop", 0, None), 6).is_err(), "a stop");
    // Its monitor is due.
    alpha.now += 30_000;
    alpha.happens(Event::Tick);
    assert_eq!(alpha.begun("monitor"), 0, "one thing at a time");
    alpha.settle();
    assert_eq!(alpha.begun("migrate_to"), 1);
}

#[test]
fn a_cleanup_does_not_make_the_log_forget_it() {
    let mut alpha = Alpha::new();
    assert_eq!(alpha.order(spec("migrate_to", 0, Some("beta")), 4), Ok(()));
    // Both get into the log before the node hears of either.
    for command in std::mem::take(&mut alpha.proposed) {
        alpha.state.apply(command);
    }
    alpha.state.apply(Command::Cleanup { resource: Some("vm".to_owned()), node: None });
    assert!(alpha.history().is_some_and(|h| h.pending.is_some()), "it is under way");
    alpha.publish();
    alpha.happens(Event::Proposed);
    assert_eq!(alpha.begun("migrate_to"), 1);
}

#[test]
fn what_was_announced_under_a_session_that_is_over_never_begins() {
    let mut alpha = Alpha::new();
    assert_eq!(alpha.order(spec("migrate_to", 0, Some("beta")), 4), Ok(()));
    let late = std::mem::take(&mut alpha.proposed);
    let leadership = Leadership {
        leader: None,
        term: 1,
        quorate: false,
        me_leader: false,
        ..Leadership::default()
    };
    alpha.happens(Event::Leadership(leadership));
    late.into_iter().for_each(|command| drop(alpha.state.apply(command)));
    let leader = Some("gamma".to_owned());
    let leadership =
        Leadership { leader, term: 2, quorate: true, me_leader: false, ..Leadership::default() };
    alpha.happens(Event::Leadership(leadership));
    alpha.publish();
    alpha.settle();
    assert_eq!(alpha.begun("migrate_to"), 0);
    let status: Option<&NodeStatus> = alpha.state.status.nodes.get("alpha");
    let pending = status.and_then(|n| n.resources.get("vm")).and_then(|h| h.pending.as_ref());
    assert_eq!(pending, None, "and nobody waits for it");
}
