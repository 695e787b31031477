//! Utilization: nodes have capacities, resources take their share (`placement-strategy`).

use super::model::{Kind, Model, NodeIx, RscIx, Strategy};
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
        self.props.exact && self.props.strategy != Strategy::Default
    }

    fn free(&self, node: NodeIx) -> Amounts<'a> {
        let mut left = Amounts::new();
        if let Some(capacity) = self.nodes[node].capacity {
            add(&mut left, capacity, 1);
        }
        for rsc in self.rscs.iter().filter(|r| r.done && r.assigned == Some(node)) {
            if let Some(prim) = rsc.prim {
                add(&mut left, &prim.utilization, -1);
            }
        }
        left
    }

    fn needs(&self, all: &BTreeSet<RscIx>) -> Amounts<'a> {
        let mut sum = Amounts::new();
        for prim in all.iter().filter_map(|r| self.rscs[*r].prim) {
            add(&mut sum, &prim.utilization, 1);
        }
        sum
    }

    /// Primitives that are not placed yet and have to be where `r` is.
    fn companions(&self, r: RscIx) -> BTreeSet<RscIx> {
        let mut all = BTreeSet::from([r]);
        let mut work = vec![r];
        while let Some(at) = work.pop() {
            let mut others = Vec::new();
            for c in self.this_with_list(at) {
                others.push((self.colocs[c].score, self.colocs[c].primary));
            }
            for c in self.with_this_list(at) {
                others.push((self.colocs[c].score, self.colocs[c].dependent));
            }
            others.retain(|(score, _)| *score == Score::INF);
            for (_, other) in others {
                if matches!(self.rscs[other].kind, Kind::Clone(_)) {
                    continue;
                }
                for leaf in self.leaves(other) {
                    if !self.rscs[leaf].done && all.insert(leaf) {
                        work.push(leaf);
                    }
                }
            }
        }
        all
    }

    /// Nodes with room: for all that has to be there if any node has that much, else for `r` alone.
    pub(super) fn roomy(&self, r: RscIx) -> Vec<bool> {
        let has = |need: &Amounts<'_>, n: NodeIx| {
            let free = self.free(n);
            need.iter().all(|(name, amount)| {
                *amount <= 0 || free.get(name).copied().unwrap_or(0) >= *amount
            })
        };
        let all = self.needs(&self.companions(r));
        let usable = |n: NodeIx| self.nodes[n].available() && self.rscs[r].scores[n] >= Score::ZERO;
        let together: Vec<bool> = (0..self.nodes.len()).map(|n| has(&all, n)).collect();
        if together.iter().enumerate().any(|(n, room)| *room && usable(n)) {
            return together;
        }
        let own = self.needs(&BTreeSet::from([r]));
        (0..self.nodes.len()).map(|n| has(&own, n)).collect()
    }

    /// More free capacity first: in how many kinds of it one node has more than the other.
    pub(super) fn emptier(&self, a: NodeIx, b: NodeIx) -> Ordering {
        if !self.props.exact || self.props.strategy != Strategy::Balanced {
            return Ordering::Equal;
        }
        let (free_a, free_b) = (self.free(a), self.free(b));
        let names: BTreeSet<&str> = free_a.keys().chain(free_b.keys()).copied().collect();
        let more: i32 = names
            .into_iter()
            .map(|name| {
                let of = |free: &Amounts<'_>| free.get(name).copied().unwrap_or(0);
                of(&free_b).cmp(&of(&free_a)) as i32
            })
            .sum();
        more.cmp(&0)
    }

    /// The order in which resources of one priority are placed: what holds on to its node most comes first.
    pub(super) fn sort_by_hold(&self, order: &mut [RscIx]) {
        order.sort_by_cached_key(|r| {
            let leaf = self.leaves(*r).first().copied().unwrap_or(*r);
            let scores = self.rscs[leaf].scores.clone();
            let node = self.rscs[leaf].active.first().map(|a| a.node);
            let hold = node.map_or(Score::NEG_INF, |n| scores[n]);
            (Reverse(self.rscs[*r].meta.priority), Reverse(hold), Reverse(scores))
        });
    }
}
