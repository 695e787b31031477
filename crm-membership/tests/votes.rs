//! Service quorum by the options of the CIB (ADR-0019), with real nodes: words in real heartbeats, stored memories, raft's voters that follow.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]
#![expect(clippy::panic, reason = "tests fail by panicking")]

mod world;

use crm_core::cib::Cib;
use crm_core::store::{Command, Outcome};
use crm_membership::{Handle, Votes};
use crm_quorum::lineage::How;
use world::*;

/// Sets options, and waits until every node counts by them.
async fn options(nodes: &[&Handle], pairs: &[(&str, &str)]) {
    let state = nodes[0].state().borrow().clone();
    let mut cib = Box::new(Cib::clone(&state.cib));
    pairs.iter().for_each(|(name, value)| cib.properties.set(name, value));
    let (author, message) = (String::new(), String::new());
    let command = Command::CommitCib { base: state.version, cib, author, message, when_ms: 0 };
    assert_eq!(state.refused_quorum(&command), None);
    assert!(matches!(nodes[0].propose(command).await.unwrap(), Outcome::Done { .. }));
    for node in nodes {
        votes(node, "counts by the options", |v| v.quorate).await;
    }
}

async fn votes(node: &Handle, what: &str, mut want: impl FnMut(&Votes) -> bool) {
    let mut seen = node.votes();
    let found = seen.wait_for(|v| v.as_ref().is_some_and(&mut want));
    let found = tokio::time::timeout(LIMIT, found).await.map(|v| v.unwrap().is_some());
    assert!(
        found.is_ok(),
        "{}: not within {LIMIT:?}: {what}; {:?}",
        node.name(),
        node.votes().borrow()
    );
}

async fn writes(node: &Handle, value: &str) {
    assert!(matches!(node.propose(attr("n1", value)).await.unwrap(), Outcome::Done { .. }));
}

/// Of five two are left, one after another was lost, and the two still write: raft's voters follow the votes. Then all come back.
#[tokio::test(flavor = "multi_thread")]
async fn the_last_men_standing_write_on() {
    let world = World::new();
    let mut nodes = world.cluster(5).await;
    let all: Vec<&Handle> = nodes.iter().collect();
    let window = [("last_man_standing", "1"), ("last_man_standing_window", "1500ms")];
    options(&all, &window).await;
    for left in (2..5).rev() {
        drop(nodes.pop().unwrap());
        for node in &nodes {
            voters(node, left).await;
            votes(node, "a majority of those who are left", |v| {
                v.quorate && v.struck.len() == 5 - left
            })
            .await;
        }
        writes(&nodes[0], &format!("{left} are left")).await;
    }
    // One of two is no majority, whoever was counted before.
    drop(nodes.pop().unwrap());
    votes(&nodes[0], "half is not enough", |v| !v.quorate && v.words.contains("missing: n2")).await;
    quorate(&nodes[0], false, LIMIT).await;
    for number in 2..=5 {
        nodes.push(starts(&world, &format!("n{number}")).await);
    }
    for node in &nodes {
        voters(node, 5).await;
        votes(node, "all are counted", |v| v.quorate && v.struck.is_empty()).await;
        state(node, "the last write", |s| has(s, "n1", "2 are left")).await;
    }
    for node in nodes {
        node.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_the_one_that_breaks_ties_goes_on_and_the_other_does_not() {
    let world = World::new();
    let mut nodes = world.cluster(2).await;
    options(&[&nodes[0], &nodes[1]], &[("auto_tie_breaker", "1")]).await;
    let (two, one) = (nodes.pop().unwrap(), nodes.pop().unwrap());
    dies(two, &one).await;
    votes(&one, "breaks the tie", |v| v.quorate && v.words.contains("`n1` breaks the tie")).await;
    let two = starts(&world, "n2").await;
    quorate(&one, true, LIMIT).await;
    votes(&two, "both are here", |v| v.quorate).await;
    dies(one, &two).await;
    votes(&two, "the tie is lost", |v| {
        !v.quorate && v.words.contains("`n1`, which breaks the tie, is not")
    })
    .await;
    // What it has counted by outlives it, before anybody tells it of the options.
    drop(two);
    let two = starts(&world, "n2").await;
    votes(&two, "the tie is still lost", |v| !v.quorate).await;
    two.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_are_waited_for_once_or_the_wait_is_ended_by_hand() {
    let world = World::new();
    let nodes = world.cluster(3).await;
    let all: Vec<&Handle> = nodes.iter().collect();
    options(&all, &[("wait_for_all", "1")]).await;
    for node in nodes {
        node.shutdown().await;
    }
    let (one, two) = (starts(&world, "n1").await, starts(&world, "n2").await);
    quorate(&one, true, LIMIT).await;
    for node in [&one, &two] {
        votes(node, "waits", |v| !v.quorate && v.waiting && v.words.contains("missing: n3")).await;
    }
    one.cancel_wait();
    for node in [&one, &two] {
        votes(node, "waits no more", |v| v.quorate).await;
    }
    for node in [one, two] {
        node.shutdown().await;
    }
    let nodes =
        [starts(&world, "n1").await, starts(&world, "n2").await, starts(&world, "n3").await];
    for node in &nodes {
        votes(node, "all are here", |v| v.quorate && !v.waiting).await;
    }
    for node in nodes {
        node.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_leaves_cleanly_is_expected_no_more() {
    let world = World::new();
    let mut nodes = world.cluster(3).await;
    let all: Vec<&Handle> = nodes.iter().collect();
    options(&all, &[("allow_downscale", "1"), ("expected_votes", "2")]).await;
    nodes.pop().unwrap().shutdown().await;
    for node in &nodes {
        votes(node, "two are expected", |v| v.words.contains("2 of 2 votes")).await;
    }
    // Whose power fails is expected still.
    let two = nodes.pop().unwrap();
    dies(two, &nodes[0]).await;
    votes(&nodes[0], "two are expected still", |v| v.words.contains("1 of 2 votes")).await;
    nodes.pop().unwrap().shutdown().await;
}

/// An option that is set while a node is away does not stop those who are quorate; taken back, nothing of it is left.
#[tokio::test(flavor = "multi_thread")]
async fn an_option_set_while_the_cluster_runs_stops_nobody() {
    let world = World::new();
    let mut nodes = world.cluster(3).await;
    drop(nodes.pop().unwrap());
    let mut told = nodes[0].votes();
    options(&[&nodes[0], &nodes[1]], &[("wait_for_all", "1")]).await;
    assert_eq!(told.borrow_and_update().as_ref().map(|v| v.quorate), Some(true));
    let file = world.dirs("n1").data.join("quorum.json");
    assert!(file.exists());
    let state = nodes[0].state().borrow().clone();
    let mut cib = Box::new(Cib::clone(&state.cib));
    cib.properties.pairs.retain(|pair| pair.name != "wait_for_all");
    let (author, message) = (String::new(), String::new());
    let command = Command::CommitCib { base: state.version, cib, author, message, when_ms: 0 };
    nodes[0].propose(command).await.unwrap();
    within(LIMIT, "no votes are counted", told.wait_for(Option::is_none)).await.unwrap();
    assert!(!file.exists());
    for node in nodes {
        node.shutdown().await;
    }
}

async fn is_back(node: &Handle) {
    leadership(node, LIMIT, |l| l.stale).await;
    node.stopped();
    leadership(node, LIMIT, |l| l.quorate && !l.stale && l.voters.len() == 3).await;
}

/// Of three one goes on alone: the second one is confirmed off, the third one had been struck out. Both come back, in either order, and
/// together.
#[tokio::test(flavor = "multi_thread")]
async fn the_last_one_takes_all_the_others_back() {
    let world = World::new();
    let mut nodes = world.cluster(3).await;
    let all: Vec<&Handle> = nodes.iter().collect();
    let pairs = [
        ("last_man_standing", "1"),
        ("last_man_standing_window", "1s"),
        ("auto_tie_breaker", "1"),
        ("wait_for_all", "1"),
    ];
    options(&all, &pairs).await;
    for order in [["n2", "n3"], ["n3", "n2"], ["both", ""]] {
        let (three, two) = (nodes.pop().unwrap(), nodes.pop().unwrap());
        let one = nodes.pop().unwrap();
        drop(three);
        for node in [&one, &two] {
            voters(node, 2).await;
        }
        dies(two, &one).await;
        let how = How::Hand { operator: "test".to_owned() };
        one.confirmed_off("n2", one.incarnation_of("n2"), how, 1);
        alone(&one).await;
        writes(&one, &format!("{order:?}")).await;
        if order[0] == "both" {
            let (two, three) = tokio::join!(reboots(&world, "n2"), reboots(&world, "n3"));
            tokio::join!(is_back(&two), is_back(&three));
            nodes.extend([one, two, three]);
        } else {
            let first = reboots(&world, order[0]).await;
            leadership(&first, LIMIT, |l| l.stale).await;
            first.stopped();
            leadership(&first, LIMIT, |l| l.quorate && !l.stale && l.voters.len() == 2).await;
            let second = reboots(&world, order[1]).await;
            is_back(&second).await;
            nodes.extend([one, first, second]);
            nodes.sort_by(|a, b| a.name().cmp(b.name()));
        }
        for node in &nodes {
            voters(node, 3).await;
            votes(node, "all are here", |v| v.quorate && v.struck.is_empty()).await;
            state(node, "the last write", |s| has(s, "n1", &format!("{order:?}"))).await;
        }
    }
    for node in nodes {
        node.shutdown().await;
    }
}

/// How the votes stand is not counted by when it cannot be kept, and not made up when it cannot be read.
#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_stored_or_read_is_no_quorum() {
    let world = World::new();
    let mut nodes = world.cluster(2).await;
    let file = world.dirs("n2").data.join("quorum.json");
    // A file cannot take the place of a directory.
    std::fs::create_dir(&file).unwrap();
    let two = nodes.pop().unwrap();
    let mut told = two.failure();
    options(&[&nodes[0]], &[("auto_tie_breaker", "1")]).await;
    let why = within(LIMIT, "n2 says why", told.wait_for(Option::is_some)).await.unwrap().clone();
    assert!(
        why.as_ref().is_some_and(|w| w.starts_with("cannot store how the votes stand: ")),
        "{why:?}"
    );
    votes(&two, "does not count", |v| !v.quorate && v.words.starts_with("cannot store")).await;
    two.shutdown().await;

    std::fs::remove_dir(&file).unwrap();
    let two = starts(&world, "n2").await;
    votes(&two, "counts", |v| v.quorate).await;
    two.shutdown().await;
    let bytes = std::fs::read(&file).unwrap();
    std::fs::write(&file, &bytes[..bytes.len() / 2]).unwrap();
    let refused =
        crm_membership::start(world.settings("n2"), world.run_dir("n2")).await.err().unwrap();
    let words = std::error::Error::source(&refused).unwrap().to_string();
    assert!(
        words.contains("quorum.json` is damaged") && words.contains("restore it, or"),
        "{words}"
    );
    nodes.pop().unwrap().shutdown().await;
}
