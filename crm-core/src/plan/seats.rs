//! Clones: which instance goes where. What runs stays, and no node gets more than its share.

use super::model::{CloneInfo, Kind, Model, NodeIx, RscIx};
use super::pull::{Pull, Table, share};
use super::{Habit, ScorePhase};
use crate::cib::Score;
use std::cmp::Ordering;

/// How many instances of a collection are to be on each node, and how many may.
struct Seats {
    taken: Vec<usize>,
    per_node: usize,
}

/// What an instance is sorted by.
#[derive(Debug, Clone, Copy)]
#[expect(clippy::struct_excessive_bools, reason = "each is one step of the comparison")]
pub(super) struct Standing {
    /// Nodes it is active on.
    active: usize,
    /// It may stay on its node.
    allowed: bool,
    /// Its node, if it may stay there.
    node: Option<NodeIx>,
    rank: Score,
    /// Its node can be used.
    usable: bool,
    /// The whole clone may be on its node.
    welcome: bool,
    failed: bool,
    /// What its node is worth to what the clone is bound to.
    bound: Score,
    number: u32,
}

impl Standing {
    pub(super) fn compare(&self, other: &Self) -> Ordering {
        let several = match (self.active, other.active) {
            (0, _) | (_, 0) => Ordering::Equal,
            (a, b) => a.cmp(&b),
        };
        let first = several
            .then(other.allowed.cmp(&self.allowed))
            .then(other.rank.cmp(&self.rank))
            .then(other.node.is_some().cmp(&self.node.is_some()));
        if first != Ordering::Equal || self.node.is_none() {
            return first;
        }
        let second = other.usable.cmp(&self.usable).then(other.welcome.cmp(&self.welcome));
        if second != Ordering::Equal || !self.welcome {
            return second;
        }
        let third = self.failed.cmp(&other.failed).then(other.bound.cmp(&self.bound));
        third.then(self.number.cmp(&other.number))
    }
}

/// A stable merge sort that keeps its head when the comparison is not transitive (Pacemaker's of instances is not quite).
pub(super) fn merge_sort<T: Copy>(list: &[T], compare: &impl Fn(&T, &T) -> Ordering) -> Vec<T> {
    if list.len() < 2 {
        return list.to_vec();
    }
    let (left, right) = list.split_at(list.len() / 2);
    let (left, right) = (merge_sort(left, compare), merge_sort(right, compare));
    let mut out = Vec::with_capacity(list.len());
    let (mut l, mut r) = (left.iter().peekable(), right.iter().peekable());
    loop {
        match (l.peek(), r.peek()) {
            (Some(a), Some(b)) => {
                let next = if compare(a, b) == Ordering::Greater { r.next() } else { l.next() };
                out.extend(next);
            }
            (Some(_), None) => out.extend(l.next()),
            (None, Some(_)) => out.extend(r.next()),
            (None, None) => return out,
        }
    }
}

impl Model<'_> {
    pub(super) fn assign_clone(&mut self, r: RscIx, info: &CloneInfo) {
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
        let order = self.sorted_instances(r);
        self.rscs[r].children.clone_from(&order);
        self.assign_instances(r, &order, info.max, info.node_max);
        if info.promotable {
            self.set_roles(r, info);
        }
        self.rscs[r].done = true;
    }

    /// Instances in the order in which they are placed.
    fn sorted_instances(&mut self, collection: RscIx) -> Vec<RscIx> {
        let children = self.rscs[collection].children.clone();
        let standings: Vec<(RscIx, Standing)> =
            children.into_iter().map(|i| (i, self.standing(i))).collect();
        let sorted = merge_sort(&standings, &|a, b| a.1.compare(&b.1));
        sorted.into_iter().map(|(i, _)| i).collect()
    }

    pub(super) fn standing(&mut self, i: RscIx) -> Standing {
        let leaves = self.leaves(i);
        let mut nodes = self.places(i);
        if !self.props.exact {
            nodes.sort_unstable();
            nodes.dedup();
        }
        let current = self.current_node(i);
        let allowed = current.is_none_or(|n| self.rscs[i].scores[n] >= Score::ZERO);
        let node = current.filter(|_| allowed);
        let parent = self.rscs[i].parent;
        let welcome =
            |n: NodeIx| parent.is_none_or(|p| self.rscs[p].opted_in.get(n) != Some(&false));
        Standing {
            active: nodes.len(),
            allowed,
            node,
            rank: self.rscs[i].rank,
            usable: node.is_some_and(|n| self.nodes[n].available()),
            welcome: node.is_some_and(welcome),
            failed: leaves.iter().any(|l| self.rscs[*l].active.iter().any(|a| a.failed)),
            bound: node.map_or(Score::ZERO, |n| self.bound_score(i, n)),
            number: self.rscs[i].number,
        }
    }

    /// What a node is worth to an instance because of what it follows and what follows it.
    fn bound_score(&mut self, i: RscIx, node: NodeIx) -> Score {
        let (this_with, with_this) = (self.this_with_list(i), self.with_this_list(i));
        // A node that is off, or going, is worth nothing to begin with.
        let there = &self.nodes[node];
        let lost = self.props.exact && (!there.online || there.leaving);
        let own = if lost { Score::NEG_INF } else { Score::ZERO };
        if this_with.is_empty() && with_this.is_empty() {
            return own;
        }
        let mut table: Table = vec![Some(Score::NEG_INF); self.nodes.len()];
        table[node] = Some(own);
        let base = Pull { primaries: false, optional: false, positive: false };
        for ix in this_with {
            let c = self.colocs[ix];
            self.pull(c.primary, ix, share(1.0, c.score), base, &mut table);
        }
        for ix in with_this {
            let c = self.colocs[ix];
            if self.influences_at(ix, i) {
                let pull = Pull { positive: true, ..base };
                self.pull(c.dependent, ix, share(1.0, c.score), pull, &mut table);
            }
        }
        table[node].unwrap_or(Score::new(1))
    }

    /// Places instances: first those that may stay, then the others.
    pub(super) fn assign_instances(
        &mut self,
        collection: RscIx,
        order: &[RscIx],
        max: usize,
        per_node: usize,
    ) {
        let known = |n: &NodeIx| self.rscs[collection].opted_in.get(*n) != Some(&false);
        let usable = (0..self.nodes.len()).filter(|n| known(n) && self.nodes[*n].available());
        let fair = (max / usable.count().max(1)).max(1);
        let mut seats = Seats { taken: vec![0; self.nodes.len()], per_node };
        let mut placed = 0;
        for i in order {
            if placed >= max {
                break;
            }
            if self.rscs[*i].done {
                continue;
            }
            let Some(node) = self.own_node(*i).filter(|n| seats.taken[*n] < fair) else { continue };
            if self.keep(collection, *i, node, &mut seats, max - placed) {
                placed += 1;
            }
        }
        for i in order {
            if self.rscs[*i].done {
                continue;
            }
            if placed >= max {
                self.leave_out(*i);
                continue;
            }
            self.ban_full(collection, *i, &seats);
            if let Some(n) = self.assign(*i, None) {
                seats.taken[n] += 1;
                placed += 1;
            }
        }
    }

    /// As many run as may run: this one does not.
    fn leave_out(&mut self, i: RscIx) {
        for leaf in self.leaves(i) {
            self.rscs[leaf].scores.fill(Score::NEG_INF);
            if !self.movable(leaf) && !self.props.exact {
                self.assign(leaf, None);
                continue;
            }
            if !self.rscs[leaf].active.is_empty() {
                let text = "as many instances run as clone-max allows".to_owned();
                self.because(leaf, None, "clone-max", text);
            }
            self.settle(leaf, None);
        }
        self.rscs[i].scores.fill(Score::NEG_INF);
        self.rscs[i].done = true;
    }

    /// The node an instance runs well on.
    fn own_node(&self, i: RscIx) -> Option<NodeIx> {
        let rsc = &self.rscs[i];
        if matches!(rsc.kind, Kind::Primitive) && rsc.active.iter().any(|a| a.failed) {
            return None;
        }
        self.current_node(i).filter(|n| self.nodes[*n].available())
    }

    /// An active instance stays where it is if nothing speaks against it. If another node were better for an instance, one is reserved for that,
    /// and this one tries again: instances are interchangeable, and moving this one would only make two swap.
    fn keep(
        &mut self,
        collection: RscIx,
        i: RscIx,
        node: NodeIx,
        seats: &mut Seats,
        left: usize,
    ) -> bool {
        if self.habit(Habit::GroupsStick) && self.rscs[i].scores[node] < Score::ZERO {
            return false;
        }
        let saved = self.save(i);
        let told = self.reasons.len();
        let taken = seats.taken.clone();
        let mut stays = false;
        for _ in 0..left {
            self.ban_full(collection, i, seats);
            let chosen = self.assign(i, Some(node));
            stays = chosen == Some(node);
            if stays {
                break;
            }
            let group = matches!(self.rscs[i].kind, Kind::Group { .. });
            if self.habit(Habit::GroupsStick) && (group || chosen.is_none()) {
                break;
            }
            self.unassign(i);
            self.restore(&saved);
            self.reasons.truncate(told);
            let Some(better) = chosen.filter(|_| !self.habit(Habit::Shuffles)) else { break };
            seats.taken[better] += 1;
        }
        seats.taken = taken;
        if stays {
            seats.taken[node] += 1;
        }
        stays
    }

    /// Nodes that have their share of instances, or that the collection must not use.
    fn ban_full(&mut self, collection: RscIx, i: RscIx, seats: &Seats) {
        for n in 0..self.nodes.len() {
            let banned = self.rscs[i].surplus
                || !self.nodes[n].available()
                || self.rscs[collection].scores[n] < Score::ZERO
                || seats.taken[n] >= seats.per_node;
            if banned {
                self.rscs[i].scores[n] = Score::NEG_INF;
                for child in self.rscs[i].children.clone() {
                    self.rscs[child].scores[n] = Score::NEG_INF;
                }
            }
        }
    }

    fn save(&self, i: RscIx) -> Vec<(RscIx, Vec<Score>)> {
        let mut all = vec![i];
        all.extend(&self.rscs[i].children);
        all.into_iter().map(|r| (r, self.rscs[r].scores.clone())).collect()
    }

    fn restore(&mut self, saved: &[(RscIx, Vec<Score>)]) {
        for (r, scores) in saved {
            self.rscs[*r].scores.clone_from(scores);
        }
    }
}
