//! Every state that two nodes can reach within stated bounds, by breadth-first search over the real core
//! and an abstract raft (ADR-0010). Messages are lost, or late; power fails; daemons restart; both fence.
//!
//! An own search of a hundred lines and not `stateright`: the law "there is always a way back" needs the
//! whole graph's branching, which its `eventually` does not check, and it would bring a web server.

use super::{Flaw, Order, Refused, Service};
use crate::lineage::{Relation, relation};
use node::{Node, Role};
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::hash::{Hash, Hasher};
use std::rc::Rc;
use world::{Act, Left, Way, World};

mod node;
mod world;

/// What is explored.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    /// Raft terms; the cluster starts in term 1.
    terms: u8,
    left: Left,
    flaw: Option<Flaw>,
    /// A planted fault of the caller: the confirmation comes before the fencing.
    unconfirmed: bool,
    /// What happened before.
    prelude: &'static [Act],
    /// The only law that is looked at.
    only: Option<&'static str>,
    /// Nobody stands for election whom the other does not hear.
    pre_vote: bool,
    /// A log is sent entry by entry.
    entry_by_entry: bool,
    /// States at most; more is a failure of the test.
    states: usize,
}

struct Report {
    states: usize,
    depth: usize,
    calm: usize,
    /// A law that was broken, and the shortest way to it.
    broken: Option<(String, Vec<Act>)>,
}

/// Two words of a fingerprint: the chance that two of ten million states share theirs is below 1e-23.
#[derive(Default)]
struct Print(u64, u64);

impl Print {
    fn mix(&mut self, word: u64) {
        self.0 = (self.0 ^ word).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29);
        self.1 = (self.1.rotate_left(23) ^ word).wrapping_mul(0xD6E8_FEB8_6659_FD93);
        self.1 ^= self.1 >> 32;
    }
}

impl Hasher for Print {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.mix(u64::from_le_bytes(word));
        }
    }

    fn write_u8(&mut self, n: u8) {
        self.mix(u64::from(n));
    }

    fn write_u64(&mut self, n: u64) {
        self.mix(n);
    }

    fn write_usize(&mut self, n: usize) {
        self.mix(n as u64);
    }

    fn finish(&self) -> u64 {
        self.0 ^ self.1
    }
}

fn print_of(value: &impl Hash) -> u128 {
    let mut print = Print::default();
    value.hash(&mut print);
    print.mix(0);
    u128::from(print.0) << 64 | u128::from(print.1)
}

/// Visits all states, nearest first.
fn search(bounds: &Bounds) -> Report {
    let first = World::new(bounds);
    assert_eq!(first.watch.broken, None);
    let mut seen = BTreeSet::from([first.print()]);
    let mut good = BTreeSet::new();
    let mut ways: Vec<(usize, Option<Act>)> = vec![(0, None)];
    let mut layer = vec![(0_usize, first)];
    let mut report = Report { states: 1, depth: 0, calm: 0, broken: None };
    while !layer.is_empty() {
        let mut next = Vec::new();
        for (from, world) in layer {
            for act in world.acts(bounds) {
                let mut after = world.clone();
                after.act(act, bounds);
                if !seen.insert(after.print()) {
                    continue;
                }
                ways.push((from, Some(act)));
                let law = after.watch.broken.map(str::to_owned).or_else(|| {
                    let stuck = bounds.only.is_none() && !comes_back(&after, &mut good, bounds);
                    stuck.then(|| "no way back to a quorum".to_owned())
                });
                if let Some(law) = law {
                    report.states = ways.len();
                    report.broken = Some((law, trace(&ways)));
                    return report;
                }
                next.push((ways.len() - 1, after));
            }
        }
        assert!(ways.len() <= bounds.states, "more than {} states", bounds.states);
        report.depth += usize::from(!next.is_empty());
        layer = next;
    }
    report.states = ways.len();
    report.calm = good.len();
    report
}

fn trace(ways: &[(usize, Option<Act>)]) -> Vec<Act> {
    let mut acts = Vec::new();
    let mut at = ways.len() - 1;
    while let (from, Some(act)) = ways[at] {
        acts.push(act);
        at = from;
    }
    acts.reverse();
    acts
}

/// From here, with no more faults, both nodes powered and the network whole, both can serve again with
/// every acknowledged write; only a divergence that an operator forced may stay.
fn comes_back(world: &World, good: &mut BTreeSet<u128>, bounds: &Bounds) -> bool {
    let bounds = Bounds { terms: u8::MAX, unconfirmed: false, ..*bounds };
    let mut calm = world.clone();
    calm.calm_down(&bounds);
    let key = print_of(&(&calm.nodes, calm.watch.acked));
    good.contains(&key)
        || [0, 1].into_iter().any(|first| recover(calm.clone(), first, &bounds)) && good.insert(key)
}

fn recover(mut world: World, first: usize, bounds: &Bounds) -> bool {
    for _ in 0..40 {
        for n in [first, 1 - first] {
            world.act(Act::Ping(n, Way::Heard), bounds);
            if world.asks_back(n) {
                world.act(Act::Rejoin(n), bounds);
            }
            if world.nodes[n].core.step().is_some() {
                world.act(Act::Step(n), bounds);
            }
            replace_wiped(&mut world, n, bounds);
        }
        // A leader of an older generation leads nobody.
        let able = |n: &usize| world.nodes[*n].core.may_elect();
        let leads = |n: &usize| able(n) && world.nodes[*n].role == Role::Leader;
        if ![0, 1].iter().any(leads)
            && let Some(n) = [first, 1 - first].into_iter().find(able)
        {
            world.act(Act::Campaign(n, Some(Way::Heard)), bounds);
        }
        for n in [0, 1] {
            if world.nodes[n].role == Role::Leader {
                world.act(Act::Append(n, Way::Heard), bounds);
            }
        }
        if world.watch.broken.is_none() && is_well(&world) {
            return true;
        }
    }
    false
}

/// A node that was wiped never comes back under its old id: the other takes over, by an operator's word if
/// it was not up (wiping is an operator's act too).
fn replace_wiped(world: &mut World, n: usize, bounds: &Bounds) {
    let gone =
        world.wiped && world.nodes[1 - n].log.is_empty() && world.nodes[n].core.pair().is_some();
    if !gone || world.nodes[n].core.step().is_some() {
        return;
    }
    world.act(Act::Lost(n), bounds);
    let order = Order::CancelWait { operator: "root".to_owned() };
    let (node, watch) = world.node(n);
    match node.core.order(order) {
        Ok(out) => node.apply(out, watch),
        // The newest generation was wiped.
        Err(Refused::GoneOn) => return world.act(Act::Force(n), bounds),
        Err(_) => return,
    }
    for act in [Act::Fences(n), Act::Confirmed(n), Act::Boot(1 - n)] {
        world.act(act, bounds);
    }
}

fn is_well(world: &World) -> bool {
    let [a, b] = &world.nodes;
    let apart = relation(&a.core.line(), &b.core.line());
    if world.watch.forced && matches!(apart, Relation::Diverged { .. }) {
        return [a, b].iter().all(|n| n.core.durable().diverged.is_some());
    }
    let leads = |n: &&Rc<Node>| n.role == Role::Leader && n.commit == n.log.len();
    let served = |n: &&Rc<Node>| n.up && n.core.service() == Service::Full;
    [a, b].iter().any(leads) && [a, b].iter().all(served) && apart == Relation::Equal
}

/// One line per step: what happened, and how both nodes stand.
fn told(bounds: &Bounds, acts: &[Act]) -> String {
    let mut world = World::new(bounds);
    let mut text = String::new();
    for act in acts {
        world.act(*act, bounds);
        let states = world.nodes.iter().map(|n| {
            if !n.up {
                return "off".to_owned();
            }
            let line = n.core.line().len() - 1;
            let (role, term, end, commit) = (n.role, n.term, n.log.len(), n.commit);
            let service = n.core.service();
            format!("{role:?} t{term} log {end}/{commit} gen {line} {service:?}")
        });
        let states: Vec<String> = states.collect();
        let act = format!("{act:?}");
        writeln!(text, "  {act:<32} | {:<42} | {}", states[0], states[1]).unwrap();
    }
    text
}

const NONE: Left =
    Left { fencings: 0, boots: [0; 2], restarts: 0, late: 0, forces: 0, wipes: 0, writes: 0 };
const BOUNDS: Bounds = Bounds {
    terms: 3,
    left: NONE,
    flaw: None,
    unconfirmed: false,
    prelude: &[],
    only: None,
    pre_vote: true,
    entry_by_entry: false,
    states: 4_000_000,
};

fn holds(name: &str, bounds: &Bounds) {
    let report = search(bounds);
    println!(
        "{name}: {} states, {} steps deep, {} situations with a way back",
        report.states, report.depth, report.calm
    );
    if let Some((law, acts)) = report.broken {
        panic!("{law}:\n{}", told(bounds, &acts));
    }
}

#[test]
fn one_fencing_holds_every_law() {
    let left = Left { fencings: 1, boots: [0, 1], writes: 1, ..NONE };
    holds("one fencing, one reboot, one write", &Bounds { left, ..BOUNDS });
}

#[test]
fn both_fencing_at_once_holds_every_law() {
    let left = Left { fencings: 2, boots: [1, 1], ..NONE };
    holds("two fencings, a reboot of each", &Bounds { terms: 2, left, ..BOUNDS });
}

#[test]
fn restarts_of_the_daemons_hold_every_law() {
    let left = Left { fencings: 1, boots: [0, 1], restarts: 1, ..NONE };
    holds("one fencing, reboot and restart", &Bounds { left, ..BOUNDS });
}

#[test]
fn a_late_message_holds_every_law() {
    let left = Left { fencings: 1, boots: [0, 1], late: 1, ..NONE };
    holds("one fencing, reboot and late message", &Bounds { terms: 2, left, ..BOUNDS });
}

#[test]
fn a_second_takeover_holds_every_law() {
    let left = Left { fencings: 1, boots: [1, 0], writes: 1, ..NONE };
    let bounds = Bounds { left, prelude: SECOND_TOOK_OVER, ..BOUNDS };
    holds("after a takeover and a return: one fencing, reboot and write", &bounds);
}

#[test]
fn a_node_that_was_emptied_holds_every_law() {
    let left = Left { boots: [0, 1], wipes: 1, writes: 1, ..NONE };
    let bounds = Bounds { terms: 4, left, prelude: SECOND_TOOK_OVER, ..BOUNDS };
    holds("after a takeover and a return: one emptied data directory, one write", &bounds);
}

/// Two lines are what the operator asked for; they must meet as such, and a stale side must stop.
#[test]
fn a_forced_generation_is_found_out_on_contact() {
    let left = Left { forces: 2, ..NONE };
    holds("two forced generations", &Bounds { left, ..BOUNDS });
    let left = Left { forces: 1, boots: [0, 1], ..NONE };
    holds("one forced generation, one reboot", &Bounds { terms: 2, left, ..BOUNDS });
}

/// One fencing, and the fenced node boots once.
const ONE: Left = Left { fencings: 1, boots: [0, 1], ..NONE };
const WIDE: Bounds = Bounds { states: 30_000_000, ..BOUNDS };

#[test]
#[ignore = "minutes: nightly"]
fn wide_fencings_hold_every_law() {
    let both = Left { boots: [1, 1], ..ONE };
    holds("wide: two fencings", &Bounds { left: Left { fencings: 2, ..both }, ..WIDE });
    holds("wide: one fencing, one write", &Bounds { left: Left { writes: 1, ..both }, ..WIDE });
    let writes = Left { writes: 2, ..ONE };
    holds("wide: two writes, four terms", &Bounds { terms: 4, left: writes, ..WIDE });
}

#[test]
#[ignore = "minutes: nightly"]
fn wide_late_messages_hold_every_law() {
    let late = Left { late: 1, ..ONE };
    holds("wide: a late message", &Bounds { left: late, ..WIDE });
    let left = Left { writes: 1, ..late };
    holds("wide: a late message, a write", &Bounds { terms: 2, left, ..WIDE });
}

#[test]
#[ignore = "minutes: nightly"]
fn wide_restarts_and_elections_hold_every_law() {
    let left = Left { writes: 1, ..ONE };
    let restarts = Left { restarts: 1, ..left };
    holds("wide: a restart, a write", &Bounds { left: restarts, ..WIDE });
    holds("wide: elections without pre-vote", &Bounds { pre_vote: false, left, ..WIDE });
}

#[test]
#[ignore = "minutes: nightly"]
fn wide_forces_and_emptied_nodes_hold_every_law() {
    let left = Left { forces: 1, late: 1, writes: 1, ..NONE };
    holds("wide: a forced generation, a late message", &Bounds { left, ..WIDE });
    let left = Left { forces: 1, boots: [0, 1], restarts: 1, ..NONE };
    holds("wide: a forced generation, a reboot, a restart", &Bounds { left, ..WIDE });
    let left = Left { boots: [0, 1], wipes: 1, writes: 1, ..NONE };
    let bounds = Bounds { terms: 4, left, prelude: SECOND_TOOK_OVER, ..WIDE };
    let bounds = Bounds { entry_by_entry: true, ..bounds };
    holds("wide: an emptied node, entry by entry", &bounds);
}

/// Far beyond what can be visited whole: everything may happen several times.
const FAR: Left =
    Left { fencings: 6, boots: [6, 6], restarts: 3, late: 4, forces: 0, wipes: 0, writes: 6 };

/// Random ways, each of a hundred steps; a broken law is printed with its way.
fn walk(bounds: &Bounds, seeds: std::ops::Range<u64>) {
    let mut good = BTreeSet::new();
    for seed in seeds.clone() {
        let (mut world, mut acts, mut at) = (World::new(bounds), Vec::new(), Print::default());
        at.mix(seed);
        for _ in 0..100 {
            let choice = world.acts(bounds);
            at.mix(1);
            let Some(of) = at.finish().checked_rem(choice.len() as u64) else { break };
            let act = choice[usize::try_from(of).unwrap()];
            acts.push(act);
            world.act(act, bounds);
            let broken = world.watch.broken;
            let back = comes_back(&world, &mut good, bounds);
            assert!(
                broken.is_none() && back,
                "seed {seed}: {broken:?}, way back: {back}:\n{}",
                told(bounds, &acts)
            );
        }
    }
    println!("{seeds:?}: {} situations with a way back", good.len());
}

#[test]
fn random_ways_far_beyond_the_bounds_hold_every_law() {
    let far = Bounds { terms: 12, left: FAR, ..BOUNDS };
    walk(&far, 0..400);
    walk(&Bounds { left: Left { forces: 2, wipes: 1, ..FAR }, ..far }, 400..800);
}

#[test]
#[ignore = "minutes: nightly"]
fn wide_random_ways_hold_every_law() {
    let far = Bounds { terms: 12, left: FAR, ..BOUNDS };
    walk(&far, 10_000..20_000);
    walk(&Bounds { pre_vote: false, ..far }, 20_000..30_000);
    walk(&Bounds { left: Left { forces: 2, wipes: 1, ..FAR }, ..far }, 30_000..40_000);
}

/// A planted fault must break that law; the shortest way to it is printed.
fn caught(name: &str, law: &'static str, bounds: &Bounds) {
    let bounds = Bounds { only: Some(law), ..*bounds };
    let report = search(&bounds);
    let (law, acts) = report.broken.expect("the planted fault is caught");
    println!("{name}: {law}, after {} states:\n{}", report.states, told(&bounds, &acts));
}

const SPLIT: &str = "two generations commit";
const LOST: &str = "an acknowledged write is lost";

#[test]
fn a_takeover_before_the_confirmation_is_caught() {
    let left = Left { writes: 1, ..NONE };
    let bounds = Bounds { left, unconfirmed: true, ..BOUNDS };
    caught("takeover before confirmation", SPLIT, &bounds);
    caught("takeover before confirmation", LOST, &bounds);
}

#[test]
fn a_takeover_without_currency_is_caught() {
    let left = Left { fencings: 2, boots: [0, 1], writes: 1, ..NONE };
    let bounds = Bounds { left, flaw: Some(Flaw::NoCurrency), ..BOUNDS };
    caught("takeover without currency", LOST, &bounds);
}

#[test]
fn a_lineage_compared_in_votes_only_is_caught() {
    let left = Left { fencings: 2, boots: [0, 1], writes: 1, ..NONE };
    let bounds = Bounds { left, flaw: Some(Flaw::VotesOnly), ..BOUNDS };
    caught("lineage on votes only", LOST, &bounds);
}

#[test]
fn a_stale_node_that_keeps_its_quorum_is_caught() {
    let left = Left { forces: 1, ..NONE };
    let bounds = Bounds { left, flaw: Some(Flaw::StaleKeeps), ..BOUNDS };
    caught("stale node keeps quorum", "a stale node keeps its quorum", &bounds);
}

#[test]
fn a_confirmation_of_an_older_incarnation_is_caught() {
    let left = Left { fencings: 2, boots: [0, 1], writes: 1, ..NONE };
    let bounds = Bounds { left, flaw: Some(Flaw::OldConfirmation), ..BOUNDS };
    caught("confirmation for an older incarnation", LOST, &bounds);
}

/// The second node has taken over the first, which is back; both are in quorum again.
const SECOND_TOOK_OVER: &[Act] = &[
    Act::Lost(1),
    Act::Fences(1),
    Act::Confirmed(1),
    Act::Step(1),
    Act::Step(1),
    Act::Step(1),
    Act::Boot(0),
    Act::Ping(1, Way::AnswerLost),
    Act::Rejoin(0),
    Act::Append(1, Way::Heard),
    Act::Append(1, Way::Heard),
    Act::Append(1, Way::Heard),
    Act::Append(1, Way::Heard),
    Act::Append(1, Way::Heard),
    Act::Append(1, Way::Heard),
    Act::Append(1, Way::Heard),
    Act::Append(1, Way::Heard),
    Act::Append(1, Way::Heard),
    Act::Ping(0, Way::Heard),
    Act::Ping(1, Way::Heard),
];

#[test]
fn an_emptied_node_under_its_old_id_is_caught() {
    let left = Left { boots: [0, 1], wipes: 1, ..NONE };
    let flaw = Some(Flaw::IdReused);
    let bounds = Bounds { terms: 4, left, flaw, prelude: SECOND_TOOK_OVER, ..BOUNDS };
    caught("raft id reused after wipe", SPLIT, &Bounds { entry_by_entry: true, ..bounds });
}
