//! What all that depends on a resource says of the nodes, summed up once and heard often.
//!
//! `pull` walks along every path of colocations for every resource that is placed: for a chain of n that is n²/2 steps, for a ladder 2ⁿ.
//! But the additions that it makes to a node's score are, as long as nothing is forgotten on the way, one function of that score: its sum, and
//! the lowest and highest value on the way there. Such functions are put together from those further out, kept, and dropped when a score that
//! they came from changes. Where it is not certain that they say what the walk would, the walk is taken.

use super::Habits;
use super::model::{ColocIx, Kind, Model, RscIx};
use super::pull::{scaled, share};
use super::scores::Changes;
use crate::cib::{Role, Score};
use std::collections::BTreeMap;
use std::rc::Rc;

/// Additions in a row to one node's score, as one function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Say {
    sum: i64,
    /// The lowest value on the way, at most 0.
    low: i64,
    /// The highest value on the way, at least 0.
    high: i64,
    /// One of them is minus infinity, which nothing makes up for.
    never: bool,
}

/// An infinity among numbers: no sum of scores comes near.
const FAR: i64 = 1 << 40;
const INFINITE: i64 = 1_000_000;

impl Say {
    const NOTHING: Self = Self { sum: 0, low: 0, high: 0, never: false };

    fn of(score: Score) -> Self {
        let sum = match score {
            Score::INF => FAR,
            Score::NEG_INF => -FAR,
            other => i64::from(other.value()),
        };
        Self { sum, low: sum.min(0), high: sum.max(0), never: score == Score::NEG_INF }
    }

    fn then(self, next: Self) -> Self {
        Self {
            sum: self.sum.saturating_add(next.sum),
            low: self.low.min(self.sum.saturating_add(next.low)),
            high: self.high.max(self.sum.saturating_add(next.high)),
            never: self.never || next.never,
        }
    }

    /// The score after them all. `None` where it depends on which infinity is met first.
    fn applied(self, score: Score) -> Option<Score> {
        if self.never || score.is_infinite() {
            return Some(if self.never { Score::NEG_INF } else { score });
        }
        let at = i64::from(score.value());
        match (at + self.low <= -INFINITE, at + self.high >= INFINITE) {
            (true, true) => None,
            (true, false) => Some(Score::NEG_INF),
            (false, true) => Some(Score::INF),
            (false, false) => Some(Score::new(at + self.sum)),
        }
    }

    /// The score is never below zero on the way.
    fn keeps_open(self, score: Score) -> bool {
        let finite = !score.is_infinite() && i64::from(score.value()) + self.low >= 0;
        score >= Score::ZERO && !self.never && (score == Score::INF || finite)
    }

    /// The score is below zero all the way.
    fn keeps_shut(self, score: Score) -> bool {
        score == Score::NEG_INF || i64::from(score.value()) + self.high < 0
    }
}

type Says = Rc<Vec<Say>>;
/// Whose followers, and the factor (its bits) that they count with.
type Key = (RscIx, u32);

#[derive(Debug)]
struct Entry {
    /// `None`: dropped, to be made again.
    says: Option<Says>,
    /// Entries that were made of this one.
    uppers: Vec<usize>,
}

/// What is kept.
#[derive(Debug, Default)]
pub(super) struct Voices {
    pub(super) changes: Changes,
    /// Promotable clones that must be promoted where what is listening to its dependents goes: noted by the walk.
    pub(super) promoters: Vec<RscIx>,
    by_key: BTreeMap<Key, usize>,
    entries: Vec<Entry>,
    /// Entries that were made from a resource's scores.
    from: BTreeMap<RscIx, Vec<usize>>,
    /// How many paths of followers begin at a resource; on the way: `None`.
    paths: BTreeMap<RscIx, Option<u32>>,
}

/// So few paths are walked as fast as they are summed up.
const FEW: u32 = 32;
/// Factors other than one differ on every way: keeping what they lead to only pays where there are very many ways.
const VERY_MANY: u32 = 50_000;
/// Entries kept at a time.
const KEPT: usize = 100_000;

impl Voices {
    /// Forgets all: the nodes have changed.
    pub(super) fn forget(&mut self) {
        self.by_key.clear();
        self.entries.clear();
        self.from.clear();
    }

    fn drop_from(&mut self, r: RscIx) {
        let mut work = self.from.remove(&r).unwrap_or_default();
        while let Some(at) = work.pop() {
            let Some(entry) = self.entries.get_mut(at) else { continue };
            if entry.says.take().is_some() {
                work.append(&mut entry.uppers);
            }
        }
    }
}

impl Model<'_> {
    /// The scores of `r` when the dependent of a colocation, and all that depends on it, has spoken. `None`: that has to be walked.
    pub(super) fn heard(&mut self, r: RscIx, ix: ColocIx, positive: bool) -> Option<Vec<Score>> {
        let c = self.colocs[ix];
        let factor = share(1.0, c.score);
        if self.props.habits != Habits::default() || !self.worth_keeping(c.dependent, factor) {
            return None;
        }
        self.drop_changed();
        let says = self.voice(ix, factor, None)?;
        let scores: &[Score] = &self.rscs[r].scores;
        let mut pairs = says.iter().zip(scores);
        let open =
            pairs.zip(&self.nodes).any(|((say, score), n)| n.available() && say.keeps_open(*score));
        if !open {
            // Something might be forgotten on the way.
            return None;
        }
        pairs = says.iter().zip(scores);
        pairs
            .map(|(say, score)| {
                let plain = !positive || say.keeps_open(*score) || say.keeps_shut(*score);
                say.applied(*score).filter(|_| plain)
            })
            .collect()
    }

    fn worth_keeping(&mut self, source: RscIx, factor: f32) -> bool {
        let paths = self.paths(source);
        let enough = if (factor.abs() - 1.0).abs() < f32::EPSILON { FEW } else { VERY_MANY };
        paths > enough
    }

    /// The resource that a dependent speaks through: of a group its first member.
    fn speaker_of(&self, dependent: RscIx) -> RscIx {
        match self.rscs[dependent].kind {
            Kind::Group { .. } => {
                self.rscs[dependent].children.first().copied().unwrap_or(dependent)
            }
            Kind::Primitive | Kind::Clone(_) => dependent,
        }
    }

    fn paths(&mut self, dependent: RscIx) -> u32 {
        let source = self.speaker_of(dependent);
        if let Some(known) = self.voices.paths.get(&source) {
            // A loop has no end.
            return known.unwrap_or(u32::MAX);
        }
        self.voices.paths.insert(source, None);
        let mut sum = 1_u32;
        for next in self.with_this_list(source) {
            if self.influences(next) {
                sum = sum.saturating_add(self.paths(self.colocs[next].dependent));
            }
        }
        self.voices.paths.insert(source, Some(sum));
        sum
    }

    fn drop_changed(&mut self) {
        for r in self.voices.changes.take() {
            self.rscs[r].scores.watch();
            self.voices.drop_from(r);
        }
        if self.voices.entries.len() > KEPT.max(4 * self.rscs.len()) {
            self.voices.forget();
        }
    }

    /// What the dependent of a colocation says, and after it all that depends on it. `upper`: the entry that is made of it.
    fn voice(&mut self, ix: ColocIx, factor: f32, upper: Option<usize>) -> Option<Vec<Say>> {
        let c = self.colocs[ix];
        let silent = vec![Say::NOTHING; self.nodes.len()];
        if factor == 0.0 {
            return Some(silent);
        }
        if !self.props.exact && c.score == Score::INF && c.dependent_role == Some(Role::Promoted) {
            // It is also to be remembered, for the nodes where it can be promoted.
            return None;
        }
        let source = self.speaker_of(c.dependent);
        if let Some(upper) = upper {
            for r in [source, c.dependent] {
                self.voices.from.entry(r).or_default().push(upper);
            }
        }
        if source == c.dependent && matches!(self.rscs[source].kind, Kind::Group { .. }) {
            // It is empty.
            return Some(silent);
        }
        let own = self.said(source, ix, factor);
        let further = self.followers(source, factor, upper)?;
        Some(own.into_iter().zip(further.iter()).map(|(a, b)| a.then(*b)).collect())
    }

    /// All that depends on `source`, as one.
    fn followers(&mut self, source: RscIx, factor: f32, upper: Option<usize>) -> Option<Says> {
        let key = (source, factor.to_bits());
        if let Some(at) = self.voices.by_key.get(&key).copied() {
            // Made and not finished: a loop.
            if let Some(says) = self.voices.entries[at].says.clone() {
                self.voices.entries[at].uppers.extend(upper);
                return Some(says);
            }
        }
        if self.rscs[source].merging || self.patience == 0 {
            return None;
        }
        self.patience -= 1;
        let at = self.voices.entries.len();
        self.voices.entries.push(Entry { says: None, uppers: upper.into_iter().collect() });
        self.voices.by_key.insert(key, at);
        self.rscs[source].merging = true;
        let says = self.together(source, factor, at);
        self.rscs[source].merging = false;
        let says = Rc::new(says?);
        self.voices.entries[at].says = Some(Rc::clone(&says));
        Some(says)
    }

    fn together(&mut self, source: RscIx, factor: f32, at: usize) -> Option<Vec<Say>> {
        let mut sum = vec![Say::NOTHING; self.nodes.len()];
        for next in self.with_this_list(source) {
            if !self.influences(next) {
                continue;
            }
            let further = share(factor, self.colocs[next].score);
            let says = self.voice(next, further, Some(at))?;
            for (sum, say) in sum.iter_mut().zip(says) {
                *sum = sum.then(say);
            }
        }
        Some(sum)
    }

    /// What `source` alone adds to each node.
    fn said(&self, source: RscIx, ix: ColocIx, factor: f32) -> Vec<Say> {
        let own = self.preferences(source, ix);
        let bests = self.best_by_place(&own, ix).into_iter();
        bests
            .map(|best| {
                if factor < 0.0 && best < Score::ZERO && !self.gives_way(ix, best) {
                    Say::NOTHING
                } else {
                    Say::of(scaled(factor, best))
                }
            })
            .collect()
    }
}
