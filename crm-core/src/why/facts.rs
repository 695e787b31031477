//! A plan with all that is known around it, looked up by resource and node.

use crate::cib::{NvSet, Resource, Role, Score};
use crate::plan::{
    ActionKind, ClusterOp, Explained, NodePicture, Picture, Placement, Reason, RscPicture,
    ScorePhase, explain, picture,
};
use crate::simulate::{Mind, Run, input_for};
use crate::status::ResourceHistory;
use crate::xml::Document;
use std::collections::{BTreeMap, BTreeSet};

/// Everything an explanation is made from.
#[derive(Debug)]
pub struct Facts<'a> {
    /// Configuration and status.
    pub document: &'a Document,
    /// Whose decisions.
    pub mind: Mind,
    /// What is decided.
    pub explained: Explained,
    /// What is seen.
    pub picture: Picture,
    /// Last score of a node for an instance, by label, then node.
    scores: BTreeMap<String, BTreeMap<String, Score>>,
    /// How much an instance should be promoted, by label.
    promotions: BTreeMap<String, Score>,
    /// Indices of the reasons about a resource.
    reasons: BTreeMap<String, Vec<usize>>,
    /// Indices of the placements of a primitive.
    instances: BTreeMap<String, Vec<usize>>,
    /// Indices of the operations on a history.
    operations: BTreeMap<String, Vec<usize>>,
    /// Nodes that the plan cuts off.
    fenced: BTreeSet<String>,
}

impl<'a> Facts<'a> {
    /// Plans, and sorts what comes out.
    #[must_use]
    pub fn new(document: &'a Document, mind: Mind) -> Self {
        let input = input_for(document, mind);
        Self::sorted(document, mind, explain(&input), picture(&input))
    }

    /// From a simulation that was asked for its scores.
    #[must_use]
    pub fn of(document: &'a Document, mind: Mind, run: &Run) -> Self {
        let explained = Explained { plan: run.plan.clone(), scores: run.scores.clone() };
        Self::sorted(document, mind, explained, run.before.clone())
    }

    fn sorted(document: &'a Document, mind: Mind, explained: Explained, picture: Picture) -> Self {
        let mut facts = Self {
            document,
            mind,
            picture,
            scores: BTreeMap::new(),
            promotions: BTreeMap::new(),
            reasons: BTreeMap::new(),
            instances: BTreeMap::new(),
            operations: BTreeMap::new(),
            fenced: BTreeSet::new(),
            explained,
        };
        for row in &facts.explained.scores {
            match row.phase {
                ScorePhase::Primitive => {
                    let nodes = facts.scores.entry(row.resource.clone()).or_default();
                    nodes.insert(row.node.clone(), row.score);
                }
                ScorePhase::Promotion => {
                    facts.promotions.insert(row.resource.clone(), row.score);
                }
                ScorePhase::Group | ScorePhase::Clone | ScorePhase::Bundle => {}
            }
        }
        for (index, reason) in facts.explained.plan.reasons.iter().enumerate() {
            facts.reasons.entry(reason.resource.clone()).or_default().push(index);
        }
        for (index, placement) in facts.explained.plan.placements.iter().enumerate() {
            let id = placement.instance.resource.clone();
            facts.instances.entry(id).or_default().push(index);
        }
        for (index, action) in facts.explained.plan.actions.iter().enumerate() {
            match &action.kind {
                ActionKind::Op(spec) => {
                    facts.operations.entry(spec.resource.clone()).or_default().push(index);
                }
                ActionKind::Cluster(ClusterOp::Fence { node, .. }) => {
                    facts.fenced.insert(node.clone());
                }
                ActionKind::Cluster(_)
                | ActionKind::CancelMonitor { .. }
                | ActionKind::Pseudo { .. } => {}
            }
        }
        facts
    }

    /// Primitives that a name means: its own, or those in it.
    #[must_use]
    pub fn primitives(&self, id: &str) -> Vec<String> {
        let cib = &self.document.cib;
        if cib.primitive(id).is_some() {
            return vec![id.to_owned()];
        }
        if let Some(resource) = cib.resource(id) {
            let mut inner = Vec::new();
            resource.collect_primitives(&mut inner);
            return inner.iter().map(|p| p.id.clone()).collect();
        }
        let removed = self.placements(id).next().is_some();
        if removed { vec![id.to_owned()] } else { Vec::new() }
    }

    /// The instances of a primitive.
    pub fn placements<'s>(&'s self, primitive: &'s str) -> impl Iterator<Item = &'s Placement> {
        let indices = self.instances.get(primitive).into_iter().flatten();
        indices.filter_map(|i| self.explained.plan.placements.get(*i))
    }

    /// It and what it is in, innermost first.
    #[must_use]
    pub fn chain(&self, primitive: &str) -> Vec<String> {
        let mut out = vec![primitive.to_owned()];
        let mut at = self.document.cib.top_of(primitive);
        let mut outer = Vec::new();
        while let Some(resource) = at {
            outer.push(resource.id().to_owned());
            at = if let Resource::Clone(clone) = resource { Some(&clone.child) } else { None };
        }
        outer.retain(|id| id != primitive);
        out.extend(outer.into_iter().rev());
        out
    }

    /// What is said of any of these.
    pub fn reasons<'s>(&'s self, chain: &'s [String]) -> impl Iterator<Item = &'s Reason> {
        let indices = chain.iter().filter_map(|id| self.reasons.get(id)).flatten();
        indices.filter_map(|i| self.explained.plan.reasons.get(*i))
    }

    /// The table of an instance; empty when it was never placed.
    #[must_use]
    pub fn table(&self, placement: &Placement) -> BTreeMap<String, Score> {
        let instance = &placement.instance;
        let numbered = format!("{}:{}", instance.resource, instance.number);
        let found = self.scores.get(&numbered).or_else(|| self.scores.get(&instance.resource));
        found.cloned().unwrap_or_default()
    }

    /// How much an instance (or the cloned group it is in) should be promoted.
    #[must_use]
    pub fn promotion(&self, placement: &Placement) -> Option<Score> {
        let number = placement.instance.number;
        let chain = self.chain(&placement.instance.resource);
        chain.iter().find_map(|id| self.promotions.get(&format!("{id}:{number}")).copied())
    }

    /// A node as it is seen.
    #[must_use]
    pub fn node(&self, name: &str) -> Option<&NodePicture> {
        self.picture.nodes.iter().find(|n| n.name == name)
    }

    /// A primitive's picture; of a clone the instance on `node`.
    #[must_use]
    pub fn seen(&self, primitive: &str, node: &str) -> Option<&RscPicture> {
        let leaves = self.picture.resources.iter().flat_map(RscPicture::leaves);
        let named = |label: &str| {
            label == primitive || label.rsplit_once(':').is_some_and(|(id, _)| id == primitive)
        };
        let mut mine = leaves.filter(|l| named(&l.label));
        mine.find(|l| l.active.iter().any(|(n, _)| n == node))
    }

    /// What a node's history says of a primitive.
    #[must_use]
    pub fn history(&self, key: &str, node: &str) -> Option<&'a ResourceHistory> {
        self.document.status.nodes.get(node)?.resources.get(key)
    }

    /// Why a node takes nothing, if it takes nothing: code and words.
    #[must_use]
    pub fn closed(&self, name: &str) -> Option<(&'static str, String)> {
        let node = self.node(name)?;
        let told = self.document.fence.get(name);
        let attribute = |key: &str| {
            let status = self.document.status.nodes.get(name)?;
            status.attrs.get(key).map(String::as_str)
        };
        let leaving = attribute("shutdown").is_some_and(|v| v != "0");
        let lost = !node.online && !node.clean && !node.pending;
        Some(match told {
            _ if lost && node.standby => ("unclean", "lost; it may still run things".to_owned()),
            Some(why) if lost => ("unclean", format!("lost: {why}")),
            None if lost => ("unclean", "lost; it may still run things".to_owned()),
            Some(why) => ("fence", format!("to be fenced: {why}")),
            None if self.fenced.contains(name) => ("fence", "to be fenced".to_owned()),
            None if node.pending => ("pending", "has not told yet what it runs".to_owned()),
            None if !node.online => ("offline", "offline".to_owned()),
            None if !node.clean => ("unclean", "what it runs is not known".to_owned()),
            None if leaving => ("shutdown", "shutting down".to_owned()),
            None if node.standby => ("standby", self.standby_words(name)),
            None if node.maintenance => ("maintenance", "in maintenance".to_owned()),
            None => return None,
        })
    }

    /// Standby by an attribute, or by a failure with `on-fail=standby`.
    fn standby_words(&self, name: &str) -> String {
        let mut all = self.explained.plan.reasons.iter();
        let failed = all.find(|r| {
            r.code == "standby" && r.node.as_deref() == Some(name) && r.text.starts_with("on-fail")
        });
        match failed {
            Some(reason) => {
                format!("in standby since {} failed ({})", reason.resource, reason.text)
            }
            None => "in standby".to_owned(),
        }
    }

    /// What is done with the instance in this plan.
    #[must_use]
    pub fn acts(&self, placement: &Placement) -> Acts {
        let instance = &placement.instance;
        let numbered = format!("{}:{}", instance.resource, instance.number);
        let now: BTreeSet<&str> = placement.now.iter().map(|(n, _)| n.as_str()).collect();
        // What runs on a node that is cut off ends with it.
        let mut acts =
            Acts { down: now.iter().any(|n| self.fenced.contains(*n)), ..Acts::default() };
        let keys = [instance.resource.as_str(), numbered.as_str()];
        let indices = keys.iter().filter_map(|key| self.operations.get(*key)).flatten();
        for action in indices.filter_map(|i| self.explained.plan.actions.get(*i)) {
            let ActionKind::Op(spec) = &action.kind else { continue };
            let here = now.contains(spec.node.as_str());
            let there = placement.node.as_deref() == Some(spec.node.as_str());
            if spec.interval_ms > 0 {
                continue;
            }
            match spec.op.as_str() {
                "stop" | "migrate_to" => acts.down |= here,
                "start" | "migrate_from" => acts.up |= there,
                "monitor" => {}
                _ => acts.other |= here || there,
            }
        }
        acts
    }

    /// Something is done with the instance in this plan.
    #[must_use]
    pub fn acts_on(&self, placement: &Placement) -> bool {
        let acts = self.acts(placement);
        acts.down || acts.up || acts.other
    }

    /// The member of its group before it, and the group.
    #[must_use]
    pub fn group_mate(&self, primitive: &str) -> Option<(String, String)> {
        let mut at = self.document.cib.top_of(primitive)?;
        while let Resource::Clone(clone) = at {
            at = &clone.child;
        }
        let Resource::Group(group) = at else { return None };
        let before = group.members.iter().take_while(|m| m.id != primitive).last()?;
        group
            .members
            .iter()
            .any(|m| m.id == primitive)
            .then(|| (before.id.clone(), group.id.clone()))
    }

    /// What a node lacks to take a primitive: words; `None` when it has room, or capacities do not count.
    #[must_use]
    pub fn lacks(&self, primitive: &str, node: &str) -> Option<String> {
        let cib = &self.document.cib;
        if cib.properties.get("placement-strategy").is_none_or(|s| s == "default") {
            return None;
        }
        let has = cib.node(node).map(|n| amounts(&n.utilization)).unwrap_or_default();
        let needs = amounts(&cib.primitive(primitive)?.utilization);
        for (name, need) in needs.into_iter().filter(|(_, need)| *need > 0) {
            let others =
                self.explained.plan.placements.iter().filter(|p| {
                    p.node.as_deref() == Some(node) && p.instance.resource != primitive
                });
            let taken = others.filter_map(|p| cib.primitive(&p.instance.resource));
            let taken: i64 = taken.filter_map(|p| amounts(&p.utilization).remove(name)).sum();
            let free = has.get(name).copied().unwrap_or(0) - taken;
            if need > free {
                return Some(format!("needs {need} of {name}, {free} are free"));
            }
        }
        None
    }
}

/// The numbers in a set of capacities.
#[must_use]
pub fn amounts(set: &NvSet) -> BTreeMap<&str, i64> {
    let numbers = set
        .pairs
        .iter()
        .filter_map(|pair| Some((pair.name.as_str(), pair.value.as_deref()?.trim().parse().ok()?)));
    numbers.collect()
}

/// What a plan does with an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Acts {
    /// It goes down where it is.
    pub down: bool,
    /// It comes up where it is to be.
    pub up: bool,
    /// It is promoted, demoted or reloaded.
    pub other: bool,
}

/// Pacemaker's word for a role, when it says more than "runs".
#[must_use]
pub(super) fn role_note(role: Role) -> &'static str {
    match role {
        Role::Stopped | Role::Started => "",
        Role::Unpromoted => " (Unpromoted)",
        Role::Promoted => " (Promoted)",
    }
}
