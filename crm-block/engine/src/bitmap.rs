//! One bit for every 4 KiB block: what a peer may lack. Pages of 4 KiB are the unit of writing.

use std::collections::BTreeSet;

/// Bytes of one block.
pub const BLOCK: u64 = 4096;
/// Bytes of one page of the stored bitmap.
pub const PAGE: usize = 4096;
/// Blocks covered by one page.
pub const PAGE_BLOCKS: u64 = 32768;
const PAGE_WORDS: usize = PAGE / 8;

/// A set of blocks with the pages that differ from what is stored.
#[derive(Debug, Clone)]
pub struct Bitmap {
    words: Vec<u64>,
    blocks: u64,
    count: u64,
    dirty: BTreeSet<usize>,
}

/// As a size in memory; volumes of this crate fit, so a failure is a program error.
#[must_use]
pub fn index(n: u64) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}

/// As a number on disk or wire.
#[must_use]
pub fn number(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}

impl Bitmap {
    /// Empty, for so many blocks.
    #[must_use]
    pub fn new(blocks: u64) -> Self {
        let pages = index(blocks.div_ceil(PAGE_BLOCKS));
        Self { words: vec![0; pages * PAGE_WORDS], blocks, count: 0, dirty: BTreeSet::new() }
    }

    /// From stored bytes (missing bytes are zero, bits behind the end are ignored).
    #[must_use]
    pub fn from_bytes(blocks: u64, bytes: &[u8]) -> Self {
        let mut map = Self::new(blocks);
        for (word, chunk) in map.words.iter_mut().zip(bytes.chunks_exact(8)) {
            let mut raw = [0; 8];
            raw.copy_from_slice(chunk);
            *word = u64::from_le_bytes(raw);
        }
        let last = index(blocks / 64);
        if last < map.words.len() {
            map.words[last] &= (1u64 << (blocks % 64)) - 1;
            for word in &mut map.words[last + 1..] {
                *word = 0;
            }
        }
        map.count = map.words.iter().map(|w| u64::from(w.count_ones())).sum();
        map
    }

    /// Number of blocks it covers.
    #[must_use]
    pub fn blocks(&self) -> u64 {
        self.blocks
    }

    /// Number of bits set.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Number of pages.
    #[must_use]
    pub fn pages(&self) -> usize {
        self.words.len() / PAGE_WORDS
    }

    fn change(&mut self, first: u64, end: u64, on: bool) {
        let end = end.min(self.blocks);
        let mut at = first;
        while at < end {
            let word = index(at / 64);
            let stop = end.min((at / 64 + 1) * 64);
            let width = stop - at;
            let mask = if width == 64 { u64::MAX } else { ((1u64 << width) - 1) << (at % 64) };
            let old = self.words[word];
            let new = if on { old | mask } else { old & !mask };
            if old != new {
                self.words[word] = new;
                let changed = u64::from((old ^ new).count_ones());
                self.count = if on { self.count + changed } else { self.count - changed };
                self.dirty.insert(word / PAGE_WORDS);
            }
            at = stop;
        }
    }

    /// Sets `first..end`.
    pub fn set(&mut self, first: u64, end: u64) {
        self.change(first, end, true);
    }

    /// Clears `first..end`.
    pub fn clear(&mut self, first: u64, end: u64) {
        self.change(first, end, false);
    }

    /// Whether the block is in it.
    #[must_use]
    pub fn get(&self, block: u64) -> bool {
        block < self.blocks && self.words[index(block / 64)] >> (block % 64) & 1 == 1
    }

    /// First block at or after `from` that is in it.
    #[must_use]
    pub fn next(&self, from: u64) -> Option<u64> {
        self.scan(from, false)
    }

    fn scan(&self, from: u64, zero: bool) -> Option<u64> {
        if from >= self.blocks {
            return None;
        }
        let mut word = index(from / 64);
        let flip = if zero { u64::MAX } else { 0 };
        let mut value = (self.words[word] ^ flip) & (u64::MAX << (from % 64));
        loop {
            if value != 0 {
                let block = number(word) * 64 + u64::from(value.trailing_zeros());
                return (block < self.blocks).then_some(block);
            }
            word += 1;
            value = *self.words.get(word)? ^ flip;
        }
    }

    /// The first run at or after `from`, at most `limit` long: `first..end`.
    #[must_use]
    pub fn run(&self, from: u64, limit: u64) -> Option<(u64, u64)> {
        let first = self.next(from)?;
        let end = self.scan(first, true).unwrap_or(self.blocks);
        Some((first, end.min(first.saturating_add(limit))))
    }

    /// All runs as `(first, length)`.
    #[must_use]
    pub fn runs(&self) -> Vec<(u64, u64)> {
        let mut all = Vec::new();
        let mut at = 0;
        while let Some((first, end)) = self.run(at, u64::MAX) {
            all.push((first, end - first));
            at = end;
        }
        all
    }

    /// Stored form of a page, with `extra` ranges (`first..end`) set besides. True = the page now matches memory.
    pub fn page_bytes(&mut self, page: usize, extra: &[(u64, u64)]) -> Vec<u8> {
        let words = &self.words[page * PAGE_WORDS..(page + 1) * PAGE_WORDS];
        let mut bytes: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
        let (low, high) = (number(page) * PAGE_BLOCKS, (number(page) + 1) * PAGE_BLOCKS);
        let mut overlaid = false;
        for &(first, end) in extra {
            for block in first.max(low)..end.min(high) {
                let bit = block - low;
                bytes[index(bit / 8)] |= 1 << (bit % 8);
                overlaid = true;
            }
        }
        if overlaid {
            self.dirty.insert(page);
        } else {
            self.dirty.remove(&page);
        }
        bytes
    }

    /// Whether the page differs from its stored form (or may).
    #[must_use]
    pub fn is_dirty(&self, page: usize) -> bool {
        self.dirty.contains(&page)
    }

    /// Pages that differ from their stored form.
    #[must_use]
    pub fn dirty_pages(&self) -> Vec<usize> {
        self.dirty.iter().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn bitmap_agrees_with_a_set(ops in proptest::collection::vec((0u64..700, 0u64..200, any::<bool>()), 0..40)) {
            let mut map = Bitmap::new(700);
            let mut set = BTreeSet::new();
            for (first, len, on) in ops {
                let end = (first + len).min(700);
                if on { map.set(first, end); } else { map.clear(first, end); }
                for b in first..end { if on { set.insert(b); } else { set.remove(&b); } }
            }
            prop_assert_eq!(map.count(), number(set.len()));
            let listed: BTreeSet<u64> = map.runs().into_iter().flat_map(|(f, l)| f..f + l).collect();
            prop_assert_eq!(&listed, &set);
            let bytes = map.page_bytes(0, &[]);
            prop_assert_eq!(Bitmap::from_bytes(700, &bytes).runs(), map.runs());
        }
    }

    #[test]
    fn overlay_is_stored_but_not_remembered() {
        let mut map = Bitmap::new(100);
        map.set(3, 5);
        let bytes = map.page_bytes(0, &[(10, 12)]);
        assert_eq!(Bitmap::from_bytes(100, &bytes).runs(), vec![(3, 2), (10, 2)]);
        assert_eq!(map.runs(), vec![(3, 2)]);
        assert!(map.is_dirty(0));
    }
}
