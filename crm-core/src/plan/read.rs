//! Phase 1: configuration and status become the dense model.

use super::Input;
use super::history::{Finding, Reader, Wanted};
use super::implicit::Implicit;
use super::meta::{self, Chain};
use super::model::{Kind, Model, Node, NodeIx, NodeKind, Rsc, RscIx};
use super::params;
use crate::cib::{Primitive, Resource, Role, Score, parse_bool};
use crate::status::ResourceHistory;
use std::collections::{BTreeMap, BTreeSet};

/// Reads everything but the constraints.
pub(super) fn read<'a>(input: &Input<'a>, implicit: &'a Implicit) -> Model<'a> {
    let mut props = meta::properties(input.cib);
    props.exact = input.pacemaker.is_some();
    let nodes = read_nodes(input, implicit);
    let mut builder = Builder {
        model: Model {
            cib: input.cib,
            status: input.status,
            quorate: input.quorate,
            pacemaker: input.pacemaker,
            props,
            nodes,
            rscs: Vec::new(),
            tops: Vec::new(),
            by_id: BTreeMap::new(),
            instances: BTreeMap::new(),
            colocs: Vec::new(),
            this_with: Vec::new(),
            with_this: Vec::new(),
            probes: Vec::new(),
            reasons: Vec::new(),
            trace: None,
        },
        findings: BTreeMap::new(),
    };
    for resource in &input.cib.resources {
        builder.find(resource, &Context::top(input), input);
    }
    for resource in &input.cib.resources {
        let top = builder.add(resource, &Context::top(input), input);
        builder.model.tops.push(top);
    }
    for prim in &implicit.connections {
        let context = Context::top(input);
        builder.find_primitive(prim, &context, input);
        let top = builder.add_primitive(prim, &context);
        builder.model.tops.push(top);
    }
    super::implicit::connect(&mut builder.model, implicit);
    if input.pacemaker.is_some() {
        builder.removed(input);
    }
    builder.note_findings();
    if input.pacemaker.is_none() {
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
        permanent: configured.map(|c| &c.attributes),
        capacity: configured.map(|c| &c.utilization),
        transient,
        load: 0,
    };
    let on = |name: &str| node.attribute(name).and_then(parse_bool).unwrap_or(false);
    let leaving = node.attribute("shutdown").is_some_and(|v| v != "0");
    let standby = on("standby") || (leaving && input.pacemaker.is_none());
    node.maintenance = on("maintenance");
    node.standby = standby;
    node.leaving = leaving;
    node
}

/// Where in the tree a resource is.
struct Context<'a> {
    /// Attribute sets of the parents, nearest first, then `rsc_defaults`.
    metas: Chain<'a>,
    params: Chain<'a>,
    parent: Option<RscIx>,
    clone: Option<RscIx>,
    number: u32,
    cloned: bool,
    promotable: bool,
    /// Inside a globally unique clone.
    unique: bool,
    /// How many instances that clone is to have.
    instances: u32,
}

impl<'a> Context<'a> {
    fn top(input: &Input<'a>) -> Self {
        Self {
            metas: vec![&input.cib.rsc_defaults],
            params: Vec::new(),
            parent: None,
            clone: None,
            number: 0,
            cloned: false,
            promotable: false,
            unique: false,
            instances: 0,
        }
    }

    fn metas_with(&self, own: &'a crate::cib::NvSet) -> Chain<'a> {
        std::iter::once(own).chain(self.metas.iter().copied()).collect()
    }

    fn params_with(&self, own: &'a crate::cib::NvSet) -> Chain<'a> {
        std::iter::once(own).chain(self.params.iter().copied()).collect()
    }

    fn below(&self, metas: Chain<'a>, params: Chain<'a>) -> Self {
        Self {
            metas,
            params,
            parent: self.parent,
            clone: self.clone,
            number: self.number,
            cloned: self.cloned,
            promotable: self.promotable,
            unique: self.unique,
            instances: self.instances,
        }
    }
}

struct Builder<'a> {
    model: Model<'a>,
    /// What the histories say, by primitive id, then node.
    findings: BTreeMap<String, Vec<Finding>>,
}

impl<'a> Builder<'a> {
    /// Reads the histories of all primitives of a resource.
    fn find(&mut self, resource: &'a Resource, at: &Context<'a>, input: &Input<'a>) {
        match resource {
            Resource::Primitive(p) => self.find_primitive(p, at, input),
            Resource::Group(g) => {
                let inner = at.below(at.metas_with(&g.meta), at.params_with(&g.params));
                for member in &g.members {
                    self.find_primitive(member, &inner, input);
                }
            }
            Resource::Clone(c) => {
                let mut inner = at.below(at.metas_with(&c.meta), at.params_with(&c.params));
                inner.cloned = true;
                inner.promotable = c.promotable();
                let nodes = self.model.nodes.len();
                let info = meta::clone_info(&inner.metas, c.promotable(), nodes, true);
                inner.unique = info.globally_unique;
                inner.instances = u32::try_from(info.max).unwrap_or(u32::MAX);
                self.find(&c.child, &inner, input);
            }
        }
    }

    /// Instances of globally unique clones have histories of their own.
    fn find_primitive(&mut self, prim: &'a Primitive, at: &Context<'a>, input: &Input<'a>) {
        if !at.unique {
            self.find_history(prim, &prim.id, at, input);
            return;
        }
        let mut numbers: BTreeSet<u32> = (0..at.instances).collect();
        for status in input.status.nodes.values() {
            let of =
                |key: &String| key.strip_prefix(&prim.id)?.strip_prefix(':')?.parse::<u32>().ok();
            numbers.extend(status.resources.keys().filter_map(of));
        }
        for number in numbers {
            self.find_history(prim, &format!("{}:{number}", prim.id), at, input);
        }
    }

    fn find_history(
        &mut self,
        prim: &'a Primitive,
        key: &str,
        at: &Context<'a>,
        input: &Input<'a>,
    ) {
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
            } else if reader.props.exact && reader.props.fencing {
                // What a node that is away ran last; it is stopped there by fencing it.
                let finding = reader.read(n, wanted, history);
                let seen = finding.seen.map(|s| super::model::Seen::plain(n, s.role, false));
                Finding { seen, ..Finding::default() }
            } else if node.clean || reader.props.exact {
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
        self.findings.insert(key.to_owned(), out);
    }

    fn add(&mut self, resource: &'a Resource, at: &Context<'a>, input: &Input<'a>) -> RscIx {
        match resource {
            Resource::Primitive(p) => self.add_primitive(p, at),
            Resource::Group(g) => {
                let metas = at.metas_with(&g.meta);
                // Only the group's own words: a clone around it has an `ordered` of another meaning.
                let ordered = g.meta.flag("ordered").unwrap_or(true);
                let colocated = g.meta.flag("collocated").unwrap_or(true);
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
            Resource::Clone(c) => self.add_clone(c, at, input),
        }
    }

    fn add_clone(
        &mut self,
        c: &'a crate::cib::CloneResource,
        at: &Context<'a>,
        input: &Input<'a>,
    ) -> RscIx {
        let metas = at.metas_with(&c.meta);
        let exact = self.model.props.exact;
        let info = meta::clone_info(&metas, c.promotable(), self.model.nodes.len(), exact);
        let (max, unique) = (info.max, info.globally_unique);
        let clone = self.push(&c.id, Kind::Clone(info), None, &metas, at);
        let mut prims = Vec::new();
        c.child.collect_primitives(&mut prims);
        self.model.rscs[clone].cloned = Some(c.child.id());
        let active = if unique { Vec::new() } else { self.active_nodes(&prims, max) };
        let count =
            if unique { self.highest_active(&prims).max(max) } else { max.max(active.len()) };
        for number in 0..count {
            let mut inner = at.below(metas.clone(), at.params_with(&c.params));
            inner.parent = Some(clone);
            inner.clone = Some(clone);
            inner.number = u32::try_from(number).unwrap_or(u32::MAX);
            inner.cloned = true;
            inner.promotable = c.promotable();
            inner.unique = unique;
            let instance = self.add(&c.child, &inner, input);
            self.model.rscs[clone].children.push(instance);
            self.model.rscs[instance].surplus = number >= max;
            if let Some(node) = active.get(number) {
                self.claim(instance, *node);
            }
        }
        clone
    }

    /// Nodes where any of the primitives is active; promoted ones first when there are too many.
    fn active_nodes(&self, prims: &[&'a Primitive], max: usize) -> Vec<NodeIx> {
        let role_on = |n: NodeIx| {
            let seen = prims.iter().filter_map(|p| self.findings.get(&p.id));
            seen.filter_map(|f| f[n].seen.map(|s| s.role)).max()
        };
        let mut found: Vec<(Role, NodeIx)> =
            (0..self.model.nodes.len()).filter_map(|n| role_on(n).map(|r| (r, n))).collect();
        if let Some(pacemaker) = self.model.pacemaker {
            let place = |n: NodeIx| {
                let name = self.model.nodes[n].name;
                pacemaker.order.iter().position(|o| o == name).unwrap_or(usize::MAX)
            };
            found.sort_by_key(|(_, n)| place(*n));
        } else if found.len() > max {
            found.sort_by_key(|(role, n)| (std::cmp::Reverse(*role), *n));
        }
        found.into_iter().map(|(_, n)| n).collect()
    }

    /// One more than the highest number of an active instance of a globally unique clone.
    fn highest_active(&self, prims: &[&'a Primitive]) -> usize {
        let number = |key: &String| {
            let of = |p: &&&Primitive| key.strip_prefix(&p.id).is_some_and(|r| r.starts_with(':'));
            prims.iter().find(of).and_then(|_| key.rsplit_once(':')?.1.parse::<usize>().ok())
        };
        let active = self.findings.iter().filter(|(_, f)| f.iter().any(|f| f.seen.is_some()));
        active.filter_map(|(key, _)| number(key)).map(|n| n + 1).max().unwrap_or(0)
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

    fn add_primitive(&mut self, prim: &'a Primitive, at: &Context<'a>) -> RscIx {
        let metas = at.metas_with(&prim.meta);
        let r = self.push(&prim.id, Kind::Primitive, Some(prim), &metas, at);
        self.model.instances.entry(&prim.id).or_default().push(r);
        let first = at.number == 0 || at.unique;
        let key = if at.unique { format!("{}:{}", prim.id, at.number) } else { prim.id.clone() };
        if let Some(findings) = self.findings.get(&key) {
            for (n, finding) in findings.iter().enumerate() {
                if at.clone.is_none() || at.unique {
                    self.model.rscs[r].active.extend(finding.seen);
                }
                if first && finding.unknown && self.model.nodes[n].online {
                    self.model.probes.push((r, n));
                }
            }
        }
        r
    }

    fn push(
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
            migrates: None,
            connection_of: None,
            container: None,
            fillers: Vec::new(),
            nests: false,
            reconnect_ms: 0,
            meta,
            active: Vec::new(),
            surplus: false,
            scores: vec![Score::ZERO; self.model.nodes.len()],
            no_probe: BTreeSet::new(),
            promoted_scores: Vec::new(),
            selective: false,
            done: false,
            assigning: false,
            merging: false,
            assigned: None,
            next_role: Role::Stopped,
        });
        r
    }

    /// What is active without being configured; it has no settings but the defaults.
    fn removed(&mut self, input: &Input<'a>) {
        let mut ids: BTreeMap<&'a str, &'a crate::cib::AgentName> = BTreeMap::new();
        for status in input.status.nodes.values() {
            for (key, history) in &status.resources {
                let known = self.findings.contains_key(key);
                if let (false, Some(agent)) = (known, &history.agent) {
                    ids.insert(key, agent);
                }
            }
        }
        for (id, agent) in ids {
            let top = Context::top(input);
            let meta = meta::resolve(&top.metas, false, &self.model.props);
            let mut any = false;
            let mut seen = Vec::new();
            for (n, node) in self.model.nodes.iter().enumerate() {
                let status = input.status.nodes.get(node.name);
                let Some(history) = status.and_then(|s| s.resources.get(id)) else { continue };
                any |= history.role.is_some() && node.online;
                if let Some(role) = history.role.filter(|r| *r != Role::Stopped && node.online) {
                    seen.push(super::model::Seen::plain(n, role, history.failure.is_some()));
                }
            }
            if !any {
                continue;
            }
            let r = self.push(id, Kind::Primitive, None, &top.metas, &top);
            let rsc = &mut self.model.rscs[r];
            rsc.removed = true;
            rsc.agent = Some(agent);
            rsc.active = seen;
            rsc.meta = meta;
            self.model.tops.push(r);
        }
    }

    /// Resources a history is about: its instance, or all that share it.
    fn of_key(&self, key: &str) -> Vec<RscIx> {
        if let Some(all) = self.model.instances.get(key) {
            return all.clone();
        }
        let Some((base, number)) = key.rsplit_once(':') else { return Vec::new() };
        let all = self.model.instances.get(base).cloned().unwrap_or_default();
        let number: Option<u32> = number.parse().ok();
        all.into_iter().filter(|r| Some(self.model.rscs[*r].number) == number).collect()
    }

    /// Bans and reasons that the histories ask for.
    fn note_findings(&mut self) {
        let findings = std::mem::take(&mut self.findings);
        for (id, by_node) in findings {
            let rscs = self.of_key(&id);
            let Some(first) = rscs.first().copied() else { continue };
            for (n, finding) in by_node.into_iter().enumerate() {
                if let Some((code, text)) = finding.note {
                    self.model.because(first, Some(n), code, text);
                }
                let held = !self.model.nodes[n].online && finding.seen.is_some();
                if held && self.model.props.exact && rscs.iter().any(|r| self.model.managed(*r)) {
                    let text = format!("{id} is thought to be active there");
                    self.model.nodes[n].fence.get_or_insert(text);
                }
                if let Some(text) = finding.fence {
                    self.model.nodes[n].fence.get_or_insert(text);
                }
                if let Some(text) = finding.standby {
                    self.model.because(first, Some(n), "standby", text);
                    self.model.nodes[n].standby = true;
                }
                if let Some((code, text)) = finding.ban {
                    self.model.because(first, Some(n), code, text);
                    for r in &rscs {
                        self.model.rscs[*r].scores[n] = Score::NEG_INF;
                    }
                    if let Some(clone) = self.model.rscs[first].clone
                        && !self.model.rscs[clone].clone_info().is_some_and(|i| i.globally_unique)
                    {
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
