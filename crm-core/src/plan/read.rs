//! Phase 1: configuration and status become the dense model.

use super::Input;
use super::history::{Finding, Reader, Wanted};
use super::implicit::Implicit;
use super::meta::{self, Chain};
use super::model::{Kind, Model, Node, NodeIx, NodeKind, Rsc, RscIx};
use super::moves::{self, Moves};
use super::params;
use super::scores::Scores;
use crate::cib::{Primitive, Resource, Role, Score, parse_bool};
use crate::status::{Removed, ResourceHistory};
use std::collections::{BTreeMap, BTreeSet};

/// Steps along colocations that a plan may take: some seconds. Millions of ways between a few resources are never all walked.
pub(super) const PATIENCE: u64 = 20_000_000;

/// Reads everything but the constraints.
pub(super) fn read<'a>(input: &Input<'a>, implicit: &'a Implicit) -> Model<'a> {
    let mut props = meta::properties(input.cib);
    props.exact = input.pacemaker.is_some();
    props.habits = input.pacemaker.map(|p| p.habits).unwrap_or_default();
    let mut builder = Builder {
        model: Model {
            cib: input.cib,
            status: input.status,
            quorate: input.quorate,
            pacemaker: input.pacemaker,
            props,
            nodes: read_nodes(input, implicit),
            rscs: Vec::new(),
            tops: Vec::new(),
            by_id: BTreeMap::new(),
            instances: BTreeMap::new(),
            colocs: Vec::new(),
            this_with: Vec::new(),
            with_this: Vec::new(),
            probes: Vec::new(),
            bans: Vec::new(),
            forgets: Vec::new(),
            clears: Vec::new(),
            failures: Vec::new(),
            free: Vec::new(),
            reasons: Vec::new(),
            fences: BTreeMap::new(),
            trace: None,
            voices: super::voice::Voices::default(),
            patience: PATIENCE,
        },
        implicit,
        findings: BTreeMap::new(),
        moves: BTreeMap::new(),
        labels: BTreeMap::new(),
    };
    if input.pacemaker.is_none() {
        for resource in &input.cib.resources {
            builder.find(resource, &Context::top(input), input);
        }
    }
    for resource in &input.cib.resources {
        if matches!(resource, Resource::Bundle(b) if !implicit.bundles.contains_key(&b.id)) {
            // Our own nodes run no containers.
            continue;
        }
        let top = builder.add(resource, &Context::top(input));
        builder.model.tops.push(top);
    }
    for prim in &implicit.connections {
        let top = builder.add_primitive(prim, &Context::top(input));
        builder.model.tops.push(top);
    }
    if input.pacemaker.is_some() {
        super::implicit::connect(&mut builder.model);
        super::records::read(&mut builder, input);
    } else {
        for (id, removed) in &input.status.removed {
            if !builder.model.by_id.contains_key(id.as_str()) {
                builder.add_left_over(removed, input);
            }
        }
        builder.note_findings();
        for r in 0..builder.model.rscs.len() {
            // Half of a live migration is on both nodes as it should be.
            let rsc = &builder.model.rscs[r];
            if rsc.active.len() > 1 && rsc.now.partial.is_none() {
                builder.model.found_again(r);
            }
        }
        orphans(&mut builder.model, input);
    }
    builder.model
}

/// Key that sorts `node2` before `node10`.
fn natural(name: &str) -> Vec<(u64, String)> {
    let mut out = Vec::new();
    let mut text = String::new();
    let mut digits = String::new();
    for c in name.chars().map(|c| c.to_ascii_lowercase()) {
        if c.is_ascii_digit() {
            digits.push(c);
            continue;
        }
        if !digits.is_empty() {
            out.push((digits.parse().unwrap_or(u64::MAX), std::mem::take(&mut text)));
            digits.clear();
        }
        text.push(c);
    }
    out.push((digits.parse().unwrap_or(0), text));
    // A pair compares its text first, so that words go before numbers as one reads them.
    out
}

fn read_nodes<'a>(input: &Input<'a>, implicit: &'a Implicit) -> Vec<Node<'a>> {
    let names: BTreeSet<&'a str> = input
        .cib
        .nodes
        .iter()
        .map(|n| n.name.as_str())
        .chain(input.nodes.keys().map(String::as_str))
        .chain(implicit.remotes.iter().map(String::as_str))
        .collect();
    let mut nodes: Vec<Node<'a>> = names.into_iter().map(|name| read_node(input, name)).collect();
    nodes.sort_by_cached_key(|n| {
        let key: Vec<(String, u64)> = natural(n.name).into_iter().map(|(d, t)| (t, d)).collect();
        (key, n.name.to_owned())
    });
    nodes
}

fn read_node<'a>(input: &Input<'a>, name: &'a str) -> Node<'a> {
    let configured = input.cib.node(name);
    let transient = input.status.nodes.get(name).map(|s| &s.attrs);
    let view = input.nodes.get(name);
    let mut node = Node {
        name,
        id: configured.map_or(0, |c| c.id),
        kind: NodeKind::Cluster,
        online: view.is_some_and(|v| v.online),
        clean: view.is_none_or(|v| v.clean),
        pending: view.is_some_and(|v| v.pending),
        standby: false,
        maintenance: false,
        leaving: false,
        fence: input.pacemaker.and_then(|p| p.fence.get(name).cloned()),
        unseen: false,
        reset: false,
        was_fenced: false,
        discovery: true,
        read: false,
        permanent: configured.map(|c| &c.attributes),
        capacity: configured.map(|c| &c.utilization),
        transient,
        load: 0,
    };
    let on = |name: &str| node.attribute(name).and_then(parse_bool).unwrap_or(false);
    let leaving = node.attribute("shutdown").is_some_and(|v| v != "0");
    // Of a node without a state Pacemaker reads no attributes; it is away in any case.
    let told = node.online
        || input.pacemaker.is_none_or(|p| p.records.iter().any(|seen| seen.name == name));
    let standby = told && on("standby") || (leaving && input.pacemaker.is_none());
    node.maintenance = told && on("maintenance");
    node.standby = standby;
    node.leaving = leaving;
    node
}

/// Where in the tree a resource is.
pub(super) struct Context<'a> {
    /// Attribute sets of the parents, nearest first, then `rsc_defaults`.
    pub(super) metas: Chain<'a>,
    params: Chain<'a>,
    pub(super) parent: Option<RscIx>,
    clone: Option<RscIx>,
    number: u32,
    cloned: bool,
    promotable: bool,
}

impl<'a> Context<'a> {
    fn top(input: &Input<'a>) -> Self {
        Self::of(input.cib)
    }

    fn of(cib: &'a crate::cib::Cib) -> Self {
        Self {
            metas: vec![&cib.rsc_defaults],
            params: Vec::new(),
            parent: None,
            clone: None,
            number: 0,
            cloned: false,
            promotable: false,
        }
    }

    pub(super) fn metas_with(&self, own: &'a crate::cib::NvSet) -> Chain<'a> {
        std::iter::once(own).chain(self.metas.iter().copied()).collect()
    }

    fn params_with(&self, own: &'a crate::cib::NvSet) -> Chain<'a> {
        std::iter::once(own).chain(self.params.iter().copied()).collect()
    }

    pub(super) fn below(&self, metas: Chain<'a>, params: Chain<'a>) -> Self {
        Self {
            metas,
            params,
            parent: self.parent,
            clone: self.clone,
            number: self.number,
            cloned: self.cloned,
            promotable: self.promotable,
        }
    }
}

/// Makes the model; what is recorded of resources that are not configured, or of more instances than wanted, adds to it.
pub(super) struct Builder<'a> {
    pub(super) model: Model<'a>,
    pub(super) implicit: &'a Implicit,
    /// Primitives by label, as Pacemaker names them.
    pub(super) labels: BTreeMap<String, RscIx>,
    /// What the histories say, by primitive id, then node.
    findings: BTreeMap<String, Vec<Finding>>,
    /// What live migrations left behind, by primitive id.
    moves: BTreeMap<String, Moves>,
}

impl<'a> Builder<'a> {
    /// Reads the histories of all primitives of a resource.
    fn find(&mut self, resource: &'a Resource, at: &Context<'a>, input: &Input<'a>) {
        match resource {
            Resource::Primitive(p) => self.find_history(p, at, input),
            Resource::Group(g) => {
                let inner = at.below(at.metas_with(&g.meta), at.params_with(&g.params));
                for member in &g.members {
                    self.find_history(member, &inner, input);
                }
            }
            Resource::Clone(c) => {
                let mut inner = at.below(at.metas_with(&c.meta), at.params_with(&c.params));
                inner.cloned = true;
                inner.promotable = c.promotable();
                self.find(&c.child, &inner, input);
            }
            // Our own nodes run no containers.
            Resource::Bundle(_) => {}
        }
    }

    fn find_history(&mut self, prim: &'a Primitive, at: &Context<'a>, input: &Input<'a>) {
        let key = &prim.id;
        let meta = meta::resolve(&at.metas_with(&prim.meta), at.cloned, &self.model.props);
        let params = params::instance_attributes(&at.params_with(&prim.params));
        let wanted = Wanted { prim, meta: &meta, params: &params, promotable: at.promotable };
        let reader = Reader {
            props: &self.model.props,
            op_defaults: &input.cib.op_defaults,
            now_ms: input.now_ms,
        };
        let mut out = Vec::with_capacity(self.model.nodes.len());
        for (n, node) in self.model.nodes.iter().enumerate() {
            let history: Option<&ResourceHistory> =
                input.status.nodes.get(node.name).and_then(|s| s.resources.get(key));
            out.push(if node.online && node.fence.is_none() {
                reader.read(n, wanted, history)
            } else if node.clean {
                Finding::default()
            } else {
                let mut finding = reader.read(n, wanted, history);
                finding.unknown = false;
                if let Some(seen) = &mut finding.seen {
                    seen.blocked = true;
                    finding.note = Some((
                        "unclean",
                        "the node is lost and it is not confirmed that it runs nothing".to_owned(),
                    ));
                }
                finding
            });
        }
        let moves = moves::read(&self.model.nodes, input.status, key, &mut out);
        self.moves.insert(key.to_owned(), moves);
        self.findings.insert(key.to_owned(), out);
    }

    fn add(&mut self, resource: &'a Resource, at: &Context<'a>) -> RscIx {
        match resource {
            Resource::Primitive(p) => self.add_primitive(p, at),
            Resource::Group(g) => {
                let metas = at.metas_with(&g.meta);
                // A clone around it has an `ordered` of another meaning; only Pacemaker takes that for the group's.
                let own = [&g.meta];
                let chain = if self.model.props.exact { metas.as_slice() } else { &own };
                let flag = |name| meta::lookup(chain, name).and_then(parse_bool).unwrap_or(true);
                let (ordered, colocated) = (flag("ordered"), flag("collocated"));
                let kind = Kind::Group { ordered, colocated };
                let group = self.push(&g.id, kind, None, &metas, at);
                let mut inner = at.below(metas, at.params_with(&g.params));
                inner.parent = Some(group);
                for member in &g.members {
                    let child = self.add_primitive(member, &inner);
                    self.model.rscs[group].children.push(child);
                }
                group
            }
            Resource::Clone(c) => self.add_clone(c, at),
            Resource::Bundle(b) => self.add_bundle(b, at),
        }
    }

    pub(super) fn add_clone(
        &mut self,
        c: &'a crate::cib::CloneResource,
        at: &Context<'a>,
    ) -> RscIx {
        let metas = at.metas_with(&c.meta);
        let exact = self.model.props.exact;
        let info = meta::clone_info(&metas, c.promotable(), self.model.nodes.len(), exact);
        let max = info.max;
        let clone = self.push(&c.id, Kind::Clone(info), None, &metas, at);
        let mut prims = Vec::new();
        c.child.collect_primitives(&mut prims);
        self.model.rscs[clone].cloned = Some(c.child.id());
        let active = if exact { Vec::new() } else { self.active_nodes(&prims, max) };
        // Histories need one instance at least, to find the clone by.
        let count = if exact { max.max(1) } else { max.max(active.len()) };
        for number in 0..count {
            let instance = self.add_instance(c, clone, number, at);
            self.model.rscs[instance].surplus = number >= max;
            if let Some(node) = active.get(number) {
                self.claim(instance, *node);
            }
        }
        clone
    }

    fn add_instance(
        &mut self,
        c: &'a crate::cib::CloneResource,
        clone: RscIx,
        number: usize,
        at: &Context<'a>,
    ) -> RscIx {
        let mut inner = at.below(at.metas_with(&c.meta), at.params_with(&c.params));
        inner.parent = Some(clone);
        inner.clone = Some(clone);
        inner.number = u32::try_from(number).unwrap_or(u32::MAX);
        inner.cloned = true;
        inner.promotable = c.promotable();
        let instance = self.add(&c.child, &inner);
        self.model.rscs[clone].children.push(instance);
        instance
    }

    /// One more instance than wanted, for a history that no other one takes; its member `id`.
    pub(super) fn grow(&mut self, clone: RscIx, id: &str) -> RscIx {
        let cib = self.model.cib;
        let number = self.model.rscs[clone].children.len();
        let Some(Resource::Clone(c)) = cib.resource(self.model.rscs[clone].id) else {
            return self.model.leaves(clone).first().copied().unwrap_or(clone);
        };
        let instance = self.add_instance(c, clone, number, &Context::of(cib));
        self.model.rscs[instance].surplus = true;
        let leaves = self.model.leaves(instance);
        leaves.into_iter().find(|l| self.model.rscs[*l].id == id).unwrap_or(instance)
    }

    /// Something that runs on our nodes and is not configured any more: one resource, wherever it is active.
    fn add_left_over(&mut self, removed: &'a Removed, input: &Input<'a>) {
        let prim = &removed.primitive;
        let mut top = Context::top(input);
        top.cloned = removed.cloned;
        top.promotable = removed.promotable;
        self.find_history(prim, &top, input);
        let metas = top.metas_with(&prim.meta);
        let r = self.push(&prim.id, Kind::Primitive, Some(prim), &metas, &top);
        self.model.instances.entry(&prim.id).or_default().push(r);
        self.model.rscs[r].removed = true;
        let seen = self.findings.get(&prim.id).into_iter().flatten().filter_map(|f| f.seen);
        self.model.rscs[r].active = seen.collect();
        self.model.tops.push(r);
    }

    /// Something that is recorded and not configured any more.
    pub(super) fn add_removed(&mut self, id: &'a str, agent: &'a crate::cib::AgentName) -> RscIx {
        let top = Context::of(self.model.cib);
        let r = self.push(id, Kind::Primitive, None, &top.metas, &top);
        self.labels.insert(id.to_owned(), r);
        let props = self.model.props.clone();
        let rsc = &mut self.model.rscs[r];
        rsc.removed = true;
        rsc.agent = Some(agent);
        meta::agent_defaults(&mut rsc.meta, &top.metas, agent, &props);
        self.model.tops.push(r);
        if super::implicit::is_connection(agent) {
            super::implicit::tie(&mut self.model, r);
        }
        r
    }

    /// Something that is not configured any more lived inside of something.
    pub(super) fn live_in(&mut self, r: RscIx, container: &str) {
        let Some(container) = self.labels.get(container).copied() else { return };
        self.model.rscs[r].container = Some(container);
        self.model.rscs[container].fillers.push(r);
        if self.model.rscs[r].connection_of.is_some() {
            super::implicit::tie(&mut self.model, r);
        }
    }

    /// Nodes where any of the primitives is active; promoted ones first when there are too many.
    fn active_nodes(&self, prims: &[&'a Primitive], max: usize) -> Vec<NodeIx> {
        let role_on = |n: NodeIx| {
            let seen = prims.iter().filter_map(|p| self.findings.get(&p.id));
            seen.filter_map(|f| f[n].seen.map(|s| s.role)).max()
        };
        let mut found: Vec<(Role, NodeIx)> =
            (0..self.model.nodes.len()).filter_map(|n| role_on(n).map(|r| (r, n))).collect();
        if found.len() > max {
            found.sort_by_key(|(role, n)| (std::cmp::Reverse(*role), *n));
        }
        found.into_iter().map(|(_, n)| n).collect()
    }

    /// The instance is the one that runs on the node.
    fn claim(&mut self, instance: RscIx, node: NodeIx) {
        for leaf in self.model.leaves(instance) {
            let id = self.model.rscs[leaf].id;
            if let Some(seen) = self.findings.get(id).and_then(|f| f[node].seen) {
                self.model.rscs[leaf].active.push(seen);
            }
        }
    }

    pub(super) fn add_primitive(&mut self, prim: &'a Primitive, at: &Context<'a>) -> RscIx {
        let metas = at.metas_with(&prim.meta);
        let r = self.push(&prim.id, Kind::Primitive, Some(prim), &metas, at);
        self.model.instances.entry(&prim.id).or_default().push(r);
        let label = self.model.label(r);
        self.labels.insert(label, r);
        if let Some(findings) = self.findings.get(&prim.id) {
            for (n, finding) in findings.iter().enumerate() {
                if at.clone.is_none() {
                    self.model.rscs[r].active.extend(finding.seen);
                }
                if at.number == 0 && finding.unknown && self.model.nodes[n].online {
                    self.model.probes.push((r, n));
                }
            }
        }
        if let Some(moves) = self.moves.remove(&prim.id).filter(|_| at.clone.is_none()) {
            let rsc = &mut self.model.rscs[r];
            rsc.now.partial = moves.partial;
            rsc.now.no_migration =
                !moves.left.is_empty() || rsc.active.iter().any(|seen| seen.changed);
            rsc.now.dangling = moves.left;
        }
        r
    }

    pub(super) fn push(
        &mut self,
        id: &'a str,
        kind: Kind,
        prim: Option<&'a Primitive>,
        metas: &[&'a crate::cib::NvSet],
        at: &Context<'a>,
    ) -> RscIx {
        let r = self.model.rscs.len();
        let cloned = at.cloned || matches!(kind, Kind::Clone(_));
        let agent = prim.map(|p| &p.agent);
        let mut meta = meta::resolve(metas, cloned, &self.model.props);
        if let Some(agent) = agent {
            meta::agent_defaults(&mut meta, metas, agent, &self.model.props);
        }
        self.model.by_id.entry(id).or_insert(r);
        self.model.rscs.push(Rsc {
            id,
            number: at.number,
            kind,
            parent: at.parent,
            children: Vec::new(),
            clone: at.clone,
            prim,
            agent,
            cloned: None,
            removed: false,
            frozen: false,
            no_promotion: false,
            now: super::model::Now::default(),
            connection_of: None,
            container: None,
            fillers: Vec::new(),
            nests: false,
            reconnect_ms: 0,
            bundle: None,
            meta,
            active: Vec::new(),
            surplus: false,
            scores: Scores::new(self.model.nodes.len(), r, &self.model.voices.changes),
            no_probe: BTreeSet::new(),
            promoted_scores: Vec::new(),
            located: Vec::new(),
            opted_in: Vec::new(),
            rank: Score::ZERO,
            promotion: Score::ZERO,
            assigned_score: Score::ZERO,
            done: false,
            assigning: false,
            merging: false,
            assigned: None,
            next_role: Role::Stopped,
        });
        r
    }

    /// Bans and reasons that the histories ask for.
    fn note_findings(&mut self) {
        let findings = std::mem::take(&mut self.findings);
        for (id, by_node) in findings {
            let rscs = self.model.instances.get(id.as_str()).cloned().unwrap_or_default();
            let Some(first) = rscs.first().copied() else { continue };
            for (n, finding) in by_node.into_iter().enumerate() {
                if let Some((code, text)) = finding.note {
                    self.model.because(first, Some(n), code, text);
                }
                let how = match finding.seen {
                    Some(seen) if seen.changed => Some("changed"),
                    Some(seen) if seen.reload => Some("reload"),
                    Some(_) | None => None,
                };
                if let Some(code) = how {
                    let text = "its parameters are not those it was started with".to_owned();
                    self.model.because(first, Some(n), code, text);
                }
                if let Some(text) = finding.fence {
                    let name = self.model.nodes[n].name;
                    self.model.fences.entry(name).or_insert(text);
                }
                if let Some(text) = finding.standby {
                    self.model.because(first, Some(n), "standby", text);
                    self.model.nodes[n].standby = true;
                }
                if let Some((code, text)) = finding.ban {
                    let reason = self.model.because(first, Some(n), code, text);
                    reason.scored(Score::NEG_INF);
                    for r in &rscs {
                        self.model.rscs[*r].scores[n] = Score::NEG_INF;
                    }
                    if let Some(clone) = self.model.rscs[first].clone {
                        self.model.rscs[clone].scores[n] = Score::NEG_INF;
                    }
                }
            }
        }
    }
}

/// Resources that status knows and the configuration does not.
fn orphans(model: &mut Model<'_>, input: &Input<'_>) {
    for (name, status) in &input.status.nodes {
        for (id, history) in &status.resources {
            let active = history.role.is_some_and(|r| r != Role::Stopped);
            if active && !model.by_id.contains_key(id.as_str()) {
                model.reasons.push(super::Reason {
                    resource: id.clone(),
                    node: Some(name.clone()),
                    code: "orphan".to_owned(),
                    text: "active but not configured: its agent is not known any more, so it is left alone".to_owned(),
                    score: None,
                    by: None,
                });
            }
        }
    }
}
