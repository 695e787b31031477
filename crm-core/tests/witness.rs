//! A member that votes only: it is no node of the configuration, nobody fences it, and it never goes on alone.

use crm_core::controller::{Controller, Effect, Event, Leadership, Mode, Peer, Start};
use crm_core::store::{Command, FenceRequest, Member, MemberRole, Outcome, State};
use crm_core::text::{Session, read};
use std::collections::BTreeMap;
use std::sync::Arc;

const DEVICE: &str = "
    primitive power stonith:fence_x params pcmk_host_list=\"alpha beta w\"
    primitive web ocf:heartbeat:Dummy
";
/// All graces are over by then, and everybody was waited for.
const LATER: u64 = 60_000;

fn member(state: &mut State, name: &str, raft_id: u64, role: MemberRole) -> Outcome {
    let member = Member { role, ..Member::new(raft_id, format!("{name}:7631")) };
    state.apply(Command::SetMember { name: name.to_owned(), member })
}

/// These nodes, and `w`, a witness.
fn cluster(nodes: &[&str]) -> Result<State, String> {
    let mut state = State::default();
    for (raft_id, name) in (1..).zip(nodes) {
        member(&mut state, name, raft_id, MemberRole::Node);
    }
    member(&mut state, "w", 9, MemberRole::Witness);
    let mut session = Session::new(state.cib.as_ref().clone(), state.version);
    read("t", DEVICE, &mut session).map_err(|e| format!("{e:?}"))?;
    let (base, cib) = (state.version, Box::new(session.cib().clone()));
    let (author, message) = (String::new(), String::new());
    state.apply(Command::CommitCib { base, cib, author, message, when_ms: 0 });
    Ok(state)
}

struct Node {
    controller: Controller,
    state: State,
    fenced: Vec<String>,
    proposed: Vec<Command>,
}

impl Node {
    fn new(me: &str, state: State) -> Self {
        let (me, records) = (me.to_owned(), BTreeMap::new());
        let start = Start { me, session: 1, current: true, records, dice: 1, now_ms: 0 };
        let mut node = Self {
            controller: Controller::new(start),
            state,
            fenced: Vec::new(),
            proposed: Vec::new(),
        };
        node.happens(0, Event::State(Arc::new(node.state.clone())));
        node
    }

    fn happens(&mut self, now_ms: u64, event: Event) {
        self.controller.handle(now_ms, now_ms, event);
        while let Some(effect) = self.controller.poll() {
            match effect {
                Effect::Fence { task, .. } => self.fenced.extend(task.target),
                Effect::Propose(command) => {
                    self.proposed.push(*command.clone());
                    self.state.apply(*command);
                    self.happens(now_ms, Event::State(Arc::new(self.state.clone())));
                    self.happens(now_ms, Event::Proposed);
                }
                _ => {}
            }
        }
    }

    fn hears(&mut self, now_ms: u64, peers: &[(&str, bool)]) {
        let peers =
            peers.iter().map(|(n, alive)| ((*n).to_owned(), Peer { alive: *alive, session: 7 }));
        self.happens(now_ms, Event::Peers(peers.collect()));
    }

    fn quorum(&mut self, now_ms: u64, leader: Option<&str>, me: &str) {
        self.happens(
            now_ms,
            Event::Leadership(Leadership {
                leader: leader.map(str::to_owned),
                term: 1,
                quorate: leader.is_some(),
                me_leader: leader == Some(me),
                ..Leadership::default()
            }),
        );
    }
}

#[test]
fn a_witness_is_no_node_and_cannot_be_fenced_by_hand() -> Result<(), String> {
    let mut state = cluster(&["alpha", "beta"])?;
    let nodes: Vec<&str> = state.cib.nodes.iter().map(|n| n.name.as_str()).collect();
    assert_eq!(nodes, ["alpha", "beta"]);
    let (target, by) = ("w".to_owned(), "root".to_owned());
    let request = FenceRequest { target, action: None, by, confirm: true };
    let Outcome::Refused { why } = state.apply(Command::AskFencing { request }) else {
        return Err("a witness is fenced".to_owned());
    };
    assert!(why.contains("`w` is a witness"), "{why}");
    // One that runs resources does not become one that does not by joining again.
    let again = member(&mut state, "beta", 12, MemberRole::Witness);
    assert!(matches!(again, Outcome::Refused { .. }), "{again:?}");
    // The last node is not removed, whatever witnesses there are; a witness is.
    assert!(cluster(&["alpha"])?.may_remove("alpha", true).is_err());
    assert_eq!(state.may_remove("w", false), Ok(()));
    Ok(())
}

#[test]
fn a_silent_witness_is_not_fenced_and_a_silent_node_is() -> Result<(), String> {
    let mut alpha = Node::new("alpha", cluster(&["alpha", "beta"])?);
    let abilities = BTreeMap::new();
    alpha.happens(0, Event::FenceAgents(abilities));
    alpha.hears(1, &[("beta", true), ("w", true)]);
    alpha.quorum(2, Some("alpha"), "alpha");
    let status = crm_core::status::NodeStatus { session: 7, ..Default::default() };
    alpha.state.apply(Command::SyncNode { node: "beta".into(), status: Box::new(status) });
    alpha.happens(3, Event::State(Arc::new(alpha.state.clone())));
    alpha.hears(LATER, &[("beta", true), ("w", false)]);
    alpha.happens(2 * LATER, Event::Tick);
    assert_eq!((alpha.controller.mode(), alpha.fenced.len()), (Mode::Leader, 0));
    assert!(alpha.controller.online("beta") && alpha.controller.online("alpha"));
    alpha.hears(3 * LATER, &[("beta", false), ("w", true)]);
    alpha.happens(4 * LATER, Event::Tick);
    assert!(alpha.fenced.iter().all(|target| target == "beta") && !alpha.fenced.is_empty());
    Ok(())
}

#[test]
fn a_witness_tells_nothing_of_itself_and_never_goes_on_alone() -> Result<(), String> {
    let mut witness = Node::new("w", cluster(&["alpha"])?);
    witness.hears(1, &[("alpha", true)]);
    witness.quorum(2, Some("alpha"), "w");
    witness.happens(LATER, Event::Tick);
    assert!(witness.proposed.is_empty(), "{:?}", witness.proposed);
    witness.hears(LATER, &[("alpha", false)]);
    witness.quorum(LATER, None, "w");
    witness.happens(2 * LATER, Event::Tick);
    assert_eq!(witness.controller.mode(), Mode::NoQuorum);
    // Not even by a person's word: it would become the only voter, and the node that is back would have to stop for it.
    let (target, by) = ("alpha".to_owned(), "root".to_owned());
    let request = FenceRequest { target, action: None, by, confirm: true };
    witness.happens(2 * LATER, Event::FencingAsked(request));
    assert!(!witness.controller.fencing_history().records().any(|r| r.target == "alpha"));
    Ok(())
}

#[test]
fn the_only_node_goes_on_without_its_witness_and_says_so() -> Result<(), String> {
    let mut alpha = Node::new("alpha", cluster(&["alpha"])?);
    alpha.hears(1, &[("w", true)]);
    alpha.quorum(2, Some("alpha"), "alpha");
    alpha.hears(LATER, &[("w", false)]);
    alpha.quorum(LATER, None, "alpha");
    alpha.happens(2 * LATER, Event::Tick);
    assert_eq!(alpha.controller.mode(), Mode::Alone);
    let words = alpha.controller.waiting().unwrap_or_default();
    assert!(words.contains("the witness w is gone") && words.contains("read-only"), "{words}");
    assert!(alpha.fenced.is_empty());
    Ok(())
}
