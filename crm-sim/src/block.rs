//! A seeded world around the block engine: nodes with disks that lose what was not flushed, links that break, one authority that
//! keeps the in-sync record, a client that remembers what was promised to it.

use crm_block_engine::event::Read;
use crm_block_engine::{Config, Disk, Effect, Engine, Event, Msg, Resume, meta};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

mod client;
mod faults;

pub use client::Client;

/// Blocks of a write.
type Data = Vec<u64>;
const BLOCK: u64 = 4096;
const EXTENTS: u64 = 12;
const SIZE: u64 = EXTENTS * (4 << 20);

/// What is broken on purpose, to see that the checkers notice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plant {
    /// Nothing.
    Nothing,
    /// The activity log is forgotten in a crash.
    ForgetHot,
    /// Flushes of the disk do nothing.
    LazyFlush,
}

/// What a run did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Outcome {
    /// Writes acknowledged.
    pub acked: u64,
    /// Promotions.
    pub promotions: u64,
    /// Faults injected.
    pub faults: u64,
    /// Blocks copied by resyncs.
    pub resynced: u64,
    /// Primaries that were cut off and without which the others went on.
    pub deposed: u64,
}

#[derive(Debug, Clone)]
enum Item {
    Deliver { from: usize, to: usize, link: u64, msg: Msg<Data> },
    LinkLost { at: usize, peer: usize, link: u64 },
    Connect { a: usize, b: usize },
    Wrote { node: usize, life: u64, op: u64, first: u64, values: Data },
    Looked { node: usize, life: u64, op: u64, first: u64, count: u64 },
    Flushed { node: usize, life: u64, token: u64, blocks: BTreeSet<u64> },
    Meta { node: usize, life: u64 },
    Tick { node: usize, life: u64 },
    Start { node: usize },
    Dropped { node: usize, life: u64, peers: u32, epoch: u64 },
    Authority,
    Client,
    Fault,
    Rejoin { node: usize },
    Depose { node: usize },
}

#[derive(Debug)]
struct Node {
    engine: Option<Engine<Data>>,
    life: u64,
    cache: BTreeMap<u64, u64>,
    durable: BTreeMap<u64, u64>,
    unflushed: BTreeSet<u64>,
    file: Vec<u8>,
    meta: VecDeque<(u64, Vec<meta::Piece>)>,
    note: Option<Resume>,
    flying: BTreeMap<u64, (u64, Data)>,
    closing: bool,
}

#[derive(Debug, Default)]
struct Record {
    primary: Option<usize>,
    asked: Option<(usize, u32)>,
    in_sync: u32,
    epoch: u64,
}

/// The world.
#[derive(Debug)]
pub struct World {
    now: u64,
    seq: u64,
    random: u64,
    plant: Plant,
    nodes: Vec<Node>,
    queue: BTreeMap<(u64, u64), Item>,
    links: BTreeMap<(usize, usize), u64>,
    cut: BTreeSet<(usize, usize)>,
    /// Neither its peers nor the authority can be reached from here.
    isolated: Option<usize>,
    /// Was primary when the others went on without it, and has not been told.
    deposed: BTreeSet<usize>,
    last: BTreeMap<(usize, usize), u64>,
    record: Record,
    client: Client,
    calm: bool,
    outcome: Outcome,
}

fn pair(a: usize, b: usize) -> (usize, usize) {
    (a.min(b), a.max(b))
}

fn small(n: usize) -> u8 {
    u8::try_from(n).unwrap_or(u8::MAX)
}

impl World {
    /// `n` replicas that start equal.
    #[must_use]
    pub fn new(seed: u64, n: usize, plant: Plant) -> Self {
        let mut world = Self {
            now: 0,
            seq: 0,
            random: seed,
            plant,
            nodes: Vec::new(),
            queue: BTreeMap::new(),
            links: BTreeMap::new(),
            cut: BTreeSet::new(),
            isolated: None,
            deposed: BTreeSet::new(),
            last: BTreeMap::new(),
            record: Record { in_sync: (1 << n) - 1, ..Record::default() },
            client: Client::default(),
            calm: false,
            outcome: Outcome::default(),
        };
        for i in 0..n {
            let config = world.config(i, n);
            let mut file = vec![0; crm_block_engine::bitmap::index(meta::length(SIZE, n))];
            write(&mut file, &meta::format(&config));
            world.nodes.push(Node {
                engine: None,
                life: 0,
                cache: BTreeMap::new(),
                durable: BTreeMap::new(),
                unflushed: BTreeSet::new(),
                file,
                meta: VecDeque::new(),
                note: None,
                flying: BTreeMap::new(),
                closing: false,
            });
        }
        for node in 0..n {
            world.at(1, Item::Start { node });
        }
        world.at(5, Item::Authority);
        world.at(10, Item::Client);
        world.at(200, Item::Fault);
        world
    }

    fn config(&self, index: usize, n: usize) -> Config {
        Config {
            index: small(index),
            replicas: small(n),
            size: SIZE,
            day0: 7,
            assume_clean: true,
            hot: 4,
            grace_ms: 50,
        }
    }

    fn dice(&mut self, sides: u64) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % sides
    }

    fn at(&mut self, delay: u64, item: Item) {
        self.seq += 1;
        self.queue.insert((self.now + delay, self.seq), item);
    }

    /// Runs for `ms` with faults, then heals everything and checks.
    ///
    /// # Errors
    /// Says what was violated.
    pub fn run(&mut self, ms: u64) -> Result<Outcome, String> {
        self.until(ms)?;
        self.heal();
        let end = self.now + 20_000;
        while self.now < end && self.check_end().is_err() {
            self.until(self.now + 250)?;
        }
        self.check_end()?;
        Ok(self.outcome)
    }

    fn until(&mut self, end: u64) -> Result<(), String> {
        while let Some(entry) = self.queue.first_entry() {
            if entry.key().0 > end {
                break;
            }
            let ((now, _), item) = entry.remove_entry();
            self.now = now;
            self.item(item)?;
            self.check_one_primary()?;
        }
        self.now = end;
        Ok(())
    }

    fn item(&mut self, item: Item) -> Result<(), String> {
        match item {
            Item::Deliver { from, to, link, msg } => {
                if self.links.get(&pair(from, to)) == Some(&link) {
                    self.event(to, Event::PeerMsg { peer: small(from), msg })?;
                }
            }
            Item::LinkLost { at, peer, link } => {
                if !self.links.contains_key(&pair(at, peer)) && self.last_link(at, peer) == link {
                    self.event(at, Event::PeerDown { peer: small(peer) })?;
                }
            }
            Item::Connect { a, b } => self.connect(a, b)?,
            Item::Wrote { node, life, op, first, values } => {
                if self.nodes[node].life == life {
                    self.nodes[node].flying.remove(&op);
                    self.put(node, first, &values);
                    self.event(node, Event::DiskDone { op, ok: true })?;
                }
            }
            Item::Looked { node, life, op, first, count } => {
                if self.nodes[node].life == life {
                    let values: Data =
                        (first..first + count).map(|b| self.value(node, b)).collect();
                    let read = if values.iter().all(|v| *v == 0) {
                        Read::Zero
                    } else {
                        Read::Data(values)
                    };
                    self.event(node, Event::ReadDone { op, data: Ok(read) })?;
                }
            }
            Item::Flushed { node, life, token, blocks } => {
                if self.nodes[node].life == life {
                    self.harden(node, &blocks);
                    self.event(node, Event::Stored { token, ok: true })?;
                }
            }
            Item::Meta { node, life } => self.meta_done(node, life)?,
            Item::Tick { node, life } => {
                if self.nodes[node].life == life {
                    self.event(node, Event::Tick)?;
                }
            }
            Item::Start { node } => self.start(node)?,
            Item::Dropped { node, life, peers, epoch } => {
                if self.nodes[node].life == life {
                    self.event(node, Event::Drop { peers, epoch })?;
                }
            }
            Item::Authority => self.authority()?,
            Item::Client => self.client_turn()?,
            Item::Fault => self.fault()?,
            Item::Rejoin { node } => self.rejoin(node),
            Item::Depose { node } => self.depose(node)?,
        }
        Ok(())
    }

    fn value(&self, node: usize, block: u64) -> u64 {
        self.nodes[node].cache.get(&block).copied().unwrap_or(0)
    }

    fn put(&mut self, node: usize, first: u64, values: &[u64]) {
        let node = &mut self.nodes[node];
        for (block, value) in (first..).zip(values) {
            node.cache.insert(block, *value);
            node.unflushed.insert(block);
        }
    }

    fn harden(&mut self, node: usize, blocks: &BTreeSet<u64>) {
        if self.plant == Plant::LazyFlush {
            return;
        }
        let node = &mut self.nodes[node];
        for block in blocks {
            if let Some(value) = node.cache.get(block) {
                node.durable.insert(*block, *value);
            }
            node.unflushed.remove(block);
        }
    }

    fn meta_done(&mut self, at: usize, life: u64) -> Result<(), String> {
        let node = &mut self.nodes[at];
        if node.life != life {
            return Ok(());
        }
        let Some((token, pieces)) = node.meta.pop_front() else { return Ok(()) };
        write(&mut node.file, &pieces);
        if !node.meta.is_empty() {
            let delay = 1 + self.dice(3);
            self.at(delay, Item::Meta { node: at, life });
        }
        self.event(at, Event::Stored { token, ok: true })
    }

    fn start(&mut self, at: usize) -> Result<(), String> {
        if self.nodes[at].engine.is_some() {
            return Ok(());
        }
        if self.plant == Plant::ForgetHot {
            let empty = [0, 1].map(|slot| meta::encode_log(slot + (1 << 40), &[], 0));
            write(&mut self.nodes[at].file, &empty);
        }
        let config = self.config(at, self.nodes.len());
        let seed = self.dice(u64::MAX);
        let node = &mut self.nodes[at];
        node.life += 1;
        node.closing = false;
        let engine = Engine::attach(config, &node.file, node.note, seed, self.now)
            .map_err(|e| format!("attach: {e}"))?;
        node.engine = Some(engine);
        self.effects(at)?;
        for other in (0..self.nodes.len()).filter(|o| *o != at) {
            self.at(3, Item::Connect { a: at, b: other });
        }
        self.settle_question(at)?;
        self.resubmit(at)
    }

    fn last_link(&self, a: usize, b: usize) -> u64 {
        self.last.get(&pair(a, b)).copied().unwrap_or(0)
    }

    fn connect(&mut self, a: usize, b: usize) -> Result<(), String> {
        let up = |n: &Node| n.engine.is_some() && !n.closing;
        let both = up(&self.nodes[a]) && up(&self.nodes[b]);
        let cut = self.cut.contains(&pair(a, b)) || [Some(a), Some(b)].contains(&self.isolated);
        if self.links.contains_key(&pair(a, b)) || !both || cut {
            return Ok(());
        }
        let link = self.last_link(a, b) + 1;
        self.last.insert(pair(a, b), link);
        self.links.insert(pair(a, b), link);
        self.event(a, Event::PeerUp { peer: small(b) })?;
        if self.links.get(&pair(a, b)) == Some(&link) {
            self.event(b, Event::PeerUp { peer: small(a) })?;
        }
        Ok(())
    }

    /// The link breaks: both sides notice, each in its time; a new try follows.
    fn unlink(&mut self, a: usize, b: usize, noticed_by: Option<usize>) {
        let Some(link) = self.links.remove(&pair(a, b)) else { return };
        for (at, peer) in [(a, b), (b, a)] {
            if noticed_by != Some(at) {
                let delay = self.dice(20);
                self.at(delay, Item::LinkLost { at, peer, link });
            }
        }
        let delay = 25 + self.dice(30);
        self.at(delay, Item::Connect { a, b });
    }

    fn event(&mut self, node: usize, event: Event<Data>) -> Result<(), String> {
        let now = self.now;
        if let Some(engine) = &mut self.nodes[node].engine {
            engine.handle(now, event);
        }
        self.effects(node)
    }

    fn effects(&mut self, node: usize) -> Result<(), String> {
        while let Some(effect) = self.nodes[node].engine.as_mut().and_then(Engine::poll) {
            self.effect(node, effect)?;
        }
        let life = self.nodes[node].life;
        if let Some(engine) = &self.nodes[node].engine {
            self.nodes[node].note = Some(engine.resume());
            let deadline = self.nodes[node].engine.as_ref().and_then(Engine::deadline);
            if let Some(at) = deadline {
                let delay = at.saturating_sub(self.now).max(1);
                self.at(delay, Item::Tick { node, life });
            }
        }
        Ok(())
    }

    fn effect(&mut self, node: usize, effect: Effect<Data>) -> Result<(), String> {
        let life = self.nodes[node].life;
        match effect {
            Effect::Send { peer, msg } => self.post(node, usize::from(peer), msg),
            Effect::Disconnect { peer } => self.unlink(node, usize::from(peer), Some(node)),
            Effect::DiskWrite { op, offset, data } => self.disk_write(node, op, offset, data),
            Effect::DiskZero { op, offset, len } => {
                let blocks = crm_block_engine::bitmap::index(len / BLOCK);
                self.disk_write(node, op, offset, vec![0; blocks]);
            }
            Effect::DiskRead { op, offset, len } => {
                let delay = self.dice(4);
                self.at(
                    delay,
                    Item::Looked { node, life, op, first: offset / BLOCK, count: len / BLOCK },
                );
            }
            Effect::DiskFlush { token } => {
                let blocks = self.nodes[node].unflushed.clone();
                let delay = 1 + self.dice(6);
                self.at(delay, Item::Flushed { node, life, token, blocks });
            }
            Effect::MetaWrite { token, pieces } => {
                self.nodes[node].meta.push_back((token, pieces));
                if self.nodes[node].meta.len() == 1 {
                    let delay = 1 + self.dice(3);
                    self.at(delay, Item::Meta { node, life });
                }
            }
            Effect::Complete { id, result } => self.completed(id, result.is_ok()),
            Effect::Reply { id, result } => self.replied(node, id, result.is_ok())?,
            Effect::MayIDrop { peers } => {
                if self.record.primary == Some(node) && self.isolated != Some(node) {
                    self.leave_behind(node, peers);
                }
            }
            Effect::InSync { peers } => {
                let heard = self.isolated != Some(node);
                let asked = self.record.asked.is_some_and(|(n, _)| n == node);
                if heard && (self.record.primary == Some(node) || asked) {
                    self.record.in_sync |= peers;
                }
            }
            Effect::Changed => {}
        }
        Ok(())
    }

    fn disk_write(&mut self, node: usize, op: u64, offset: u64, values: Data) {
        let (life, first) = (self.nodes[node].life, offset / BLOCK);
        self.nodes[node].flying.insert(op, (first, values.clone()));
        let delay = self.dice(8);
        self.at(delay, Item::Wrote { node, life, op, first, values });
    }

    fn post(&mut self, from: usize, to: usize, msg: Msg<Data>) {
        let Some(&link) = self.links.get(&pair(from, to)) else { return };
        if let Msg::SyncData { len, .. } | Msg::SyncZero { len, .. } = &msg {
            self.outcome.resynced += len / BLOCK;
        }
        // In order: never before what was sent before.
        let key = (from + 100, to + 100);
        let due = (self.now + 1 + self.dice(6)).max(self.last.get(&key).copied().unwrap_or(0));
        self.last.insert(key, due);
        self.at(due - self.now, Item::Deliver { from, to, link, msg });
    }

    fn check_one_primary(&self) -> Result<(), String> {
        let is = |n: &Node| n.engine.as_ref().is_some_and(Engine::is_primary);
        let named = self.nodes.iter().enumerate().filter(|(i, _)| !self.deposed.contains(i));
        let primaries = named.filter(|(_, n)| is(n)).count();
        if primaries > 1 {
            Err(format!("{primaries} primaries at {} ms", self.now))
        } else {
            Ok(())
        }
    }

    fn check_end(&self) -> Result<(), String> {
        for (i, node) in self.nodes.iter().enumerate() {
            let Some(engine) = &node.engine else { return Err(format!("node {i} is down")) };
            let view = engine.view();
            let torn = view.disk != Disk::UpToDate
                || view.peers.iter().any(|p| p.disk != Some(Disk::UpToDate));
            if torn || view.suspended.is_some() {
                return Err(format!(
                    "node {i} is not in sync at the end: {view:#?} record {:?}",
                    self.record
                ));
            }
        }
        if self.record.primary.is_none() {
            return Err("no primary at the end".to_owned());
        }
        let blocks: BTreeSet<u64> =
            self.nodes.iter().flat_map(|n| n.cache.keys().copied()).collect();
        for block in blocks {
            let values: BTreeSet<u64> =
                (0..self.nodes.len()).map(|n| self.value(n, block)).collect();
            if values.len() != 1 {
                let each: Vec<u64> = (0..self.nodes.len()).map(|n| self.value(n, block)).collect();
                return Err(format!("block {block} differs at the end: {each:?}"));
            }
        }
        Ok(())
    }
}

fn write(file: &mut [u8], pieces: &[meta::Piece]) {
    for (offset, bytes) in pieces {
        let at = crm_block_engine::bitmap::index(*offset);
        file[at..at + bytes.len()].copy_from_slice(bytes);
    }
}

#[cfg(test)]
mod tests;
