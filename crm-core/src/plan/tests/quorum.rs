//! Quorum, target roles, maintenance, managed state.

use super::world::{
    World, assert_order, clone, colocation, dummy, location, names, nv, order, seed,
};
use crate::cib::{Cib, OrderKind, Role, Score};

#[test]
fn without_quorum_everything_stops_in_order() {
    let mut cib = seed(true);
    cib.properties.set("no-quorum-policy", "stop");
    let mut world = World::new(&["alpha", "delta"], cib);
    world.settle();
    world.kill("delta", true);
    world.quorate = false;
    let plan = world.plan_only(Some("alpha"));
    let log = world.execute(&plan);
    assert_order(
        &log,
        &[
            "stop vip alpha",
            "stop nfs alpha",
            "stop fs_nfs alpha",
            "demote drbd_nfs alpha",
            "stop drbd_nfs alpha",
        ],
    );
    assert_eq!(world.running("alpha"), names(&[]));
    assert!(plan.reasons.iter().any(|r| r.code == "no-quorum"));
}

#[test]
fn freeze_keeps_what_runs_and_starts_nothing() {
    let mut cib = Cib {
        properties: nv(&[("stonith-enabled", "false"), ("no-quorum-policy", "freeze")]),
        ..Cib::default()
    };
    cib.resources = vec![dummy("a")];
    let mut world = World::new(&["alpha", "delta"], cib);
    world.settle();
    world.cib.resources.push(dummy("b"));
    world.quorate = false;
    world.settle();
    assert_eq!(world.running("alpha"), names(&["a"]));
    assert_eq!(world.running("delta"), names(&[]));
    world.quorate = true;
    world.settle();
    assert_eq!(world.running("delta"), names(&["b"]));
}

#[test]
fn demote_policy_leaves_no_one_promoted() {
    let mut cib = Cib {
        properties: nv(&[("stonith-enabled", "false"), ("no-quorum-policy", "demote")]),
        ..Cib::default()
    };
    cib.resources = vec![clone("ms", dummy("d"), true, &[])];
    let mut world = World::new(&["alpha", "delta"], cib);
    world.settle();
    assert_eq!(world.truth.values().filter(|r| **r == Role::Promoted).count(), 1);
    world.quorate = false;
    world.settle();
    assert_eq!(world.running("alpha"), names(&["d"]));
    assert_eq!(world.running("delta"), names(&["d"]));
}

#[test]
fn target_role_stops_demotes_and_brings_back() {
    let mut world = World::new(&["alpha", "delta"], seed(true));
    world.settle();
    world.cib.resources[0].meta_mut().set("target-role", "Stopped");
    let log = world.settle();
    assert_eq!(log, ["stop vip alpha", "stop nfs alpha", "stop fs_nfs alpha"]);
    world.cib.resources[0].meta_mut().set("target-role", "Started");
    world.settle();
    assert!(world.running("alpha").contains("vip"));
    world.cib.resources[1].meta_mut().set("target-role", "Slave");
    let log = world.settle();
    assert_order(&log, &["stop fs_nfs alpha", "demote drbd_nfs alpha"]);
    assert_eq!(world.running("alpha"), names(&["drbd_nfs"]));
}

#[test]
fn member_of_a_group_can_be_stopped_alone_with_those_above_it() {
    let mut world = World::new(&["alpha", "delta"], seed(true));
    world.settle();
    world.cib.primitive_mut("nfs").unwrap().meta.set("target-role", "Stopped");
    let log = world.settle();
    assert_eq!(log, ["stop vip alpha", "stop nfs alpha"]);
    assert_eq!(world.running("alpha"), names(&["drbd_nfs!", "fs_nfs"]));
}

#[test]
fn maintenance_touches_nothing_and_ends_its_monitors() {
    let mut world = World::new(&["alpha", "delta"], seed(true));
    world.settle();
    world.cib.properties.set("maintenance-mode", "true");
    assert_eq!(world.settle(), Vec::<String>::new());
    assert!(world.status.nodes["alpha"].resources.values().all(|h| h.monitors.is_empty()));
    world.set_standby("alpha", true);
    assert_eq!(world.settle(), Vec::<String>::new());
    world.set_standby("alpha", false);
    world.cib.properties.set("maintenance-mode", "false");
    assert_eq!(world.settle(), Vec::<String>::new());
    assert!(!world.status.nodes["alpha"].resources["nfs"].monitors.is_empty());
}

#[test]
fn node_maintenance_and_unmanaged_resources_are_left_alone() {
    let mut world = World::new(&["alpha", "delta"], seed(true));
    world.settle();
    world.cib.node_mut("alpha").unwrap().attributes.set("maintenance", "true");
    assert_eq!(world.settle(), Vec::<String>::new());
    world.cib.node_mut("alpha").unwrap().attributes.set("maintenance", "off");
    world.settle();
    world.cib.resources[0].meta_mut().set("is-managed", "false");
    world.cib.resources[0].meta_mut().set("target-role", "Stopped");
    assert_eq!(world.settle(), Vec::<String>::new());
}

#[test]
fn stop_all_resources_stops_all() {
    let mut world = World::new(&["alpha", "delta"], seed(true));
    world.settle();
    world.cib.properties.set("stop-all-resources", "true");
    world.settle();
    assert!(world.truth.values().all(|r| *r == Role::Stopped));
}

fn plain(resources: &[&str]) -> Cib {
    let mut cib = Cib { properties: nv(&[("stonith-enabled", "false")]), ..Cib::default() };
    cib.resources = resources.iter().map(|id| dummy(id)).collect();
    cib
}

#[test]
fn anticolocated_resources_part_and_free_ones_spread() {
    let mut cib = plain(&["a", "b"]);
    cib.constraints = vec![
        location("la", "a", Score::new(50), "alpha"),
        location("lb", "b", Score::new(50), "alpha"),
        colocation("apart", Score::NEG_INF, ("b", None), ("a", None)),
    ];
    let mut world = World::new(&["alpha", "delta"], cib);
    world.settle();
    assert_eq!(world.running("alpha"), names(&["a"]));
    assert_eq!(world.running("delta"), names(&["b"]));
    let mut world = World::new(&["alpha", "delta"], plain(&["a", "b"]));
    world.settle();
    assert_eq!(world.running("delta"), names(&["b"]));
}

#[test]
fn optional_order_neither_blocks_nor_restarts() {
    let mut cib = plain(&["a", "b"]);
    cib.constraints = vec![order("o", OrderKind::Optional, ("a", None), ("b", None))];
    cib.rsc_defaults = nv(&[("resource-stickiness", "1")]);
    cib.resources[0].meta_mut().set("target-role", "Stopped");
    let mut world = World::new(&["alpha", "delta"], cib);
    assert_eq!(world.settle(), ["start b alpha"]);
    world.cib.resources[0].meta_mut().set("target-role", "Started");
    assert_eq!(world.settle(), ["start a alpha"]);
}

#[test]
fn mandatory_order_blocks_until_the_first_runs_and_stops_with_it() {
    let mut cib = plain(&["a", "b"]);
    cib.constraints = vec![order("o", OrderKind::Mandatory, ("a", None), ("b", None))];
    cib.resources[0].meta_mut().set("target-role", "Stopped");
    let mut world = World::new(&["alpha", "delta"], cib);
    assert_eq!(world.settle(), Vec::<String>::new());
    let plan = world.plan();
    assert!(plan.reasons.iter().any(|r| r.code == "order" && r.resource == "b"));
    world.cib.resources[0].meta_mut().set("target-role", "Started");
    assert_order(&world.settle(), &["start a alpha", "start b delta"]);
    world.cib.resources[0].meta_mut().set("target-role", "Stopped");
    assert_eq!(world.settle(), ["stop b delta", "stop a alpha"]);
}

#[test]
fn clone_that_starts_on_a_returning_node_restarts_nobody() {
    let mut cib = plain(&["b"]);
    cib.resources.push(clone("c", dummy("base"), false, &[]));
    cib.constraints = vec![
        order("o", OrderKind::Mandatory, ("c", None), ("b", None)),
        colocation("w", Score::INF, ("b", None), ("c", None)),
    ];
    let mut world = World::new(&["alpha", "delta"], cib);
    world.settle();
    world.set_standby("delta", true);
    world.settle();
    assert_eq!(world.running("alpha"), names(&["b", "base"]));
    world.set_standby("delta", false);
    assert_eq!(world.settle(), ["start base delta"]);
}

#[test]
fn opt_in_cluster_places_only_where_allowed() {
    let mut cib = plain(&["a", "b"]);
    cib.properties.set("symmetric-cluster", "false");
    cib.constraints = vec![location("la", "a", Score::ZERO, "delta")];
    let mut world = World::new(&["alpha", "delta"], cib);
    world.settle();
    assert_eq!(world.running("delta"), names(&["a"]));
    assert_eq!(world.running("alpha"), names(&[]));
}
