//! Roles and generations: promote, demote, go on without a peer, detach.

use super::{After, Engine, Stage, Sync, bit};
use crate::activity::EXTENT_BLOCKS;
use crate::event::{Effect, Refusal};
use crate::lineage::{Disk, Hello, Verdict};
use crate::meta;
use crate::wire::Msg;
use std::collections::{BTreeMap, BTreeSet};

/// Commands in work.
#[derive(Debug, Default)]
pub(super) struct Change {
    pub(super) rotation: Option<Rotation>,
    promoting: Option<Promoting>,
    /// This peer was told that it may become primary.
    pub(super) granted: Option<u8>,
    demoting: Option<Demoting>,
    closing: Option<Closing>,
    /// The operator gave this replica's changes up.
    pub(super) discard: bool,
    to_drop: u32,
    rotate: bool,
    /// Back before the generation was settled: until it is, writes that waited for these are not answered.
    back: u32,
    /// A promotion asked for while attaching.
    pub(super) early: Option<(u64, u32)>,
}

/// A new generation on its way to the disks of all that take part.
#[derive(Debug)]
pub(super) struct Rotation {
    id: u64,
    pending: u32,
    behind: u32,
    stage: Spread,
    stored: bool,
    fresh: bool,
    /// One that was to take part is gone: whether it has stored the generation is not known.
    broken: bool,
    reply: Option<u64>,
}

/// How far a new generation has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Spread {
    /// To the disk here, then to all that take part: nobody may know a generation that its maker has forgotten.
    Store,
    /// That all have it is being stored.
    Commit,
    /// To those that are being synced: they will have parts of it.
    Targets,
}

#[derive(Debug)]
struct Promoting {
    id: u64,
    ask: u64,
    lost: u32,
    pending: u32,
    /// For every peer that has agreed: where it may differ from this replica.
    hot: BTreeMap<u8, Vec<u32>>,
}

#[derive(Debug)]
struct Demoting {
    id: u64,
    /// The flush of the whole replica set that comes first is ordered.
    flushed: bool,
    begun: bool,
    cold: Vec<u32>,
}

#[derive(Debug)]
struct Closing {
    id: u64,
    begun: bool,
}

impl Change {
    /// On the way to secondary: what comes now comes too late.
    pub(super) fn is_demoting(&self) -> bool {
        self.demoting.is_some()
    }

    /// No new connections now.
    pub(super) fn busy(&self) -> bool {
        self.promoting.is_some() || self.closing.is_some() || self.rotation.is_some()
    }
}

impl<D: Clone> Engine<D> {
    fn reply(&mut self, id: u64, result: Result<(), Refusal>) {
        self.out.push_back(Effect::Reply { id, result });
    }

    // ---- promotion

    pub(super) fn promote(&mut self, id: u64, lost: u32) {
        if !self.attached && self.disk != Disk::Diskless && self.change.early.is_none() {
            self.change.early = Some((id, lost));
            return;
        }
        let absent = self.mask_of(|p| !self.established(p));
        let refusal = if self.primary {
            let settled = self.change.rotation.as_ref().is_none_or(|r| r.reply.is_none());
            self.reply(id, if settled { Ok(()) } else { Err(Refusal::Busy) });
            return;
        } else if self.disk == Disk::Diskless {
            Some(Refusal::Disk)
        } else if self.change.busy() || self.change.demoting.is_some() || !self.attached {
            Some(Refusal::Busy)
        } else if self.disk != Disk::UpToDate && !self.vouched(absent, lost) {
            Some(Refusal::NotUpToDate)
        } else if self.sees_primary().is_some() || self.change.granted.is_some() {
            Some(Refusal::PeerPrimary)
        } else if absent & !lost != 0 {
            Some(Refusal::PeerUnknown)
        } else if !self.majority() {
            Some(Refusal::NoQuorum)
        } else {
            None
        };
        if let Some(refusal) = refusal {
            self.reply(id, Err(refusal));
            return;
        }
        for p in self.others().filter(|p| absent & bit(*p) != 0) {
            self.hang_up(p);
        }
        if self.disk == Disk::Consistent {
            self.become_up_to_date();
        }
        let ask = self.id();
        let pending = self.mask_of(|p| self.established(p));
        self.change.promoting = Some(Promoting { id, ask, lost, pending, hot: BTreeMap::new() });
        for p in self.others().filter(|p| pending & bit(*p) != 0) {
            self.send(p, Msg::PromoteAsk { id: ask });
        }
        self.promotion_check();
    }

    /// From `Consistent` to `UpToDate` by a promotion: this replica is whole, those that are connected have the same, those that could tell
    /// are away, and the control plane, which orders a promotion only of a replica that its record names (ADR-0004), says that these are left
    /// behind.
    fn vouched(&self, absent: u32, lost: u32) -> bool {
        let same = |p: u8| {
            let peer = &self.peers[usize::from(p)];
            matches!(peer.verdict, Some(Verdict::Equal(_))) && peer.sync == Sync::None
        };
        let alike = self.others().all(|p| absent & bit(p) != 0 || same(p));
        self.disk == Disk::Consistent && absent != 0 && absent & !lost == 0 && alike
    }

    pub(super) fn promote_asked(&mut self, peer: u8, id: u64) {
        let rival = self.change.promoting.is_some();
        if rival && peer < self.config.index {
            self.promotion_over(Refusal::PeerPrimary);
        }
        let free = self.change.granted.is_none_or(|g| g == peer);
        let ok = !self.primary
            && free
            && self.change.promoting.is_none()
            && self.sees_primary().is_none();
        if ok {
            self.change.granted = Some(peer);
        }
        let hot = self.may_differ(peer);
        self.send(peer, Msg::PromoteAns { id, ok, hot });
    }

    /// Extents in which the peer may differ from this replica: hot here by a write of another, or noted (after a crash, say) and not synced since.
    fn may_differ(&self, peer: u8) -> Vec<u32> {
        let mut extents: BTreeSet<u32> = self.al.doubtful(peer).into_iter().collect();
        let bits = &self.peers[usize::from(peer)].bits;
        let mut at = 0;
        while let Some(block) = bits.next(at) {
            let extent = block / EXTENT_BLOCKS;
            extents.extend(u32::try_from(extent));
            at = (extent + 1) * EXTENT_BLOCKS;
        }
        extents.into_iter().collect()
    }

    pub(super) fn promote_answered(&mut self, peer: u8, ask: u64, ok: bool, hot: Vec<u32>) {
        let Some(promoting) = self.change.promoting.as_mut().filter(|p| p.ask == ask) else {
            return;
        };
        if !ok {
            self.promotion_over(Refusal::PeerPrimary);
            return;
        }
        promoting.pending &= !bit(peer);
        promoting.hot.insert(peer, hot);
        self.promotion_check();
    }

    fn promotion_over(&mut self, why: Refusal) {
        if let Some(promoting) = self.change.promoting.take() {
            for p in self.others().filter(|p| self.established(*p)).collect::<Vec<_>>() {
                self.send(p, Msg::PromoteDone { ok: false });
            }
            self.reply(promoting.id, Err(why));
        }
    }

    /// All have agreed: primary, once that is stored.
    fn promotion_check(&mut self) {
        let Some(promoting) = self.change.promoting.take_if(|p| p.pending == 0) else { return };
        if self.disk != Disk::UpToDate || !self.majority() {
            self.change.promoting = Some(promoting);
            self.promotion_over(if self.disk == Disk::UpToDate {
                Refusal::NoQuorum
            } else {
                Refusal::NotUpToDate
            });
            return;
        }
        for p in self.others() {
            let theirs = promoting.hot.get(&p).cloned().unwrap_or_default();
            for extent in theirs.into_iter().chain(self.al.doubtful(p)) {
                self.mark_extent(p, extent);
            }
        }
        self.al.noted();
        self.primary = true;
        self.head.primary = true;
        self.head.left = self.mask_of(|p| promoting.lost & bit(p) != 0).to_le_bytes()[0];
        self.grace_until = 0;
        let absent = self.mask_of(|p| !self.established(p));
        self.rotate(absent, Some(promoting.id));
    }

    // ---- generations

    /// Takes part in the current generation.
    fn in_lineage(&self, peer: u8) -> bool {
        self.established(peer)
            && match self.peers[usize::from(peer)].sync {
                Sync::None => {
                    !self.head.behind(usize::from(peer))
                        && self.peers[usize::from(peer)].disk >= Some(Disk::Consistent)
                }
                Sync::Source { done, .. } => done,
                Sync::Starting | Sync::Target { .. } => false,
            }
    }

    /// Goes on without those not connected (`reply` = promotion; then the generation changes only if somebody is `absent`).
    pub(super) fn rotate(&mut self, absent: u32, reply: Option<u64>) {
        for p in self.others().collect::<Vec<_>>() {
            if matches!(self.peers[usize::from(p)].stage, Stage::Hello | Stage::Bits | Stage::Ready)
            {
                self.hang_up(p);
            }
        }
        let id = self.id();
        let reply = reply.or_else(|| self.change.rotation.take().and_then(|r| r.reply));
        let (mut pending, mut behind) = (0, 0);
        let fresh = absent != 0 || reply.is_none();
        if fresh {
            let old = self.head.current;
            for p in self.others().filter(|p| !self.in_lineage(*p)).collect::<Vec<_>>() {
                if !self.head.behind(usize::from(p)) {
                    self.head.bitmap[usize::from(p)] = old;
                }
            }
            self.head.remember(old);
            self.head.current = self.fresh_generation();
            behind = self.mask_of(|p| self.head.behind(usize::from(p)) && !self.in_lineage(p));
            pending = self.mask_of(|p| self.in_lineage(p));
            if pending != 0 && self.head.base == 0 {
                self.head.base = old;
            }
        }
        self.change.rotation = Some(Rotation {
            id,
            pending,
            behind,
            stage: Spread::Store,
            stored: false,
            fresh,
            broken: false,
            reply,
        });
        self.store_head(After::Rotated(id));
    }

    /// A crash left a generation that may never have come about: nothing was acknowledged in it unless the peer knows it.
    /// True when this was decided now: then both meet anew.
    pub(super) fn settle_generation(&mut self, theirs: &Hello) -> bool {
        let (base, current) = (self.head.base, self.head.current);
        if base == 0 || self.primary {
            return false;
        }
        let left = |p: u8| self.head.bitmap[usize::from(p)] == base;
        let others = self.others().any(|p| p != theirs.index && !self.head.behind(usize::from(p)));
        if left(theirs.index) && theirs.current == base && others {
            // It was left behind by this generation and nothing has come of that since: only those that took part can tell.
            return false;
        }
        self.head.base = 0;
        let known = [theirs.current, theirs.goal].contains(&current)
            || theirs.bitmap.contains(&current)
            || theirs.history.contains(&current);
        if known {
            self.store_head(After::Nothing);
            return true;
        }
        self.head.current = base;
        self.head.history.retain(|g| *g != base);
        for p in self.others() {
            if self.head.bitmap[usize::from(p)] == base {
                self.head.bitmap[usize::from(p)] = 0;
            }
        }
        self.store_head(After::Nothing);
        true
    }

    pub(super) fn rotation_stored(&mut self, id: u64) {
        let generation = self.head.current;
        let Some(rotation) = self.change.rotation.as_mut().filter(|r| r.id == id) else { return };
        rotation.stored = true;
        let (pending, behind) = (rotation.pending, rotation.behind);
        for p in self.others().filter(|p| pending & bit(*p) != 0) {
            self.send(p, Msg::NewGen { id, generation, behind });
        }
        self.rotation_check();
    }

    pub(super) fn generation_acked(&mut self, peer: u8, id: u64) {
        if let Some(rotation) = self.change.rotation.as_mut().filter(|r| r.id == id) {
            rotation.pending &= !bit(peer);
            self.rotation_check();
        }
    }

    /// A generation exists only when all that take part have stored it; that they have is stored before anything is acknowledged in it.
    fn rotation_check(&mut self) {
        let Some(rotation) = self.change.rotation.as_mut().filter(|r| r.stored && r.pending == 0)
        else {
            return;
        };
        let id = rotation.id;
        match rotation.stage {
            Spread::Store if rotation.broken => self.rotation_broken(),
            Spread::Store => {
                rotation.stage = Spread::Commit;
                if self.head.base == 0 {
                    self.rotation_committed(id);
                } else {
                    self.head.base = 0;
                    self.store_head(After::Committed(id));
                }
            }
            Spread::Commit => {}
            Spread::Targets => self.rotation_done(),
        }
    }

    pub(super) fn rotation_committed(&mut self, id: u64) {
        let fits = |r: &&mut Rotation| r.id == id && r.stage == Spread::Commit;
        let targets = self.mask_of(|p| self.established(p) && !self.in_lineage(p));
        let generation = self.head.current;
        let Some(rotation) = self.change.rotation.as_mut().filter(fits) else { return };
        rotation.stage = Spread::Targets;
        rotation.pending = if rotation.fresh { targets } else { 0 };
        let told = rotation.pending;
        for p in self.others().filter(|p| told & bit(*p) != 0) {
            self.send(p, Msg::NewGen { id, generation, behind: bit(p) });
        }
        self.rotation_check();
    }

    /// Who went away in the middle may have stored the generation or not. It stays undecided (`base` is kept), nothing is acknowledged in
    /// it, and another one is made as soon as those that take part are known again: back, or left behind by the record. If that never comes
    /// to pass here, the generation is undone when the others are met ([`Self::settle_generation`]).
    fn rotation_broken(&mut self) {
        self.want_rotation();
        if let Some(id) = self.change.rotation.take().and_then(|r| r.reply) {
            self.promoted(id);
        }
    }

    fn rotation_done(&mut self) {
        let Some(rotation) = self.change.rotation.take() else { return };
        let left = self.mask_of(|p| !self.established(p) && self.head.left(usize::from(p)));
        let back = std::mem::take(&mut self.change.back);
        self.forgive(left | back);
        let promoted = rotation.reply.is_some();
        if let Some(id) = rotation.reply {
            self.promoted(id);
        }
        for p in self.others().filter(|p| self.established(*p)).collect::<Vec<_>>() {
            let peer = &mut self.peers[usize::from(p)];
            if peer.sync == Sync::None && peer.bits.count() != 0 {
                peer.sync = Sync::Starting;
                self.send(p, Msg::SyncStart);
            }
        }
        if promoted {
            self.announce(u32::MAX);
        }
    }

    /// A peer is connected anew, with bits for what it lacks: nothing has to wait for it, unless the generation is not settled yet.
    pub(super) fn back(&mut self, peer: u8) {
        if self.primary && self.head.base != 0 {
            self.change.back |= bit(peer);
        } else {
            self.forgive(bit(peer));
        }
    }

    fn promoted(&mut self, id: u64) {
        for p in self.others().filter(|p| self.established(*p)).collect::<Vec<_>>() {
            self.send_state(p);
            self.send(p, Msg::PromoteDone { ok: true });
        }
        self.reply(id, Ok(()));
    }

    /// On a secondary: the primary goes on without `behind`.
    pub(super) fn new_generation(&mut self, peer: u8, id: u64, (generation, behind): (u64, u32)) {
        let conn = self.peers[usize::from(peer)].conn;
        if behind & bit(self.config.index) != 0 || !self.head.consistent {
            if self.peers[usize::from(peer)].sync == (Sync::Target { done: false }) {
                self.head.goal = generation;
            }
            self.store_head(After::GenStored { peer, conn, id });
            return;
        }
        let old = self.head.current;
        self.head.remember(old);
        for q in self.others().filter(|q| behind & bit(*q) != 0 && *q != peer) {
            if !self.head.behind(usize::from(q)) {
                self.head.bitmap[usize::from(q)] = old;
            }
        }
        self.head.current = generation;
        self.store_head(After::GenStored { peer, conn, id });
    }

    /// These peers are (or are again) in sync: the control plane and the others learn it.
    pub(super) fn announce(&mut self, peers: u32) {
        let all = self.mask_of(|p| self.in_sync(p));
        if all & peers == 0 {
            return;
        }
        let named = self.mask_of(|p| all & peers & bit(p) != 0 && self.head.left(usize::from(p)));
        if named != 0 {
            // From when they are announced the record may name them: that is stored first.
            self.head.left &= !named.to_le_bytes()[0];
            self.store_head(After::Named(peers));
            return;
        }
        self.out.push_back(Effect::InSync { peers: all & peers });
        for p in self.others().filter(|p| all & bit(*p) != 0) {
            self.send(p, Msg::InSync { mask: all | bit(self.config.index) });
        }
    }

    /// The control plane has recorded that these are left behind.
    pub(super) fn drop_peers(&mut self, peers: u32, epoch: u64) {
        let before = (self.head.epoch, self.head.left);
        self.head.epoch = self.head.epoch.max(epoch);
        if self.primary {
            for p in self.others().filter(|p| peers & bit(*p) != 0) {
                self.hang_up(p);
                self.head.left |= bit(p).to_le_bytes()[0];
                if !self.head.behind(usize::from(p)) {
                    self.change.to_drop |= bit(p);
                }
            }
            if !self.rotation_due() && self.change.rotation.is_none() {
                self.forgive(peers);
            }
        }
        if before != (self.head.epoch, self.head.left) {
            self.store_head(After::Nothing);
        }
    }

    pub(super) fn want_rotation(&mut self) {
        self.change.rotate = true;
    }

    /// A generation has to be made before anything more is acknowledged.
    pub(super) fn rotation_due(&self) -> bool {
        self.change.rotate || self.change.to_drop != 0
    }

    pub(super) fn being_dropped(&self, peer: u8) -> bool {
        self.change.to_drop & bit(peer) != 0
    }

    // ---- the rest

    pub(super) fn role_peer_down(&mut self, peer: u8) {
        self.change.granted = self.change.granted.filter(|g| *g != peer);
        if let Some(promoting) = &mut self.change.promoting
            && (promoting.pending & bit(peer) != 0 || promoting.lost & bit(peer) == 0)
        {
            if promoting.lost & bit(peer) != 0 {
                promoting.pending &= !bit(peer);
                self.promotion_check();
            } else {
                self.promotion_over(Refusal::PeerUnknown);
            }
        }
        self.change.back &= !bit(peer);
        if let Some(rotation) = self.change.rotation.as_mut().filter(|r| r.pending & bit(peer) != 0)
        {
            rotation.pending &= !bit(peer);
            rotation.broken = true;
            self.rotation_check();
        }
    }

    /// Commands go on when what they wait for has happened.
    pub(super) fn advance_commands(&mut self) {
        if self.primary
            && self.rotation_due()
            && self.attached
            && self.lost() & !self.change.to_drop == 0
        {
            self.change.to_drop = 0;
            self.change.rotate = false;
            self.rotate(u32::MAX, None);
        }
        if !self.app_busy() && self.change.rotation.is_none() {
            self.advance_demotion();
        }
        if self.change.closing.as_ref().is_some_and(|c| !c.begun) && !self.disk_busy() {
            if let Some(closing) = &mut self.change.closing {
                closing.begun = true;
            }
            self.disk_flush(After::DownFlush);
        }
    }

    /// No request is in work any more (but for those that were answered with a failure and wait for lost peers).
    fn advance_demotion(&mut self) {
        let whole = self.suspended().is_none();
        let Some(demoting) = self.change.demoting.as_mut().filter(|d| !d.begun) else { return };
        if whole && !demoting.flushed {
            // The peers have all of it on their disks before they are told that nothing is hot any more.
            demoting.flushed = true;
            self.want_flush();
            self.flush_step();
            return;
        }
        demoting.begun = true;
        self.abandon();
        self.disk_flush(After::DemoteFlush);
    }

    pub(super) fn demote(&mut self, id: u64) {
        if !self.primary {
            self.reply(id, Ok(()));
        } else if self.disk == Disk::Diskless {
            self.primary = false;
            self.reply(id, Ok(()));
        } else if self.change.demoting.is_some() || self.change.busy() {
            self.reply(id, Err(Refusal::Busy));
        } else {
            self.change.demoting =
                Some(Demoting { id, flushed: false, begun: false, cold: Vec::new() });
        }
    }

    pub(super) fn demote_store(&mut self) {
        let pages = self.dirty_pages();
        self.store(pages, After::Nothing);
        let all = self.al.extents();
        let stamp = self.al.stamp();
        let cold = self.al.evict(&all, stamp);
        self.log_seq += 1;
        let piece = meta::encode_log(self.log_seq, &self.al.extents(), self.al.doubt());
        self.store(vec![piece], After::Nothing);
        self.head.primary = false;
        if let Some(demoting) = &mut self.change.demoting {
            demoting.cold = cold;
        }
        self.store_head(After::Demoted);
    }

    pub(super) fn demoted(&mut self) {
        let Some(demoting) = self.change.demoting.take() else { return };
        self.tell_cold(&demoting.cold);
        self.primary = false;
        self.change.back = 0;
        self.change.to_drop = 0;
        self.change.rotate = false;
        self.asked = 0;
        self.reply(demoting.id, Ok(()));
    }

    pub(super) fn closing(&self) -> bool {
        self.change.closing.is_some()
    }

    pub(super) fn down(&mut self, id: u64) {
        if self.primary || self.change.busy() {
            self.reply(id, Err(Refusal::Busy));
            return;
        }
        for p in self.others().collect::<Vec<_>>() {
            if !self.established(p) || self.peers[usize::from(p)].sync != Sync::None {
                self.hang_up(p);
            }
        }
        // The others stay until they are told what they need not send again. What they send from now on is not taken.
        self.change.closing = Some(Closing { id, begun: false });
    }

    pub(super) fn down_store(&mut self) {
        for p in self.others().filter(|p| self.established(*p)).collect::<Vec<_>>() {
            self.send(p, Msg::Leave);
            self.lost_blocks(p);
        }
        let pages = self.dirty_pages();
        self.store(pages, After::Nothing);
        self.log_seq += 1;
        let piece = meta::encode_log(self.log_seq, &self.al.extents(), self.al.doubt());
        self.store(vec![piece], After::Nothing);
        self.head.clean = true;
        self.store_head(After::Closed);
    }

    pub(super) fn closed(&mut self) {
        if let Some(closing) = &self.change.closing {
            let id = closing.id;
            for p in self.others().collect::<Vec<_>>() {
                self.hang_up(p);
            }
            self.reply(id, Ok(()));
        }
    }

    pub(super) fn discard(&mut self, id: u64) {
        if self.primary || self.change.busy() {
            self.reply(id, Err(Refusal::Busy));
            return;
        }
        self.change.discard = true;
        for p in self.others().collect::<Vec<_>>() {
            self.hang_up(p);
            self.peers[usize::from(p)].why = None;
        }
        self.reply(id, Ok(()));
    }

    /// The disk failed: every command in work fails with it.
    pub(super) fn abort_commands(&mut self) {
        self.promotion_over(Refusal::Disk);
        let demoting = self.change.demoting.take().map(|d| d.id);
        let closing = self.change.closing.take().map(|c| c.id);
        let rotation = self.change.rotation.take().and_then(|r| r.reply);
        let early = self.change.early.take().map(|(id, _)| id);
        if demoting.is_some() {
            self.primary = false;
        }
        for id in demoting.into_iter().chain(closing).chain(rotation).chain(early) {
            self.reply(id, Err(Refusal::Disk));
        }
    }
}
