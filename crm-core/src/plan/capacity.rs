//! Utilization: nodes have capacities, resources take their share (`placement-strategy`).

use super::model::{Kind, Model, NodeIx, RscIx, Strategy};
use super::pull::Table;
use crate::cib::{NvSet, Score};
use std::cmp::{Ordering, Reverse};
use std::collections::{BTreeMap, BTreeSet};

/// How much of what.
type Amounts<'a> = BTreeMap<&'a str, i64>;

fn add<'a>(sum: &mut Amounts<'a>, set: &'a NvSet, sign: i64) {
    for pair in &set.pairs {
        let amount = pair.value.as_deref().and_then(|v| v.trim().parse::<i64>().ok()).unwrap_or(0);
        *sum.entry(&pair.name).or_default() += sign * amount;
    }
}

impl<'a> Model<'a> {
    /// Do capacities count at all?
    pub(super) fn counts_capacity(&self) -> bool {
        self.props.strategy != Strategy::Default
    }

    /// Nothing is placed yet: the nodes have all of their capacities.
    pub(super) fn fill_capacities(&mut self) {
        let all = |n: &super::model::Node<'a>| {
            let mut free = Amounts::new();
            if let Some(capacity) = n.capacity {
                add(&mut free, capacity, 1);
            }
            free
        };
        self.free = self.nodes.iter().map(all).collect();
    }

    /// A primitive takes its share of a node `times` once, or gives it back.
    pub(super) fn take_capacity(&mut self, r: RscIx, node: NodeIx, times: i64) {
        if let (Some(free), Some(prim)) = (self.free.get_mut(node), self.rscs[r].prim) {
            add(free, &prim.utilization, -times);
        }
    }

    /// Bans `r` from nodes that have no room: for all that has to be with it if any node has that much, else for `r` alone.
    /// Then the node with the most room is returned.
    pub(super) fn ban_full_nodes(&mut self, r: RscIx) -> Option<NodeIx> {
        if !self.counts_capacity() {
            return None;
        }
        let mut companions = Vec::new();
        self.companions(r, r, &mut companions);
        let together = self.needs(&companions);
        let usable: Vec<NodeIx> = (0..self.nodes.len())
            .filter(|n| self.nodes[*n].available() && self.rscs[r].scores[*n] >= Score::ZERO)
            .collect();
        let any = usable.iter().any(|n| self.has_room(*n, &together));
        let needs = if any {
            together
        } else {
            let mut own = Amounts::new();
            if let Some(prim) = self.rscs[r].prim {
                add(&mut own, &prim.utilization, 1);
            }
            own
        };
        let mut roomiest = None;
        for n in usable {
            if roomiest.is_none_or(|best| self.compare_room(n, best) == Ordering::Less) {
                roomiest = Some(n);
            }
            if !self.has_room(n, &needs) {
                self.rscs[r].scores[n] = Score::NEG_INF;
                let text = "the node has not enough free capacity".to_owned();
                self.because(r, Some(n), "capacity", text).scored(Score::NEG_INF);
            }
        }
        roomiest.filter(|_| !any)
    }

    fn has_room(&self, node: NodeIx, needs: &Amounts<'_>) -> bool {
        let free = &self.free[node];
        needs.iter().all(|(name, amount)| *amount <= free.get(name).copied().unwrap_or(0))
    }

    /// What has to be where `r` is, `r` included.
    fn companions(&self, r: RscIx, of: RscIx, out: &mut Vec<RscIx>) {
        if let Kind::Group { colocated, .. } = self.rscs[r].kind {
            let cloned = self.rscs[r].parent.is_some();
            if colocated || cloned {
                if out.contains(&r) {
                    return;
                }
                out.push(r);
                for member in &self.rscs[r].children {
                    self.companions(*member, of, out);
                }
                return;
            }
        }
        if out.contains(&r) {
            return;
        }
        out.push(r);
        for ix in self.this_with_list(r) {
            let c = &self.colocs[ix];
            if c.primary != of && c.score == Score::INF && self.binds_place(r, c.primary, c) {
                self.companions(c.primary, of, out);
            }
        }
        let clone = |r: RscIx| matches!(self.rscs[r].kind, Kind::Clone(_));
        for ix in self.with_this_list(r) {
            let c = &self.colocs[ix];
            // Of a clone nobody knows yet which instance it would be.
            let vague = clone(r) && !clone(c.dependent);
            if c.dependent != of
                && !vague
                && c.score == Score::INF
                && self.binds_place(c.dependent, r, c)
            {
                self.companions(c.dependent, of, out);
            }
        }
    }

    fn needs(&self, all: &[RscIx]) -> Amounts<'a> {
        let mut sum = Amounts::new();
        for r in all {
            self.add_needs(*r, all, &mut sum);
        }
        sum
    }

    fn add_needs(&self, r: RscIx, all: &[RscIx], sum: &mut Amounts<'a>) {
        let rsc = &self.rscs[r];
        if rsc.done {
            return;
        }
        match rsc.kind {
            Kind::Primitive => {
                if let Some(prim) = rsc.prim {
                    add(sum, &prim.utilization, 1);
                }
            }
            Kind::Group { colocated, .. } => {
                let together = colocated || rsc.parent.is_some();
                let members = rsc.children.iter().take(if together { usize::MAX } else { 1 });
                for member in members.filter(|m| !all.contains(m)) {
                    self.add_needs(*member, all, sum);
                }
            }
            Kind::Clone(_) => {
                let mut existing = false;
                for child in &rsc.children {
                    if all.contains(child) {
                        existing = true;
                    } else if self.rscs[*child].children.iter().any(|m| all.contains(m)) {
                        self.add_needs(*child, all, sum);
                        existing = true;
                    }
                }
                if let (false, Some(child)) = (existing, rsc.children.first()) {
                    self.add_needs(*child, all, sum);
                }
            }
        }
    }

    /// More free capacity first: in how many kinds of it one node has more than the other.
    pub(super) fn emptier(&self, a: NodeIx, b: NodeIx) -> Ordering {
        if !self.counts_capacity() || self.props.strategy != Strategy::Balanced {
            return Ordering::Equal;
        }
        self.compare_room(a, b)
    }

    fn compare_room(&self, a: NodeIx, b: NodeIx) -> Ordering {
        let (free_a, free_b) = (&self.free[a], &self.free[b]);
        let names: BTreeSet<&str> = free_a.keys().chain(free_b.keys()).copied().collect();
        let of = |free: &Amounts<'_>, name: &str| free.get(name).copied().unwrap_or(0);
        let more: i32 =
            names.into_iter().map(|name| of(free_b, name).cmp(&of(free_a, name)) as i32).sum();
        more.cmp(&0)
    }

    /// The order in which resources of one priority are placed: what holds on to its node most comes first.
    pub(super) fn sort_by_hold(&mut self, order: &mut [RscIx]) {
        let level = vec![Score::ZERO; self.nodes.len()];
        let nodes = self.sorted_nodes(&level, None);
        let mut keys = BTreeMap::new();
        for r in order.iter() {
            let table: Table = self.with_primaries(*r);
            let score = |n: NodeIx| table[n].unwrap_or(Score::new(1));
            let hold = self.current_node(*r).map_or(Score::NEG_INF, score);
            let all: Vec<Score> = nodes.iter().map(|n| score(*n)).collect();
            let priority = self.rscs[*r].meta.priority;
            keys.insert(*r, (Reverse(priority), Reverse(hold), Reverse(all)));
        }
        order.sort_by(|a, b| keys[a].cmp(&keys[b]));
    }
}
