//! How resources pull and push each other: which colocations count for a resource, and what a placed resource means for those that follow it.

use super::Habit;
use super::model::{Coloc, ColocIx, Kind, Model, NodeIx, RscIx};
use crate::cib::{Role, Score};
use std::cmp::Ordering;

/// What a colocation decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Effect {
    /// Nothing (yet).
    Nothing,
    /// Where the dependent may go.
    Place,
    /// Which role the dependent may have; where it goes is decided.
    Role,
}

impl<'a> Model<'a> {
    /// Colocations that decide where `r` goes because of others; a group's are its first member's, a clone's its instances'.
    pub(super) fn this_with_list(&self, r: RscIx) -> Vec<ColocIx> {
        self.colocations_of(r, false)
    }

    /// Colocations through which others want to be where `r` is; a group's are its last member's.
    pub(super) fn with_this_list(&self, r: RscIx) -> Vec<ColocIx> {
        self.colocations_of(r, true)
    }

    fn colocations_of(&self, r: RscIx, with: bool) -> Vec<ColocIx> {
        let mut out = Vec::new();
        self.collect(r, r, with, &mut out);
        out.sort_by(|a, b| {
            self.compare_colocations(*a, *b, with)
                .then_with(|| self.compare_inherited(r, (*a, *b), with))
        });
        out.dedup();
        out
    }

    /// Does a parent's colocation count for what is inside of it? With a release's habits it may not, or not yet.
    fn inherits(&self, at: RscIx, of: RscIx, with: bool, ix: ColocIx) -> bool {
        let parent = &self.rscs[at];
        if at == of {
            return true;
        }
        match &parent.kind {
            Kind::Group { .. } if self.habit(Habit::GroupsSpeakLate) => {
                parent.assigning || parent.done
            }
            Kind::Clone(info) if self.habit(Habit::WishesOfFew) && parent.assigning => {
                let nodes = (0..self.nodes.len()).filter(|n| self.nodes[*n].available());
                let score = self.colocs[ix].score;
                let counts = score < Score::ZERO || (!with && score == Score::INF);
                counts || info.max < nodes.count()
            }
            Kind::Group { .. } | Kind::Clone(_) | Kind::Primitive => true,
        }
    }

    /// Adds what `at` (a resource, its parents, their other members) has for `of`.
    fn collect(&self, at: RscIx, of: RscIx, with: bool, out: &mut Vec<ColocIx>) {
        let own = if with { &self.with_this[at] } else { &self.this_with[at] };
        let rsc = &self.rscs[at];
        match rsc.kind {
            Kind::Primitive if at == of => {
                out.extend(own);
                if let Some(parent) = rsc.parent {
                    self.collect(parent, of, with, out);
                }
            }
            // Another member of the group: only what the user said of it.
            Kind::Primitive => out.extend(own.iter().filter(|c| !self.colocs[**c].internal)),
            Kind::Group { colocated, .. } => {
                let end = if with { rsc.children.last() } else { rsc.children.first() };
                if at != of && end != Some(&of) {
                    if !with {
                        self.collect_past_unmanaged(at, of, out);
                    }
                    return;
                }
                out.extend(own.iter().filter(|c| self.inherits(at, of, with, **c)));
                if let Some(parent) = rsc.parent {
                    self.collect(parent, of, with, out);
                }
                if colocated && !self.habit(Habit::GroupsSpeakLate) {
                    for member in rsc.children.iter().filter(|m| **m != of) {
                        self.collect(*member, of, with, out);
                    }
                }
            }
            Kind::Clone(_)
                if rsc.bundle.is_some() && at != of && !self.bundle_speaks_for(at, of) => {}
            Kind::Clone(_) => {
                out.extend(own.iter().filter(|c| self.inherits(at, of, with, **c)));
                if let Some(parent) = rsc.parent {
                    self.collect(parent, of, with, out);
                }
            }
        }
    }

    /// Later members follow the first one through the chain of the group; one that is not managed breaks the chain.
    fn collect_past_unmanaged(&self, group: RscIx, of: RscIx, out: &mut Vec<ColocIx>) {
        let mut earlier = self.rscs[group].children.iter().take_while(|m| **m != of);
        if earlier.any(|m| !self.movable(*m)) {
            let mandatory = |c: &&ColocIx| self.colocs[**c].score == Score::INF;
            out.extend(self.this_with[group].iter().filter(mandatory));
            if let Some(clone) =
                self.rscs[group].parent.filter(|_| self.habit(Habit::GroupsSpeakLate))
            {
                out.extend(self.this_with[clone].iter().filter(mandatory));
            }
        }
    }

    /// By the other side: higher priority, clones before groups before primitives, promotable ones first, id; then the later-written one.
    fn compare_colocations(&self, a: ColocIx, b: ColocIx, with: bool) -> Ordering {
        let other = |c: ColocIx| {
            let c = &self.colocs[c];
            &self.rscs[if with { c.dependent } else { c.primary }]
        };
        let variant = |kind: &Kind| match kind {
            Kind::Clone(_) => 0,
            Kind::Group { .. } => 1,
            Kind::Primitive => 2,
        };
        let (x, y) = (other(a), other(b));
        y.meta
            .priority
            .cmp(&x.meta.priority)
            .then_with(|| variant(&x.kind).cmp(&variant(&y.kind)))
            .then_with(|| y.promotable().cmp(&x.promotable()))
            .then_with(|| x.id.cmp(y.id))
            .then_with(|| x.number.cmp(&y.number))
    }

    /// Of colocations alike the later-written one counts first. An old release hands them down one by one, which turns their order round
    /// each time, and what was handed down last counts first.
    fn compare_inherited(&self, r: RscIx, (a, b): (ColocIx, ColocIx), with: bool) -> Ordering {
        let hops = |ix: ColocIx| {
            let c = &self.colocs[ix];
            let owner = if with { c.primary } else { c.dependent };
            let (mut at, mut hops) = (Some(r), 0);
            while let Some(one) = at.filter(|one| *one != owner) {
                at = self.rscs[one].parent;
                let habit = match at.map(|p| &self.rscs[p].kind) {
                    Some(Kind::Group { .. }) => Habit::GroupsSpeakLate,
                    Some(Kind::Clone(_)) => Habit::WishesOfFew,
                    Some(Kind::Primitive) | None => continue,
                };
                hops += i32::from(self.habit(habit));
            }
            hops
        };
        let (x, y) = (hops(a), hops(b));
        y.cmp(&x).then(if x % 2 == 0 { b.cmp(&a) } else { a.cmp(&b) })
    }

    pub(super) fn attribute_at<'s>(&'s self, node: NodeIx, c: &Coloc<'_>) -> Option<&'s str> {
        self.nodes[self.outside(node)].attribute(c.attribute)
    }

    /// Do two nodes count as one place for this colocation? Two without the attribute do.
    pub(super) fn same_place(&self, a: NodeIx, b: NodeIx, c: &Coloc<'_>) -> bool {
        if a == b || c.attribute == "#uname" {
            return self.outside(a) == self.outside(b);
        }
        match (self.attribute_at(a, c), self.attribute_at(b, c)) {
            (Some(a), Some(b)) => a.eq_ignore_ascii_case(b),
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        }
    }

    /// Where it will be: of a collection only if that is one node.
    pub(super) fn place_of(&self, r: RscIx) -> Option<NodeIx> {
        let rsc = &self.rscs[r];
        if matches!(rsc.kind, Kind::Primitive) {
            return rsc.assigned;
        }
        let mut at = rsc.children.iter().filter_map(|c| self.place_of(*c));
        let first = at.next()?;
        at.all(|n| n == first).then_some(first)
    }

    /// Score of [`Self::place_of`] when it was chosen.
    pub(super) fn place_score(&self, r: RscIx) -> Score {
        let leaves = self.leaves(r);
        let placed = leaves.into_iter().find(|l| self.rscs[*l].assigned.is_some());
        placed.map_or(Score::ZERO, |l| self.rscs[l].assigned_score)
    }

    /// The role it will have as far as that is decided.
    pub(super) fn role_of(&self, r: RscIx) -> Option<Role> {
        let rsc = &self.rscs[self.inside(r)];
        if !matches!(rsc.kind, Kind::Primitive) {
            return rsc.children.iter().filter_map(|c| self.role_of(*c)).max();
        }
        if rsc.done {
            return Some(rsc.next_role);
        }
        rsc.meta.target_role.filter(|role| match role {
            Role::Stopped => true,
            Role::Unpromoted => rsc.clone.is_some_and(|c| self.rscs[c].promotable()),
            Role::Started | Role::Promoted => false,
        })
    }

    /// What a colocation with `primary` decides for `dependent` now. `early`: what it would, before either has its place.
    fn effect(&self, dependent: RscIx, primary: RscIx, c: &Coloc<'_>, early: bool) -> Effect {
        if !early && !self.rscs[primary].done {
            return Effect::Nothing;
        }
        let actor = self.inside(dependent);
        let promotable = self.rscs[actor].clone.is_some_and(|c| self.rscs[c].promotable());
        let by_role = matches!(c.dependent_role, Some(Role::Promoted | Role::Unpromoted));
        if by_role && promotable && self.rscs[actor].done {
            return Effect::Role;
        }
        if !early && self.rscs[dependent].done {
            return Effect::Nothing;
        }
        let other = c.score < Score::ZERO && self.habit(Habit::OtherRoles);
        let fits =
            |role: Option<Role>, r: RscIx| role.is_none() || (role == self.role_of(r)) != other;
        if fits(c.dependent_role, dependent) && fits(c.primary_role, primary) {
            Effect::Place
        } else {
            Effect::Nothing
        }
    }

    /// Would the colocation bind the dependent to the primary's node?
    pub(super) fn binds_place(&self, dependent: RscIx, primary: RscIx, c: &Coloc<'_>) -> bool {
        self.effect(dependent, primary, c, true) == Effect::Place
    }

    /// The effect of a placed `primary` on where `dependent` may go; returns what it means for the dependent's promotion.
    pub(super) fn apply_colocation(
        &mut self,
        dependent: RscIx,
        primary: RscIx,
        ix: ColocIx,
    ) -> Score {
        let c = self.colocs[ix];
        if let Kind::Group { colocated, .. } = self.rscs[dependent].kind {
            return self.apply_to_group(dependent, colocated, primary, ix);
        }
        match self.rscs[primary].kind {
            Kind::Primitive => match self.effect(dependent, primary, &c, false) {
                Effect::Nothing => Score::ZERO,
                Effect::Place => {
                    self.apply_placed(dependent, primary, &c);
                    Score::ZERO
                }
                Effect::Role => self.promotion_delta(dependent, primary, &c),
            },
            Kind::Group { colocated, .. } => {
                if !self.rscs[primary].done {
                    return Score::ZERO;
                }
                let members = self.rscs[primary].children.clone();
                let stands_for_all = match (colocated, c.score == Score::INF) {
                    // The whole group has to be able to run.
                    (true, true) => members.last().copied().into_iter().collect(),
                    (true, false) => members.first().copied().into_iter().collect(),
                    // Members that may be apart are no place to follow.
                    (false, true) => Vec::new(),
                    (false, false) => members,
                };
                let deltas = stands_for_all.into_iter();
                let mut sum = Score::ZERO;
                for member in deltas {
                    sum = sum.plus(self.apply_colocation(dependent, member, ix));
                }
                sum
            }
            Kind::Clone(_) if self.rscs[primary].bundle.is_some() => {
                self.apply_bundle(dependent, primary, ix)
            }
            Kind::Clone(_) => self.apply_clone(dependent, primary, ix),
        }
    }

    fn apply_to_group(
        &mut self,
        group: RscIx,
        colocated: bool,
        primary: RscIx,
        ix: ColocIx,
    ) -> Score {
        let mut members = self.rscs[group].children.clone();
        if colocated {
            members.truncate(1);
        } else if self.colocs[ix].score == Score::INF {
            return Score::ZERO;
        }
        let mut sum = Score::ZERO;
        for member in members {
            sum = sum.plus(self.apply_colocation(member, primary, ix));
        }
        sum
    }

    fn apply_placed(&mut self, dependent: RscIx, primary: RscIx, c: &Coloc<'_>) {
        let Some(node) = self.rscs[primary].assigned else {
            if c.score > Score::ZERO {
                let other = self.rscs[primary].id;
                let text = format!("follows {other}, which runs nowhere ({})", c.id);
                let wish = c.score.negated();
                self.because(dependent, None, "colocation", text).scored(wish).by(other);
                self.add_where_possible(dependent, c, |_| Some(c.score.negated()));
            }
            return;
        };
        let same: Vec<bool> = (0..self.nodes.len()).map(|n| self.same_place(n, node, c)).collect();
        self.add_where_possible(dependent, c, |n| match same[n] {
            true if c.score < Score::INF => Some(c.score),
            false if c.score == Score::INF => Some(Score::NEG_INF),
            true | false => None,
        });
        self.tell_places(dependent, primary, &[node], c);
    }

    /// Adds to the dependent's scores; a wish (finite score) that would leave it nowhere to go is dropped.
    fn add_where_possible(
        &mut self,
        dependent: RscIx,
        c: &Coloc<'_>,
        more: impl Fn(NodeIx) -> Option<Score>,
    ) {
        let mut work = self.rscs[dependent].scores.clone();
        for (n, score) in work.iter_mut().enumerate() {
            if let Some(more) = more(n) {
                *score = score.plus(more);
            }
        }
        if c.score.is_infinite() || self.any_available(&work) {
            *self.rscs[dependent].scores = work;
        }
    }

    fn tell_places(&mut self, dependent: RscIx, primary: RscIx, at: &[NodeIx], c: &Coloc<'_>) {
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

    fn apply_clone(&mut self, dependent: RscIx, clone: RscIx, ix: ColocIx) -> Score {
        let c = self.colocs[ix];
        if !self.rscs[clone].done {
            return Score::ZERO;
        }
        if self.rscs[clone].promotable() && c.primary_role.is_some() {
            if !self.rscs[dependent].done {
                self.follow_role(dependent, clone, &c);
                return Score::ZERO;
            }
            if c.dependent_role == Some(Role::Promoted) {
                return self.partner_delta(dependent, clone, &c);
            }
        }
        if self.interleaves(&c) {
            return self.follow_partner(dependent, clone, ix);
        }
        if c.score == Score::INF {
            let nodes = self.unblocked_places(clone);
            self.keep_to(dependent, clone, &c, &nodes, false);
            return Score::ZERO;
        }
        let mut sum = Score::ZERO;
        for instance in self.rscs[clone].children.clone() {
            sum = sum.plus(self.apply_colocation(dependent, instance, ix));
        }
        sum
    }

    /// Nodes where a clone will have an instance that is not blocked.
    fn unblocked_places(&self, clone: RscIx) -> Vec<(NodeIx, Score)> {
        let instances = self.rscs[clone].children.iter();
        let free = instances.filter(|i| !self.any_blocked(**i));
        free.filter_map(|i| Some((self.place_of(*i)?, self.place_score(*i)))).collect()
    }

    pub(super) fn any_blocked(&self, r: RscIx) -> bool {
        self.leaves(r).into_iter().any(|l| self.rscs[l].blocked())
    }

    /// The dependent may only be where the clone is (in the role asked for).
    pub(super) fn keep_to(
        &mut self,
        dependent: RscIx,
        clone: RscIx,
        c: &Coloc<'_>,
        at: &[(NodeIx, Score)],
        merge: bool,
    ) {
        for n in 0..self.nodes.len() {
            let found = at.iter().find(|(m, _)| self.same_place(n, *m, c));
            let old = self.rscs[dependent].scores[n];
            self.rscs[dependent].scores[n] = match found {
                None => Score::NEG_INF,
                Some((_, score)) if merge => old.plus(*score),
                Some(_) => old,
            };
        }
        if at.is_empty() {
            let role = if c.primary_role == Some(Role::Promoted) { "promoted" } else { "running" };
            let id = self.rscs[clone].id;
            let text = format!("follows {id}, which is {role} nowhere ({})", c.id);
            self.because(dependent, None, "colocation", text).scored(Score::NEG_INF).by(id);
        } else {
            let nodes: Vec<NodeIx> = at.iter().map(|(n, _)| *n).collect();
            self.tell_places(dependent, clone, &nodes, c);
        }
    }

    /// A dependent that looks for its place follows instances in a role.
    fn follow_role(&mut self, dependent: RscIx, clone: RscIx, c: &Coloc<'_>) {
        let mut at = Vec::new();
        for instance in self.rscs[clone].children.clone() {
            let Some(node) = self.place_of(instance) else { continue };
            if self.role_of(instance) != c.primary_role {
                continue;
            }
            at.push((node, self.place_score(instance)));
            if c.score < Score::INF {
                for n in 0..self.nodes.len() {
                    if self.same_place(n, node, c) {
                        let sum = self.rscs[dependent].scores[n].plus(c.score);
                        self.rscs[dependent].scores[n] = sum;
                    }
                }
            }
        }
        // Otherwise an instance that is to be promoted could not even be unpromoted before.
        let both = c.dependent_role == Some(Role::Promoted) && c.primary_role == c.dependent_role;
        if c.score == Score::INF && !both {
            self.keep_to(dependent, clone, c, &at, true);
        } else if !at.is_empty() {
            let nodes: Vec<NodeIx> = at.iter().map(|(n, _)| *n).collect();
            self.tell_places(dependent, clone, &nodes, c);
        }
    }

    /// Each instance follows the one on its own node?
    fn interleaves(&self, c: &Coloc<'_>) -> bool {
        match (self.rscs[c.dependent].clone_info(), self.rscs[c.primary].clone_info()) {
            (Some(d), Some(p)) => d.interleave && d.node_max == p.node_max,
            _ => false,
        }
    }

    fn follow_partner(&mut self, dependent: RscIx, clone: RscIx, ix: ColocIx) -> Score {
        let c = self.colocs[ix];
        if let Some(partner) = self.partner(dependent, clone) {
            return self.apply_colocation(dependent, partner, ix);
        }
        if c.score == Score::INF && !self.rscs[dependent].done {
            let other = self.rscs[clone].id;
            let text = format!("no instance of {other} is where it could be ({})", c.id);
            self.because(dependent, None, "colocation", text).scored(Score::NEG_INF).by(other);
            self.settle(dependent, None);
        }
        Score::ZERO
    }

    /// The instance of a clone that is where `r` is, or where `r` would like best to be.
    fn partner(&self, r: RscIx, clone: RscIx) -> Option<RscIx> {
        let nodes = match self.place_of(r) {
            Some(node) => vec![node],
            None => self.sorted_nodes(&self.rscs[r].scores, None),
        };
        let instances = &self.rscs[clone].children;
        let fits = |i: &RscIx, n: NodeIx| !self.any_blocked(*i) && self.place_of(*i) == Some(n);
        nodes.into_iter().find_map(|n| instances.iter().copied().find(|i| fits(i, n)))
    }

    /// What following `primary` means for the promotion of a placed dependent.
    fn promotion_delta(&self, dependent: RscIx, primary: RscIx, c: &Coloc<'_>) -> Score {
        let Some(node) = self.rscs[dependent].assigned else { return Score::ZERO };
        let other = self.rscs[primary].assigned;
        if other.is_none() && !self.props.exact {
            // What is followed has been stopped: no reason to take the instance's role away.
            return Score::ZERO;
        }
        if other.is_some() && c.primary_role.is_some() && c.primary_role != self.role_of(primary) {
            return Score::ZERO;
        }
        let same = match other {
            Some(other) => self.same_place(node, other, c),
            None => self.attribute_at(node, c).is_none(),
        };
        match (same, c.dependent_role) {
            (false, Some(Role::Promoted)) if c.score == Score::INF => Score::NEG_INF,
            (false, _) => Score::ZERO,
            (true, Some(Role::Unpromoted)) => c.score.negated(),
            (true, _) => c.score,
        }
    }

    /// The same where the other side is a role of another promotable clone.
    fn partner_delta(&self, dependent: RscIx, clone: RscIx, c: &Coloc<'_>) -> Score {
        let Some(node) = self.place_of(dependent) else { return Score::ZERO };
        let mut instances = self.rscs[clone].children.iter();
        let partner = instances.any(|i| {
            self.role_of(*i) == c.primary_role
                && !self.any_blocked(*i)
                && self.place_of(*i).is_some_and(|n| self.same_place(n, node, c))
        });
        if partner {
            c.score
        } else if c.score == Score::INF {
            Score::NEG_INF
        } else {
            Score::ZERO
        }
    }
}
