//! What `crm status` shows, as data: nodes and a tree of resources, made from one [`StatusReply`]. Both renderings read this.

use crm_core::cib::{Cib, CloneResource, NvSet, Primitive, Resource, Role, parse_bool};
use crm_core::plan::ActionKind;
use crm_core::status::{ExecStatus, OpResult};
use crm_proto::local::{Mode, StatusReply};
use jiff::tz::TimeZone;
use std::collections::{BTreeMap, BTreeSet};

/// The whole picture.
#[derive(Debug)]
pub(crate) struct Picture<'a> {
    /// What it was made from.
    pub(crate) reply: &'a StatusReply,
    /// Nodes, by name.
    pub(crate) nodes: Vec<NodeRow>,
    /// Top-level resources in document order.
    pub(crate) resources: Vec<Tree<'a>>,
    /// Failures not yet cured, by node.
    pub(crate) failures: Vec<(&'a str, &'a OpResult)>,
    /// Fail counts that are not zero.
    pub(crate) counts: Vec<FailCount<'a>>,
}

/// One node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NodeRow {
    /// Name.
    pub(crate) name: String,
    /// Numeric id.
    pub(crate) id: u64,
    /// What it is, in one word.
    pub(crate) state: NodeState,
    /// Standby by its attribute.
    pub(crate) standby: bool,
    /// Maintenance by its attribute.
    pub(crate) maintenance: bool,
    /// Leads the planning ("DC").
    pub(crate) leader: bool,
    /// Active resource instances on it.
    pub(crate) running: usize,
}

/// Whether a node is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NodeState {
    /// Heartbeats arrive and its status is current.
    Online,
    /// Heartbeats arrive, its status is not known yet.
    Pending,
    /// Silent, but its resources still count as running there.
    Unclean,
    /// Gone.
    Offline,
}

/// A fail count of a resource on a node.
#[derive(Debug)]
pub(crate) struct FailCount<'a> {
    /// Node.
    pub(crate) node: &'a str,
    /// Primitive id.
    pub(crate) resource: &'a str,
    /// `migration-threshold` in force, as written.
    pub(crate) threshold: &'a str,
    /// Failures counted; infinity after a failed start.
    pub(crate) count: u32,
    /// A start failed.
    pub(crate) fatal: bool,
    /// Wall clock of the last one.
    pub(crate) last_ms: u64,
}

/// A primitive and where it runs.
#[derive(Debug)]
pub(crate) struct Prim<'a> {
    /// The primitive.
    pub(crate) primitive: &'a Primitive,
    /// Nodes it is active on, with role.
    pub(crate) active: Vec<(String, Role)>,
    /// Nodes where its last failure is not cured.
    pub(crate) failed: BTreeSet<String>,
    /// Flags that it inherits.
    pub(crate) flags: Flags,
    /// Role it is to have, as written.
    pub(crate) target_role: Option<&'a str>,
    /// It is not configured any more.
    pub(crate) orphaned: bool,
}

/// What the configuration says about a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Flags {
    /// `target-role` is Stopped.
    pub(crate) disabled: bool,
    /// `is-managed` is not false.
    pub(crate) managed: bool,
    /// `maintenance` is true.
    pub(crate) maintenance: bool,
}

/// A top-level resource.
#[derive(Debug)]
pub(crate) enum Tree<'a> {
    /// A primitive.
    Prim(Prim<'a>),
    /// A group.
    Group(GroupRow<'a>),
    /// A clone.
    Clone(CloneRow<'a>),
}

/// A group.
#[derive(Debug)]
pub(crate) struct GroupRow<'a> {
    /// Id.
    pub(crate) id: &'a str,
    /// Flags of the group itself.
    pub(crate) flags: Flags,
    /// Members in order.
    pub(crate) members: Vec<Prim<'a>>,
}

/// A clone.
#[derive(Debug)]
pub(crate) struct CloneRow<'a> {
    /// The clone.
    pub(crate) clone: &'a CloneResource,
    /// Flags of the clone itself.
    pub(crate) flags: Flags,
    /// Primitives of its child: one, or a group's members.
    pub(crate) members: Vec<Prim<'a>>,
    /// Instances it has (`clone-max`, default one per node).
    pub(crate) instances: usize,
}

impl<'a> Picture<'a> {
    /// Makes the picture.
    pub(crate) fn new(reply: &'a StatusReply) -> Self {
        let cib = &reply.state.cib;
        let mut resources: Vec<Tree<'a>> = cib.resources.iter().map(|r| tree(reply, r)).collect();
        for left in reply.state.status.removed.values() {
            let p = &left.primitive;
            let row = prim(reply, p, &[&p.meta], left.promotable);
            resources.push(Tree::Prim(Prim { orphaned: true, ..row }));
        }
        let mut running: BTreeMap<&str, usize> = BTreeMap::new();
        for prim in resources.iter().flat_map(Tree::prims) {
            for (node, _) in &prim.active {
                *running.entry(node.as_str()).or_default() += 1;
            }
        }
        let nodes = node_rows(reply, &running);
        let mut failures = Vec::new();
        let mut counts = Vec::new();
        for (node, status) in &reply.state.status.nodes {
            for (resource, history) in &status.resources {
                let counted = history.last_failure.as_ref().filter(|_| history.fail_count > 0);
                let failure = history.failure.as_ref().or(counted);
                failures.extend(failure.map(|f| (node.as_str(), f)));
                if history.fail_count > 0 {
                    counts.push(FailCount {
                        node,
                        resource,
                        threshold: threshold(cib, resource),
                        count: history.fail_count,
                        fatal: history.start_failed,
                        last_ms: history.last_failure_ms,
                    });
                }
            }
        }
        Self { reply, nodes, resources, failures, counts }
    }

    /// Resource instances configured, and how many of them are disabled.
    pub(crate) fn instances(&self) -> (usize, usize) {
        let mut all = 0;
        let mut disabled = 0;
        for top in &self.resources {
            let (count, per) = match top {
                Tree::Prim(_) => (1, 1),
                Tree::Group(g) => (g.members.len(), 1),
                Tree::Clone(c) => (c.members.len() * c.instances, c.instances),
            };
            all += count;
            disabled += per * top.prims().filter(|p| p.flags.disabled).count();
        }
        (all, disabled)
    }

    /// Actions still to do that run something.
    pub(crate) fn pending(&self) -> usize {
        let real = |kind: &ActionKind| match kind {
            ActionKind::Op(_) | ActionKind::CancelMonitor { .. } => true,
            ActionKind::Cluster(_) | ActionKind::Pseudo { .. } => false,
        };
        self.reply.plan.actions.iter().filter(|a| real(&a.kind)).count()
    }

    /// Value of a cluster property.
    pub(crate) fn property(&self, name: &str) -> Option<&'a str> {
        self.reply.state.cib.properties.get(name)
    }

    /// Value of a boolean cluster property.
    pub(crate) fn flag(&self, name: &str, default: bool) -> bool {
        self.property(name).and_then(parse_bool).unwrap_or(default)
    }

    /// What a person must know before anything else, loudest first.
    pub(crate) fn alarms(&self, zone: &TimeZone) -> Vec<String> {
        let me = &self.reply.me;
        let mut out = Vec::new();
        match self.reply.mode {
            Mode::Alone => out.push(format!(
                "ALONE: {me} has lost its peer and runs on from its last state; the configuration is read-only until the peer is back or confirmed off"
            )),
            Mode::NoQuorum => out.push(format!(
                "NO QUORUM: {me} has no majority and may not run resources (no-quorum-policy={})",
                self.property("no-quorum-policy").unwrap_or("stop")
            )),
            Mode::Joining => out.push(format!("JOINING: {me} has not found the others yet")),
            Mode::Leader | Mode::Follower => {}
        }
        if let Some(disarmed) = self.reply.state.disarmed_at(self.reply.now_ms) {
            out.push(crate::admin::words(disarmed, zone));
        }
        if let Some(waiting) = &self.reply.waiting {
            out.push(format!("WAITING: {waiting}"));
        }
        // One that is dead, or has one link only, is named for that elsewhere.
        let several =
            self.reply.nodes.iter().filter(|(_, line)| line.alive && line.links.len() > 1);
        for (name, line) in several {
            let down = line.links.iter().filter(|link| !link.up).map(|link| link.address.as_str());
            let down: Vec<&str> = down.collect();
            if !down.is_empty() {
                out.push(format!("LINK DOWN: {me} to {name} at {}", down.join(", ")));
            }
        }
        out
    }
}

impl<'a> Tree<'a> {
    /// Every primitive in it.
    pub(crate) fn prims(&self) -> std::slice::Iter<'_, Prim<'a>> {
        match self {
            Self::Prim(p) => std::slice::from_ref(p).iter(),
            Self::Group(g) => g.members.iter(),
            Self::Clone(c) => c.members.iter(),
        }
    }

    /// Its id.
    pub(crate) fn id(&self) -> &'a str {
        match self {
            Self::Prim(p) => &p.primitive.id,
            Self::Group(g) => g.id,
            Self::Clone(c) => &c.clone.id,
        }
    }
}

impl CloneRow<'_> {
    /// Nodes where every member is active, with the lowest of their roles.
    pub(crate) fn whole(&self) -> Vec<(String, Role)> {
        let Some((first, rest)) = self.members.split_first() else { return Vec::new() };
        let mut out = Vec::new();
        for (node, role) in &first.active {
            let others: Option<Vec<Role>> = rest.iter().map(|p| p.role_on(node)).collect();
            if let Some(others) = others {
                out.push((node.clone(), others.into_iter().fold(*role, Role::min)));
            }
        }
        out
    }

    /// Nodes where something of it is active.
    pub(crate) fn touched(&self) -> BTreeSet<&str> {
        self.members.iter().flat_map(|p| p.active.iter().map(|(n, _)| n.as_str())).collect()
    }
}

impl Prim<'_> {
    /// Its role on a node, when it is active there.
    pub(crate) fn role_on(&self, node: &str) -> Option<Role> {
        self.active.iter().find(|(n, _)| n == node).map(|(_, role)| *role)
    }
}

/// Pacemaker's word for a role.
pub(crate) const fn role_word(role: Role) -> &'static str {
    match role {
        Role::Stopped => "Stopped",
        Role::Started => "Started",
        Role::Unpromoted => "Unpromoted",
        Role::Promoted => "Promoted",
    }
}

/// Pacemaker's words for an OCF exit code.
pub(crate) const fn rc_word(code: i32) -> &'static str {
    match code {
        0 => "ok",
        1 => "error",
        2 => "invalid parameter",
        3 => "unimplemented feature",
        4 => "insufficient privileges",
        5 => "not installed",
        6 => "not configured",
        7 => "not running",
        8 => "promoted",
        9 => "promoted (failed)",
        190 => "degraded",
        191 => "promoted (degraded)",
        _ => "unknown",
    }
}

/// Pacemaker's words for how an execution ended.
pub(crate) const fn exec_word(status: ExecStatus) -> &'static str {
    match status {
        ExecStatus::Complete => "complete",
        ExecStatus::Timeout => "Timed Out",
        ExecStatus::NotInstalled => "Not installed",
        ExecStatus::Cancelled => "Cancelled",
    }
}

fn node_rows(reply: &StatusReply, running: &BTreeMap<&str, usize>) -> Vec<NodeRow> {
    let cib = &reply.state.cib;
    let mut names: BTreeSet<&str> = cib.nodes.iter().map(|n| n.name.as_str()).collect();
    names.extend(reply.nodes.keys().map(String::as_str));
    let mut rows: Vec<NodeRow> = names
        .into_iter()
        .map(|name| {
            let seen = reply.nodes.get(name);
            let flag = |key| cib.node(name).and_then(|n| n.attributes.flag(key)).unwrap_or(false);
            let count = running.get(name).copied().unwrap_or(0);
            NodeRow {
                name: name.to_owned(),
                id: cib.node(name).map_or(0, |n| n.id),
                state: match seen.map(|n| (n.alive, n.online)) {
                    Some((true, true)) => NodeState::Online,
                    Some((true, false)) => NodeState::Pending,
                    Some((false, true)) => NodeState::Unclean,
                    Some((false, false)) | None => NodeState::Offline,
                },
                standby: flag("standby") || seen.is_some_and(|n| n.standby),
                maintenance: flag("maintenance"),
                leader: reply.leader.as_deref() == Some(name),
                running: count,
            }
        })
        .collect();
    rows.sort_by(|a, b| a.name.cmp(&b.name));
    rows
}

fn tree<'a>(reply: &'a StatusReply, resource: &'a Resource) -> Tree<'a> {
    match resource {
        Resource::Primitive(p) => Tree::Prim(prim(reply, p, &[&p.meta], false)),
        Resource::Group(g) => Tree::Group(GroupRow {
            id: &g.id,
            flags: flags(reply, &[&g.meta]),
            members: g.members.iter().map(|p| prim(reply, p, &[&p.meta, &g.meta], false)).collect(),
        }),
        // Our nodes run no containers: what is inside of a bundle is shown as what is known of it.
        Resource::Bundle(b) => Tree::Group(GroupRow {
            id: &b.id,
            flags: flags(reply, &[&b.meta]),
            members: b
                .child
                .iter()
                .map(|p| prim(reply, p, &[&p.meta, &b.meta], b.promotable()))
                .collect(),
        }),
        Resource::Clone(c) => {
            let promotable = c.promotable();
            let mut members = Vec::new();
            let mut child: &'a Resource = &c.child;
            while let Resource::Clone(inner) = child {
                child = &inner.child;
            }
            match child {
                Resource::Primitive(p) => {
                    members.push(prim(reply, p, &[&p.meta, &c.meta], promotable));
                }
                Resource::Group(g) => members.extend(
                    g.members
                        .iter()
                        .map(|p| prim(reply, p, &[&p.meta, &g.meta, &c.meta], promotable)),
                ),
                // A clone is never of these.
                Resource::Clone(_) | Resource::Bundle(_) => {}
            }
            let nodes = reply.state.cib.nodes.len();
            let max = c.meta.get("clone-max").and_then(|v| v.parse().ok()).unwrap_or(nodes);
            let per_node =
                c.meta.get("clone-node-max").and_then(|v| v.parse().ok()).unwrap_or(1_usize);
            Tree::Clone(CloneRow {
                clone: c,
                flags: flags(reply, &[&c.meta]),
                members,
                instances: max.min(nodes.max(1).saturating_mul(per_node)),
            })
        }
    }
}

fn prim<'a>(
    reply: &'a StatusReply,
    primitive: &'a Primitive,
    chain: &[&'a NvSet],
    promotable: bool,
) -> Prim<'a> {
    let mut active = active_on(reply, &primitive.id);
    for (_, role) in &mut active {
        if promotable && *role == Role::Started {
            *role = Role::Unpromoted;
        }
    }
    let failed_on = |(node, status): (&String, &crm_core::status::NodeStatus)| {
        let history = status.resources.get(&primitive.id)?;
        history.failure.is_some().then(|| node.clone())
    };
    Prim {
        primitive,
        active,
        failed: reply.state.status.nodes.iter().filter_map(failed_on).collect(),
        flags: flags(reply, chain),
        target_role: lookup(reply, chain, "target-role"),
        orphaned: false,
    }
}

/// Where a primitive is active: as the plan found it; without a plan, from the histories of the nodes that are there.
fn active_on(reply: &StatusReply, id: &str) -> Vec<(String, Role)> {
    let mut out: BTreeMap<String, Role> = BTreeMap::new();
    let mut planned = false;
    for placement in reply.plan.placements.iter().filter(|p| p.instance.resource == id) {
        planned = true;
        for (node, role) in &placement.now {
            let best = out.entry(node.clone()).or_insert(*role);
            *best = (*best).max(*role);
        }
    }
    if !planned {
        for (node, status) in &reply.state.status.nodes {
            let there = reply.nodes.get(node).is_some_and(|n| n.online || n.alive);
            let role = status.resources.get(id).and_then(|h| h.role);
            if let (true, Some(role)) = (there, role) {
                out.insert(node.clone(), role);
            }
        }
    }
    out.into_iter().filter(|(_, role)| *role != Role::Stopped).collect()
}

fn lookup<'a>(reply: &'a StatusReply, chain: &[&'a NvSet], name: &str) -> Option<&'a str> {
    let own = chain.iter().find_map(|set| set.get(name));
    own.or_else(|| reply.state.cib.rsc_defaults.get(name))
}

fn flags(reply: &StatusReply, chain: &[&NvSet]) -> Flags {
    let find = |name: &str| {
        let own = chain.iter().find_map(|set| set.get(name));
        own.or_else(|| reply.state.cib.rsc_defaults.get(name))
    };
    let yes = |name: &str, default| find(name).and_then(parse_bool).unwrap_or(default);
    Flags {
        disabled: find("target-role").is_some_and(|r| r.eq_ignore_ascii_case("stopped")),
        managed: yes("is-managed", true),
        maintenance: yes("maintenance", false),
    }
}

fn threshold<'a>(cib: &'a Cib, primitive: &str) -> &'a str {
    let own = cib.primitive(primitive).and_then(|p| p.meta.get("migration-threshold"));
    own.or_else(|| cib.top_of(primitive).and_then(|r| r.meta().get("migration-threshold")))
        .or_else(|| cib.rsc_defaults.get("migration-threshold"))
        .unwrap_or("1000000")
}
