//! Laws that hold for Pacemaker's decisions on any cluster, on random ones: `CRM_FUZZ_SEEDS` says how many.
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

use crm_core::cib::{Resource, Role};
use crm_core::plan::{Action, ActionKind, ClusterOp, Placement, Plan, plan};
use crm_core::simulate::{input, run};
use crm_core::xml::{Document, read};
use crm_fuzz::engine::NOW_MS;
use crm_fuzz::generate::{Mask, cluster};
use crm_fuzz::minimise::minimise;
use crm_fuzz::tree::Xml;
use std::collections::{BTreeMap, BTreeSet};

fn seeds() -> std::ops::Range<u64> {
    let count = std::env::var("CRM_FUZZ_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(600);
    // Not those that the differential run looks at.
    1_000_000..1_000_000 + count
}

fn document(tree: &Xml) -> Document {
    read(&tree.to_string(), NOW_MS).unwrap()
}

/// Asks every cluster; the first that breaks the law is cut down and shown.
fn law(broken: impl Fn(&Xml) -> Option<String>) {
    for seed in seeds() {
        let tree = cluster(seed, &Mask::default());
        if let Some(why) = broken(&tree) {
            let small = minimise(&tree, 4000, &mut |t| {
                read(&t.to_string(), NOW_MS).is_ok() && broken(t).is_some()
            });
            panic!("seed {seed}: {why}; cut down: {:?}\n{small}", broken(&small));
        }
    }
}

/// Sorted: which actions there are must not depend on the order in which things are written; their numbers may.
fn shown(plan: &Plan) -> Vec<String> {
    let mut lines = plan.summary.clone();
    lines.sort();
    lines
}

/// What is to run where, whatever the instances are called.
fn goal(plan: &Plan) -> Vec<(&str, &str, Role)> {
    let mut out = Vec::new();
    for p in &plan.placements {
        if let Some(node) = &p.node {
            out.push((p.instance.resource.as_str(), node.as_str(), p.role));
        }
    }
    out.sort_unstable();
    out
}

fn reversed(tree: &Xml, section: &str) -> Xml {
    let mut out = tree.clone();
    if out.name == section {
        out.children.reverse();
    }
    out.children = out.children.iter().map(|c| reversed(c, section)).collect();
    out
}

#[test]
fn the_order_in_which_attributes_of_nodes_and_options_are_written_does_not_matter() {
    law(|tree| {
        let other = ["crm_config", "cluster_property_set", "instance_attributes", "utilization"]
            .iter()
            .fold(tree.clone(), |t, section| reversed(&t, section));
        let (a, b) = (document(tree), document(&other));
        let (a, b) = (plan(&input(&a)), plan(&input(&b)));
        (a != b).then(|| format!("{:?} became {:?}", a.summary, b.summary))
    });
}

#[test]
fn the_order_in_which_nodes_are_configured_does_not_matter() {
    law(|tree| {
        let other = reversed(tree, "nodes");
        let (a, b) = (document(tree), document(&other));
        let (a, b) = (plan(&input(&a)), plan(&input(&b)));
        (shown(&a) != shown(&b)).then(|| format!("{:?} became {:?}", a.summary, b.summary))
    });
}

#[test]
fn the_order_in_which_histories_of_a_node_are_recorded_does_not_matter() {
    law(|tree| {
        let other = ["lrm_resources", "lrm_resource", "tickets"]
            .iter()
            .fold(tree.clone(), |t, section| reversed(&t, section));
        let (a, b) = (document(tree), document(&other));
        let (a, b) = (plan(&input(&a)), plan(&input(&b)));
        (goal(&a) != goal(&b)).then(|| format!("{:?} became {:?}", a.summary, b.summary))
    });
}

#[test]
fn nothing_is_done_before_what_it_needs() {
    law(|tree| {
        let document = document(tree);
        let run = run(&document, &[]);
        let mut done = BTreeSet::new();
        for index in run.end.iter().flat_map(|end| &end.executed) {
            let needs = run.plan.actions[*index].needs.iter();
            if let Some(need) = needs.map(|n| n.0 as usize).find(|n| !done.contains(n)) {
                return Some(format!(
                    "{} before {}",
                    said(&run.plan.actions[*index]),
                    said(&run.plan.actions[need])
                ));
            }
            done.insert(*index);
        }
        None
    });
}

fn said(action: &Action) -> String {
    match &action.kind {
        ActionKind::Op(spec) => format!("{} of {} on {}", spec.op, spec.resource, spec.node),
        other => format!("{other:?}"),
    }
}

#[test]
fn nothing_begins_elsewhere_before_the_node_that_may_run_it_is_fenced() {
    law(|tree| {
        let document = document(tree);
        let plan = plan(&input(&document));
        let fenced: BTreeMap<&str, usize> = plan
            .actions
            .iter()
            .enumerate()
            .filter_map(|(i, a)| match &a.kind {
                ActionKind::Cluster(ClusterOp::Fence { node, how }) if how != "on" => {
                    Some((node.as_str(), i))
                }
                _ => None,
            })
            .collect();
        for placement in &plan.placements {
            let resource = &placement.instance.resource;
            let unique = placement.now.len() == 1
                && document.cib.top_of(resource).is_some_and(|top| top.id() == resource);
            let Some((node, _)) = placement.now.first().filter(|_| unique) else { continue };
            let Some(fence) = fenced.get(node.as_str()) else { continue };
            for (index, action) in plan.actions.iter().enumerate() {
                if let ActionKind::Op(spec) = &action.kind
                    && spec.resource == *resource
                    && spec.op == "start"
                    && needs_fencing(&document, resource)
                    && !follows(&plan, index, *fence)
                {
                    return Some(format!("{} without fencing {node}", said(action)));
                }
            }
        }
        None
    });
}

/// `requires` of a resource asks for more than quorum.
fn needs_fencing(document: &Document, resource: &str) -> bool {
    let Some(primitive) = document.cib.primitive(resource) else { return true };
    // Devices are what fences: they do not wait for it.
    let exempt = matches!(primitive.meta.get("requires"), Some("nothing" | "quorum"));
    !exempt && primitive.agent.class != "stonith"
}

/// `after` has to wait for `before`, over any number of steps.
fn follows(plan: &Plan, after: usize, before: usize) -> bool {
    let (mut todo, mut seen) = (vec![after], BTreeSet::new());
    while let Some(at) = todo.pop() {
        if at == before {
            return true;
        }
        if seen.insert(at) {
            todo.extend(plan.actions[at].needs.iter().map(|n| n.0 as usize));
        }
    }
    false
}

/// The transition has done all it wanted, and no failure is left that is only now seen.
fn quiet(tree: &Xml) -> bool {
    tree.find("node_state").iter().all(|n| n.attr("join") == Some("member"))
}

#[test]
fn a_primitive_is_never_started_on_two_nodes_by_one_plan() {
    law(|tree| {
        let document = document(tree);
        let plan = plan(&input(&document));
        let mut starts: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for action in &plan.actions {
            if let ActionKind::Op(spec) = &action.kind
                && spec.op == "start"
                && document.cib.top_of(&spec.resource).is_some_and(|t| !is_clone(t))
            {
                starts.entry(&spec.resource).or_default().insert(&spec.node);
            }
        }
        starts.into_iter().find(|(_, nodes)| nodes.len() > 1).map(|(r, n)| format!("{r} on {n:?}"))
    });
}

#[test]
fn never_more_are_promoted_by_a_plan_than_promoted_max() {
    law(|tree| {
        let document = document(tree);
        let plan = plan(&input(&document));
        let mut promotes: BTreeMap<&str, usize> = BTreeMap::new();
        for action in &plan.actions {
            if let ActionKind::Op(spec) = &action.kind
                && spec.op == "promote"
            {
                let id = spec.resource.split(':').next().unwrap_or_default();
                *promotes.entry(id).or_default() += 1;
            }
        }
        let max = |id: &str| match document.cib.top_of(id) {
            Some(Resource::Clone(clone)) => {
                clone.meta.get("promoted-max").and_then(|n| n.parse().ok()).unwrap_or(1)
            }
            _ => 0,
        };
        promotes.into_iter().find(|(id, n)| *n > max(id)).map(|(id, n)| format!("{n} of {id}"))
    });
}

/// Places of the instances of primitives, before and after the transition of a plan.
type Places = Vec<(String, Vec<(String, Role)>)>;

fn places(plan: &Plan) -> Places {
    let of = |p: &Placement| (p.instance.resource.clone(), p.now.clone());
    plan.placements.iter().map(of).collect()
}

fn ended(tree: &Xml) -> Option<(Document, Plan, Plan)> {
    let document = document(tree);
    let first = run(&document, &[]);
    let end = first.end?;
    let after = plan(&input(&end.document));
    Some((document, first.plan, after))
}

#[test]
fn what_was_active_once_is_active_once_at_most_when_the_plan_is_done() {
    law(|tree| {
        let (document, plan, after) = ended(tree)?;
        let single = |id: &str| document.cib.top_of(id).is_some_and(|t| !is_clone(t));
        let count = |places: &Places, id: &str| {
            places.iter().filter(|(r, _)| r == id).map(|(_, now)| now.len()).sum::<usize>()
        };
        let (now, then) = (places(&plan), places(&after));
        let ids: BTreeSet<&String> =
            then.iter().map(|(id, _)| id).filter(|id| single(id)).collect();
        let twice = |id: &&&String| count(&then, id) > count(&now, id).max(1);
        ids.iter().find(twice).map(|id| format!("{id}: {then:?}"))
    });
}

#[test]
fn no_more_are_promoted_when_the_plan_is_done_than_promoted_max() {
    law(|tree| {
        let (document, plan, after) = ended(tree)?;
        let promoted = |places: &Places| {
            let mut out: BTreeMap<String, usize> = BTreeMap::new();
            for (id, now) in places {
                let here = now.iter().filter(|(_, role)| *role == Role::Promoted).count();
                let top = document.cib.top_of(id).map_or(id.as_str(), |t| t.id());
                *out.entry(format!("{top} {id}")).or_default() += here;
            }
            out
        };
        let (now, then) = (promoted(&places(&plan)), promoted(&places(&after)));
        let max = |id: &str| match document.cib.resource(id.split(' ').next().unwrap_or(id)) {
            Some(Resource::Clone(clone)) => {
                clone.meta.get("promoted-max").and_then(|n| n.parse().ok()).unwrap_or(1)
            }
            _ => 0,
        };
        let over =
            |(id, n): &(&String, &usize)| **n > max(id).max(now.get(*id).copied().unwrap_or(0));
        then.iter().find(over).map(|(id, n)| format!("{n} of {id}"))
    });
}

fn is_clone(resource: &Resource) -> bool {
    matches!(resource, Resource::Clone(_))
}

/// Exceptions that Pacemaker has too: what a transition brings to light (a resource found by a probe, a role that only exists once the
/// instance is started), and actions that are planned again and again because they cannot be carried out.
#[test]
fn a_settled_cluster_stays_settled() {
    law(|tree| {
        let mut now = document(tree);
        for _ in 0..6 {
            let result = run(&now, &[]);
            let Some(end) = result.end else { break };
            if result.plan.is_empty() || result.plan.summary.is_empty() {
                break;
            }
            now = end.document;
        }
        let first = run(&now, &[]);
        let Some(end) = &first.end else { return Some("it does not end".to_owned()) };
        let again = run(&end.document, &[]);
        // Once nothing changes any more, nothing is done any more.
        let settled = first.plan.summary.is_empty() && quiet(tree);
        (settled && !again.plan.summary.is_empty())
            .then(|| format!("{:?} after nothing", again.plan.summary))
    });
}
