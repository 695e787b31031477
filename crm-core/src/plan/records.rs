//! Reads all recorded histories, in passes, and concludes what they say of nodes, probes and changed parameters.

use super::model::{Kind, Model, NodeIx, NodeKind, RscIx};
use super::read::Builder;
use super::replay::{Replay, since};
use super::told::Told;
use super::{Input, params};
use crate::cib::{Op, Role, parse_bool, parse_duration_ms};
use crate::lrm::OpRecord;
use crate::plan::md5;
use std::collections::{BTreeMap, BTreeSet};

/// Reads everything that is recorded into the builder's model.
pub(super) fn read<'a>(builder: &mut Builder<'a>, input: &Input<'a>) {
    let Some(pacemaker) = input.pacemaker else { return };
    let empty = BTreeMap::new();
    let failures = builder.model.nodes.iter().map(|n| n.transient.unwrap_or(&empty));
    builder.model.failures = failures.map(super::told::Failures::of).collect();
    let mut replay = Replay {
        b: builder,
        records: pacemaker.records,
        by_node: pacemaker.records.iter().map(|r| (r.name.as_str(), r)).collect(),
        now_ms: input.now_ms,
        recover: Vec::new(),
    };
    replay.silent_members();
    replay.unseen_remotes(input);
    replay.passes();
    replay.late();
    let model = &mut builder.model;
    finish(model);
    probes(model);
    model.shutdown_locks();
    // Failures that are going to be forgotten ban nobody; what is found to have changed later comes too late for that.
    model.thresholds(input.now_ms);
    changes(model, input.now_ms);
    replaced(model);
}

impl<'a> Replay<'_, 'a> {
    /// Attributes of members of which nothing is told do not count.
    fn silent_members(&mut self) {
        if self.records.is_empty() {
            return;
        }
        for node in &mut self.b.model.nodes {
            if !self.by_node.contains_key(node.name) {
                node.standby = false;
                node.maintenance = false;
            }
        }
    }

    /// Remote nodes of which nothing is told are to be fenced when the cluster begins, as members are.
    fn unseen_remotes(&mut self, input: &Input<'a>) {
        let startup = self.b.model.props.fencing
            && input.cib.properties.flag("startup-fencing").unwrap_or(true);
        for n in 0..self.b.model.nodes.len() {
            let kind = self.b.model.nodes[n].kind;
            if kind == NodeKind::Cluster {
                continue;
            }
            let record = self.by_node.get(self.b.model.nodes[n].name).copied();
            let node = &mut self.model().nodes[n];
            // Their state is known when the histories of their connections are read.
            node.online = false;
            node.clean = true;
            node.pending = false;
            node.standby = false;
            node.maintenance = false;
            node.leaving = false;
            node.fence = None;
            node.was_fenced = record.is_some_and(|r| r.fenced);
            node.unseen = true;
            if startup && matches!(kind, NodeKind::Remote { .. }) {
                node.clean = false;
                node.fence = Some("node is unclean".to_owned());
            }
        }
    }

    fn passes(&mut self) {
        let mut done = vec![false; self.records.len()];
        loop {
            let mut progress = false;
            for (i, record) in self.records.iter().enumerate() {
                if done[i] {
                    continue;
                }
                let Some(n) = self.b.model.node_named(&record.name) else { continue };
                if !self.ready(n) {
                    continue;
                }
                done[i] = true;
                progress = true;
                self.node(n);
            }
            if !progress {
                break;
            }
        }
        if !self.b.model.props.fencing {
            return;
        }
        for (i, record) in self.records.iter().enumerate() {
            let node = self.b.model.node_named(&record.name);
            if let Some(n) = node.filter(|_| !done[i]) {
                self.node(n);
            }
        }
    }

    fn started(&self, r: RscIx) -> bool {
        self.b.model.rscs[r].now.role == Some(Role::Started)
    }

    /// What its history depends on is known.
    fn ready(&self, n: NodeIx) -> bool {
        let props = &self.b.model.props;
        let locks = props.shutdown_lock_ms.is_some();
        match self.b.model.nodes[n].kind {
            NodeKind::Guest { connection, container } => {
                self.started(connection) && self.started(container)
            }
            NodeKind::Remote { connection } => locks || self.started(connection),
            NodeKind::Cluster => props.fencing || locks || self.b.model.nodes[n].online,
        }
    }

    fn node(&mut self, n: NodeIx) {
        let Some(record) = self.by_node.get(self.b.model.nodes[n].name).copied() else { return };
        if self.b.model.nodes[n].kind != NodeKind::Cluster {
            self.b.model.remote_state(n);
            self.b.model.remote_attributes(n);
        }
        self.b.model.nodes[n].read = true;
        let mut inside = Vec::new();
        for resource in &record.resources {
            let r = self.resource(n, resource);
            if let (Some(r), Some(container)) = (r, &resource.container)
                && self.b.model.rscs[r].removed
                && self.b.model.rscs[r].container.is_none()
            {
                inside.push((r, container.as_str()));
            }
        }
        for (r, container) in inside {
            self.b.live_in(r, container);
        }
    }

    /// What can only be said when all histories are read.
    fn late(&mut self) {
        // What failed inside of something: that is stopped wherever it is, and may start again.
        for container in std::mem::take(&mut self.recover) {
            let at = self.b.model.rscs[container].active.iter().map(|a| a.node);
            let at: Vec<NodeIx> = at.collect();
            self.b.model.rscs[container].now.stops.extend(at);
        }
        for n in 0..self.b.model.nodes.len() {
            let node = &self.b.model.nodes[n];
            let Some(connection) = node.kind.connection() else { continue };
            if node.leaving {
                self.b.model.rscs[connection].now.preset = Some(Role::Stopped);
            }
            if !node.read {
                self.b.model.remote_state(n);
            }
        }
    }
}

impl Model<'_> {
    /// Is a node that is reached over a connection up?
    fn remote_state(&mut self, n: NodeIx) {
        let kind = self.nodes[n].kind;
        let Some(connection) = kind.connection() else { return };
        let container = kind.container();
        let way = &self.rscs[connection];
        let role = way.now.role;
        let host = container.and_then(|c| match self.rscs[c].active.as_slice() {
            [one] => Some(one.node),
            _ => None,
        });
        let stopped = |r: RscIx| self.rscs[r].now.role == Some(Role::Stopped);
        let started = role == Some(Role::Started);
        let leaving = started && way.now.preset == Some(Role::Stopped);
        let (online, reset) = if container.is_some_and(|c| self.rscs[c].now.failed) {
            (false, Some(true))
        } else if way.now.failed {
            (false, None)
        } else if stopped(connection) || container.is_some_and(stopped) {
            (false, Some(false))
        } else if host.is_some_and(|h| !self.nodes[h].online && !self.nodes[h].clean) {
            (false, Some(true))
        } else {
            (started || self.nodes[n].online, None)
        };
        let node = &mut self.nodes[n];
        node.online = online;
        node.leaving |= leaving;
        if let Some(reset) = reset {
            node.reset = reset;
        }
    }

    /// What a remote node's own attributes say of it.
    fn remote_attributes(&mut self, n: NodeIx) {
        let connection = self.nodes[n].kind.connection();
        let managed = connection.is_none_or(|c| self.managed(c));
        let node = &mut self.nodes[n];
        if !node.reset {
            node.clean = true;
            node.unseen = false;
            node.fence = None;
        }
        let on = |name: &str| node.attribute(name).and_then(parse_bool);
        let leaving = node.attribute("shutdown").is_some_and(|v| v != "0");
        let standby = on("standby").unwrap_or(false);
        let maintenance = on("maintenance").unwrap_or(false) || !managed;
        let discovery = on("resource-discovery-enabled").unwrap_or(true);
        node.leaving |= leaving;
        node.standby |= standby;
        node.maintenance |= maintenance;
        node.discovery = discovery;
    }
}

/// Instances whose members are not all merely started: a member that is stays so, and has the unpromoted role only in the plan.
fn mixed(model: &Model<'_>) -> BTreeSet<RscIx> {
    let mut out = BTreeSet::new();
    for clone in model.rscs.iter().filter(|r| r.promotable()) {
        for leaves in clone.children.iter().map(|i| model.leaves(*i)) {
            let best = leaves.iter().filter_map(|l| model.rscs[*l].now.role).max();
            if best > Some(Role::Started) {
                out.extend(leaves);
            }
        }
    }
    out
}

/// The states of primitives as the other phases read them.
fn finish(model: &mut Model<'_>) {
    let mixed = mixed(model);
    for r in 0..model.rscs.len() {
        if !matches!(model.rscs[r].kind, Kind::Primitive) {
            continue;
        }
        let usual = model.active_role(r);
        let rsc = &mut model.rscs[r];
        let now = &rsc.now;
        let role = now.role.unwrap_or(usual);
        let promotable = usual == Role::Unpromoted;
        let role = match role {
            Role::Started if promotable && !mixed.contains(&r) => Role::Unpromoted,
            Role::Stopped | Role::Started | Role::Unpromoted | Role::Promoted => role,
        };
        let (failed, held, demote) = (now.failed, now.held, now.demote_only);
        let halt = now.preset == Some(Role::Stopped);
        for seen in &mut rsc.active {
            seen.role = role;
            seen.failed |= failed;
            seen.blocked |= held;
            seen.demote_only = demote && role == Role::Promoted;
            seen.halt = halt;
        }
    }
}

/// Where nothing is known of a primitive. Of instances that are alike it is enough to know one.
fn probes(model: &mut Model<'_>) {
    if model.cib.properties.flag("enable-startup-probes") == Some(false) {
        return;
    }
    let mut known: BTreeMap<&str, BTreeSet<NodeIx>> = BTreeMap::new();
    for rsc in &model.rscs {
        known.entry(rsc.id).or_default().extend(&rsc.now.known);
    }
    let mut out = Vec::new();
    for (r, rsc) in model.rscs.iter().enumerate() {
        let unique = model.unique(r);
        let first = rsc.clone.is_none() || unique || rsc.number == 0 || model.bundled(r);
        if !matches!(rsc.kind, Kind::Primitive) || rsc.removed || !first {
            continue;
        }
        let told = if unique { &rsc.now.known } else { &known[rsc.id] };
        let inner = rsc.container.is_some() && rsc.connection_of.is_none();
        let wanted = |n: &NodeIx| !told.contains(n) && !inner && model.can_be_there(r, *n);
        out.extend((0..model.nodes.len()).filter(wanted).map(|n| (r, n)));
    }
    model.probes = out;
}

/// What another agent has run is stopped by that one, and its history is forgotten.
fn replaced(model: &mut Model<'_>) {
    for r in 0..model.rscs.len() {
        for n in model.rscs[r].now.replaced.clone() {
            if !model.nodes[n].looked_at() {
                continue;
            }
            for seen in model.rscs[r].active.iter_mut().filter(|a| a.node == n) {
                seen.changed = true;
                seen.reload = false;
            }
            model.forgets.push((r, n));
        }
    }
}

/// Operations whose definition is another one now.
fn changes(model: &mut Model<'_>, now_ms: u64) {
    for r in 0..model.rscs.len() {
        let rsc = &model.rscs[r];
        let Some(prim) = rsc.prim else { continue };
        let surplus = rsc.surplus || rsc.parent.is_some_and(|p| model.rscs[p].surplus);
        if rsc.now.records.is_empty() || surplus {
            continue;
        }
        // What another instance has left there says nothing of this one.
        let names = [model.key(r), model.label(r)];
        let mut told = rsc.now.records.clone();
        told.retain(|t| names.iter().any(|name| name == t.id));
        for Told { node: n, ops, span, .. } in told {
            if !model.nodes[n].looked_at() || !model.rscs[r].active.iter().any(|a| a.node == n) {
                continue;
            }
            let own = model.with_address(&model.attributes_of(r, n), model.nodes[n].name);
            let mut changed = false;
            for record in since(&ops, span) {
                let task = match record.op.as_str() {
                    "monitor" if record.interval_ms == 0 => "start",
                    // Both run with what the resource was started with.
                    "migrate_from" | "promote" if record.interval_ms == 0 => "start",
                    other => other,
                };
                let one_shot = task == "start";
                if record.interval_ms == 0 && !one_shot {
                    continue;
                }
                let same = |op: &&Op| op.name == task && op.interval_ms() == record.interval_ms;
                let op = prim.ops.iter().find(same);
                if record.interval_ms > 0 && !op.is_some_and(super::onfail::enabled) {
                    changed = true;
                    continue;
                }
                let timeout = model.timeout_ms(op);
                let params = call(&own, op, (record.interval_ms, timeout));
                changed |= note_change(model, (r, n), record, (&params, &own));
            }
            if changed {
                let text = "its parameters are not those it was started with".to_owned();
                model.because(r, Some(n), "changed", text);
            }
            if changed && model.fresh_fail_count(r, n, now_ms) > 0 {
                model.clear_failures(r, n, "its definition has changed");
            }
        }
    }
}

/// Parameters of an operation as they count for its digest.
fn call(
    own: &BTreeMap<String, String>,
    op: Option<&Op>,
    (interval_ms, timeout_ms): (u64, u64),
) -> BTreeMap<String, String> {
    let mut out = own.clone();
    for pair in op.iter().flat_map(|op| &op.attrs.pairs) {
        if let (false, Some(value)) = (OP_META.contains(&pair.name.as_str()), &pair.value) {
            out.insert(pair.name.clone(), value.clone());
        }
    }
    // Also of what is not configured any more.
    if interval_ms > 0 {
        out.insert("CRM_meta_timeout".to_owned(), timeout_ms.to_string());
    }
    out
}

/// Settings of an operation that its agent does not get as parameters.
pub(super) const OP_META: &[&str] = &[
    "interval",
    "timeout",
    "start-delay",
    "interval-origin",
    "requires",
    "on-fail",
    "enabled",
    "role",
    "record-pending",
    "description",
    "disabled",
    "prereq",
    "on_fail",
    "start_delay",
];

/// How an operation as it was run differs from what is configured: not at all, or in what needs a restart.
fn difference(record: &OpRecord, params: &BTreeMap<String, String>) -> Option<bool> {
    let all = record.digest.as_ref()?;
    let restart = record.restart.as_ref().is_some_and(|(list, digest)| {
        let listed: Vec<&str> = list.split_whitespace().collect();
        let some = params.iter().filter(|(name, _)| listed.contains(&name.as_str()));
        md5::hex(&params::written(some)) != *digest
    });
    let same = md5::hex(&params::written(params.iter())) == *all;
    (restart || !same).then_some(restart)
}

fn note_change(
    model: &mut Model<'_>,
    (r, n): (RscIx, NodeIx),
    record: &OpRecord,
    (params, own): (&BTreeMap<String, String>, &BTreeMap<String, String>),
) -> bool {
    let Some(restart) = difference(record, params) else { return false };
    if !restart && but_secrets(model, r, record, params) {
        return false;
    }
    if record.interval_ms > 0 {
        // It goes on with the new settings when it is begun again.
        let other =
            |e: &(NodeIx, String, u64)| e.0 != n || e.1 != record.op || e.2 != record.interval_ms;
        model.rscs[r].now.recurring.retain(other);
        return restart;
    }
    // Parameters of the start alone reach it only by a start.
    let reload = !restart && record.restart.is_some() && params == own;
    for seen in model.rscs[r].active.iter_mut().filter(|a| a.node == n) {
        seen.changed |= !reload;
        seen.reload |= reload;
    }
    for seen in &mut model.rscs[r].active {
        seen.reload &= !seen.changed;
    }
    true
}

/// A document that is passed on has its secrets blanked: then only the rest can be compared.
fn but_secrets(
    model: &Model<'_>,
    r: RscIx,
    record: &OpRecord,
    params: &BTreeMap<String, String>,
) -> bool {
    let Some((list, digest)) = &record.secure else { return false };
    let listed: Vec<&str> = list.split_whitespace().collect();
    let fence = model.rscs[r].agent.is_some_and(|a| a.class == "stonith");
    let told = params.iter().filter(|(name, _)| {
        let secret = listed.contains(&name.as_str());
        !(secret || fence && name.starts_with("pcmk_") || name.starts_with("CRM_meta_"))
    });
    md5::hex(&params::written(told)) == *digest
}

/// The digest that Pacemaker keeps of the parameters of an operation (`op-digest`).
#[must_use]
pub fn digest_of(params: &BTreeMap<String, String>) -> String {
    md5::hex(&params::written(params.iter()))
}

impl Model<'_> {
    /// The operation was run with other parameters than the configured ones.
    pub(super) fn other_definition(&self, r: RscIx, n: NodeIx, record: &OpRecord) -> bool {
        let Some(prim) = self.rscs[r].prim else { return false };
        let probe = record.op == "monitor" && record.interval_ms == 0;
        let task = if probe { "start" } else { record.op.as_str() };
        let same = |op: &&Op| op.name == task && op.interval_ms() == record.interval_ms;
        let op = prim.ops.iter().find(same);
        let own = self.with_address(&self.attributes_of(r, n), self.nodes[n].name);
        let params = call(&own, op, (record.interval_ms, self.timeout_ms(op)));
        difference(record, &params).is_some()
    }

    /// It might run there as far as the kinds of both go.
    fn can_be_there(&self, r: RscIx, n: NodeIx) -> bool {
        let node = &self.nodes[n];
        if !node.discovery {
            return false;
        }
        let rsc = &self.rscs[r];
        let device = rsc.agent.is_some_and(|a| a.class == "stonith");
        let hosts_node = rsc.fillers.iter().any(|f| self.rscs[*f].connection_of.is_some());
        match node.kind {
            NodeKind::Cluster => true,
            NodeKind::Remote { .. } => !device && rsc.connection_of.is_none(),
            NodeKind::Guest { container, .. } => {
                // In a guest that is stopped nothing runs.
                let stopped = self.rscs[container].now.role == Some(Role::Stopped);
                !device && rsc.connection_of.is_none() && !hosts_node && !stopped
            }
        }
    }

    fn timeout_ms(&self, op: Option<&Op>) -> u64 {
        let own = op.and_then(Op::timeout_ms);
        own.or_else(|| self.cib.op_defaults.get("timeout").and_then(parse_duration_ms))
            .unwrap_or(params::DEFAULT_TIMEOUT_MS)
    }
}
