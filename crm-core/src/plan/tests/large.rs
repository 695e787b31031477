//! Claims about what large or tangled configurations cost, counted in steps, not in time.

use super::world::{colocation, dummy, location, nv, order};
use crate::cib::{Cib, Constraint, Node, OrderKind, Score};
use crate::plan::model::Model;
use crate::plan::read::PATIENCE;
use crate::plan::{ActionKind, Input, NodeView, criteria, implicit, plan, read};
use crate::status::Status;
use std::collections::BTreeMap;

fn cluster(resources: usize, constraints: Vec<Constraint>) -> Cib {
    let names = ["n1", "n2", "n3"];
    let nodes = names.iter().zip(1..);
    Cib {
        nodes: nodes
            .map(|(name, id)| Node { id, name: (*name).into(), ..Node::default() })
            .collect(),
        properties: nv(&[("stonith-enabled", "false")]),
        resources: (0..resources).map(|i| dummy(&format!("r{i}"))).collect(),
        constraints,
        ..Cib::default()
    }
}

fn views() -> BTreeMap<String, NodeView> {
    let view = NodeView { online: true, clean: true, pending: false };
    ["n1", "n2", "n3"].into_iter().map(|n| (n.to_owned(), view)).collect()
}

fn input<'a>(cib: &'a Cib, status: &'a Status, nodes: &'a BTreeMap<String, NodeView>) -> Input<'a> {
    Input { cib, status, nodes, quorate: true, only: None, now_ms: 0, pacemaker: None }
}

/// Looks at the model before anything is placed.
fn with_model<T>(cib: &Cib, look: impl FnOnce(&mut Model<'_>) -> T) -> T {
    let (status, nodes) = (Status::default(), views());
    let input = input(cib, &status, &nodes);
    let implicit = implicit::Implicit::of(&input);
    let mut model = read::read(&input, &implicit);
    criteria::apply(&mut model);
    look(&mut model)
}

/// Steps along colocations that placing everything takes.
fn steps(cib: &Cib) -> u64 {
    with_model(cib, |model| {
        model.assign_all();
        PATIENCE - model.patience
    })
}

fn follows(a: usize, b: usize, score: Score) -> Constraint {
    let (one, other) = (format!("r{a}"), format!("r{b}"));
    colocation(&format!("c{a}-{b}"), score, (&one, None), (&other, None))
}

#[test]
fn a_chain_of_colocations_takes_as_many_steps_as_it_has_links() {
    let chain = |score| (1..300).map(|i| follows(i, i - 1, score)).collect();
    for score in [Score::INF, Score::NEG_INF] {
        let taken = steps(&cluster(300, chain(score)));
        assert!(taken < 2_000, "{taken} steps for 300 links of {score}");
    }
}

#[test]
fn wishes_along_a_chain_fade_away_after_some_links() {
    let chain = (1..300).map(|i| follows(i, i - 1, Score::new(100))).collect();
    let taken = steps(&cluster(300, chain));
    assert!(taken < 6_000, "{taken} steps for 300 links");
}

/// Each of a level follows both of the level before: 2^24 ways.
fn ladder(score: Score) -> Cib {
    let rungs = (1..25_usize).flat_map(|level| (0..4).map(move |way| (level, way / 2, way % 2)));
    let follow = |(level, a, b)| follows(2 * level + a, 2 * level - 2 + b, score);
    cluster(50, rungs.map(follow).collect())
}

#[test]
fn many_ways_between_few_resources_are_not_all_walked() {
    for score in [Score::INF, Score::new(1000)] {
        let taken = steps(&ladder(score));
        assert!(taken < 500_000, "{taken} steps with {score}");
    }
}

#[test]
fn loops_with_many_ways_end_when_patience_does() {
    let mut cib = ladder(Score::INF);
    cib.constraints.push(follows(0, 49, Score::INF));
    assert!(steps(&cib) <= PATIENCE);
}

#[test]
fn what_is_summed_up_is_what_the_walk_finds() {
    let mut compared = 0;
    for seed in 0..200_usize {
        // Each follows some earlier ones; who prefers what is arbitrary, but the same every time.
        let dice = |n: usize, of: usize| (seed * 7919 + n * 104_729 + n * n * 31) / 7 % of;
        let score = |n: usize| match dice(n, 5) {
            0 => Score::INF,
            1 => Score::NEG_INF,
            2 => Score::new(-500),
            _ => Score::new(10_000),
        };
        let pairs = (1..14).flat_map(|i| (0..i).map(move |j| (i, j)));
        let mut constraints: Vec<Constraint> = pairs
            .filter(|(i, j)| dice(i * 20 + j, 3) > 0)
            .map(|(i, j)| follows(i, j, score(i * 17 + j)))
            .collect();
        for i in 0..14 {
            let worth = [Score::new(-30), Score::new(700), Score::INF, Score::NEG_INF];
            let worth = worth[dice(i * 3, 40).min(3 + seed % 2) % 4];
            let node = ["n1", "n2", "n3"][dice(i * 5, 3)];
            constraints.push(location(&format!("l{i}"), &format!("r{i}"), worth, node));
        }
        let cib = cluster(14, constraints);
        compared += with_model(&cib, |model| {
            let mut same = 0;
            for ix in 0..model.colocs.len() {
                let r = model.colocs[ix].primary;
                for positive in [false, true] {
                    if let Some(heard) = model.heard(r, ix, positive) {
                        assert_eq!(heard, model.walked(r, ix, positive), "seed {seed}");
                        same += 1;
                    }
                }
            }
            same
        });
    }
    assert!(compared > 300, "only {compared} compared");
}

#[test]
fn what_was_heard_is_forgotten_when_a_score_changes() {
    let cib = cluster(60, (1..60).map(|i| follows(i, i - 1, Score::INF)).collect());
    with_model(&cib, |model| {
        let r = model.colocs[0].primary;
        let before = model.heard(r, 0, false);
        model.rscs[59].scores[1] = Score::new(77);
        let after = model.heard(r, 0, false);
        assert_eq!(before, Some(vec![Score::ZERO; 3]));
        assert_eq!(after, Some(vec![Score::ZERO, Score::new(77), Score::ZERO]));
    });
}

#[test]
fn a_chain_deeper_than_a_threads_stack_is_placed() {
    // Placed from its end: each waits for the next one.
    let constraints = (1..20_000).map(|i| follows(i - 1, i, Score::INF)).collect();
    let cib = cluster(20_000, constraints);
    let (status, nodes) = (Status::default(), views());
    let plan = plan(&input(&cib, &status, &nodes));
    let places = plan.placements.iter().filter_map(|p| p.node.as_deref());
    assert_eq!(places.filter(|n| *n == "n1").count(), 20_000);
}

#[test]
fn a_loop_of_very_many_orders_ends_in_a_plan() {
    let starts = (0..5_000).map(|i| (format!("r{i}"), format!("r{}", (i + 1) % 5_000)));
    let constraints: Vec<Constraint> = starts
        .map(|(a, b)| order(&format!("o-{a}"), OrderKind::Mandatory, (&a, None), (&b, None)))
        .collect();
    let mut cib = cluster(5_000, constraints);
    cib.resources.push(dummy("free"));
    let (status, nodes) = (Status::default(), views());
    let plan = plan(&input(&cib, &status, &nodes));
    let start = |kind: &ActionKind| matches!(kind, ActionKind::Op(spec) if spec.op == "start" && spec.resource != "free");
    assert!(!plan.actions.iter().any(|a| start(&a.kind)));
    let free = |kind: &ActionKind| matches!(kind, ActionKind::Op(spec) if spec.op == "start" && spec.resource == "free");
    assert!(plan.actions.iter().any(|a| free(&a.kind)));
}
