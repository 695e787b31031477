//! Laws that hold for every configuration, on generated ones.

use super::world::{World, clone, colocation, group, location, nv, order, prim};
use crate::cib::{Cib, Constraint, OrderAction, OrderKind, Resource, Role, Score};
use proptest::prelude::*;

const NODES: [&str; 3] = ["n1", "n2", "n10"];

#[derive(Debug, Clone)]
struct Shape {
    prims: usize,
    groups: usize,
    clones: usize,
    ms: usize,
    locations: Vec<(usize, usize, i64)>,
    colocations: Vec<(usize, usize, i64, bool)>,
    orders: Vec<(usize, usize, bool)>,
    stickiness: i64,
    events: Vec<(usize, usize)>,
}

fn shapes() -> impl Strategy<Value = Shape> {
    let score = prop_oneof![Just(1_000_000), Just(-1_000_000), -200_i64..200];
    (
        (0_usize..4, 0_usize..3, 0_usize..2, 0_usize..2),
        proptest::collection::vec((0_usize..8, 0_usize..3, score.clone()), 0..5),
        proptest::collection::vec((0_usize..8, 0_usize..8, score, any::<bool>()), 0..4),
        proptest::collection::vec((0_usize..8, 0_usize..8, any::<bool>()), 0..4),
        prop_oneof![Just(0_i64), Just(100)],
        proptest::collection::vec((0_usize..6, 0_usize..3), 1..6),
    )
        .prop_map(
            |((prims, groups, clones, ms), locations, colocations, orders, stickiness, events)| {
                Shape {
                    prims,
                    groups,
                    clones,
                    ms,
                    locations,
                    colocations,
                    orders,
                    stickiness,
                    events,
                }
            },
        )
}

fn build(shape: &Shape) -> Cib {
    let mut cib = Cib {
        properties: nv(&[("stonith-enabled", "false"), ("no-quorum-policy", "stop")]),
        ..Cib::default()
    };
    cib.rsc_defaults = nv(&[("resource-stickiness", &shape.stickiness.to_string())]);
    let p = |id: String| prim(&id, &[("x", "1")], &[("monitor", &[("interval", "10s")])]);
    for i in 0..shape.prims {
        cib.resources.push(Resource::Primitive(p(format!("p{i}"))));
    }
    for i in 0..shape.groups {
        let members = (0..3).map(|m| p(format!("g{i}m{m}"))).collect();
        cib.resources.push(group(&format!("g{i}"), members));
    }
    for i in 0..shape.clones {
        let child = Resource::Primitive(p(format!("c{i}p")));
        cib.resources.push(clone(&format!("c{i}"), child, false, &[("interleave", "true")]));
    }
    for i in 0..shape.ms {
        let child = Resource::Primitive(p(format!("m{i}p")));
        cib.resources.push(clone(&format!("m{i}"), child, true, &[("clone-max", "2")]));
    }
    let ids: Vec<String> = cib.resources.iter().map(|r| r.id().to_owned()).collect();
    let id = |i: usize| ids.get(i % ids.len().max(1)).cloned().unwrap_or_default();
    for (n, (r, node, score)) in shape.locations.iter().enumerate() {
        cib.constraints.push(location(&format!("l{n}"), &id(*r), Score::new(*score), NODES[*node]));
    }
    for (n, (a, b, score, promoted)) in shape.colocations.iter().enumerate() {
        // Dependents have the larger index and follow one resource: no loops, no contradictions.
        let (a, b) = (a % ids.len().max(1), b % ids.len().max(1));
        if a == b {
            continue;
        }
        let (dep, with) = (id(a.max(b)), id(a.min(b)));
        let taken = |c: &Constraint| matches!(c, Constraint::Colocation(c) if c.rsc == dep);
        if cib.constraints.iter().any(taken) {
            continue;
        }
        let role = (*promoted && dep.starts_with('m')).then_some(Role::Promoted);
        cib.constraints.push(colocation(
            &format!("c{n}"),
            Score::new(*score),
            (&dep, role),
            (&with, None),
        ));
    }
    for (n, (a, b, mandatory)) in shape.orders.iter().enumerate() {
        let (a, b) = (a % ids.len().max(1), b % ids.len().max(1));
        if a == b {
            continue;
        }
        let kind = if *mandatory { OrderKind::Mandatory } else { OrderKind::Optional };
        let (first, then) = (id(a.min(b)), id(a.max(b)));
        let start = Some(OrderAction::Start);
        cib.constraints.push(order(&format!("o{n}"), kind, (&first, start), (&then, start)));
    }
    cib
}

fn strike(world: &mut World, event: (usize, usize)) {
    let node = NODES[event.1];
    match event.0 {
        0 => world.set_standby(node, true),
        1 => world.set_standby(node, false),
        2 => world.kill(node, true),
        3 if !world.nodes[node].online => world.revive(node),
        4 => world.quorate = false,
        5 => world.quorate = true,
        _ => {}
    }
}

fn permuted(world: &World) -> World {
    let mut other = world.clone();
    other.cib.nodes.reverse();
    let (locations, mut rest): (Vec<Constraint>, Vec<Constraint>) =
        other.cib.constraints.drain(..).partition(|c| matches!(c, Constraint::Location(_)));
    rest.reverse();
    rest.extend(locations.into_iter().rev());
    other.cib.constraints = rest;
    other
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, failure_persistence: None, ..ProptestConfig::default() })]

    /// The simulator asserts on the way: ids are topological, primitives run once, promoted at most promoted-max.
    #[test]
    fn plans_settle_and_then_there_is_nothing_to_do(shape in shapes()) {
        let mut world = World::new(&NODES, build(&shape));
        world.settle();
        for event in &shape.events {
            strike(&mut world, *event);
            world.settle();
            prop_assert!(world.plan().is_empty());
        }
    }

    #[test]
    fn order_of_nodes_and_constraints_does_not_matter(shape in shapes()) {
        let mut world = World::new(&NODES, build(&shape));
        prop_assert_eq!(world.plan().placements, permuted(&world).plan().placements);
        world.settle();
        for event in &shape.events {
            strike(&mut world, *event);
            let (a, b) = (world.plan(), permuted(&world).plan());
            prop_assert_eq!(&a.placements, &b.placements);
            prop_assert_eq!(&a.summary, &b.summary);
            prop_assert_eq!(&a.reasons, &b.reasons);
            prop_assert_eq!(a.actions.len(), b.actions.len());
            world.execute(&a);
        }
    }

    #[test]
    fn without_quorum_nothing_is_left_running(shape in shapes()) {
        let mut world = World::new(&NODES, build(&shape));
        world.settle();
        world.quorate = false;
        world.settle();
        prop_assert!(world.truth.values().all(|r| *r == Role::Stopped));
    }

    #[test]
    fn a_node_planning_alone_acts_only_on_itself(shape in shapes()) {
        let mut world = World::new(&NODES, build(&shape));
        world.settle();
        for event in &shape.events {
            strike(&mut world, *event);
        }
        if world.nodes["n1"].online {
            let plan = world.plan_only(Some("n1"));
            let log = world.execute(&plan);
            prop_assert!(log.iter().all(|l| l.ends_with(" n1")), "{:?}", log);
        }
    }
}

/// Two that go with one resource, where one of them may not be on the only node on which the other can be promoted now.
#[test]
fn what_is_promoted_with_a_resource_does_not_drive_it_in_circles() {
    let shape = Shape {
        prims: 1,
        groups: 0,
        clones: 1,
        ms: 1,
        locations: vec![(1, 1, -1_000_000), (0, 0, -1_000_000)],
        colocations: vec![(1, 3, 1_000_000, false), (0, 2, 1_000_000, true)],
        orders: vec![(1, 2, true)],
        stickiness: 0,
        events: Vec::new(),
    };
    let mut world = World::new(&NODES, build(&shape));
    world.settle();
    assert!(world.running("n10").contains("p0") && world.running("n10").contains("c0p"));
}

/// A group that two follow, the promoted one in last place.
#[test]
fn what_is_promoted_with_a_group_does_not_drive_it_in_circles() {
    let shape = Shape {
        prims: 0,
        groups: 1,
        clones: 1,
        ms: 1,
        locations: vec![(0, 1, -1_000_000), (1, 0, -1_000_000)],
        colocations: vec![(0, 2, 1_000_000, true), (1, 0, 1_000_000, false)],
        orders: vec![(1, 2, true)],
        stickiness: 0,
        events: Vec::new(),
    };
    let mut world = World::new(&NODES, build(&shape));
    world.settle();
    assert!(world.running("n10").contains("g0m2") && world.running("n10").contains("c0p"));
}

/// What follows stays where it is, and what must keep away from that in turn has its own place: that is heard in every state.
#[test]
fn what_stays_does_not_drown_what_is_bound_to_it() {
    let shape = Shape {
        prims: 2,
        groups: 0,
        clones: 1,
        ms: 0,
        locations: vec![(0, 2, -101), (2, 2, 1_000_000)],
        colocations: vec![(0, 1, -1_000_000, false), (2, 1, -1_000_000, false)],
        orders: Vec::new(),
        stickiness: 100,
        events: Vec::new(),
    };
    let mut world = World::new(&NODES, build(&shape));
    world.settle();
    world.kill("n1", true);
    world.settle();
    assert!(world.running("n10").contains("c0p"));
}

/// What would have to make way runs before the promotable, which has to stop with it: being promoted there is not worth that.
#[test]
fn what_is_promoted_with_a_resource_does_not_drive_out_what_runs_before_it() {
    let never = -1_000_000;
    let shape = Shape {
        prims: 2,
        groups: 0,
        clones: 0,
        ms: 1,
        locations: vec![(0, 2, never), (1, 1, never), (1, 2, never)],
        colocations: vec![(0, 1, never, false), (0, 2, 1_000_000, true)],
        orders: vec![(1, 2, true)],
        stickiness: 0,
        events: Vec::new(),
    };
    let mut world = World::new(&NODES, build(&shape));
    world.settle();
    assert!(
        world.running("n1").contains("p1") && world.running("n2").contains("p0"),
        "{:?}",
        world.truth
    );
}
