//! The activity log: the few 4 MiB extents that may differ between replicas after a crash, and from which replicas.

use std::collections::BTreeMap;

/// Bytes of one extent.
pub const EXTENT: u64 = 4 << 20;
/// Blocks in an extent.
pub const EXTENT_BLOCKS: u64 = EXTENT / crate::bitmap::BLOCK;
/// Most extents one stored slot holds.
pub const MOST_HOT: usize = 900;
/// How many are evicted together.
const BATCH: usize = 64;

#[derive(Debug, Clone, Copy)]
struct Hot {
    used: u64,
    refs: u32,
    stored: bool,
    doubt: Doubt,
}

/// From which replicas (a mask) an extent may differ without a bit that says so.
///
/// Who made a write notes by itself which replicas may lack it. So a write that came from a primary leaves a doubt about all replicas but
/// that primary, and an own write leaves none, as long as the bitmaps in memory live.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Doubt {
    /// While this process lives.
    now: u32,
    /// If it dies.
    crashed: u32,
}

impl Doubt {
    /// An own write.
    pub const OWN: Self = Self { now: 0, crashed: u32::MAX };

    /// A write of the primary `peer`.
    #[must_use]
    pub fn of_primary(peer: u8) -> Self {
        let all_but = !(1 << peer);
        Self { now: all_but, crashed: all_but }
    }

    fn add(&mut self, more: Self) {
        self.now |= more.now;
        self.crashed |= more.crashed;
    }
}

/// Hot extents with their use.
#[derive(Debug, Clone)]
pub struct ActivityLog {
    hot: BTreeMap<u32, Hot>,
    clock: u64,
    most: usize,
    /// The doubt that the stored log speaks of.
    stored: u32,
}

impl Hot {
    fn new(used: u64) -> Self {
        Self { used, refs: 0, stored: false, doubt: Doubt::default() }
    }
}

/// Outcome of [`ActivityLog::acquire`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acquired {
    /// All extents are hot on disk: go.
    Durable,
    /// Held, but the log has to be written first.
    WriteFirst,
    /// Nothing is held: there is no room, evict first.
    Full,
}

impl ActivityLog {
    /// Empty, with room for `most`.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self { hot: BTreeMap::new(), clock: 0, most: most.clamp(1, MOST_HOT), stored: 0 }
    }

    /// Takes what was stored.
    pub fn load(&mut self, extents: &[u32], doubt: u32) {
        self.stored = doubt;
        let doubt = Doubt { now: doubt, crashed: doubt };
        for &extent in extents {
            self.hot.insert(extent, Hot { used: 0, refs: 0, stored: true, doubt });
        }
    }

    /// Holds `first..=last` for a write; all or nothing.
    pub fn acquire(&mut self, first: u32, last: u32, doubt: Doubt) -> Acquired {
        self.clock += 1;
        if let (true, Some(hot)) = (first == last, self.hot.get_mut(&first)) {
            hot.used = self.clock;
            hot.refs += 1;
            hot.doubt.add(doubt);
            return if self.durable(first, last) {
                Acquired::Durable
            } else {
                Acquired::WriteFirst
            };
        }
        let missing = (first..=last).filter(|e| !self.hot.contains_key(e)).count();
        if self.hot.len() + missing > self.most && !self.hot.is_empty() {
            return Acquired::Full;
        }
        for extent in first..=last {
            let hot = self.hot.entry(extent).or_insert_with(|| Hot::new(0));
            hot.used = self.clock;
            hot.refs += 1;
            hot.doubt.add(doubt);
        }
        if self.durable(first, last) { Acquired::Durable } else { Acquired::WriteFirst }
    }

    /// A run of writes is going on: makes the following extents hot too, when there is room to spare.
    pub fn read_ahead(&mut self, last: u32, end: u32) {
        let Some(before) = last.checked_sub(1) else { return };
        if !self.hot.contains_key(&before) {
            return;
        }
        for extent in last.saturating_add(1)..end.min(last.saturating_add(5)) {
            if self.hot.len() + 8 < self.most {
                let clock = self.clock;
                self.hot.entry(extent).or_insert_with(|| Hot::new(clock));
            }
        }
    }

    /// Lets go what [`Self::acquire`] held.
    pub fn release(&mut self, first: u32, last: u32) {
        for extent in first..=last {
            if let Some(hot) = self.hot.get_mut(&extent) {
                hot.refs = hot.refs.saturating_sub(1);
            }
        }
    }

    fn holds(&self, hot: &Hot) -> bool {
        hot.stored && hot.doubt.crashed & !self.stored == 0
    }

    /// Whether all are hot on disk, with their doubt.
    #[must_use]
    pub fn durable(&self, first: u32, last: u32) -> bool {
        (first..=last).all(|e| self.hot.get(&e).is_some_and(|h| self.holds(h)))
    }

    /// Extents not yet on disk as they should be.
    #[must_use]
    pub fn fresh(&self) -> Vec<u32> {
        self.hot.iter().filter(|(_, h)| !self.holds(h)).map(|(e, _)| *e).collect()
    }

    /// These are on disk now, in a log that speaks of this doubt.
    pub fn written(&mut self, extents: &[u32], doubt: u32) {
        self.stored = doubt;
        for extent in extents {
            if let Some(hot) = self.hot.get_mut(extent) {
                hot.stored = true;
            }
        }
    }

    /// From which replicas any hot extent may differ if this process dies: stored with the log.
    #[must_use]
    pub fn doubt(&self) -> u32 {
        self.hot.values().fold(0, |all, hot| all | hot.doubt.crashed)
    }

    /// Hot extents that may differ from those of this replica without a bit that says so.
    #[must_use]
    pub fn doubtful(&self, peer: u8) -> Vec<u32> {
        self.hot.iter().filter(|(_, h)| h.doubt.now >> peer & 1 == 1).map(|(e, _)| *e).collect()
    }

    /// This replica is about to be the source of a sync for `peer`, which forgets what it noted itself about the two: what a crash takes here
    /// is then known only here.
    pub fn source_of(&mut self, peer: u8) {
        for hot in self.hot.values_mut() {
            hot.doubt.crashed |= 1 << peer;
        }
    }

    /// Whether the stored log speaks of the doubt about this replica, if there is one.
    #[must_use]
    pub fn tells_of(&self, peer: u8) -> bool {
        self.stored >> peer & 1 == 1 || self.doubt() >> peer & 1 == 0
    }

    /// The bitmaps in memory say now what is doubtful.
    pub fn noted(&mut self) {
        for hot in self.hot.values_mut() {
            hot.doubt.now = 0;
        }
    }

    /// Everything here is what this replica has.
    pub fn same_as(&mut self, peer: u8) {
        for hot in self.hot.values_mut() {
            hot.doubt.now &= !(1 << peer);
        }
    }

    /// These extents, as far as nobody holds them, are the same on all of `mask`.
    pub fn agreed(&mut self, extents: &[u32], mask: u32) {
        for extent in extents {
            if let Some(hot) = self.hot.get_mut(extent).filter(|h| h.refs == 0) {
                hot.doubt.now &= !mask;
            }
        }
    }

    /// All hot extents, ascending.
    #[must_use]
    pub fn extents(&self) -> Vec<u32> {
        self.hot.keys().copied().collect()
    }

    /// The least recently used extents nobody holds.
    #[must_use]
    pub fn victims(&self) -> Vec<u32> {
        let mut idle: Vec<(u64, u32)> = self
            .hot
            .iter()
            .filter(|(_, h)| h.refs == 0 && self.holds(h))
            .map(|(e, h)| (h.used, *e))
            .collect();
        idle.sort_unstable();
        idle.truncate(BATCH.min(self.most.div_ceil(4).max(1)));
        idle.into_iter().map(|(_, e)| e).collect()
    }

    /// Now, as a stamp for [`Self::evict`].
    #[must_use]
    pub fn stamp(&self) -> u64 {
        self.clock
    }

    /// Forgets those of `extents` that nobody holds and nobody used since `stamp`; returns them.
    pub fn evict(&mut self, extents: &[u32], stamp: u64) -> Vec<u32> {
        let gone: Vec<u32> = extents
            .iter()
            .copied()
            .filter(|e| self.hot.get(e).is_some_and(|h| h.refs == 0 && h.used <= stamp))
            .collect();
        for extent in &gone {
            self.hot.remove(extent);
        }
        gone
    }

    /// Whether nothing is hot.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.hot.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn held_extents_are_never_evicted_and_room_is_made() {
        let mut al = ActivityLog::new(4);
        assert_eq!(al.acquire(0, 0, Doubt::OWN), Acquired::WriteFirst);
        al.written(&al.fresh(), al.doubt());
        assert_eq!(al.acquire(0, 0, Doubt::OWN), Acquired::Durable);
        for e in 1..4 {
            assert_eq!(al.acquire(e, e, Doubt::OWN), Acquired::WriteFirst);
        }
        al.written(&al.fresh(), al.doubt());
        assert_eq!(al.acquire(9, 9, Doubt::OWN), Acquired::Full);
        assert!(al.victims().is_empty());
        al.release(2, 2);
        assert_eq!(al.victims(), vec![2]);
        let stamp = al.stamp();
        assert_eq!(al.evict(&[2, 1], stamp), vec![2]);
        assert_eq!(al.acquire(9, 9, Doubt::OWN), Acquired::WriteFirst);
    }

    #[test]
    fn a_new_doubt_about_a_hot_extent_is_stored_before_the_write() {
        let mut al = ActivityLog::new(4);
        al.acquire(3, 3, Doubt::of_primary(1));
        al.written(&al.fresh(), al.doubt());
        assert_eq!(al.acquire(3, 3, Doubt::of_primary(1)), Acquired::Durable);
        assert_eq!((al.doubtful(1), al.doubtful(2)), (vec![], vec![3]));
        let (fresh, before) = (al.fresh(), al.doubt());
        assert_eq!(al.acquire(3, 3, Doubt::of_primary(2)), Acquired::WriteFirst);
        // A log that was on its way does not speak of it.
        al.written(&fresh, before);
        assert!(!al.durable(3, 3));
        al.written(&al.fresh(), al.doubt());
        assert!(al.durable(3, 3));
        assert_eq!((al.doubtful(1), al.doubtful(2)), (vec![3], vec![3]));
        al.release(3, 3);
        al.release(3, 3);
        al.release(3, 3);
        al.agreed(&[3], 0b10);
        assert_eq!((al.doubtful(1), al.doubtful(2)), (vec![], vec![3]));
        al.same_as(2);
        assert_eq!(al.doubtful(2), vec![]);
        al.acquire(3, 3, Doubt::of_primary(1));
        al.noted();
        assert_eq!((al.doubtful(2), al.doubt()), (vec![], u32::MAX));
    }

    #[test]
    fn a_source_doubts_its_target_in_the_stored_log() {
        let mut al = ActivityLog::new(4);
        assert!(al.tells_of(1), "nothing is hot");
        al.acquire(3, 3, Doubt::of_primary(1));
        al.written(&al.fresh(), al.doubt());
        assert!(al.tells_of(1) && al.durable(3, 3));
        al.source_of(1);
        assert!(!al.tells_of(1) && al.doubtful(1).is_empty());
        al.written(&al.fresh(), al.doubt());
        assert!(al.tells_of(1) && al.durable(3, 3));
    }

    #[test]
    fn a_write_wider_than_the_log_still_goes_when_the_log_is_empty() {
        let mut al = ActivityLog::new(2);
        assert_eq!(al.acquire(0, 3, Doubt::OWN), Acquired::WriteFirst);
    }
}
