//! The in-sync record in the hands of one controller: whose word counts, and when a primary may leave its peers behind.

use crm_core::cib::{AgentName, Cib, NvSet, Primitive, Replica, Resource, Role, Volume};
use crm_core::controller::{Controller, Effect, Event, Leadership, Start, VolumeSeen};
use crm_core::status::{NodeStatus, ResourceHistory};
use crm_core::store::{Command, Member, State, VolumeRecord};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|n| (*n).to_owned()).collect()
}

/// A cluster with the volume r0 on every node, all in sync.
fn state(nodes: &[&str]) -> State {
    let mut state = State::default();
    state.apply(Command::Found { name: "c".to_owned(), uuid: "c".to_owned() });
    for (id, name) in (1u64..).zip(nodes) {
        let member = Member::new(id, format!("10.0.0.{id}:7631"));
        state.apply(Command::SetMember { name: (*name).to_owned(), member });
    }
    let replica = |n: &&str| Replica { node: (*n).to_owned(), disk: "/d".to_owned() };
    let volume = Volume {
        name: "r0".to_owned(),
        size_bytes: 1 << 20,
        device: "/dev/drbd0".to_owned(),
        replicas: nodes.iter().map(replica).collect(),
        port: 7000,
        day0: 1,
        assume_clean: true,
    };
    let cib = Cib { nodes: state.cib.nodes.clone(), volumes: vec![volume], ..Cib::default() };
    let (author, message) = ("test".to_owned(), "load".to_owned());
    let base = state.version;
    state.apply(Command::CommitCib { base, cib: Box::new(cib), author, message, when_ms: 0 });
    assert_eq!(state.volumes["r0"], VolumeRecord { epoch: 1, in_sync: set(nodes) });
    state
}

fn led(quorate: bool) -> Event {
    let leader = quorate.then(|| "delta".to_owned());
    Event::Leadership(Leadership {
        leader,
        term: 1,
        quorate,
        me_leader: false,
        voters: ["alpha", "delta"].map(str::to_owned).into(),
        stale: false,
    })
}

fn seen(away: &[&str], primary: bool) -> Event {
    Event::Volume(VolumeSeen {
        name: "r0".to_owned(),
        up: true,
        score: Some(10_000),
        undecided: false,
        primary,
        away: set(away),
    })
}

fn lost(peers: &[&str]) -> Event {
    Event::MayDrop { volume: "r0".to_owned(), peers: set(peers) }
}

/// Permissions to leave peers behind, and records proposed.
type Said = (Vec<BTreeSet<String>>, Vec<(u64, BTreeSet<String>)>);

/// The controller of alpha.
struct Alpha {
    controller: Controller,
    now: u64,
    /// Records proposed when it first had a quorum.
    first: Vec<(u64, BTreeSet<String>)>,
}

impl Alpha {
    fn new(state: &State) -> Self {
        Self::with_records(state, BTreeMap::new())
    }

    fn with_records(state: &State, records: BTreeMap<String, VolumeRecord>) -> Self {
        let (me, session) = ("alpha".to_owned(), 1);
        let start = Start { me, session, current: true, records, dice: 0, now_ms: 0 };
        let mut alpha = Self { controller: Controller::new(start), now: 0, first: Vec::new() };
        alpha.happens(Event::State(Arc::new(state.clone())));
        alpha.first = alpha.happens(led(true)).1;
        alpha
    }

    fn happens(&mut self, event: Event) -> Said {
        self.now += 60_000;
        self.controller.handle(self.now, self.now, event);
        let (mut dropped, mut records) = (Vec::new(), Vec::new());
        while let Some(effect) = self.controller.poll() {
            match effect {
                Effect::DropPeers { peers, .. } => dropped.push(peers),
                Effect::Propose(command) => {
                    if let Command::VolumeInSync { epoch, in_sync, .. } = *command {
                        records.push((epoch, in_sync));
                    }
                }
                _ => {}
            }
        }
        (dropped, records)
    }
}

#[test]
fn a_minority_that_has_met_the_majority_again_does_not_leave_it_behind() {
    let mut state = state(&["alpha", "delta", "gamma"]);
    let mut alpha = Alpha::new(&state);
    alpha.happens(seen(&[], true));
    alpha.happens(led(false));
    alpha.happens(seen(&["delta", "gamma"], true));
    let nothing = (vec![], vec![]);
    assert_eq!(alpha.happens(lost(&["delta", "gamma"])), nothing);
    assert_eq!(alpha.happens(Event::Tick), nothing);
    // The link is mended: the data plane meets its peers before the log has been read.
    assert_eq!(alpha.happens(seen(&[], true)), nothing);
    assert_eq!(alpha.happens(led(true)), nothing);
    let (volume, in_sync) = ("r0".to_owned(), set(&["delta", "gamma"]));
    state.apply(Command::VolumeInSync { volume, epoch: 2, in_sync });
    assert_eq!(alpha.happens(Event::State(Arc::new(state))), nothing);
}

#[test]
fn what_a_primary_asked_is_forgotten_when_it_is_primary_no_more() {
    let state = state(&["alpha", "delta", "gamma"]);
    let mut alpha = Alpha::new(&state);
    alpha.happens(seen(&["delta"], true));
    alpha.happens(led(false));
    alpha.happens(lost(&["delta"]));
    alpha.happens(seen(&["delta"], false));
    assert_eq!(alpha.happens(led(true)), (vec![], vec![]));
}

#[test]
fn one_of_two_that_went_on_alone_is_believed_by_its_next_daemon() {
    let state = state(&["alpha", "delta"]);
    let kept = VolumeRecord { epoch: 2, in_sync: set(&["alpha"]) };
    let mut alpha = Alpha::with_records(&state, BTreeMap::from([("r0".to_owned(), kept)]));
    // It is proposed as soon as there is a quorum, and holds meanwhile.
    assert_eq!(alpha.first, vec![(2, set(&["alpha"]))]);
    alpha.happens(seen(&["delta"], true));
    let (dropped, records) = alpha.happens(lost(&["delta"]));
    assert_eq!((dropped, records), (vec![set(&["delta"])], vec![]));
}

#[test]
fn news_of_one_peer_does_not_answer_the_question_about_another() {
    let mut state = state(&["alpha", "delta", "gamma"]);
    let mut alpha = Alpha::new(&state);
    alpha.happens(seen(&["delta"], true));
    let (dropped, records) = alpha.happens(lost(&["delta"]));
    assert_eq!((dropped, records), (vec![], vec![(2, set(&["alpha", "gamma"]))]));
    let peers = set(&["gamma"]);
    alpha.happens(Event::Resynced { volume: "r0".to_owned(), peers });
    let (volume, in_sync) = ("r0".to_owned(), set(&["alpha", "gamma"]));
    state.apply(Command::VolumeInSync { volume, epoch: 2, in_sync });
    let (dropped, _) = alpha.happens(Event::State(Arc::new(state)));
    assert_eq!(dropped, vec![set(&["delta"])]);
}

/// The promotion score of alpha's replica.
fn score(alpha: &Alpha) -> Option<&str> {
    alpha.controller.own_status().attrs.get("master-drbd").map(String::as_str)
}

fn booted(away: &[&str]) -> Event {
    let (name, away) = ("r0".to_owned(), set(away));
    Event::Volume(VolumeSeen { name, up: true, score: None, undecided: true, primary: false, away })
}

/// As [`state`], with a resource that manages the volume.
fn managed(nodes: &[&str]) -> State {
    let mut state = state(nodes);
    let (class, provider) = ("ocf".to_owned(), Some("crm".to_owned()));
    let mut drbd = Primitive {
        id: "drbd".to_owned(),
        agent: AgentName { class, provider, kind: "volume".to_owned() },
        description: None,
        params: NvSet::default(),
        meta: NvSet::default(),
        utilization: NvSet::default(),
        ops: Vec::new(),
        layout: Vec::new(),
    };
    drbd.params.set("volume", "r0");
    let mut cib = Cib::clone(&state.cib);
    cib.resources.push(Resource::Primitive(drbd));
    cib.properties.set("stonith-enabled", "false");
    let (base, cib) = (state.version, Box::new(cib));
    let (author, message) = ("test".to_owned(), "manage".to_owned());
    state.apply(Command::CommitCib { base, cib, author, message, when_ms: 0 });
    state
}

#[test]
fn two_of_three_that_boot_without_the_third_have_a_promotable_replica() {
    let mut alpha = Alpha::new(&managed(&["alpha", "delta", "gamma"]));
    alpha.happens(booted(&["gamma"]));
    assert_eq!(score(&alpha), Some("100"));
    // Without a quorum the record here may be an old one.
    alpha.happens(led(false));
    assert_eq!(score(&alpha), None);
}

#[test]
fn a_replica_that_the_record_left_behind_is_not_vouched_for() {
    let mut state = managed(&["alpha", "delta", "gamma"]);
    let (volume, in_sync) = ("r0".to_owned(), set(&["delta", "gamma"]));
    state.apply(Command::VolumeInSync { volume, epoch: 2, in_sync });
    let mut alpha = Alpha::new(&state);
    alpha.happens(booted(&["gamma"]));
    assert_eq!(score(&alpha), None);
}

/// Of two nodes without fencing, alpha after it went on alone with a volume of which the log has delta as the primary.
fn taken_over() -> (State, Alpha) {
    let mut state = managed(&["alpha", "delta"]);
    for (name, value) in [("no-quorum-policy", "ignore"), ("stonith-enabled", "false")] {
        Arc::make_mut(&mut state.cib).properties.set(name, value);
    }
    let promoted = ResourceHistory { role: Some(Role::Promoted), ..ResourceHistory::default() };
    let mut delta = NodeStatus { session: 7, ..NodeStatus::default() };
    delta.resources.insert("drbd".to_owned(), promoted);
    state.apply(Command::SyncNode { node: "delta".to_owned(), status: Box::new(delta) });
    let mut alpha = Alpha::new(&state);
    alpha.happens(led(false));
    alpha.happens(seen(&["delta"], true));
    let (dropped, _) = alpha.happens(lost(&["delta"]));
    assert_eq!(dropped, [set(&["delta"])]);
    (state, alpha)
}

#[test]
fn the_former_primary_is_heard_first_when_both_went_on_alone() {
    let (mut state, mut alpha) = taken_over();
    assert_eq!(alpha.happens(led(true)).1, vec![], "delta may have gone on, with the clients");
    let (volume, in_sync) = ("r0".to_owned(), set(&["delta"]));
    state.apply(Command::VolumeInSync { volume, epoch: 2, in_sync });
    assert_eq!(alpha.happens(Event::State(Arc::new(state))).1, vec![]);
    assert_eq!(alpha.happens(Event::Tick).1, vec![], "delta's record holds");
}

#[test]
fn a_former_primary_that_says_nothing_is_not_waited_for_for_ever() {
    let (_, mut alpha) = taken_over();
    assert_eq!(alpha.happens(led(true)).1, vec![]);
    assert_eq!(alpha.happens(Event::Tick).1, vec![(2, set(&["alpha"]))]);
}
