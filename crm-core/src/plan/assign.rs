//! Phase 7: every primitive gets its node, or none.

use super::model::{ColocIx, Kind, Model, NoQuorum, NodeIx, RscIx, Strategy};
use super::seats::merge_sort;
use super::{Habit, ScorePhase};
use crate::cib::{Role, Score};
use std::cmp::{Ordering, Reverse};

impl Model<'_> {
    /// Places everything, most important first; connections to remote nodes before what may run there.
    pub(super) fn assign_all(&mut self) {
        let mut order = self.tops.clone();
        order.sort_by_key(|r| Reverse(self.rscs[*r].meta.priority));
        if self.counts_capacity() {
            self.fill_capacities();
            self.sort_by_hold(&mut order);
        }
        // A node that is reached over a connection can be used when it is known that the connection will be up.
        let (connections, rest): (Vec<_>, Vec<_>) =
            order.into_iter().partition(|r| self.rscs[*r].connection_of.is_some());
        for r in connections {
            // One that is under way goes on to where it was going.
            let target = self.rscs[r].now.partial.map(|(_, to)| to);
            self.assign(r, target);
        }
        for r in rest {
            self.assign(r, None);
        }
        // While instances were placed their order was the order of preference.
        for rsc in &mut self.rscs {
            rsc.children.sort_unstable();
        }
    }

    /// Places a resource and all it is made of. Returns the node, of a group its first member's.
    pub(super) fn assign(&mut self, r: RscIx, prefer: Option<NodeIx>) -> Option<NodeIx> {
        if let Some(parent) = self.rscs[r].parent
            && !self.rscs[parent].assigning
            && !self.rscs[parent].done
        {
            self.assign(parent, prefer);
        }
        if self.rscs[r].done || self.rscs[r].assigning {
            return self.rscs[r].assigned;
        }
        self.rscs[r].assigning = true;
        match self.rscs[r].kind.clone() {
            Kind::Primitive => self.assign_primitive(r, prefer),
            Kind::Group { colocated, .. } => self.assign_group(r, colocated, prefer),
            Kind::Clone(info) => {
                self.assign_clone(r, &info);
                self.assign_replicas(r);
            }
        }
        self.rscs[r].assigning = false;
        self.rscs[r].assigned
    }

    fn assign_group(&mut self, r: RscIx, colocated: bool, prefer: Option<NodeIx>) {
        self.note_scores(ScorePhase::Group, r);
        let mut first = None;
        for member in self.rscs[r].children.clone() {
            let node = self.assign(member, prefer);
            first = first.or(node);
        }
        self.rscs[r].done = true;
        self.rscs[r].assigned = first.filter(|_| colocated);
    }

    fn assign_primitive(&mut self, r: RscIx, prefer: Option<NodeIx>) {
        let this_with = self.this_with_list(r);
        let with_this = self.with_this_list(r);
        let one_go = self.habit(Habit::OneGo);
        self.voices.promoters.clear();
        for mandatory in [true, false] {
            let now = |s: &Self, ix: usize| {
                if one_go { mandatory } else { s.colocs[ix].score.is_infinite() == mandatory }
            };
            for ix in &this_with {
                if now(self, *ix) {
                    self.follow(r, *ix);
                }
            }
            for ix in &with_this {
                if now(self, *ix) {
                    self.take_preferences(r, *ix);
                }
            }
            if mandatory {
                self.keep_promotable(r);
            }
        }
        let stop = self.must_stop(r);
        if stop.is_some() || self.rscs[r].done {
            // It is to be stopped, or a colocation has left it no place.
            self.rscs[r].scores.fill(Score::NEG_INF);
        }
        self.note_scores(ScorePhase::Primitive, r);
        if self.props.exact && self.props.fencing && !self.props.fence_device {
            // Pacemaker touches nothing as long as it could not fence.
            self.rscs[r].frozen = true;
        }
        if !self.movable(r) {
            let node = self.stay(r);
            self.settle(r, node);
        } else if self.rscs[r].done {
            // A colocation has decided already.
        } else if let Some((code, text)) = stop {
            self.because(r, None, code, text);
            self.settle(r, None);
        } else {
            let node = self.best_node(r, prefer);
            self.settle(r, node);
        }
    }

    /// Places what `r` follows, then lets that decide.
    fn follow(&mut self, r: RscIx, ix: ColocIx) {
        let c = self.colocs[ix];
        let wish = c.score < Score::ZERO && !c.score.is_infinite();
        let before =
            (wish || c.dependent_role == Some(Role::Promoted)).then(|| self.rscs[r].scores.clone());
        self.assign(c.primary, None);
        self.apply_colocation(r, c.primary, ix);
        if let Some(before) = before
            && !self.any_available(&self.rscs[r].scores)
        {
            *self.rscs[r].scores = before;
        }
    }

    /// The node it is active on; of several one that is up and clean, if what is lost need not be fenced.
    pub(super) fn current_node(&self, r: RscIx) -> Option<NodeIx> {
        let active = self.places(r);
        let first = active.first().copied()?;
        if let Some((from, _)) = self.rscs[r].now.partial.filter(|(from, _)| active.contains(from))
        {
            return Some(from);
        }
        let up = |n: &NodeIx| {
            let node = &self.nodes[*n];
            node.online && node.clean && node.fence.is_none()
        };
        let patient = self.rscs[r].meta.needs_fencing;
        Some(active.iter().copied().find(up).filter(|_| !patient).unwrap_or(first))
    }

    /// Not to be touched: it is where it is.
    fn stay(&mut self, r: RscIx) -> Option<NodeIx> {
        let node = self.current_node(r);
        let rsc = &self.rscs[r];
        if !rsc.blocked() {
            let unarmed = self.props.exact && self.props.fencing && !self.props.fence_device;
            let (code, text) = if unarmed {
                ("no-fencing", "fencing is on (stonith-enabled) and there is no fence device")
            } else if rsc.frozen {
                ("ticket", "its ticket is lost and it is to stay as it is (loss-policy=freeze)")
            } else if self.props.maintenance_mode || rsc.meta.is_managed {
                ("maintenance", "not managed: left as it is")
            } else {
                ("unmanaged", "not managed: left as it is")
            };
            self.because(r, node, code, text.to_owned());
        } else if rsc.active.len() > 1 {
            let text = "active on several nodes and multiple-active=block".to_owned();
            self.because(r, node, "multiple-active", text);
        }
        node
    }

    fn must_stop(&self, r: RscIx) -> Option<(&'static str, String)> {
        let rsc = &self.rscs[r];
        if self.props.stop_all {
            return Some(("stop-all-resources", "stop-all-resources is on".to_owned()));
        }
        if rsc.removed {
            return Some(("orphan", "it is not configured any more".to_owned()));
        }
        if rsc.meta.target_role == Some(Role::Stopped) {
            return Some(("target-role", "target-role is Stopped".to_owned()));
        }
        if rsc.surplus || rsc.parent.is_some_and(|p| self.rscs[p].surplus) {
            return Some(("clone-max", "more instances are active than clone-max".to_owned()));
        }
        if rsc.active.iter().any(|a| a.halt) || rsc.now.preset == Some(Role::Stopped) {
            return Some(("failed", "failed and on-fail=stop".to_owned()));
        }
        let quorum_ends_it = matches!(self.props.no_quorum, NoQuorum::Stop | NoQuorum::Suicide);
        if !self.quorate && !self.props.exact && quorum_ends_it {
            let policy = if self.props.no_quorum == NoQuorum::Stop { "stop" } else { "suicide" };
            return Some(("no-quorum", format!("no quorum and no-quorum-policy={policy}")));
        }
        None
    }

    fn best_node(&mut self, r: RscIx, prefer: Option<NodeIx>) -> Option<NodeIx> {
        if let Some(inside) = self.own_inside(r).filter(|n| self.rscs[r].scores[*n] >= Score::ZERO)
        {
            // Its node comes up with its container, or neither does.
            return Some(inside);
        }
        let roomiest = self.ban_full_nodes(r);
        let here = self.current_node(r);
        let rsc = &self.rscs[r];
        let scores = &rsc.scores;
        let usable = |n: NodeIx| self.nodes[n].available() && scores[n] >= Score::ZERO;
        let sorted = self.sorted_nodes(scores, here);
        let best = sorted.first().copied();
        let preferred = prefer
            .or(roomiest)
            .filter(|n| usable(*n) && best.is_some_and(|b| scores[*n] >= scores[b]));
        // A guest may come up yet: then what is to run there waits for it.
        let guest =
            |n: NodeIx| self.nodes[n].kind.container().is_some() && scores[n] >= Score::ZERO;
        let chosen = preferred.or(best).filter(|n| usable(*n) || guest(*n));
        let Some(mut chosen) = chosen else {
            self.explain_nowhere(r);
            return None;
        };
        // What would be equally well off elsewhere stays. Instances that differ have been kept where they are before.
        let unique = rsc
            .parent
            .is_some_and(|p| self.rscs[p].clone_info().is_some_and(|info| info.globally_unique));
        if let Some(here) = here
            && preferred.is_none()
            && !unique
            && scores[chosen] > Score::ZERO
            && usable(here)
            && scores[here] == scores[chosen]
        {
            chosen = here;
        }
        let score = scores[chosen];
        let text = format!("score {score} is the best");
        self.because(r, Some(chosen), "chosen", text).scored(score);
        Some(chosen)
    }

    /// Nodes from the best to the worst for something with these scores that is now on `here`.
    pub(super) fn sorted_nodes(&self, scores: &[Score], here: Option<NodeIx>) -> Vec<NodeIx> {
        let nodes: Vec<NodeIx> = (0..self.nodes.len()).collect();
        // Free capacities of different kinds compare in a ring.
        merge_sort(&nodes, &|a, b| self.compare_nodes(*a, *b, scores, here))
    }

    fn compare_nodes(
        &self,
        a: NodeIx,
        b: NodeIx,
        scores: &[Score],
        here: Option<NodeIx>,
    ) -> Ordering {
        let worth = |n: NodeIx| if self.nodes[n].available() { scores[n] } else { Score::NEG_INF };
        let better = worth(b).cmp(&worth(a));
        let by_name = || self.nodes[a].name.cmp(self.nodes[b].name);
        if self.props.strategy == Strategy::Minimal {
            // As few nodes as possible: nothing is to be spread.
            return better.then_with(by_name);
        }
        better
            .then_with(|| self.emptier(a, b))
            .then_with(|| self.nodes[a].load.cmp(&self.nodes[b].load))
            .then_with(|| (here == Some(b)).cmp(&(here == Some(a))))
            .then_with(by_name)
    }

    fn explain_nowhere(&mut self, r: RscIx) {
        for n in 0..self.nodes.len() {
            let node = &self.nodes[n];
            let (code, text) = if !node.online {
                ("offline", "the node is offline".to_owned())
            } else if let Some(why) = &node.fence {
                ("fence", format!("the node is to be fenced: {why}"))
            } else if !node.clean || node.pending {
                ("pending", "the node has not told yet what it runs".to_owned())
            } else if node.leaving {
                ("shutdown", "the node is shutting down".to_owned())
            } else if node.standby {
                ("standby", "the node is in standby".to_owned())
            } else if node.maintenance {
                ("maintenance", "the node is in maintenance".to_owned())
            } else {
                ("score", format!("score {} forbids it", self.rscs[r].scores[n]))
            };
            self.because(r, Some(n), code, text);
        }
    }

    /// Records a placement; promotable instances get their role later.
    pub(super) fn settle(&mut self, r: RscIx, node: Option<NodeIx>) {
        self.unassign(r);
        let promotable = self.rscs[r].clone.is_some_and(|c| self.rscs[c].promotable());
        let current = self.rscs[r].active.iter().map(|a| a.role).max();
        let movable = self.movable(r);
        let rsc = &mut self.rscs[r];
        rsc.done = true;
        rsc.assigned = node;
        rsc.assigned_score = node.map_or(Score::ZERO, |n| rsc.scores[n]);
        rsc.next_role = match (node, promotable) {
            (None, _) => Role::Stopped,
            (Some(_), _) if !movable => current.unwrap_or(Role::Stopped),
            (Some(_), true) => Role::Unpromoted,
            (Some(_), false) => Role::Started,
        };
        if let Some(n) = node {
            self.nodes[n].load += 1;
            self.take_capacity(r, n, 1);
        }
        if let Some(n) = self.rscs[r].connection_of {
            self.connection_assigned(r, n);
        }
    }

    /// Takes a placement back.
    pub(super) fn unassign(&mut self, r: RscIx) {
        self.rscs[r].done = false;
        if matches!(self.rscs[r].kind, Kind::Primitive)
            && let Some(n) = self.rscs[r].assigned.take()
        {
            self.nodes[n].load -= 1;
            self.take_capacity(r, n, -1);
        }
        self.rscs[r].assigned = None;
        for child in self.rscs[r].children.clone() {
            self.unassign(child);
        }
    }
}
