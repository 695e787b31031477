//! The activity log at work: written before the data, made room in, told to the secondaries.

use super::{After, Engine, Stage, bit};
use crate::activity::EXTENT_BLOCKS;
use crate::bitmap::{PAGE_BLOCKS, index};
use crate::meta;
use crate::wire::Msg;

/// What the log is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Busy {
    Idle,
    Evicting,
    Writing,
}

impl<D: Clone> Engine<D> {
    /// Begins the next step when none is in work.
    pub(super) fn log_step(&mut self) {
        if self.al_busy != Busy::Idle || !self.attached {
            return;
        }
        if self.want_evict {
            let victims = self.al.victims();
            if !victims.is_empty() {
                self.al_busy = Busy::Evicting;
                let stamp = self.al.stamp();
                self.disk_flush(After::EvictFlush(victims, stamp));
                return;
            }
        }
        let fresh = self.al.fresh();
        if !fresh.is_empty() || self.log_stale {
            self.log_stale = false;
            self.al_busy = Busy::Writing;
            self.log_seq += 1;
            let doubt = self.al.doubt();
            let piece = meta::encode_log(self.log_seq, &self.al.extents(), doubt);
            self.store(vec![piece], After::Log(fresh, doubt));
        }
    }

    pub(super) fn log_written(&mut self, extents: &[u32], doubt: u32) {
        self.al_busy = Busy::Idle;
        self.al.written(extents, doubt);
        for id in std::mem::take(&mut self.log_waiting) {
            if self.log_holds(id) {
                self.issue(id);
            } else {
                self.log_waiting.push(id);
            }
        }
        for peer in self.others().collect::<Vec<_>>() {
            if std::mem::take(&mut self.peers[usize::from(peer)].untold) {
                self.once_told(peer);
            }
        }
    }

    /// Goes on as the source of a sync when the stored log speaks of the doubt about the target.
    pub(super) fn once_told(&mut self, peer: u8) {
        let told = self.al.tells_of(peer);
        let p = &mut self.peers[usize::from(peer)];
        p.untold = !told;
        if told && p.stage == Stage::Established {
            self.source_now(peer);
        } else if told {
            let conn = p.conn;
            self.ready_stored(peer, conn);
        }
    }

    /// The victims are durable here: store what the bitmaps say about them.
    pub(super) fn evict_bits(&mut self, extents: Vec<u32>, stamp: u64) {
        // Only the primary knows whether the other secondaries have these.
        for q in self.others().collect::<Vec<_>>() {
            for extent in self.al.doubtful(q).into_iter().filter(|e| extents.contains(e)) {
                self.mark_extent(q, extent);
            }
        }
        let pieces = self.pages_of(&extents);
        self.store(pieces, After::EvictBits(extents, stamp));
    }

    /// Bitmap pages that cover the extents and are not stored as they should be.
    fn pages_of(&mut self, extents: &[u32]) -> Vec<meta::Piece> {
        let mut pages: Vec<usize> =
            extents.iter().map(|e| index(u64::from(*e) * EXTENT_BLOCKS / PAGE_BLOCKS)).collect();
        pages.dedup();
        let mut pieces = Vec::new();
        for peer in self.others().map(usize::from) {
            for &page in &pages {
                let p = &self.peers[peer];
                let (low, high) = (meta_low(page), meta_low(page + 1));
                let hidden =
                    p.unflushed.iter().chain(&p.flushing).any(|(f, e)| *f < high && low < *e);
                if hidden || p.bits.is_dirty(page) {
                    pieces.push(self.page(peer, page));
                }
            }
        }
        pieces
    }

    pub(super) fn evicted(&mut self, extents: &[u32], stamp: u64) {
        self.al_busy = Busy::Idle;
        self.want_evict = false;
        let extents = self.al.evict(extents, stamp);
        if self.primary {
            self.tell_cold(&extents);
        }
        self.pump = true;
        self.pump_queue();
    }

    /// All that are in sync have the same in these extents.
    pub(super) fn tell_cold(&mut self, extents: &[u32]) {
        let peers = self.mask_of(|p| self.in_sync(p));
        for p in self.others().filter(|p| peers & bit(*p) != 0) {
            self.send(
                p,
                Msg::Cold { extents: extents.to_vec(), mask: peers | bit(self.config.index) },
            );
        }
    }

    pub(super) fn cold(&mut self, extents: Vec<u32>, mask: u32) {
        let stamp = self.al.stamp();
        self.al.agreed(&extents, mask);
        self.disk_flush(After::Cold { extents, mask, stamp });
    }

    pub(super) fn cold_done(&mut self, extents: &[u32], mask: u32, stamp: u64) {
        let gone = self.al.evict(extents, stamp);
        for q in self.others().filter(|q| mask & bit(*q) != 0) {
            for extent in &gone {
                let first = u64::from(*extent) * EXTENT_BLOCKS;
                self.peers[usize::from(q)].bits.clear(first, first + EXTENT_BLOCKS);
            }
        }
        // What else the bitmaps say about these is stored before the log forgets them.
        let pieces = self.pages_of(&gone);
        self.store(pieces, After::Nothing);
        self.log_stale |= !gone.is_empty();
        self.pump = true;
    }

    /// Everything is the same everywhere: nothing is hot.
    pub(super) fn cool_all(&mut self) {
        let all = self.al.extents();
        let stamp = self.al.stamp();
        self.log_stale |= !self.al.evict(&all, stamp).is_empty();
    }
}

fn meta_low(page: usize) -> u64 {
    crate::bitmap::number(page) * PAGE_BLOCKS
}
