//! Resync: the source reads, sends and clears; the target writes and takes the lineage at the end.

use super::io::{Kind, Op};
use super::{After, Engine, Stage, Sync, bit};
use crate::bitmap::BLOCK;
use crate::lineage::{Disk, Hello};
use crate::meta::NOBODY;
use crate::wire::Msg;

/// Requests of a resync in flight to one peer.
const WINDOW: u32 = 24;
/// Blocks of one request.
const CHUNK: u64 = 64;

impl<D: Clone> Engine<D> {
    /// Keeps every resync of which this is the source going.
    pub(super) fn sync_all(&mut self) {
        for p in self.others() {
            if self.peers[usize::from(p)].stage == Stage::Established {
                self.sync_step(p);
            }
        }
    }

    fn sync_step(&mut self, peer: u8) {
        let mut wrapped = false;
        loop {
            let p = &mut self.peers[usize::from(peer)];
            let Sync::Source { cursor, flying, done, .. } = p.sync else { return };
            if flying >= WINDOW || done {
                return;
            }
            let Some((first, end)) = p.bits.run(cursor, CHUNK) else {
                if cursor != 0 && flying == 0 && !wrapped && p.bits.count() != 0 {
                    wrapped = true;
                    self.set_source(peer, 0, 0);
                    continue;
                }
                if flying == 0 && p.bits.count() == 0 {
                    self.sync_end(peer);
                }
                return;
            };
            let free = (first..end).take_while(|b| !self.locked(*b, *b + 1)).count();
            let stop = first + crate::bitmap::number(free);
            if free == 0 {
                self.set_source(peer, first + 1, 0);
                continue;
            }
            self.set_source(peer, stop, 1);
            let conn = self.peers[usize::from(peer)].conn;
            self.add(Op::new(
                Kind::SyncOut { peer, conn },
                (first * BLOCK, (stop - first) * BLOCK),
                None,
            ));
        }
    }

    fn set_source(&mut self, peer: u8, to: u64, more: u32) {
        if let Sync::Source { cursor, flying, .. } = &mut self.peers[usize::from(peer)].sync {
            *cursor = to;
            *flying += more;
        }
    }

    /// Nothing is left to send: make it durable there, then hand the lineage over.
    fn sync_end(&mut self, peer: u8) {
        let Sync::Source { wanted, .. } = self.peers[usize::from(peer)].sync else { return };
        let Some(number) = wanted else {
            let number = self.want_flush();
            if let Sync::Source { wanted, .. } = &mut self.peers[usize::from(peer)].sync {
                *wanted = Some(number);
            }
            self.flush_step();
            return;
        };
        let unsettled = self.change.rotation.is_some() || (self.primary && self.head.base != 0);
        if self.peers[usize::from(peer)].flushed < number || unsettled {
            return;
        }
        let p = &mut self.peers[usize::from(peer)];
        if let Sync::Source { done, .. } = &mut p.sync {
            *done = true;
        }
        p.tentative = true;
        let full = self.mask_of(|q| self.head.full[usize::from(q)] && q != peer);
        let hello = Box::new(self.hello());
        self.send(peer, Msg::SyncDone { hello, full });
    }

    /// Everything has come: this replica is what its source is.
    pub(super) fn sync_done(&mut self, peer: u8, hello: &Hello, full: u32) {
        let p = &mut self.peers[usize::from(peer)];
        if p.sync != (Sync::Target { done: false }) || hello.bitmap.len() != self.head.bitmap.len()
        {
            self.hang_up(peer);
            return;
        }
        p.sync = Sync::Target { done: true };
        p.bits.clear(0, u64::MAX);
        let conn = p.conn;
        self.al.same_as(peer);
        let old = self.head.current;
        self.head.history = hello.history.clone();
        if old != hello.current {
            let newest = self.head.history.first().copied();
            if newest != Some(old) && !self.head.history.contains(&old) {
                self.head.history.push(old);
                self.head.history.retain(|g| *g != 0);
                self.head.history.truncate(crate::lineage::HISTORY);
            }
        }
        self.head.current = hello.current;
        for q in self.others() {
            let at = usize::from(q);
            self.head.bitmap[at] = if q == peer { 0 } else { hello.bitmap[at] };
            self.head.full[at] = q != peer && full & bit(q) != 0;
        }
        let disk = match hello.disk {
            Disk::UpToDate => Disk::UpToDate,
            Disk::Consistent => Disk::Consistent,
            Disk::Outdated | Disk::Inconsistent | Disk::Diskless => Disk::Outdated,
        };
        self.head.consistent = true;
        self.head.up_to_date = disk >= Disk::Consistent;
        self.head.primary = false;
        self.head.sync_from = NOBODY;
        self.head.goal = 0;
        self.crashed = false;
        if self.peers.len() == 2 {
            self.cool_all();
        }
        let pages = self.dirty_pages();
        self.store(pages, After::Nothing);
        self.store_head(After::SyncedIn { peer, conn, disk });
    }

    pub(super) fn synced_in(&mut self, peer: u8, conn: u64, disk: Disk) {
        if self.disk == Disk::Inconsistent && self.head.consistent {
            self.disk = disk;
        }
        let p = &mut self.peers[usize::from(peer)];
        if p.conn == conn && p.stage == Stage::Established {
            p.sync = Sync::None;
            self.send(peer, Msg::SyncDoneAck);
        }
    }

    /// The target has stored that it is up to date.
    pub(super) fn sync_done_acked(&mut self, peer: u8) {
        let at = usize::from(peer);
        if !matches!(self.peers[at].sync, Sync::Source { done: true, .. }) {
            self.hang_up(peer);
            return;
        }
        let disk = self.disk;
        let p = &mut self.peers[at];
        p.sync = Sync::None;
        p.tentative = false;
        p.disk = Some(disk);
        let old = std::mem::take(&mut self.head.bitmap[at]);
        self.head.remember(old);
        self.head.full[at] = false;
        if self.peers.len() == 2 && !self.primary {
            self.cool_all();
        }
        let pages = self.dirty_pages();
        self.store(pages, After::Nothing);
        self.store_head(After::Nothing);
        if self.primary {
            self.announce(bit(peer));
        }
    }

    /// The new primary found blocks in which this replica may differ.
    pub(super) fn sync_start(&mut self, peer: u8) {
        let p = &self.peers[usize::from(peer)];
        let (Some(theirs), true) = (p.theirs.clone(), p.sync == Sync::None && !self.primary) else {
            self.hang_up(peer);
            return;
        };
        let conn = p.conn;
        self.become_target(peer, &theirs, self.head.current);
        self.store_head(After::Started { peer, conn });
    }

    pub(super) fn sync_started(&mut self, peer: u8) {
        let p = &mut self.peers[usize::from(peer)];
        if p.sync == Sync::Starting && !p.untold {
            p.disk = Some(Disk::Inconsistent);
            p.resynced = 0;
            self.al.source_of(peer);
            self.once_told(peer);
        } else {
            self.hang_up(peer);
        }
    }

    pub(super) fn source_now(&mut self, peer: u8) {
        self.peers[usize::from(peer)].sync =
            Sync::Source { cursor: 0, flying: 0, wanted: None, done: false };
    }
}
