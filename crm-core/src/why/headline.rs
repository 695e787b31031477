//! The answer in one sentence.

use super::facts::role_note;
use super::{Facts, Standing, Verdict, WAITS, order, settled, verdict};
use crate::cib::{Constraint, Role};
use crate::plan::{Placement, Reason};
use std::collections::BTreeMap;
use std::fmt;

/// Reasons for which a resource runs nowhere, whatever the nodes: the first that is found is told.
const STOPPERS: &[&str] = &[
    "stop-all-resources",
    "target-role",
    "no-quorum",
    "orphan",
    "ticket",
    "multiple-active",
    "clone-max",
    "failed",
    "no-fencing",
    "maintenance",
    "unmanaged",
];

/// The instance that tells most: one that is not as it is to be, else one that runs nowhere, else the first.
pub(super) fn subject(facts: &Facts<'_>, placements: &[&Placement]) -> Placement {
    let failed = |p: &&&Placement| {
        p.now.iter().any(|(n, _)| facts.seen(&p.instance.resource, n).is_some_and(|s| s.failed))
    };
    let found = placements
        .iter()
        .find(|p| !settled(p))
        .or_else(|| placements.iter().find(failed))
        .or_else(|| placements.iter().find(|p| p.node.is_none() && p.instance.number == 0))
        .or_else(|| placements.first());
    match found {
        Some(placement) => (*placement).clone(),
        None => Placement {
            instance: crate::plan::Instance { resource: String::new(), number: 0 },
            now: Vec::new(),
            node: None,
            role: Role::Stopped,
        },
    }
}

/// Codes of reasons for which something is started again where it is.
const RESTARTS: &[&str] = &["changed", "reload"];

fn name(facts: &Facts<'_>, placement: &Placement) -> String {
    let instance = &placement.instance;
    let several = facts.placements(&instance.resource).nth(1).is_some();
    if several {
        format!("{}:{}", instance.resource, instance.number)
    } else {
        instance.resource.clone()
    }
}

/// What is, and why.
pub(super) struct Sentence {
    what: String,
    /// It is to be otherwise, and that has to wait.
    waits: Option<String>,
    cause: Option<String>,
}

impl Sentence {
    fn new(what: String, cause: impl Into<Option<String>>) -> Self {
        Self { what, waits: None, cause: cause.into() }
    }

    fn waiting(mut self, waits: Option<String>) -> Self {
        self.waits = waits;
        self
    }

    /// The cause alone.
    pub(super) fn cause(self) -> String {
        match (self.cause, self.waits) {
            (Some(cause), Some(waits)) => format!("{cause}, but {waits}"),
            (Some(text), None) | (None, Some(text)) => text,
            (None, None) => String::new(),
        }
    }
}

impl fmt::Display for Sentence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        if let Some(cause) = &self.cause {
            write!(f, ": {cause}")?;
        }
        if let Some(waits) = &self.waits {
            write!(f, ", but {waits}")?;
        }
        Ok(())
    }
}

/// One sentence about one instance.
pub(super) fn of_instance(facts: &Facts<'_>, placement: &Placement) -> Sentence {
    let name = name(facts, placement);
    match (placement.now.as_slice(), placement.node.as_deref()) {
        ([], None) => Sentence::new(format!("{name} is stopped"), why_nowhere(facts, placement)),
        ([], Some(to)) => {
            let as_role = role_note(placement.role);
            match waits_for(facts, placement) {
                None => {
                    let what = format!("{name} is stopped and is to start on {to}{as_role}");
                    Sentence::new(what, chosen(facts, placement, to))
                }
                waits => {
                    let what = format!("{name} is stopped; it is to run on {to}{as_role}");
                    Sentence::new(what, None).waiting(waits)
                }
            }
        }
        ([(at, role)], to) => of_active(facts, placement, &name, (at, *role), to),
        (many, to) => {
            let at: Vec<&str> = many.iter().map(|(n, _)| n.as_str()).collect();
            let then = match to {
                Some(to) => format!("is to run on {to} alone"),
                None => "is to stop everywhere".to_owned(),
            };
            let what = format!("{name} runs on {} at once and {then}", at.join(" and "));
            let chain = facts.chain(&placement.instance.resource);
            let told = facts.reasons(&chain).find(|r| r.code == "multiple-active");
            Sentence::new(what, told.map(|r| r.text.clone()))
        }
    }
}

/// The same, of one that is active on one node.
fn of_active(
    facts: &Facts<'_>,
    placement: &Placement,
    name: &str,
    (at, role): (&str, Role),
    to: Option<&str>,
) -> Sentence {
    let picture = facts.seen(&placement.instance.resource, at);
    let note = role_note(role);
    if picture.is_some_and(|s| s.blocked) {
        let what = format!("{name} is blocked on {at}{note}");
        return Sentence::new(what, blocked(facts, placement, at));
    }
    let failed = picture.is_some_and(|s| s.failed);
    let verb = if failed { "has failed" } else { "runs" };
    let acts = facts.acts(placement);
    match to {
        Some(_) if acts.down && !acts.up => {
            let what = format!("{name} {verb} on {at}{note} and is to stop");
            let chain = facts.chain(&placement.instance.resource);
            let told = waiting(facts, placement)
                .or_else(|| facts.closed(at).map(|(_, words)| format!("{at} is {words}")))
                .or_else(|| restart(facts, placement, &chain));
            Sentence::new(what, told)
        }
        None => {
            let what = format!("{name} {verb} on {at}{note} and is to stop");
            Sentence::new(what, why_nowhere(facts, placement)).waiting(waits_for(facts, placement))
        }
        Some(to) if to != at => {
            let what = format!("{name} {verb} on {at}{note} and is to move to {to}");
            let why = leaving(facts, placement, (at, to));
            Sentence::new(what, why).waiting(waits_for(facts, placement))
        }
        Some(_) if failed => {
            let what = format!("{name} has failed on {at}{note} and is recovered there");
            Sentence::new(what, failure(facts, placement, at))
        }
        Some(_) => staying(facts, placement, (name, at, role)),
    }
}

/// It is where it is to be; its role may change, or it may have to be started again.
fn staying(
    facts: &Facts<'_>,
    placement: &Placement,
    (name, at, now): (&str, &str, Role),
) -> Sentence {
    let note = role_note(now);
    let chain = facts.chain(&placement.instance.resource);
    if now == placement.role {
        if facts.acts_on(placement) {
            let what = format!("{name} runs on {at}{note} and is started again there");
            return Sentence::new(what, restart(facts, placement, &chain));
        }
        let role = if note.is_empty() { None } else { promotion(facts, &chain, at) };
        let cause = role.unwrap_or_else(|| chosen(facts, placement, at));
        return Sentence::new(format!("{name} runs on {at}{note}"), cause);
    }
    let change = if placement.role > now { "promoted" } else { "demoted" };
    let what = format!("{name} runs on {at}{note} and is to be {change}");
    Sentence::new(what, promotion(facts, &chain, at)).waiting(waits_for(facts, placement))
}

/// Why it is started again where it is: its own parameters, or what it stands on.
fn restart(facts: &Facts<'_>, placement: &Placement, chain: &[String]) -> Option<String> {
    if let Some(told) = facts.reasons(chain).find(|r| RESTARTS.contains(&r.code.as_str())) {
        return Some(told.text.clone());
    }
    let acted = |id: &str| {
        let inner = facts.primitives(id);
        inner.iter().any(|p| facts.placements(p).any(|p| facts.acts_on(p)))
    };
    let id = &placement.instance.resource;
    if let Some((mate, group)) = facts.group_mate(id).filter(|(mate, _)| acted(mate)) {
        return Some(format!("{mate} before it changes (group {group})"));
    }
    let mut constraints = facts.document.cib.constraints.iter();
    constraints.find_map(|constraint| {
        let Constraint::Order(order) = constraint else { return None };
        let mine = |id: &String| chain.contains(id);
        let sets: Vec<&String> =
            order.sets.iter().flat_map(|s| s.members.iter().map(|m| &m.resource)).collect();
        let first = if mine(&order.then) {
            Some(&order.first)
        } else {
            let at = sets.iter().position(|id| mine(id))?;
            sets[..at].iter().rev().find(|id| acted(id)).copied()
        };
        let first = first.filter(|id| acted(id))?;
        Some(format!("{first} before it changes (order {})", order.id))
    })
}

/// Why an instance has the role it is to have.
fn promotion(facts: &Facts<'_>, chain: &[String], node: &str) -> Option<String> {
    let here = |r: &&Reason| r.node.as_deref().is_none_or(|n| n == node);
    let mut all = facts.reasons(chain).filter(here).map(|r| r.text.as_str());
    all.find_map(|t| t.strip_prefix("promoted: ").or_else(|| t.strip_prefix("not promoted: ")))
        .map(str::to_owned)
}

/// Its failure there, in the words of the plan.
fn failure(facts: &Facts<'_>, placement: &Placement, node: &str) -> Option<String> {
    let chain = facts.chain(&placement.instance.resource);
    let mut all = facts.reasons(&chain);
    let found = all.find(|r| r.code == "failed" && r.node.as_deref() == Some(node));
    found.map(|r| r.text.clone())
}

fn chosen(facts: &Facts<'_>, placement: &Placement, node: &str) -> String {
    let all = verdict::all(facts, placement, &[placement]);
    let found = all.into_iter().find(|v| v.node == node).map(|v| v.text);
    found.unwrap_or_else(|| "it was chosen".to_owned())
}

fn blocked(facts: &Facts<'_>, placement: &Placement, node: &str) -> String {
    let chain = facts.chain(&placement.instance.resource);
    let found = facts.reasons(&chain).find(|r| {
        matches!(r.code.as_str(), "blocked" | "unclean" | "multiple-active")
            && r.node.as_deref().is_none_or(|n| n == node)
    });
    match found {
        Some(reason) => reason.text.clone(),
        None => {
            failure(facts, placement, node).unwrap_or_else(|| "a failure asks for it".to_owned())
        }
    }
}

/// Why it goes from one node to another.
fn leaving(facts: &Facts<'_>, placement: &Placement, (from, to): (&str, &str)) -> String {
    let all = verdict::all(facts, placement, &[placement]);
    let text = |node: &str| all.iter().find(|v| v.node == node).map(|v| v.text.clone());
    let table = facts.table(placement);
    let score = |node: &str| table.get(node).copied().unwrap_or_default();
    if let Some((_, closed)) = facts.closed(from) {
        return format!("{from} is {closed}");
    }
    if score(from) < crate::cib::Score::ZERO {
        return text(from).unwrap_or_else(|| format!("score {} forbids {from}", score(from)));
    }
    let better = text(to).unwrap_or_default();
    format!("{better} ({to} has score {}, {from} {})", score(to), score(from))
}

/// Why what is to be done is not done now.
fn waits_for(facts: &Facts<'_>, placement: &Placement) -> Option<String> {
    if settled(placement) || facts.acts_on(placement) {
        return None;
    }
    let id = &placement.instance.resource;
    let lost =
        placement.now.iter().find(|(n, _)| facts.closed(n).is_some_and(|(c, _)| c == "unclean"));
    let found = waiting(facts, placement)
        .or_else(|| lost.map(|(n, _)| format!("{n} has to be fenced first, or be known to be off")))
        .or_else(|| order::above(facts, id).filter(|_| !placement.now.is_empty()).map(|a| a.1));
    Some(found.unwrap_or_else(|| "something before it cannot be done".to_owned()))
}

/// The first reason to wait.
fn waiting(facts: &Facts<'_>, placement: &Placement) -> Option<String> {
    let chain = facts.chain(&placement.instance.resource);
    let about = |r: &&Reason| {
        let node = r.node.as_deref();
        node.is_none() || node == placement.node.as_deref()
    };
    let found = facts.reasons(&chain).filter(|r| WAITS.contains(&r.code.as_str())).find(about);
    let ordered = || order::before(facts, &placement.instance.resource).map(|b| b.1);
    found.map(|r| r.text.clone()).or_else(ordered)
}

/// Why it is to run nowhere, whatever the nodes.
pub(super) fn stopper<'f>(facts: &'f Facts<'_>, chain: &'f [String]) -> Option<&'f Reason> {
    let of_code = |code: &&str| {
        let mut all = facts.reasons(chain);
        all.find(|r| r.code == *code && r.node.is_none())
    };
    STOPPERS.iter().find_map(of_code)
}

/// Why it is to run nowhere.
fn why_nowhere(facts: &Facts<'_>, placement: &Placement) -> String {
    let chain = facts.chain(&placement.instance.resource);
    if let Some(found) = stopper(facts, &chain) {
        return found.text.clone();
    }
    let follows = facts
        .reasons(&chain)
        .find(|r| r.code == "colocation" && r.node.is_none() && r.text.contains("nowhere"));
    if let Some(found) = follows {
        return found.text.clone();
    }
    let closed = placement.now.iter().find_map(|(n, _)| Some((n, facts.closed(n)?.1)));
    let others = facts.placements(&placement.instance.resource).any(|p| p.node.is_some());
    if let (true, Some((node, words))) = (others, closed) {
        return format!("{node} is {words}");
    }
    if others {
        return "no further node may run it".to_owned();
    }
    if let Some((mate, group)) = facts.group_mate(&placement.instance.resource)
        && facts.placements(&mate).all(|p| p.node.is_none())
    {
        return format!("goes with {mate}, which runs nowhere (group {group})");
    }
    let all = verdict::all(facts, placement, &[placement]);
    if all.is_empty() {
        return "there are no nodes".to_owned();
    }
    // Nodes with the same cause are told together.
    let mut causes: Vec<(&str, Vec<&str>)> = Vec::new();
    for verdict in &all {
        match causes.iter_mut().find(|(text, _)| *text == verdict.text) {
            Some((_, nodes)) => nodes.push(&verdict.node),
            None => causes.push((&verdict.text, vec![&verdict.node])),
        }
    }
    let each: Vec<String> =
        causes.iter().map(|(text, nodes)| format!("{}: {text}", nodes.join(", "))).collect();
    format!("no node can run it ({})", each.join("; "))
}

/// One sentence about all instances of what was asked for.
pub(super) fn of_all(facts: &Facts<'_>, resource: &str, placements: &[&Placement]) -> String {
    if let [one] = placements {
        let text = of_instance(facts, one).to_string();
        return if one.instance.resource == resource {
            text
        } else {
            format!("{resource}: {text}")
        };
    }
    let odd: Vec<&&Placement> = placements.iter().filter(|p| !settled(p)).collect();
    if let Some(first) = odd.first() {
        let more = match odd.len() {
            1 => String::new(),
            n => format!(" (and {} more)", n - 1),
        };
        return format!("{resource}: {}{more}", of_instance(facts, first));
    }
    let places = places(placements);
    if places.is_empty() {
        let text = placements.first().map(|p| of_instance(facts, p).to_string());
        let text = text.unwrap_or_default();
        return format!("{resource}: {text}");
    }
    let idle = placements.iter().find(|p| p.node.is_none());
    let cloned = facts.placements(&placements[0].instance.resource).nth(1).is_some();
    match idle.filter(|_| !cloned) {
        Some(idle) => format!("{resource}: {}", of_instance(facts, idle)),
        None => {
            let text = placements
                .iter()
                .find(|p| p.node.is_some())
                .map(|p| chosen(facts, p, p.node.as_deref().unwrap_or_default()));
            let why = text.filter(|_| !cloned).map(|t| format!(": {t}")).unwrap_or_default();
            format!("{resource} runs on {}{why}", places.join(", "))
        }
    }
}

/// Nodes with the highest role that anything has there.
fn places(placements: &[&Placement]) -> Vec<String> {
    let mut at: BTreeMap<&str, Role> = BTreeMap::new();
    for (node, role) in placements.iter().flat_map(|p| &p.now) {
        let best = at.entry(node).or_insert(*role);
        *best = (*best).max(*role);
    }
    let mut all: Vec<(&str, Role)> = at.into_iter().collect();
    all.sort_by_key(|(node, role)| (std::cmp::Reverse(*role), *node));
    all.into_iter().map(|(node, role)| format!("{node}{}", role_note(role))).collect()
}

/// One sentence about a resource and a node.
pub(super) fn about_node(
    facts: &Facts<'_>,
    resource: &str,
    node: &str,
    placements: &[&Placement],
    nodes: &[Verdict],
) -> String {
    let there: Vec<&&Placement> =
        placements.iter().filter(|p| p.now.iter().any(|(n, _)| n == node)).collect();
    let coming = placements.iter().find(|p| p.node.as_deref() == Some(node));
    if let Some(first) = there.iter().find(|p| !settled(p)).or_else(|| there.first()) {
        return of_instance(facts, first).to_string();
    }
    if let Some(coming) = coming {
        return of_instance(facts, coming).to_string();
    }
    let verdict = nodes.iter().find(|v| v.node == node);
    let text = verdict.map_or("it is not known why", |v| v.text.as_str());
    let can = verdict.is_some_and(|v| v.standing == Standing::Possible);
    let stopped = placements.iter().all(|p| p.node.is_none());
    let closed = facts.closed(node).map(|(_, words)| format!("{node} is {words}"));
    match (can, closed) {
        (_, Some(closed)) => format!("{resource} cannot run on {node}: {closed}"),
        (false, None) if stopped => {
            let why = placements.first().map(|p| why_nowhere(facts, p)).unwrap_or_default();
            format!("{resource} does not run on {node}, nor anywhere else: {why}")
        }
        (false, None) => format!("{resource} cannot run on {node}: {text}"),
        (true, None) => format!("{resource} could run on {node}, but does not: {text}"),
    }
}
