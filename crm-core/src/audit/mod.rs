//! The whole cluster's decisions at a glance: what runs where and why, what would be second best, what has only one place to be. Pure.

#[cfg(test)]
mod tests;

use crate::cib::{Role, Score};
use crate::lint::{Finding, lint};
use crate::plan::{Placement, Plan, plan};
use crate::simulate::{Change, NodeChange, assume, input_for};
use crate::why::{Facts, Failure, Instance, amounts, why};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// All of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Audit {
    /// Every instance of every primitive, in document order.
    pub resources: Vec<Decision>,
    /// What would stop if a node were lost, by node; nodes without resources too.
    pub losses: Vec<Loss>,
    /// Capacities that are configured and how much of them is taken.
    pub capacity: Vec<Capacity>,
    /// Instances that are not where and what they are to be.
    pub disagreements: Vec<Instance>,
    /// Failures that are remembered, newest first.
    pub failures: Vec<Failure>,
    /// What is legal but unwise.
    pub findings: Vec<Finding>,
}

/// A decision about an instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Decision {
    /// The instance, with what is said of it.
    #[serde(flatten)]
    pub instance: Instance,
    /// Its score there.
    pub score: Option<Score>,
    /// Why, in one clause.
    pub why: String,
    /// The node that would have been second.
    pub runner_up: Option<RunnerUp>,
}

/// A node that might have been chosen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RunnerUp {
    /// Node.
    pub node: String,
    /// Its score.
    pub score: Score,
    /// How much less that is; 0 = the same.
    pub less: i64,
}

/// What the loss of a node would do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Loss {
    /// Node.
    pub node: String,
    /// Primitives that would run nowhere any more.
    pub stops: Vec<String>,
    /// Primitives of which no instance would be promoted any more.
    pub demotes: Vec<String>,
    /// Primitives that would go on elsewhere.
    pub moves: Vec<String>,
}

/// A capacity of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Capacity {
    /// Node.
    pub node: String,
    /// Which (`memory`, `cpu`, ...).
    pub name: String,
    /// How much there is.
    pub total: i64,
    /// How much is taken by what is to run there.
    pub used: i64,
    /// It counts: `placement-strategy` is not `default`.
    pub counts: bool,
}

/// Looks at everything.
#[must_use]
pub fn audit(facts: &Facts<'_>) -> Audit {
    let cib = &facts.document.cib;
    let mut resources = Vec::new();
    let mut disagreements = Vec::new();
    let mut failures = Vec::new();
    let mut seen = BTreeSet::new();
    for placement in &facts.explained.plan.placements {
        let id = placement.instance.resource.as_str();
        if !seen.insert(id) {
            continue;
        }
        let Some(answer) = why(facts, id, None) else { continue };
        failures.extend(answer.failures);
        for (instance, placement) in answer.instances.into_iter().zip(facts.placements(id)) {
            if !as_wanted(facts, id, &instance) && !spare(facts, placement) {
                disagreements.push(instance.clone());
            }
            resources.push(decision(facts, placement, instance));
        }
    }
    failures.sort_by_key(|f: &Failure| std::cmp::Reverse(f.when_ms));
    let losses = losses(facts);
    let capacity = capacity(facts);
    Audit { resources, losses, capacity, disagreements, failures, findings: lint(cib) }
}

/// It is where and what it is to be.
fn as_wanted(facts: &Facts<'_>, id: &str, instance: &Instance) -> bool {
    match (instance.now.as_slice(), &instance.node) {
        ([], None) => !enabled(facts, id),
        ([(node, role)], Some(to)) => node == to && *role == instance.role,
        _ => false,
    }
}

/// What does not run although it is wanted to, and is to be nowhere, with the reason.
#[must_use]
pub fn without_a_place(facts: &Facts<'_>) -> Vec<String> {
    let mut out = Vec::new();
    let mut seen = BTreeSet::new();
    for placement in &facts.explained.plan.placements {
        let id = placement.instance.resource.as_str();
        if placement.node.is_some() || !placement.now.is_empty() || !seen.insert(id) {
            continue;
        }
        let Some(answer) = why(facts, id, None) else { continue };
        for (instance, placement) in answer.instances.into_iter().zip(facts.placements(id)) {
            if !as_wanted(facts, id, &instance) && !spare(facts, placement) {
                out.push(instance.answer);
            }
        }
    }
    out
}

/// It is wanted to run.
fn enabled(facts: &Facts<'_>, id: &str) -> bool {
    let chain = facts.chain(id);
    !facts.reasons(&chain).any(|r| matches!(r.code.as_str(), "target-role" | "stop-all-resources"))
}

/// An instance of a clone that has no node to run on, while others have.
fn spare(facts: &Facts<'_>, placement: &Placement) -> bool {
    let mut all = facts.placements(&placement.instance.resource);
    placement.node.is_none() && placement.now.is_empty() && all.any(|p| p.node.is_some())
}

fn decision(facts: &Facts<'_>, placement: &Placement, instance: Instance) -> Decision {
    let table = facts.table(placement);
    let chosen = placement.node.as_deref();
    let score = chosen.and_then(|n| table.get(n)).copied();
    let taken: BTreeSet<&str> =
        facts.placements(&placement.instance.resource).filter_map(|p| p.node.as_deref()).collect();
    let rivals = table.iter().filter(|(n, s)| {
        **s >= Score::ZERO
            && !taken.contains(n.as_str())
            && facts.closed(n).is_none()
            && facts.lacks(&placement.instance.resource, n).is_none()
    });
    let best = rivals.max_by(|a, b| a.1.cmp(b.1).then_with(|| b.0.cmp(a.0)));
    let runner_up = best.filter(|_| chosen.is_some()).map(|(node, rival)| RunnerUp {
        node: node.clone(),
        score: *rival,
        less: i64::from(score.unwrap_or(Score::ZERO).value()) - i64::from(rival.value()),
    });
    Decision { why: facts.cause(placement), instance, score, runner_up }
}

/// Plans once for each node that runs something or could.
fn losses(facts: &Facts<'_>) -> Vec<Loss> {
    let base = summary(&facts.explained.plan);
    let nodes = facts.picture.nodes.iter().filter(|n| n.online && n.clean);
    let mut out = Vec::new();
    for node in nodes {
        let mut document = facts.document.clone();
        let change = Change::Node(node.name.clone(), NodeChange::Down);
        if assume(&mut document, &change).is_err() {
            continue;
        }
        let after = summary(&plan(&input_for(&document, facts.mind)));
        let mut loss = Loss {
            node: node.name.clone(),
            stops: Vec::new(),
            demotes: Vec::new(),
            moves: Vec::new(),
        };
        for (id, before) in &base {
            if !before.nodes.contains(&node.name) {
                continue;
            }
            let then = after.get(id).cloned().unwrap_or_default();
            if then.nodes.is_empty() {
                loss.stops.push(id.clone());
            } else if before.promoted && !then.promoted {
                loss.demotes.push(id.clone());
            } else if then.nodes.iter().any(|n| !before.nodes.contains(n)) {
                loss.moves.push(id.clone());
            }
        }
        out.push(loss);
    }
    out
}

/// Where a primitive is to be.
#[derive(Debug, Clone, Default)]
struct Places {
    nodes: BTreeSet<String>,
    promoted: bool,
}

fn summary(plan: &Plan) -> BTreeMap<String, Places> {
    let mut out: BTreeMap<String, Places> = BTreeMap::new();
    for placement in &plan.placements {
        let places = out.entry(placement.instance.resource.clone()).or_default();
        places.nodes.extend(placement.node.clone());
        places.promoted |= placement.role == Role::Promoted;
    }
    out
}

fn capacity(facts: &Facts<'_>) -> Vec<Capacity> {
    let cib = &facts.document.cib;
    let strategy = cib.properties.get("placement-strategy").unwrap_or("default");
    let mut used: BTreeMap<(&str, &str), i64> = BTreeMap::new();
    for placement in &facts.explained.plan.placements {
        let (Some(node), Some(primitive)) =
            (&placement.node, cib.primitive(&placement.instance.resource))
        else {
            continue;
        };
        for (name, amount) in amounts(&primitive.utilization) {
            *used.entry((node, name)).or_default() += amount;
        }
    }
    let mut out = Vec::new();
    for node in &cib.nodes {
        for (name, total) in amounts(&node.utilization) {
            out.push(Capacity {
                node: node.name.clone(),
                name: name.to_owned(),
                total,
                used: used.get(&(node.name.as_str(), name)).copied().unwrap_or(0),
                counts: strategy != "default",
            });
        }
    }
    out
}
