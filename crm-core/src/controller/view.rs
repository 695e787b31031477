//! What the planner is shown: the replicated state, corrected by what this node knows better.

use super::{Controller, Mode};
use crate::cib::{Node, NvSet};
use crate::plan::{Input, NodeView, Plan, plan};
use crate::status::NodeStatus;
use crate::store::{Disarmed, State};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

impl Controller {
    /// Membership's view of `node` for planning.
    pub(super) fn node_view(&self, node: &str) -> NodeView {
        let leaderless = matches!(self.mode, Mode::Alone | Mode::NoQuorum | Mode::Joining);
        if node == self.me {
            return if leaderless || self.synced(node, self.session) {
                NodeView::ONLINE
            } else {
                NodeView::PENDING
            };
        }
        let heard = self.peers.get(node).copied().unwrap_or_default();
        if heard.alive && !leaderless && self.synced(node, heard.session) {
            return NodeView::ONLINE;
        }
        if self.alive(node) {
            // It lives, by its heartbeats or by its data plane, and what it runs is not known now. Nothing of it may be taken over.
            return NodeView::PENDING;
        }
        let never_seen = self.state.status.nodes.get(node).is_none_or(|n| n.session == 0);
        let unheard = self.peers.get(node).is_none_or(|p| p.session == 0);
        let spared = unheard && self.state.cib.properties.flag("startup-fencing") == Some(false);
        let harmless = spared || never_seen || !self.fencing_wanted() || self.is_fenced(node);
        if harmless { NodeView::GONE } else { NodeView::LOST }
    }

    pub(super) fn synced(&self, node: &str, session: u64) -> bool {
        session != 0
            && self.state.status.nodes.get(node).is_some_and(|status| status.session == session)
    }

    /// The replicated state with this node's own status, the newest volume records, and no promotion score for replicas that are behind.
    /// Without the revisions: nothing that is decided needs them, and they are most of the bytes.
    pub(super) fn local_state(&self) -> State {
        let mut state = State {
            cluster_name: self.state.cluster_name.clone(),
            cluster_uuid: self.state.cluster_uuid.clone(),
            members: self.state.members.clone(),
            cib: Arc::clone(&self.state.cib),
            version: self.state.version,
            status: self.state.status.clone(),
            volumes: self.state.volumes.clone(),
            fencing: self.state.fencing.clone(),
            departed: self.state.departed.clone(),
            certificates: self.state.certificates.clone(),
            revoked: BTreeSet::new(),
            builds: self.state.builds.clone(),
            level: self.state.level,
            #[cfg(feature = "pretend-next")]
            mark: self.state.mark.clone(),
            disarmed: self.state.disarmed.clone(),
            revisions: Vec::new(),
        };
        if !self.leadership.quorate || !self.published {
            state.status.nodes.insert(self.me.clone(), self.own.status.clone());
        }
        for (node, session) in &self.gone {
            if state.status.nodes.get(node).is_some_and(|s| s.session == *session) {
                state.status.replace(node, NodeStatus::default());
            }
        }
        for (name, record) in &self.volumes.local_records {
            let known = state.volumes.entry(name.clone()).or_default();
            if record.epoch > known.epoch {
                *known = record.clone();
            }
        }
        self.withhold_scores(&mut state);
        if self.disarmed().is_some() {
            Arc::make_mut(&mut state.cib).properties.set("maintenance-mode", "true");
        }
        if self.expelled.is_some() {
            self.plan_for_the_expelled(&mut state);
        } else if self.leadership.stale {
            Arc::make_mut(&mut state.cib).properties.set("no-quorum-policy", "stop");
        } else if self.mode == Mode::NoQuorum && self.carried() {
            // The votes are here, and nobody who could decide for all: what runs here goes on, and nothing is begun that may run elsewhere.
            Arc::make_mut(&mut state.cib).properties.set("no-quorum-policy", "freeze");
        } else if state.members.len() > 2
            && state.cib.properties.get("no-quorum-policy") == Some("ignore")
        {
            // Three and more nodes have a majority to rely on; a minority that ignores it would be a second cluster (docs/compat.md).
            Arc::make_mut(&mut state.cib).properties.set("no-quorum-policy", "stop");
        } else if self.mode == Mode::NoQuorum
            && !self.outvoted()
            && state.members.len() == 2
            && (self.fencing_wanted()
                || state.cib.properties.get("no-quorum-policy") == Some("ignore"))
        {
            // The other of two lives and cannot be asked: what runs here goes on, and nothing is begun that may run there.
            Arc::make_mut(&mut state.cib).properties.set("no-quorum-policy", "freeze");
        }
        state
    }

    /// Whoever was removed stops all it runs: the others may have begun it elsewhere.
    fn plan_for_the_expelled(&self, state: &mut State) {
        Arc::make_mut(&mut state.cib).properties.set("no-quorum-policy", "stop");
        Arc::make_mut(&mut state.cib).properties.set("maintenance-mode", "false");
        if state.cib.node(&self.me).is_none() {
            let (attributes, utilization) = (NvSet::default(), NvSet::default());
            let id = state.cib.nodes.iter().map(|n| n.id).max().unwrap_or(0) + 1;
            Arc::make_mut(&mut state.cib).nodes.push(Node {
                id,
                name: self.me.clone(),
                attributes,
                utilization,
            });
        }
    }

    /// The cluster keeps its hands off for now. Only where somebody decides for the cluster: a node without a quorum cannot know whether it
    /// has been armed again, and does what `no-quorum-policy` says.
    pub(super) fn disarmed(&self) -> Option<&Disarmed> {
        let decides = matches!(self.mode, Mode::Leader | Mode::Follower | Mode::Alone);
        self.state.disarmed_at(self.wall_ms).filter(|_| decides)
    }

    /// Makes the plan for the present moment.
    pub(super) fn make_plan(&self) -> Plan {
        let mut state = self.local_state();
        if self.mode == Mode::NoQuorum {
            // Only what runs here counts: what the log had of the others may be long over.
            state.status.nodes.retain(|node, _| *node == self.me);
        }
        if !self.relied_upon().is_empty() {
            // As Pacemaker sets it: there is something to fence with.
            Arc::make_mut(&mut state.cib).properties.set("have-watchdog", "true");
        }
        state.status.removed = self.state.removed(&state.cib, &state.status);
        let nodes: BTreeMap<String, NodeView> =
            state.cib.nodes.iter().map(|n| (n.name.clone(), self.node_view(&n.name))).collect();
        let alone = matches!(self.mode, Mode::Alone | Mode::NoQuorum | Mode::Joining);
        plan(&Input {
            cib: &state.cib,
            status: &state.status,
            nodes: &nodes,
            quorate: matches!(self.mode, Mode::Leader | Mode::Follower | Mode::Alone)
                && !self.outvoted(),
            only: alone.then_some(self.me.as_str()),
            now_ms: self.wall_ms,
            pacemaker: None,
        })
    }
}
