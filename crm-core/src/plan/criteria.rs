//! Phase 4: what each resource thinks of each node before anything is placed: locations, stickiness, bans.

use super::model::{Coloc, Kind, Model, NodeIx, RscIx};
use crate::cib::{Colocation, Constraint, Location, LocationTarget, ResourceSet, Role, Score};
use regex::Regex;
use std::collections::{BTreeMap, BTreeSet};

/// Neither the resource nor anything it is made of may be there.
fn ban(model: &mut Model<'_>, r: RscIx, node: NodeIx) {
    model.rscs[r].scores[node] = Score::NEG_INF;
    for child in model.rscs[r].children.clone() {
        ban(model, child, node);
    }
}

/// What a location constraint says about probes on its nodes; the stronger word holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Discovery {
    Never,
    Exclusive,
}

/// What all of them say.
#[derive(Debug, Default)]
struct Discoveries {
    /// By resource and node.
    at: BTreeMap<(RscIx, NodeIx), Discovery>,
    /// What is only looked for where a constraint says so, even if that is nowhere.
    exclusive: BTreeSet<RscIx>,
}

/// Applies locations and stickiness and reads the colocations.
pub(super) fn apply<'a>(model: &mut Model<'a>) {
    let bans: Vec<Vec<Score>> = model.rscs.iter().map(|r| r.scores.clone()).collect();
    for rsc in &mut model.rscs {
        rsc.rank = Score::new(i64::from(rsc.meta.priority));
        if !model.props.symmetric {
            // Nowhere, unless a location constraint allows it.
            rsc.scores.fill(Score::NEG_INF);
            rsc.opted_in = vec![false; model.nodes.len()];
        }
    }
    let cib = model.cib;
    let mut discoveries = Discoveries::default();
    for (r, n, health) in super::health::locations(model) {
        prefer(model, r, n, (health, None), &mut discoveries);
        let text = format!("the health of {} counts {health}", model.nodes[n].name);
        model.because(r, Some(n), "health", text).scored(health);
    }
    not_applied(model);
    for constraint in &cib.constraints {
        if let Constraint::Location(l) = constraint {
            location(model, l, &mut discoveries);
        }
    }
    discover(model, &discoveries);
    for (r, ban) in bans.into_iter().enumerate() {
        for (n, score) in ban.into_iter().enumerate() {
            let merged = model.rscs[r].scores[n].plus(score);
            model.rscs[r].scores[n] = merged;
        }
    }
    for (r, node) in std::mem::take(&mut model.bans) {
        let nodes = node.map_or(0..model.nodes.len(), |n| n..n + 1);
        nodes.for_each(|n| ban(model, r, n));
    }
    unmanaged(model);
    stickiness(model);
    internal_colocations(model);
    super::remote::constrain(model);
    super::bundled::constrain(model);
    for constraint in &cib.constraints {
        if let Constraint::Colocation(c) = constraint {
            colocation(model, c);
        }
    }
    index(model);
}

/// Tells which constraints are not applied because they name what is inside a clone and not the clone ([`Model::constrained`]).
fn not_applied(model: &mut Model<'_>) {
    let cib = model.cib;
    let plain = cib.constraints.iter().flat_map(|c| c.resources().into_iter().map(|r| (c.id(), r)));
    let tickets = cib.rsc_tickets.iter().map(|t| (t.id.as_str(), t.rsc.as_str()));
    for (constraint, id) in plain.chain(tickets) {
        let Some(&r) = model.by_id.get(id) else { continue };
        let (None, Some(clone)) = (model.constrained(id), model.rscs[r].clone) else { continue };
        let clone = model.rscs[clone].id;
        let text = format!(
            "{constraint} is not applied: it names {id}, and Pacemaker knows what is inside the clone {clone} by that name only once it has a history there; write {clone}"
        );
        model.because(r, None, "not-applied", text).scored(Score::ZERO).by(constraint);
    }
}

fn targets(model: &Model<'_>, l: &Location) -> Vec<RscIx> {
    match &l.target {
        LocationTarget::Resource(id) => model.constrained(id).into_iter().collect(),
        LocationTarget::Pattern(pattern) => {
            let Some(matches) = matches(pattern) else { return Vec::new() };
            let tops = model.tops.iter().copied();
            tops.filter(|r| matches(model.rscs[*r].id).is_some()).collect()
        }
    }
}

/// Which ids a pattern is about (`!` before it: all others), with what its parts matched. `None` = it is no pattern.
#[must_use]
pub fn matches(pattern: &str) -> Option<impl Fn(&str) -> Option<Vec<String>> + use<>> {
    let (pattern, others) = match pattern.strip_prefix('!') {
        Some(rest) => (rest, true),
        None => (pattern, false),
    };
    let regex = Regex::new(pattern).ok()?;
    Some(move |id: &str| match regex.captures(id) {
        Some(found) if !others => {
            let part =
                |p: Option<regex::Match<'_>>| p.map_or_else(String::new, |m| m.as_str().to_owned());
            Some(found.iter().map(part).collect())
        }
        None if others => Some(Vec::new()),
        Some(_) | None => None,
    })
}

fn location(model: &mut Model<'_>, l: &Location, discoveries: &mut Discoveries) {
    let discovery = match l.discovery.as_deref() {
        Some("never") => Some(Discovery::Never),
        Some("exclusive") => Some(Discovery::Exclusive),
        Some(_) | None => None,
    };
    let node = model.nodes.iter().position(|n| n.name == l.node);
    for r in targets(model, l) {
        if discovery == Some(Discovery::Exclusive) {
            discoveries.exclusive.insert(r);
        }
        let Some(node) = node else { continue };
        let text = location_words(l);
        model.because(r, Some(node), "location", text).scored(l.score).by(&l.id);
        match l.role {
            Some(Role::Promoted) => {
                // Only what is inside of a bundle has roles.
                let holder = model.inner_clone(r).unwrap_or(r);
                model.rscs[holder].promoted_scores.push((node, l.score));
            }
            // What is to be stopped is nowhere anyway.
            Some(Role::Stopped) => {}
            // What is promoted has been unpromoted before: a word about that role is one about all.
            Some(Role::Started | Role::Unpromoted) | None => {
                prefer(model, r, node, (l.score, discovery), discoveries);
            }
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

/// Adds a score; clones pass it to their instances, groups to their first member (the others are allowed there, no more).
fn prefer(
    model: &mut Model<'_>,
    r: RscIx,
    node: NodeIx,
    (score, discovery): (Score, Option<Discovery>),
    discoveries: &mut Discoveries,
) {
    let rsc = &mut model.rscs[r];
    if rsc.opted_in.get(node) == Some(&false) {
        rsc.opted_in[node] = true;
        rsc.scores[node] = Score::ZERO;
    }
    rsc.scores[node] = rsc.scores[node].plus(score);
    if let Some(word) = discovery {
        let known = discoveries.at.entry((r, node)).or_insert(word);
        *known = word.max(*known);
    }
    let colocated = matches!(rsc.kind, Kind::Group { colocated: true, .. });
    if matches!(rsc.kind, Kind::Group { .. }) {
        rsc.located.push((node, score));
    }
    for (place, child) in rsc.children.clone().into_iter().enumerate() {
        let share = if colocated && place > 0 { Score::ZERO } else { score };
        prefer(model, child, node, (share, discovery), discoveries);
    }
    for ip in model.addresses(r) {
        prefer(model, ip, node, (score, discovery), discoveries);
    }
}

/// `resource-discovery`: `exclusive` leaves only the nodes that are named so, `never` only spares the probes.
fn discover(model: &mut Model<'_>, discoveries: &Discoveries) {
    let mut exclusive = discoveries.exclusive.clone();
    for ((r, node), word) in &discoveries.at {
        match word {
            Discovery::Never => {
                model.rscs[*r].no_probe.insert(*node);
            }
            Discovery::Exclusive => {
                exclusive.insert(*r);
            }
        }
    }
    if exclusive.is_empty() {
        return;
    }
    for r in 0..model.rscs.len() {
        if !exclusive.contains(&r) && !exclusive.contains(&model.top(r)) {
            continue;
        }
        for n in 0..model.nodes.len() {
            if discoveries.at.get(&(r, n)) != Some(&Discovery::Exclusive) {
                model.rscs[r].no_probe.insert(n);
                if model.props.exact && !exclusive.contains(&model.top(r)) {
                    // A member alone is not looked for elsewhere, but it may go there.
                    continue;
                }
                model.rscs[r].scores[n] = Score::NEG_INF;
                let text = "only where it is looked for (resource-discovery=exclusive)".to_owned();
                model.because(r, Some(n), "discovery", text).scored(Score::NEG_INF);
            }
        }
    }
}

/// What is not managed stays where it is, and what it is bound to had better know.
fn unmanaged(model: &mut Model<'_>) {
    for r in 0..model.rscs.len() {
        for n in model.rscs[r].now.loose.clone() {
            let score = &mut model.rscs[r].scores[n];
            *score = score.plus(Score::INF);
        }
    }
}

fn stickiness(model: &mut Model<'_>) {
    for r in 0..model.rscs.len() {
        let rsc = &model.rscs[r];
        let score = rsc.meta.stickiness;
        let Some(seen) = rsc.sole_active() else { continue };
        let node = seen.node;
        let allowed = rsc.opted_in.get(node) != Some(&false);
        if score <= Score::ZERO || !model.movable(r) || !allowed {
            continue;
        }
        let sum = rsc.scores[node].plus(score);
        let text = format!("it stays where it is (resource-stickiness {score})");
        model.rscs[r].scores[node] = sum;
        model.because(r, Some(node), "stickiness", text).scored(score);
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
                let influence = model.rscs[dependent].meta.critical;
                model.colocs.push(Coloc {
                    id,
                    score: Score::INF,
                    dependent,
                    dependent_role: None,
                    primary,
                    primary_role: None,
                    attribute: "#uname",
                    internal: true,
                    influence,
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
        Some(Role::Stopped) => Some(Role::Stopped),
        Some(Role::Started) | None => None,
    }
}

fn colocation<'a>(model: &mut Model<'a>, c: &'a Colocation) {
    if c.sets.is_empty() {
        pair(model, c, c.score, (&c.rsc, c.rsc_role), (&c.with, c.with_role));
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

/// Members of a sequential set: each follows the one before it, or keeps away from all before it.
fn inside_set<'a>(model: &mut Model<'a>, c: &'a Colocation, set: &'a ResourceSet) {
    if !set.sequential {
        return;
    }
    let words = model.set_words(set);
    let score = words.score.unwrap_or(c.score);
    if score < Score::ZERO {
        for (place, dependent) in set.members.iter().enumerate() {
            for primary in set.members.iter().take(place) {
                let with = (primary.resource.as_str(), set.role);
                pair(model, c, score, (&dependent.resource, set.role), with);
            }
        }
        return;
    }
    for two in set.members.windows(2) {
        if let [first, second] = two {
            let (primary, dependent) = if words.listed { (second, first) } else { (first, second) };
            let with = (primary.resource.as_str(), set.role);
            pair(model, c, score, (&dependent.resource, set.role), with);
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
            pair(model, c, c.score, (&dependent.resource, dependents.role), with);
        }
    }
}

fn pair<'a>(
    model: &mut Model<'a>,
    c: &'a Colocation,
    score: Score,
    dependent: (&str, Option<Role>),
    primary: (&str, Option<Role>),
) {
    let (Some(d), Some(p)) = (model.constrained(dependent.0), model.constrained(primary.0)) else {
        return;
    };
    if d == p || score == Score::ZERO {
        return;
    }
    let attribute = c.node_attribute.as_deref().filter(|_| c.sets.is_empty());
    model.colocs.push(Coloc {
        id: &c.id,
        score,
        dependent: d,
        dependent_role: role_of(dependent.1),
        primary: p,
        primary_role: role_of(primary.1),
        attribute: attribute.unwrap_or("#uname"),
        internal: false,
        influence: c.influence.unwrap_or(model.rscs[d].meta.critical),
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
