//! Why a resource is where it is, or why it is not: the plan's reasons put into an answer, with what would change it. Pure.

mod facts;
mod failures;
mod headline;
mod order;
mod remedy;
#[cfg(test)]
mod tests;
mod verdict;

pub use facts::{Acts, Facts, amounts};

use crate::cib::{Role, Score};
use crate::plan::{Placement, Reason};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// An answer. The first thing to read is [`Answer::answer`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Answer {
    /// The resource asked about.
    pub resource: String,
    /// The node asked about.
    pub node: Option<String>,
    /// The answer, in one sentence.
    pub answer: String,
    /// Where each instance is and is to be.
    pub instances: Vec<Instance>,
    /// What speaks for and against each node.
    pub nodes: Vec<Verdict>,
    /// Why what is to be done cannot be done now.
    pub waits: Vec<Cause>,
    /// Failures that count, newest first.
    pub failures: Vec<Failure>,
    /// What would change it.
    pub remedies: Vec<Remedy>,
}

/// Where an instance is and is to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Instance {
    /// Primitive.
    pub resource: String,
    /// Instance number in a clone; 0 otherwise.
    pub number: u32,
    /// Nodes it is active on, with role.
    pub now: Vec<(String, Role)>,
    /// Node it is to be on.
    pub node: Option<String>,
    /// Role it is to have.
    pub role: Role,
    /// How much it should be promoted where it is to be.
    pub promotion: Option<Score>,
    /// What is said of it, in one sentence.
    pub answer: String,
}

/// What a node is to a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Standing {
    /// It runs there, and is to run there.
    Runs,
    /// It runs there, and is to leave.
    Leaves,
    /// It is to run there, and does not yet.
    Chosen,
    /// It might run there.
    Possible,
    /// It cannot run there.
    Cannot,
}

/// What speaks for and against a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// Node.
    pub node: String,
    /// What it is to the resource.
    pub standing: Standing,
    /// Its score when the resource was placed.
    pub score: Option<Score>,
    /// Why, in one clause.
    pub text: String,
    /// What the score is made of, and what forbids the node.
    pub parts: Vec<Cause>,
}

/// A reason: where it comes from, and what it says.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Cause {
    /// Machine-readable source: `location`, `stickiness`, `standby`, ...
    pub code: String,
    /// What it is about, when that is not the resource asked for.
    pub resource: String,
    /// What decides: a constraint, another resource, a ticket.
    pub by: Option<String>,
    /// What it adds to the score.
    pub score: Option<Score>,
    /// In words.
    pub text: String,
}

impl From<&Reason> for Cause {
    fn from(reason: &Reason) -> Self {
        Self {
            code: reason.code.clone(),
            resource: reason.resource.clone(),
            by: reason.by.clone(),
            score: reason.score,
            text: reason.text.clone(),
        }
    }
}

/// A failure that is remembered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Failure {
    /// Resource, as its history is called.
    pub resource: String,
    /// Node.
    pub node: String,
    /// Operation; empty when only the count is known.
    pub op: String,
    /// Its interval; 0 for one-shot operations and probes.
    pub interval_ms: u64,
    /// Exit code.
    pub rc: i32,
    /// How it ended: `complete` (the exit code counts), `timeout`, `not-started`, `cancelled`, `unknown`.
    pub ended: &'static str,
    /// The agent's own words.
    pub reason: String,
    /// When.
    pub when_ms: u64,
    /// Failures counted there.
    pub fail_count: u32,
    /// In how many milliseconds they are forgotten; `None` = not before a cleanup.
    pub expires_in_ms: Option<u64>,
}

/// Something that would change the answer.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Remedy {
    /// What to type; empty when it is nothing one types here.
    pub command: String,
    /// What it is good for.
    pub effect: String,
}

/// Codes of reasons for which something that is to be done is not done now.
const WAITS: &[&str] = &["order", "order-loop", "unclean", "no-quorum", "blocked", "probe"];

/// Answers, about all nodes or one. `None` when there is no such resource.
#[must_use]
pub fn why(facts: &Facts<'_>, resource: &str, node: Option<&str>) -> Option<Answer> {
    let primitives = facts.primitives(resource);
    if primitives.is_empty() {
        return None;
    }
    let placements: Vec<&Placement> = primitives.iter().flat_map(|p| facts.placements(p)).collect();
    let instances: Vec<Instance> = placements
        .iter()
        .map(|p| Instance {
            resource: p.instance.resource.clone(),
            number: p.instance.number,
            now: p.now.clone(),
            node: p.node.clone(),
            role: p.role,
            promotion: facts.promotion(p),
            answer: headline::of_instance(facts, p).to_string(),
        })
        .collect();
    let subject = headline::subject(facts, &placements);
    let mut nodes = verdict::all(facts, &subject, &placements);
    if let Some(node) = node {
        nodes.retain(|v| v.node == node || matches!(v.standing, Standing::Runs | Standing::Chosen));
        nodes.sort_by_key(|v| v.node != node);
    }
    let waits = waits(facts, &primitives, &placements);
    let failures = failures::of(facts, &primitives, node);
    let answer = match node {
        Some(node) => headline::about_node(facts, resource, node, &placements, &nodes),
        None => headline::of_all(facts, resource, &placements),
    };
    let remedies =
        remedy::all(facts, &subject, &Told { nodes: &nodes, waits: &waits, failures: &failures });
    Some(Answer {
        resource: resource.to_owned(),
        node: node.map(str::to_owned),
        answer,
        instances,
        nodes,
        waits,
        failures,
        remedies,
    })
}

impl Facts<'_> {
    /// Why an instance is where it is, or changes.
    #[must_use]
    pub fn cause(&self, placement: &Placement) -> String {
        headline::of_instance(self, placement).cause()
    }

    /// Why resources change, by label (with and without the instance number where there is only one).
    #[must_use]
    pub fn causes(&self) -> BTreeMap<String, String> {
        let mut out = BTreeMap::new();
        for placement in &self.explained.plan.placements {
            if settled(placement) && !self.acts_on(placement) {
                continue;
            }
            let cause = headline::of_instance(self, placement).cause();
            let instance = &placement.instance;
            out.insert(format!("{}:{}", instance.resource, instance.number), cause.clone());
            if self.placements(&instance.resource).nth(1).is_none() {
                out.insert(instance.resource.clone(), cause);
            }
        }
        out
    }
}

/// What has been found out so far.
struct Told<'a> {
    nodes: &'a [Verdict],
    waits: &'a [Cause],
    failures: &'a [Failure],
}

/// Why what is to change does not change in this plan.
fn waits(facts: &Facts<'_>, primitives: &[String], placements: &[&Placement]) -> Vec<Cause> {
    if placements.iter().all(|p| settled(p) || facts.acts_on(p)) {
        return Vec::new();
    }
    let mut out = BTreeSet::new();
    for primitive in primitives {
        let chain = facts.chain(primitive);
        let found = facts.reasons(&chain).filter(|r| WAITS.contains(&r.code.as_str()));
        out.extend(found.map(Cause::from));
        out.extend(order::before(facts, primitive).map(|(by, text)| Cause {
            code: "order".to_owned(),
            resource: primitive.clone(),
            by: Some(by),
            score: None,
            text,
        }));
    }
    out.into_iter().collect()
}

/// It is where and what it is to be.
fn settled(placement: &Placement) -> bool {
    match (placement.now.as_slice(), &placement.node) {
        ([], None) => true,
        ([(node, role)], Some(to)) => node == to && *role == placement.role,
        _ => false,
    }
}
