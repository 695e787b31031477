//! Two real nodes that have both gone on by force become one cluster again (ADR-0016).
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]
#![expect(clippy::panic, reason = "tests fail by panicking")]

mod world;

use crm_core::cib::Cib;
use crm_core::merge::{Choices, Fate, Side, base, compare, merge};
use crm_core::store::{Command, Outcome};
use crm_core::text::{Session, read};
use crm_membership::{Handle, MergeError, Refused, StartError};
use world::*;

/// Commits these statements on top of what is there.
async fn configures(node: &Handle, text: &str) -> Cib {
    let state = node.state().borrow().clone();
    let mut session = Session::new((*state.cib).clone(), state.version);
    read("test", text, &mut session).unwrap();
    commits(node, state.version, session.cib().clone()).await
}

async fn commits(node: &Handle, base: u64, cib: Cib) -> Cib {
    let (author, message) = (format!("root@{}", node.name()), "test".to_owned());
    let command =
        Command::CommitCib { base, cib: Box::new(cib.clone()), author, message, when_ms: 5 };
    assert!(matches!(node.propose(command).await.unwrap(), Outcome::Done { .. }));
    cib
}

/// n1 and n2 with a common configuration, each of which has gone on alone and added a primitive of its name.
async fn diverged(world: &World) -> (Handle, Handle) {
    let mut nodes = world.cluster(2).await;
    let (two, one) = (nodes.pop().unwrap(), nodes.pop().unwrap());
    let common = configures(&one, "primitive common Dummy\n").await;
    state(&two, "the common configuration", |s| *s.cib == common).await;
    dies(two, &one).await;
    one.force("root", true).unwrap();
    alone(&one).await;
    configures(&one, "primitive n1 Dummy\n").await;
    one.shutdown().await;
    let two = reboots(world, "n2").await;
    two.force("root", true).unwrap();
    alone(&two).await;
    configures(&two, "primitive n2 Dummy\n").await;
    let one = world.start("n1").await;
    for (node, other) in [(&one, "n2"), (&two, "n1")] {
        alone(node).await;
        says(node, &format!("DIVERGED from {other} after generation 0")).await;
    }
    (one, two)
}

/// Commits on `keeper` what comes of both, and has the other side give up; the version that was looked at there.
async fn keeps(keeper: &Handle) {
    let (ours, theirs, common) = keeper.lines().await.unwrap();
    assert_eq!((common, ours.branch.len(), theirs.branch.len()), (1, 2, 2));
    assert!(theirs.branch[1].words.contains("UNFENCED"), "{:?}", theirs.branch);
    let now = keeper.state().borrow().clone();
    let base = base(&now.revisions, &theirs.revisions).unwrap();
    assert!(base.cib.primitive("common").is_some() && base.cib.primitives().len() == 1);
    let fates: Vec<_> = compare(Some(&base.cib), &ours.cib, &theirs.cib)
        .into_iter()
        .map(|d| (d.object, d.fate))
        .collect();
    let own = |name: &str, side| (name.to_owned(), Fate::Only(side));
    let mut want = vec![own(&ours.node, Side::Ours), own(&theirs.node, Side::Theirs)];
    want.sort();
    assert_eq!(fates, want);
    let merged = merge(Some(&base.cib), &ours.cib, &theirs.cib, &Choices::default()).unwrap();
    commits(keeper, ours.version, merged).await;
    let refused = keeper.merge(theirs.version + 1, "root", 0).await.unwrap_err();
    assert!(matches!(&refused, MergeError::There { why, .. } if why.contains("changed meanwhile")));
    keeper.merge(theirs.version, "root", 0).await.unwrap();
}

async fn is_stale(node: &Handle) {
    leadership(node, LIMIT, |l| l.stale && !l.quorate).await;
}

/// What its daemon does when nothing runs any more.
async fn gives_up(world: &World, node: Handle) -> Handle {
    let name = node.name().to_owned();
    node.stopped();
    within(LIMIT, "a place with the winner", node.given_up()).await;
    node.shutdown().await;
    drop(node);
    let unsettled = crm_membership::start(world.settings(&name), world.run_dir(&name)).await;
    assert!(matches!(unsettled, Err(StartError::GivenUp { .. })));
    crm_membership::settle(&world.dirs(&name).settings).unwrap();
    starts(world, &name).await
}

async fn are_one(nodes: [&Handle; 2]) {
    for node in nodes {
        leadership(node, LIMIT, |l| l.quorate && l.voters.len() == 2).await;
        state(node, "the merged configuration", |s| {
            ["common", "n1", "n2"].iter().all(|id| s.cib.primitive(id).is_some())
        })
        .await;
        says(node, "in quorum").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_lines_become_one_with_what_both_have_changed() {
    let world = World::new();
    let (one, two) = diverged(&world).await;
    let old = two.members()["n2"].raft_id;
    keeps(&one).await;
    is_stale(&two).await;
    assert!(two.propose(attr("n2", "late")).await.is_err(), "it still writes");
    assert_eq!(two.force("root", false), Err(Refused::GivingUp));
    says(&two, "n1 has gone on without this node: stopping").await;
    // The intent outlives the daemon.
    drop(two);
    let two = starts(&world, "n2").await;
    is_stale(&two).await;
    let two = gives_up(&world, two).await;
    are_one([&one, &two]).await;
    assert!(one.members()["n2"].raft_id > old, "an id was used twice");
    assert_eq!(one.standing().generations, two.standing().generations);
    let kept = world.dirs("n2").data.join("given-up/1970-01-01T00-00-00Z");
    let text = std::fs::read_to_string(kept.join("configuration.crm")).unwrap();
    assert!(text.contains("primitive n2 ") && !text.contains("primitive n1 "), "{text}");
    for file in ["state.json", "generations", "node.yaml", "raft.redb", "takeover.json"] {
        assert!(kept.join(file).exists(), "{file} is not kept");
    }
    assert_eq!(one.lines().await.unwrap_err(), MergeError::Refused(Refused::NotDiverged));
    for node in [one, two] {
        node.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_loser_whose_winner_dies_may_take_it_back_and_has_diverged_again() {
    let world = World::new();
    let (one, two) = diverged(&world).await;
    keeps(&two).await;
    is_stale(&one).await;
    drop(two);
    one.stopped();
    // The winner is gone: nothing of the loser's line is lost, and its operator may take it back.
    one.force("root", true).unwrap();
    alone(&one).await;
    let two = starts(&world, "n2").await;
    says(&one, "DIVERGED").await;
    says(&two, "DIVERGED").await;
    assert_eq!(two.lines().await.unwrap().1.branch.len(), 3);
    one.shutdown().await;
    two.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_founder_gives_up_and_can_still_admit_others() {
    let world = World::new();
    let (one, two) = diverged(&world).await;
    keeps(&two).await;
    is_stale(&one).await;
    let one = gives_up(&world, one).await;
    are_one([&one, &two]).await;
    one.make_token(TTL).unwrap();
    for node in [one, two] {
        node.shutdown().await;
    }
}
