//! Which instances of a promotable clone are promoted.

use super::Habit;
use super::model::{CloneInfo, Kind, Model, NoQuorum, NodeIx, RscIx};
use super::pull::{Pull, Table, settled, share};
use super::seats::{Standing, merge_sort};
use crate::cib::{Role, Score};
use std::cmp::Ordering;
use std::collections::BTreeMap;

impl<'a> Model<'a> {
    /// The agent's own word for being promoted on a node: `master-ID` or `promotion-ID`; groups sum over members. `None` = it says nothing.
    fn promotion_score(&self, r: RscIx, node: NodeIx) -> Option<Score> {
        let rsc = &self.rscs[r];
        if !matches!(rsc.kind, Kind::Primitive) {
            let told = rsc.children.iter().filter_map(|m| self.promotion_score(*m, node));
            return told.reduce(Score::plus);
        }
        if !self.props.exact {
            return self.promotion_attribute(self.speaker(r, node)?, rsc.id);
        }
        let unique = rsc.clone.and_then(|c| self.rscs[c].clone_info());
        let unique = unique.is_some_and(|info| info.globally_unique);
        if !self.tells_promotion(r, node, unique) || rsc.scores[node] < Score::ZERO {
            return None;
        }
        // Agents use the name that the history is kept under.
        let own = rsc.now.history.clone().unwrap_or_else(|| self.label(r));
        let alike = || self.promotion_attribute(self.speaker(r, node)?, rsc.id).filter(|_| !unique);
        self.promotion_attribute(self.speaker(r, node)?, &own).or_else(alike)
    }

    /// Is a promotion score on the node about this instance? Where nothing is known of it at all, all of them are.
    fn tells_promotion(&self, r: RscIx, node: NodeIx, unique: bool) -> bool {
        let rsc = &self.rscs[r];
        if !unique {
            let like = self.instances.get(rsc.id).map_or(&[][..], Vec::as_slice);
            let here = |i: &&RscIx| self.rscs[**i].active.iter().any(|a| a.node == node);
            match like.iter().find(here) {
                Some(active) if *active == r => return true,
                None if like.iter().any(|i| self.rscs[*i].now.known.contains(&node)) => {
                    return true;
                }
                Some(_) | None => {}
            }
        }
        let unknown = rsc.active.is_empty() && rsc.now.known.is_empty();
        unknown || rsc.now.known.contains(&node) || rsc.active.iter().any(|a| a.node == node)
    }

    fn promotion_attribute(&self, node: NodeIx, name: &str) -> Option<Score> {
        let at = &self.nodes[node];
        let exact = self.props.exact;
        let empty = BTreeMap::new();
        let transient = at.transient.or_else(|| exact.then_some(&empty))?;
        ["master-", "promotion-"].iter().find_map(|prefix| {
            let name = format!("{prefix}{name}");
            let own = transient.get(&name).map(String::as_str);
            let value = own.or_else(|| at.permanent?.get(&name).filter(|_| exact))?;
            let score = Score::parse(value);
            if exact { Some(score.unwrap_or(Score::ZERO)) } else { score }
        })
    }

    /// Instances prefer nodes where their agent would like to be promoted, and those that would most are placed first.
    pub(super) fn add_promotion_scores(&mut self, clone: RscIx) {
        for instance in self.rscs[clone].children.clone() {
            for n in 0..self.nodes.len() {
                if !self.nodes[n].available() {
                    continue;
                }
                let Some(score) = self.promotion_score(instance, n) else { continue };
                let rsc = &mut self.rscs[instance];
                if score > Score::ZERO {
                    rsc.scores[n] = rsc.scores[n].plus(score);
                }
                rsc.rank = rsc.rank.max(score);
                if score > Score::ZERO {
                    let text = format!("its agent rates it {score} there (promotion score)");
                    self.because(instance, Some(n), "promotion-score", text).scored(score);
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
        let own = self.promotion_score(instance, node).unwrap_or(silent);
        self.with_promoted_locations(own, clone, instance, node)
    }

    fn with_promoted_locations(
        &self,
        own: Score,
        clone: RscIx,
        instance: RscIx,
        node: NodeIx,
    ) -> Score {
        let all =
            self.rscs[instance].promoted_scores.iter().chain(&self.rscs[clone].promoted_scores);
        all.filter(|(n, _)| *n == node).fold(own, |sum, (_, score)| sum.plus(*score))
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

    /// How much an instance is to be promoted where it will be; −∞ forbids.
    fn promotion_priority(&mut self, clone: RscIx, instance: RscIx, node: NodeIx) -> Score {
        let base = match self.fixed_role(instance) {
            None => self.promotion_base(clone, instance, node),
            Some(role) => {
                let promoted = role == Role::Promoted;
                let own = if promoted { self.rscs[instance].rank } else { Score::NEG_INF };
                self.with_promoted_locations(own, clone, instance, node)
            }
        };
        let mut sum = base;
        if self.habit(Habit::GroupsSpeakLate)
            && matches!(self.rscs[instance].kind, Kind::Group { .. })
        {
            // What it follows has become its first member's affair.
            return sum;
        }
        for ix in self.this_with_list(instance) {
            let delta = self.apply_colocation(instance, self.colocs[ix].primary, ix);
            // A colocation ranks the candidates; it does not make one of an instance whose agent says no.
            if delta < Score::ZERO || base >= Score::ZERO || self.props.exact {
                sum = sum.plus(delta);
            }
        }
        sum
    }

    /// The role an instance has to have, whatever its agent says.
    fn fixed_role(&self, instance: RscIx) -> Option<Role> {
        let leaves = self.leaves(instance);
        if leaves.iter().any(|l| !self.movable(*l)) {
            return leaves.iter().map(|l| self.rscs[*l].next_role).max();
        }
        let refused = |l: &RscIx| {
            let rsc = &self.rscs[*l];
            matches!(rsc.meta.target_role, Some(Role::Unpromoted | Role::Stopped))
                || rsc.now.preset == Some(Role::Unpromoted)
                || self.demoted_for_good(*l)
        };
        leaves.iter().all(refused).then_some(Role::Unpromoted)
    }

    /// Decides the role of every instance.
    pub(super) fn set_roles(&mut self, clone: RscIx, info: &CloneInfo) {
        for instance in self.rscs[clone].children.clone() {
            let Some(node) = self.place_of(instance) else {
                let idle = self.habit(Habit::IdleFirst);
                let score = if idle { self.rscs[instance].rank } else { Score::NEG_INF };
                self.rscs[instance].promotion = score;
                self.note_promotion(instance, None, score);
                continue;
            };
            let priority = self.promotion_priority(clone, instance, node);
            let kept = self.fixed_role(instance) == Some(Role::Promoted);
            self.rscs[instance].rank = priority;
            self.rscs[instance].promotion = if kept { Score::INF } else { priority };
        }
        self.rank_candidates(clone);
        let mut promoted = 0;
        let mut per_node = vec![0; self.nodes.len()];
        for instance in self.rscs[clone].children.clone() {
            let Some(node) = self.place_of(instance) else { continue };
            self.note_promotion(instance, Some(node), self.rscs[instance].promotion);
            let seats = (promoted < info.promoted_max, per_node[node] < info.promoted_node_max);
            match self.verdict(clone, instance, node, seats) {
                Ok(()) => {
                    promoted += 1;
                    per_node[node] += 1;
                    for leaf in self.leaves(instance) {
                        if self.rscs[leaf].assigned.is_some() {
                            self.rscs[leaf].next_role = Role::Promoted;
                        }
                    }
                    let text = format!("promoted: promotion score {}", self.rscs[instance].rank);
                    self.because(instance, Some(node), "chosen", text);
                }
                Err((code, text)) => {
                    let score = self.rscs[instance].rank;
                    let text = format!("not promoted: {text} (promotion score {score})");
                    self.because(instance, Some(node), code, text);
                }
            }
        }
    }

    /// Sorts the instances by how much each is to be promoted, with what the dependents of the promoted one prefer.
    fn rank_candidates(&mut self, clone: RscIx) {
        let children = self.rscs[clone].children.clone();
        self.rscs[clone].merging = true;
        let mut table: Table = self.rscs[clone].scores.iter().copied().map(Some).collect();
        for i in &children {
            let score = self.rscs[*i].promotion;
            if let Some(n) = self.place_of(*i).filter(|_| score >= Score::ZERO) {
                table[n] = table[n].map(|old| old.plus(score));
            }
        }
        for ix in self.this_with_list(clone) {
            let c = self.colocs[ix];
            if c.dependent_role == Some(Role::Promoted) && self.habit(Habit::AskedTwice) {
                let optional = c.score != Score::INF;
                let pull = Pull { primaries: false, optional, positive: false };
                self.pull(c.primary, ix, share(1.0, c.score), pull, &mut table);
            }
        }
        for ix in self.with_this_list(clone) {
            let c = self.colocs[ix];
            if c.primary_role == Some(Role::Promoted) && self.influences(ix) {
                let pull = Pull { primaries: false, optional: true, positive: true };
                self.pull(c.dependent, ix, share(1.0, c.score), pull, &mut table);
            }
        }
        *self.rscs[clone].scores = settled(&table);
        if self.rscs[clone].no_promotion {
            self.rscs[clone].scores.fill(Score::NEG_INF);
        }
        let mut candidates: Vec<(RscIx, Score, Role, Standing)> = Vec::new();
        for i in children {
            let old = self.rscs[i].promotion;
            let fixed = self.fixed_role(i) == Some(Role::Promoted);
            let score = match self.place_of(i) {
                Some(_) if fixed => Score::INF,
                Some(n) if old >= Score::ZERO => self.rscs[clone].scores[n],
                Some(_) | None => old,
            };
            self.rscs[i].promotion = score;
            let standing = self.standing(i);
            candidates.push((i, score, self.current_role(i), standing));
        }
        self.rscs[clone].merging = false;
        let order =
            |a: &(RscIx, Score, Role, Standing), b: &(RscIx, Score, Role, Standing)| -> Ordering {
                b.1.cmp(&a.1).then(b.2.cmp(&a.2)).then_with(|| a.3.compare(&b.3))
            };
        let sorted = merge_sort(&candidates, &order);
        self.rscs[clone].children = sorted.into_iter().map(|c| c.0).collect();
    }

    fn current_role(&self, instance: RscIx) -> Role {
        let leaves = self.leaves(instance);
        let roles = leaves.iter().flat_map(|l| self.rscs[*l].active.iter().map(|a| a.role));
        roles.max().unwrap_or(Role::Stopped)
    }

    /// May the instance be promoted on its node? `seats`: there is one for the clone, and one for the node.
    fn verdict(
        &self,
        clone: RscIx,
        instance: RscIx,
        node: NodeIx,
        seats: (bool, bool),
    ) -> Result<(), (&'static str, &'static str)> {
        let leaves = self.leaves(instance);
        let promoted = self.current_role(instance) == Role::Promoted;
        if leaves.iter().any(|l| !self.movable(*l)) {
            return if promoted { Ok(()) } else { Err(("unmanaged", "it is not managed")) };
        }
        if let Some(why) = self.no_promotion(clone) {
            return Err(why);
        }
        if leaves.iter().any(|l| self.demoted_for_good(*l)) {
            return Err(("failed", "it failed while promoted (on-fail=demote)"));
        }
        if self.rscs[instance].promotion < Score::ZERO {
            return Err(("not-promotable", "no promotion score allows it"));
        }
        if !seats.0 && self.managed(clone) {
            return Err(("promoted-max", "enough instances are promoted"));
        }
        if leaves.iter().any(|l| self.rscs[*l].assigned.is_none()) {
            return Err(("member", "a member of it is to be stopped"));
        }
        if self.rscs[instance].rank < Score::ZERO {
            return Err(("not-promotable", "no promotion score allows it"));
        }
        if !self.nodes[node].available() {
            return Err(("node", "its node can not be used"));
        }
        if !seats.1 {
            return Err(("promoted-node-max", "enough instances are promoted on its node"));
        }
        if !promoted
            && !self.quorate
            && self.props.no_quorum == NoQuorum::Freeze
            && self.props.exact
        {
            return Err(("no-quorum", "no quorum and no-quorum-policy=freeze"));
        }
        Ok(())
    }

    /// It failed while promoted, with on-fail=demote. For Pacemaker the demotion is the cure, and it may be promoted again at once.
    fn demoted_for_good(&self, r: RscIx) -> bool {
        !self.props.exact && self.rscs[r].active.iter().any(|a| a.demote_only)
    }

    fn no_promotion(&self, clone: RscIx) -> Option<(&'static str, &'static str)> {
        if self.rscs[clone].no_promotion {
            return Some(("ticket", "the ticket that this needs is not here"));
        }
        // In Pacemaker that is a word to the instances, which may have one of their own.
        if self.rscs[clone].meta.target_role == Some(Role::Unpromoted) && !self.props.exact {
            return Some(("target-role", "target-role is Unpromoted"));
        }
        // Pacemaker sees this when it makes the actions: what is up is demoted, what is down would be promoted if it could be started.
        if !self.quorate && self.props.no_quorum == NoQuorum::Demote && !self.props.exact {
            return Some(("no-quorum", "no quorum and no-quorum-policy=demote"));
        }
        None
    }
}
