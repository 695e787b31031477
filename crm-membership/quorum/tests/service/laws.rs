//! Laws of service quorum under random events. Views need not agree: who hears whom is any graph.
//! Further laws (a wait ends only for a reason, an event counts once) are checked in `cluster` at every event.

use crate::cluster::{Cluster, members};
use crm_quorum::votes::{Event, Memory};
use crm_quorum::{Arbiter, Member, Policy, Quorum, TieNode};
use proptest::prelude::*;
use std::collections::BTreeSet;

/// Something that befalls a cluster; numbers are taken modulo what there is.
#[derive(Debug, Clone)]
enum Act {
    /// Each node goes into one of three groups; the arbiter is with the first.
    Split(Vec<u8>),
    /// These pairs hear each other, by bits.
    Graph(u32),
    Crash(u8),
    Start(u8),
    Leave(u8),
    /// One node alone hears what is said.
    Hear(u8),
    /// Time passes; each node notices when it hears again.
    Pass(u64),
    Cancel(u8),
    /// A quorate node takes this member in, or out.
    Seat(u8, u8),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => prop::collection::vec(0u8..3, 6).prop_map(Act::Split),
        3 => any::<u32>().prop_map(Act::Graph),
        1 => (any::<u32>(), any::<u32>()).prop_map(|(a, b)| Act::Graph(a | b)),
        2 => any::<u8>().prop_map(Act::Crash),
        3 => any::<u8>().prop_map(Act::Start),
        1 => any::<u8>().prop_map(Act::Leave),
        8 => any::<u8>().prop_map(Act::Hear),
        3 => prop_oneof![1u64..12_000, Just(10_000)].prop_map(Act::Pass),
        1 => any::<u8>().prop_map(Act::Cancel),
        1 => (any::<u8>(), 0u8..7).prop_map(|(by, id)| Act::Seat(by, id)),
    ]
}

/// A policy without `two_node`; the arbiter excludes what it does not go with.
fn policy() -> impl Strategy<Value = Policy> {
    let tie_node = prop_oneof![
        Just(TieNode::Lowest),
        Just(TieNode::Highest),
        Just(TieNode::List(vec!["2".to_owned(), "3".to_owned(), "1".to_owned()])),
    ];
    let arbiter = prop_oneof![
        4 => Just(None),
        1 => Just(Some(Arbiter::Ffsplit)),
        1 => Just(Some(Arbiter::Lms))
    ];
    let switches = any::<[bool; 5]>();
    (prop::option::of(1u32..8), switches, tie_node, arbiter).prop_map(
        |(expected_votes, [waits, last_man, tie, downscale, tracking], tie_node, arbiter)| {
            let alone = arbiter.is_none();
            Policy {
                expected_votes,
                two_node: false,
                wait_for_all: Some(waits),
                last_man_standing: last_man && alone,
                last_man_standing_window: None,
                auto_tie_breaker: tie && alone,
                auto_tie_breaker_node: tie_node,
                allow_downscale: downscale && alone,
                expected_votes_tracking: tracking,
                arbiter,
                arbiter_votes: None,
            }
        },
    )
}

fn pick(names: &[String], number: u8) -> Option<String> {
    names.get(usize::from(number) % names.len().max(1)).cloned()
}

fn perform(cluster: &mut Cluster, act: &Act) {
    let all: Vec<String> = cluster.nodes.keys().cloned().collect();
    match act {
        Act::Split(groups) => {
            let of = |index: usize| groups.get(index).copied();
            cluster.links = pairs(&all).filter(|(i, j, _)| of(*i) == of(*j)).map(|p| p.2).collect();
            let with_arbiter = all.iter().enumerate().filter(|(i, _)| of(*i) == Some(0));
            cluster.arbiter = with_arbiter.map(|(_, name)| name.clone()).collect();
        }
        Act::Graph(bits) => {
            // In a graph without groups an arbiter that gives its votes to one side gives them to nobody.
            cluster.arbiter.clear();
            cluster.links = pairs(&all)
                .enumerate()
                .filter(|(bit, _)| bits >> (bit % 32) & 1 == 1)
                .map(|(_, pair)| pair.2)
                .collect();
        }
        Act::Crash(number) => {
            if let Some(name) = pick(&cluster.up(), *number) {
                cluster.crash(&name);
            }
        }
        Act::Start(number) => {
            if let Some(name) = pick(&all, *number) {
                cluster.start(&name);
            }
        }
        Act::Leave(number) => {
            if let Some(name) = pick(&cluster.up(), *number) {
                cluster.apply(&name, Event::Leave);
                let up = cluster.up();
                cluster.round(&up);
                cluster.crash(&name);
            }
        }
        Act::Hear(number) => {
            if let Some(name) = pick(&cluster.up(), *number) {
                cluster.hear(&name);
            }
        }
        Act::Pass(ms) => {
            cluster.now += ms;
        }
        Act::Cancel(number) => {
            if let Some(name) = pick(&cluster.up(), *number) {
                cluster.apply(&name, Event::CancelWait);
            }
        }
        Act::Seat(by, id) => seat(cluster, *by, *id),
    }
}

/// A change of members, as the log does it: decided by a quorate node, taken in by all that it sees.
fn seat(cluster: &mut Cluster, by: u8, id: u8) {
    let up = cluster.up();
    cluster.round(&up);
    let able: Vec<(String, BTreeSet<String>)> = quorate(cluster);
    let Some((by, side)) = able.get(usize::from(by) % able.len().max(1)) else { return };
    let newest = cluster.configs.len() - 1;
    let member = |m: &Member| m.id == u64::from(id);
    let mut members = cluster.configs[newest].clone();
    if cluster.nodes[by].config != newest || members.len() < 2 {
        return;
    }
    if members.iter().any(member) {
        members.retain(|m| !member(m));
    } else if cluster.configs[0].iter().any(member) {
        members.push(Member { name: id.to_string(), id: u64::from(id), votes: 1 });
    }
    cluster.configs.push(members);
    for name in side {
        cluster.configure(name, newest + 1);
    }
}

fn pairs(names: &[String]) -> impl Iterator<Item = (usize, usize, (String, String))> {
    let indexed = |i: usize| names.iter().enumerate().skip(i + 1);
    names
        .iter()
        .enumerate()
        .flat_map(move |(i, a)| indexed(i).map(move |(j, b)| (i, j, (a.clone(), b.clone()))))
}

/// Nodes that are quorate, each with all that it sees, itself among them.
fn quorate(cluster: &Cluster) -> Vec<(String, BTreeSet<String>)> {
    let mut sides = Vec::new();
    for name in cluster.up() {
        if cluster.core(&name).verdict().quorate {
            let mut side: BTreeSet<String> = cluster.sees(&name).into_keys().collect();
            side.insert(name.clone());
            sides.push((name, side));
        }
    }
    sides
}

/// Two quorate nodes that see no node in common.
fn two_sides(cluster: &Cluster) -> Option<String> {
    let sides = quorate(cluster);
    let apart = |(i, (a, mine)): (usize, &(String, BTreeSet<String>))| {
        let other = sides.iter().skip(i + 1).find(|(_, theirs)| mine.is_disjoint(theirs))?;
        Some(format!("{a} sees {mine:?} and {} sees {:?}", other.0, other.1))
    };
    sides.iter().enumerate().find_map(apart)
}

/// Performs the acts; after each of them all hear once, in a random order, and nowhere are two sides.
fn never_two_sides(
    cluster: &mut Cluster,
    acts: &[(Act, u64, bool)],
    between: impl Fn(&mut Cluster),
) -> Result<(), TestCaseError> {
    for (act, seed, all_hear) in acts {
        perform(cluster, act);
        between(cluster);
        if *all_hear {
            let mut order = cluster.up();
            let length = order.len();
            if length > 0 {
                order.rotate_left(usize::try_from(*seed).unwrap_or(0) % length);
            }
            if seed & 64 == 64 {
                order.reverse();
            }
            for _ in 0..2 {
                cluster.round(&order);
                let two = two_sides(cluster);
                prop_assert!(two.is_none(), "after {act:?}: {}", two.unwrap_or_default());
            }
        }
    }
    Ok(())
}

fn acts() -> impl Strategy<Value = Vec<(Act, u64, bool)>> {
    prop::collection::vec((act(), 0u64..128, prop::bool::weighted(0.6)), 1..60)
}

proptest! {
    #[test]
    fn partitions_without_a_common_node_are_never_both_quorate(
        policy in policy(), votes in prop_oneof![
            3 => prop::collection::vec(1u32..2, 2..7),
            1 => prop::collection::vec(0u32..4, 2..7),
        ], acts in acts()
    ) {
        let mut cluster = Cluster::new(policy, &votes);
        let names: Vec<String> = cluster.nodes.keys().cloned().collect();
        names.iter().for_each(|name| cluster.start(name));
        never_two_sides(&mut cluster, &acts, |_| ())?;
    }

    /// What `wait_for_all` is for: nodes that forget replace the ballots by waiting.
    #[test]
    fn with_wait_for_all_memory_may_be_lost(policy in policy(), count in 2usize..7, acts in acts()) {
        let policy = Policy { wait_for_all: Some(true), ..policy };
        // The wait that is cancelled by hand is the administrator's word.
        let acts: Vec<_> = acts.into_iter().filter(|(a, _, _)| !matches!(a, Act::Cancel(_))).collect();
        let mut cluster = Cluster::new(policy, &vec![1; count]);
        let names: Vec<String> = cluster.nodes.keys().cloned().collect();
        names.iter().for_each(|name| cluster.start(name));
        never_two_sides(&mut cluster, &acts, |cluster| {
            for node in cluster.nodes.values_mut().filter(|node| node.core.is_none()) {
                node.memory = Memory::default();
            }
        })?;
    }

    #[test]
    fn a_verdict_is_a_function_of_the_events(policy in policy(), count in 1usize..6, acts in acts()) {
        let mut cluster = Cluster::new(policy.clone(), &vec![1; count]);
        for (act, _, _) in &acts {
            perform(&mut cluster, act);
        }
        let mut fresh = Cluster::new(policy.clone(), &vec![1; count]);
        fresh.start("1");
        for (act, _, _) in acts.iter().filter(|(a, _, _)| !matches!(a, Act::Crash(_) | Act::Start(_))) {
            perform(&mut fresh, act);
        }
        if fresh.up().contains(&"1".to_owned()) {
            let mut again = Quorum::new("1", policy, &members(&vec![1; count]), Memory::default());
            for (now, event) in &fresh.log["1"] {
                again.apply(*now, event.clone());
            }
            prop_assert_eq!(again.verdict(), fresh.core("1").verdict());
            prop_assert_eq!(again.word(), fresh.core("1").word());
        }
    }

    /// Even when they do not agree on who is there.
    #[test]
    fn nodes_that_see_different_peers_come_to_rest(policy in policy(), count in 1usize..7, acts in acts()) {
        let mut cluster = Cluster::new(policy, &vec![1; count]);
        for (act, _, _) in &acts {
            perform(&mut cluster, act);
        }
        cluster.pass(20_000);
        let up = cluster.up();
        for _ in 0..10 {
            cluster.round(&up);
        }
        let words = |cluster: &Cluster| -> Vec<_> { up.iter().map(|n| cluster.core(n).word()).collect() };
        let before = words(&cluster);
        cluster.round(&up);
        prop_assert_eq!(before, words(&cluster));
    }

    #[test]
    fn whoever_sees_all_votes_is_quorate(policy in policy(), count in 1usize..7, acts in acts()) {
        let policy = Policy { expected_votes: None, expected_votes_tracking: false, ..policy };
        let mut cluster = Cluster::new(policy, &vec![1; count]);
        for (act, _, _) in &acts {
            perform(&mut cluster, act);
        }
        let all: Vec<String> = cluster.nodes.keys().cloned().collect();
        cluster.up().iter().for_each(|name| cluster.crash(name));
        cluster.groups(&format!("{}+", all.concat()));
        for Member { name, .. } in cluster.configs.last().unwrap().clone() {
            let verdict = cluster.core(&name).verdict();
            prop_assert!(verdict.quorate, "{name}: {verdict:?}");
        }
    }
}

/// The other side of the promises: two halves of `two_node` are both quorate; only fencing ends that.
#[test]
fn two_node_promises_nothing_without_fencing() {
    let policy = Policy { two_node: true, ..Policy::default() };
    let mut cluster = Cluster::new(policy, &[1, 1]);
    cluster.groups("12");
    cluster.groups("1/2");
    assert!(two_sides(&cluster).is_some());
}

/// And these tests can fail: without memory and without `wait_for_all`, the last men can be deceived.
#[test]
fn a_node_that_forgets_and_does_not_wait_can_split_a_cluster_of_last_men() {
    let policy = Policy { last_man_standing: true, ..Policy::default() };
    let mut cluster = Cluster::new(policy, &[1; 5]);
    cluster.groups("12345");
    cluster.groups("123/45");
    cluster.pass(10_000);
    cluster.groups("12/45");
    cluster.nodes.get_mut("3").unwrap().memory = Memory::default();
    cluster.groups("12/345");
    assert!(two_sides(&cluster).is_some());
}
