//! How resources pull and push each other: colocations applied to node scores.

use super::model::{Coloc, ColocIx, Kind, Model, NodeIx, RscIx};
use crate::cib::{Role, Score};

/// Where a dependent's preferences are collected for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pull {
    /// The resource that is being placed.
    pub(super) target: RscIx,
    /// Its clone takes no negative preferences.
    pub(super) positive_only: bool,
}

/// 32-bit as in Pacemaker: the rounding is part of the result.
pub(super) fn factor_of(score: Score) -> f32 {
    #[expect(clippy::cast_precision_loss, reason = "at most one million, exact in an f32")]
    let value = score.value() as f32;
    value / 1_000_000.0
}

/// `factor` times `score`, rounded half away from zero; what was not zero never becomes zero.
fn scaled(factor: f32, score: Score) -> Score {
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
    fn group_end(&self, r: RscIx, last: bool) -> bool {
        let Some(parent) = self.rscs[r].parent else { return false };
        if !matches!(self.rscs[parent].kind, Kind::Group { colocated: true, .. }) {
            return false;
        }
        let children = &self.rscs[parent].children;
        if last { children.last() == Some(&r) } else { children.first() == Some(&r) }
    }

    /// Colocations that decide where `r` goes because of others; a group's are its first member's, a clone's its instances'.
    pub(super) fn this_with_list(&self, r: RscIx) -> Vec<ColocIx> {
        let mut out = self.gather(r, false);
        out.sort_by_cached_key(|c| self.coloc_key(self.colocs[*c].primary, *c));
        out.dedup();
        out
    }

    /// Colocations through which others want to be where `r` is; a group's are its last member's.
    pub(super) fn with_this_list(&self, r: RscIx) -> Vec<ColocIx> {
        let mut out = self.gather(r, true);
        out.sort_by_cached_key(|c| self.coloc_key(self.colocs[*c].dependent, *c));
        out.dedup();
        out
    }

    fn gather(&self, r: RscIx, with: bool) -> Vec<ColocIx> {
        let index = if with { &self.with_this } else { &self.this_with };
        let mut out = index[r].clone();
        let explicit = |out: &mut Vec<ColocIx>, members: &[RscIx]| {
            for member in members {
                out.extend(index[*member].iter().filter(|c| !self.colocs[**c].internal));
            }
        };
        if matches!(self.rscs[r].kind, Kind::Group { .. }) {
            explicit(&mut out, &self.rscs[r].children);
        }
        let Some(parent) = self.rscs[r].parent else { return out };
        match self.rscs[parent].kind {
            Kind::Clone(_) => {
                // Where every node gets an instance, preferences of dependents choose none of them.
                let all = self.rscs[parent].selective;
                let binds = |c: &ColocIx| {
                    let score = self.colocs[*c].score;
                    all || score < Score::ZERO || (!with && score == Score::INF)
                };
                out.extend(self.gather(parent, with).into_iter().filter(binds));
            }
            Kind::Group { .. } if self.group_end(r, with) => {
                out.extend(self.gather(parent, with));
            }
            Kind::Group { .. } | Kind::Primitive => {}
        }
        out
    }

    /// Priority, then groups before primitives and clones before groups, promotable ones first, then id.
    fn coloc_key(&self, other: RscIx, c: ColocIx) -> (i64, u8, bool, String, String, ColocIx) {
        let rsc = &self.rscs[other];
        let variant = match rsc.kind {
            Kind::Clone(_) => 0,
            Kind::Group { .. } => 1,
            Kind::Primitive => 2,
        };
        let id = self.colocs[c].id.to_owned();
        (-i64::from(rsc.meta.priority), variant, !rsc.promotable(), self.label(other), id, c)
    }

    fn attribute_at<'s>(&'s self, node: NodeIx, c: &Coloc<'_>) -> Option<&'s str> {
        self.nodes[node].attribute(c.attribute)
    }

    /// The effect of a placed `primary` on where `dependent` may go.
    pub(super) fn apply_colocation(&mut self, dependent: RscIx, c: &Coloc<'_>) {
        let primary = c.primary;
        if c.dependent_role.is_some() {
            // It is about the role of an instance, not about where it runs: see `promote`.
            return;
        }
        match &self.rscs[primary].kind {
            Kind::Primitive => self.apply_one(dependent, primary, c),
            Kind::Group { .. } => {
                let members = &self.rscs[primary].children;
                let member = if c.score == Score::INF { members.last() } else { members.first() };
                if let Some(member) = member.copied() {
                    self.apply_one(dependent, member, c);
                }
            }
            Kind::Clone(_) => self.apply_clone(dependent, primary, c),
        }
    }

    /// A wish (finite score) that would leave the dependent nowhere to go is dropped.
    fn apply_one(&mut self, dependent: RscIx, primary: RscIx, c: &Coloc<'_>) {
        let before = (!c.score.is_infinite()).then(|| self.rscs[dependent].scores.clone());
        self.apply_placed(dependent, primary, c);
        if let Some(before) = before
            && !self.any_available(&self.rscs[dependent].scores)
        {
            self.rscs[dependent].scores = before;
        }
    }

    fn apply_placed(&mut self, dependent: RscIx, primary: RscIx, c: &Coloc<'_>) {
        let rsc = &self.rscs[primary];
        if !rsc.done || c.primary_role.is_some_and(|role| role != rsc.next_role) {
            return;
        }
        let Some(node) = rsc.assigned else {
            if c.score > Score::ZERO {
                let other = self.rscs[primary].id;
                let text = format!("follows {other}, which runs nowhere ({})", c.id);
                let wish = c.score.negated();
                self.because(dependent, None, "colocation", text).scored(wish).by(other);
                for score in &mut self.rscs[dependent].scores {
                    *score = score.plus(c.score.negated());
                }
            }
            return;
        };
        let reach = self.reach(&[node], c);
        self.apply_reach(dependent, &reach, c);
        self.tell_reach(dependent, primary, &[node], c);
    }

    /// Nodes that count as "the same" as one of `nodes` for this colocation.
    fn reach(&self, nodes: &[NodeIx], c: &Coloc<'_>) -> Vec<bool> {
        let same = |n: NodeIx, m: NodeIx| {
            n == m || {
                let value = self.attribute_at(n, c);
                value.is_some() && value == self.attribute_at(m, c)
            }
        };
        (0..self.nodes.len()).map(|n| nodes.iter().any(|m| same(n, *m))).collect()
    }

    fn apply_reach(&mut self, dependent: RscIx, reach: &[bool], c: &Coloc<'_>) {
        for (score, inside) in self.rscs[dependent].scores.iter_mut().zip(reach) {
            if *inside {
                if c.score < Score::INF {
                    *score = score.plus(c.score);
                }
            } else if c.score == Score::INF {
                *score = Score::NEG_INF;
            }
        }
    }

    fn tell_reach(&mut self, dependent: RscIx, primary: RscIx, at: &[NodeIx], c: &Coloc<'_>) {
        if c.internal {
            return;
        }
        let names: Vec<&str> = at.iter().map(|n| self.nodes[*n].name).collect();
        let other = self.rscs[primary].id;
        let verb = if c.score > Score::ZERO { "goes with" } else { "keeps away from" };
        let text = format!("{verb} {other} on {} (score {}, {})", names.join(" "), c.score, c.id);
        for node in at {
            let reason = self.because(dependent, Some(*node), "colocation", text.clone());
            reason.scored(c.score).by(other);
        }
        if c.score == Score::INF {
            self.because(dependent, None, "colocation", text).by(other);
        }
    }

    fn apply_clone(&mut self, dependent: RscIx, clone: RscIx, c: &Coloc<'_>) {
        if !self.rscs[clone].done {
            return;
        }
        if !c.score.is_infinite() {
            for instance in self.rscs[clone].children.clone() {
                if let Some(leaf) = self.leaves(instance).first().copied() {
                    self.apply_one(dependent, leaf, c);
                }
            }
            return;
        }
        let nodes = self.clone_nodes(clone, c.primary_role);
        let reach = self.reach(&nodes, c);
        if nodes.is_empty() && c.score == Score::INF {
            let role = if c.primary_role == Some(Role::Promoted) { "promoted" } else { "running" };
            let id = self.rscs[clone].id;
            let text = format!("follows {id}, which is {role} nowhere ({})", c.id);
            self.because(dependent, None, "colocation", text).scored(Score::NEG_INF).by(id);
        } else {
            self.tell_reach(dependent, clone, &nodes, c);
        }
        self.apply_reach(dependent, &reach, c);
    }

    /// Nodes where instances of a clone will be, in a role if one is asked for.
    fn clone_nodes(&self, clone: RscIx, role: Option<Role>) -> Vec<NodeIx> {
        let instances = self.rscs[clone].children.iter();
        let at = instances.filter_map(|i| {
            let leaf = self.leaves(*i).last().copied()?;
            let rsc = &self.rscs[leaf];
            let matches = role.is_none_or(|role| rsc.next_role == role);
            rsc.assigned.filter(|_| matches)
        });
        at.collect()
    }

    /// Adds to `nodes` what `dependent` (and what depends on it) prefers.
    pub(super) fn pull(&mut self, ix: ColocIx, factor: f32, pull: Pull, nodes: &mut Vec<Score>) {
        let c = self.colocs[ix].clone();
        // A group speaks through its first member, which the others follow one by one.
        let src = self.preference_source(c.dependent);
        if self.rscs[src].merging || src == pull.target || !self.influences(&c) {
            return;
        }
        self.rscs[src].merging = true;
        let mut work = nodes.clone();
        self.add_matching(&c, factor, pull, &mut work);
        if self.any_available(&work) {
            for next in self.with_this_list(src) {
                let further = factor * factor_of(self.colocs[next].score);
                self.pull(next, further, pull, &mut work);
            }
            if !pull.positive_only {
                // A clone's own table does not know yet what its instances follow.
                self.only_promotable(&c, factor, &mut work);
            }
            *nodes = work;
        }
        self.rscs[src].merging = false;
    }

    /// A dependent that is not critical does not drag an active primary.
    fn influences(&self, c: &Coloc<'_>) -> bool {
        self.rscs[c.dependent].meta.critical || !self.is_active(c.primary)
    }

    fn add_matching(&self, c: &Coloc<'_>, factor: f32, pull: Pull, work: &mut [Score]) {
        let table = &self.rscs[self.preference_source(c.dependent)].scores;
        for (n, weight) in work.iter_mut().enumerate() {
            let best = self.best_matching(n, table, c);
            if factor < 0.0 && best < Score::ZERO {
                // A dependent that keeps away and cannot be there anyway says nothing.
                continue;
            }
            let sum = weight.plus(scaled(factor, best));
            if !pull.positive_only || sum >= Score::ZERO || *weight < Score::ZERO {
                *weight = sum;
            } else if *weight > Score::ZERO {
                *weight = Score::new(1);
            }
        }
    }

    fn best_matching(&self, n: NodeIx, table: &[Score], c: &Coloc<'_>) -> Score {
        let usable = |m: NodeIx| self.nodes[m].available();
        if c.attribute == "#uname" {
            return if usable(n) { table[n] } else { Score::NEG_INF };
        }
        let value = self.attribute_at(n, c);
        let same = |m: &NodeIx| value.is_some() && self.attribute_at(*m, c) == value;
        let scores = (0..table.len()).filter(|m| usable(*m) && same(m)).map(|m| table[m]);
        scores.max().unwrap_or(Score::NEG_INF)
    }

    /// Whose table stands for a resource's preferences.
    fn preference_source(&self, r: RscIx) -> RscIx {
        match self.rscs[r].kind {
            Kind::Group { .. } => self.rscs[r].children.first().copied().unwrap_or(r),
            Kind::Primitive | Kind::Clone(_) => r,
        }
    }

    /// What must be promoted where this goes should not be sent where it cannot be promoted, if another node will do.
    /// Goes beyond Pacemaker, which would wait there forever.
    fn only_promotable(&self, c: &Coloc<'_>, factor: f32, work: &mut Vec<Score>) {
        let mandatory = c.score == Score::INF && factor > 0.0;
        if self.props.exact || !mandatory || c.dependent_role != Some(Role::Promoted) {
            return;
        }
        let Some(can) = self.promotable_nodes(c.dependent) else { return };
        let mut narrowed = work.clone();
        for (n, score) in narrowed.iter_mut().enumerate() {
            if !can[n] {
                *score = Score::NEG_INF;
            }
        }
        if self.any_available(&narrowed) {
            *work = narrowed;
        }
    }
}
