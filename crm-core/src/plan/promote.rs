//! Which instances of a promotable clone are promoted.

use super::colocate::{Pull, factor_of};
use super::model::{CloneInfo, Model, NoQuorum, NodeIx, RscIx};
use crate::cib::{Role, Score};
use std::cmp::Reverse;
use std::collections::BTreeMap;

impl Model<'_> {
    /// The agent's own word for being promoted on a node: `master-ID` or `promotion-ID`; groups sum over members.
    fn promotion_attribute(&self, instance: RscIx, node: NodeIx) -> Option<Score> {
        let at = &self.nodes[node];
        let empty = BTreeMap::new();
        let transient = at.transient.or_else(|| self.props.exact.then_some(&empty))?;
        let leaves = self.leaves(instance);
        let scores = leaves.iter().filter_map(|leaf| {
            let (id, key) = (self.rscs[*leaf].id, self.key(*leaf));
            let exactly = ["master-", "promotion-"].iter().find_map(|prefix| {
                let name = format!("{prefix}{key}");
                let own = transient.get(&name).map(String::as_str);
                own.or_else(|| at.permanent?.get(&name).filter(|_| self.props.exact))
            });
            // Older agents name the instance.
            let numbered = || {
                let prefix = format!("master-{id}:");
                let mut named = transient.iter().filter(|(name, _)| name.starts_with(&prefix));
                named
                    .next()
                    .filter(|_| self.props.exact && key == id)
                    .map(|(_, value)| value.as_str())
            };
            Score::parse(exactly.or_else(numbered)?)
        });
        scores.reduce(Score::plus)
    }

    /// Promotion score where instances run or may run; only known nodes count.
    pub(super) fn add_promotion_scores(&mut self, clone: RscIx) {
        for instance in self.rscs[clone].children.clone() {
            for n in 0..self.nodes.len() {
                let score = self.promotion_attribute(instance, n).unwrap_or(Score::ZERO);
                if score > Score::ZERO && self.nodes[n].online {
                    for leaf in self.leaves(instance).into_iter().take(1) {
                        let sum = self.rscs[leaf].scores[n].plus(score);
                        self.rscs[leaf].scores[n] = sum;
                    }
                }
            }
        }
    }

    /// Score for being promoted on a node without colocations; −1 when nobody says anything.
    /// What a probe has just found promoted stays so until its agent has spoken: its node's attributes may still be under way.
    fn promotion_base(&self, clone: RscIx, instance: RscIx, node: NodeIx) -> Score {
        let found_promoted = self.leaves(instance).iter().any(|l| {
            let seen = self.rscs[*l].active.iter().find(|s| s.node == node);
            seen.is_some_and(|s| s.found && s.role == Role::Promoted)
        });
        let silent = if found_promoted && !self.props.exact { Score::ZERO } else { Score::new(-1) };
        let own = self.promotion_attribute(instance, node).unwrap_or(silent);
        let located = self.rscs[clone].promoted_scores.iter().filter(|(n, _)| *n == node);
        located.fold(own, |sum, (_, score)| sum.plus(*score))
    }

    /// Nodes where an instance runs and may be promoted now; `None` when that is no node at all.
    pub(super) fn promotable_nodes(&self, clone: RscIx) -> Option<Vec<bool>> {
        if !self.rscs[clone].promotable() {
            return None;
        }
        let mut can = vec![false; self.nodes.len()];
        for instance in &self.rscs[clone].children {
            let Some(leaf) = self.leaves(*instance).first().copied() else { continue };
            for seen in &self.rscs[leaf].active {
                let score = self.promotion_base(clone, *instance, seen.node);
                can[seen.node] |= self.nodes[seen.node].available() && score >= Score::ZERO;
            }
        }
        can.contains(&true).then_some(can)
    }

    /// What role constraints of the clone add to an instance's promotion score; −∞ forbids.
    fn role_colocations(&self, clone: RscIx, node: NodeIx, base: Score) -> Score {
        let mut sum = base;
        for ix in self.this_with_list(clone) {
            let c = &self.colocs[ix];
            let Some(role) = c.dependent_role else { continue };
            let Some(at) = self.role_target(c.primary, c.primary_role, c.score) else { continue };
            let matches = at.iter().any(|n| {
                let value = self.nodes[*n].attribute(c.attribute);
                *n == node || (value.is_some() && value == self.nodes[node].attribute(c.attribute))
            });
            if !matches {
                if c.score == Score::INF && role == Role::Promoted {
                    return Score::NEG_INF;
                }
                continue;
            }
            let score = if role == Role::Promoted { c.score } else { c.score.negated() };
            // A colocation ranks the candidates; it does not make one of an instance whose agent says no.
            if score < Score::ZERO || base >= Score::ZERO || self.props.exact {
                sum = sum.plus(score);
            }
        }
        sum
    }

    /// Where the other side of a role colocation is; `None` = nowhere, so that it decides nothing.
    fn role_target(&self, primary: RscIx, role: Option<Role>, score: Score) -> Option<Vec<NodeIx>> {
        let leaves = self.leaves(primary);
        let relevant = match self.rscs[primary].kind {
            super::model::Kind::Group { .. } if score == Score::INF => {
                leaves.last().into_iter().copied().collect()
            }
            super::model::Kind::Group { .. } => leaves.first().into_iter().copied().collect(),
            super::model::Kind::Primitive | super::model::Kind::Clone(_) => leaves,
        };
        let fits = |r: &&RscIx| role.is_none_or(|role| role == self.rscs[**r].next_role);
        let at: Vec<NodeIx> =
            relevant.iter().filter(fits).filter_map(|r| self.rscs[*r].assigned).collect();
        (!at.is_empty()).then_some(at)
    }

    /// Decides the role of every instance.
    pub(super) fn set_roles(&mut self, clone: RscIx, info: &CloneInfo) {
        let mut candidates = Vec::new();
        let mut promoted = 0;
        let mut per_node = vec![0; self.nodes.len()];
        let mut table = vec![Score::ZERO; self.nodes.len()];
        for instance in self.instance_order(clone) {
            let Some(node) = self.rscs[instance].assigned else { continue };
            if self.fixed_promoted(instance) {
                promoted += 1;
                per_node[node] += 1;
                continue;
            }
            if self.leaves(instance).iter().any(|l| !self.movable(*l)) {
                continue;
            }
            let base = self.promotion_base(clone, instance, node);
            let priority = self.role_colocations(clone, node, base);
            table[node] = table[node].plus(priority);
            candidates.push((instance, node, priority));
        }
        for ix in self.with_this_list(clone) {
            if self.colocs[ix].primary_role == Some(Role::Promoted) {
                let pull = Pull { target: clone, positive_only: false };
                self.pull(ix, factor_of(self.colocs[ix].score), pull, &mut table);
            }
        }
        candidates.sort_by_key(|(i, node, _)| (Reverse(table[*node]), !self.is_promoted(*i)));
        let refusal = self.no_promotion(clone);
        for (instance, node, priority) in candidates {
            self.note_promotion(instance, node, table[node]);
            let room = promoted < info.promoted_max && per_node[node] < info.promoted_node_max;
            let verdict = match &refusal {
                Some(why) => Err(*why),
                None if priority < Score::ZERO => {
                    Err(("not-promotable", "no promotion score allows it"))
                }
                None if self.demoted(instance) => {
                    Err(("failed", "it failed while promoted (on-fail=demote)"))
                }
                None if !room => Err(("promoted-max", "enough instances are promoted")),
                None => Ok(()),
            };
            match verdict {
                Ok(()) => {
                    promoted += 1;
                    per_node[node] += 1;
                    for leaf in self.leaves(instance) {
                        self.rscs[leaf].next_role = Role::Promoted;
                    }
                    let text = format!("promoted: promotion score {priority}");
                    self.because(instance, Some(node), "chosen", text);
                }
                Err((code, text)) => {
                    let text = format!("not promoted: {text} (promotion score {priority})");
                    self.because(instance, Some(node), code, text);
                }
            }
        }
    }

    fn demoted(&self, instance: RscIx) -> bool {
        let leaves = self.leaves(instance);
        leaves.iter().any(|l| self.rscs[*l].active.iter().any(|a| a.demote_only))
    }

    fn is_promoted(&self, instance: RscIx) -> bool {
        let leaves = self.leaves(instance);
        leaves.iter().any(|l| self.rscs[*l].active.iter().any(|a| a.role == Role::Promoted))
    }

    /// Promoted and not to be touched.
    fn fixed_promoted(&self, instance: RscIx) -> bool {
        self.is_promoted(instance) && self.leaves(instance).iter().any(|l| !self.movable(*l))
    }

    fn no_promotion(&self, clone: RscIx) -> Option<(&'static str, &'static str)> {
        if self.rscs[clone].no_promotion {
            return Some(("ticket", "the ticket that this needs is not here"));
        }
        if self.rscs[clone].meta.target_role == Some(Role::Unpromoted) {
            return Some(("target-role", "target-role is Unpromoted"));
        }
        if !self.quorate && self.props.no_quorum == NoQuorum::Demote {
            return Some(("no-quorum", "no quorum and no-quorum-policy=demote"));
        }
        None
    }
}
