//! One volume that is up: the state machine, its disk, its peers, its threads.

use crate::disk::Disk;
use crate::front::{Buffer, Completion, Io, Target};
use crate::link::{Inbox, Outbox, tune};
use crate::store::{Places, boot_id, config, random, write_meta};
use crm_block_engine::event::Read;
use crm_block_engine::{Effect, Engine, Event, Failure, Refusal, Resume};
use crm_proto::block::{self as proto, VolumeSpec};
use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io;
use std::net::TcpStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

pub(crate) mod status;

/// Threads for disk work of one volume.
const WORKERS: usize = 6;
/// Zeroes and discards are cut into pieces of so many bytes.
const ZERO_PIECE: u64 = 64 << 20;
/// How long a command may take.
const COMMAND: Duration = Duration::from_secs(20);

/// Where events for watchers go.
pub(crate) type Bus = Arc<dyn Fn(proto::Event) + Send + Sync>;

/// Why a command did not work.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CommandError {
    /// Refused by the state machine.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// No answer.
    #[error("no answer within {} s", COMMAND.as_secs())]
    Late,
}

/// Work for a disk thread.
enum Job {
    Write { op: u64, offset: u64, data: Buffer },
    Zero { op: u64, offset: u64, len: u64 },
    Read { op: u64, offset: u64, len: u64 },
    Flush { token: u64 },
    Stop,
}

enum MetaJob {
    Write { token: u64, pieces: Vec<(u64, Vec<u8>)> },
    Stop,
}

/// What is left to do once the lock is released.
enum Later {
    Job(Job),
    Done(Completion, io::Result<Option<Buffer>>),
}

#[derive(Default)]
struct Link {
    number: u64,
    out: Option<Arc<Outbox>>,
}

struct Core {
    engine: Engine<Buffer>,
    links: Vec<Link>,
    apps: HashMap<u64, Completion>,
    replies: HashMap<u64, SyncSender<Result<(), Refusal>>>,
    next: u64,
    noted: Option<Resume>,
    stopped: bool,
}

/// A volume that is up.
pub(crate) struct Volume {
    spec: VolumeSpec,
    places: Places,
    boot: String,
    disk: Disk,
    start: Instant,
    core: Mutex<Core>,
    timer: Condvar,
    meta: Sender<MetaJob>,
    jobs: Sender<Job>,
    gate: AtomicU8,
    written: AtomicU64,
    read: AtomicU64,
    sent: AtomicU64,
    received: AtomicU64,
    bus: Bus,
    shown: Mutex<Option<&'static str>>,
    stopping: AtomicBool,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl std::fmt::Debug for Volume {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Volume({})", self.spec.name)
    }
}

/// Where effects run.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Here {
    /// On this thread, as long as it is little.
    Inline,
    /// Only on the disk threads.
    Pool,
}

fn eio(failure: Failure) -> io::Error {
    io::Error::other(failure)
}

fn gate_code(engine: &Engine<Buffer>) -> u8 {
    match engine.readable() {
        Ok(()) => 0,
        Err(Failure::NotPrimary | Failure::Range) => 1,
        Err(Failure::Disk) => 2,
        Err(Failure::NoQuorum) => 3,
    }
}

impl Volume {
    /// Attaches: opens disk and metadata, starts the threads.
    pub(crate) fn attach(spec: VolumeSpec, places: &Places, bus: Bus) -> io::Result<Arc<Self>> {
        let config =
            config(&spec).map_err(|why| io::Error::new(io::ErrorKind::InvalidInput, why))?;
        let me = spec.replicas.get(usize::from(config.index));
        let path = me.map_or("", |r| r.disk.as_str()).to_owned();
        let disk = Disk::open(Path::new(&path), spec.size_bytes)
            .map_err(|e| io::Error::new(e.kind(), format!("{path}: {e}")))?;
        let (file, bytes) = places.open_meta(&spec.name, &config)?;
        let resume = places.resume(&spec.name)?;
        let replicas = spec.replicas.len();
        let engine = Engine::attach(config, &bytes, resume, random()?, 0)
            .map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?;
        let (meta, meta_jobs) = channel();
        let (jobs, job_queue) = channel();
        let core = Core {
            engine,
            links: (0..replicas).map(|_| Link::default()).collect(),
            apps: HashMap::new(),
            replies: HashMap::new(),
            next: 0,
            noted: None,
            stopped: false,
        };
        let volume = Arc::new(Self {
            places: places.clone(),
            boot: boot_id()?,
            disk,
            start: Instant::now(),
            core: Mutex::new(core),
            timer: Condvar::new(),
            meta,
            jobs,
            gate: AtomicU8::new(1),
            written: AtomicU64::new(0),
            read: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            received: AtomicU64::new(0),
            bus,
            shown: Mutex::new(None),
            stopping: AtomicBool::new(false),
            threads: Mutex::new(Vec::new()),
            spec,
        });
        volume.start_threads(file, meta_jobs, job_queue);
        volume.drive(volume.lock(), None, Here::Pool);
        Ok(volume)
    }

    fn start_threads(
        self: &Arc<Self>,
        file: File,
        meta_jobs: Receiver<MetaJob>,
        jobs: Receiver<Job>,
    ) {
        let jobs = Arc::new(Mutex::new(jobs));
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        for _ in 0..WORKERS {
            let (volume, jobs) = (Arc::clone(self), Arc::clone(&jobs));
            threads.push(std::thread::spawn(move || volume.work(&jobs)));
        }
        let volume = Arc::clone(self);
        threads.push(std::thread::spawn(move || volume.keep_meta(&file, &meta_jobs)));
        let volume = Arc::clone(self);
        threads.push(std::thread::spawn(move || volume.keep_time()));
    }

    pub(crate) fn spec(&self) -> &VolumeSpec {
        &self.spec
    }

    fn lock(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Hands an event to the state machine and carries its effects out.
    fn drive(&self, core: MutexGuard<'_, Core>, event: Option<Event<Buffer>>, here: Here) {
        let mut todo = VecDeque::new();
        self.step(core, event, &mut todo);
        let mut inline = here == Here::Inline;
        while let Some(later) = todo.pop_front() {
            match later {
                Later::Done(done, result) => done(result),
                Later::Job(Job::Flush { token }) => self.post(Job::Flush { token }),
                Later::Job(job) if inline => {
                    // One disk request on this thread, the others beside it.
                    inline = false;
                    while let Some(more) = todo.pop_front() {
                        match more {
                            Later::Job(job) => self.post(job),
                            Later::Done(done, result) => done(result),
                        }
                    }
                    if let Some(event) = self.perform(job) {
                        self.step(self.lock(), Some(event), &mut todo);
                    }
                }
                Later::Job(job) => self.post(job),
            }
        }
    }

    fn post(&self, job: Job) {
        if self.jobs.send(job).is_err() {
            tracing::error!(volume = self.spec.name, "disk threads are gone");
        }
    }

    fn step(
        &self,
        mut guard: MutexGuard<'_, Core>,
        event: Option<Event<Buffer>>,
        todo: &mut VecDeque<Later>,
    ) {
        let core = &mut *guard;
        if let Some(event) = event {
            let now = self.now();
            core.engine.handle(now, event);
        }
        let before = core.engine.deadline();
        while let Some(effect) = core.engine.poll() {
            self.effect(core, effect, todo);
        }
        self.gate.store(gate_code(&core.engine), Ordering::Release);
        let resume = core.engine.resume();
        if core.noted != Some(resume) && !core.stopped {
            core.noted = Some(resume);
            if let Err(error) = self.places.keep_note(&self.spec.name, &self.boot, resume) {
                tracing::error!(volume = self.spec.name, %error, "note of this run");
            }
        }
        if before.is_some() {
            self.timer.notify_one();
        }
    }

    fn effect(&self, core: &mut Core, effect: Effect<Buffer>, todo: &mut VecDeque<Later>) {
        let name = || self.spec.name.clone();
        match effect {
            Effect::Send { peer, msg } => {
                if let Some(out) = &core.links[usize::from(peer)].out {
                    out.push(msg);
                }
            }
            Effect::Disconnect { peer } => {
                if let Some(out) = core.links[usize::from(peer)].out.take() {
                    out.part();
                }
            }
            Effect::MetaWrite { token, pieces } => {
                if self.meta.send(MetaJob::Write { token, pieces }).is_err() {
                    tracing::error!(volume = self.spec.name, "metadata thread is gone");
                }
            }
            Effect::DiskWrite { op, offset, data } => {
                todo.push_back(Later::Job(Job::Write { op, offset, data }));
            }
            Effect::DiskZero { op, offset, len } => {
                todo.push_back(Later::Job(Job::Zero { op, offset, len }));
            }
            Effect::DiskRead { op, offset, len } => {
                todo.push_back(Later::Job(Job::Read { op, offset, len }));
            }
            Effect::DiskFlush { token } => todo.push_back(Later::Job(Job::Flush { token })),
            Effect::Complete { id, result } => {
                if let Some(done) = core.apps.remove(&id) {
                    todo.push_back(Later::Done(done, result.map(|()| None).map_err(eio)));
                }
            }
            Effect::Reply { id, result } => {
                if let Some(reply) = core.replies.remove(&id)
                    && reply.send(result).is_err()
                {
                    tracing::warn!(volume = self.spec.name, "a command was answered too late");
                }
            }
            Effect::MayIDrop { peers } => {
                let peers = self.names(peers);
                tracing::warn!(volume = self.spec.name, ?peers, "writes wait for lost peers");
                (self.bus)(proto::Event::MayIDrop {
                    volume: name(),
                    peers,
                    epoch: core.engine.epoch(),
                });
            }
            Effect::InSync { peers } => {
                let peers = self.names(peers);
                (self.bus)(proto::Event::InSync {
                    volume: name(),
                    peers,
                    epoch: core.engine.epoch(),
                });
            }
            Effect::Changed => (self.bus)(proto::Event::Changed(self.status_of(core))),
        }
    }

    /// Does a disk job; what follows from it.
    fn perform(&self, job: Job) -> Option<Event<Buffer>> {
        let warn = |what: &str, error: &io::Error| {
            tracing::error!(volume = self.spec.name, %error, "{what} of the backing disk failed");
        };
        match job {
            Job::Write { op, offset, data } => {
                let result = self.disk.write(offset, &data);
                result.as_ref().err().iter().for_each(|e| warn("write", e));
                Some(Event::DiskDone { op, ok: result.is_ok() })
            }
            Job::Zero { op, offset, len } => {
                let result = self.disk.zero(offset, len);
                result.as_ref().err().iter().for_each(|e| warn("zeroing", e));
                Some(Event::DiskDone { op, ok: result.is_ok() })
            }
            Job::Read { op, offset, len } => {
                let result = self.disk.read(offset, crm_block_engine::bitmap::index(len));
                result.as_ref().err().iter().for_each(|e| warn("read", e));
                let data = result.map_err(|_| ()).map(|buf| {
                    let zero = buf.iter().all(|b| *b == 0);
                    if zero { Read::Zero } else { Read::Data(Arc::new(buf)) }
                });
                Some(Event::ReadDone { op, data })
            }
            Job::Flush { token } => {
                let result = self.disk.flush();
                result.as_ref().err().iter().for_each(|e| warn("flush", e));
                Some(Event::Stored { token, ok: result.is_ok() })
            }
            Job::Stop => None,
        }
    }

    fn work(&self, jobs: &Mutex<Receiver<Job>>) {
        crate::front::mark_io_thread();
        loop {
            let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
            let Ok(job) = job else { return };
            let Some(event) = self.perform(job) else { return };
            self.drive(self.lock(), Some(event), Here::Pool);
        }
    }

    fn keep_meta(&self, file: &File, jobs: &Receiver<MetaJob>) {
        crate::front::mark_io_thread();
        while let Ok(MetaJob::Write { token, pieces }) = jobs.recv() {
            let result = write_meta(file, &pieces);
            if let Err(error) = &result {
                tracing::error!(volume = self.spec.name, %error, "metadata cannot be written");
            }
            self.drive(self.lock(), Some(Event::Stored { token, ok: result.is_ok() }), Here::Pool);
        }
    }

    fn keep_time(&self) {
        let mut core = self.lock();
        while !self.stopping.load(Ordering::Acquire) {
            let now = self.now();
            match core.engine.deadline() {
                Some(at) if at <= now => {
                    self.drive(core, Some(Event::Tick), Here::Pool);
                    core = self.lock();
                }
                at => {
                    let wait =
                        at.map_or(Duration::from_secs(1), |at| Duration::from_millis(at - now));
                    core = self
                        .timer
                        .wait_timeout(core, wait)
                        .unwrap_or_else(PoisonError::into_inner)
                        .0;
                }
            }
        }
    }

    // ---- peers

    /// Serves an authenticated connection to replica `peer` until it ends.
    pub(crate) fn serve(self: &Arc<Self>, peer: u8, socket: TcpStream) -> io::Result<()> {
        tune(&socket)?;
        let out = Arc::new(Outbox::new(socket.try_clone()?));
        let mut core = self.lock();
        if core.stopped {
            return Ok(());
        }
        let link = &mut core.links[usize::from(peer)];
        link.number += 1;
        let number = link.number;
        if let Some(old) = link.out.replace(Arc::clone(&out)) {
            old.close();
        }
        self.drive(core, Some(Event::PeerUp { peer }), Here::Pool);
        let writer = {
            let (volume, out) = (Arc::clone(self), Arc::clone(&out));
            std::thread::spawn(move || {
                crate::front::mark_io_thread();
                out.write_all(&volume.sent);
            })
        };
        crate::front::mark_io_thread();
        let ended = self.listen(peer, number, &mut Inbox::new(socket));
        out.heard_all();
        let core = self.lock();
        if core.links[usize::from(peer)].number == number
            && core.links[usize::from(peer)].out.is_some()
        {
            let mut core = core;
            core.links[usize::from(peer)].out = None;
            self.drive(core, Some(Event::PeerDown { peer }), Here::Pool);
        } else {
            drop(core);
        }
        if writer.join().is_err() {
            tracing::error!("a writer thread panicked");
        }
        ended
    }

    fn listen(&self, peer: u8, number: u64, inbox: &mut Inbox) -> io::Result<()> {
        loop {
            let msg = inbox.read(&self.received)?;
            if matches!(msg, crm_block_engine::Msg::Ping) {
                continue;
            }
            let here = if inbox.more() { Here::Pool } else { Here::Inline };
            let core = self.lock();
            let link = &core.links[usize::from(peer)];
            if link.number != number || link.out.is_none() {
                return Ok(());
            }
            self.drive(core, Some(Event::PeerMsg { peer, msg }), here);
        }
    }

    // ---- commands

    fn command(&self, make: impl FnOnce(u64) -> Event<Buffer>) -> Result<(), CommandError> {
        let (reply, answer) = sync_channel(1);
        let mut core = self.lock();
        core.next += 1;
        let id = core.next;
        core.replies.insert(id, reply);
        self.drive(core, Some(make(id)), Here::Pool);
        match answer.recv_timeout(COMMAND) {
            Ok(result) => Ok(result?),
            Err(_) => {
                self.lock().replies.remove(&id);
                Err(CommandError::Late)
            }
        }
    }

    fn mask(&self, names: &[String]) -> u32 {
        let at = |name: &String| self.spec.replicas.iter().position(|r| r.node == *name);
        names.iter().filter_map(at).fold(0, |mask, i| mask | 1 << i)
    }

    fn names(&self, mask: u32) -> Vec<String> {
        let chosen = self.spec.replicas.iter().enumerate().filter(|(i, _)| mask >> i & 1 == 1);
        chosen.map(|(_, r)| r.node.clone()).collect()
    }

    /// Becomes primary; `lost` are known to be gone.
    pub(crate) fn promote(&self, lost: &[String]) -> Result<(), CommandError> {
        let lost = self.mask(lost);
        self.command(|id| Event::Promote { id, lost })
    }

    /// Becomes secondary.
    pub(crate) fn demote(&self) -> Result<(), CommandError> {
        self.command(|id| Event::Demote { id })
    }

    /// Gives this replica's changes up.
    pub(crate) fn discard(&self) -> Result<(), CommandError> {
        self.command(|id| Event::Discard { id })
    }

    /// These peers are left behind by record `epoch`.
    pub(crate) fn drop_peers(&self, peers: &[String], epoch: u64) {
        let peers = self.mask(peers);
        self.drive(self.lock(), Some(Event::Drop { peers, epoch }), Here::Pool);
    }

    /// Detaches cleanly and ends the threads.
    pub(crate) fn down(&self) -> Result<(), CommandError> {
        self.command(|id| Event::Down { id })?;
        let mut core = self.lock();
        core.stopped = true;
        for link in &mut core.links {
            if let Some(out) = link.out.take() {
                out.close();
            }
        }
        drop(core);
        if let Err(error) = self.places.drop_note(&self.spec.name) {
            tracing::warn!(volume = self.spec.name, %error, "note of this run");
        }
        self.stop();
        Ok(())
    }

    fn stop(&self) {
        let core = self.lock();
        self.stopping.store(true, Ordering::Release);
        drop(core);
        self.timer.notify_all();
        for _ in 0..WORKERS {
            self.post(Job::Stop);
        }
        if self.meta.send(MetaJob::Stop).is_err() {
            tracing::debug!("metadata thread is gone");
        }
        let threads =
            std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!(volume = self.spec.name, "a thread panicked");
            }
        }
    }

    /// Ends without a word, like a process that is killed.
    #[cfg(test)]
    fn vanish(&self) {
        let mut core = self.lock();
        core.stopped = true;
        for link in &mut core.links {
            if let Some(out) = link.out.take() {
                out.close();
            }
        }
        drop(core);
        self.stop();
    }

    /// Whether the volume has been detached.
    pub(crate) fn is_stopped(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    // ---- I/O of the front end

    fn submit_write(
        &self,
        (offset, len): (u64, u64),
        data: Option<Buffer>,
        fua: bool,
        done: Completion,
    ) {
        self.written.fetch_add(len, Ordering::Relaxed);
        let mut core = self.lock();
        core.next += 1;
        let id = core.next;
        core.apps.insert(id, done);
        self.drive(core, Some(Event::Write { id, offset, len, data, fua }), Here::Inline);
    }

    fn submit_read(&self, offset: u64, len: u32, done: Completion) {
        let failure = match self.gate.load(Ordering::Acquire) {
            0 => None,
            1 => Some(Failure::NotPrimary),
            2 => Some(Failure::Disk),
            _ => Some(Failure::NoQuorum),
        };
        if let Some(failure) = failure {
            done(Err(eio(failure)));
            return;
        }
        self.read.fetch_add(u64::from(len), Ordering::Relaxed);
        let size = crm_block_engine::bitmap::index(u64::from(len));
        done(self.disk.read(offset, size).map(|buf| Some(Arc::new(buf))));
    }

    /// Cut into pieces, so that none needs more of the activity log than there is.
    fn submit_zero(&self, offset: u64, len: u64, done: Completion) {
        let pieces = usize::try_from(len.div_ceil(ZERO_PIECE)).unwrap_or(1).max(1);
        let sum = Arc::new(Sum {
            left: AtomicUsize::new(pieces),
            error: Mutex::new(None),
            done: Mutex::new(Some(done)),
        });
        let (mut at, end) = (offset, offset.saturating_add(len));
        for _ in 0..pieces {
            let part = ZERO_PIECE.min(end - at);
            let sum = Arc::clone(&sum);
            self.submit_write((at, part), None, false, Box::new(move |result| sum.one(result)));
            at += part;
        }
    }
}

/// One completion for several pieces.
struct Sum {
    left: AtomicUsize,
    error: Mutex<Option<io::Error>>,
    done: Mutex<Option<Completion>>,
}

impl Sum {
    fn one(&self, result: io::Result<Option<Buffer>>) {
        if let Err(error) = result {
            *self.error.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
        }
        if self.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            let error = self.error.lock().unwrap_or_else(PoisonError::into_inner).take();
            let done = self.done.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(done) = done {
                done(error.map_or(Ok(None), Err));
            }
        }
    }
}

impl Target for Volume {
    fn submit(&self, io: Io, done: Completion) {
        match io {
            Io::Read { offset, len } => self.submit_read(offset, len, done),
            Io::Write { offset, data, fua } => {
                let len = crm_block_engine::bitmap::number(data.len());
                self.submit_write((offset, len), Some(data), fua, done);
            }
            Io::Flush => {
                let mut core = self.lock();
                core.next += 1;
                let id = core.next;
                core.apps.insert(id, done);
                self.drive(core, Some(Event::Flush { id }), Here::Inline);
            }
            Io::Discard { offset, len } | Io::Zero { offset, len } => {
                self.submit_zero(offset, len, done);
            }
        }
    }

    fn size_bytes(&self) -> u64 {
        self.spec.size_bytes
    }
}

#[cfg(test)]
mod tests;

/// A volume that must not be kept alive by who holds this.
pub(crate) type WeakVolume = Weak<Volume>;
