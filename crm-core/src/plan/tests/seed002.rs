//! Seed 002: the owner's cluster.

use super::world::{World, assert_order, names, nv, seed};
use crate::cib::Role;
use crate::plan::ActionKind;

fn settled() -> World {
    let mut world = World::new(&["alpha", "delta"], seed(true));
    world.settle();
    world
}

#[test]
fn cold_start_puts_all_on_alpha_after_the_agent_allows_promotion() {
    let mut world = World::new(&["alpha", "delta"], seed(true));
    let first = world.plan();
    let log = world.execute(&first);
    assert!(log.iter().all(|l| l.starts_with("start drbd_nfs")), "{log:?}");
    assert_eq!(log.len(), 2);
    let log = world.settle();
    assert_order(
        &log,
        &["promote drbd_nfs alpha", "start fs_nfs alpha", "start nfs alpha", "start vip alpha"],
    );
    assert_eq!(log.len(), 4, "{log:?}");
    assert_eq!(world.running("alpha"), names(&["drbd_nfs!", "fs_nfs", "nfs", "vip"]));
    assert_eq!(world.running("delta"), names(&["drbd_nfs"]));
}

#[test]
fn nothing_starts_before_all_probes_of_its_family_are_done() {
    let world = World::new(&["alpha", "delta"], seed(true));
    let plan = world.plan();
    let probes = plan.actions.iter().filter(|a| match &a.kind {
        ActionKind::Op(spec) => {
            spec.op == "monitor" && spec.interval_ms == 0 && spec.expected_rc == 7
        }
        ActionKind::CancelMonitor { .. } | ActionKind::Cluster(_) | ActionKind::Pseudo { .. } => {
            false
        }
    });
    assert_eq!(probes.count(), 8);
    let barrier = plan
        .actions
        .iter()
        .position(|a| matches!(&a.kind, ActionKind::Pseudo { name } if name == "HA_probed_0"))
        .unwrap();
    assert_eq!(plan.actions[barrier].needs.len(), 8);
    for action in &plan.actions {
        if let ActionKind::Op(spec) = &action.kind
            && spec.op == "start"
        {
            assert!(action.needs.iter().any(|n| usize::try_from(n.0).unwrap() == barrier));
        }
    }
}

#[test]
fn drain_moves_everything_to_delta_in_order() {
    let mut world = settled();
    world.set_standby("alpha", true);
    let plan = world.plan();
    assert!(
        plan.summary.contains(&"* Move fs_nfs ( alpha -> delta )".to_owned()),
        "{:?}",
        plan.summary
    );
    assert!(
        plan.summary.contains(&"* Stop drbd_nfs:0 ( Promoted alpha )".to_owned()),
        "{:?}",
        plan.summary
    );
    assert!(
        plan.summary.contains(&"* Promote drbd_nfs:1 ( Unpromoted -> Promoted delta )".to_owned()),
        "{:?}",
        plan.summary
    );
    let log = world.execute(&plan);
    assert_order(
        &log,
        &[
            "stop vip alpha",
            "stop nfs alpha",
            "stop fs_nfs alpha",
            "demote drbd_nfs alpha",
            "stop drbd_nfs alpha",
            "promote drbd_nfs delta",
            "start fs_nfs delta",
            "start nfs delta",
            "start vip delta",
        ],
    );
    assert!(world.plan().is_empty(), "{:#?}", world.plan());
    assert_eq!(world.running("alpha"), names(&[]));
    assert_eq!(world.running("delta"), names(&["drbd_nfs!", "fs_nfs", "nfs", "vip"]));
    assert!(plan.reasons.iter().any(|r| r.code == "standby" && r.node.as_deref() == Some("alpha")));
}

#[test]
fn return_with_stickiness_starts_the_replica_and_moves_nothing() {
    let mut cib = seed(true);
    cib.rsc_defaults = nv(&[("resource-stickiness", "200")]);
    let mut world = World::new(&["alpha", "delta"], cib);
    world.settle();
    world.set_standby("alpha", true);
    world.settle();
    world.set_standby("alpha", false);
    let log = world.settle();
    assert_eq!(log, vec!["start drbd_nfs alpha".to_owned()]);
    assert_eq!(world.running("delta"), names(&["drbd_nfs!", "fs_nfs", "nfs", "vip"]));
}

#[test]
fn return_without_stickiness_fails_back_once_alpha_may_be_promoted() {
    let mut world = settled();
    world.set_standby("alpha", true);
    world.settle();
    world.set_standby("alpha", false);
    let first = world.plan();
    let log = world.execute(&first);
    assert_eq!(
        log,
        vec!["start drbd_nfs alpha".to_owned()],
        "service goes on until alpha is ready"
    );
    let log = world.settle();
    assert_order(&log, &["stop fs_nfs delta", "demote drbd_nfs delta", "promote drbd_nfs alpha"]);
    assert_eq!(world.running("alpha"), names(&["drbd_nfs!", "fs_nfs", "nfs", "vip"]));
}

#[test]
fn survivor_of_a_kill_plans_for_itself() {
    let mut world = settled();
    world.kill("alpha", true);
    for _ in 0..3 {
        let plan = world.plan_only(Some("delta"));
        world.execute(&plan);
    }
    assert_eq!(world.running("delta"), names(&["drbd_nfs!", "fs_nfs", "nfs", "vip"]));
    assert!(world.plan_only(Some("delta")).is_empty());
}

#[test]
fn a_node_that_plans_for_itself_leaves_other_online_nodes_alone() {
    let mut world = settled();
    world.set_standby("alpha", true);
    let plan = world.plan_only(Some("delta"));
    assert!(plan.is_empty(), "delta's part waits for alpha's: {:#?}", plan.actions);
    let plan = world.plan_only(Some("alpha"));
    let log = world.execute(&plan);
    assert_order(&log, &["stop vip alpha", "demote drbd_nfs alpha", "stop drbd_nfs alpha"]);
    assert!(log.iter().all(|l| l.ends_with("alpha")));
}

#[test]
fn unclean_node_holds_back_what_it_may_run() {
    let mut world = settled();
    world.kill("alpha", false);
    let plan = world.plan();
    assert!(plan.is_empty(), "{:#?}", plan.summary);
    assert!(plan.reasons.iter().any(|r| r.code == "unclean" && r.resource == "fs_nfs"));
    world.kill("alpha", true);
    world.settle();
    assert_eq!(world.running("delta"), names(&["drbd_nfs!", "fs_nfs", "nfs", "vip"]));
}

#[test]
fn nothing_is_begun_that_a_pending_node_may_run() {
    // alpha runs all of it, lives and has told nothing yet (no fencing configured); delta has just come up.
    let mut world = settled();
    world.status.nodes.insert("alpha".into(), crate::status::NodeStatus::default());
    world.nodes.insert("alpha".into(), crate::plan::NodeView::PENDING);
    let log = world.settle();
    assert_eq!(log, Vec::<String>::new());
    let plan = world.plan();
    assert!(plan.reasons.iter().any(|r| r.text.contains("has told what it runs")));
    // What delta is known to run is recovered all the same.
    world.kill("alpha", true);
    world.settle();
    world.nodes.insert("alpha".into(), crate::plan::NodeView::PENDING);
    world.report("delta", "nfs", 0, 7);
    world.truth.insert(("delta".into(), "nfs".into()), Role::Stopped);
    let log = world.settle();
    assert_order(&log, &["stop nfs delta", "start nfs delta"]);
}

#[test]
fn node_that_comes_back_unprobed_changes_nothing_before_it_is_probed() {
    let mut world = settled();
    // crmd died and came back: all still runs there, its status is empty.
    world.status.nodes.insert("alpha".into(), crate::status::NodeStatus::default());
    let plan = world.plan();
    let log = world.execute(&plan);
    assert_eq!(log, Vec::<String>::new(), "{:#?}", plan.summary);
    let log = world.settle();
    assert_eq!(log, Vec::<String>::new());
    assert_eq!(world.running("alpha"), names(&["drbd_nfs!", "fs_nfs", "nfs", "vip"]));
}

#[test]
fn dead_node_that_returns_gets_its_replica_and_nothing_else() {
    let mut cib = seed(true);
    cib.rsc_defaults = nv(&[("resource-stickiness", "200")]);
    let mut world = World::new(&["alpha", "delta"], cib);
    world.settle();
    world.kill("alpha", true);
    world.settle();
    world.revive("alpha");
    let log = world.settle();
    assert_eq!(log, vec!["start drbd_nfs alpha".to_owned()]);
}

#[test]
fn three_nodes_run_two_replicas_and_survive_each_loss() {
    let mut cib = seed(true);
    cib.resources[1].meta_mut().set("clone-max", "3");
    let mut world = World::new(&["alpha", "delta", "gamma"], cib);
    world.settle();
    assert_eq!(world.running("alpha"), names(&["drbd_nfs!", "fs_nfs", "nfs", "vip"]));
    world.kill("alpha", true);
    world.settle();
    let all = names(&["drbd_nfs!", "fs_nfs", "nfs", "vip"]);
    let holders = ["delta", "gamma"].into_iter().filter(|n| world.running(n) == all).count();
    assert_eq!(holders, 1, "{:?}", world.truth);
    let promoted = world.truth.values().filter(|r| **r == Role::Promoted).count();
    assert_eq!(promoted, 1);
}

#[test]
fn calls_carry_parameters_meta_and_timeouts() {
    let mut world = World::new(&["alpha", "delta"], seed(true));
    world.cib.op_defaults = nv(&[("timeout", "33s")]);
    let plan = world.plan();
    world.execute(&plan);
    let plan = world.plan();
    let find = |op: &str, rsc: &str| {
        plan.actions
            .iter()
            .find_map(|a| match &a.kind {
                ActionKind::Op(s) if s.op == op && s.resource == rsc => Some(s.clone()),
                ActionKind::Op(_)
                | ActionKind::CancelMonitor { .. }
                | ActionKind::Cluster(_)
                | ActionKind::Pseudo { .. } => None,
            })
            .unwrap()
    };
    let fs = find("start", "fs_nfs");
    assert_eq!(fs.timeout_ms, 60_000);
    assert_eq!(fs.params["device"], "/dev/drbd0");
    assert_eq!(fs.params["CRM_meta_timeout"], "60000");
    assert_eq!(fs.agent, "ocf:crm:Dummy");
    let promote = find("promote", "drbd_nfs");
    assert_eq!(promote.timeout_ms, 33_000);
    assert_eq!(promote.params["CRM_meta_master_max"], "1");
    assert_eq!(promote.params["CRM_meta_clone_max"], "2");
    assert_eq!(promote.params["CRM_meta_notify"], "true");
    assert_eq!(promote.params["CRM_meta_on_node"], "alpha");
    let nfs = find("monitor", "nfs");
    assert_eq!((nfs.interval_ms, nfs.expected_rc), (5_000, 0));
}

#[test]
fn seed_as_written_settles_in_three_plans() {
    let mut world = World::new(&["alpha", "delta"], seed(false));
    for _ in 0..2 {
        let plan = world.plan();
        assert!(!plan.is_empty());
        world.execute(&plan);
    }
    assert!(world.plan().is_empty(), "{:#?}", world.plan());
    assert_eq!(world.running("alpha"), names(&["drbd_nfs!", "fs_nfs", "nfs"]));
}
