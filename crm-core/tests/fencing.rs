//! Fencing in the hands of the controller that decides: whom it fences, when, how often, and what it makes of the end.

use crm_core::cib::Role;
use crm_core::controller::{Controller, Effect, Event, Leadership, Peer, START_GRACE_MS, Start};
use crm_core::fencing::{Answer, Task, Verb};
use crm_core::status::{ExecStatus, NodeStatus, OpResult, ResourceHistory};
use crm_core::store::{Command, Disarmed, FenceRequest, Member, State};
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
    /// Orders are taken, and never done; else they are refused, and the next plan is not far.
    obeyed: bool,
}

impl Alpha {
    fn new(added: &str) -> Result<Self, String> {
        Self::hearing(added, true)
    }

    /// `heard`: the others' heartbeats arrive.
    fn hearing(added: &str, heard: bool) -> Result<Self, String> {
        let mut state = State::default();
        for (raft_id, name) in (1..).zip(NODES) {
            let member = Member::new(raft_id, format!("10.0.0.{raft_id}:7631"));
            state.apply(Command::SetMember { name: name.to_owned(), member });
        }
        let mut session = Session::new(state.cib.as_ref().clone(), state.version);
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
            obeyed: false,
        };
        alpha.publish();
        if heard {
            alpha.hears(&["beta", "gamma"]);
        }
        let leader = Some("alpha".to_owned());
        let leadership =
            Leadership { leader, term: 1, quorate: true, me_leader: true, ..Leadership::default() };
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
        let accepted = self.obeyed;
        for token in orders {
            self.happens(Event::OrderAnswered { token, accepted });
        }
    }

    /// A peer is heard with this session, the others as before.
    fn hears_as(&mut self, node: &str, session: u64) {
        let peer = |name: &&str| {
            let session = if *name == node { session } else { 7 };
            ((*name).to_owned(), Peer { alive: true, session })
        };
        self.happens(Event::Peers(NODES.iter().skip(1).map(peer).collect()));
    }

    /// The log has these roles of a node's resources.
    fn knows_of(&mut self, node: &str, roles: &[(&str, Role)]) {
        let mut status = self.state.status.nodes[node].clone();
        for (id, role) in roles {
            let history = ResourceHistory { role: Some(*role), ..ResourceHistory::default() };
            status.resources.insert((*id).to_owned(), history);
        }
        let (node, status) = (node.to_owned(), Box::new(status));
        self.state.apply(Command::SyncNode { node, status });
        self.publish();
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
    let role = Some(Role::Started);
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
    assert_eq!(alpha.controller.farewell(), None, "it has not looked yet");
    alpha.knows_of("alpha", &[("web", Role::Stopped), ("power", Role::Stopped)]);
    assert_eq!(alpha.controller.farewell(), Some(farewell));
    alpha.knows_of("alpha", &[("web", Role::Started)]);
    assert_eq!(alpha.controller.farewell(), None, "it runs something");
    Ok(())
}

#[test]
fn what_is_confirmed_is_the_end_of_the_session_that_was_meant() -> Result<(), String> {
    let mut alpha = Alpha::new("")?;
    alpha.hears(&["gamma"]);
    // The agent is slow: the node has booted and tells what it runs before the agent has ended.
    let status = Box::new(NodeStatus { session: 9, ..NodeStatus::default() });
    alpha.state.apply(Command::SyncNode { node: "beta".to_owned(), status });
    alpha.publish();
    alpha.hears_as("beta", 9);
    alpha.ends(0)?;
    alpha.passes(60_000);
    assert_eq!(alpha.targets().len(), 1);
    alpha.hears(&["gamma"]);
    alpha.passes(1);
    assert_eq!(alpha.targets(), ["beta", "beta"], "lost again in another session");
    assert_eq!(alpha.state.status.nodes["beta"].session, 9, "nothing is taken over before");
    Ok(())
}

#[test]
fn whoever_is_back_in_the_log_before_its_heartbeats_is_not_fenced_for_it() -> Result<(), String> {
    let mut alpha = Alpha::new("")?;
    alpha.hears(&["gamma"]);
    alpha.ends(0)?;
    assert_eq!(alpha.state.status.nodes["beta"].session, 0, "gone");
    alpha.passes(30_000);
    let back = |alpha: &mut Alpha, session| {
        let status = Box::new(NodeStatus { session, ..NodeStatus::default() });
        alpha.state.apply(Command::SyncNode { node: "beta".to_owned(), status });
        alpha.publish();
        alpha.settle();
    };
    back(&mut alpha, 8);
    assert_eq!(alpha.targets(), ["beta"], "its heartbeats are on their way");
    alpha.passes(500);
    alpha.hears_as("beta", 8);
    alpha.passes(60_000);
    assert_eq!(alpha.targets(), ["beta"]);
    assert!(alpha.controller.online("beta"), "its status was not thrown away");
    // What is lost in a session that was heard is fenced at once; another that never comes to be heard, when its time is over.
    alpha.happens(Event::Peers(BTreeMap::from([
        ("beta".to_owned(), Peer { alive: false, session: 8 }),
        ("gamma".to_owned(), Peer { alive: true, session: 7 }),
    ])));
    assert_eq!(alpha.targets(), ["beta", "beta"]);
    alpha.obeyed = true;
    alpha.ends(0)?;
    back(&mut alpha, 9);
    let told = alpha.now;
    // It is woken when it wants to be, and not before.
    while alpha.targets().len() == 2 {
        let due = alpha.controller.deadline().ok_or("it wants to be woken")?;
        assert!(due <= told + START_GRACE_MS, "{} ms after it was told", due - told);
        alpha.passes(due - alpha.now);
    }
    assert_eq!(alpha.now, told + START_GRACE_MS);
    Ok(())
}

#[test]
fn a_confirmation_is_void_when_the_node_goes_on_being_heard() -> Result<(), String> {
    let mut alpha = Alpha::new("")?;
    let (target, by) = ("gamma".to_owned(), "root".to_owned());
    let request = FenceRequest { target, action: None, by, confirm: false };
    alpha.happens(Event::FencingAsked(request));
    alpha.settle();
    // The device says so; the node does not notice.
    alpha.ends(0)?;
    for _ in 0..10 {
        alpha.passes(1_000);
    }
    alpha.hears(&["beta"]);
    alpha.passes(1);
    assert_eq!(alpha.state.status.nodes["gamma"].session, 7, "nothing is taken over");
    assert_eq!(alpha.targets(), ["gamma", "gamma"]);
    Ok(())
}

#[test]
fn one_that_leads_again_can_fence_as_before() -> Result<(), String> {
    let mut alpha = Alpha::new("")?;
    let lead = |me_leader: bool| {
        let leader = Some(if me_leader { "alpha" } else { "beta" }.to_owned());
        Event::Leadership(Leadership {
            leader,
            term: 2,
            quorate: true,
            me_leader,
            ..Leadership::default()
        })
    };
    alpha.happens(lead(false));
    alpha.happens(lead(true));
    alpha.hears(&["gamma"]);
    assert_eq!(alpha.targets(), ["beta"]);
    Ok(())
}

#[test]
fn a_disarmed_cluster_fences_and_plans_nothing_until_its_time_is_over() -> Result<(), String> {
    let mut alpha = Alpha::new("")?;
    let until_ms = alpha.now + 3_600_000;
    let (by, reason) = ("root@alpha".to_owned(), "the switch is replaced".to_owned());
    let disarmed = Some(Disarmed { until_ms, since_ms: alpha.now, by, reason });
    // What is being done when it begins is called off.
    alpha.hears(&["gamma"]);
    assert_eq!(alpha.targets(), ["beta"]);
    alpha.state.apply(Command::Disarm { disarmed });
    alpha.publish();
    assert!(alpha.controller.fencing_now().is_empty(), "still being fenced");
    alpha.passes(1_000_000);
    assert_eq!(alpha.targets().len(), 1, "fenced while disarmed");
    let plan = alpha.controller.plan_now();
    let ops = |plan: &crm_core::plan::Plan| format!("{:?}", plan.actions);
    assert!(!ops(&plan).contains("\"start\""), "{}", ops(&plan));
    let due = alpha.controller.deadline().ok_or("a deadline")?;
    assert!(due <= until_ms, "it sleeps beyond the end");
    alpha.now = until_ms;
    alpha.passes(0);
    assert_eq!(alpha.targets(), ["beta", "beta"], "armed again, and not fenced");
    Ok(())
}

#[test]
fn what_a_person_wants_fenced_is_fenced_in_a_disarmed_cluster_too() -> Result<(), String> {
    let mut alpha = Alpha::new("")?;
    let (by, reason) = ("root@alpha".to_owned(), String::new());
    let disarmed = Disarmed { until_ms: alpha.now + 3_600_000, since_ms: alpha.now, by, reason };
    alpha.state.apply(Command::Disarm { disarmed: Some(disarmed) });
    alpha.publish();
    let (target, by) = ("gamma".to_owned(), "root".to_owned());
    let request = FenceRequest { target, action: None, by, confirm: false };
    alpha.happens(Event::FencingAsked(request));
    alpha.settle();
    assert_eq!(alpha.targets(), ["gamma"]);
    Ok(())
}
