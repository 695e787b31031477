//! What the configuration implies without naming it: the connections of guest nodes, and which nodes are reached over connections.
//!
//! Owned here, so that the model can borrow it as it borrows what is configured.

use super::Input;
use super::bundle::Parts;
use super::model::{Model, NodeKind};
use crate::cib::{AgentName, Cib, Nv, NvSet, Op, Primitive, Resource, parse_duration_ms};
use std::collections::{BTreeMap, BTreeSet};

/// Resources and nodes that follow from the configuration. Empty in our own plans: our nodes know no remote ones.
#[derive(Debug, Default)]
pub(super) struct Implicit {
    /// Names of nodes that are reached over a connection: of `ocf:pacemaker:remote` primitives and of implicit connections.
    pub(super) remotes: BTreeSet<String>,
    /// Connections of guests (id = name of the node, meta `container` = what it lives in).
    pub(super) connections: Vec<Primitive>,
    /// What bundles consist of, by id.
    pub(super) bundles: BTreeMap<String, Parts>,
}

impl Implicit {
    /// What `input`'s configuration implies.
    pub(super) fn of(input: &Input<'_>) -> Self {
        let Some(pacemaker) = input.pacemaker else { return Self::default() };
        let mut out = Self::in_cib(input.cib);
        // Connections that are not configured any more lead to nodes too.
        for record in pacemaker.records.iter().flat_map(|node| &node.resources) {
            if is_connection(&record.agent)
                && !record.ops.is_empty()
                && input.cib.primitive(&record.id).is_none()
            {
                out.remotes.insert(record.id.clone());
            }
        }
        out
    }

    fn in_cib(cib: &Cib) -> Self {
        let mut out = Self::default();
        for resource in &cib.resources {
            match resource {
                Resource::Primitive(p) => out.primitive(p, cib),
                Resource::Group(g) => g.members.iter().for_each(|p| out.primitive(p, cib)),
                // Neither instances of a connection nor nodes inside of instances would have names of their own.
                Resource::Clone(_) => {}
                Resource::Bundle(b) => {
                    out.remotes.extend(b.node_names());
                    out.bundles.insert(b.id.clone(), Parts::of(b));
                }
            }
        }
        out
    }

    fn primitive(&mut self, prim: &Primitive, cib: &Cib) {
        if is_connection(&prim.agent) {
            self.remotes.insert(prim.id.clone());
            return;
        }
        let Some(name) = prim.meta.get("remote-node") else { return };
        // A name that something else has already cannot be a node's.
        let taken = cib.resource(name).is_some() || cib.primitive(name).is_some();
        if !taken && self.remotes.insert(name.to_owned()) {
            self.connections.push(connection(name, prim));
        }
    }
}

/// Nodes that are reached over connections, with what rules call them (`#kind`).
#[must_use]
pub fn remote_nodes(cib: &Cib) -> Vec<(String, &'static str)> {
    let implicit = Implicit::in_cib(cib);
    let bundled = |name: &String| {
        let replicas = implicit.bundles.values().flat_map(|b| &b.replicas);
        replicas.filter_map(|r| r.connection.as_ref()).any(|c| c.id == *name)
    };
    let guest = |name: &String| bundled(name) || implicit.connections.iter().any(|c| c.id == *name);
    let kind = |name: &String| if guest(name) { "container" } else { "remote" };
    implicit.remotes.iter().map(|name| (name.clone(), kind(name))).collect()
}

/// The agent that stands for the connection to a node.
pub(super) fn is_connection(agent: &AgentName) -> bool {
    agent.class == "ocf" && agent.provider.as_deref() == Some("pacemaker") && agent.kind == "remote"
}

pub(super) fn set(pairs: &[(&str, Option<&str>)]) -> NvSet {
    let mut out = NvSet::default();
    for (name, value) in pairs {
        if let Some(value) = value {
            out.pairs.push(Nv { name: (*name).to_owned(), value: Some((*value).to_owned()) });
        }
    }
    out
}

/// The connection to the guest `name` that lives in `container`.
fn connection(name: &str, container: &Primitive) -> Primitive {
    let meta = |key: &str| container.meta.get(key);
    let mut ops = vec![Op {
        name: "monitor".to_owned(),
        attrs: set(&[("interval", Some("30s")), ("timeout", Some("30s"))]),
    }];
    if let Some(timeout) = meta("remote-connect-timeout") {
        let attrs = set(&[("interval", Some("0")), ("timeout", Some(timeout))]);
        ops.push(Op { name: "start".to_owned(), attrs });
    }
    Primitive {
        id: name.to_owned(),
        agent: AgentName {
            class: "ocf".to_owned(),
            provider: Some("pacemaker".to_owned()),
            kind: "remote".to_owned(),
        },
        description: None,
        params: set(&[("addr", meta("remote-addr")), ("port", meta("remote-port"))]),
        meta: set(&[
            ("container", Some(&container.id)),
            ("allow-migrate", meta("remote-allow-migrate")),
            ("is-managed", meta("is-managed")),
        ]),
        utilization: NvSet::default(),
        ops,
        layout: Vec::new(),
    }
}

/// Ties nodes, connections and what is inside of what together, once all resources are in the model.
pub(super) fn connect(model: &mut Model<'_>) {
    for r in 0..model.rscs.len() {
        let Some(prim) = model.rscs[r].prim else { continue };
        if let Some(id) = model.rscs[r].meta.container.as_deref() {
            let container = model.by_id.get(id).copied().filter(|c| *c != r);
            model.rscs[r].container = container;
            if let Some(c) = container {
                model.rscs[c].fillers.push(r);
            }
        }
        if is_connection(&prim.agent) && model.rscs[r].clone.is_none() {
            let interval = prim.params.get("reconnect_interval");
            let interval = interval.and_then(parse_duration_ms).unwrap_or(0);
            let rsc = &mut model.rscs[r];
            rsc.reconnect_ms = interval;
            if interval > 0 {
                rsc.meta.failure_timeout_ms = interval;
            }
            tie(model, r);
        }
    }
}

/// `connection` is the way to the node with its name; in what it lives is known by now.
pub(super) fn tie(model: &mut Model<'_>, connection: usize) {
    let id = model.rscs[connection].id;
    let Some(n) = model.nodes.iter().position(|node| node.name == id) else { return };
    model.rscs[connection].connection_of = Some(n);
    model.nodes[n].kind = match model.rscs[connection].container {
        Some(container) => NodeKind::Guest { connection, container },
        None => NodeKind::Remote { connection },
    };
}
