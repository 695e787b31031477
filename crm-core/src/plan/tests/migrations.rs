//! Live migration on our own nodes: without a stop, and never on two nodes when something goes wrong half-way.

use super::world::{World, colocation, dummy, names, nv, order, prim, seed};
use crate::cib::{Cib, OrderAction, OrderKind, Resource, Role, Score};
use crate::plan::NodeView;
use crate::status::{NodeStatus, Pending, rc};
use crate::store::{Command, State};

fn vm(id: &str) -> Resource {
    let mut vm = prim(id, &[], &[("monitor", &[("interval", "10s")])]);
    vm.meta.set("allow-migrate", "true");
    Resource::Primitive(vm)
}

fn on_alpha(resources: Vec<Resource>) -> World {
    let properties = nv(&[("stonith-enabled", "false")]);
    let cib = Cib { properties, resources, ..Cib::default() };
    let mut world = World::new(&["alpha", "beta", "gamma"], cib);
    world.settle();
    assert!(world.running("alpha").contains("vm"), "{:?}", world.truth);
    world
}

/// Carries out the plan up to and including the first operation called `last`.
fn execute_until(world: &mut World, last: &str) {
    let mut plan = world.plan();
    let at = plan
        .actions
        .iter()
        .position(|a| matches!(&a.kind, crate::plan::ActionKind::Op(spec) if spec.op == last));
    plan.actions.truncate(at.unwrap() + 1);
    world.execute(&plan);
}

#[test]
fn a_drained_node_is_left_without_a_stop() {
    let mut world = on_alpha(vec![vm("vm")]);
    world.set_standby("alpha", true);
    let plan = world.plan();
    assert_eq!(plan.summary, ["* Migrate vm ( alpha -> beta )"]);
    let log = world.settle();
    assert_eq!(log, ["migrate_to vm alpha", "migrate_from vm beta", "stop vm alpha"]);
    assert_eq!(world.running("beta"), names(&["vm"]));
    assert!(world.running("alpha").is_empty());
    assert!(!world.status.nodes["beta"].resources["vm"].monitors.is_empty(), "it is watched");
    assert!(world.status.nodes["alpha"].resources["vm"].monitors.is_empty());
    // And back again.
    world.set_standby("alpha", false);
    world.set_standby("beta", true);
    world.set_standby("gamma", true);
    let log = world.settle();
    assert_eq!(log, ["migrate_to vm beta", "migrate_from vm alpha", "stop vm beta"]);
}

#[test]
fn one_that_is_half_way_goes_on() {
    let mut world = on_alpha(vec![vm("vm")]);
    world.set_standby("alpha", true);
    execute_until(&mut world, "migrate_to");
    let log = world.settle();
    assert_eq!(log, ["migrate_from vm beta", "stop vm alpha"]);
    assert_eq!(world.running("beta"), names(&["vm"]));
}

#[test]
fn what_has_arrived_is_stopped_where_it_came_from() {
    let mut world = on_alpha(vec![vm("vm")]);
    world.set_standby("alpha", true);
    execute_until(&mut world, "migrate_from");
    let log = world.settle();
    assert_eq!(log, ["stop vm alpha"]);
}

#[test]
fn a_failed_first_half_is_stopped_on_both_and_started() {
    let mut world = on_alpha(vec![vm("vm")]);
    world.broken.insert(("alpha".into(), "vm".into(), "migrate_to".into()), rc::ERR_GENERIC);
    world.set_standby("alpha", true);
    let log = world.settle();
    assert_eq!(log[0], "migrate_to vm alpha");
    let stops = |node: &str| log.iter().position(|l| *l == format!("stop vm {node}"));
    let start = log.iter().position(|l| l.starts_with("start vm")).unwrap();
    assert!(stops("alpha").unwrap() < start && stops("beta").unwrap() < start, "{log:?}");
    assert_eq!(log.iter().filter(|l| l.starts_with("migrate_to")).count(), 1, "{log:?}");
}

#[test]
fn a_failed_second_half_is_stopped_on_both_and_started() {
    let mut world = on_alpha(vec![vm("vm")]);
    world.broken.insert(("beta".into(), "vm".into(), "migrate_from".into()), rc::ERR_GENERIC);
    world.set_standby("alpha", true);
    let log = world.settle();
    assert_eq!(log[..2], ["migrate_to vm alpha", "migrate_from vm beta"]);
    let stops = |node: &str| log.iter().position(|l| *l == format!("stop vm {node}"));
    let start = log.iter().position(|l| l.starts_with("start vm")).unwrap();
    assert!(stops("alpha").unwrap() < start && stops("beta").unwrap() < start, "{log:?}");
}

#[test]
fn a_half_way_target_that_was_stopped_is_not_taken_for_an_arrival() {
    let mut world = on_alpha(vec![vm("vm")]);
    world.broken.insert(("beta".into(), "vm".into(), "migrate_from".into()), rc::ERR_GENERIC);
    world.set_standby("alpha", true);
    execute_until(&mut world, "migrate_from");
    world.broken.clear();
    // The plan that recovers it is cut off after the stop on beta.
    let plan = world.plan();
    let mut cut = plan.clone();
    let is_stop = |a: &crate::plan::Action| matches!(&a.kind, crate::plan::ActionKind::Op(s) if s.op == "stop" && s.node == "beta");
    let at = cut.actions.iter().position(is_stop).unwrap();
    cut.actions.truncate(at + 1);
    world.execute(&cut);
    let log = world.settle();
    assert!(!log.iter().any(|l| l.starts_with("migrate")), "{log:?}");
    assert_eq!(log.iter().filter(|l| l.starts_with("start vm")).count(), 1, "{log:?}");
}

#[test]
fn a_target_that_dies_half_way_means_a_restart() {
    let mut world = on_alpha(vec![vm("vm")]);
    world.set_standby("alpha", true);
    execute_until(&mut world, "migrate_to");
    world.kill("beta", true);
    let log = world.settle();
    assert_eq!(log, ["stop vm alpha", "start vm gamma"]);
}

#[test]
fn a_target_that_is_lost_half_way_may_run_it() {
    let mut world = on_alpha(vec![vm("vm")]);
    world.set_standby("alpha", true);
    execute_until(&mut world, "migrate_to");
    world.nodes.insert("beta".into(), NodeView::LOST);
    assert!(world.settle().is_empty(), "it may run on beta");
}

#[test]
fn under_way_it_is_not_touched() {
    let mut world = on_alpha(vec![vm("vm")]);
    world.set_standby("alpha", true);
    let history = world.status.nodes.get_mut("alpha").unwrap().resources.get_mut("vm").unwrap();
    history.migrated_to = Some("beta".to_owned());
    history.pending = Some(Pending { op: "migrate_to".to_owned(), interval_ms: 0 });
    assert!(world.plan().is_empty(), "{:#?}", world.plan());
}

#[test]
fn a_source_that_forgets_makes_the_target_look() {
    for lost in [
        Command::NodeGone { node: "alpha".into(), session: 0 },
        Command::SyncNode { node: "alpha".into(), status: Box::default() },
        Command::Cleanup { resource: Some("vm".into()), node: Some("alpha".into()) },
    ] {
        let mut world = on_alpha(vec![vm("vm")]);
        world.set_standby("alpha", true);
        execute_until(&mut world, "migrate_to");
        let mut state = State { status: world.status.clone(), ..State::default() };
        state.apply(lost);
        world.status = state.status;
        if world.status.nodes["alpha"] == NodeStatus::default() {
            world.kill("alpha", true);
        }
        let log = world.settle();
        assert!(!log.iter().any(|l| l.starts_with("start")), "it was found on beta: {log:?}");
        assert_eq!(world.running("beta"), names(&["vm"]));
    }
}

#[test]
fn what_stands_on_a_promoted_instance_moves_by_a_restart() {
    let mut cib = seed(true);
    cib.resources.push(vm("vm"));
    let promoted = Some(Role::Promoted);
    cib.constraints.push(colocation("v", Score::INF, ("vm", None), ("ms_drbd_nfs", promoted)));
    let after = ("ms_drbd_nfs", Some(OrderAction::Promote));
    let start = ("vm", Some(OrderAction::Start));
    cib.constraints.push(order("o", OrderKind::Mandatory, after, start));
    let mut world = World::new(&["alpha", "delta"], cib);
    world.settle();
    assert!(world.running("alpha").contains("vm"));
    world.set_standby("alpha", true);
    let log = world.settle();
    assert!(!log.iter().any(|l| l.starts_with("migrate")), "one primary only: {log:?}");
    assert_eq!(world.running("delta"), names(&["drbd_nfs!", "fs_nfs", "nfs", "vip", "vm"]));
}

#[test]
fn another_definition_needs_a_restart() {
    let mut world = on_alpha(vec![vm("vm")]);
    world.set_standby("alpha", true);
    world.cib.primitive_mut("vm").unwrap().params.set("memory", "8");
    let log = world.settle();
    assert_eq!(log, ["stop vm alpha", "start vm beta"]);
}

#[test]
fn what_it_needs_is_on_the_other_node_first() {
    let mut world = on_alpha(vec![
        vm("vm"),
        super::world::clone("stores", dummy("store"), false, &[("interleave", "true")]),
    ]);
    world.cib.constraints.push(order(
        "o",
        OrderKind::Mandatory,
        ("stores", Some(OrderAction::Start)),
        ("vm", Some(OrderAction::Start)),
    ));
    world.settle();
    world.set_standby("alpha", true);
    let log = world.settle();
    super::world::assert_order(
        &log,
        &["migrate_to vm alpha", "migrate_from vm beta", "stop vm alpha", "stop store alpha"],
    );
}

#[test]
fn half_way_it_is_on_two_nodes_as_it_is_meant_to_be() {
    for policy in ["block", "stop_only"] {
        let mut world = on_alpha(vec![vm("vm")]);
        world.cib.primitive_mut("vm").unwrap().meta.set("multiple-active", policy);
        world.set_standby("alpha", true);
        execute_until(&mut world, "migrate_to");
        let log = world.settle();
        assert_eq!(log, ["migrate_from vm beta", "stop vm alpha"], "{policy}");
    }
}
