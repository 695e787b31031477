//! "What if": changes to a cluster as it was read, before anything is planned. Pure.

use super::Outcome;
use crate::cib::{Role, parse_bool};
use crate::plan::NodeView;
use crate::status::{ExecStatus, NodeStatus, OpResult, Ticket, rc};
use crate::text::nearest;
use crate::xml::Document;
use std::fmt;

/// What is assumed to have happened to a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeChange {
    /// It has come.
    Up,
    /// It has left in good order; nothing runs there.
    Down,
    /// It has fallen silent and may still run things.
    Lost,
    /// It is to run nothing.
    Standby,
    /// It may run things again.
    Online,
}

/// What is assumed to have happened to a ticket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TicketChange {
    /// The cluster has got it.
    Grant,
    /// The cluster has lost it.
    Revoke,
    /// It is about to be given up.
    Standby,
    /// It is not about to be given up any more.
    Activate,
}

/// One assumption.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// The cluster has quorum, or has not.
    Quorum(bool),
    /// About a ticket.
    Ticket(String, TicketChange),
    /// About a node.
    Node(String, NodeChange),
    /// An operation has ended with this code.
    Result(Outcome),
    /// A resource has failed on a node: `op` (without it what watches it), with `rc` (without it what is usual).
    Fail {
        /// Resource, as the history knows it.
        resource: String,
        /// Operation.
        op: Option<String>,
        /// Node.
        node: String,
        /// Exit code.
        rc: Option<i32>,
    },
}

/// Why an assumption cannot be made, and what to write instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Impossible {
    /// What is wrong.
    pub why: String,
    /// What to do.
    pub remedy: String,
}

impl Impossible {
    fn new(why: String, remedy: String) -> Self {
        Self { why, remedy }
    }
}

/// Operations that a history may have.
const OPS: &[&str] = &[
    "start",
    "stop",
    "monitor",
    "promote",
    "demote",
    "notify",
    "migrate_to",
    "migrate_from",
    "reload",
    "reload-agent",
];

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { resource, op, interval_ms, node, rc } = self;
        write!(f, "{resource}_{op}_{interval_ms}@{node}={rc}")
    }
}

/// Reads `RSC_OP_INTERVAL@NODE=RC`, the interval in milliseconds.
#[must_use]
pub fn parse_outcome(text: &str) -> Option<Outcome> {
    let (key, rest) = text.split_once('@')?;
    let (node, rc) = rest.rsplit_once('=')?;
    let (key, interval) = key.rsplit_once('_')?;
    let (resource, op) = OPS.iter().find_map(|op| {
        let resource = key.strip_suffix(op)?.strip_suffix('_')?;
        Some((resource, *op))
    })?;
    let whole = !resource.is_empty() && !node.is_empty();
    whole.then_some(Outcome {
        resource: resource.to_owned(),
        op: op.to_owned(),
        interval_ms: interval.parse().ok()?,
        node: node.to_owned(),
        rc: rc.parse().ok()?,
    })
}

/// Reads `RSC[:OP]@NODE[=RC]`.
#[must_use]
pub fn parse_failure(text: &str) -> Option<Change> {
    let (what, rest) = text.split_once('@')?;
    let (node, rc) = match rest.rsplit_once('=') {
        Some((node, rc)) => (node, Some(rc.parse().ok()?)),
        None => (rest, None),
    };
    let (resource, op) = match what.rsplit_once(':') {
        Some((resource, op)) if OPS.contains(&op) => (resource, Some(op.to_owned())),
        Some((_, number)) if number.parse::<u32>().is_err() => return None,
        Some(_) | None => (what, None),
    };
    let whole = !resource.is_empty() && !node.is_empty();
    let (resource, node) = (resource.to_owned(), node.to_owned());
    whole.then_some(Change::Fail { resource, op, node, rc })
}

/// Makes the assumption true in the document; what was done, in Pacemaker's words.
///
/// # Errors
/// When the document has no such node, resource or ticket, or when it makes no sense there.
pub fn assume(document: &mut Document, change: &Change) -> Result<String, Impossible> {
    match change {
        Change::Quorum(quorate) => {
            document.quorate = *quorate;
            Ok(format!("Setting quorum: {quorate}"))
        }
        Change::Ticket(name, what) => ticket(document, name, *what),
        Change::Node(name, what) => node(document, name, *what),
        Change::Result(outcome) => {
            known_node(document, &outcome.node)?;
            known_resource(document, &outcome.resource)?;
            inject(document, outcome);
            Ok(format!("Injecting {outcome} into the configuration"))
        }
        Change::Fail { resource, op, node, rc } => {
            let outcome = failure(document, (resource, op.as_deref()), node, *rc)?;
            inject(document, &outcome);
            Ok(format!("Injecting {outcome} into the configuration"))
        }
    }
}

fn ticket(document: &mut Document, name: &str, what: TicketChange) -> Result<String, Impossible> {
    let mut names: Vec<&str> = document.cib.rsc_tickets.iter().map(|t| t.ticket.as_str()).collect();
    names.extend(document.status.tickets.keys().map(String::as_str));
    if !names.contains(&name) {
        let why = format!("nothing depends on a ticket `{name}`");
        names.sort_unstable();
        names.dedup();
        return Err(Impossible::new(why, choice(name, &names, "ticket")));
    }
    let none = Ticket { granted: false, standby: false };
    let ticket = document.status.tickets.entry(name.to_owned()).or_insert(none);
    Ok(match what {
        TicketChange::Grant => {
            ticket.granted = true;
            format!("Granting ticket {name}")
        }
        TicketChange::Revoke => {
            ticket.granted = false;
            format!("Revoking ticket {name}")
        }
        TicketChange::Standby => {
            ticket.standby = true;
            format!("Making ticket {name} standby")
        }
        TicketChange::Activate => {
            ticket.standby = false;
            format!("Activating ticket {name}")
        }
    })
}

fn node(document: &mut Document, name: &str, what: NodeChange) -> Result<String, Impossible> {
    known_node(document, name)?;
    let owned = name.to_owned();
    Ok(match what {
        NodeChange::Up => {
            document.nodes.insert(owned.clone(), NodeView::ONLINE);
            document.fence.remove(name);
            document.status.nodes.entry(owned).or_default();
            format!("Bringing node {name} online")
        }
        NodeChange::Down => {
            document.nodes.insert(owned.clone(), NodeView::GONE);
            document.fence.remove(name);
            document.status.nodes.insert(owned, NodeStatus::default());
            document.records.retain(|r| r.name != name);
            format!("Taking node {name} offline")
        }
        NodeChange::Lost => {
            document.nodes.insert(owned.clone(), NodeView::LOST);
            document.fence.insert(owned, "peer is no longer part of the cluster".to_owned());
            format!("Failing node {name}")
        }
        NodeChange::Standby => {
            standby(document, name, true);
            format!("Putting node {name} in standby")
        }
        NodeChange::Online => {
            standby(document, name, false);
            format!("Taking node {name} out of standby")
        }
    })
}

/// A transient attribute wins over the permanent one: it goes.
fn standby(document: &mut Document, name: &str, on: bool) {
    if let Some(status) = document.status.nodes.get_mut(name) {
        status.attrs.remove("standby");
    }
    if let Some(node) = document.cib.node_mut(name) {
        node.attributes.set("standby", if on { "on" } else { "off" });
    }
}

fn known_node(document: &Document, name: &str) -> Result<(), Impossible> {
    if document.cib.node(name).is_some() || document.nodes.contains_key(name) {
        return Ok(());
    }
    let mut names: Vec<&str> = document.cib.nodes.iter().map(|n| n.name.as_str()).collect();
    names.extend(document.nodes.keys().map(String::as_str));
    names.sort_unstable();
    names.dedup();
    Err(Impossible::new(format!("there is no node `{name}`"), choice(name, &names, "node")))
}

fn known_resource(document: &Document, key: &str) -> Result<(), Impossible> {
    let id = key.rsplit_once(':').map_or(key, |(id, _)| id);
    let cib = &document.cib;
    let reported = document.status.nodes.values().any(|n| n.resources.contains_key(key));
    let recorded = document.records.iter().flat_map(|n| &n.resources).any(|r| r.id == key);
    if cib.primitive(key).is_some() || cib.primitive(id).is_some() || reported || recorded {
        return Ok(());
    }
    if let Some(outer) = cib.resource(key) {
        let mut inner = Vec::new();
        outer.collect_primitives(&mut inner);
        let names: Vec<&str> = inner.iter().map(|p| p.id.as_str()).collect();
        let why = format!("`{key}` runs no operations itself");
        return Err(Impossible::new(why, format!("name what is in it: {}", names.join(", "))));
    }
    let names: Vec<&str> = cib.primitives().iter().map(|p| p.id.as_str()).collect();
    Err(Impossible::new(format!("there is no resource `{key}`"), choice(key, &names, "resource")))
}

fn choice(name: &str, names: &[&str], what: &str) -> String {
    match nearest(name, names.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None if names.is_empty() => format!("no {what}s are known"),
        None => format!("the {what}s are: {}", names.join(", ")),
    }
}

/// The failure that would be reported.
fn failure(
    document: &Document,
    (resource, op): (&str, Option<&str>),
    node: &str,
    code: Option<i32>,
) -> Result<Outcome, Impossible> {
    known_node(document, node)?;
    known_resource(document, resource)?;
    let op = op.unwrap_or("monitor");
    let role = role_at(document, resource, node);
    let mut interval_ms = 0;
    if op == "monitor" {
        if role.is_none_or(|r| r == Role::Stopped) {
            let at: Vec<&str> = document
                .status
                .nodes
                .keys()
                .map(String::as_str)
                .filter(|n| role_at(document, resource, n).is_some_and(|r| r != Role::Stopped))
                .collect();
            let remedy = if at.is_empty() {
                format!("it runs nowhere; a failed start is: {resource}:start@{node}")
            } else {
                format!("it runs on {}", at.join(", "))
            };
            return Err(Impossible::new(format!("`{resource}` does not run on {node}"), remedy));
        }
        interval_ms = watched(document, resource, role).ok_or_else(|| {
            Impossible::new(
                format!("`{resource}` has no recurring monitor: nobody would see it fail"),
                format!("name an operation ({resource}:stop@{node}), or add a monitor"),
            )
        })?;
    }
    let rc = code.unwrap_or(if op == "monitor" { rc::NOT_RUNNING } else { rc::ERR_GENERIC });
    let (resource, op, node) = (resource.to_owned(), op.to_owned(), node.to_owned());
    Ok(Outcome { resource, op, interval_ms, node, rc })
}

/// What a resource (or any of its instances) is on a node, as the planner reads it.
fn role_at(document: &Document, resource: &str, node: &str) -> Option<Role> {
    if document.records.is_empty() {
        return document.status.nodes.get(node)?.resources.get(resource)?.role;
    }
    let picture = crate::plan::picture(&super::input(document));
    let named = |label: &str| super::same(label, resource);
    let leaves = picture.resources.iter().flat_map(crate::plan::RscPicture::leaves);
    let active = leaves.filter(|l| named(&l.label)).flat_map(|l| l.active.clone());
    active.filter(|(n, _)| n == node).map(|(_, role)| role).max()
}

/// The shortest interval at which a monitor looks at it in this role.
fn watched(document: &Document, key: &str, role: Option<Role>) -> Option<u64> {
    let id = key.rsplit_once(':').map_or(key, |(id, _)| id);
    let prim = document.cib.primitive(key).or_else(|| document.cib.primitive(id))?;
    let promoted = role == Some(Role::Promoted);
    let fits = |op: &&crate::cib::Op| {
        let named = op.attrs.get("role").and_then(crate::plan::parse_role);
        let enabled = op.attrs.get("enabled").and_then(parse_bool).unwrap_or(true);
        let same = match named {
            Some(Role::Promoted) => promoted,
            Some(Role::Stopped) => false,
            Some(Role::Started | Role::Unpromoted) | None => true,
        };
        op.name == "monitor" && op.interval_ms() > 0 && enabled && same
    };
    prim.ops.iter().filter(fits).map(crate::cib::Op::interval_ms).min()
}

/// The node reports the result.
fn inject(document: &mut Document, outcome: &Outcome) {
    let role = role_at(document, &outcome.resource, &outcome.node);
    let when_ms = document.now_ms;
    let last = super::highest_call(document);
    let expected_rc = match (outcome.op.as_str(), outcome.interval_ms, role) {
        ("monitor", 0, _) => rc::NOT_RUNNING,
        ("monitor", _, Some(Role::Promoted)) => rc::RUNNING_PROMOTED,
        _ => rc::OK,
    };
    let result = OpResult {
        resource: outcome.resource.clone(),
        op: outcome.op.clone(),
        interval_ms: outcome.interval_ms,
        rc: outcome.rc,
        expected_rc,
        status: ExecStatus::Complete,
        reason: String::new(),
        digest: 0,
        call_id: last + 1,
        when_ms,
        exec_ms: 0,
        peer: None,
    };
    let fatal = document.cib.properties.flag("start-failure-is-fatal").unwrap_or(true);
    let node = document.status.nodes.entry(outcome.node.clone()).or_default();
    let digest = node.resources.get(&outcome.resource).map_or(0, |h| h.digest);
    node.record(&OpResult { digest, ..result.clone() });
    if let Some(history) = node.resources.get_mut(&outcome.resource)
        && result.failed()
        && result.op == "start"
        && fatal
    {
        history.fail_count = 1_000_000;
    }
    record(document, outcome, &result, fatal);
}

/// The same in Pacemaker's form, with its count of failures.
fn record(document: &mut Document, outcome: &Outcome, result: &OpResult, fatal: bool) {
    let Outcome { resource, op, interval_ms, node, .. } = outcome;
    if result.failed() && !(op == "monitor" && *interval_ms == 0) {
        let attrs = &mut document.status.nodes.entry(node.clone()).or_default().attrs;
        let name = format!("fail-count-{resource}#{op}_{interval_ms}");
        let before: u32 = attrs.get(&name).and_then(|v| v.parse().ok()).unwrap_or(0);
        let infinite = fatal && op == "start";
        let count = if infinite { "INFINITY".to_owned() } else { (before + 1).to_string() };
        attrs.insert(name, count);
        let name = format!("last-failure-{resource}#{op}_{interval_ms}");
        attrs.insert(name, (result.when_ms / 1000).to_string());
    }
    let id = resource.rsplit_once(':').map_or(resource.as_str(), |(id, _)| id);
    let prim = document.cib.primitive(resource).or_else(|| document.cib.primitive(id));
    let unknown = || super::agent_of("ocf:unknown:unknown");
    let agent = prim.map_or_else(unknown, |p| p.agent.clone());
    super::recorded(document, node).take(agent, result, None);
}
