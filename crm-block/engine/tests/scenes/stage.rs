//! A world without chance: disks and links do at once what they are told, and break when the scene says so.

use crm_block_engine::event::Read;
use crm_block_engine::{
    Config, Disk, Effect, Engine, Event, Link, Msg, Refusal, Resume, bitmap, meta,
};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

type Data = Vec<u64>;
pub(crate) const EXTENT_BLOCKS: u64 = 1024;
pub(crate) const EXTENTS: u64 = 6;
const BLOCK: u64 = bitmap::BLOCK;

#[derive(Default)]
struct Node {
    engine: Option<Engine<Data>>,
    disk: BTreeMap<u64, u64>,
    file: Vec<u8>,
    tick: Option<u64>,
}

struct Letter {
    from: usize,
    to: usize,
    msg: Msg<Data>,
}

/// Replicas, their links, and what they said.
pub(crate) struct Stage {
    now: u64,
    next: u64,
    nodes: Vec<Node>,
    links: BTreeSet<(usize, usize)>,
    cut: BTreeSet<(usize, usize)>,
    post: VecDeque<Letter>,
    completed: BTreeMap<u64, bool>,
    replies: BTreeMap<u64, Result<(), Refusal>>,
    /// Blocks copied by resyncs.
    pub(crate) copied: u64,
    /// Metadata is not stored any more: the disks hang.
    pub(crate) hangs: bool,
}

fn pair(a: usize, b: usize) -> (usize, usize) {
    (a.min(b), a.max(b))
}

fn small(n: usize) -> u8 {
    u8::try_from(n).unwrap()
}

fn mask(peers: &[usize]) -> u32 {
    peers.iter().fold(0, |m, p| m | 1 << p)
}

impl Stage {
    /// Replicas that start equal and connected.
    pub(crate) fn new(n: usize) -> Self {
        let mut stage = Self {
            now: 0,
            next: 0,
            nodes: (0..n).map(|_| Node::default()).collect(),
            links: BTreeSet::new(),
            cut: BTreeSet::new(),
            post: VecDeque::new(),
            completed: BTreeMap::new(),
            replies: BTreeMap::new(),
            copied: 0,
            hangs: false,
        };
        for at in 0..n {
            let config = stage.config(at);
            let mut file = vec![0; bitmap::index(meta::length(config.size, n))];
            write(&mut file, &meta::format(&config));
            stage.nodes[at].file = file;
            stage.start(at);
        }
        stage.mend();
        stage.assert_in_sync();
        stage
    }

    fn config(&self, at: usize) -> Config {
        Config {
            index: small(at),
            replicas: small(self.nodes.len()),
            size: EXTENTS * EXTENT_BLOCKS * BLOCK,
            day0: 7,
            assume_clean: true,
            hot: 16,
            grace_ms: 0,
        }
    }

    pub(crate) fn engine(&self, at: usize) -> &Engine<Data> {
        self.nodes[at].engine.as_ref().unwrap()
    }

    pub(crate) fn value(&self, at: usize, block: u64) -> u64 {
        self.nodes[at].disk.get(&block).copied().unwrap_or(0)
    }

    /// Attaches as after a boot of the machine.
    pub(crate) fn start(&mut self, at: usize) {
        self.attach(at, None);
    }

    /// The process dies and another one takes its place.
    pub(crate) fn replace(&mut self, at: usize) {
        let resume = self.engine(at).resume();
        self.kill(at);
        self.attach(at, Some(resume));
    }

    fn attach(&mut self, at: usize, resume: Option<Resume>) {
        let config = self.config(at);
        self.next += 1;
        let (seed, now) = (self.next * 1000, self.now);
        let engine = Engine::attach(config, &self.nodes[at].file, resume, seed, now).unwrap();
        self.nodes[at].engine = Some(engine);
        self.effects(at);
    }

    /// The machine dies; its disk keeps what it has.
    pub(crate) fn kill(&mut self, at: usize) {
        self.nodes[at].engine = None;
        self.nodes[at].tick = None;
        for other in 0..self.nodes.len() {
            self.unlink(at, other);
        }
        self.settle();
    }

    // ---- links

    fn unlink(&mut self, a: usize, b: usize) {
        if !self.links.remove(&pair(a, b)) {
            return;
        }
        self.post.retain(|l| pair(l.from, l.to) != pair(a, b));
        self.event(a, Event::PeerDown { peer: small(b) });
        self.event(b, Event::PeerDown { peer: small(a) });
    }

    /// Cuts a link; what was under way on it is gone.
    pub(crate) fn cut(&mut self, a: usize, b: usize) {
        self.cut.insert(pair(a, b));
        self.unlink(a, b);
    }

    /// Cuts all links of a node.
    pub(crate) fn cut_off(&mut self, at: usize) {
        for other in (0..self.nodes.len()).filter(|o| *o != at) {
            self.cut(at, other);
        }
    }

    fn connect(&mut self, a: usize, b: usize) {
        let up = |n: usize| self.nodes[n].engine.is_some();
        if !up(a) || !up(b) || self.cut.contains(&pair(a, b)) || !self.links.insert(pair(a, b)) {
            return;
        }
        self.event(a, Event::PeerUp { peer: small(b) });
        if self.links.contains(&pair(a, b)) {
            self.event(b, Event::PeerUp { peer: small(a) });
        }
    }

    /// Mends one link; what the two say is under way.
    pub(crate) fn begin_join(&mut self, a: usize, b: usize) {
        self.cut.remove(&pair(a, b));
        self.connect(a, b);
    }

    /// Mends one link.
    pub(crate) fn join(&mut self, a: usize, b: usize) {
        self.cut.remove(&pair(a, b));
        for _ in 0..8 {
            self.connect(a, b);
            self.settle();
        }
    }

    /// Mends everything and lets the replicas meet until nothing changes any more.
    pub(crate) fn mend(&mut self) {
        self.cut.clear();
        for _ in 0..8 {
            for a in 0..self.nodes.len() {
                for b in 0..a {
                    self.connect(a, b);
                }
            }
            self.settle();
        }
    }

    // ---- time and messages

    pub(crate) fn settle(&mut self) {
        while let Some(Letter { from, to, msg }) = self.post.pop_front() {
            self.event(to, Event::PeerMsg { peer: small(from), msg });
        }
    }

    /// Delivers what is under way from one node to another, nothing else.
    pub(crate) fn deliver(&mut self, from: usize, to: usize) {
        let (these, others): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.post).into_iter().partition(|l| (l.from, l.to) == (from, to));
        self.post = others.into();
        for letter in these {
            self.event(to, Event::PeerMsg { peer: small(from), msg: letter.msg });
        }
    }

    /// Delivers messages until something is so; what is sent then is still under way.
    pub(crate) fn until(&mut self, so: impl Fn(&Self) -> bool) {
        while !so(self) {
            let Letter { from, to, msg } = self.post.pop_front().unwrap();
            self.event(to, Event::PeerMsg { peer: small(from), msg });
        }
    }

    /// Delivers messages until the node is in another generation.
    pub(crate) fn until_generation(&mut self, at: usize) {
        let old = self.engine(at).view().current;
        self.until(|s| s.engine(at).view().current != old);
    }

    pub(crate) fn pass(&mut self, ms: u64) {
        let end = self.now + ms;
        loop {
            self.settle();
            let due = |n: &Node| n.engine.as_ref().and_then(Engine::deadline);
            let next = self.nodes.iter().filter_map(due).min().filter(|at| *at <= end);
            let Some(at) = next else { break };
            self.now = self.now.max(at);
            for node in 0..self.nodes.len() {
                self.event(node, Event::Tick);
            }
        }
        self.now = end;
    }

    fn event(&mut self, at: usize, event: Event<Data>) {
        if let Some(engine) = &mut self.nodes[at].engine {
            engine.handle(self.now, event);
        }
        self.effects(at);
    }

    fn effects(&mut self, at: usize) {
        while let Some(effect) = self.nodes[at].engine.as_mut().and_then(Engine::poll) {
            self.effect(at, effect);
        }
    }

    fn effect(&mut self, at: usize, effect: Effect<Data>) {
        match effect {
            Effect::Send { peer, msg } => {
                let to = usize::from(peer);
                match &msg {
                    Msg::SyncData { len, .. } | Msg::SyncZero { len, .. } => {
                        self.copied += len / BLOCK;
                    }
                    _ => {}
                }
                if self.links.contains(&pair(at, to)) {
                    self.post.push_back(Letter { from: at, to, msg });
                }
            }
            Effect::Disconnect { peer } => {
                let other = usize::from(peer);
                if self.links.remove(&pair(at, other)) {
                    // As TCP does: what was sent before the end arrives.
                    let (ours, post): (Vec<_>, Vec<_>) = std::mem::take(&mut self.post)
                        .into_iter()
                        .partition(|l| pair(l.from, l.to) == pair(at, other));
                    self.post = post.into();
                    for letter in ours.into_iter().filter(|l| l.from == at) {
                        self.event(other, Event::PeerMsg { peer: small(at), msg: letter.msg });
                    }
                    self.event(other, Event::PeerDown { peer: small(at) });
                }
            }
            Effect::DiskWrite { op, offset, data } => {
                for (block, value) in (offset / BLOCK..).zip(data) {
                    self.nodes[at].disk.insert(block, value);
                }
                self.event(at, Event::DiskDone { op, ok: true });
            }
            Effect::DiskZero { op, offset, len } => {
                for block in offset / BLOCK..(offset + len) / BLOCK {
                    self.nodes[at].disk.insert(block, 0);
                }
                self.event(at, Event::DiskDone { op, ok: true });
            }
            Effect::DiskRead { op, offset, len } => {
                let blocks = offset / BLOCK..(offset + len) / BLOCK;
                let values = blocks.map(|b| self.value(at, b)).collect();
                self.event(at, Event::ReadDone { op, data: Ok(Read::Data(values)) });
            }
            Effect::DiskFlush { token } => self.event(at, Event::Stored { token, ok: true }),
            Effect::MetaWrite { .. } if self.hangs => {}
            Effect::MetaWrite { token, pieces } => {
                write(&mut self.nodes[at].file, &pieces);
                self.event(at, Event::Stored { token, ok: true });
            }
            Effect::Complete { id, result } => {
                self.completed.insert(id, result.is_ok());
            }
            Effect::Reply { id, result } => {
                self.replies.insert(id, result);
            }
            Effect::MayIDrop { .. } | Effect::InSync { .. } | Effect::Changed => {}
        }
    }

    fn id(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    // ---- the application

    /// Begins a write of a value of its own; nothing is delivered yet.
    pub(crate) fn begin_write(&mut self, at: usize, first: u64, count: u64) -> u64 {
        let id = self.id();
        let data = Some(vec![id; bitmap::index(count)]);
        let (offset, len) = (first * BLOCK, count * BLOCK);
        self.event(at, Event::Write { id, offset, len, data, fua: false });
        id
    }

    /// A write that has to be acknowledged.
    pub(crate) fn write(&mut self, at: usize, first: u64, count: u64) {
        let id = self.begin_write(at, first, count);
        self.settle();
        assert_eq!(self.answer(id), Some(true), "{:#?}", self.engine(at).view());
    }

    pub(crate) fn flush(&mut self, at: usize) {
        let id = self.id();
        self.event(at, Event::Flush { id });
        self.settle();
        assert_eq!(self.answer(id), Some(true));
    }

    /// How a request ended, if it did.
    pub(crate) fn answer(&self, id: u64) -> Option<bool> {
        self.completed.get(&id).copied()
    }

    // ---- commands

    pub(crate) fn begin_promote(&mut self, at: usize, lost: &[usize]) -> u64 {
        let id = self.id();
        self.event(at, Event::Promote { id, lost: mask(lost) });
        id
    }

    pub(crate) fn promote(&mut self, at: usize, lost: &[usize]) -> Result<(), Refusal> {
        let id = self.begin_promote(at, lost);
        self.settle();
        self.replies[&id]
    }

    pub(crate) fn begin_demote(&mut self, at: usize) -> u64 {
        let id = self.id();
        self.event(at, Event::Demote { id });
        id
    }

    pub(crate) fn demote(&mut self, at: usize) {
        let id = self.begin_demote(at);
        self.settle();
        assert_eq!(self.replies.get(&id), Some(&Ok(())), "{:#?}", self.engine(at).view());
    }

    /// Detaches cleanly.
    pub(crate) fn down(&mut self, at: usize) {
        let id = self.id();
        self.event(at, Event::Down { id });
        self.settle();
        assert_eq!(self.replies.get(&id), Some(&Ok(())));
        self.kill(at);
    }

    /// The control plane says that these are left behind.
    pub(crate) fn begin_allow(&mut self, at: usize, peers: &[usize], epoch: u64) {
        self.event(at, Event::Drop { peers: mask(peers), epoch });
    }

    pub(crate) fn allow(&mut self, at: usize, peers: &[usize], epoch: u64) {
        self.begin_allow(at, peers, epoch);
        self.settle();
    }

    /// All connected, all up to date, equal block by block.
    pub(crate) fn assert_in_sync(&self) {
        for at in 0..self.nodes.len() {
            let view = self.engine(at).view();
            let well = |p: &crm_block_engine::PeerView| {
                p.link == Link::Connected && p.disk == Some(Disk::UpToDate) && p.out_of_sync == 0
            };
            let all = view.peers.iter().all(well) && view.suspended.is_none();
            assert!(all && view.disk == Disk::UpToDate, "node {at}: {view:#?}");
            let differs =
                (0..EXTENTS * EXTENT_BLOCKS).find(|b| self.value(at, *b) != self.value(0, *b));
            assert_eq!(differs, None, "first block in which node {at} differs from node 0");
        }
    }
}

fn write(file: &mut [u8], pieces: &[meta::Piece]) {
    for (offset, bytes) in pieces {
        let at = bitmap::index(*offset);
        file[at..at + bytes.len()].copy_from_slice(bytes);
    }
}
