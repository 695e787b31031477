//! Two real nodes and a witness: whichever of the three is lost, the others go on, and a node leads them.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]
#![expect(clippy::panic, reason = "tests fail by panicking")]

mod world;

use crm_core::store::{MemberRole, Outcome};
use crm_membership::Handle;
use std::time::Duration;
use world::*;

const LIMIT: Duration = Duration::from_secs(20);

async fn writes(node: &Handle, value: &str) {
    let outcome = node.propose(attr("n1", value)).await.unwrap();
    assert!(matches!(outcome, Outcome::Done { .. }));
}

#[tokio::test(flavor = "multi_thread")]
async fn whichever_is_lost_the_other_two_go_on_and_a_node_leads() {
    let world = World::new();
    let mut nodes = world.cluster(2).await;
    let (two, one) = (nodes.pop().unwrap(), nodes.pop().unwrap());
    let witness = world.join_as(&one, 3, MemberRole::Witness).await;
    voters(&one, 3).await;
    assert!(one.members()["n3"].role.is_witness());
    assert_eq!(
        one.state().borrow().cib.nodes.len(),
        2,
        "a witness is no node of the configuration"
    );
    writes(&witness, "asked by the witness").await;

    // Power fails at the node that leads: the other node does, soon, though the witness may have been faster.
    drop(one);
    leadership(&two, LIMIT, |l| l.me_leader).await;
    writes(&two, "without n1").await;
    let one = starts(&world, "n1").await;
    all_alive(&two, 2).await;
    state(&one, "what it has missed", |s| has(s, "n1", "without n1")).await;

    // Whoever ends in good order hands over to a node.
    two.shutdown().await;
    leadership(&one, LIMIT, |l| l.me_leader).await;
    writes(&one, "without n2").await;
    let two = starts(&world, "n2").await;
    all_alive(&one, 2).await;
    quorate(&two, true, LIMIT).await;

    drop(witness);
    writes(&one, "without the witness").await;
    writes(&two, "without the witness, by the other").await;
    for node in [one, two] {
        node.shutdown().await;
    }
}

/// The witness has what the nodes need to go on after both were lost, one after the other.
#[tokio::test(flavor = "multi_thread")]
async fn what_only_the_witness_has_seen_is_not_lost() {
    let world = World::new();
    let mut nodes = world.cluster(2).await;
    let (two, one) = (nodes.pop().unwrap(), nodes.pop().unwrap());
    let witness = world.join_as(&one, 3, MemberRole::Witness).await;
    voters(&one, 3).await;
    drop(two);
    writes(&one, "with the witness only").await;
    drop(one);
    quorate(&witness, false, LIMIT).await;
    // It lacks the last write and cannot lead before the witness has given it.
    let two = starts(&world, "n2").await;
    leadership(&two, LIMIT, |l| l.me_leader).await;
    state(&two, "the last write", |s| has(s, "n1", "with the witness only")).await;
    writes(&two, "goes on").await;
    for node in [two, witness] {
        node.shutdown().await;
    }
}
