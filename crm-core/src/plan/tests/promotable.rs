//! The usual way round: the services follow the promoted instance.

use super::world::{World, assert_order, clone, colocation, dummy, names, nv, order, seed};
use crate::cib::{
    Cib, Constraint, Location, LocationTarget, OrderAction, OrderKind, ResourceSet, Role, Score,
    SetMember,
};

fn follows_promoted() -> Cib {
    let mut cib = seed(true);
    cib.constraints.retain(|c| c.id() != "ms-drbd-nfs-with-ha");
    cib.constraints.push(colocation(
        "ha-with-master",
        Score::INF,
        ("HA", None),
        ("ms_drbd_nfs", Some(Role::Promoted)),
    ));
    cib.rsc_defaults = nv(&[("resource-stickiness", "200")]);
    cib
}

#[test]
fn services_follow_the_promoted_instance_through_drain_and_return() {
    let mut world = World::new(&["alpha", "delta"], follows_promoted());
    world.settle();
    let all = names(&["drbd_nfs!", "fs_nfs", "nfs", "vip"]);
    assert_eq!(world.running("alpha"), all);
    world.set_standby("alpha", true);
    let log = world.settle();
    assert_order(
        &log,
        &[
            "stop fs_nfs alpha",
            "demote drbd_nfs alpha",
            "promote drbd_nfs delta",
            "start fs_nfs delta",
        ],
    );
    assert_eq!(world.running("delta"), all);
    world.set_standby("alpha", false);
    assert_eq!(world.settle(), ["start drbd_nfs alpha"]);
    world.kill("delta", true);
    world.settle();
    assert_eq!(world.running("alpha"), all);
}

#[test]
fn the_services_threshold_moves_the_promoted_instance() {
    let mut cib = follows_promoted();
    cib.rsc_defaults = nv(&[("migration-threshold", "1")]);
    let mut world = World::new(&["alpha", "delta"], cib);
    world.settle();
    world.report("alpha", "vip", 0, 1);
    world.settle();
    assert_eq!(world.running("delta"), names(&["drbd_nfs!", "fs_nfs", "nfs", "vip"]));
}

#[test]
fn location_for_the_promoted_role_suffices_without_the_agents_word() {
    let mut cib = Cib { properties: nv(&[("stonith-enabled", "false")]), ..Cib::default() };
    cib.resources = vec![clone("ms", dummy("d"), true, &[])];
    let rule = Location {
        id: "l".into(),
        target: LocationTarget::Pattern("^m.$".into()),
        score: Score::new(1),
        node: "delta".into(),
        role: Some(Role::Promoted),
        discovery: None,
    };
    cib.constraints = vec![Constraint::Location(rule)];
    let mut world = World::new(&["alpha", "delta"], cib);
    for _ in 0..2 {
        let plan = world.plan();
        world.execute(&plan);
        for node in world.status.nodes.values_mut() {
            node.attrs.clear();
        }
    }
    assert_eq!(world.running("delta"), names(&["d!"]));
    assert_eq!(world.running("alpha"), names(&["d"]));
}

#[test]
fn without_the_agents_word_nothing_is_promoted_even_by_a_mandatory_role_colocation() {
    let mut world = World::new(&["alpha", "delta"], seed(true));
    for _ in 0..4 {
        let plan = world.plan();
        world.execute(&plan);
        for node in world.status.nodes.values_mut() {
            node.attrs.clear();
        }
    }
    assert_eq!(world.running("alpha"), names(&["drbd_nfs"]));
    let plan = world.plan();
    let reason = |code: &str, rsc: &str| {
        assert!(
            plan.reasons.iter().any(|r| r.code == code && r.resource == rsc),
            "{code} {rsc}: {:#?}",
            plan.reasons
        );
    };
    reason("not-promotable", "drbd_nfs");
}

#[test]
fn service_goes_where_its_replica_may_be_promoted() {
    let mut cib = seed(true);
    cib.rsc_defaults = nv(&[("resource-stickiness", "0")]);
    let mut world = World::new(&["alpha", "delta"], cib);
    let plan = world.plan();
    world.execute(&plan);
    world.status.nodes.get_mut("alpha").unwrap().attrs.clear();
    let plan = world.plan();
    world.execute(&plan);
    assert_eq!(world.running("delta"), names(&["drbd_nfs!", "fs_nfs", "nfs", "vip"]));
}

#[test]
fn sets_order_and_colocate_their_members() {
    let set = |ids: &[&str], sequential: bool, require_all: bool| ResourceSet {
        id: None,
        members: ids.iter().map(|id| SetMember { resource: (*id).into() }).collect(),
        sequential,
        require_all,
        role: None,
        action: None,
    };
    let mut cib = Cib { properties: nv(&[("stonith-enabled", "false")]), ..Cib::default() };
    cib.resources = ["a", "b", "c"].iter().map(|id| dummy(id)).collect();
    let mut with = colocation("w", Score::INF, ("", None), ("", None));
    if let Constraint::Colocation(c) = &mut with {
        c.sets = vec![set(&["a", "b", "c"], true, true)];
    }
    let mut after = order("o", OrderKind::Mandatory, ("", None), ("", None));
    if let Constraint::Order(o) = &mut after {
        o.sets = vec![set(&["a", "b"], false, true), set(&["c"], true, true)];
    }
    cib.constraints = vec![with, after];
    let mut world = World::new(&["alpha", "delta"], cib);
    let log = world.settle();
    assert_eq!(log.last().unwrap(), "start c alpha");
    assert_eq!(world.running("alpha"), names(&["a", "b", "c"]));
    world.set_standby("alpha", true);
    let log = world.settle();
    assert_eq!(log[0], "stop c alpha");
    assert_eq!(world.running("delta"), names(&["a", "b", "c"]));
}

#[test]
fn one_of_a_set_suffices_without_require_all() {
    let set = |ids: &[&str], require_all: bool| ResourceSet {
        id: None,
        members: ids.iter().map(|id| SetMember { resource: (*id).into() }).collect(),
        sequential: false,
        require_all,
        role: None,
        action: Some(OrderAction::Start),
    };
    let mut cib = Cib { properties: nv(&[("stonith-enabled", "false")]), ..Cib::default() };
    cib.resources = ["a", "b", "c"].iter().map(|id| dummy(id)).collect();
    let mut after = order("o", OrderKind::Mandatory, ("", None), ("", None));
    if let Constraint::Order(o) = &mut after {
        o.sets = vec![set(&["a", "b"], false), set(&["c"], true)];
    }
    cib.constraints = vec![after];
    cib.resources[0].meta_mut().set("target-role", "Stopped");
    let mut world = World::new(&["alpha", "delta"], cib);
    let log = world.settle();
    let started: Vec<_> = log.iter().filter_map(|l| l.rsplit_once(' ')).map(|(l, _)| l).collect();
    assert_eq!(started, ["start b", "start c"]);
    world.cib.resources[1].meta_mut().set("target-role", "Stopped");
    world.settle();
    assert_eq!(world.running("alpha").len() + world.running("delta").len(), 0);
}
