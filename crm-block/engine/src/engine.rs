//! The state machine: what it knows, how it starts, how events are handed out.

mod io;
mod link;
mod log;
mod role;
mod sync;

use crate::Config;
use crate::activity::{ActivityLog, EXTENT_BLOCKS};
use crate::bitmap::{Bitmap, PAGE_BLOCKS, index};
use crate::event::{Effect, Event, Failure, Link, PeerView, Resume, View};
use crate::lineage::{Disk, Hello, Verdict, Why};
use crate::meta::{self, MetaError, NOBODY, Piece, Super};
use crate::wire::Msg;
use std::collections::{BTreeMap, VecDeque};

/// After this long without a majority a primary fails its I/O.
pub const QUORUM_FAIL_MS: u64 = 3000;

/// One volume on one node.
#[expect(clippy::struct_excessive_bools, reason = "independent facts, not states of one thing")]
#[derive(Debug)]
pub struct Engine<D> {
    config: Config,
    now: u64,
    random: u64,
    head: Super,
    log_seq: u64,
    al: ActivityLog,
    al_busy: log::Busy,
    want_evict: bool,
    log_stale: bool,
    peers: Vec<Peer>,
    disk: Disk,
    primary: bool,
    crashed: bool,
    attached: bool,
    ops: BTreeMap<u64, io::Op<D>>,
    queue: VecDeque<u64>,
    pump: bool,
    log_waiting: Vec<u64>,
    locks: BTreeMap<u64, (u64, u64)>,
    next: u64,
    flush: io::Flushes,
    after: BTreeMap<u64, After>,
    out: VecDeque<Effect<D>>,
    change: role::Change,
    asked: u32,
    grace_until: u64,
    quorum_lost: Option<u64>,
    quorum_failed: bool,
    told: Option<Told>,
    seen: Vec<u64>,
}

type Told = (Disk, bool, Option<u8>, u64, u64);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Down,
    Hello,
    Bits,
    Ready,
    Established,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sync {
    None,
    Starting,
    Source { cursor: u64, flying: u32, wanted: Option<u64>, done: bool },
    Target { done: bool },
}

#[expect(clippy::struct_excessive_bools, reason = "independent facts, not states of one thing")]
#[derive(Debug)]
struct Peer {
    conn: u64,
    stage: Stage,
    waiting: bool,
    mine: Option<Hello>,
    theirs: Option<Hello>,
    verdict: Option<Verdict>,
    target: bool,
    ready: (bool, bool),
    primary: bool,
    disk: Option<Disk>,
    sees_primary: Option<u8>,
    bits: Bitmap,
    unflushed: Vec<(u64, u64)>,
    flushing: Vec<(u64, u64)>,
    flushed: u64,
    sync: Sync,
    /// A sync waits until the stored log speaks of the doubt about this peer.
    untold: bool,
    tentative: bool,
    resynced: u64,
    why: Option<Why>,
}

/// What to do when a token is stored.
#[derive(Debug, Clone)]
enum After {
    Nothing,
    Attached,
    Group,
    EvictFlush(Vec<u32>, u64),
    EvictBits(Vec<u32>, u64),
    Log(Vec<u32>, u32),
    Cold { extents: Vec<u32>, mask: u32, stamp: u64 },
    PeerFlush { peer: u8, conn: u64, id: u64 },
    Ready { peer: u8, conn: u64 },
    Started { peer: u8, conn: u64 },
    SyncedIn { peer: u8, conn: u64, disk: Disk },
    GenStored { peer: u8, conn: u64, id: u64 },
    Rotated(u64),
    Committed(u64),
    Named(u32),
    DemoteFlush,
    Demoted,
    DownFlush,
    Closed,
}

fn bit(peer: u8) -> u32 {
    1 << peer
}

impl<D: Clone> Engine<D> {
    /// Attaches: takes the bytes of the metadata file. `seed` makes the generations of this run.
    ///
    /// # Errors
    /// When the metadata is damaged or belongs to another definition.
    pub fn attach(
        config: Config,
        bytes: &[u8],
        resume: Option<Resume>,
        seed: u64,
        now: u64,
    ) -> Result<Self, MetaError> {
        let stored = meta::read(&config, bytes)?;
        let resume = resume.unwrap_or_default();
        let mut al = ActivityLog::new(config.hot);
        if stored.head.clean {
            al.load(&stored.hot, stored.doubt);
        }
        let peers = stored.bitmaps.into_iter().map(Peer::new).collect();
        let mut engine = Self {
            now,
            random: seed,
            log_seq: stored.log_seq,
            al,
            al_busy: log::Busy::Idle,
            want_evict: false,
            log_stale: false,
            peers,
            disk: Disk::Diskless,
            primary: resume.primary,
            crashed: !stored.head.clean && stored.head.primary && !resume.primary,
            attached: false,
            ops: BTreeMap::new(),
            queue: VecDeque::new(),
            pump: false,
            log_waiting: Vec::new(),
            locks: BTreeMap::new(),
            next: 1,
            flush: io::Flushes::default(),
            after: BTreeMap::new(),
            out: VecDeque::new(),
            change: role::Change::default(),
            asked: 0,
            grace_until: if resume.primary { now + config.grace_ms } else { 0 },
            quorum_lost: None,
            quorum_failed: false,
            told: None,
            seen: Vec::new(),
            head: stored.head,
            config,
        };
        engine.begin((&stored.hot, stored.doubt), resume);
        Ok(engine)
    }

    fn begin(&mut self, (hot, doubt): (&[u32], u32), resume: Resume) {
        let single = self.peers.len() == 1;
        let all_behind = self.others().all(|p| self.head.behind(usize::from(p)));
        self.disk = if !self.head.consistent {
            Disk::Inconsistent
        } else if !self.head.up_to_date {
            Disk::Outdated
        } else if resume.up_to_date || single || all_behind {
            Disk::UpToDate
        } else {
            Disk::Consistent
        };
        if !self.head.clean {
            for p in self.others().filter(|p| doubt & bit(*p) != 0).collect::<Vec<_>>() {
                for &extent in hot {
                    self.mark_extent(p, extent);
                }
            }
            self.log_stale = !hot.is_empty();
        }
        if self.disk == Disk::Inconsistent {
            // What a broken-off sync brought is unknown to all but its source.
            for p in self
                .others()
                .filter(|p| *p != self.head.sync_from && self.peers.len() > 2)
                .collect::<Vec<_>>()
            {
                self.mark(p, 0, u64::MAX);
            }
        }
        let pages = self.dirty_pages();
        self.store(pages, After::Nothing);
        self.head.clean = false;
        self.store_head(After::Attached);
        let unsettled = self.head.base != 0;
        if self.primary && (unsettled || self.others().any(|p| self.head.behind(usize::from(p)))) {
            self.want_rotation();
        }
        self.settle();
    }

    /// Takes an event.
    pub fn handle(&mut self, now: u64, event: Event<D>) {
        self.now = now;
        match event {
            Event::PeerUp { peer } => self.peer_up(peer),
            Event::PeerDown { peer } => self.peer_down(peer),
            Event::PeerMsg { peer, msg } => self.message(peer, msg),
            Event::Write { id, offset, len, data, fua } => self.write(id, (offset, len), data, fua),
            Event::Flush { id } => self.app_flush(id),
            Event::DiskDone { op, ok } => self.disk_done(op, ok),
            Event::ReadDone { op, data } => self.read_done(op, data),
            Event::Stored { token, ok } => self.stored(token, ok),
            Event::Promote { id, lost } => self.promote(id, lost),
            Event::Demote { id } => self.demote(id),
            Event::Down { id } => self.down(id),
            Event::Drop { peers, epoch } => self.drop_peers(peers, epoch),
            Event::Discard { id } => self.discard(id),
            Event::Tick => {}
        }
        self.settle();
    }

    /// Next effect.
    pub fn poll(&mut self) -> Option<Effect<D>> {
        self.out.pop_front()
    }

    /// When to send [`Event::Tick`].
    #[must_use]
    pub fn deadline(&self) -> Option<u64> {
        let quorum = self.quorum_lost.filter(|_| !self.quorum_failed).map(|at| at + QUORUM_FAIL_MS);
        let grace = (self.primary && self.grace_until > self.now).then_some(self.grace_until);
        quorum.into_iter().chain(grace).min()
    }

    /// Whether reads may be served from the local disk.
    ///
    /// # Errors
    /// Says why not.
    pub fn readable(&self) -> Result<(), Failure> {
        if !self.primary || self.change.is_demoting() {
            Err(Failure::NotPrimary)
        } else if self.disk == Disk::Diskless {
            Err(Failure::Disk)
        } else if self.quorum_failed {
            Err(Failure::NoQuorum)
        } else {
            Ok(())
        }
    }

    fn stored(&mut self, token: u64, ok: bool) {
        let Some(after) = self.after.remove(&token) else { return };
        if !ok {
            self.disk_failed();
            return;
        }
        match after {
            After::Nothing => {}
            After::Attached => self.attached_now(),
            After::Group => self.group_local_done(),
            After::EvictFlush(extents, stamp) => self.evict_bits(extents, stamp),
            After::EvictBits(extents, stamp) => self.evicted(&extents, stamp),
            After::Log(extents, doubt) => self.log_written(&extents, doubt),
            After::Cold { extents, mask, stamp } => self.cold_done(&extents, mask, stamp),
            After::PeerFlush { peer, conn, id } => self.send_if(peer, conn, Msg::FlushAck { id }),
            After::Ready { peer, conn } => self.ready_stored(peer, conn),
            After::Started { peer, conn } => self.send_if(peer, conn, Msg::SyncStarted),
            After::SyncedIn { peer, conn, disk } => self.synced_in(peer, conn, disk),
            After::GenStored { peer, conn, id } => self.send_if(peer, conn, Msg::GenAck { id }),
            After::Rotated(id) => self.rotation_stored(id),
            After::Committed(id) => self.rotation_committed(id),
            After::Named(peers) if self.primary => self.announce(peers),
            After::Named(_) => {}
            After::DemoteFlush => self.demote_store(),
            After::Demoted => self.demoted(),
            After::DownFlush => self.down_store(),
            After::Closed => self.closed(),
        }
    }

    fn attached_now(&mut self) {
        self.attached = true;
        self.pump = true;
        for p in self.others().collect::<Vec<_>>() {
            if std::mem::take(&mut self.peers[usize::from(p)].waiting) {
                self.peer_up(p);
            }
        }
        if let Some((id, lost)) = self.change.early.take() {
            self.promote(id, lost);
        }
    }

    // ---- small words used everywhere

    fn others(&self) -> impl Iterator<Item = u8> + use<D> {
        let me = self.config.index;
        (0..self.config.replicas).filter(move |p| *p != me)
    }

    fn id(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn fresh_generation(&mut self) -> u64 {
        loop {
            self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = self.random;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^= z >> 31;
            if z != 0 {
                return z;
            }
        }
    }

    fn send(&mut self, peer: u8, msg: Msg<D>) {
        self.out.push_back(Effect::Send { peer, msg });
    }

    fn send_if(&mut self, peer: u8, conn: u64, msg: Msg<D>) {
        let p = &self.peers[usize::from(peer)];
        if p.conn == conn && p.stage != Stage::Down {
            self.send(peer, msg);
        }
    }

    fn established(&self, peer: u8) -> bool {
        self.peers[usize::from(peer)].stage == Stage::Established
    }

    /// Connected and not in need of anything.
    fn in_sync(&self, peer: u8) -> bool {
        self.established(peer)
            && self.peers[usize::from(peer)].sync == Sync::None
            && !self.head.behind(usize::from(peer))
            && self.peers[usize::from(peer)].disk == Some(Disk::UpToDate)
    }

    fn mask_of(&self, test: impl Fn(u8) -> bool) -> u32 {
        self.others().filter(|p| test(*p)).fold(0, |m, p| m | bit(p))
    }

    fn sees_primary(&self) -> Option<u8> {
        self.others().find(|p| self.established(*p) && self.peers[usize::from(*p)].primary)
    }

    fn mark(&mut self, peer: u8, first: u64, end: u64) {
        self.peers[usize::from(peer)].bits.set(first, end);
    }

    fn mark_extent(&mut self, peer: u8, extent: u32) {
        let first = u64::from(extent) * EXTENT_BLOCKS;
        self.mark(peer, first, first + EXTENT_BLOCKS);
    }

    fn store(&mut self, pieces: Vec<Piece>, after: After) {
        let token = self.id();
        self.after.insert(token, after);
        self.out.push_back(Effect::MetaWrite { token, pieces });
    }

    fn store_head(&mut self, after: After) {
        let piece = self.head.next_write();
        self.store(vec![piece], after);
    }

    fn disk_flush(&mut self, after: After) {
        let token = self.id();
        self.after.insert(token, after);
        self.out.push_back(Effect::DiskFlush { token });
    }

    fn page(&mut self, peer: usize, page: usize) -> Piece {
        let p = &mut self.peers[peer];
        let extra: Vec<(u64, u64)> = p.unflushed.iter().chain(&p.flushing).copied().collect();
        (meta::page_offset(self.config.size, peer, page), p.bits.page_bytes(page, &extra))
    }

    /// Bitmap pages that are not stored as they are, with what is acknowledged but not durable at the peer.
    fn dirty_pages(&mut self) -> Vec<Piece> {
        let mut wanted = Vec::new();
        for (peer, p) in self.peers.iter().enumerate() {
            let mut pages = p.bits.dirty_pages();
            for (first, end) in p.unflushed.iter().chain(&p.flushing) {
                pages.extend((first / PAGE_BLOCKS..=(end - 1) / PAGE_BLOCKS).map(index));
            }
            pages.sort_unstable();
            pages.dedup();
            wanted.extend(pages.into_iter().map(|page| (peer, page)));
        }
        wanted.into_iter().map(|(peer, page)| self.page(peer, page)).collect()
    }

    /// The local disk failed: no more I/O here, peers are told by the silence.
    fn disk_failed(&mut self) {
        if self.disk == Disk::Diskless {
            return;
        }
        self.disk = Disk::Diskless;
        self.fail_app(Failure::Disk);
        for p in self.others().collect::<Vec<_>>() {
            self.hang_up(p);
        }
        self.abort_commands();
    }

    /// Replicas that the record names (or may name) but that are not connected: acknowledgements wait for them. Also for one that is behind:
    /// the end of its sync may have reached it, and not the word of that this side.
    fn lost(&self) -> u32 {
        if self.primary {
            self.mask_of(|p| !self.established(p) && !self.head.left(usize::from(p)))
        } else {
            0
        }
    }

    fn majority(&self) -> bool {
        let n = self.peers.len();
        let there = 1 + self.others().filter(|p| self.established(*p)).count();
        n < 3 || there > n / 2
    }

    fn suspended(&self) -> Option<&'static str> {
        if !self.primary {
            None
        } else if !self.attached {
            Some("attaching")
        } else if self.change.rotation.is_some() || (self.rotation_due() && self.lost() == 0) {
            Some("a new generation is being stored")
        } else if self.lost() != 0 {
            Some("a peer is lost and nobody has said that it may be left behind")
        } else if !self.majority() {
            Some("the majority of replicas is not connected")
        } else {
            None
        }
    }

    /// Everything that follows from the new state.
    fn settle(&mut self) {
        self.watch_quorum();
        self.advance_commands();
        if std::mem::take(&mut self.pump) {
            self.pump_queue();
        }
        self.log_step();
        self.flush_step();
        self.sync_all();
        self.retry_waiting();
        let lost = self.lost();
        self.asked &= lost;
        if lost & !self.asked != 0 && self.now >= self.grace_until {
            self.asked = lost;
            self.out.push_back(Effect::MayIDrop { peers: lost });
        }
        self.tell();
    }

    fn watch_quorum(&mut self) {
        if !self.primary || self.majority() {
            if self.quorum_lost.take().is_some() {
                self.pump = true;
            }
            self.quorum_failed = false;
            return;
        }
        let since = *self.quorum_lost.get_or_insert(self.now);
        if !self.quorum_failed && self.now >= since + QUORUM_FAIL_MS {
            self.quorum_failed = true;
            self.fail_app(Failure::NoQuorum);
        }
    }

    /// Peers and watchers learn what changed.
    fn tell(&mut self) {
        let told =
            (self.disk, self.primary, self.sees_primary(), self.head.current, self.head.epoch);
        if self.told != Some(told) {
            self.told = Some(told);
            for p in self.others().filter(|p| self.established(*p)).collect::<Vec<_>>() {
                self.send_state(p);
            }
        }
        let mut seen =
            vec![told.3, told.4, u64::from(told.1), u64::from(self.suspended().is_some())];
        seen.push(self.disk as u64);
        for p in &self.peers {
            seen.extend([
                p.stage as u64,
                p.disk.map_or(9, |d| d as u64),
                u64::from(p.primary),
                u64::from(p.why.is_some()),
            ]);
            seen.push(match p.sync {
                Sync::None => 0,
                Sync::Starting => 1,
                Sync::Source { .. } => 2,
                Sync::Target { .. } => 3,
            });
        }
        if self.seen != seen {
            self.seen = seen;
            self.out.push_back(Effect::Changed);
        }
    }

    fn send_state(&mut self, peer: u8) {
        let msg = Msg::State {
            disk: self.disk,
            primary: self.primary,
            sees_primary: self.sees_primary(),
            current: self.head.current,
        };
        self.send(peer, msg);
    }

    // ---- what the world may ask

    /// Peers waited for, and peers that are in sync: what a new watcher has to be told. Zero when not primary.
    #[must_use]
    pub fn questions(&self) -> (u32, u32) {
        let said = |p: u8| self.in_sync(p) && !self.head.left(usize::from(p));
        let in_sync = if self.primary { self.mask_of(said) } else { 0 };
        (self.asked & self.lost(), in_sync)
    }

    /// Epoch of the newest in-sync record under which this replica went on without others. Only the control plane here
    /// sets it: what a peer was allowed says nothing about this replica.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.head.epoch
    }

    /// Primary here.
    #[must_use]
    pub fn is_primary(&self) -> bool {
        self.primary
    }

    /// For the next run on the same boot of the machine.
    #[must_use]
    pub fn resume(&self) -> Resume {
        Resume { primary: self.primary, up_to_date: self.disk == Disk::UpToDate }
    }

    /// State for people and programs.
    #[must_use]
    pub fn view(&self) -> View {
        let all_known = self.others().all(|p| self.established(p));
        let score = match (self.primary, self.disk) {
            (true, _) => Some(10_000),
            (false, Disk::UpToDate) => Some(if all_known { 10_000 } else { 1000 }),
            (false, Disk::Diskless | Disk::Inconsistent | Disk::Outdated | Disk::Consistent) => {
                None
            }
        };
        View {
            primary: self.primary,
            disk: self.disk,
            suspended: self.suspended().map(str::to_owned),
            current: self.head.current,
            epoch: self.head.epoch,
            score,
            peers: self.others().map(|p| self.peer_view(p)).collect(),
        }
    }

    fn peer_view(&self, peer: u8) -> PeerView {
        let p = &self.peers[usize::from(peer)];
        let link = match (p.stage, p.sync) {
            (Stage::Established, Sync::None) => Link::Connected,
            (Stage::Established, Sync::Starting | Sync::Source { .. }) => Link::SyncSource,
            (Stage::Established, Sync::Target { .. }) => Link::SyncTarget,
            (Stage::Down | Stage::Hello | Stage::Bits | Stage::Ready, _)
                if p.why.is_some_and(|why| !why.passes()) =>
            {
                Link::StandAlone
            }
            (Stage::Down | Stage::Hello | Stage::Bits | Stage::Ready, _) => Link::Connecting,
        };
        PeerView {
            index: peer,
            link,
            primary: p.primary && p.stage == Stage::Established,
            disk: p.disk.filter(|_| p.stage == Stage::Established),
            out_of_sync: p.bits.count(),
            resynced: p.resynced,
            why: p.why.map(|w| w.to_string()),
        }
    }
}

impl Peer {
    fn new(bits: Bitmap) -> Self {
        Self {
            conn: 0,
            stage: Stage::Down,
            waiting: false,
            mine: None,
            theirs: None,
            verdict: None,
            target: false,
            ready: (false, false),
            primary: false,
            disk: None,
            sees_primary: None,
            bits,
            unflushed: Vec::new(),
            flushing: Vec::new(),
            flushed: 0,
            sync: Sync::None,
            untold: false,
            tentative: false,
            resynced: 0,
            why: None,
        }
    }
}

const _: () = assert!(NOBODY as usize > meta::MOST_REPLICAS);
