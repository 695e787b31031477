//! Connections: the handshake, its outcome, and the messages that belong to neither roles nor data.

use super::{After, Engine, Peer, Stage, Sync, bit};
use crate::event::Effect;
use crate::lineage::{Direction, Disk, Extent, Hello, NEVER, Verdict, Why, compare};
use crate::meta::NOBODY;
use crate::wire::{MOST_RUNS, Msg};

use super::io::{Kind, Op};

impl<D: Clone> Engine<D> {
    pub(super) fn hello(&self) -> Hello {
        let target_of =
            self.others().find(|p| matches!(self.peers[usize::from(*p)].sync, Sync::Target { .. }));
        Hello {
            index: self.config.index,
            size: self.config.size,
            day0: self.config.day0,
            current: self.head.current,
            bitmap: self.head.bitmap.clone(),
            history: self.head.history.clone(),
            disk: self.disk,
            primary: self.primary,
            crashed: self.crashed,
            discard: self.change.discard,
            sees_primary: self.sees_primary(),
            target_of,
            goal: self.head.goal,
            base: self.head.base,
        }
    }

    /// Drops the connection, from this side.
    pub(super) fn hang_up(&mut self, peer: u8) {
        if self.peers[usize::from(peer)].stage != Stage::Down {
            self.out.push_back(Effect::Disconnect { peer });
            self.peer_down(peer);
        }
    }

    pub(super) fn peer_up(&mut self, peer: u8) {
        if peer == self.config.index || usize::from(peer) >= self.peers.len() {
            return;
        }
        self.peer_down(peer);
        if !self.attached {
            self.peers[usize::from(peer)].waiting = true;
            return;
        }
        if self.disk == Disk::Diskless || self.change.busy() || self.being_dropped(peer) {
            self.out.push_back(Effect::Disconnect { peer });
            return;
        }
        let hello = self.hello();
        let p = &mut self.peers[usize::from(peer)];
        p.stage = Stage::Hello;
        p.mine = Some(hello.clone());
        self.send(peer, Msg::Hello(Box::new(hello)));
    }

    pub(super) fn peer_down(&mut self, peer: u8) {
        let Some(p) = self.peers.get_mut(usize::from(peer)) else { return };
        p.waiting = false;
        if p.stage == Stage::Down {
            return;
        }
        let was_primary = p.stage == Stage::Established && p.primary;
        let was_there = p.stage == Stage::Established;
        let tentative = std::mem::take(&mut p.tentative);
        p.stage = Stage::Down;
        p.sync = Sync::None;
        p.untold = false;
        p.primary = false;
        p.disk = None;
        p.sees_primary = None;
        p.ready = (false, false);
        let runs = self.lost_blocks(peer);
        self.peers[usize::from(peer)].conn += 1;
        if self.primary && was_there {
            self.tell_out_of_sync(peer, &runs);
            if tentative && self.head.behind(usize::from(peer)) {
                // It may have taken this generation: go on in another one.
                self.want_rotation();
            }
        }
        self.role_peer_down(peer);
        if was_primary && self.disk < Disk::UpToDate {
            for q in self.others().filter(|q| *q != peer).collect::<Vec<_>>() {
                self.hang_up(q);
            }
        }
    }

    fn tell_out_of_sync(&mut self, peer: u8, runs: &[(u64, u64)]) {
        let runs: Vec<(u64, u64)> = runs.iter().map(|(f, e)| (*f, e - f)).collect();
        for q in self.others().filter(|q| *q != peer && self.established(*q)).collect::<Vec<_>>() {
            for part in runs.chunks(MOST_RUNS) {
                self.send(q, Msg::OutOfSync { peer, runs: part.to_vec() });
            }
        }
    }

    pub(super) fn message(&mut self, peer: u8, msg: Msg<D>) {
        let Some(p) = self.peers.get(usize::from(peer)) else { return };
        if self.closing() {
            return;
        }
        match (p.stage, msg) {
            (Stage::Down, _) | (_, Msg::Ping) => {}
            (Stage::Hello, Msg::Hello(theirs)) => self.met(peer, *theirs),
            (Stage::Bits, Msg::Bits { runs, last }) => self.bits(peer, &runs, last),
            (Stage::Bits | Stage::Ready, Msg::Ready { target }) => {
                self.ready_received(peer, target);
            }
            (Stage::Established, msg) => self.established_message(peer, msg),
            (Stage::Hello | Stage::Bits | Stage::Ready, _) => self.hang_up(peer),
        }
    }

    fn met(&mut self, peer: u8, theirs: Hello) {
        let Some(mine) = self.peers[usize::from(peer)].mine.clone() else { return };
        if theirs.index == peer && theirs.day0 == mine.day0 && self.settle_generation(&theirs) {
            self.hang_up(peer);
            return;
        }
        let verdict = if theirs.index == peer {
            compare(&mine, &theirs)
        } else {
            Verdict::Refuse(Why::Definition)
        };
        let p = &mut self.peers[usize::from(peer)];
        p.primary = theirs.primary;
        p.disk = Some(theirs.disk);
        p.sees_primary = theirs.sees_primary;
        p.theirs = Some(theirs);
        p.verdict = Some(verdict);
        p.resynced = 0;
        p.stage = Stage::Bits;
        p.why = None;
        match verdict {
            Verdict::Refuse(why) => {
                self.hang_up(peer);
                self.peers[usize::from(peer)].why = Some(why);
                return;
            }
            Verdict::Differ(_, Extent::Full) => self.mark(peer, 0, u64::MAX),
            Verdict::Equal(_) if !(self.primary || self.peers[usize::from(peer)].primary) => {}
            Verdict::Differ(_, Extent::Bitmap) | Verdict::Equal(_) => {
                // A primary between was lost: who has what of its last writes is not known. (Two secondaries leave that to the next one.)
                for extent in self.al.doubtful(peer) {
                    self.mark_extent(peer, extent);
                }
            }
            Verdict::Wait => {}
        }
        if self.head.full[usize::from(peer)] {
            self.mark(peer, 0, u64::MAX);
        }
        let runs = if verdict == Verdict::Wait {
            Vec::new()
        } else {
            self.peers[usize::from(peer)].bits.runs()
        };
        let parts: Vec<_> = runs.chunks(MOST_RUNS).map(<[(u64, u64)]>::to_vec).collect();
        for part in parts {
            self.send(peer, Msg::Bits { runs: part, last: false });
        }
        self.send(peer, Msg::Bits { runs: Vec::new(), last: true });
    }

    fn bits(&mut self, peer: u8, runs: &[(u64, u64)], last: bool) {
        for (first, len) in runs {
            self.mark(peer, *first, first.saturating_add(*len));
        }
        if !last {
            return;
        }
        let now = self.hello();
        let p = &self.peers[usize::from(peer)];
        let (Some(verdict), Some(mine), Some(theirs)) =
            (p.verdict, p.mine.clone(), p.theirs.clone())
        else {
            return;
        };
        if now != mine {
            // What was decided upon is no longer so: once more.
            self.hang_up(peer);
            return;
        }
        let empty = p.bits.count() == 0;
        let flow = match verdict {
            Verdict::Equal(d) => {
                let sink = if d == Direction::Target { self.disk } else { theirs.disk };
                (!empty || sink == Disk::Inconsistent).then_some(d)
            }
            Verdict::Differ(d, _) => Some(d),
            Verdict::Wait | Verdict::Refuse(_) => None,
        };
        let p = &mut self.peers[usize::from(peer)];
        p.stage = Stage::Ready;
        p.target = flow == Some(Direction::Target);
        p.sync = Sync::None;
        let source = flow == Some(Direction::Source);
        if source {
            p.sync = Sync::Starting;
        }
        let conn = p.conn;
        if p.target {
            // Of a generation that is not settled nothing is promised: parts of it are worth as much as parts of the one before.
            let goal = if theirs.base == 0 { theirs.current } else { theirs.base };
            self.become_target(peer, &theirs, goal);
            self.store_head(After::Ready { peer, conn });
        } else if source {
            self.al.source_of(peer);
            self.once_told(peer);
        } else {
            self.ready_stored(peer, conn);
        }
    }

    /// Notes that this replica will be torn until the sync from `peer` ends.
    pub(super) fn become_target(&mut self, peer: u8, theirs: &Hello, goal: u64) {
        for q in self.others().filter(|q| *q != peer).collect::<Vec<_>>() {
            if self.peers[usize::from(q)].sync != Sync::None {
                self.hang_up(q);
            }
        }
        if std::mem::take(&mut self.change.discard) {
            // From here on this is an old replica, also after a crash in the middle of the sync.
            let parent = self.head.bitmap[usize::from(peer)];
            let tracked =
                parent != 0 && theirs.bitmap.get(usize::from(self.config.index)) == Some(&parent);
            self.head.current = if theirs.current == self.head.current {
                self.head.current
            } else if tracked {
                parent
            } else {
                NEVER
            };
            self.head.bitmap[usize::from(peer)] = 0;
        }
        self.head.consistent = false;
        self.head.up_to_date = false;
        self.head.sync_from = peer;
        self.head.goal = goal;
        self.disk = Disk::Inconsistent;
        self.peers[usize::from(peer)].sync = Sync::Target { done: false };
    }

    pub(super) fn ready_stored(&mut self, peer: u8, conn: u64) {
        let p = &mut self.peers[usize::from(peer)];
        if p.conn != conn || p.stage != Stage::Ready {
            return;
        }
        p.ready.0 = true;
        let target = p.target;
        self.send(peer, Msg::Ready { target });
        self.establish(peer);
    }

    fn ready_received(&mut self, peer: u8, target: bool) {
        let p = &mut self.peers[usize::from(peer)];
        if p.stage != Stage::Ready || target != (p.sync == Sync::Starting) || p.ready.1 {
            self.hang_up(peer);
            return;
        }
        p.ready.1 = true;
        self.establish(peer);
    }

    fn establish(&mut self, peer: u8) {
        let p = &mut self.peers[usize::from(peer)];
        if p.ready != (true, true) {
            return;
        }
        p.stage = Stage::Established;
        if p.sync == Sync::Starting {
            p.sync = Sync::Source { cursor: 0, flying: 0, wanted: None, done: false };
            p.disk = Some(Disk::Inconsistent);
        }
        let equal = matches!(p.verdict, Some(Verdict::Equal(_)));
        let calm = p.sync == Sync::None;
        let fresh = p.disk == Some(Disk::UpToDate);
        if equal && calm {
            if (self.disk == Disk::Consistent || self.disk == Disk::Outdated) && fresh {
                self.become_up_to_date();
            }
            self.equal_again(peer);
        }
        self.judge();
        self.back(peer);
        self.send_state(peer);
        if self.primary {
            self.announce(bit(peer));
        }
    }

    /// Same generation, no bits: whatever was noted against the peer is settled.
    fn equal_again(&mut self, peer: u8) {
        let at = usize::from(peer);
        if self.head.behind(at) {
            let old = std::mem::take(&mut self.head.bitmap[at]);
            self.head.remember(old);
            self.head.full[at] = false;
            self.store_head(After::Nothing);
        }
    }

    /// All are there and none has better data: this is the newest.
    fn judge(&mut self) {
        let best = self.disk == Disk::Consistent
            && self.others().all(|p| {
                self.established(p)
                    && !matches!(self.peers[usize::from(p)].sync, Sync::Target { .. })
            });
        if best {
            self.become_up_to_date();
        }
    }

    /// A peer that could not help when it was met may be able to now.
    pub(super) fn retry_waiting(&mut self) {
        let torn = self.disk < Disk::UpToDate
            && self.disk != Disk::Diskless
            && self.sees_primary().is_none();
        let served = self.peers.iter().any(|p| matches!(p.sync, Sync::Target { .. }));
        if !torn || served {
            return;
        }
        for q in self.others() {
            let p = &self.peers[usize::from(q)];
            let (Some(mine), Some(theirs)) = (&p.mine, &p.theirs) else { continue };
            let passing = mine.target_of.is_some()
                || mine.sees_primary.is_some()
                || theirs.sees_primary.is_some()
                || theirs.disk < Disk::UpToDate;
            let waits = p.stage == Stage::Established
                && p.verdict == Some(Verdict::Wait)
                && p.sync == Sync::None;
            if waits && passing && p.disk == Some(Disk::UpToDate) && p.sees_primary.is_none() {
                self.hang_up(q);
            }
        }
    }

    pub(super) fn become_up_to_date(&mut self) {
        self.disk = Disk::UpToDate;
        self.crashed = false;
        self.head.primary = self.primary;
        self.head.up_to_date = true;
        self.store_head(After::Nothing);
    }

    fn established_message(&mut self, peer: u8, msg: Msg<D>) {
        match msg {
            Msg::Write { id, offset, len, mask, data } => {
                self.remote_write(peer, id, (offset, len), mask, Some(data));
            }
            Msg::Zero { id, offset, len, mask } => {
                self.remote_write(peer, id, (offset, len), mask, None);
            }
            Msg::WriteAck { id } => self.write_acked(peer, id),
            Msg::Flush { id } => {
                let conn = self.peers[usize::from(peer)].conn;
                self.disk_flush(After::PeerFlush { peer, conn, id });
            }
            Msg::FlushAck { id } => self.flush_acked(peer, id),
            Msg::SyncData { id, offset, len, data } => {
                self.sync_in(peer, id, (offset, len), Some(data));
            }
            Msg::SyncZero { id, offset, len } => self.sync_in(peer, id, (offset, len), None),
            Msg::SyncAck { id } => self.sync_acked(peer, id),
            Msg::SyncStart => self.sync_start(peer),
            Msg::SyncStarted => self.sync_started(peer),
            Msg::SyncDone { hello, full } => self.sync_done(peer, &hello, full),
            Msg::SyncDoneAck => self.sync_done_acked(peer),
            Msg::State { disk, primary, sees_primary, current } => {
                self.peer_state(peer, (disk, primary, sees_primary, current));
            }
            Msg::NewGen { id, generation, behind } => {
                self.new_generation(peer, id, (generation, behind));
            }
            Msg::GenAck { id } => self.generation_acked(peer, id),
            Msg::OutOfSync { peer: who, runs } => {
                if usize::from(who) < self.peers.len() && who != self.config.index {
                    for (first, len) in runs {
                        self.mark(who, first, first.saturating_add(len));
                    }
                }
            }
            Msg::Cold { extents, mask } => self.cold(extents, mask),
            Msg::InSync { mask } => self.all_in_sync(peer, mask),
            Msg::PromoteAsk { id } => self.promote_asked(peer, id),
            Msg::PromoteAns { id, ok, hot } => self.promote_answered(peer, id, ok, hot),
            Msg::PromoteDone { .. } => {
                self.change.granted = self.change.granted.filter(|g| *g != peer);
            }
            Msg::Leave => {
                let p = &mut self.peers[usize::from(peer)];
                p.unflushed.clear();
                p.flushing.clear();
                self.hang_up(peer);
            }
            Msg::Ping => {}
            Msg::Hello(_) | Msg::Bits { .. } | Msg::Ready { .. } => self.hang_up(peer),
        }
    }

    fn remote_write(
        &mut self,
        peer: u8,
        wid: u64,
        (offset, len): (u64, u64),
        mask: u32,
        data: Option<D>,
    ) {
        let p = &self.peers[usize::from(peer)];
        if !p.primary || self.primary || !self.in_range(offset, len) {
            self.hang_up(peer);
            return;
        }
        let conn = p.conn;
        self.add(Op::new(Kind::Remote { peer, conn, wid, mask }, (offset, len), data));
    }

    fn sync_in(&mut self, peer: u8, wid: u64, (offset, len): (u64, u64), data: Option<D>) {
        let p = &self.peers[usize::from(peer)];
        if p.sync != (Sync::Target { done: false }) || !self.in_range(offset, len) {
            self.hang_up(peer);
            return;
        }
        let conn = p.conn;
        self.add(Op::new(Kind::SyncIn { peer, conn, wid }, (offset, len), data));
    }

    fn peer_state(
        &mut self,
        peer: u8,
        (disk, primary, sees_primary, current): (Disk, bool, Option<u8>, u64),
    ) {
        let p: &mut Peer = &mut self.peers[usize::from(peer)];
        let news = primary && !p.primary;
        p.primary = primary;
        p.disk = Some(disk);
        p.sees_primary = sees_primary;
        let calm = p.sync == Sync::None && p.bits.count() == 0;
        let served = matches!(p.sync, Sync::Target { .. });
        if primary && self.primary {
            self.hang_up(peer);
            self.peers[usize::from(peer)].why = Some(Why::TwoPrimaries);
        } else if news && self.follows_other_than(peer) {
            // The one that became primary last is the one that the record names.
            for q in self.others().filter(|q| *q != peer).collect::<Vec<_>>() {
                if self.peers[usize::from(q)].primary {
                    self.hang_up(q);
                }
            }
        } else if news && self.disk < Disk::UpToDate && !served {
            // The new primary has to care for this replica.
            for q in self.others().collect::<Vec<_>>() {
                self.hang_up(q);
            }
        } else if calm && disk == Disk::UpToDate && current == self.head.current {
            if self.disk == Disk::Consistent || self.disk == Disk::Outdated {
                self.become_up_to_date();
            }
            if self.primary {
                self.announce(bit(peer));
            } else {
                self.equal_again(peer);
            }
        }
    }

    fn follows_other_than(&self, peer: u8) -> bool {
        self.others()
            .any(|q| q != peer && self.established(q) && self.peers[usize::from(q)].primary)
    }

    fn all_in_sync(&mut self, peer: u8, mask: u32) {
        if self.disk != Disk::UpToDate || !self.peers[usize::from(peer)].primary {
            return;
        }
        for q in self.others().filter(|q| mask & bit(*q) != 0) {
            let at = usize::from(q);
            if self.peers[at].sync == Sync::None {
                self.peers[at].bits.clear(0, u64::MAX);
                self.equal_again(q);
            }
        }
        let pages = self.dirty_pages();
        self.store(pages, After::Nothing);
        if self.head.sync_from != NOBODY {
            self.head.sync_from = NOBODY;
            self.store_head(After::Nothing);
        }
    }
}
