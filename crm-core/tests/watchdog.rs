//! Watchdogs in the hands of the controller: when the own one is fed, whose silence is as good as a reset, who has to go.

use crm_core::cib::Role;
use crm_core::controller::{
    CONDEMNED, Controller, Effect, Event, Feed, Leadership, Mode, PROMISE, Peer, Start,
};
use crm_core::fencing::Means;
use crm_core::status::{ExecStatus, NodeStatus, OpResult, ResourceHistory};
use crm_core::store::{Command, Member, State};
use crm_core::text::{Session, read};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;

const ON: &str = "property stonith-watchdog-timeout=10s\n";
/// Time until the reset that a node promises.
const BOUND_MS: u64 = 8_700;

/// The controller of `a`, one of two or three nodes, and the log.
struct Node {
    controller: Controller,
    state: State,
    now: u64,
    /// What the wall clock shows more than ours.
    wall_ahead: u64,
    proposed: Vec<Command>,
    suicides: Vec<String>,
    leads: bool,
}

impl Node {
    fn new(number: usize, text: &str) -> Result<Self, String> {
        let mut state = State::default();
        for (raft_id, name) in (1..).zip(["a", "b", "c"]).take(number) {
            let member = Member::new(raft_id, format!("10.0.0.{raft_id}:7631"));
            state.apply(Command::SetMember { name: name.to_owned(), member });
        }
        let mut session = Session::new(state.cib.as_ref().clone(), state.version);
        read("t", &format!("primitive web ocf:heartbeat:Dummy\n{text}"), &mut session)
            .map_err(|e| format!("{e:?}"))?;
        let (base, cib) = (state.version, Box::new(session.cib().clone()));
        let (author, message) = (String::new(), String::new());
        state.apply(Command::CommitCib { base, cib, author, message, when_ms: 0 });
        let (me, records) = ("a".to_owned(), BTreeMap::new());
        let start = Start { me, session: 1, current: true, records, dice: 1, now_ms: 60_000 };
        let mut node = Self {
            controller: Controller::new(start),
            state,
            now: 60_000,
            wall_ahead: 0,
            proposed: Vec::new(),
            suicides: Vec::new(),
            leads: true,
        };
        node.says("b", None);
        if number > 2 {
            node.says("c", None);
        }
        node.hears(&["b", "c"]);
        Ok(node)
    }

    /// A follower or leader of a cluster with a quorum.
    fn joined(number: usize, text: &str, leads: bool) -> Result<Self, String> {
        let mut node = Self::new(number, text)?;
        node.leads = leads;
        node.quorum(true);
        node.settle();
        Ok(node)
    }

    fn quorum(&mut self, quorate: bool) {
        let leader = quorate.then(|| if self.leads { "a" } else { "b" }.to_owned());
        let me_leader = quorate && self.leads;
        self.happens(Event::Leadership(Leadership {
            leader,
            term: 1,
            quorate,
            me_leader,
            ..Leadership::default()
        }));
    }

    /// The log has this of another node.
    fn says(&mut self, node: &str, promise: Option<&str>) {
        let mut status = NodeStatus { session: 7, ..NodeStatus::default() };
        let history = ResourceHistory { role: Some(Role::Stopped), ..ResourceHistory::default() };
        status.resources.insert("web".to_owned(), history);
        status.attrs.extend(promise.map(|ms| (PROMISE.to_owned(), ms.to_owned())));
        self.state.apply(Command::SyncNode { node: node.to_owned(), status: Box::new(status) });
        self.happens(Event::State(Arc::new(self.state.clone())));
    }

    fn hears(&mut self, alive: &[&str]) {
        let peer =
            |name: &str| (name.to_owned(), Peer { alive: alive.contains(&name), session: 7 });
        self.happens(Event::Peers(["b", "c"].map(peer).into()));
    }

    fn happens(&mut self, event: Event) {
        self.controller.handle(self.now, self.now + self.wall_ahead, event);
        let mut orders = Vec::new();
        while let Some(effect) = self.controller.poll() {
            match effect {
                Effect::Propose(command) => self.proposed.push(*command),
                Effect::ForgetProposals => self.proposed.clear(),
                Effect::Suicide { why } => self.suicides.push(why),
                Effect::Order { token, .. } => orders.push(token),
                _ => {}
            }
        }
        for token in orders {
            self.happens(Event::OrderAnswered { token, accepted: false });
        }
    }

    /// The next proposal gets into the log.
    fn log(&mut self) {
        if !self.proposed.is_empty() {
            let command = self.proposed.remove(0);
            self.state.apply(command);
            self.happens(Event::State(Arc::new(self.state.clone())));
            self.happens(Event::Proposed);
        }
    }

    fn settle(&mut self) {
        while !self.proposed.is_empty() {
            self.log();
        }
    }

    /// Time passes, in turns as the daemon has them.
    fn passes(&mut self, ms: u64) {
        let until = self.now + ms;
        while self.now < until {
            self.now = (self.now + 1_000).min(until);
            self.happens(Event::Tick);
            self.settle();
        }
    }

    fn promise(&self) -> Option<u64> {
        self.state.status.nodes.get("a")?.attrs.get(PROMISE)?.parse().ok()
    }

    /// The configuration gets one more line.
    fn configure(&mut self, line: &str) -> Result<(), String> {
        let mut session = Session::new(self.state.cib.as_ref().clone(), self.state.version);
        read("t", line, &mut session).map_err(|e| format!("{e:?}"))?;
        let (base, cib) = (self.state.version, Box::new(session.cib().clone()));
        let (author, message) = (String::new(), String::new());
        self.state.apply(Command::CommitCib { base, cib, author, message, when_ms: 0 });
        self.happens(Event::State(Arc::new(self.state.clone())));
        self.settle();
        Ok(())
    }

    fn gone(&self, node: &str) -> bool {
        self.state.status.nodes[node].session == 0
    }
}

#[test]
fn the_watchdog_is_not_touched_before_the_log_has_this_session() -> Result<(), String> {
    let mut node = Node::new(3, ON)?;
    assert_eq!(node.controller.feeding(true), Feed::Leave, "no quorum yet");
    node.quorum(true);
    assert_eq!(node.controller.feeding(true), Feed::Leave, "the status is on its way");
    node.settle();
    assert_eq!(node.controller.feeding(false), Feed::Leave, "the leader does not hear us");
    assert_eq!(node.controller.feeding(true), Feed::Feed);
    Ok(())
}

#[test]
fn a_node_that_promised_feeds_only_while_the_leader_takes_it_for_alive() -> Result<(), String> {
    let mut node = Node::joined(3, ON, false)?;
    assert_eq!(node.promise(), None, "nothing is armed");
    node.happens(Event::Watchdog(Some(BOUND_MS)));
    node.settle();
    assert_eq!(node.promise(), Some(BOUND_MS));
    assert_eq!(node.controller.feeding(true), Feed::Feed);
    assert_eq!(node.controller.feeding(false), Feed::Starve);
    // Heard again in time.
    assert_eq!(node.controller.feeding(true), Feed::Feed);
    node.quorum(false);
    assert_eq!(node.controller.feeding(false), Feed::Starve);
    Ok(())
}

#[test]
fn a_promise_binds_until_the_log_has_its_end() -> Result<(), String> {
    let mut node = Node::joined(3, ON, false)?;
    node.happens(Event::Watchdog(Some(BOUND_MS)));
    assert_eq!(node.controller.feeding(false), Feed::Starve, "before the log has it");
    node.settle();
    let mut session = Session::new(node.state.cib.as_ref().clone(), node.state.version);
    read("t", "property stonith-watchdog-timeout=0\n", &mut session)
        .map_err(|e| format!("{e:?}"))?;
    node.state.cib = Arc::new(session.cib().clone());
    node.happens(Event::State(Arc::new(node.state.clone())));
    assert_eq!(node.controller.feeding(false), Feed::Starve, "the end is on its way");
    node.quorum(false);
    assert_eq!(node.controller.feeding(false), Feed::Starve, "it may not have arrived");
    node.quorum(true);
    node.settle();
    assert_eq!(node.promise(), None);
    assert_eq!(node.controller.feeding(false), Feed::Feed, "nobody relies on it");
    Ok(())
}

#[test]
fn a_watchdog_that_nobody_relies_on_watches_the_daemon_alone() -> Result<(), String> {
    for (number, text) in [(3, ""), (2, ON)] {
        let mut node = Node::joined(number, text, false)?;
        node.happens(Event::Watchdog(Some(BOUND_MS)));
        node.settle();
        assert_eq!(node.promise(), None, "{number} nodes");
        node.quorum(false);
        node.passes(10_000);
        assert_eq!(node.controller.feeding(false), Feed::Feed, "{number} nodes");
        assert_eq!(node.suicides, [""; 0]);
    }
    Ok(())
}

#[test]
fn a_lost_node_is_gone_when_its_watchdog_has_had_its_time_and_not_before() -> Result<(), String> {
    let mut node = Node::joined(3, ON, true)?;
    node.says("b", Some("8700"));
    node.hears(&["c"]);
    node.settle();
    node.passes(9_999);
    assert!(!node.gone("b"));
    node.passes(1);
    assert!(node.gone("b"));
    let record = node.state.fencing.history.last_fencing("b").ok_or("no record")?;
    assert_eq!(record.evidence().map(|e| e.means), Some(Means::Watchdog));
    Ok(())
}

#[test]
fn a_step_of_the_wall_clock_does_not_shorten_the_time() -> Result<(), String> {
    let mut node = Node::joined(3, ON, true)?;
    node.says("b", Some("8700"));
    node.hears(&["c"]);
    node.settle();
    node.wall_ahead = 3_600_000;
    node.passes(9_000);
    assert!(!node.gone("b"));
    node.passes(1_000);
    assert!(node.gone("b"));
    Ok(())
}

#[test]
fn a_node_that_is_heard_again_in_between_gets_all_of_its_time_again() -> Result<(), String> {
    let mut node = Node::joined(3, ON, true)?;
    node.says("b", Some("8700"));
    node.hears(&["c"]);
    node.passes(9_000);
    node.hears(&["b", "c"]);
    node.settle();
    node.passes(500);
    node.hears(&["c"]);
    let silent = node.now;
    while node.now < silent + 9_999 {
        node.passes(1);
        assert!(!node.gone("b"), "after {} ms", node.now - silent);
    }
    // The attempt that failed rests for a while.
    node.passes(2_500);
    node.passes(10_000);
    assert!(node.gone("b"));
    Ok(())
}

#[test]
fn a_leader_that_stood_still_relies_on_nothing_that_it_knew_before() -> Result<(), String> {
    let mut node = Node::joined(3, ON, true)?;
    node.says("b", Some("8700"));
    node.hears(&["c"]);
    node.passes(1_000);
    assert!(node.controller.deadline().is_some_and(|at| at <= node.now + 1_000));
    // Another one may lead since, and b live with it: the news comes a moment later.
    node.now += 30_000;
    node.happens(Event::Tick);
    assert!(!node.gone("b") && !node.controller.settled("b"));
    node.passes(9_999);
    assert!(!node.gone("b"), "all of its time, again");
    node.passes(5_000);
    assert!(node.gone("b"));
    Ok(())
}

#[test]
fn silence_without_a_promise_or_with_one_that_is_too_late_proves_nothing() -> Result<(), String> {
    for promise in [None, Some("10001"), Some("soon")] {
        let mut node = Node::joined(3, ON, true)?;
        node.says("b", promise);
        node.hears(&["c"]);
        for _ in 0..200 {
            node.passes(1_000);
        }
        assert!(!node.gone("b"), "{promise:?}");
    }
    Ok(())
}

#[test]
fn of_two_nodes_none_is_gone_by_its_watchdog() -> Result<(), String> {
    let mut node = Node::joined(2, ON, true)?;
    node.says("b", Some("8700"));
    node.quorum(false);
    node.hears(&[]);
    for _ in 0..200 {
        node.passes(1_000);
    }
    assert_eq!(node.controller.mode(), Mode::Alone);
    assert!(!node.gone("b") && !node.controller.settled("b"));
    Ok(())
}

#[test]
fn a_negative_timeout_is_twice_what_this_node_promises() -> Result<(), String> {
    let text = "property stonith-watchdog-timeout=-1\n";
    let mut node = Node::joined(3, text, true)?;
    node.says("b", Some("8700"));
    node.happens(Event::Watchdog(Some(BOUND_MS)));
    node.settle();
    node.hears(&["c"]);
    node.passes(2 * BOUND_MS - 1);
    assert!(!node.gone("b"));
    node.passes(1);
    assert!(node.gone("b"));
    Ok(())
}

#[test]
fn suicide_is_for_a_node_that_had_a_quorum_and_is_never_taken_back() -> Result<(), String> {
    let text = "property no-quorum-policy=suicide\n";
    let mut node = Node::joined(3, text, false)?;
    node.happens(Event::Watchdog(Some(BOUND_MS)));
    node.hears(&[]);
    node.quorum(false);
    assert_eq!(node.controller.feeding(false), Feed::Feed, "a leader may be found yet");
    node.passes(4_000);
    assert_eq!(node.controller.mode(), Mode::NoQuorum);
    assert_eq!(node.suicides, ["the quorum is lost, and no-quorum-policy=suicide"]);
    node.hears(&["b", "c"]);
    node.quorum(true);
    node.settle();
    assert_eq!(node.controller.feeding(true), Feed::Starve);
    assert_eq!(node.suicides.len(), 1, "said once");
    for policy in ["stop", "freeze", "demote", "ignore"] {
        let mut node = Node::joined(3, &format!("property no-quorum-policy={policy}\n"), false)?;
        node.hears(&[]);
        node.quorum(false);
        node.passes(60_000);
        assert_eq!(node.suicides, [""; 0], "{policy}");
    }
    Ok(())
}

#[test]
fn a_node_that_cannot_stop_a_resource_lets_its_watchdog_fire() -> Result<(), String> {
    let failed = OpResult {
        resource: "web".to_owned(),
        op: "stop".to_owned(),
        interval_ms: 0,
        rc: 1,
        expected_rc: 0,
        status: ExecStatus::Complete,
        reason: String::new(),
        digest: 0,
        call_id: 1,
        when_ms: 60_000,
        exec_ms: 1,
        peer: None,
    };
    let fails = |node: &mut Node, on: &str, session: u64| {
        let (on, result) = (on.to_owned(), Box::new(failed.clone()));
        let command = Command::OpDone { node: on, session, seq: 1_000, token: None, result };
        node.state.apply(command);
        node.happens(Event::State(Arc::new(node.state.clone())));
        node.settle();
    };
    // As the leader sees it.
    let mut node = Node::joined(3, ON, true)?;
    node.says("b", Some("8700"));
    fails(&mut node, "b", 7);
    node.passes(1_000);
    assert!(node.state.status.nodes["b"].attrs.contains_key(CONDEMNED));
    assert!(!node.gone("b"), "it is heard");
    // As the node itself sees it.
    let mut node = Node::joined(3, ON, false)?;
    node.happens(Event::Watchdog(Some(BOUND_MS)));
    node.settle();
    let session = node.state.status.nodes["a"].session;
    let attrs = vec![(CONDEMNED.to_owned(), Some("stop of web failed".to_owned()))];
    node.state.apply(Command::SetAttrs { node: "a".to_owned(), session: Some(session), attrs });
    node.happens(Event::State(Arc::new(node.state.clone())));
    assert_eq!(node.suicides, ["the cluster wants it fenced: stop of web failed"]);
    assert_eq!(node.controller.feeding(true), Feed::Starve);
    Ok(())
}

#[test]
fn a_daemon_that_ends_withdraws_what_it_promised_first() -> Result<(), String> {
    let mut node = Node::joined(3, ON, false)?;
    node.happens(Event::Watchdog(Some(BOUND_MS)));
    node.settle();
    let command = node.controller.disarming().ok_or("it has promised")?;
    node.state.apply(command);
    assert_eq!(node.promise(), None);
    let mut node = Node::joined(3, "", false)?;
    node.happens(Event::Watchdog(Some(BOUND_MS)));
    node.settle();
    assert_eq!(node.controller.disarming(), None);
    Ok(())
}

/// What may happen to a node and its watchdog.
#[derive(Debug, Clone, Copy)]
enum Step {
    Quorum(bool),
    Log,
    Arm(bool),
    Configure(bool),
    Pass(u64),
    Suicide(bool),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => any::<bool>().prop_map(Step::Quorum),
        4 => Just(Step::Log),
        2 => any::<bool>().prop_map(Step::Arm),
        1 => any::<bool>().prop_map(Step::Configure),
        2 => (1_u64..4_000).prop_map(Step::Pass),
        1 => any::<bool>().prop_map(Step::Suicide),
    ];
    proptest::collection::vec(step, 1..60)
}

proptest! {
    /// Whatever happens: while the log has a promise of this node, it feeds only with a lease; once it has to go it never feeds again; and it
    /// promises nothing that it has not armed.
    #[test]
    fn nothing_is_fed_against_a_promise(steps in steps(), leads: bool) {
        let mut node = Node::new(3, "").map_err(TestCaseError::fail)?;
        node.leads = leads;
        let mut ever_armed = false;
        for step in steps {
            match step {
                Step::Quorum(quorate) => node.quorum(quorate),
                Step::Log => node.log(),
                Step::Arm(armed) => {
                    ever_armed |= armed;
                    node.happens(Event::Watchdog(armed.then_some(BOUND_MS)));
                }
                Step::Configure(on) => {
                    let seconds = if on { 10 } else { 0 };
                    node.configure(&format!("property stonith-watchdog-timeout={seconds}s\n"))
                        .map_err(TestCaseError::fail)?;
                }
                Step::Pass(ms) => {
                    node.now += ms;
                    node.happens(Event::Tick);
                }
                Step::Suicide(on) => {
                    let policy = if on { "suicide" } else { "stop" };
                    node.configure(&format!("property no-quorum-policy={policy}\n"))
                        .map_err(TestCaseError::fail)?;
                }
            }
            let promised = node.promise().is_some();
            prop_assert!(!promised || ever_armed);
            if promised {
                prop_assert_ne!(node.controller.feeding(false), Feed::Feed);
            }
            if !node.suicides.is_empty() {
                prop_assert_eq!(node.controller.feeding(true), Feed::Starve);
                prop_assert_eq!(node.suicides.len(), 1);
            }
        }
    }
}
