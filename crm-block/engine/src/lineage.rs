//! Generations of data and the one function that says who may overwrite whom.

use serde::{Deserialize, Serialize};

/// Generation of a replica that never held data.
pub const NEVER: u64 = 0;
/// Length of the ring of ancestors.
pub const HISTORY: usize = 32;

/// State of a disk, worst first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Disk {
    /// No backing disk, or it failed.
    Diskless,
    /// In the middle of a sync.
    Inconsistent,
    /// Whole, but known to be old.
    Outdated,
    /// Whole; whether newest is not known yet.
    Consistent,
    /// Has every acknowledged write.
    UpToDate,
}

/// What a replica says about itself when it connects: all that [`compare`] looks at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// Index of the sender among the replicas.
    pub index: u8,
    /// Size of the volume in bytes.
    pub size: u64,
    /// Day-0 generation.
    pub day0: u64,
    /// Current generation.
    pub current: u64,
    /// For every replica: the generation since which its lacks are tracked, 0 = none.
    pub bitmap: Vec<u64>,
    /// Ancestors, newest first.
    pub history: Vec<u64>,
    /// Disk.
    pub disk: Disk,
    /// Primary now.
    pub primary: bool,
    /// Was primary when it crashed and nothing has settled that since.
    pub crashed: bool,
    /// The operator gave its changes up.
    pub discard: bool,
    /// Connected to this primary.
    pub sees_primary: Option<u8>,
    /// Being resynced from there.
    pub target_of: Option<u8>,
    /// While torn: the generation it has parts of, 0 = none.
    pub goal: u64,
    /// Generation before `current` while not all that take part are known to have stored that one, 0 = they have.
    pub base: u64,
}

impl Hello {
    /// Does not know whether its generation came about: decides by what the other side says, then meets it anew.
    #[must_use]
    pub fn undecided(&self) -> bool {
        self.base != 0 && !self.primary
    }

    /// The generation since which this replica tracks what `peer` lacks, 0 = it lacks nothing. Before a primary's new generation is settled,
    /// those that are to take part in it may still have the one before.
    fn tracked(&self, peer: u8) -> u64 {
        match self.bitmap.get(usize::from(peer)).copied().unwrap_or(0) {
            0 if self.primary => self.base,
            generation => generation,
        }
    }
}

/// Outcome of [`compare`], as seen by the first argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Same data; bits, if there are any, flow in this direction.
    Equal(Direction),
    /// Older and newer: the direction, and whether everything has to be copied.
    Differ(Direction, Extent),
    /// Nothing to do between these two now (a primary cares for it, or neither is usable).
    Wait,
    /// Must not connect.
    Refuse(Why),
}

/// Which way data flows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// I am the source.
    Source,
    /// I am the target.
    Target,
}

/// How much data flows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// What the bitmaps say.
    Bitmap,
    /// Everything.
    Full,
}

/// Why two replicas must not connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Why {
    /// Both changed since they parted.
    #[error("split brain: both sides changed since they parted")]
    SplitBrain,
    /// Two primaries, and the data of at most one went on: they connect as soon as one is demoted (a minority that is being stopped).
    #[error("two replicas are primary: they connect when one of them is demoted")]
    TwoPrimaries,
    /// A live primary has older data than its peer.
    #[error("split brain: the primary has older data than its peer")]
    StalePrimary,
    /// Nothing in common.
    #[error("unrelated data: the generations have nothing in common")]
    Unrelated,
    /// Different definition.
    #[error("unrelated data: size, day-0 generation or replica order differ")]
    Definition,
}

impl Why {
    /// It passes without anybody's word on whose data may go.
    #[must_use]
    pub fn passes(self) -> bool {
        self == Self::TwoPrimaries
    }
}

impl Direction {
    fn flip(self) -> Self {
        match self {
            Self::Source => Self::Target,
            Self::Target => Self::Source,
        }
    }
}

/// Decides, from exchanged facts alone, so that both sides come to mirrored outcomes.
#[must_use]
pub fn compare(me: &Hello, peer: &Hello) -> Verdict {
    let n = me.bitmap.len();
    let known = usize::from(me.index) < n && usize::from(peer.index) < n;
    if me.size != peer.size
        || me.day0 != peer.day0
        || n != peer.bitmap.len()
        || me.index == peer.index
        || !known
    {
        return Verdict::Refuse(Why::Definition);
    }
    // One that follows a primary meets no other: it would count as the other's majority.
    let rival = |one: &Hello, other: &Hello| {
        one.primary && (other.primary || other.sees_primary.is_some_and(|p| p != one.index))
    };
    if rival(me, peer) || rival(peer, me) {
        return match lineage(me, peer) {
            Verdict::Refuse(parted) => Verdict::Refuse(parted),
            Verdict::Equal(_) | Verdict::Differ(..) | Verdict::Wait => {
                Verdict::Refuse(Why::TwoPrimaries)
            }
        };
    }
    if me.undecided() || peer.undecided() {
        return Verdict::Wait;
    }
    let verdict = lineage(me, peer);
    let direction = match verdict {
        Verdict::Equal(d) | Verdict::Differ(d, _) => d,
        Verdict::Wait | Verdict::Refuse(_) => return verdict,
    };
    let (source, target) = match direction {
        Direction::Source => (me, peer),
        Direction::Target => (peer, me),
    };
    if target.primary {
        return Verdict::Refuse(Why::StalePrimary);
    }
    if source.disk <= Disk::Inconsistent {
        return Verdict::Wait;
    }
    let knows = |g: u64| {
        g == 0 || source.current == g || source.history.contains(&g) || source.bitmap.contains(&g)
    };
    if !target.discard && !knows(target.goal) {
        // It has parts of newer data: older data would not make it whole. It must not take the writes of an old primary either.
        return if source.primary { Verdict::Refuse(Why::StalePrimary) } else { Verdict::Wait };
    }
    if !source.primary {
        // A primary cares for its secondaries; one source at a time.
        let primary_near = me.sees_primary.is_some() || peer.sees_primary.is_some();
        let busy = target.target_of.is_some_and(|s| s != source.index);
        if primary_near || busy {
            return Verdict::Wait;
        }
    }
    verdict
}

fn lineage(me: &Hello, peer: &Hello) -> Verdict {
    let (mine, theirs) = (me.tracked(peer.index), peer.tracked(me.index));
    if me.current == NEVER && peer.current == NEVER {
        return Verdict::Wait;
    }
    if me.current == NEVER {
        return Verdict::Differ(Direction::Target, Extent::Full);
    }
    if peer.current == NEVER {
        return Verdict::Differ(Direction::Source, Extent::Full);
    }
    if me.current == peer.current {
        return Verdict::Equal(equal_direction(me, peer));
    }
    if me.discard != peer.discard {
        let direction = if me.discard { Direction::Target } else { Direction::Source };
        let tracked = mine != 0 && mine == theirs;
        return Verdict::Differ(direction, if tracked { Extent::Bitmap } else { Extent::Full });
    }
    let older = theirs == me.current;
    let newer = mine == peer.current;
    if older != newer {
        return Verdict::Differ(
            if older { Direction::Target } else { Direction::Source },
            Extent::Bitmap,
        );
    }
    let behind = peer.history.contains(&me.current) || peer.bitmap.contains(&me.current);
    let ahead = me.history.contains(&peer.current) || me.bitmap.contains(&peer.current);
    if behind != ahead {
        return Verdict::Differ(
            if behind { Direction::Target } else { Direction::Source },
            Extent::Full,
        );
    }
    let common = me
        .history
        .iter()
        .chain(&me.bitmap)
        .any(|g| *g != 0 && (peer.history.contains(g) || peer.bitmap.contains(g)));
    Verdict::Refuse(if common || behind { Why::SplitBrain } else { Why::Unrelated })
}

/// Equal generations: a live primary, then whole before torn, then newest known, then the crashed primary, then the smaller index is the source.
fn equal_direction(me: &Hello, peer: &Hello) -> Direction {
    let key = |h: &Hello| {
        (
            h.primary,
            !h.discard,
            h.disk > Disk::Inconsistent,
            h.disk == Disk::UpToDate,
            h.crashed,
            h.disk,
        )
    };
    match key(me).cmp(&key(peer)) {
        std::cmp::Ordering::Greater => Direction::Source,
        std::cmp::Ordering::Less => Direction::Target,
        std::cmp::Ordering::Equal if me.index < peer.index => Direction::Source,
        std::cmp::Ordering::Equal => Direction::Source.flip(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn hello(index: u8, current: u64) -> Hello {
        Hello {
            index,
            size: 1 << 20,
            day0: 7,
            current,
            bitmap: vec![0; 2],
            history: vec![],
            disk: Disk::Consistent,
            primary: false,
            crashed: false,
            discard: false,
            sees_primary: None,
            target_of: None,
            goal: 0,
            base: 0,
        }
    }

    use Direction::{Source, Target};
    use Extent::{Bitmap, Full};

    #[test]
    #[expect(clippy::too_many_lines, reason = "one table")]
    fn table_of_outcomes() {
        let cases: Vec<(&str, Hello, Hello, Verdict)> = vec![
            ("both never held data", hello(0, 0), hello(1, 0), Verdict::Wait),
            ("data against new", hello(0, 7), hello(1, 0), Verdict::Differ(Source, Full)),
            ("new against data", hello(0, 0), hello(1, 7), Verdict::Differ(Target, Full)),
            ("equal, tie to smaller index", hello(0, 9), hello(1, 9), Verdict::Equal(Source)),
            (
                "equal, peer crashed as primary",
                hello(0, 9),
                Hello { crashed: true, ..hello(1, 9) },
                Verdict::Equal(Target),
            ),
            (
                "equal, peer crashed but I am live",
                Hello { primary: true, ..hello(0, 9) },
                Hello { crashed: true, ..hello(1, 9) },
                Verdict::Equal(Source),
            ),
            (
                "equal, crashed primary against survivor",
                Hello { crashed: true, ..hello(0, 9) },
                Hello { disk: Disk::UpToDate, ..hello(1, 9) },
                Verdict::Equal(Target),
            ),
            (
                "equal, I am torn",
                Hello { disk: Disk::Inconsistent, crashed: true, ..hello(0, 9) },
                hello(1, 9),
                Verdict::Equal(Target),
            ),
            (
                "equal, both torn",
                Hello { disk: Disk::Inconsistent, ..hello(0, 9) },
                Hello { disk: Disk::Inconsistent, ..hello(1, 9) },
                Verdict::Wait,
            ),
            (
                "peer tracks since my generation",
                hello(0, 9),
                Hello { bitmap: vec![9, 0], ..hello(1, 10) },
                Verdict::Differ(Target, Bitmap),
            ),
            (
                "I track since peer's generation",
                Hello { bitmap: vec![0, 9], ..hello(0, 10) },
                hello(1, 9),
                Verdict::Differ(Source, Bitmap),
            ),
            (
                "only in history",
                Hello { history: vec![5, 9], ..hello(0, 10) },
                hello(1, 9),
                Verdict::Differ(Source, Full),
            ),
            (
                "both rotated from one parent",
                Hello { bitmap: vec![0, 9], history: vec![9], ..hello(0, 10) },
                Hello { bitmap: vec![9, 0], history: vec![9], ..hello(1, 11) },
                Verdict::Refuse(Why::SplitBrain),
            ),
            (
                "split brain given up here",
                Hello { discard: true, bitmap: vec![0, 9], ..hello(0, 10) },
                Hello { bitmap: vec![9, 0], ..hello(1, 11) },
                Verdict::Differ(Target, Bitmap),
            ),
            ("nothing common", hello(0, 10), hello(1, 11), Verdict::Refuse(Why::Unrelated)),
            (
                "two primaries",
                Hello { primary: true, ..hello(0, 9) },
                Hello { primary: true, ..hello(1, 9) },
                Verdict::Refuse(Why::TwoPrimaries),
            ),
            (
                "two primaries, one of which went on without the other",
                Hello { primary: true, ..hello(0, 9) },
                Hello { primary: true, bitmap: vec![9, 0], history: vec![9], ..hello(1, 10) },
                Verdict::Refuse(Why::TwoPrimaries),
            ),
            (
                "two primaries that both went on",
                Hello { primary: true, bitmap: vec![0, 9], history: vec![9], ..hello(0, 10) },
                Hello { primary: true, bitmap: vec![9, 0], history: vec![9], ..hello(1, 11) },
                Verdict::Refuse(Why::SplitBrain),
            ),
            (
                "a primary, and one that follows another",
                Hello { primary: true, ..hello(0, 9) },
                Hello { sees_primary: Some(2), ..hello(1, 9) },
                Verdict::Refuse(Why::TwoPrimaries),
            ),
            (
                "live primary is older",
                Hello { primary: true, ..hello(0, 9) },
                Hello { bitmap: vec![9, 0], ..hello(1, 10) },
                Verdict::Refuse(Why::StalePrimary),
            ),
            (
                "secondaries leave it to the primary",
                Hello { sees_primary: Some(2), ..hello(0, 9) },
                hello(1, 9),
                Verdict::Wait,
            ),
            (
                "torn with parts of newer data than the source knows",
                hello(0, 9),
                Hello { disk: Disk::Inconsistent, goal: 11, ..hello(1, 9) },
                Verdict::Wait,
            ),
            (
                "the same, and the source is primary",
                Hello { primary: true, ..hello(0, 9) },
                Hello { disk: Disk::Inconsistent, goal: 11, ..hello(1, 9) },
                Verdict::Refuse(Why::StalePrimary),
            ),
            (
                "was to take part in a generation that is not settled",
                Hello { primary: true, base: 9, history: vec![9], ..hello(0, 10) },
                hello(1, 9),
                Verdict::Differ(Source, Bitmap),
            ),
            (
                "does not know whether its generation came about",
                Hello { base: 9, history: vec![9], ..hello(0, 10) },
                hello(1, 9),
                Verdict::Wait,
            ),
            (
                "other size",
                hello(0, 9),
                Hello { size: 5, ..hello(1, 9) },
                Verdict::Refuse(Why::Definition),
            ),
        ];
        for (name, me, peer, want) in cases {
            assert_eq!(compare(&me, &peer), want, "{name}");
        }
    }

    fn any_hello(index: u8) -> impl Strategy<Value = Hello> {
        let disk = prop_oneof![
            Just(Disk::Inconsistent),
            Just(Disk::Outdated),
            Just(Disk::Consistent),
            Just(Disk::UpToDate)
        ];
        (
            0u64..5,
            proptest::collection::vec(0u64..5, 2),
            proptest::collection::vec(1u64..5, 0..3),
            disk,
            any::<[bool; 3]>(),
            0u64..5,
        )
            .prop_map(
                move |(current, bitmap, history, disk, [primary, crashed, discard], base)| Hello {
                    base,
                    bitmap,
                    history,
                    disk,
                    primary,
                    crashed,
                    discard,
                    ..hello(index, current)
                },
            )
    }

    proptest! {
        #[test]
        fn both_sides_come_to_mirrored_outcomes(a in any_hello(0), b in any_hello(1)) {
            let mirrored = match compare(&b, &a) {
                Verdict::Equal(d) => Verdict::Equal(d.flip()),
                Verdict::Differ(d, e) => Verdict::Differ(d.flip(), e),
                same @ (Verdict::Wait | Verdict::Refuse(_)) => same,
            };
            let seen = compare(&a, &b);
            prop_assert_eq!(seen, mirrored);
            if let Verdict::Equal(Target) | Verdict::Differ(Target, _) = seen { prop_assert!(!a.primary); }
        }
    }
}
