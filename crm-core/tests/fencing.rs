//! Fencing in the hands of the controller that decides: whom it fences, when, how often, and what it makes of the end.

use crm_core::controller::{Controller, Effect, Event, Leadership, Peer, Start};
use crm_core::fencing::{Answer, Task, Verb};
use crm_core::status::{ExecStatus, NodeStatus, OpResult, ResourceHistory};
use crm_core::store::{Command, FenceRequest, Member, State};
use crm_core::text::{Session, read};
use std::collections::BTreeMap;
use std::sync::Arc;

const NODES: [&str; 3] = ["alpha", "beta", "gamma"];

const TEXT: &str = "
    primitive power stonith:fence_x params pcmk_host_list=\"alpha beta gamma\" op monitor interval=60s
    primitive web ocf:heartbeat:Dummy op monitor interval=10s
";

/// The controller of alpha, which leads three nodes, and what the log has.
struct Alpha {
    controller: Controller,
    state: State,
    now: u64,
    proposed: Vec<Command>,
    /// Attempts: number, who runs it, what.
    attempts: Vec<(u64, String, Task)>,
}

impl Alpha {
    fn new(added: &str) -> Result<Self, String> {
        Self::hearing(added, true)
    }

    /// `heard`: the others' heartbeats arrive.
    fn hearing(added: &str, heard: bool) -> Result<Self, String> {
        let mut state = State::default();
        for (raft_id, name) in (1..).zip(NODES) {
            let member = Member { raft_id, address: format!("10.0.0.{raft_id}:7631") };
            state.apply(Command::SetMember { name: name.to_owned(), member });
        }
        let mut session = Session::new(state.cib.clone(), state.version);
        read("t", &format!("{TEXT}{added}"), &mut session).map_err(|e| format!("{e:?}"))?;
        let cib = session.cib().clone();
        let (author, message) = (String::new(), String::new());
        let base = state.version;
        state.apply(Command::CommitCib { base, cib: Box::new(cib), author, message, when_ms: 0 });
        for name in ["beta", "gamma"] {
            let status = Box::new(NodeStatus { session: 7, ..NodeStatus::default() });
            state.apply(Command::SyncNode { node: name.to_owned(), status });
        }
        let (me, session, records) = ("alpha".to_owned(), 1, BTreeMap::new());
        let start = Start { me, session, current: true, records, dice: 1, now_ms: 0 };
        let mut alpha = Self {
            controller: Controller::new(start),
            state,
            now: 60_000,
            proposed: Vec::new(),
            attempts: Vec::new(),
        };
        alpha.publish();
        if heard {
            alpha.hears(&["beta", "gamma"]);
        }
        let leader = Some("alpha".to_owned());
        let leadership = Leadership { leader, term: 1, quorate: true, me_leader: true };
        alpha.happens(Event::Leadership(leadership));
        alpha.settle();
        Ok(alpha)
    }

    fn publish(&mut self) {
        self.happens(Event::State(Arc::new(self.state.clone())));
    }

    fn hears(&mut self, alive: &[&str]) {
        let peer =
            |name: &&str| ((*name).to_owned(), Peer { alive: alive.contains(name), session: 7 });
        self.happens(Event::Peers(NODES.iter().skip(1).map(peer).collect()));
    }

    fn happens(&mut self, event: Event) {
        self.controller.handle(self.now, self.now, event);
        let mut orders = Vec::new();
        while let Some(effect) = self.controller.poll() {
            match effect {
                Effect::Propose(command) => self.proposed.push(*command),
                Effect::Fence { call, node, task, .. } => self.attempts.push((call, node, task)),
                Effect::Order { token, .. } => orders.push(token),
                _ => {}
            }
        }
        // Nobody does anything here but fence.
        for token in orders {
            self.happens(Event::OrderAnswered { token, accepted: false });
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

    /// The last attempt ends with this exit code.
    fn ends(&mut self, exit: i32) -> Result<(), String> {
        let (call, ..) = self.attempts.last().cloned().ok_or("nothing is attempted")?;
        let answer = Answer { exit: Some(exit), ..Answer::default() };
        self.happens(Event::FenceAnswered { call, answer });
        self.settle();
        Ok(())
    }

    fn passes(&mut self, ms: u64) {
        self.now += ms;
        self.happens(Event::Tick);
        self.settle();
    }

    /// Who was shot at, in order.
    fn targets(&self) -> Vec<&str> {
        self.attempts.iter().filter_map(|(_, _, task)| task.target.as_deref()).collect()
    }
}

#[test]
fn a_lost_node_is_fenced_once_by_one_that_lives_and_the_log_has_it() -> Result<(), String> {
    let mut alpha = Alpha::new("")?;
    assert_eq!(alpha.targets(), [""; 0], "nobody is lost");
    alpha.hears(&["gamma"]);
    assert_eq!(alpha.targets(), ["beta"]);
    let (_, runner, task) = alpha.attempts.last().cloned().ok_or("an attempt")?;
    assert!(runner == "alpha" || runner == "gamma", "{runner}");
    assert_eq!(task.verb, Verb::Reboot);
    alpha.passes(1_000);
    assert_eq!(alpha.targets().len(), 1, "one attempt at a time");
    assert_eq!(alpha.state.status.nodes["beta"].session, 7, "not gone before it is confirmed");
    alpha.ends(0)?;
    assert_eq!(alpha.state.status.nodes["beta"].session, 0, "gone");
    assert!(alpha.state.fencing.history.last_fencing("beta").is_some());
    alpha.passes(60_000);
    assert_eq!(alpha.targets().len(), 1, "never again for the same loss");
    Ok(())
}

#[test]
fn what_fails_is_tried_again_less_and_less_often() -> Result<(), String> {
    let mut alpha = Alpha::new("")?;
    alpha.hears(&["gamma"]);
    let mut pauses = Vec::new();
    for _ in 0..8 {
        // The machine itself tries twice.
        alpha.ends(1)?;
        alpha.ends(1)?;
        let (failed_at, before) = (alpha.now, alpha.attempts.len());
        while alpha.attempts.len() == before {
            alpha.passes(1_000);
            assert!(alpha.now < failed_at + 100_000, "given up: {pauses:?}");
        }
        pauses.push((alpha.now - failed_at) / 1_000);
    }
    assert_eq!(pauses, [2, 4, 8, 16, 32, 60, 60, 60]);
    assert_eq!(alpha.state.status.nodes["beta"].session, 7, "nothing is taken over");
    Ok(())
}

#[test]
fn a_node_that_cannot_stop_a_resource_is_fenced_though_it_lives() -> Result<(), String> {
    let mut alpha = Alpha::new("")?;
    let failed = OpResult {
        resource: "web".to_owned(),
        op: "stop".to_owned(),
        interval_ms: 0,
        rc: 1,
        expected_rc: 0,
        status: ExecStatus::Complete,
        reason: "it hangs".to_owned(),
        digest: 0,
        call_id: 1,
        when_ms: 1,
        exec_ms: 1,
        peer: None,
    };
    let mut status = NodeStatus { session: 7, ..NodeStatus::default() };
    let role = Some(crm_core::cib::Role::Started);
    let history = ResourceHistory { role, ..ResourceHistory::default() };
    status.resources.insert("web".to_owned(), history);
    status.take_result(None, &failed);
    let (node, status) = ("beta".to_owned(), Box::new(status));
    alpha.state.apply(Command::SyncNode { node, status });
    alpha.publish();
    alpha.passes(1_000);
    assert_eq!(alpha.targets(), ["beta"]);
    alpha.ends(0)?;
    let record = alpha.state.fencing.history.last_fencing("beta").ok_or("a record")?;
    assert!(record.sentence().contains("web failed there"), "{}", record.sentence());
    // Its heartbeats stop; it is gone then, and not shot again.
    alpha.hears(&["gamma"]);
    alpha.passes(1_000);
    assert_eq!(alpha.targets(), ["beta"]);
    assert_eq!(alpha.state.status.nodes["beta"].session, 0);
    Ok(())
}

#[test]
fn a_person_may_ask_and_may_not_call_dead_what_lives() -> Result<(), String> {
    let mut alpha = Alpha::new("")?;
    let request = |confirm| FenceRequest {
        target: "gamma".to_owned(),
        action: None,
        by: "root".to_owned(),
        confirm,
    };
    alpha.happens(Event::FencingAsked(request(true)));
    alpha.settle();
    let told = alpha.state.fencing.history.records().map(|r| r.sentence()).collect::<Vec<_>>();
    assert!(told.len() == 1 && told[0].contains("gamma is alive"), "{told:?}");
    assert_eq!(alpha.state.fencing.requests.len(), 0);
    alpha.happens(Event::FencingAsked(request(false)));
    alpha.settle();
    assert_eq!(alpha.targets(), ["gamma"]);
    alpha.ends(0)?;
    assert!(alpha.state.fencing.history.last_fencing("gamma").is_some_and(|r| !r.automatic));
    assert_eq!(alpha.state.fencing.requests.len(), 0);
    Ok(())
}

#[test]
fn nodes_not_heard_since_the_start_have_their_time() -> Result<(), String> {
    let mut alpha = Alpha::hearing("property dc-deadtime=90s\n", false)?;
    assert_eq!(alpha.targets(), [""; 0], "60 seconds after the start");
    alpha.passes(31_000);
    // The device does one thing at a time.
    assert_eq!(alpha.targets().len(), 1);
    alpha.ends(0)?;
    let mut targets = alpha.targets();
    targets.sort_unstable();
    assert_eq!(targets, ["beta", "gamma"]);
    Ok(())
}

#[test]
fn without_fencing_nobody_is_fenced() -> Result<(), String> {
    let mut alpha = Alpha::new("property stonith-enabled=false\n")?;
    alpha.hears(&["gamma"]);
    alpha.passes(60_000);
    assert_eq!(alpha.targets(), [""; 0]);
    assert_eq!(alpha.state.status.nodes["beta"].session, 0, "gone without it");
    Ok(())
}

#[test]
fn a_daemon_that_ends_says_that_nothing_runs_only_when_nothing_does() -> Result<(), String> {
    let mut alpha = Alpha::new("")?;
    let session = alpha.state.status.nodes["alpha"].session;
    let farewell = Command::NodeGone { node: "alpha".to_owned(), session };
    assert_eq!(alpha.controller.farewell(), Some(farewell));
    let role = Some(crm_core::cib::Role::Started);
    let history = ResourceHistory { role, ..ResourceHistory::default() };
    let mut status = alpha.state.status.nodes["alpha"].clone();
    status.resources.insert("web".to_owned(), history);
    let (node, status) = ("alpha".to_owned(), Box::new(status));
    alpha.state.apply(Command::SyncNode { node, status });
    alpha.publish();
    assert_eq!(alpha.controller.farewell(), None, "it runs something");
    Ok(())
}
