//! What speaks for and against each node.

use super::{Cause, Facts, Standing, Verdict, headline};
use crate::cib::Score;
use crate::plan::Placement;
use std::collections::BTreeMap;

/// Sources that give or take score, or forbid.
const SOURCES: &[&str] = &[
    "location",
    "stickiness",
    "colocation",
    "discovery",
    "health",
    "ticket",
    "failed",
    "migration-threshold",
    "capacity",
    "opt-in",
    "shutdown-lock",
    "promotion-score",
    "not-applied",
];

/// A verdict on every node, in natural order; of a clone by the instance that is there, or that might go there.
pub(super) fn all(facts: &Facts<'_>, subject: &Placement, family: &[&Placement]) -> Vec<Verdict> {
    let same: Vec<&Placement> = family
        .iter()
        .copied()
        .filter(|p| p.instance.resource == subject.instance.resource)
        .collect();
    let nodes = facts.picture.nodes.iter();
    nodes.map(|n| one(facts, of_node(&same, subject, &n.name), &n.name, &same)).collect()
}

fn of_node<'p>(same: &[&'p Placement], subject: &'p Placement, node: &str) -> &'p Placement {
    let here = |p: &&&Placement| p.now.iter().any(|(n, _)| n == node);
    let planned = |p: &&&Placement| p.node.as_deref() == Some(node);
    let spare = |p: &&&Placement| p.node.is_none();
    let found = same.iter().find(here).or_else(|| same.iter().find(planned));
    found.or_else(|| same.iter().find(spare)).copied().unwrap_or(subject)
}

fn one(facts: &Facts<'_>, placement: &Placement, node: &str, same: &[&Placement]) -> Verdict {
    let table = facts.table(placement);
    let score = table.get(node).copied();
    let mut parts = parts(facts, placement, node);
    let here = placement.now.iter().any(|(n, _)| n == node);
    let planned = placement.node.as_deref() == Some(node);
    let closed = facts.closed(node);
    if let Some((code, text)) = &closed {
        let resource = placement.instance.resource.clone();
        let (code, text) = ((*code).to_owned(), text.clone());
        parts.insert(0, Cause { code, resource, by: None, score: None, text });
    }
    let lacks = facts.lacks(&placement.instance.resource, node).filter(|_| !planned);
    if let Some(text) = &lacks {
        let resource = placement.instance.resource.clone();
        let (code, text) = ("capacity".to_owned(), text.clone());
        parts.push(Cause { code, resource, by: None, score: None, text });
    }
    let forbidden = closed.is_some() || lacks.is_some() || score.is_some_and(|s| s < Score::ZERO);
    let standing = match (here, planned) {
        (true, true) => Standing::Runs,
        (true, false) => Standing::Leaves,
        (false, true) => Standing::Chosen,
        (false, false) if forbidden => Standing::Cannot,
        (false, false) => Standing::Possible,
    };
    if !forbidden && let Some(score) = score {
        parts.extend(rest(placement, score, &parts));
    }
    let text = match standing {
        Standing::Runs | Standing::Chosen => for_it(facts, placement, node, &parts),
        Standing::Leaves | Standing::Cannot => against(facts, placement, score, &parts),
        Standing::Possible => weaker(facts, placement, (node, score), same),
    };
    let chain = facts.chain(&placement.instance.resource);
    let resting = standing == Standing::Cannot && placement.node.is_none() && parts.is_empty();
    if resting && headline::stopper(facts, &chain).is_some() {
        // Nothing is the matter with the node.
        let (standing, text) = (Standing::Possible, "not to run".to_owned());
        return Verdict { node: node.to_owned(), standing, score: None, text, parts };
    }
    Verdict { node: node.to_owned(), standing, score, text, parts }
}

/// What is said about the resource, or what it is in, and this node.
pub(super) fn parts(facts: &Facts<'_>, placement: &Placement, node: &str) -> Vec<Cause> {
    let chain = facts.chain(&placement.instance.resource);
    let mut out: Vec<Cause> = Vec::new();
    let mut by_node: Vec<Option<&str>> = Vec::new();
    for reason in facts.reasons(&chain).filter(|r| SOURCES.contains(&r.code.as_str())) {
        let about = reason.node.as_deref();
        // A failure that does not forbid the node is told among the failures.
        let note = reason.code == "failed" && reason.score.is_none();
        if !note && (about.is_none() || about == Some(node)) {
            out.push(Cause::from(reason));
            by_node.push(about);
        }
    }
    // What must go with another forbids all nodes but that one.
    let bound: Vec<Option<String>> = out
        .iter()
        .zip(&by_node)
        .filter(|(c, about)| c.code == "colocation" && about.is_some())
        .map(|(c, _)| c.by.clone())
        .collect();
    let mut kept = Vec::new();
    for (mut cause, about) in out.into_iter().zip(by_node) {
        if cause.code == "colocation" && about.is_none() && cause.score.is_none() {
            if bound.contains(&cause.by) {
                continue;
            }
            cause.score = Some(Score::NEG_INF);
        }
        kept.push(cause);
    }
    kept.sort_by_key(|c| (c.score.is_none_or(|s| s > Score::NEG_INF), c.code.clone()));
    kept.dedup();
    kept
}

/// What the named parts do not explain comes from what has to be with it.
fn rest(placement: &Placement, score: Score, parts: &[Cause]) -> Option<Cause> {
    let named = parts.iter().filter_map(|c| c.score).fold(Score::ZERO, Score::plus);
    let difference = i64::from(score.value()) - i64::from(named.value());
    if difference == 0 || score.is_infinite() || named.is_infinite() {
        return None;
    }
    Some(Cause {
        code: "dependents".to_owned(),
        resource: placement.instance.resource.clone(),
        by: None,
        score: Some(Score::new(difference)),
        text: "what is grouped or colocated with it prefers it so".to_owned(),
    })
}

/// The first thing that forbids the node.
fn against(
    facts: &Facts<'_>,
    placement: &Placement,
    score: Option<Score>,
    parts: &[Cause],
) -> String {
    let state = parts.iter().find(|c| c.score.is_none());
    let ban = parts.iter().find(|c| c.score.is_some_and(|s| s == Score::NEG_INF));
    let worst = parts.iter().filter(|c| c.score.is_some_and(|s| s < Score::ZERO));
    let worst = worst.min_by_key(|c| c.score);
    match state.or(ban).or(worst) {
        Some(cause) => cause.text.clone(),
        None => match score {
            Some(score) if score < Score::ZERO => match with_group(facts, placement) {
                Some(text) => text,
                None => format!(
                    "score {score}: what it goes with, or what goes with it, cannot be there"
                ),
            },
            Some(_) | None => "not to run".to_owned(),
        },
    }
}

/// A member goes where the one before it goes.
fn with_group(facts: &Facts<'_>, placement: &Placement) -> Option<String> {
    let (mate, group) = facts.group_mate(&placement.instance.resource)?;
    let number = placement.instance.number;
    let place = facts.placements(&mate).find(|p| p.instance.number == number)?.node.clone();
    Some(match place {
        Some(node) => format!("goes with {mate} on {node} (group {group})"),
        None => format!("goes with {mate}, which runs nowhere (group {group})"),
    })
}

/// Why this node and no other.
fn for_it(facts: &Facts<'_>, placement: &Placement, node: &str, parts: &[Cause]) -> String {
    let chain = facts.chain(&placement.instance.resource);
    let held = facts.reasons(&chain).find(|r| {
        let codes = ["maintenance", "unmanaged", "no-fencing", "blocked", "multiple-active"];
        codes.contains(&r.code.as_str()) && r.node.as_deref().is_none_or(|n| n == node)
    });
    if let Some(held) = held {
        return held.text.clone();
    }
    let table = facts.table(placement);
    let mine = table.get(node).copied().unwrap_or(Score::ZERO);
    let rivals: BTreeMap<&str, Score> = table
        .iter()
        .filter(|(n, s)| *n != node && **s >= Score::ZERO && facts.closed(n).is_none())
        .filter(|(n, _)| facts.lacks(&placement.instance.resource, n).is_none())
        .map(|(n, s)| (n.as_str(), *s))
        .collect();
    let Some(best) = rivals.values().max().copied() else {
        let bound = parts.iter().find(|c| c.code == "colocation" && c.score == Some(Score::INF));
        return match bound {
            Some(cause) => cause.text.clone(),
            None if facts.picture.nodes.len() == 1 => "it is the only node".to_owned(),
            None => with_group(facts, placement)
                .unwrap_or_else(|| "no other node can run it".to_owned()),
        };
    };
    if mine == best {
        return match placement.now.iter().any(|(n, _)| n == node) {
            true => "it runs there already, and no other node is better".to_owned(),
            false => "no other node is better, and this one has the fewest resources".to_owned(),
        };
    }
    let most = parts.iter().filter(|c| c.score.is_some_and(|s| s > Score::ZERO));
    match most.max_by_key(|c| c.score) {
        Some(cause) => cause.text.clone(),
        None => format!("score {mine} is the best"),
    }
}

/// It could run there, and runs elsewhere.
fn weaker(
    facts: &Facts<'_>,
    placement: &Placement,
    (node, score): (&str, Option<Score>),
    same: &[&Placement],
) -> String {
    let Some(chosen) = &placement.node else {
        return if same.iter().any(|p| p.node.is_some()) {
            "as many instances run as there may be".to_owned()
        } else {
            "not to run".to_owned()
        };
    };
    let best = facts.table(placement).get(chosen).copied();
    match (score, best) {
        (Some(mine), Some(best)) if mine < best => {
            format!("score {mine}, {chosen} has {best}")
        }
        (Some(mine), Some(best)) if mine == best => {
            if placement.now.iter().any(|(n, _)| n == chosen) {
                format!("as good as {chosen}, where it runs already")
            } else {
                format!("as good as {chosen}, which has fewer resources")
            }
        }
        _ => format!("{chosen} was chosen instead of {node}"),
    }
}
