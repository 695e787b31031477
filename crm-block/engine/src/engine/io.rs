//! Requests: locks, the way of a write, flushes.

use super::{After, Engine, Stage, Sync, bit};
use crate::activity::{Acquired, Doubt, EXTENT};
use crate::bitmap::BLOCK;
use crate::event::{Effect, Failure, Read};
use crate::wire::Msg;

/// So many ranges acknowledged but not durable at a peer, and the engine flushes by itself.
const MOST_UNFLUSHED: usize = 2048;

/// Where a request comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// The application; `None` = already answered (with an error).
    App { id: Option<u64>, fua: bool },
    /// A write of the primary.
    Remote { peer: u8, conn: u64, wid: u64, mask: u32 },
    /// Resync, as target.
    SyncIn { peer: u8, conn: u64, wid: u64 },
    /// Resync, as source: read, send, wait for the answer.
    SyncOut { peer: u8, conn: u64 },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Queued,
    Log,
    Begun,
}

/// A request in work.
#[derive(Debug)]
pub(super) struct Op<D> {
    kind: Kind,
    offset: u64,
    len: u64,
    body: Option<D>,
    step: Step,
    logged: bool,
    local: bool,
    pending: u32,
    sent: u32,
}

/// One flush of the whole replica set.
#[derive(Debug)]
struct Group {
    number: u64,
    local: bool,
    pending: u32,
    waiters: Vec<u64>,
}

/// Flushes in work and wanted.
#[derive(Debug, Default)]
pub(super) struct Flushes {
    now: Option<Group>,
    next: Vec<u64>,
    force: bool,
    /// Number of the last group begun.
    pub(super) number: u64,
}

impl<D> Op<D> {
    pub(super) fn new(kind: Kind, (offset, len): (u64, u64), body: Option<D>) -> Self {
        Self {
            kind,
            offset,
            len,
            body,
            step: Step::Queued,
            logged: false,
            local: false,
            pending: 0,
            sent: 0,
        }
    }

    fn blocks(&self) -> (u64, u64) {
        (self.offset / BLOCK, (self.offset + self.len).div_ceil(BLOCK))
    }

    fn extents(&self) -> (u32, u32) {
        let of = |byte: u64| u32::try_from(byte / EXTENT).unwrap_or(u32::MAX);
        (of(self.offset), of(self.offset + self.len - 1))
    }
}

impl<D: Clone> Engine<D> {
    pub(super) fn write(&mut self, id: u64, (offset, len): (u64, u64), data: Option<D>, fua: bool) {
        let failure = self
            .readable()
            .err()
            .or_else(|| (!self.in_range(offset, len)).then_some(Failure::Range));
        if let Some(failure) = failure {
            self.out.push_back(Effect::Complete { id, result: Err(failure) });
            return;
        }
        self.add(Op::new(Kind::App { id: Some(id), fua }, (offset, len), data));
    }

    pub(super) fn in_range(&self, offset: u64, len: u64) -> bool {
        len > 0
            && len.is_multiple_of(512)
            && offset.is_multiple_of(512)
            && offset.checked_add(len).is_some_and(|end| end <= self.config.size)
    }

    /// Puts a request to work, or in the queue.
    pub(super) fn add(&mut self, op: Op<D>) -> u64 {
        let id = self.id();
        self.ops.insert(id, op);
        if !self.queue.is_empty() {
            self.queue.push_back(id);
            self.pump = true;
        } else if !self.admit(id) {
            self.queue.push_back(id);
        }
        id
    }

    pub(super) fn locked(&self, first: u64, end: u64) -> bool {
        self.locks.range(..end).next_back().is_some_and(|(_, (stop, _))| *stop > first)
    }

    fn admit(&mut self, id: u64) -> bool {
        let gate_closed = self.suspended().is_some() || !self.attached;
        let Some(op) = self.ops.get(&id) else { return true };
        let (first, end) = op.blocks();
        let (low, high) = op.extents();
        let app = matches!(op.kind, Kind::App { .. });
        if (app && gate_closed) || self.locked(first, end) {
            return false;
        }
        let acquired = match op.kind {
            Kind::App { .. } => self.al.acquire(low, high, Doubt::OWN),
            Kind::Remote { peer, .. } => self.al.acquire(low, high, Doubt::of_primary(peer)),
            Kind::SyncIn { .. } | Kind::SyncOut { .. } => Acquired::Durable,
        };
        if acquired == Acquired::Full {
            self.want_evict = true;
            return false;
        }
        self.locks.insert(first, (end, id));
        if let Some(op) = self.ops.get_mut(&id) {
            op.logged = matches!(op.kind, Kind::App { .. } | Kind::Remote { .. });
            op.step = Step::Log;
        }
        if acquired == Acquired::WriteFirst {
            let extents = u32::try_from(self.config.size.div_ceil(EXTENT)).unwrap_or(u32::MAX);
            self.al.read_ahead(high, extents);
            self.log_waiting.push(id);
        } else {
            self.issue(id);
        }
        true
    }

    /// Whether the activity log on disk holds what the request needs (true for one that is gone).
    pub(super) fn log_holds(&self, id: u64) -> bool {
        self.ops.get(&id).is_none_or(|op| {
            let (low, high) = op.extents();
            self.al.durable(low, high)
        })
    }

    /// Tries what waits, in order; nothing overtakes what it overlaps.
    pub(super) fn pump_queue(&mut self) {
        let mut blocked: Vec<(u64, u64)> = Vec::new();
        for id in std::mem::take(&mut self.queue) {
            let Some((first, end)) = self.ops.get(&id).map(Op::blocks) else { continue };
            let overtakes = blocked.iter().any(|(f, e)| first < *e && *f < end);
            if overtakes || !self.admit(id) {
                blocked.push((first, end));
                self.queue.push_back(id);
            }
        }
    }

    /// The activity log holds the extents: to the disk and to the peers.
    pub(super) fn issue(&mut self, id: u64) {
        let Some(op) = self.ops.get_mut(&id) else { return };
        op.step = Step::Begun;
        let (kind, offset, len, body) = (op.kind, op.offset, op.len, op.body.take());
        let (first, end) = op.blocks();
        match kind {
            Kind::App { .. } => self.issue_app(id, (offset, len), body.as_ref()),
            Kind::Remote { peer, mask, .. } => {
                for q in self.others().filter(|q| *q != peer && mask & bit(*q) == 0) {
                    self.mark(q, first, end);
                }
            }
            Kind::SyncIn { peer, .. } => {
                for q in self.others().filter(|q| *q != peer) {
                    self.mark(q, first, end);
                }
            }
            Kind::SyncOut { .. } => {
                self.out.push_back(Effect::DiskRead { op: id, offset, len });
                return;
            }
        }
        self.out.push_back(match body {
            Some(data) => Effect::DiskWrite { op: id, offset, data },
            None => Effect::DiskZero { op: id, offset, len },
        });
    }

    fn issue_app(&mut self, id: u64, (offset, len): (u64, u64), body: Option<&D>) {
        let (first, end) = (offset / BLOCK, (offset + len).div_ceil(BLOCK));
        let sent = self.mask_of(|p| self.established(p));
        let mut pending = sent;
        let mask = sent | bit(self.config.index);
        for p in self.others() {
            if sent & bit(p) == 0 {
                self.mark(p, first, end);
                if !self.head.left(usize::from(p)) {
                    pending |= bit(p);
                }
            } else {
                self.send(
                    p,
                    match body {
                        Some(data) => Msg::Write { id, offset, len, mask, data: data.clone() },
                        None => Msg::Zero { id, offset, len, mask },
                    },
                );
            }
        }
        if let Some(op) = self.ops.get_mut(&id) {
            op.pending = pending;
            op.sent = sent;
        }
    }

    pub(super) fn disk_done(&mut self, id: u64, ok: bool) {
        let Some(op) = self.ops.get_mut(&id) else { return };
        op.local = true;
        let (kind, (first, end)) = (op.kind, op.blocks());
        if !ok {
            self.disk_failed();
        }
        match kind {
            Kind::App { .. } => self.try_finish(id),
            Kind::Remote { peer, conn, wid, .. } => {
                if ok {
                    self.send_if(peer, conn, Msg::WriteAck { id: wid });
                }
                self.finish(id);
            }
            Kind::SyncIn { peer, conn, wid } => {
                if ok {
                    self.peers[usize::from(peer)].bits.clear(first, end);
                    self.peers[usize::from(peer)].resynced += end - first;
                    self.send_if(peer, conn, Msg::SyncAck { id: wid });
                }
                self.finish(id);
            }
            Kind::SyncOut { .. } => self.finish(id),
        }
    }

    pub(super) fn read_done(&mut self, id: u64, data: Result<Read<D>, ()>) {
        let Some(op) = self.ops.get_mut(&id) else { return };
        let Kind::SyncOut { peer, conn } = op.kind else { return };
        op.local = true;
        let (offset, len) = (op.offset, op.len);
        let p = &self.peers[usize::from(peer)];
        if p.conn != conn || p.stage != Stage::Established {
            self.finish(id);
            return;
        }
        match data {
            Ok(Read::Data(data)) => self.send(peer, Msg::SyncData { id, offset, len, data }),
            Ok(Read::Zero) => self.send(peer, Msg::SyncZero { id, offset, len }),
            Err(()) => {
                self.finish(id);
                self.disk_failed();
            }
        }
    }

    /// A write is on the peer's disk.
    pub(super) fn write_acked(&mut self, peer: u8, id: u64) {
        let Some(op) = self.ops.get_mut(&id) else { return };
        if !matches!(op.kind, Kind::App { .. }) || op.pending & bit(peer) == 0 {
            return;
        }
        op.pending &= !bit(peer);
        op.sent &= !bit(peer);
        let range = op.blocks();
        let p = &mut self.peers[usize::from(peer)];
        p.unflushed.push(range);
        if p.unflushed.len() > MOST_UNFLUSHED {
            self.flush.force = true;
        }
        self.try_finish(id);
    }

    /// The target has written what was sent.
    pub(super) fn sync_acked(&mut self, peer: u8, id: u64) {
        let Some(op) = self.ops.get(&id) else { return };
        let (first, end) = op.blocks();
        let conn = self.peers[usize::from(peer)].conn;
        if op.kind != (Kind::SyncOut { peer, conn }) || !op.local {
            return;
        }
        let p = &mut self.peers[usize::from(peer)];
        p.bits.clear(first, end);
        p.unflushed.push((first, end));
        p.resynced += end - first;
        self.finish(id);
    }

    fn try_finish(&mut self, id: u64) {
        let Some(op) = self.ops.get(&id) else { return };
        if op.step != Step::Begun || !op.local || op.pending != 0 {
            return;
        }
        let Kind::App { id: app, fua } = op.kind else { return };
        self.finish(id);
        match app {
            Some(app) if fua => self.flush.next.push(app),
            Some(app) => self.out.push_back(Effect::Complete { id: app, result: Ok(()) }),
            None => {}
        }
    }

    /// Forgets a request: locks and extents are free.
    fn finish(&mut self, id: u64) {
        let Some(op) = self.ops.remove(&id) else { return };
        if op.step == Step::Queued {
            return;
        }
        self.locks.remove(&op.blocks().0);
        if op.logged {
            let (low, high) = op.extents();
            self.al.release(low, high);
        }
        if let Kind::SyncOut { peer, conn } = op.kind {
            let p = &mut self.peers[usize::from(peer)];
            if let (true, Sync::Source { flying, .. }) = (p.conn == conn, &mut p.sync) {
                *flying = flying.saturating_sub(1);
            }
        }
        self.pump |= !self.queue.is_empty();
    }

    /// The peer is gone: what it may not have becomes bits. Returns the runs.
    pub(super) fn lost_blocks(&mut self, peer: u8) -> Vec<(u64, u64)> {
        let p = &mut self.peers[usize::from(peer)];
        let mut ranges = std::mem::take(&mut p.unflushed);
        ranges.append(&mut p.flushing);
        let conn = p.conn;
        let mut over = Vec::new();
        for (id, op) in &mut self.ops {
            if op.sent & bit(peer) != 0 {
                op.sent &= !bit(peer);
                ranges.push(op.blocks());
            }
            match op.kind {
                Kind::SyncOut { peer: to, conn: c } if to == peer && c == conn && op.local => {
                    over.push(*id);
                }
                Kind::App { .. }
                | Kind::Remote { .. }
                | Kind::SyncIn { .. }
                | Kind::SyncOut { .. } => {}
            }
        }
        for id in over {
            self.finish(id);
        }
        for (first, end) in &ranges {
            self.mark(peer, *first, *end);
        }
        ranges
    }

    /// Nobody waits for these peers any more: they are left behind, or connected anew with bits for what they lack.
    pub(super) fn forgive(&mut self, peers: u32) {
        let ids: Vec<u64> = self
            .ops
            .iter()
            .filter(|(_, op)| op.pending & peers & !op.sent != 0)
            .map(|(id, _)| *id)
            .collect();
        for id in ids {
            if let Some(op) = self.ops.get_mut(&id) {
                op.pending &= !peers | op.sent;
            }
            self.try_finish(id);
        }
        if let Some(group) = &mut self.flush.now {
            group.pending &= !peers;
        }
        self.pump = true;
        self.group_check();
    }

    /// Answers every request of the application with a failure.
    pub(super) fn fail_app(&mut self, failure: Failure) {
        let mut failed = Vec::new();
        let mut gone = Vec::new();
        for (id, op) in &mut self.ops {
            if let Kind::App { id: app, .. } = &mut op.kind {
                failed.extend(app.take());
                if op.step == Step::Queued {
                    gone.push(*id);
                }
            }
        }
        for id in gone {
            self.ops.remove(&id);
        }
        failed.append(&mut self.flush.next);
        if let Some(group) = &mut self.flush.now {
            failed.append(&mut group.waiters);
        }
        for id in failed {
            self.out.push_back(Effect::Complete { id, result: Err(failure) });
        }
    }

    /// Whether requests of the application are in work. Those that were answered with a failure and wait for nothing but lost peers are
    /// not: their blocks are noted.
    pub(super) fn app_busy(&self) -> bool {
        let flushing = self
            .flush
            .now
            .as_ref()
            .is_some_and(|g| !g.local || !g.waiters.is_empty() || self.any_there(g.pending));
        let working = |op: &Op<D>| match op.kind {
            Kind::App { id: Some(_), .. } => true,
            Kind::App { id: None, .. } => !op.local || self.any_there(op.pending),
            Kind::Remote { .. } | Kind::SyncIn { .. } | Kind::SyncOut { .. } => false,
        };
        flushing || !self.flush.next.is_empty() || self.ops.values().any(working)
    }

    fn any_there(&self, peers: u32) -> bool {
        self.others().any(|p| peers & bit(p) != 0 && self.established(p))
    }

    /// Gives up what [`Self::app_busy`] does not count: nobody waits for it, and the bitmaps say which replicas may lack it.
    pub(super) fn abandon(&mut self) {
        let over: Vec<u64> = self
            .ops
            .iter()
            .filter(|(_, op)| matches!(op.kind, Kind::App { id: None, .. }))
            .map(|(id, _)| *id)
            .collect();
        for id in over {
            self.finish(id);
        }
        self.flush.now = None;
    }

    /// Whether the local disk is in use; drops what only waits.
    pub(super) fn disk_busy(&mut self) -> bool {
        for id in std::mem::take(&mut self.queue) {
            self.ops.remove(&id);
        }
        !self.ops.is_empty()
    }

    // ---- flushes

    pub(super) fn app_flush(&mut self, id: u64) {
        if let Err(failure) = self.readable() {
            self.out.push_back(Effect::Complete { id, result: Err(failure) });
            return;
        }
        self.flush.next.push(id);
    }

    /// Wants a flush that begins later than now; returns its number.
    pub(super) fn want_flush(&mut self) -> u64 {
        self.flush.force = true;
        self.flush.number + 1
    }

    /// Begins the next group when one is wanted and none is in work.
    pub(super) fn flush_step(&mut self) {
        let wanted = self.flush.force || !self.flush.next.is_empty();
        if !wanted || self.flush.now.is_some() || self.suspended().is_some() || !self.attached {
            return;
        }
        self.flush.force = false;
        self.flush.number += 1;
        let number = self.flush.number;
        let pending = self.mask_of(|p| self.established(p));
        for p in self.others().filter(|p| pending & bit(*p) != 0) {
            let peer = &mut self.peers[usize::from(p)];
            peer.flushing = std::mem::take(&mut peer.unflushed);
            self.send(p, Msg::Flush { id: number });
        }
        let waiters = std::mem::take(&mut self.flush.next);
        self.flush.now = Some(Group { number, local: false, pending, waiters });
        self.disk_flush(After::Group);
    }

    pub(super) fn group_local_done(&mut self) {
        if let Some(group) = &mut self.flush.now {
            group.local = true;
        }
        self.group_check();
    }

    pub(super) fn flush_acked(&mut self, peer: u8, number: u64) {
        if let Some(group) =
            self.flush.now.as_mut().filter(|g| g.number == number && g.pending & bit(peer) != 0)
        {
            group.pending &= !bit(peer);
            let p = &mut self.peers[usize::from(peer)];
            p.flushing.clear();
            p.flushed = number;
            self.group_check();
        }
    }

    fn group_check(&mut self) {
        if let Some(group) = self.flush.now.take_if(|g| g.local && g.pending == 0) {
            for id in group.waiters {
                self.out.push_back(Effect::Complete { id, result: Ok(()) });
            }
        }
    }
}
