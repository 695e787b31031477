//! Phase 4: what each resource thinks of each node before anything is placed: locations, stickiness, bans.

use super::model::{Coloc, Kind, Model, NodeIx, RscIx};
use crate::cib::{Colocation, Constraint, Location, LocationTarget, ResourceSet, Role, Score};
use regex::Regex;

/// Applies locations and stickiness and reads the colocations.
pub(super) fn apply<'a>(model: &mut Model<'a>) {
    let bans: Vec<Vec<Score>> = model.rscs.iter().map(|r| r.scores.clone()).collect();
    opt_in(model);
    let cib = model.cib;
    for constraint in &cib.constraints {
        if let Constraint::Location(l) = constraint {
            location(model, l);
        }
    }
    for (r, ban) in bans.into_iter().enumerate() {
        for (n, score) in ban.into_iter().enumerate() {
            let merged = model.rscs[r].scores[n].plus(score);
            model.rscs[r].scores[n] = merged;
        }
    }
    for (r, node) in std::mem::take(&mut model.bans) {
        let nodes = node.map_or(0..model.nodes.len(), |n| n..n + 1);
        nodes.for_each(|n| prefer(model, r, n, Score::NEG_INF));
    }
    if model.props.exact {
        left_alone(model);
    }
    stickiness(model);
    surplus(model);
    internal_colocations(model);
    super::remote::constrain(model);
    for constraint in &cib.constraints {
        if let Constraint::Colocation(c) = constraint {
            colocation(model, c);
        }
    }
    index(model);
}

/// Asymmetric clusters: nowhere, unless a location constraint allows it.
fn opt_in(model: &mut Model<'_>) {
    if model.props.symmetric {
        return;
    }
    for rsc in &mut model.rscs {
        rsc.scores.fill(Score::NEG_INF);
    }
    let cib = model.cib;
    for constraint in &cib.constraints {
        let Constraint::Location(l) = constraint else { continue };
        // It says nothing about where the resource may run at all.
        if model.props.exact && l.role == Some(Role::Promoted) {
            continue;
        }
        let Some(n) = model.nodes.iter().position(|node| node.name == l.node) else { continue };
        for r in targets(model, l) {
            for inner in subtree(model, model.top(r)) {
                model.rscs[inner].scores[n] = Score::ZERO;
            }
        }
    }
}

/// A resource and all below it.
fn subtree(model: &Model<'_>, r: RscIx) -> Vec<RscIx> {
    let mut out = vec![r];
    let mut at = 0;
    while at < out.len() {
        let children = model.rscs[out[at]].children.clone();
        out.extend(children);
        at += 1;
    }
    out
}

fn targets(model: &Model<'_>, l: &Location) -> Vec<RscIx> {
    match &l.target {
        LocationTarget::Resource(id) => model.constrained(id).into_iter().collect(),
        LocationTarget::Pattern(pattern) => {
            let Ok(regex) = Regex::new(pattern) else { return Vec::new() };
            let ids = model.by_id.keys().filter(|id| regex.is_match(id));
            let mut out: Vec<RscIx> = ids.filter_map(|id| model.constrained(id)).collect();
            out.sort_unstable();
            out.dedup();
            out
        }
    }
}

fn location(model: &mut Model<'_>, l: &Location) {
    let Some(node) = model.nodes.iter().position(|n| n.name == l.node) else { return };
    for r in targets(model, l) {
        let text = location_words(l);
        model.because(r, Some(node), "location", text).scored(l.score).by(&l.id);
        match l.role {
            Some(Role::Promoted) => model.rscs[r].promoted_scores.push((node, l.score)),
            // Each instance is unpromoted before it can be promoted: Pacemaker takes it as said of all.
            Some(Role::Unpromoted) if !model.props.exact => {}
            Some(Role::Started | Role::Stopped | Role::Unpromoted) | None => {
                prefer(model, r, node, l.score);
            }
        }
        match l.discovery.as_deref() {
            Some("never") => no_probe(model, r, &[node]),
            Some("exclusive") => exclusive(model, r, l),
            Some(_) | None => {}
        }
    }
}

/// What a location says, in words.
fn location_words(l: &Location) -> String {
    let role = match l.role {
        Some(Role::Promoted) => " for the promoted role",
        Some(Role::Unpromoted) => " for the unpromoted role",
        Some(Role::Started | Role::Stopped) | None => "",
    };
    let (id, node, score) = (&l.id, &l.node, l.score);
    match score {
        Score::NEG_INF => format!("location {id} forbids {node}{role}"),
        Score::INF => format!("location {id} wants {node}{role} (INFINITY)"),
        _ if score < Score::ZERO => format!("location {id} avoids {node}{role} ({score})"),
        _ => format!("location {id} prefers {node}{role} ({score})"),
    }
}

/// Adds a score; clones pass it to their instances, groups to their first member.
fn prefer(model: &mut Model<'_>, r: RscIx, node: NodeIx, score: Score) {
    let sum = model.rscs[r].scores[node].plus(score);
    model.rscs[r].scores[node] = sum;
    let children = model.rscs[r].children.clone();
    let first_only = matches!(model.rscs[r].kind, Kind::Group { colocated: true, .. });
    let reached = if first_only { 1 } else { children.len() };
    for child in children.into_iter().take(reached) {
        prefer(model, child, node, score);
    }
}

fn no_probe(model: &mut Model<'_>, r: RscIx, nodes: &[NodeIx]) {
    for inner in subtree(model, r) {
        model.rscs[inner].no_probe.extend(nodes);
    }
}

/// `resource-discovery=exclusive`: only the nodes named by such constraints.
fn exclusive(model: &mut Model<'_>, r: RscIx, l: &Location) {
    let named: Vec<&str> = model
        .cib
        .constraints
        .iter()
        .filter_map(|c| match c {
            Constraint::Location(o)
                if o.target == l.target && o.discovery.as_deref() == Some("exclusive") =>
            {
                Some(o.node.as_str())
            }
            Constraint::Location(_) | Constraint::Colocation(_) | Constraint::Order(_) => None,
        })
        .collect();
    let others: Vec<NodeIx> =
        (0..model.nodes.len()).filter(|n| !named.contains(&model.nodes[*n].name)).collect();
    no_probe(model, r, &others);
    for n in others {
        for inner in subtree(model, r) {
            model.rscs[inner].scores[n] = Score::NEG_INF;
        }
        let text = format!("only where {} looks for it (resource-discovery=exclusive)", l.id);
        model.because(r, Some(n), "discovery", text).scored(Score::NEG_INF).by(&l.id);
    }
}

/// What is not managed is where it is, and those who follow it come there.
fn left_alone(model: &mut Model<'_>) {
    for r in 0..model.rscs.len() {
        if !matches!(model.rscs[r].kind, Kind::Primitive) || model.managed(r) {
            continue;
        }
        let nodes: Vec<NodeIx> = model.rscs[r].active.iter().map(|a| a.node).collect();
        for node in nodes {
            let sum = model.rscs[r].scores[node].plus(Score::INF);
            model.rscs[r].scores[node] = sum;
        }
    }
}

fn stickiness(model: &mut Model<'_>) {
    for r in 0..model.rscs.len() {
        let rsc = &model.rscs[r];
        let score = rsc.meta.stickiness;
        let Some(seen) = rsc.sole_active() else { continue };
        let node = seen.node;
        if score <= Score::ZERO || !model.managed(r) {
            continue;
        }
        let sum = rsc.scores[node].plus(score);
        let text = format!("it stays where it is (resource-stickiness {score})");
        model.rscs[r].scores[node] = sum;
        model.because(r, Some(node), "stickiness", text).scored(score);
    }
}

/// Instances beyond clone-max have no place.
fn surplus(model: &mut Model<'_>) {
    for r in 0..model.rscs.len() {
        if model.rscs[r].surplus {
            for leaf in model.leaves(r) {
                model.rscs[leaf].scores.fill(Score::NEG_INF);
            }
        }
    }
}

fn internal_colocations(model: &mut Model<'_>) {
    for r in 0..model.rscs.len() {
        if !matches!(model.rscs[r].kind, Kind::Group { colocated: true, .. }) {
            continue;
        }
        let id = model.rscs[r].id;
        for pair in model.rscs[r].children.clone().windows(2) {
            if let [primary, dependent] = *pair {
                model.colocs.push(Coloc {
                    id,
                    score: Score::INF,
                    dependent,
                    dependent_role: None,
                    primary,
                    primary_role: None,
                    attribute: "#uname",
                    internal: true,
                });
            }
        }
    }
}

/// `Started` in a colocation means "in whatever role it runs".
const fn role_of(role: Option<Role>) -> Option<Role> {
    match role {
        Some(Role::Promoted) => Some(Role::Promoted),
        Some(Role::Unpromoted) => Some(Role::Unpromoted),
        Some(Role::Started | Role::Stopped) | None => None,
    }
}

fn colocation<'a>(model: &mut Model<'a>, c: &'a Colocation) {
    if c.sets.is_empty() {
        pair(model, c, (&c.rsc, c.rsc_role), (&c.with, c.with_role));
        return;
    }
    for set in &c.sets {
        inside_set(model, c, set);
    }
    for two in c.sets.windows(2) {
        // Pacemaker: each earlier-written set is colocated with the set after it.
        if let [dependents, primaries] = two {
            between_sets(model, c, dependents, primaries);
        }
    }
}

/// Members of a sequential set: each follows the one before it.
fn inside_set<'a>(model: &mut Model<'a>, c: &'a Colocation, set: &'a ResourceSet) {
    if !set.sequential {
        return;
    }
    for two in set.members.windows(2) {
        if let [primary, dependent] = two {
            pair(model, c, (&dependent.resource, set.role), (&primary.resource, set.role));
        }
    }
}

/// First members stand for a sequential set that follows, last ones for a sequential set that is followed.
fn between_sets<'a>(
    model: &mut Model<'a>,
    c: &'a Colocation,
    dependents: &'a ResourceSet,
    primaries: &'a ResourceSet,
) {
    let from: Vec<_> = if dependents.sequential {
        dependents.members.first().into_iter().collect()
    } else {
        dependents.members.iter().collect()
    };
    let to: Vec<_> = if primaries.sequential {
        primaries.members.last().into_iter().collect()
    } else {
        primaries.members.iter().collect()
    };
    for dependent in &from {
        for primary in &to {
            let with = (primary.resource.as_str(), primaries.role);
            pair(model, c, (&dependent.resource, dependents.role), with);
        }
    }
}

fn pair<'a>(
    model: &mut Model<'a>,
    c: &'a Colocation,
    dependent: (&str, Option<Role>),
    primary: (&str, Option<Role>),
) {
    let (Some(d), Some(p)) = (model.constrained(dependent.0), model.constrained(primary.0)) else {
        return;
    };
    if d == p || c.score == Score::ZERO {
        return;
    }
    model.colocs.push(Coloc {
        id: &c.id,
        score: c.score,
        dependent: d,
        dependent_role: role_of(dependent.1),
        primary: p,
        primary_role: role_of(primary.1),
        attribute: c.node_attribute.as_deref().unwrap_or("#uname"),
        internal: false,
    });
}

fn index(model: &mut Model<'_>) {
    model.this_with = vec![Vec::new(); model.rscs.len()];
    model.with_this = vec![Vec::new(); model.rscs.len()];
    for (i, c) in model.colocs.iter().enumerate() {
        model.this_with[c.dependent].push(i);
        model.with_this[c.primary].push(i);
    }
}
