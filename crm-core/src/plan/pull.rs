//! Preferences that travel along colocations: what depends on a resource has a say in where that goes.

use super::Habit;
use super::model::{ColocIx, Kind, Model, NodeIx, RscIx};
use crate::cib::{Role, Score};

/// Whose preferences are collected, for whom and how.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pull {
    /// Along what a resource follows (not along what follows it).
    pub(super) primaries: bool,
    /// A contribution that would leave no node is dropped as a whole.
    pub(super) optional: bool,
    /// Nothing may fall below zero because of it.
    pub(super) positive: bool,
}

/// Scores by node while they are collected; `None` = a preference would have made it negative.
pub(super) type Table = Vec<Option<Score>>;

/// 32-bit as in Pacemaker: the rounding is part of the result.
#[expect(clippy::cast_precision_loss, reason = "at most one million, exact in an f32")]
pub(super) fn share(factor: f32, score: Score) -> f32 {
    factor * score.value() as f32 / 1_000_000.0
}

/// `factor` times `score`, rounded half away from zero; what was not zero never becomes zero.
pub(super) fn scaled(factor: f32, score: Score) -> Score {
    #[expect(clippy::cast_precision_loss, reason = "at most one million, exact in an f32")]
    let product = factor * score.value() as f32;
    #[expect(clippy::cast_possible_truncation, reason = "float to integer casts saturate")]
    let rounded = product.round() as i64;
    if rounded == 0 && score != Score::ZERO && factor.abs() > 0.0 {
        // Pacemaker takes the sign of the factor here, whatever the score's.
        return Score::new(if factor < 0.0 { -1 } else { 1 });
    }
    Score::new(rounded)
}

impl Model<'_> {
    /// Adds what the dependent of a colocation prefers to the scores of `r`, which is being placed.
    pub(super) fn take_preferences(&mut self, r: RscIx, ix: ColocIx) {
        if !self.influences(ix) {
            return;
        }
        let positive = matches!(self.rscs[r].kind, Kind::Clone(_));
        let scores = self.heard(r, ix, positive).unwrap_or_else(|| self.walked(r, ix, positive));
        *self.rscs[r].scores = scores;
    }

    /// The scores of `r` when the dependent of a colocation, and all that depends on it, has spoken: asked one by one.
    pub(super) fn walked(&mut self, r: RscIx, ix: ColocIx, positive: bool) -> Vec<Score> {
        let c = self.colocs[ix];
        let pull = Pull { primaries: false, optional: true, positive };
        let mut table: Table = self.rscs[r].scores.iter().copied().map(Some).collect();
        self.pull(c.dependent, ix, share(1.0, c.score), pull, &mut table);
        settled(&table)
    }

    /// A dependent that is not critical does not drag an active primary.
    pub(super) fn influences(&self, ix: ColocIx) -> bool {
        self.influences_at(ix, self.colocs[ix].primary)
    }

    /// The same with `r` (an instance) in the primary's place.
    pub(super) fn influences_at(&self, ix: ColocIx, r: RscIx) -> bool {
        let c = &self.colocs[ix];
        if self.rscs[c.dependent].nests
            && self.rscs[r].active.len() == 1
            && !self.rscs[r].active.iter().any(|a| a.failed)
        {
            // A connection is moved easily, the container it leads to is not.
            return false;
        }
        c.influence || self.places(r).is_empty()
    }

    /// Adds to `table` what `source` (the other side of the colocation), and what is bound to it in turn, prefers.
    pub(super) fn pull(
        &mut self,
        source: RscIx,
        ix: ColocIx,
        factor: f32,
        pull: Pull,
        table: &mut Table,
    ) {
        if self.rscs[source].merging || factor == 0.0 || self.patience == 0 {
            return;
        }
        self.patience -= 1;
        self.rscs[source].merging = true;
        if let Kind::Group { .. } = self.rscs[source].kind {
            // A group speaks through its first member, which the others follow one by one.
            if let Some(first) = self.rscs[source].children.first().copied() {
                self.pull(first, ix, factor, pull, table);
            }
            if self.habit(Habit::GroupsSpeakLate) && !pull.primaries {
                self.pull_behind_last(source, factor, pull, table);
            }
        } else {
            let mut work = table.clone();
            self.add_matching(source, ix, factor, pull, &mut work);
            if factor < 0.0 && !self.props.exact && !self.any_open(&work) {
                // What keeps away and would leave nothing is not heard itself. What is bound to it is, for that goes by where this one can be:
                // else one that stays where it is would drown now and then what others must have, and all would change places for ever.
                work.clone_from(table);
            }
            if self.pull_further(source, factor, pull, &mut work) {
                let c = &self.colocs[ix];
                // Along the whole way, not only at its end: what is bound by a wish can go its own way.
                if factor >= 1.0 && c.dependent_role == Some(Role::Promoted) {
                    self.voices.promoters.push(c.dependent);
                }
                if pull.positive {
                    for score in &mut work {
                        score.get_or_insert(Score::new(1));
                    }
                }
                *table = work;
            }
        }
        self.rscs[source].merging = false;
    }

    /// What is bound to a group's last member speaks once more.
    fn pull_behind_last(&mut self, group: RscIx, factor: f32, pull: Pull, table: &mut Table) {
        let Some(last) = self.rscs[group].children.last().copied() else { return };
        let mut work = table.clone();
        if self.pull_further(last, factor, pull, &mut work) {
            *table = work;
        }
    }

    /// Lets what is bound to `source` speak too. False when nothing would be left and all of it is to be forgotten.
    fn pull_further(&mut self, source: RscIx, factor: f32, pull: Pull, work: &mut Table) -> bool {
        if !self.any_open(work) {
            return !pull.optional;
        }
        let factor = if self.habit(Habit::NeverFades) { factor.signum() } else { factor };
        let list =
            if pull.primaries { self.this_with_list(source) } else { self.with_this_list(source) };
        for next in list {
            let c = self.colocs[next];
            let other = if pull.primaries { c.primary } else { c.dependent };
            if pull.primaries || self.influences(next) {
                let deeper = Pull { optional: true, ..pull };
                self.pull(other, next, share(factor, c.score), deeper, work);
            }
        }
        true
    }

    fn any_open(&self, table: &Table) -> bool {
        let open = |s: &Option<Score>| s.is_some_and(|s| s >= Score::ZERO);
        table.iter().zip(&self.nodes).any(|(s, n)| open(s) && n.available())
    }

    fn add_matching(&self, source: RscIx, ix: ColocIx, factor: f32, pull: Pull, work: &mut Table) {
        let own = self.preferences(source, ix);
        let bests = self.best_by_place(&own, ix);
        for (entry, best) in work.iter_mut().zip(bests) {
            if factor < 0.0 && best < Score::ZERO && !self.gives_way(ix, best) {
                continue;
            }
            let Some(old) = *entry else { continue };
            let sum = old.plus(scaled(factor, best));
            if !pull.positive || sum >= Score::ZERO || old < Score::ZERO {
                *entry = Some(sum);
            } else if old > Score::ZERO {
                *entry = None;
            }
        }
    }

    /// A dependent that keeps away from the primary and cannot be on a node says nothing about that node, unless it can run on one node only:
    /// then the primary may leave that, if nothing holds it.
    pub(super) fn gives_way(&self, ix: ColocIx, best: Score) -> bool {
        if self.habit(Habit::NeverGivesWay) {
            return false;
        }
        let c = &self.colocs[ix];
        let allowed = self.rscs[c.dependent].scores.iter().filter(|s| **s >= Score::ZERO).count();
        self.rscs[c.primary].meta.stickiness < best.negated() && self.influences(ix) && allowed == 1
    }

    /// A resource's scores. A later member of a group that follows something on its own has not got the group's locations yet.
    pub(super) fn preferences(&self, source: RscIx, ix: ColocIx) -> Vec<Score> {
        let rsc = &self.rscs[source];
        let mut scores = rsc.scores.clone();
        let c = &self.colocs[ix];
        let group = rsc.parent.map(|p| &self.rscs[p]).filter(|p| {
            matches!(p.kind, Kind::Group { .. }) && p.children.first() != Some(&source)
        });
        if let Some(group) = group.filter(|_| source == c.dependent && !c.internal) {
            for (n, score) in &group.located {
                scores[*n] = scores[*n].plus(*score);
            }
        }
        scores
    }

    /// For each node the best score among the usable nodes that are one place with it.
    pub(super) fn best_by_place(&self, own: &[Score], ix: ColocIx) -> Vec<Score> {
        let c = &self.colocs[ix];
        let usable = |m: &NodeIx| self.nodes[*m].available();
        let best = |n: NodeIx| {
            if c.attribute == "#uname" {
                return Some(own[n]).filter(|_| usable(&n));
            }
            let same = (0..own.len()).filter(|m| usable(m) && self.same_place(n, *m, c));
            same.map(|m| own[m]).max()
        };
        (0..own.len()).map(|n| best(n).unwrap_or(Score::NEG_INF)).collect()
    }

    /// A resource's own scores with those of all that it follows.
    pub(super) fn with_primaries(&mut self, r: RscIx) -> Table {
        let source = match self.rscs[r].kind {
            Kind::Group { .. } => self.rscs[r].children.last().copied().unwrap_or(r),
            Kind::Primitive | Kind::Clone(_) => r,
        };
        let mut table: Table = self.rscs[source].scores.iter().copied().map(Some).collect();
        let pull = Pull { primaries: true, optional: true, positive: false };
        self.rscs[source].merging = true;
        self.rscs[r].merging = true;
        self.pull_further(source, 1.0, pull, &mut table);
        self.rscs[source].merging = false;
        self.rscs[r].merging = false;
        table
    }

    /// What must be promoted where `r` goes should not be sent where it cannot be promoted, if another node will do. Those that have just been
    /// heard choose among what all others leave open: else `r` would go where something must stop without which the promotable could not run,
    /// and back as soon as that has stopped. Goes beyond Pacemaker, which would wait there forever.
    pub(super) fn keep_promotable(&mut self, r: RscIx) {
        for clone in std::mem::take(&mut self.voices.promoters) {
            let Some(can) = self.promotable_nodes(clone).filter(|_| !self.props.exact) else {
                continue;
            };
            let scores = self.rscs[r].scores.iter().zip(can);
            let narrowed: Vec<Score> =
                scores.map(|(score, can)| if can { *score } else { Score::NEG_INF }).collect();
            // A node is worth infinity when others must have it so: then none of less worth will do.
            let must = self.best_available(&self.rscs[r].scores) == Some(Score::INF);
            let best = self.best_available(&narrowed).filter(|s| *s == Score::INF || !must);
            if best.is_some_and(|s| s >= Score::ZERO) {
                *self.rscs[r].scores = narrowed;
            }
        }
    }

    fn best_available(&self, scores: &[Score]) -> Option<Score> {
        let usable = scores.iter().zip(&self.nodes).filter(|(_, n)| n.available());
        usable.map(|(s, _)| *s).max()
    }
}

/// The table as plain scores.
pub(super) fn settled(table: &Table) -> Vec<Score> {
    table.iter().map(|s| s.unwrap_or(Score::new(1))).collect()
}
