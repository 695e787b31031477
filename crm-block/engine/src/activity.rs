//! The activity log: the few 4 MiB extents that may differ between replicas after a crash.

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
    durable: bool,
}

/// Hot extents with their use.
#[derive(Debug, Clone)]
pub struct ActivityLog {
    hot: BTreeMap<u32, Hot>,
    clock: u64,
    most: usize,
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
        Self { hot: BTreeMap::new(), clock: 0, most: most.clamp(1, MOST_HOT) }
    }

    /// Takes what was stored.
    pub fn load(&mut self, extents: &[u32]) {
        for &extent in extents {
            self.hot.insert(extent, Hot { used: 0, refs: 0, durable: true });
        }
    }

    /// Holds `first..=last` for a write; all or nothing.
    pub fn acquire(&mut self, first: u32, last: u32) -> Acquired {
        self.clock += 1;
        if let (true, Some(hot)) = (first == last, self.hot.get_mut(&first)) {
            hot.used = self.clock;
            hot.refs += 1;
            return if hot.durable { Acquired::Durable } else { Acquired::WriteFirst };
        }
        let missing = (first..=last).filter(|e| !self.hot.contains_key(e)).count();
        if self.hot.len() + missing > self.most && !self.hot.is_empty() {
            return Acquired::Full;
        }
        let mut all_durable = true;
        for extent in first..=last {
            let hot = self.hot.entry(extent).or_insert(Hot { used: 0, refs: 0, durable: false });
            hot.used = self.clock;
            hot.refs += 1;
            all_durable &= hot.durable;
        }
        if all_durable { Acquired::Durable } else { Acquired::WriteFirst }
    }

    /// A run of writes is going on: makes the following extents hot too, when there is room to spare.
    pub fn read_ahead(&mut self, last: u32, end: u32) {
        let Some(before) = last.checked_sub(1) else { return };
        if !self.hot.contains_key(&before) {
            return;
        }
        for extent in last.saturating_add(1)..end.min(last.saturating_add(5)) {
            if self.hot.len() + 8 < self.most {
                self.hot.entry(extent).or_insert(Hot { used: self.clock, refs: 0, durable: false });
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

    /// Whether all are hot on disk.
    #[must_use]
    pub fn durable(&self, first: u32, last: u32) -> bool {
        (first..=last).all(|e| self.hot.get(&e).is_some_and(|h| h.durable))
    }

    /// Extents not yet on disk.
    #[must_use]
    pub fn fresh(&self) -> Vec<u32> {
        self.hot.iter().filter(|(_, h)| !h.durable).map(|(e, _)| *e).collect()
    }

    /// These are on disk now.
    pub fn written(&mut self, extents: &[u32]) {
        for extent in extents {
            if let Some(hot) = self.hot.get_mut(extent) {
                hot.durable = true;
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
            .filter(|(_, h)| h.refs == 0 && h.durable)
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
        assert_eq!(al.acquire(0, 0), Acquired::WriteFirst);
        al.written(&al.fresh());
        assert_eq!(al.acquire(0, 0), Acquired::Durable);
        for e in 1..4 {
            assert_eq!(al.acquire(e, e), Acquired::WriteFirst);
        }
        al.written(&al.fresh());
        assert_eq!(al.acquire(9, 9), Acquired::Full);
        assert!(al.victims().is_empty());
        al.release(2, 2);
        assert_eq!(al.victims(), vec![2]);
        let stamp = al.stamp();
        assert_eq!(al.evict(&[2, 1], stamp), vec![2]);
        assert_eq!(al.acquire(9, 9), Acquired::WriteFirst);
    }

    #[test]
    fn a_write_wider_than_the_log_still_goes_when_the_log_is_empty() {
        let mut al = ActivityLog::new(2);
        assert_eq!(al.acquire(0, 3), Acquired::WriteFirst);
    }
}
