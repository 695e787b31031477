//! What the reading of histories notes in the model: who is active, banned, to be fenced, and how often it failed.

use super::model::{Kind, Model, MultipleActive, NoQuorum, NodeIx, NodeKind, RscIx, Seen};
use crate::cib::{Role, Score};
use crate::lrm::OpRecord;
use std::collections::BTreeMap;

/// Failures of a name on a node: how many, and when the last one was (milliseconds).
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Count {
    count: u32,
    last_ms: u64,
}

/// Failures counted on a node, by resource name with and without instance number.
#[derive(Debug, Default)]
pub(super) struct Failures {
    exact: BTreeMap<String, Count>,
    alike: BTreeMap<String, Count>,
}

const INFINITE: u32 = 1_000_000;

impl Failures {
    /// `fail-count-RSC#op_interval` or `fail-count-RSC`, and the times of the last failures.
    pub(super) fn of(attrs: &BTreeMap<String, String>) -> Self {
        let mut out = Self::default();
        for (name, value) in attrs {
            let count = name.strip_prefix("fail-count-");
            let Some(rest) = count.or_else(|| name.strip_prefix("last-failure-")) else { continue };
            let id = rest.split('#').next().unwrap_or_default();
            let mut entry = Count::default();
            if count.is_some() {
                let infinite = value.eq_ignore_ascii_case("INFINITY");
                entry.count = if infinite { INFINITE } else { value.parse().unwrap_or(0) };
            } else {
                entry.last_ms = value.parse::<u64>().unwrap_or(0).saturating_mul(1000);
            }
            let base = match id.rsplit_once(':') {
                Some((base, number)) if number.parse::<u32>().is_ok() => base,
                Some(_) | None => id,
            };
            for (map, key) in [(&mut out.exact, id), (&mut out.alike, base)] {
                let known = map.entry(key.to_owned()).or_default();
                known.count = known.count.saturating_add(entry.count).min(INFINITE);
                known.last_ms = known.last_ms.max(entry.last_ms);
            }
        }
        out
    }
}

impl<'a> Model<'a> {
    pub(super) fn node_named(&self, name: &str) -> Option<NodeIx> {
        self.nodes.iter().position(|n| n.name == name)
    }

    /// An instance that has its own number everywhere.
    pub(super) fn unique(&self, r: RscIx) -> bool {
        let info = self.rscs[r].clone.and_then(|c| self.rscs[c].clone_info());
        info.is_some_and(|i| i.globally_unique)
    }

    /// The role of something that runs and of which nothing else is known.
    pub(super) fn active_role(&self, r: RscIx) -> Role {
        let promotable = self.rscs[r].clone.is_some_and(|c| self.rscs[c].promotable());
        if promotable { Role::Unpromoted } else { Role::Started }
    }

    /// Whom a ban concerns: instances that are alike go together.
    pub(super) fn collective(&self, r: RscIx) -> RscIx {
        if self.unique(r) || self.rscs[r].clone.is_none() { r } else { self.top(r) }
    }

    /// The clone of instances that are alike, else the resource itself.
    pub(super) fn collective_of_instances(&self, r: RscIx) -> RscIx {
        match self.rscs[r].clone {
            Some(clone) if !self.unique(r) => clone,
            Some(_) | None => r,
        }
    }

    /// It must not run there (`None`: nowhere).
    pub(super) fn ban(&mut self, r: RscIx, node: Option<NodeIx>, code: &'static str, text: String) {
        self.because(r, node, code, text).scored(Score::NEG_INF);
        self.bans.push((r, node));
    }

    /// Its failures there are to be forgotten.
    pub(super) fn clear_failures(&mut self, r: RscIx, n: NodeIx, why: &'static str) {
        if !self.clears.iter().any(|(rsc, node)| (*rsc, *node) == (r, n)) {
            self.because(r, Some(n), "failed", format!("its failures are forgotten: {why}"));
            self.clears.push((r, n));
        }
    }

    /// There is a history of it on the node.
    pub(super) fn note_known(&mut self, r: RscIx, n: NodeIx) {
        self.rscs[r].now.known.insert(n);
    }

    /// It is active there, and so is what it belongs to; of what is out of our hands that is only said where the node is there, and once
    /// for each member.
    pub(super) fn add_running(&mut self, r: RscIx, n: NodeIx) {
        if self.rscs[r].active.iter().any(|a| a.node == n) {
            return;
        }
        self.rscs[r].active.push(Seen::plain(n, Role::Started, false));
        if !self.movable(r) {
            self.rscs[r].now.loose.push(n);
            let mut at = self.rscs[r].parent.filter(|_| self.nodes[n].online);
            while let Some(parent) = at {
                self.rscs[parent].now.places.push(n);
                at = self.rscs[parent].parent;
            }
            return;
        }
        let patient = self.rscs[r].meta.needs_fencing;
        let counts = |n: NodeIx| patient || (self.nodes[n].online && self.nodes[n].clean);
        if self.rscs[r].active.iter().filter(|a| counts(a.node)).count() > 1 {
            self.found_again(r);
        }
        let mut at = r;
        while let Some(parent) = self.rscs[at].parent {
            let places = &mut self.rscs[parent].now.places;
            if places.contains(&n) {
                return;
            }
            places.push(n);
            at = parent;
            if !self.managed(at) {
                return;
            }
        }
    }

    /// What is active more than once: it is not started again after it has been stopped (`stop_only`), or its whole group is not touched (`block`).
    pub(super) fn found_again(&mut self, r: RscIx) {
        match self.rscs[r].meta.multiple_active {
            MultipleActive::StopOnly => self.rscs[r].scores.fill(Score::NEG_INF),
            MultipleActive::Block => {
                self.rscs[r].now.held = true;
                let parent = self.rscs[r].parent.map(|p| &self.rscs[p]);
                let group = parent.filter(|p| {
                    matches!(p.kind, Kind::Group { .. })
                        && p.meta.multiple_active == MultipleActive::Block
                });
                for member in group.map(|g| g.children.clone()).unwrap_or_default() {
                    self.rscs[member].now.held = true;
                }
            }
            MultipleActive::StopStart | MultipleActive::StopUnexpected => {}
        }
    }

    /// Where it counts as active as a whole.
    pub(super) fn places(&self, r: RscIx) -> Vec<NodeIx> {
        let primitive = matches!(self.rscs[r].kind, Kind::Primitive);
        if self.props.exact && !primitive {
            return self.rscs[r].now.places.clone();
        }
        let leaves = self.leaves(r);
        leaves.iter().flat_map(|l| self.rscs[*l].active.iter().map(|a| a.node)).collect()
    }

    /// Can what runs on the node be cut off?
    pub(super) fn can_fence(&self, n: NodeIx) -> bool {
        if let NodeKind::Guest { container, .. } = self.nodes[n].kind {
            // A guest is cut off by stopping what it lives in.
            let hosts = &self.rscs[container].active;
            return hosts.iter().all(|a| self.nodes[a.node].online || self.can_fence(a.node));
        }
        self.props.fencing
            && self.props.fence_device
            && (self.quorate || self.props.no_quorum == NoQuorum::Ignore || self.nodes[n].online)
    }

    /// The node is to be fenced: a guest by the recovery of what it lives in.
    pub(super) fn fence_node(&mut self, n: NodeIx, why: &str) {
        match self.nodes[n].kind {
            NodeKind::Guest { container, .. } => {
                if self.rscs[container].now.failed || !self.managed(container) {
                    return;
                }
                // The node stays usable: what is recovered can run there again at once.
                self.nodes[n].reset = true;
                self.fail(container);
                let text = format!("recovered instead of fencing {}: {why}", self.nodes[n].name);
                self.because(container, None, "failed", text);
            }
            NodeKind::Remote { connection } => {
                if self.managed(connection) {
                    self.nodes[n].reset = true;
                }
                self.nodes[n].clean = false;
                self.nodes[n].fence.get_or_insert_with(|| why.to_owned());
            }
            NodeKind::Cluster => {
                self.nodes[n].clean = false;
                self.nodes[n].fence.get_or_insert_with(|| why.to_owned());
            }
        }
    }

    /// It is to be recovered.
    pub(super) fn fail(&mut self, r: RscIx) {
        self.rscs[r].now.failed = true;
        for seen in &mut self.rscs[r].active {
            seen.failed = true;
        }
    }

    fn counted(&self, r: RscIx, n: NodeIx) -> Count {
        let Some(failures) = self.failures.get(n) else { return Count::default() };
        let id = self.key(r);
        let found = if self.unique(r) || self.rscs[r].clone.is_none() {
            failures.exact.get(&id)
        } else {
            failures.alike.get(self.rscs[r].id)
        };
        found.copied().unwrap_or_default()
    }

    /// How often it failed there.
    pub(super) fn fail_count(&self, r: RscIx, n: NodeIx) -> u32 {
        self.counted(r, n).count
    }

    /// The same without failures that are long enough ago.
    pub(super) fn fresh_fail_count(&self, r: RscIx, n: NodeIx, now_ms: u64) -> u32 {
        let Count { count, last_ms } = self.counted(r, n);
        let timeout = self.rscs[r].meta.failure_timeout_ms;
        let old = timeout > 0 && last_ms > 0 && now_ms > last_ms.saturating_add(timeout);
        if old && !self.blocking(r, n) { 0 } else { count }
    }

    /// A failure with `on-fail=block` does not go away with time.
    fn blocking(&self, r: RscIx, n: NodeIx) -> bool {
        let Some(prim) = self.rscs[r].prim else { return false };
        let told = self.rscs[r].now.records.iter().filter(|told| told.node == n);
        let all: Vec<&OpRecord> = told.flat_map(|told| told.ops.iter().copied()).collect();
        let failed = |o: &&&OpRecord| o.expected_rc != Some(o.rc);
        prim.ops.iter().filter(|op| op.attrs.get("on-fail") == Some("block")).any(|op| {
            let same = |o: &&OpRecord| o.op == op.name && o.interval_ms == op.interval_ms();
            all.iter().filter(failed).any(same)
        })
    }

    /// What ran on a node that is shut down stays there (`shutdown-lock`).
    pub(super) fn shutdown_locks(&mut self) {
        if self.props.shutdown_lock_ms.is_none() {
            return;
        }
        for r in 0..self.rscs.len() {
            let rsc = &self.rscs[r];
            let device = rsc.agent.is_some_and(|a| a.class == "stonith");
            let single = matches!(rsc.kind, Kind::Primitive) && rsc.clone.is_none();
            if !single || device || rsc.connection_of.is_some() {
                continue;
            }
            let lock = match (rsc.now.lock, rsc.active.as_slice()) {
                (Some(lock), []) => Some(lock),
                (Some(lock), _) => {
                    // It was started elsewhere all the same.
                    self.forgets.push((r, lock));
                    None
                }
                (None, [one]) => {
                    let node = &self.nodes[one.node];
                    (node.leaving && node.clean).then_some(one.node)
                }
                (None, _) => None,
            };
            self.rscs[r].now.lock = lock;
            let Some(lock) = lock else { continue };
            let home = self.nodes[lock].name;
            for n in (0..self.nodes.len()).filter(|n| *n != lock) {
                let text = format!("it waits for {home}, which was shut down (shutdown-lock)");
                self.ban(r, Some(n), "shutdown-lock", text);
            }
        }
    }

    /// Bans for failing too often. What failed inside of it counts too.
    pub(super) fn thresholds(&mut self, now_ms: u64) {
        for r in 0..self.rscs.len() {
            let rsc = &self.rscs[r];
            let limit = rsc.meta.migration_threshold;
            if !matches!(rsc.kind, Kind::Primitive) || limit == 0 || rsc.now.failures_ignored {
                continue;
            }
            for n in 0..self.nodes.len() {
                let inner = self.rscs[r].fillers.iter().filter(|_| !self.bundled(r));
                let inner: u32 = inner.map(|f| self.fresh_fail_count(*f, n, now_ms)).sum();
                let count = self.fresh_fail_count(r, n, now_ms).saturating_add(inner);
                if count == 0 || count < limit || self.clears.contains(&(r, n)) {
                    continue;
                }
                let text = format!("fail count {count} has reached migration-threshold {limit}");
                let collective = self.collective(r);
                self.ban(collective, Some(n), "migration-threshold", text);
            }
        }
    }
}

/// What a node has recorded under one name.
#[derive(Debug, Clone)]
pub(super) struct Told<'a> {
    pub(super) node: NodeIx,
    /// The name, which may be that of another instance.
    pub(super) id: &'a str,
    /// Oldest first.
    pub(super) ops: Vec<&'a OpRecord>,
    /// Positions of the last start and the last stop.
    pub(super) span: (Option<usize>, Option<usize>),
}
