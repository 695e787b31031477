//! Phase 7: every primitive gets its node, or none.

use super::ScorePhase;
use super::colocate::{Pull, factor_of};
use super::model::{CloneInfo, ColocIx, Kind, Model, MultipleActive, NoQuorum, NodeIx, RscIx};
use crate::cib::{Role, Score};
use std::cmp::Reverse;

impl Model<'_> {
    /// Places everything, most important first.
    pub(super) fn assign_all(&mut self) {
        let props = &self.props;
        self.props.hands_off = props.exact && props.fencing && !props.fence_device;
        let mut order = self.tops.clone();
        order.sort_by_key(|r| Reverse(self.rscs[*r].meta.priority));
        if self.counts_capacity() {
            self.sort_by_hold(&mut order);
        }
        // A node that is reached over a connection can be used when it is known that the connection will be up.
        for r in order
            .iter()
            .filter(|r| self.rscs[**r].connection_of.is_some())
            .copied()
            .collect::<Vec<_>>()
        {
            self.assign(r, None);
        }
        for r in order {
            self.assign(r, None);
        }
    }

    fn assign(&mut self, r: RscIx, prefer: Option<NodeIx>) {
        if self.rscs[r].done || self.rscs[r].assigning {
            return;
        }
        if let Some(parent) = self.rscs[r].parent
            && !self.rscs[parent].assigning
            && !self.rscs[parent].done
        {
            self.assign(parent, None);
            return;
        }
        self.rscs[r].assigning = true;
        match self.rscs[r].kind.clone() {
            Kind::Primitive => self.assign_primitive(r, prefer),
            Kind::Group { .. } => {
                self.note_scores(ScorePhase::Group, r);
                for member in self.rscs[r].children.clone() {
                    self.assign(member, prefer);
                }
                let first = self.rscs[r].children.first().copied();
                self.rscs[r].assigned = first.and_then(|m| self.rscs[m].assigned);
                self.rscs[r].done = true;
            }
            Kind::Clone(info) => self.assign_clone(r, &info),
        }
        self.rscs[r].assigning = false;
    }

    fn assign_primitive(&mut self, r: RscIx, prefer: Option<NodeIx>) {
        let this_with = self.this_with_list(r);
        let with_this = self.with_this_list(r);
        for mandatory in [true, false] {
            let kind = |m: &Self, c: &ColocIx| m.colocs[*c].score.is_infinite() == mandatory;
            for c in this_with.iter().filter(|c| kind(self, c)).copied().collect::<Vec<_>>() {
                self.follow(r, c);
            }
            for c in with_this.iter().filter(|c| kind(self, c)).copied().collect::<Vec<_>>() {
                self.take_preferences(r, c);
            }
        }
        if self.rscs[r].done {
            return;
        }
        self.note_scores(ScorePhase::Primitive, r);
        let chosen = self.choose_or_stay(r, prefer);
        self.settle(r, chosen);
    }

    /// Places what `r` follows, then lets that decide.
    fn follow(&mut self, r: RscIx, ix: ColocIx) {
        let c = self.colocs[ix].clone();
        self.assign(c.primary, None);
        self.apply_colocation(r, &c);
    }

    fn take_preferences(&mut self, r: RscIx, ix: ColocIx) {
        let mut work = self.rscs[r].scores.clone();
        let positive_only = matches!(self.rscs[r].kind, Kind::Clone(_));
        let pull = Pull { target: r, positive_only };
        self.pull(ix, factor_of(self.colocs[ix].score), pull, &mut work);
        self.rscs[r].scores = work;
    }

    /// `Some(node)`, or `None` = stopped.
    fn choose_or_stay(&mut self, r: RscIx, prefer: Option<NodeIx>) -> Option<NodeIx> {
        if !self.movable(r) {
            return self.stay(r);
        }
        if let Some((code, text)) = self.must_stop(r) {
            self.because(r, None, code, text);
            return None;
        }
        self.best_node(r, prefer)
    }

    /// Not to be touched: it is where it is.
    fn stay(&mut self, r: RscIx) -> Option<NodeIx> {
        let node = self.rscs[r].active.first().map(|a| a.node);
        let rsc = &self.rscs[r];
        if !rsc.blocked() {
            let code = if self.props.maintenance_mode || rsc.meta.is_managed {
                "maintenance"
            } else {
                "unmanaged"
            };
            self.because(r, node, code, "not managed: left as it is".to_owned());
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
        if rsc.surplus || self.parent_surplus(r) {
            return Some(("clone-max", "more instances are active than clone-max".to_owned()));
        }
        if rsc.active.iter().any(|a| a.halt) || rsc.now.preset == Some(Role::Stopped) {
            return Some(("failed", "failed and on-fail=stop".to_owned()));
        }
        if rsc.active.len() > 1 && rsc.meta.multiple_active == MultipleActive::StopOnly {
            return Some((
                "multiple-active",
                "active on several nodes and multiple-active=stop_only".to_owned(),
            ));
        }
        if !self.quorate
            && !self.props.exact
            && matches!(self.props.no_quorum, NoQuorum::Stop | NoQuorum::Suicide)
        {
            let policy = if self.props.no_quorum == NoQuorum::Stop { "stop" } else { "suicide" };
            return Some(("no-quorum", format!("no quorum and no-quorum-policy={policy}")));
        }
        None
    }

    fn parent_surplus(&self, r: RscIx) -> bool {
        self.rscs[r].parent.is_some_and(|p| self.rscs[p].surplus)
    }

    fn best_node(&mut self, r: RscIx, prefer: Option<NodeIx>) -> Option<NodeIx> {
        let rsc = &self.rscs[r];
        let here = |n: NodeIx| rsc.active.iter().any(|a| a.node == n);
        let room = self.counts_capacity().then(|| self.roomy(r));
        let usable = |n: &NodeIx| {
            self.nodes[*n].available()
                && rsc.scores[*n] >= Score::ZERO
                && room.as_ref().is_none_or(|room| room[*n])
        };
        let key = |n: NodeIx| {
            let node = &self.nodes[n];
            (node.load, !here(n), node.name)
        };
        let better = |a: &NodeIx, b: &NodeIx| {
            let score = rsc.scores[*b].cmp(&rsc.scores[*a]);
            score.then_with(|| self.emptier(*a, *b)).then_with(|| key(*a).cmp(&key(*b)))
        };
        let best = (0..self.nodes.len()).filter(usable).min_by(better);
        let Some(best) = best else {
            self.explain_nowhere(r);
            return None;
        };
        let chosen = match prefer {
            Some(n) if usable(&n) && rsc.scores[n] >= rsc.scores[best] => n,
            Some(_) | None => best,
        };
        let score = rsc.scores[chosen];
        let text = format!("score {score} is the best");
        self.because(r, Some(chosen), "chosen", text).scored(score);
        Some(chosen)
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
            } else if self.rscs[r].scores[n] >= Score::ZERO {
                ("capacity", "the node has not enough free capacity".to_owned())
            } else {
                ("score", format!("score {} forbids it", self.rscs[r].scores[n]))
            };
            self.because(r, Some(n), code, text);
        }
    }

    /// Records a placement; promotable instances get their role later.
    fn settle(&mut self, r: RscIx, node: Option<NodeIx>) {
        let promotable = self.rscs[r].clone.is_some_and(|c| self.rscs[c].promotable());
        let current = self.rscs[r].active.first().map(|a| a.role);
        let movable = self.movable(r);
        let rsc = &mut self.rscs[r];
        rsc.done = true;
        rsc.assigned = node;
        rsc.next_role = match (node, promotable) {
            (None, _) => Role::Stopped,
            (Some(_), _) if !movable => current.unwrap_or(Role::Stopped),
            (Some(_), true) => Role::Unpromoted,
            (Some(_), false) => Role::Started,
        };
        if let Some(n) = node {
            self.nodes[n].load += 1;
        }
        if let Some(n) = self.rscs[r].connection_of {
            self.connection_assigned(r, n);
        }
    }

    /// Takes a trial placement back.
    fn unassign(&mut self, r: RscIx) {
        self.rscs[r].done = false;
        self.rscs[r].assigning = false;
        if matches!(self.rscs[r].kind, Kind::Primitive)
            && let Some(n) = self.rscs[r].assigned.take()
        {
            self.nodes[n].load -= 1;
        }
        self.rscs[r].assigned = None;
        for child in self.rscs[r].children.clone() {
            self.unassign(child);
        }
    }

    fn assign_clone(&mut self, r: RscIx, info: &CloneInfo) {
        let available = self.nodes.iter().filter(|n| n.available()).count();
        self.rscs[r].selective = info.max < available;
        if info.promotable {
            self.add_promotion_scores(r);
        }
        for c in self.this_with_list(r) {
            let primary = self.colocs[c].primary;
            self.assign(primary, None);
        }
        for c in self.with_this_list(r) {
            self.take_preferences(r, c);
        }
        self.note_scores(ScorePhase::Clone, r);
        let mut seats = Seats { taken: vec![0; self.nodes.len()], total: 0 };
        let order = self.instance_order(r);
        for instance in &order {
            self.keep_instance(r, *instance, info, &mut seats);
        }
        for instance in &order {
            if !self.rscs[*instance].done {
                self.place_instance(r, *instance, info, &mut seats);
            }
        }
        self.rscs[r].done = true;
        if info.promotable {
            self.set_roles(r, info);
        }
    }

    /// Instances in the order in which they are placed.
    pub(super) fn instance_order(&self, clone: RscIx) -> Vec<RscIx> {
        let mut order = self.rscs[clone].children.clone();
        order.sort_by_cached_key(|i| {
            let leaves = self.leaves(*i);
            let active = leaves.iter().find_map(|l| self.rscs[*l].active.first());
            let failed = leaves.iter().any(|l| self.rscs[*l].active.iter().any(|a| a.failed));
            let fixed = leaves.iter().any(|l| !self.movable(*l));
            let usable = active.is_some_and(|a| self.nodes[a.node].available());
            (
                self.rscs[*i].surplus,
                !(fixed && active.is_some()),
                active.is_none(),
                !usable,
                failed,
                self.rscs[*i].number,
            )
        });
        order
    }

    fn instance_node(&self, instance: RscIx) -> Option<NodeIx> {
        self.leaves(instance).iter().find_map(|l| self.rscs[*l].active.first()).map(|a| a.node)
    }

    /// An active instance stays where it is if nothing speaks against it.
    fn keep_instance(&mut self, clone: RscIx, i: RscIx, info: &CloneInfo, seats: &mut Seats) {
        let Some(node) = self.instance_node(i) else { return };
        let fixed = self.leaves(i).iter().any(|l| !self.movable(*l));
        let allowed = self.nodes[node].available() && self.rscs[clone].scores[node] >= Score::ZERO;
        if !fixed && (!allowed || seats.full(node, info) || self.rscs[i].surplus) {
            return;
        }
        if fixed {
            self.assign(i, Some(node));
            if let Some(n) = self.rscs[i].assigned {
                seats.take(n);
            }
            return;
        }
        // Another node may be better for an instance: then one is reserved for it, and this one tries again
        // without it. Instances are interchangeable, so moving this one would only make two swap.
        let saved = self.save(i);
        let mut reserved = Vec::new();
        while seats.total + reserved.len() < info.max {
            self.ban_full(clone, i, info, seats);
            self.assign(i, Some(node));
            let Some(n) = self.rscs[i].assigned else { break };
            if n == node {
                break;
            }
            self.unassign(i);
            self.restore(&saved);
            seats.taken[n] += 1;
            reserved.push(n);
        }
        for n in reserved {
            seats.taken[n] -= 1;
        }
        if self.rscs[i].assigned.is_some() {
            seats.take(node);
        } else {
            self.unassign(i);
            self.restore(&saved);
        }
    }

    fn place_instance(&mut self, clone: RscIx, i: RscIx, info: &CloneInfo, seats: &mut Seats) {
        if seats.total >= info.max {
            self.rscs[i].surplus = true;
        }
        self.ban_full(clone, i, info, seats);
        self.assign(i, None);
        if let Some(n) = self.rscs[i].assigned {
            seats.take(n);
        }
    }

    /// Nodes that have their share of instances, or that the clone must not use.
    fn ban_full(&mut self, clone: RscIx, i: RscIx, info: &CloneInfo, seats: &Seats) {
        for leaf in self.leaves(i) {
            for n in 0..self.nodes.len() {
                let banned = self.rscs[clone].scores[n] < Score::ZERO;
                if banned || seats.taken[n] >= info.node_max {
                    self.rscs[leaf].scores[n] = Score::NEG_INF;
                }
            }
        }
    }

    fn save(&self, i: RscIx) -> Vec<(RscIx, Vec<Score>)> {
        self.leaves(i).into_iter().map(|l| (l, self.rscs[l].scores.clone())).collect()
    }

    fn restore(&mut self, saved: &[(RscIx, Vec<Score>)]) {
        for (leaf, scores) in saved {
            self.rscs[*leaf].scores.clone_from(scores);
        }
    }
}

/// How many instances a clone has where.
struct Seats {
    taken: Vec<usize>,
    total: usize,
}

impl Seats {
    fn full(&self, node: NodeIx, info: &CloneInfo) -> bool {
        self.total >= info.max || self.taken[node] >= info.node_max
    }

    fn take(&mut self, node: NodeIx) {
        self.taken[node] += 1;
        self.total += 1;
    }
}
