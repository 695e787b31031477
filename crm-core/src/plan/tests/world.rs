//! A cluster in memory: executes plans against a true state, writes results into status as nodes do.

use crate::cib::{
    AgentName, Cib, CloneResource, Colocation, Constraint, Group, Location, LocationTarget, Node,
    Nv, NvSet, Op, Order, OrderAction, OrderKind, Primitive, Resource, Role, Score,
};
use crate::plan::{ActionKind, Input, NodeView, OpSpec, Plan, plan};
use crate::status::{ExecStatus, NodeStatus, OpResult, Status, rc};
use std::collections::{BTreeMap, BTreeSet};

pub(super) fn nv(pairs: &[(&str, &str)]) -> NvSet {
    let pairs = pairs.iter().map(|(n, v)| Nv { name: (*n).into(), value: Some((*v).into()) });
    NvSet { id: None, pairs: pairs.collect() }
}

pub(super) fn prim(
    id: &str,
    params: &[(&str, &str)],
    ops: &[(&str, &[(&str, &str)])],
) -> Primitive {
    Primitive {
        id: id.into(),
        agent: AgentName {
            class: "ocf".into(),
            provider: Some("crm".into()),
            kind: "Dummy".into(),
        },
        description: None,
        params: nv(params),
        meta: NvSet::default(),
        utilization: NvSet::default(),
        layout: Vec::new(),
        ops: ops.iter().map(|(n, a)| Op { name: (*n).into(), attrs: nv(a) }).collect(),
    }
}

pub(super) fn dummy(id: &str) -> Resource {
    Resource::Primitive(prim(id, &[], &[("monitor", &[("interval", "10s")])]))
}

pub(super) fn group(id: &str, members: Vec<Primitive>) -> Resource {
    let (params, meta) = (NvSet::default(), NvSet::default());
    Resource::Group(Group { id: id.into(), description: None, members, params, meta })
}

pub(super) fn clone(id: &str, child: Resource, ms: bool, meta: &[(&str, &str)]) -> Resource {
    Resource::Clone(CloneResource {
        id: id.into(),
        description: None,
        child: Box::new(child),
        ms,
        params: NvSet::default(),
        meta: nv(meta),
    })
}

pub(super) fn location(id: &str, rsc: &str, score: Score, node: &str) -> Constraint {
    Constraint::Location(Location {
        id: id.into(),
        target: LocationTarget::Resource(rsc.into()),
        score,
        node: node.into(),
        role: None,
        discovery: None,
    })
}

pub(super) type WithRole<'a> = (&'a str, Option<Role>);

pub(super) fn colocation(id: &str, score: Score, a: WithRole<'_>, b: WithRole<'_>) -> Constraint {
    Constraint::Colocation(Colocation {
        id: id.into(),
        score,
        rsc: a.0.into(),
        rsc_role: a.1,
        with: b.0.into(),
        with_role: b.1,
        node_attribute: None,
        influence: None,
        sets: Vec::new(),
    })
}

pub(super) type WithAction<'a> = (&'a str, Option<OrderAction>);

pub(super) fn order(id: &str, kind: OrderKind, a: WithAction<'_>, b: WithAction<'_>) -> Constraint {
    Constraint::Order(Order {
        id: id.into(),
        kind,
        first: a.0.into(),
        first_action: a.1,
        then: b.0.into(),
        then_action: b.1,
        symmetrical: None,
        sets: Vec::new(),
    })
}

#[derive(Debug, Clone)]
pub(super) struct World {
    pub(super) cib: Cib,
    pub(super) status: Status,
    pub(super) nodes: BTreeMap<String, NodeView>,
    pub(super) quorate: bool,
    pub(super) now_ms: u64,
    /// What really runs: (node, primitive) → role.
    pub(super) truth: BTreeMap<(String, String), Role>,
    /// `(node, resource, op)` that fail with this code.
    pub(super) broken: BTreeMap<(String, String, String), i32>,
    calls: u64,
}

impl World {
    pub(super) fn new(names: &[&str], cib: Cib) -> Self {
        let mut cib = cib;
        let numbered = names.iter().zip(1..);
        cib.nodes = numbered
            .map(|(name, id)| Node {
                id,
                name: (*name).into(),
                attributes: NvSet::default(),
                utilization: NvSet::default(),
            })
            .collect();
        let view = NodeView::ONLINE;
        Self {
            cib,
            status: Status {
                nodes: names.iter().map(|n| ((*n).into(), NodeStatus::default())).collect(),
                ..Status::default()
            },
            nodes: names.iter().map(|n| ((*n).into(), view)).collect(),
            quorate: true,
            now_ms: 1_000_000,
            truth: BTreeMap::new(),
            broken: BTreeMap::new(),
            calls: 0,
        }
    }

    pub(super) fn plan_only(&self, only: Option<&str>) -> Plan {
        plan(&Input {
            cib: &self.cib,
            status: &self.status,
            nodes: &self.nodes,
            quorate: self.quorate,
            only,
            now_ms: self.now_ms,
            pacemaker: None,
        })
    }

    pub(super) fn plan(&self) -> Plan {
        self.plan_only(None)
    }

    fn promotable(&self, id: &str) -> bool {
        match self.cib.top_of(id) {
            Some(Resource::Clone(c)) => c.promotable(),
            Some(Resource::Primitive(_) | Resource::Group(_) | Resource::Bundle(_)) | None => false,
        }
    }

    /// Runs what can be run; returns the operations in the order of execution, monitors left out.
    pub(super) fn execute(&mut self, plan: &Plan) -> Vec<String> {
        let mut done = vec![false; plan.actions.len()];
        let mut failed = vec![false; plan.actions.len()];
        let mut log = Vec::new();
        for (i, action) in plan.actions.iter().enumerate() {
            for need in &action.needs {
                let need = usize::try_from(need.0).unwrap();
                assert!(need < i, "ids are a topological order");
                failed[i] |= failed[need];
                assert!(done[need] || failed[need], "an input was passed over");
            }
            if failed[i] {
                continue;
            }
            match &action.kind {
                ActionKind::Op(spec) => {
                    failed[i] = !self.operate(spec);
                    if !matches!(spec.op.as_str(), "monitor" | "notify") {
                        log.push(format!("{} {} {}", spec.op, spec.resource, spec.node));
                    }
                    self.check_single();
                }
                ActionKind::CancelMonitor { node, resource, interval_ms } => {
                    let status = self.status.nodes.get_mut(node).unwrap();
                    let history = status.resources.get_mut(resource).unwrap();
                    assert!(history.monitors.remove(interval_ms).is_some(), "cancelled what ran");
                }
                ActionKind::Cluster(_) | ActionKind::Pseudo { .. } => {}
            }
            done[i] = !failed[i];
        }
        log
    }

    fn operate(&mut self, spec: &OpSpec) -> bool {
        assert!(self.nodes[&spec.node].online, "{spec:?} on an offline node");
        let key = (spec.node.clone(), spec.resource.clone());
        let now = self.truth.get(&key).copied().unwrap_or(Role::Stopped);
        let promotable = self.promotable(&spec.resource);
        let up = if promotable { Role::Unpromoted } else { Role::Started };
        let (mut code, next) = match spec.op.as_str() {
            "start" => (rc::OK, if now == Role::Stopped { up } else { now }),
            "stop" => (rc::OK, Role::Stopped),
            "promote" => {
                assert!(now >= up, "promote of a stopped {spec:?}");
                (rc::OK, Role::Promoted)
            }
            "demote" => (rc::OK, if now == Role::Stopped { now } else { Role::Unpromoted }),
            "notify" => (rc::OK, now),
            // What leaves is on the other node from then on.
            "migrate_to" => {
                let (there, id) = (spec.peer().unwrap(), spec.resource.clone());
                let broken = (spec.node.clone(), id.clone(), spec.op.clone());
                if !self.broken.contains_key(&broken) {
                    self.truth.insert((there, id), now);
                }
                (rc::OK, Role::Stopped)
            }
            "migrate_from" => {
                assert_ne!(now, Role::Stopped, "nothing has arrived: {spec:?}");
                (rc::OK, now)
            }
            _ => match now {
                Role::Stopped => (rc::NOT_RUNNING, now),
                Role::Started | Role::Unpromoted => (rc::OK, now),
                Role::Promoted => (rc::RUNNING_PROMOTED, now),
            },
        };
        let broken = (spec.node.clone(), spec.resource.clone(), spec.op.clone());
        if let Some(rc) = self.broken.get(&broken) {
            code = *rc;
        } else {
            self.truth.insert(key, next);
        }
        self.calls += 1;
        let result = OpResult {
            resource: spec.resource.clone(),
            op: spec.op.clone(),
            interval_ms: spec.interval_ms,
            rc: code,
            expected_rc: spec.expected_rc,
            status: ExecStatus::Complete,
            reason: String::new(),
            digest: spec.digest,
            call_id: self.calls,
            when_ms: self.now_ms,
            exec_ms: 1,
            peer: spec.peer(),
        };
        if spec.op == "stop" && !result.failed() {
            self.status.arrived_in_vain(&spec.node, &spec.resource);
        }
        let status = self.status.nodes.get_mut(&spec.node).unwrap();
        let ok = result.is_told() || code == spec.expected_rc;
        if promotable && ok {
            let name = format!("master-{}", spec.resource);
            match spec.op.as_str() {
                "start" | "demote" => drop(status.attrs.insert(name, "10".into())),
                "promote" => drop(status.attrs.insert(name, "10000".into())),
                "stop" => drop(status.attrs.remove(&name)),
                _ => {}
            }
        }
        status.record(&result);
        ok
    }

    /// A primitive outside clones runs once at most, a clone has at most promoted-max promoted.
    fn check_single(&self) {
        let mut count: BTreeMap<(&str, bool), usize> = BTreeMap::new();
        for ((_, id), role) in &self.truth {
            *count.entry((id, false)).or_default() += usize::from(*role != Role::Stopped);
            *count.entry((id, true)).or_default() += usize::from(*role == Role::Promoted);
        }
        for ((id, promoted), n) in count {
            let limit = match self.cib.top_of(id) {
                Some(Resource::Clone(c)) if promoted => {
                    let max = c.meta.get("promoted-max").or_else(|| c.meta.get("master-max"));
                    max.map_or(1, |v| v.parse().unwrap())
                }
                Some(Resource::Clone(_)) => usize::MAX,
                None if self.status.removed.get(id).is_some_and(|r| r.cloned) => usize::MAX,
                Some(Resource::Primitive(_) | Resource::Group(_) | Resource::Bundle(_)) | None => 1,
            };
            assert!(n <= limit, "{id}: {n} > {limit} (promoted: {promoted}) in {:?}", self.truth);
        }
    }

    /// Plans and runs until there is nothing to do; the operations of all rounds.
    pub(super) fn settle(&mut self) -> Vec<String> {
        let mut log = Vec::new();
        for _ in 0..12 {
            let plan = self.plan();
            if plan.is_empty() {
                return log;
            }
            log.extend(self.execute(&plan));
        }
        panic!("does not settle: {:#?}", self.plan().summary);
    }

    pub(super) fn running(&self, node: &str) -> BTreeSet<String> {
        let on = self.truth.iter().filter(|((n, _), role)| n == node && **role != Role::Stopped);
        on.map(|((_, id), role)| match role {
            Role::Promoted => format!("{id}!"),
            Role::Stopped | Role::Started | Role::Unpromoted => id.clone(),
        })
        .collect()
    }

    pub(super) fn set_standby(&mut self, node: &str, on: bool) {
        let value = if on { "on" } else { "off" };
        self.cib.node_mut(node).unwrap().attributes.set("standby", value);
    }

    /// The node is gone and all it ran with it.
    pub(super) fn kill(&mut self, node: &str, clean: bool) {
        let view = if clean { NodeView::GONE } else { NodeView::LOST };
        self.nodes.insert(node.into(), view);
        self.truth.retain(|(n, _), _| n != node);
    }

    /// The node comes back with an empty status.
    pub(super) fn revive(&mut self, node: &str) {
        self.nodes.insert(node.into(), NodeView::ONLINE);
        self.status.nodes.insert(node.into(), NodeStatus::default());
    }

    /// A recurring monitor of `id` on `node` reports `code`.
    pub(super) fn report(&mut self, node: &str, id: &str, expected_rc: i32, code: i32) {
        let status = self.status.nodes.get_mut(node).unwrap();
        let interval_ms = *status.resources[id].monitors.keys().next().unwrap();
        self.calls += 1;
        let digest = status.resources[id].digest;
        status.record(&OpResult {
            resource: id.into(),
            op: "monitor".into(),
            interval_ms,
            rc: code,
            expected_rc,
            status: ExecStatus::Complete,
            reason: String::new(),
            digest,
            call_id: self.calls,
            when_ms: self.now_ms,
            exec_ms: 1,
            peer: None,
        });
    }
}

pub(super) fn names(items: &[&str]) -> BTreeSet<String> {
    items.iter().map(|s| (*s).to_owned()).collect()
}

/// Asserts that the given operations happen in this order (others may be between).
pub(super) fn assert_order(log: &[String], wanted: &[&str]) {
    let mut at = 0;
    for line in wanted {
        let found = log[at..].iter().position(|l| l == line);
        assert!(found.is_some(), "{line:?} missing after {at} in {log:#?}");
        at += found.unwrap() + 1;
    }
}

/// Seed 002 with a service address and monitors on everything.
pub(super) fn seed(full: bool) -> Cib {
    let mut cib = Cib {
        properties: nv(&[("stonith-enabled", "false"), ("no-quorum-policy", "ignore")]),
        ..Cib::default()
    };
    let drbd = prim("drbd_nfs", &[("drbd_resource", "r0")], &[("monitor", &[("interval", "15s")])]);
    let fs_ops: &[(&str, &[(&str, &str)])] = &[
        ("start", &[("interval", "0"), ("timeout", "60")]),
        ("stop", &[("interval", "0"), ("timeout", "120")]),
    ];
    let fs = prim("fs_nfs", &[("device", "/dev/drbd0"), ("directory", "/srv")], fs_ops);
    let nfs = prim("nfs", &[("nfs_ip", "nfs.mydomain.com")], &[("monitor", &[("interval", "5s")])]);
    let mut members = vec![fs, nfs];
    if full {
        members.push(prim("vip", &[("ip", "10.0.0.9")], &[("monitor", &[("interval", "5s")])]));
    }
    let mut ha = group("HA", members);
    ha.meta_mut().set("target-role", "Started");
    let meta = [
        ("master-max", "1"),
        ("master-node-max", "1"),
        ("clone-max", "2"),
        ("clone-node-max", "1"),
        ("notify", "true"),
    ];
    cib.resources = vec![ha, clone("ms_drbd_nfs", Resource::Primitive(drbd), true, &meta)];
    let start = Some(OrderAction::Start);
    cib.constraints = vec![
        order("fs-nfs-before-nfs", OrderKind::Mandatory, ("fs_nfs", start), ("nfs", start)),
        location("loc", "ms_drbd_nfs", Score::new(100), "alpha"),
        order(
            "ms-drbd-nfs-before-fs-nfs",
            OrderKind::Mandatory,
            ("ms_drbd_nfs", Some(OrderAction::Promote)),
            ("fs_nfs", start),
        ),
        colocation(
            "ms-drbd-nfs-with-ha",
            Score::INF,
            ("ms_drbd_nfs", Some(Role::Promoted)),
            ("HA", None),
        ),
    ];
    cib
}
