//! What is not configured any more, and what is watched where nothing runs, on our own nodes.

use super::world::{World, assert_order, clone, dummy, group, names, nv, prim, seed};
use crate::cib::{Cib, Op, Resource, Role};
use crate::plan::ActionKind;
use crate::status::{Removed, rc};
use crate::store::{Command, Outcome, State};

fn cib(resources: Vec<Resource>) -> Cib {
    let properties = nv(&[("stonith-enabled", "false")]);
    Cib { properties, resources, ..Cib::default() }
}

fn two(resources: Vec<Resource>) -> World {
    World::new(&["alpha", "delta"], cib(resources))
}

/// Takes a resource out of the configuration, as a commit does.
fn remove(world: &mut World, id: &str) {
    let state = State { cib: world.cib.clone().into(), ..State::default() };
    world.cib.resources.retain(|r| r.id() != id);
    let removed = state.removed(&world.cib, &world.status);
    world.status.removed.extend(removed);
}

#[test]
fn what_is_not_configured_any_more_is_stopped_with_the_parameters_it_had() {
    let mut db = prim("db", &[("own", "1")], &[]);
    db.params.pairs.push(crate::cib::Nv { name: "both".into(), value: Some("mine".into()) });
    let mut box_of = group("box", vec![db, prim("web", &[], &[])]);
    if let Resource::Group(g) = &mut box_of {
        g.params = nv(&[("both", "theirs"), ("of_the_group", "2")]);
    }
    let mut world = two(vec![box_of, dummy("stays")]);
    world.settle();
    remove(&mut world, "box");
    let plan = world.plan();
    let stop = plan.actions.iter().find_map(|a| match &a.kind {
        ActionKind::Op(spec) if spec.resource == "db" => Some(spec),
        ActionKind::Op(_)
        | ActionKind::CancelMonitor { .. }
        | ActionKind::Cluster(_)
        | ActionKind::Pseudo { .. } => None,
    });
    let stop = stop.unwrap();
    assert_eq!(stop.op, "stop");
    for (name, value) in [("own", "1"), ("both", "mine"), ("of_the_group", "2")] {
        assert_eq!(stop.params.get(name).map(String::as_str), Some(value), "{stop:?}");
    }
    let log = world.settle();
    assert_eq!(log.len(), 2, "{log:?}");
    let left: Vec<String> = ["alpha", "delta"].iter().flat_map(|n| world.running(n)).collect();
    assert_eq!(left, ["stays"]);
}

#[test]
fn a_promoted_instance_that_is_not_configured_any_more_is_demoted_first() {
    let mut world = World::new(&["alpha", "delta"], seed(true));
    world.settle();
    world.cib.constraints.clear();
    remove(&mut world, "HA");
    remove(&mut world, "ms_drbd_nfs");
    let log = world.settle();
    assert_order(&log, &["demote drbd_nfs alpha", "stop drbd_nfs alpha"]);
    assert!(world.truth.values().all(|role| *role == Role::Stopped), "{:?}", world.truth);
}

#[test]
fn what_is_not_configured_any_more_is_left_alone_when_that_is_said() {
    let mut world = two(vec![dummy("gone")]);
    world.settle();
    world.cib.properties.set("stop-orphan-resources", "false");
    remove(&mut world, "gone");
    assert!(world.plan().is_empty(), "{:#?}", world.plan());
}

#[test]
fn the_agent_of_what_runs_cannot_be_exchanged() {
    let mut world = two(vec![dummy("db")]);
    world.settle();
    let mut state = State { status: world.status.clone(), ..State::default() };
    let mut other = world.cib.clone();
    if let Some(p) = other.primitive_mut("db") {
        p.agent.kind = "Stateful".to_owned();
    }
    let commit = |state: &mut State, cib: &Cib| {
        let (author, message) = ("test".to_owned(), String::new());
        let (base, cib) = (state.version, Box::new(cib.clone()));
        state.apply(Command::CommitCib { base, cib, author, message, when_ms: 0 })
    };
    assert!(matches!(commit(&mut state, &world.cib), Outcome::Done { .. }));
    let Outcome::Refused { why } = commit(&mut state, &other) else { panic!("taken") };
    assert!(why.contains("`db` runs on") && why.contains("crm resource stop db"), "{why}");
    // Nor by way of taking it out and putting it in again.
    let mut none = world.cib.clone();
    none.resources.clear();
    assert!(matches!(commit(&mut state, &none), Outcome::Done { .. }));
    assert!(matches!(commit(&mut state, &other), Outcome::Refused { .. }));
    assert!(matches!(commit(&mut state, &world.cib), Outcome::Done { .. }));
    // When it has stopped it can.
    world.cib.primitive_mut("db").unwrap().meta.set("target-role", "Stopped");
    world.settle();
    state.status = world.status.clone();
    assert!(matches!(commit(&mut state, &other), Outcome::Done { .. }));
}

#[test]
fn what_has_stopped_and_is_not_configured_is_forgotten_with_the_next_change() {
    let mut world = two(vec![dummy("gone"), dummy("runs")]);
    world.settle();
    world.cib.primitive_mut("gone").unwrap().meta.set("target-role", "Stopped");
    world.settle();
    let other = Cib { resources: vec![dummy("other")], ..Cib::default() };
    let mut state = State { status: world.status.clone(), cib: other.into(), ..State::default() };
    let commit = Command::CommitCib {
        base: 0,
        cib: Box::new(world.cib.clone()),
        author: String::new(),
        message: String::new(),
        when_ms: 0,
    };
    assert!(matches!(state.apply(commit), Outcome::Done { .. }));
    let known: Vec<&String> =
        state.status.nodes.values().flat_map(|n| n.resources.keys()).collect();
    assert_eq!(known, ["runs"]);
}

#[test]
fn an_instance_is_found_among_removed_clones() {
    let cloned = clone("c", dummy("d"), true, &[]);
    let state = State { cib: cib(vec![cloned]).into(), ..State::default() };
    let mut world = two(Vec::new());
    let history =
        crate::status::ResourceHistory { role: Some(Role::Promoted), ..Default::default() };
    world.status.nodes.get_mut("delta").unwrap().resources.insert("d".into(), history);
    let removed = state.removed(&Cib::default(), &world.status);
    let Some(Removed { cloned, promotable, .. }) = removed.get("d") else { panic!("{removed:?}") };
    assert!(cloned & promotable);
}

#[test]
fn a_monitor_for_where_it_is_stopped_finds_what_was_started_by_hand() {
    let mut db = prim("db", &[], &[("monitor", &[("interval", "10s")])]);
    db.ops.push(Op {
        name: "monitor".into(),
        attrs: nv(&[("interval", "30s"), ("role", "Stopped")]),
    });
    let mut world = two(vec![Resource::Primitive(db)]);
    world.settle();
    assert_eq!(world.running("alpha"), names(&["db"]));
    let monitors = |world: &World, node: &str| -> Vec<u64> {
        world.status.nodes[node].resources["db"].monitors.keys().copied().collect()
    };
    assert_eq!(monitors(&world, "alpha"), [10_000]);
    assert_eq!(monitors(&world, "delta"), [30_000]);
    // Somebody starts it on the other node as well.
    world.truth.insert(("delta".into(), "db".into()), Role::Started);
    world.report("delta", "db", rc::NOT_RUNNING, rc::OK);
    let log = world.settle();
    assert_order(&log, &["stop db delta", "start db alpha"]);
    assert_order(&log, &["stop db alpha", "start db alpha"]);
    assert_eq!(world.running("alpha"), names(&["db"]));
    assert!(world.running("delta").is_empty());
    assert_eq!(monitors(&world, "delta"), [30_000]);
    // When it moves the monitors change places.
    world.set_standby("alpha", true);
    world.settle();
    assert_eq!(monitors(&world, "alpha"), [30_000]);
    assert_eq!(monitors(&world, "delta"), [10_000]);
}

#[test]
fn on_fail_demote_goes_on_unpromoted_and_is_promoted_again() {
    let mut cib = seed(true);
    if let Resource::Clone(c) = &mut cib.resources[1]
        && let Resource::Primitive(p) = c.child.as_mut()
    {
        p.ops.push(Op {
            name: "monitor".into(),
            attrs: nv(&[("interval", "7s"), ("role", "Master"), ("on-fail", "demote")]),
        });
    }
    let mut world = World::new(&["alpha", "delta"], cib);
    world.settle();
    world.report("alpha", "drbd_nfs", rc::RUNNING_PROMOTED, rc::FAILED_PROMOTED);
    let log = world.settle();
    assert_order(&log, &["stop fs_nfs alpha", "demote drbd_nfs alpha"]);
    assert!(!log.contains(&"stop drbd_nfs alpha".to_owned()), "{log:?}");
    let everything = names(&["drbd_nfs!", "fs_nfs", "nfs", "vip"]);
    assert!(world.running("alpha") == everything || world.running("delta") == everything);
}

#[test]
fn capacities_are_kept_to() {
    let vm = |id: &str| {
        let mut p = prim(id, &[], &[]);
        p.utilization = nv(&[("memory", "3")]);
        Resource::Primitive(p)
    };
    let mut world = two(vec![vm("a"), vm("b"), vm("c")]);
    world.cib.properties.set("placement-strategy", "utilization");
    for node in &mut world.cib.nodes {
        node.utilization = nv(&[("memory", "4")]);
    }
    world.settle();
    let running = |w: &World| ["alpha", "delta"].map(|n| w.running(n).len());
    assert_eq!(running(&world), [1, 1], "the third has no room");
    world.cib.node_mut("delta").unwrap().utilization.set("memory", "6");
    world.settle();
    assert_eq!(running(&world), [1, 2]);
}
