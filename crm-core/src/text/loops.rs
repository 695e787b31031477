//! Loops in mandatory orders and colocations, down to primitives: groups are chains, clones are what they clone.

use crate::cib::{
    Cib, Colocation, Constraint, Order, OrderAction, OrderKind, Resource, ResourceSet, Score,
};
use petgraph::algo::kosaraju_scc;
use petgraph::graph::{DiGraph, NodeIndex};
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
        let mut out = Vec::new();
        for component in kosaraju_scc(&self.graph) {
            let inside: BTreeSet<NodeIndex> = component.iter().copied().collect();
            let mut constraints = BTreeSet::new();
            let mut round = false;
            for edge in self.graph.edge_indices() {
                let Some((a, b)) = self.graph.edge_endpoints(edge) else { continue };
                if inside.contains(&a) && inside.contains(&b) {
                    round = true;
                    constraints.extend(self.graph[edge].clone());
                }
            }
            if round && !constraints.is_empty() {
                let mut members: Vec<String> =
                    component.iter().map(|n| self.graph[*n].clone()).collect();
                members.sort();
                out.push(Loop { members, constraints: constraints.into_iter().collect() });
            }
        }
        out.sort_by(|a, b| a.constraints.cmp(&b.constraints));
        out
    }
}

/// The first (or last) primitive of a resource: what a chain that goes to (or from) it is tied to.
fn end_of(cib: &Cib, id: &str, last: bool) -> String {
    let Some(resource) = cib.resource(id) else { return id.to_owned() };
    let mut primitives = Vec::new();
    resource.collect_primitives(&mut primitives);
    let chosen = if last { primitives.last() } else { primitives.first() };
    chosen.map_or_else(|| id.to_owned(), |p| p.id.clone())
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
    let mut graph = Graph::default();
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
                graph.edge(
                    &end_of(cib, &follower, false),
                    &end_of(cib, &leader, true),
                    Some(&c.id),
                );
            }
        }
    }
    graph.loops()
}

/// Pairs (follower, leader) of a colocation.
fn colocated(c: &Colocation) -> Vec<(String, String)> {
    if c.sets.is_empty() {
        // With itself: that is said in words of its own.
        return if c.rsc == c.with { Vec::new() } else { vec![(c.rsc.clone(), c.with.clone())] };
    }
    let mut out = Vec::new();
    for set in c.sets.iter().filter(|s| s.sequential) {
        // Within a sequential set, each member follows the one before it.
        for pair in set.members.windows(2) {
            out.push((pair[1].resource.clone(), pair[0].resource.clone()));
        }
    }
    // Of two sets, the earlier one follows the later one.
    across(&c.sets, &mut |a, b| out.push((a.to_owned(), b.to_owned())));
    out
}

fn across(sets: &[ResourceSet], pair: &mut dyn FnMut(&str, &str)) {
    for two in sets.windows(2) {
        for a in &two[0].members {
            for b in &two[1].members {
                pair(&a.resource, &b.resource);
            }
        }
    }
}

const fn verb(action: OrderAction) -> &'static str {
    super::show::action_word(action)
}

/// Loops of mandatory orders.
pub(crate) fn order_loops(cib: &Cib) -> Vec<Loop> {
    let mut graph = Graph::default();
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
                let from = end_of(cib, &first, up(a));
                let to = end_of(cib, &then, !up(b));
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

type Step = (String, OrderAction, String, OrderAction);

fn ordered(c: &Order) -> Vec<Step> {
    let start = OrderAction::Start;
    if c.sets.is_empty() {
        let a = c.first_action.unwrap_or(start);
        return vec![(c.first.clone(), a, c.then.clone(), c.then_action.unwrap_or(a))];
    }
    let mut out = Vec::new();
    for set in c.sets.iter().filter(|s| s.sequential) {
        let action = set.action.unwrap_or(start);
        for pair in set.members.windows(2) {
            out.push((pair[0].resource.clone(), action, pair[1].resource.clone(), action));
        }
    }
    for two in c.sets.windows(2) {
        let (x, y) = (two[0].action.unwrap_or(start), two[1].action.unwrap_or(start));
        across(two, &mut |a, b| out.push((a.to_owned(), x, b.to_owned(), y)));
    }
    out
}
