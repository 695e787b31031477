//! Notifications: who is told what and when, in the plans of our own nodes.

use super::world::{World, names, seed};
use crate::plan::{ActionKind, OpSpec, Plan};
use std::collections::BTreeSet;

fn settled() -> World {
    let mut world = World::new(&["alpha", "delta"], seed(true));
    world.settle();
    world
}

fn ops<'a>(plan: &'a Plan, op: &'a str) -> impl Iterator<Item = (usize, &'a OpSpec)> {
    plan.actions.iter().enumerate().filter_map(move |(at, action)| match &action.kind {
        ActionKind::Op(spec) if spec.op == op => Some((at, &**spec)),
        ActionKind::Op(_)
        | ActionKind::CancelMonitor { .. }
        | ActionKind::Cluster(_)
        | ActionKind::Pseudo { .. } => None,
    })
}

/// All that has to be done before an action.
fn before(plan: &Plan, at: usize) -> BTreeSet<usize> {
    let mut out = BTreeSet::new();
    let mut work = vec![at];
    while let Some(at) = work.pop() {
        for need in &plan.actions[at].needs {
            if out.insert(need.0 as usize) {
                work.push(need.0 as usize);
            }
        }
    }
    out
}

/// Notifications of a kind: position and node.
fn told(plan: &Plan, when: &str, what: &str) -> Vec<(usize, String)> {
    let is = |spec: &OpSpec| {
        spec.params["CRM_meta_notify_type"] == when
            && spec.params["CRM_meta_notify_operation"] == what
    };
    ops(plan, "notify").filter(|(_, s)| is(s)).map(|(at, s)| (at, s.node.clone())).collect()
}

#[test]
fn both_instances_are_told_before_and_those_that_stay_after() {
    let mut world = settled();
    world.set_standby("alpha", true);
    let plan = world.plan();
    let (demote, spec) = ops(&plan, "demote").next().unwrap();
    let pre = told(&plan, "pre", "demote");
    let nodes: BTreeSet<&str> = pre.iter().map(|(_, node)| node.as_str()).collect();
    assert_eq!(nodes, BTreeSet::from(["alpha", "delta"]));
    assert!(pre.iter().all(|(at, _)| before(&plan, demote).contains(at)));
    let post = told(&plan, "post", "demote");
    assert!(!post.is_empty() && post.iter().all(|(at, _)| before(&plan, *at).contains(&demote)));
    let (promote, _) = ops(&plan, "promote").next().unwrap();
    assert!(post.iter().all(|(at, _)| before(&plan, promote).contains(at)));
    let after: Vec<String> = told(&plan, "post", "stop").into_iter().map(|(_, n)| n).collect();
    assert_eq!(after, ["delta"]);
    // The agent that acts knows as well who does what.
    let said = |name: &str| spec.params[&format!("CRM_meta_notify_{name}")].as_str();
    assert_eq!((said("demote_resource"), said("demote_uname")), ("drbd_nfs:0", "alpha"));
    assert_eq!((said("master_uname"), said("promoted_uname")), ("alpha", "alpha"));
    assert_eq!((said("slave_uname"), said("promote_uname")), ("delta", "delta"));
    assert_eq!((said("start_uname"), said("active_uname")), (" ", "alpha delta"));
}

#[test]
fn a_refused_notification_fails_nothing() {
    let mut world = settled();
    for node in ["alpha", "delta"] {
        world.broken.insert((node.into(), "drbd_nfs".into(), "notify".into()), 1);
    }
    world.set_standby("alpha", true);
    world.settle();
    assert_eq!(world.running("delta"), names(&["drbd_nfs!", "fs_nfs", "nfs", "vip"]));
    let history = &world.status.nodes["delta"].resources["drbd_nfs"];
    assert_eq!((history.fail_count, history.failure.as_ref()), (0, None));
}

#[test]
fn nobody_is_told_of_what_has_to_wait() {
    let mut world = settled();
    world.kill("alpha", false);
    assert_eq!(ops(&world.plan(), "notify").count(), 0);
}

#[test]
fn a_node_that_plans_for_itself_tells_itself_only() {
    let mut world = settled();
    world.set_standby("alpha", true);
    let plan = world.plan_only(Some("alpha"));
    assert_eq!(ops(&plan, "demote").count(), 1);
    let nodes: BTreeSet<&str> = ops(&plan, "notify").map(|(_, s)| s.node.as_str()).collect();
    assert_eq!(nodes, BTreeSet::from(["alpha"]));
}

#[test]
fn without_notify_nobody_is_told() {
    let mut cib = seed(true);
    for resource in &mut cib.resources {
        resource.meta_mut().set("notify", "false");
    }
    let mut world = World::new(&["alpha", "delta"], cib);
    world.settle();
    world.set_standby("alpha", true);
    let plan = world.plan();
    assert_eq!(ops(&plan, "notify").count(), 0);
    let (_, spec) = ops(&plan, "demote").next().unwrap();
    assert!(!spec.params.contains_key("CRM_meta_notify_type"));
}
