//! Of two real nodes one goes on after the other was confirmed off, and the other one comes back (ADR-0010).
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]
#![expect(clippy::panic, reason = "tests fail by panicking")]

mod world;

use crm_core::store::{Command, Outcome};
use crm_membership::{Handle, ProposeError, Refused};
use crm_quorum::lineage::How;
use std::time::Duration;
use world::*;

fn by_hand() -> How {
    How::Hand { operator: "test".to_owned() }
}

fn confirm(survivor: &Handle, dead: &str) {
    survivor.confirmed_off(dead, survivor.incarnation_of(dead), by_hand(), 1);
}

async fn rejoins(node: &Handle) {
    leadership(node, LIMIT, |l| l.stale).await;
    assert!(!node.leadership().borrow().quorate);
    node.stopped();
    leadership(node, LIMIT, |l| l.quorate && !l.stale && l.voters.len() == 2).await;
}

async fn writes(node: &Handle, about: &str, value: &str) {
    let outcome = node.propose(attr(about, value)).await.unwrap();
    assert!(matches!(outcome, Outcome::Done { .. }));
}

/// The last of its threads has let go of its heartbeats' socket.
async fn is_silent(world: &World, number: u8) {
    let free = async {
        while std::net::UdpSocket::bind(world.address(number)).is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    within(LIMIT, "silence", free).await;
}

fn generations(node: &Handle) -> Vec<String> {
    node.standing().told
}

#[tokio::test(flavor = "multi_thread")]
async fn the_survivor_goes_on_when_the_other_is_confirmed_off_and_takes_it_back() {
    let world = World::new();
    let mut nodes = world.cluster(2).await;
    let (two, one) = (nodes.pop().unwrap(), nodes.pop().unwrap());
    dies(two, &one).await;
    let refused = one.propose(attr("n1", "early")).await.unwrap_err();
    assert!(matches!(refused, ProposeError::NoLeader { .. } | ProposeError::Timeout), "{refused}");

    confirm(&one, "n2");
    alone(&one).await;
    writes(&one, "n1", "alone").await;
    assert_eq!(one.standing().state.to_string(), "in quorum: the only voter since generation 1");
    assert_eq!(generations(&one).len(), 2);
    let last = generations(&one).pop().unwrap();
    assert!(last.ends_with(", which was confirmed off by test"), "{last}");

    let two = reboots(&world, "n2").await;
    rejoins(&two).await;
    state(&two, "what it has missed", |s| has(s, "n1", "alone")).await;
    leadership(&one, LIMIT, |l| l.quorate && l.voters.len() == 2).await;
    assert_eq!(generations(&one), generations(&two));
    writes(&two, "n2", "back").await;

    // And the other way round: the one that was left behind has everything.
    dies(one, &two).await;
    confirm(&two, "n1");
    alone(&two).await;
    let one = reboots(&world, "n1").await;
    rejoins(&one).await;
    assert_eq!((generations(&one).len(), generations(&one)), (3, generations(&two)));
    state(&one, "everything", |s| has(s, "n1", "alone") && has(s, "n2", "back")).await;
    for node in [one, two] {
        node.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_restarts_during_a_takeover_carries_it_through() {
    let world = World::new();
    let mut nodes = world.cluster(2).await;
    let (two, one) = (nodes.pop().unwrap(), nodes.pop().unwrap());
    dies(two, &one).await;
    confirm(&one, "n2");
    // At whatever point it is: the intent is stored when `confirmed_off` returns.
    drop(one);
    let one = starts(&world, "n1").await;
    alone(&one).await;
    assert_eq!(generations(&one).len(), 2);
    // The only voter leads at once after a reboot.
    one.shutdown().await;
    let one = reboots(&world, "n1").await;
    alone(&one).await;
    one.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_was_rebooted_needs_a_word_besides_the_confirmation() {
    let world = World::new();
    let nodes = world.cluster(2).await;
    drop(nodes);
    is_silent(&world, 2).await;
    let one = reboots(&world, "n1").await;
    confirm(&one, "n2");
    says(&one, "waiting for n2: this node was not up when the cluster last had quorum").await;
    let refused = one.propose(attr("n1", "early")).await.unwrap_err();
    assert!(matches!(refused, ProposeError::NoLeader { .. }), "{refused}");
    one.force("root", false).unwrap();
    alone(&one).await;
    let last = generations(&one).pop().unwrap();
    assert!(last.ends_with("confirmed off by test; root said that it had nothing newer"), "{last}");
    one.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_forced_while_the_other_may_live_unless_told_and_the_lines_meet_as_diverged() {
    let world = World::new();
    let mut nodes = world.cluster(2).await;
    let (two, one) = (nodes.pop().unwrap(), nodes.pop().unwrap());
    assert_eq!(one.force("root", true), Err(Refused::HasQuorum));
    dies(two, &one).await;
    let refused = one.force("root", false).unwrap_err();
    assert!(matches!(refused, Refused::MayLive { .. }), "{refused}");
    one.force("root", true).unwrap();
    alone(&one).await;
    let last = generations(&one).pop().unwrap();
    assert!(last.contains("UNFENCED, forced on n1 by root"), "{last}");
    writes(&one, "n1", "forced").await;
    one.shutdown().await;

    let two = reboots(&world, "n2").await;
    two.force("root", true).unwrap();
    alone(&two).await;
    writes(&two, "n2", "forced too").await;
    let one = world.start("n1").await;
    for (node, other) in [(&one, "n2"), (&two, "n1")] {
        alone(node).await;
        says(node, &format!("DIVERGED from {other} after generation 0")).await;
    }
    assert!(!has(&one.state().borrow(), "n2", "forced too"));
    // One of them is given up: it is told, and joins anew as somebody else.
    let raft_id = one.members()["n2"].raft_id;
    let (name, by) = ("n2".to_owned(), "test".to_owned());
    let removal = Command::RemoveMember { name, raft_id, force: true, by, when_ms: 1 };
    assert!(matches!(one.propose(removal).await.unwrap(), Outcome::Done { .. }));
    let mut told = two.expelled();
    within(LIMIT, "n2 is told", told.wait_for(Option::is_some)).await.unwrap();
    for node in [one, two] {
        node.shutdown().await;
    }
}
