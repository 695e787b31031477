//! Loops in mandatory orders and colocations, down to primitives: groups are chains, clones are what they clone.

use crate::cib::{
    Cib, Colocation, Constraint, Order, OrderAction, OrderKind, Resource, ResourceSet, Score,
    SetMember,
};
use petgraph::algo::kosaraju_scc;
use petgraph::graph::{DiGraph, NodeIndex};
use petgraph::visit::EdgeRef as _;
use std::collections::{BTreeMap, BTreeSet};

/// A loop: what goes round, and the ids of the constraints in it.
pub(crate) struct Loop {
    pub(crate) members: Vec<String>,
    pub(crate) constraints: Vec<String>,
}

/// A graph of words whose edges carry the constraint that made them.
#[derive(Default)]
struct Graph {
    graph: DiGraph<String, Option<String>>,
    index: BTreeMap<String, NodeIndex>,
}

impl Graph {
    fn node(&mut self, word: &str) -> NodeIndex {
        if let Some(index) = self.index.get(word) {
            return *index;
        }
        let index = self.graph.add_node(word.to_owned());
        self.index.insert(word.to_owned(), index);
        index
    }

    fn edge(&mut self, from: &str, to: &str, constraint: Option<&str>) {
        let (a, b) = (self.node(from), self.node(to));
        self.graph.add_edge(a, b, constraint.map(str::to_owned));
    }

    fn loops(&self) -> Vec<Loop> {
        let components = kosaraju_scc(&self.graph);
        let mut home = vec![0; self.graph.node_count()];
        for (number, component) in components.iter().enumerate() {
            for node in component {
                home[node.index()] = number;
            }
        }
        // Constraints within each component, where anything goes round.
        let mut inside: BTreeMap<usize, BTreeSet<&String>> = BTreeMap::new();
        for edge in self.graph.edge_references() {
            let component = home[edge.source().index()];
            if component == home[edge.target().index()] {
                inside.entry(component).or_default().extend(edge.weight());
            }
        }
        let mut out = Vec::new();
        for (component, constraints) in inside.iter().filter(|(_, all)| !all.is_empty()) {
            let mut members: Vec<String> =
                components[*component].iter().map(|n| self.graph[*n].clone()).collect();
            members.sort();
            let constraints = constraints.iter().map(|id| (*id).clone()).collect();
            out.push(Loop { members, constraints });
        }
        out.sort_by(|a, b| a.constraints.cmp(&b.constraints));
        out
    }
}

/// The first and the last primitive of every resource: what a chain that goes to or from it is tied to.
struct Ends<'a>(BTreeMap<&'a str, (&'a str, &'a str)>);

impl<'a> Ends<'a> {
    fn of(cib: &'a Cib) -> Self {
        let mut out = BTreeMap::new();
        for resource in &cib.resources {
            let mut at = Some(resource);
            while let Some(resource) = at {
                let mut inner = Vec::new();
                resource.collect_primitives(&mut inner);
                if let (Some(first), Some(last)) = (inner.first(), inner.last()) {
                    out.entry(resource.id()).or_insert((first.id.as_str(), last.id.as_str()));
                }
                at = match resource {
                    Resource::Clone(c) => Some(&c.child),
                    Resource::Primitive(_) | Resource::Group(_) | Resource::Bundle(_) => None,
                };
            }
        }
        Self(out)
    }

    fn first(&self, id: &'a str) -> &'a str {
        self.0.get(id).map_or(id, |ends| ends.0)
    }

    fn last(&self, id: &'a str) -> &'a str {
        self.0.get(id).map_or(id, |ends| ends.1)
    }
}

fn groups(cib: &Cib) -> Vec<Vec<String>> {
    fn visit(resource: &Resource, out: &mut Vec<Vec<String>>) {
        match resource {
            Resource::Primitive(_) | Resource::Bundle(_) => {}
            Resource::Group(g) => out.push(g.members.iter().map(|m| m.id.clone()).collect()),
            Resource::Clone(c) => visit(&c.child, out),
        }
    }
    let mut out = Vec::new();
    cib.resources.iter().for_each(|r| visit(r, &mut out));
    out
}

/// Loops of colocations with an infinite score: each member follows the next one.
pub(crate) fn colocation_loops(cib: &Cib) -> Vec<Loop> {
    let bound = |c: &Constraint| matches!(c, Constraint::Colocation(c) if c.score == Score::INF);
    if !cib.constraints.iter().any(bound) {
        return Vec::new();
    }
    let (mut graph, ends) = (Graph::default(), Ends::of(cib));
    for members in groups(cib) {
        for pair in members.windows(2) {
            graph.edge(&pair[1], &pair[0], None);
        }
    }
    for constraint in &cib.constraints {
        if let Constraint::Colocation(c) = constraint
            && c.score == Score::INF
        {
            for (follower, leader) in colocated(c) {
                graph.edge(ends.first(follower), ends.last(leader), Some(&c.id));
            }
        }
    }
    graph.loops()
}

/// Pairs (follower, leader) of a colocation.
fn colocated(c: &Colocation) -> Vec<(&str, &str)> {
    if c.sets.is_empty() {
        // With itself: that is said in words of its own.
        return if c.rsc == c.with { Vec::new() } else { vec![(&c.rsc, &c.with)] };
    }
    let mut out = Vec::new();
    for set in c.sets.iter().filter(|s| s.sequential) {
        // Within a sequential set, each member follows the one before it.
        for pair in set.members.windows(2) {
            out.push((pair[1].resource.as_str(), pair[0].resource.as_str()));
        }
    }
    // Of two sets, the earlier one follows the later one.
    for two in c.sets.windows(2) {
        let (a, b) = (ends(&two[0], true), ends(&two[1], false));
        across(a, b, &mut |a, b| out.push((a, b)));
    }
    out
}

/// The members that a set is tied to others by: of a chain one end.
fn ends(set: &ResourceSet, first: bool) -> &[SetMember] {
    let members = set.members.as_slice();
    match (set.sequential, first) {
        (false, _) => members,
        (true, true) => members.get(..1).unwrap_or(members),
        (true, false) => members.get(members.len().saturating_sub(1)..).unwrap_or(members),
    }
}

fn across<'a>(
    first: &'a [SetMember],
    second: &'a [SetMember],
    pair: &mut dyn FnMut(&'a str, &'a str),
) {
    for a in first {
        for b in second {
            pair(&a.resource, &b.resource);
        }
    }
}

const fn verb(action: OrderAction) -> &'static str {
    super::show::action_word(action)
}

/// Loops of mandatory orders.
pub(crate) fn order_loops(cib: &Cib) -> Vec<Loop> {
    let bound =
        |c: &Constraint| matches!(c, Constraint::Order(c) if c.kind == OrderKind::Mandatory);
    if !cib.constraints.iter().any(bound) {
        return Vec::new();
    }
    let (mut graph, ends) = (Graph::default(), Ends::of(cib));
    for members in groups(cib) {
        for pair in members.windows(2) {
            graph.edge(&format!("{} start", pair[0]), &format!("{} start", pair[1]), None);
            graph.edge(&format!("{} stop", pair[1]), &format!("{} stop", pair[0]), None);
        }
    }
    for primitive in cib.primitives() {
        let id = &primitive.id;
        graph.edge(&format!("{id} start"), &format!("{id} promote"), None);
        graph.edge(&format!("{id} demote"), &format!("{id} stop"), None);
    }
    for constraint in &cib.constraints {
        if let Constraint::Order(c) = constraint
            && c.kind == OrderKind::Mandatory
        {
            for (first, a, then, b) in ordered(c) {
                let up = |action| matches!(action, OrderAction::Start | OrderAction::Promote);
                // Done when its last part is done; begun when its first part begins.
                let from = if up(a) { ends.last(first) } else { ends.first(first) };
                let to = if up(b) { ends.first(then) } else { ends.last(then) };
                graph.edge(
                    &format!("{from} {}", verb(a)),
                    &format!("{to} {}", verb(b)),
                    Some(&c.id),
                );
            }
        }
    }
    graph.loops()
}

type Step<'a> = (&'a str, OrderAction, &'a str, OrderAction);

fn ordered(c: &Order) -> Vec<Step<'_>> {
    let start = OrderAction::Start;
    if c.sets.is_empty() {
        let a = c.first_action.unwrap_or(start);
        return vec![(&c.first, a, &c.then, c.then_action.unwrap_or(a))];
    }
    let mut out = Vec::new();
    for set in c.sets.iter().filter(|s| s.sequential) {
        let action = set.action.unwrap_or(start);
        for pair in set.members.windows(2) {
            out.push((pair[0].resource.as_str(), action, pair[1].resource.as_str(), action));
        }
    }
    for two in c.sets.windows(2) {
        let (x, y) = (two[0].action.unwrap_or(start), two[1].action.unwrap_or(start));
        across(ends(&two[0], false), ends(&two[1], true), &mut |a, b| out.push((a, x, b, y)));
    }
    out
}
