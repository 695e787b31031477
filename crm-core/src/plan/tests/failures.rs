//! Failed operations: recovery in place, moving away, blocking.

use super::world::{World, assert_order, dummy, group, names, nv, prim, seed};
use crate::cib::{Cib, Resource};
use crate::status::rc;

fn two(resources: Vec<Resource>) -> World {
    let mut cib = Cib { properties: nv(&[("stonith-enabled", "false")]), ..Cib::default() };
    cib.resources = resources;
    World::new(&["alpha", "delta"], cib)
}

#[test]
fn dead_service_is_recovered_in_place_with_what_stands_on_it() {
    let mut world = World::new(&["alpha", "delta"], seed(true));
    world.settle();
    world.report("alpha", "nfs", rc::OK, rc::NOT_RUNNING);
    let plan = world.plan();
    assert!(plan.summary.contains(&"* Recover nfs ( alpha )".to_owned()), "{:?}", plan.summary);
    assert!(plan.summary.contains(&"* Restart vip ( alpha )".to_owned()), "{:?}", plan.summary);
    let log = world.execute(&plan);
    assert_eq!(log, ["stop vip alpha", "stop nfs alpha", "start nfs alpha", "start vip alpha"]);
    assert!(world.plan().is_empty(), "{:#?}", world.plan());
}

#[test]
fn failed_promoted_instance_goes_down_and_up_again() {
    let mut cib = seed(true);
    if let Resource::Clone(c) = &mut cib.resources[1]
        && let Resource::Primitive(p) = c.child.as_mut()
    {
        p.ops.push(crate::cib::Op {
            name: "monitor".into(),
            attrs: nv(&[("interval", "7s"), ("role", "Master")]),
        });
    }
    let mut world = World::new(&["alpha", "delta"], cib);
    world.settle();
    world.report("alpha", "drbd_nfs", rc::RUNNING_PROMOTED, rc::FAILED_PROMOTED);
    let log = world.settle();
    assert_order(
        &log,
        &[
            "stop vip alpha",
            "stop fs_nfs alpha",
            "demote drbd_nfs alpha",
            "stop drbd_nfs alpha",
            "start drbd_nfs alpha",
        ],
    );
    let everything = names(&["drbd_nfs!", "fs_nfs", "nfs", "vip"]);
    assert!(world.running("alpha") == everything || world.running("delta") == everything);
}

#[test]
fn migration_threshold_moves_the_group_away() {
    let mut cib = seed(true);
    cib.rsc_defaults = nv(&[("migration-threshold", "2"), ("resource-stickiness", "200")]);
    let mut world = World::new(&["alpha", "delta"], cib);
    world.settle();
    world.report("alpha", "nfs", rc::OK, rc::NOT_RUNNING);
    world.settle();
    assert!(world.running("alpha").contains("nfs"));
    world.report("alpha", "nfs", rc::OK, rc::NOT_RUNNING);
    let plan = world.plan();
    assert!(plan.reasons.iter().any(|r| r.code == "migration-threshold" && r.resource == "nfs"));
    world.settle();
    assert_eq!(world.running("delta"), names(&["drbd_nfs!", "fs_nfs", "nfs", "vip"]));
    assert_eq!(world.running("alpha"), names(&["drbd_nfs"]));
}

#[test]
fn failures_expire_after_failure_timeout() {
    let mut world = two(vec![dummy("a")]);
    world.cib.rsc_defaults = nv(&[("migration-threshold", "1"), ("failure-timeout", "60s")]);
    world.settle();
    world.report("alpha", "a", rc::OK, rc::ERR_GENERIC);
    world.settle();
    assert_eq!(world.running("delta"), names(&["a"]));
    world.set_standby("delta", true);
    world.settle();
    assert_eq!(world.running("alpha"), names(&[]));
    world.now_ms += 61_000;
    world.settle();
    assert_eq!(world.running("alpha"), names(&["a"]));
}

#[test]
fn failed_start_goes_to_the_other_node() {
    let mut world = two(vec![dummy("a")]);
    world.broken.insert(("alpha".into(), "a".into(), "start".into()), rc::ERR_GENERIC);
    let log = world.settle();
    assert_eq!(log, ["start a alpha", "stop a alpha", "start a delta"]);
    let plan = world.plan();
    assert!(plan.reasons.iter().any(|r| r.code == "failed" && r.node.as_deref() == Some("alpha")));
}

#[test]
fn failed_stop_without_fencing_blocks_and_says_so() {
    let members = vec![prim("a", &[], &[]), prim("b", &[], &[])];
    let mut world = two(vec![group("g", members)]);
    world.settle();
    world.broken.insert(("alpha".into(), "b".into(), "stop".into()), rc::ERR_GENERIC);
    world.set_standby("alpha", true);
    let log = world.settle();
    assert_eq!(log, ["stop b alpha"], "a stays up under b");
    let plan = world.plan();
    assert!(
        plan.reasons.iter().any(|r| r.code == "blocked" && r.resource == "b"),
        "{:?}",
        plan.reasons
    );
    assert_eq!(world.running("delta"), names(&[]));
}

#[test]
fn failed_demote_ends_in_a_stop_and_the_other_takes_over() {
    let mut world = World::new(&["alpha", "delta"], seed(true));
    world.settle();
    world.broken.insert(("alpha".into(), "drbd_nfs".into(), "demote".into()), rc::ERR_GENERIC);
    world.set_standby("alpha", true);
    let log = world.settle();
    assert_order(
        &log,
        &[
            "stop fs_nfs alpha",
            "demote drbd_nfs alpha",
            "stop drbd_nfs alpha",
            "promote drbd_nfs delta",
        ],
    );
    assert_eq!(world.running("delta"), names(&["drbd_nfs!", "fs_nfs", "nfs", "vip"]));
}

#[test]
fn on_fail_is_honoured() {
    for (word, expected) in [("ignore", vec![]), ("block", vec![]), ("stop", vec!["stop a alpha"])]
    {
        let ops: &[(&str, &[(&str, &str)])] =
            &[("monitor", &[("interval", "5s"), ("on-fail", word)])];
        let mut world = two(vec![Resource::Primitive(prim("a", &[], ops))]);
        world.settle();
        world.report("alpha", "a", rc::OK, rc::ERR_GENERIC);
        let plan = world.plan();
        assert_eq!(world.execute(&plan), expected, "{word}");
    }
    let ops: &[(&str, &[(&str, &str)])] =
        &[("monitor", &[("interval", "5s"), ("on-fail", "standby")])];
    let mut world = two(vec![Resource::Primitive(prim("a", &[], ops))]);
    world.settle();
    world.report("alpha", "a", rc::OK, rc::ERR_GENERIC);
    let plan = world.plan();
    assert_eq!(world.execute(&plan), ["stop a alpha", "start a delta"]);
    assert!(plan.reasons.iter().any(|r| r.code == "standby"));
}

#[test]
fn changed_parameters_restart_the_resource_and_its_dependents() {
    let members = vec![prim("a", &[("x", "1")], &[]), prim("b", &[], &[])];
    let mut world = two(vec![group("g", members)]);
    world.settle();
    if let Resource::Group(g) = &mut world.cib.resources[0] {
        g.members[0].params.set("x", "2");
    }
    let log = world.settle();
    assert_eq!(log, ["stop b alpha", "stop a alpha", "start a alpha", "start b alpha"]);
}

#[test]
fn resource_found_active_twice_is_stopped_twice_and_started_once() {
    let mut world = two(vec![dummy("a")]);
    let plan = world.plan();
    world.execute(&plan);
    let alpha = world.status.nodes["alpha"].resources["a"].clone();
    let delta = world.status.nodes.get_mut("delta").unwrap();
    delta.resources.insert("a".into(), alpha);
    let plan = world.plan();
    let log = world.execute(&plan);
    assert_eq!(log.iter().filter(|l| l.starts_with("stop")).count(), 2, "{log:?}");
    assert_eq!(log.iter().filter(|l| l.starts_with("start")).count(), 1, "{log:?}");
}

#[test]
fn missing_agent_bans_the_node_without_a_stop() {
    let mut world = two(vec![dummy("a")]);
    world.broken.insert(("alpha".into(), "a".into(), "monitor".into()), rc::ERR_INSTALLED);
    let log = world.settle();
    assert_eq!(log, ["start a delta"]);
}
