//! The client's process: one task writes, one answers questions.

use super::Question;
use super::record::{self, RECORD_BYTES};
use super::session::{self, Session, Trouble};
use super::tally::{Gap, Tally};
use super::volume::Connection;
use crate::lab::{Lab, VIP};
use crate::loopback;
use anyhow::{Context, Result, bail};
use nfs3_client::nfs3_types::nfs3::{nfs_fh3, nfsstat3};
use std::collections::VecDeque;
use std::fs::File;
use std::io::Write;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

/// Pause between records when the server answers at once: 200 records a second are plenty to see a gap of 5 ms.
const PACE: Duration = Duration::from_millis(5);
/// Rest before a refused connection is tried again.
const RETRY_AFTER: Duration = Duration::from_millis(10);
/// Rest after an answer that asks for patience, or an error.
const PATIENCE: Duration = Duration::from_millis(50);
/// Every how many records one earlier record is read back.
const SAMPLE_EVERY: u64 = 20;
/// Records read at once at the end.
const CHUNK: u64 = 64;
/// Numbers of lost records that are kept.
const LOST_SHOWN: usize = 20;
/// How long the end may take to get the last record acknowledged and all read back.
const FINISH_LIMIT: Duration = Duration::from_secs(240);

/// What the hidden subcommand `client` was told.
#[derive(Debug)]
pub(crate) struct Options {
    /// Path that is exported.
    pub(crate) export: String,
}

/// State that both tasks see.
struct Shared {
    tally: Tally,
    last_ack: Instant,
    /// Moments of the acknowledgements of the last second.
    recent: VecDeque<Instant>,
}

#[derive(Clone)]
struct Board(Arc<Mutex<Shared>>);

impl Board {
    fn new() -> Self {
        let (tally, recent) = (Tally::default(), VecDeque::new());
        Self(Arc::new(Mutex::new(Shared { tally, last_ack: Instant::now(), recent })))
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        // Counters stay meaningful whatever a panicking holder did.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, change: impl FnOnce(&mut Tally)) {
        change(&mut self.lock().tally);
    }

    fn acknowledged(&self) {
        let now = Instant::now();
        let mut shared = self.lock();
        let ms = millis(now - shared.last_ack);
        let gap = Gap { ms, record: shared.tally.acknowledged };
        // The time before the first record is set-up, no gap.
        if shared.tally.acknowledged > 0 {
            shared.tally.gap = longer(shared.tally.gap, gap);
            shared.tally.longest = longer(shared.tally.longest, gap);
        }
        shared.tally.acknowledged += 1;
        shared.last_ack = now;
        shared.recent.push_back(now);
    }

    fn tally(&self) -> Tally {
        let now = Instant::now();
        let mut shared = self.lock();
        while shared.recent.front().is_some_and(|t| now - *t > Duration::from_secs(1)) {
            shared.recent.pop_front();
        }
        let mut tally = shared.tally.clone();
        tally.rate = u64::try_from(shared.recent.len()).unwrap_or(u64::MAX);
        if tally.acknowledged > 0 && !tally.finished {
            tally.waiting_ms = millis(now - shared.last_ack);
            let running = Gap { ms: tally.waiting_ms, record: tally.acknowledged };
            tally.gap = longer(tally.gap, running);
            tally.longest = longer(tally.longest, running);
        }
        tally
    }

    fn mark(&self) {
        self.note(|tally| tally.gap = Gap::default());
    }
}

fn longer(a: Gap, b: Gap) -> Gap {
    if b.ms > a.ms { b } else { a }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn now_us() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

/// The hidden subcommand `client`.
pub(crate) fn run(lab: &Lab, options: &Options) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.context("start the runtime")?.block_on(work(lab, options))
}

async fn work(lab: &Lab, options: &Options) -> Result<()> {
    let dir = lab.client_dir();
    let socket = dir.join("sock");
    if socket.exists() {
        std::fs::remove_file(&socket).context("remove the old socket")?;
    }
    let listener = UnixListener::bind(&socket).context("open the client's socket")?;
    let (board, (finish, finishing)) = (Board::new(), watch::channel(false));
    let mut writer = Writer::new(lab, options, board.clone())?;
    let (done, ended) = watch::channel(false);
    let answering = tokio::spawn(answer_all(listener, board.clone(), finish, ended));
    let result = writer.write_until(finishing).await;
    if let Err(error) = &result {
        board.note(|tally| {
            tally.errors += 1;
            tally.last_error = format!("{error:#}");
        });
    }
    board.note(|tally| tally.finished = true);
    done.send(true).context("tell the listener")?;
    answering.await.context("end the listener")??;
    result
}

async fn answer_all(
    listener: UnixListener,
    board: Board,
    finish: watch::Sender<bool>,
    ended: watch::Receiver<bool>,
) -> Result<()> {
    loop {
        let (stream, _) = listener.accept().await.context("accept a question")?;
        match answer(stream, &board, &finish, ended.clone()).await {
            Ok(true) => return Ok(()),
            Ok(false) => {}
            // The one who asked went away: not our trouble.
            Err(error) => crate::ui::complain(&format!("question: {error:#}")),
        }
    }
}

/// Answers one question; true when it was the last one.
async fn answer(
    stream: UnixStream,
    board: &Board,
    finish: &watch::Sender<bool>,
    mut ended: watch::Receiver<bool>,
) -> Result<bool> {
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    stream.read_line(&mut line).await.context("read a question")?;
    let question: Question = serde_json::from_str(&line).context("understand the question")?;
    let mut last = false;
    match question {
        Question::Tally => {}
        Question::Mark => board.mark(),
        Question::Finish => {
            finish.send_replace(true);
            ended.wait_for(|over| *over).await.context("wait for the writer")?;
            last = true;
        }
    }
    let mut text = serde_json::to_string(&board.tally()).context("write the answer")?;
    text.push('\n');
    stream.get_mut().write_all(text.as_bytes()).await.context("send the answer")?;
    Ok(last)
}

struct Writer {
    ip: IpAddr,
    export: String,
    board: Board,
    session: Option<Session>,
    file: Option<nfs_fh3>,
    /// Sockets of the volume, one for each node: records go there where there is no NFS.
    sockets: Vec<PathBuf>,
    volume: Option<Connection>,
    /// Checksums of the acknowledged records, by number.
    acknowledged: Vec<u32>,
    log: File,
}

impl Writer {
    fn new(lab: &Lab, options: &Options, board: Board) -> Result<Self> {
        let log = lab.client_dir().join("acknowledged.log");
        let log = File::create(log).context("open the log of records")?;
        let nodes = if lab.is_loopback() { lab.nodes()? } else { Vec::new() };
        let sockets = nodes.iter().map(|node| loopback::volume_socket(lab, node)).collect();
        Ok(Self {
            ip: VIP.parse().context("understand the address")?,
            export: options.export.clone(),
            board,
            session: None,
            file: None,
            sockets,
            volume: None,
            acknowledged: Vec::new(),
            log,
        })
    }

    async fn write_until(&mut self, mut finishing: watch::Receiver<bool>) -> Result<()> {
        let mut pace = tokio::time::interval(PACE);
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut number = 0;
        while !*finishing.borrow() {
            pace.tick().await;
            self.write_or_finish(number, &mut finishing).await?;
            number += 1;
            if number % SAMPLE_EVERY == 0 {
                self.sample(number).await?;
            }
        }
        let verified = tokio::time::timeout(FINISH_LIMIT, self.verify()).await;
        verified.context("read all records back")?
    }

    /// Writes a record; once the end is called for, it may take [`FINISH_LIMIT`] at most.
    async fn write_or_finish(
        &mut self,
        number: u64,
        finishing: &mut watch::Receiver<bool>,
    ) -> Result<()> {
        let one = self.write_one(number);
        tokio::pin!(one);
        tokio::select! {
            biased;
            result = &mut one => result,
            changed = finishing.changed() => {
                changed.context("hear of the end")?;
                // What was sent is brought to its end: it must not be found without having been acknowledged.
                let last = tokio::time::timeout(FINISH_LIMIT, one).await;
                last.context("get the last record acknowledged")?
            }
        }
    }

    /// Writes record `number`, again and again until it is acknowledged.
    async fn write_one(&mut self, number: u64) -> Result<()> {
        let time = now_us();
        let bytes = record::make(number, time);
        let crc = record::checksum(&bytes).context("a fresh record is whole")?;
        let mut sent = self.board.lock().tally.written > number;
        loop {
            if sent {
                self.board.note(|tally| tally.retried += 1);
            }
            match self.try_write(number, &bytes, &mut sent).await {
                Ok(()) => break,
                Err(trouble) => self.recover(&trouble).await,
            }
        }
        writeln!(self.log, "{number} {time} {crc:08x}").context("log a record")?;
        self.acknowledged.push(crc);
        self.board.acknowledged();
        Ok(())
    }

    async fn try_write(
        &mut self,
        number: u64,
        bytes: &[u8],
        sent: &mut bool,
    ) -> Result<(), Trouble> {
        let file = if self.sockets.is_empty() { Some(self.ready().await?) } else { None };
        let board = self.board.clone();
        let mut send = || {
            if !*sent {
                board.note(|tally| tally.written = number + 1);
                *sent = true;
            }
        };
        let Some(file) = file else {
            let volume = self.connected().await?;
            send();
            return volume.write(record::offset(number), bytes).await;
        };
        send();
        let Some(session) = &mut self.session else {
            return Err(Trouble::Transport("no connection".to_owned()));
        };
        session.write(&file, record::offset(number), bytes).await
    }

    /// A connection to the volume.
    async fn connected(&mut self) -> Result<&mut Connection, Trouble> {
        let connection = match self.volume.take() {
            Some(connection) => connection,
            None => {
                let connection = Connection::open(&self.sockets).await?;
                self.board.note(|tally| tally.connections += 1);
                connection
            }
        };
        Ok(self.volume.insert(connection))
    }

    /// Connected, with a handle of the file.
    async fn ready(&mut self) -> Result<nfs_fh3, Trouble> {
        if let (Some(_), Some(file)) = (&self.session, &self.file) {
            return Ok(file.clone());
        }
        let session = match self.session.take() {
            Some(session) => session,
            None => {
                let session = Session::connect(self.ip).await?;
                self.board.note(|tally| tally.connections += 1);
                session
            }
        };
        let session = self.session.insert(session);
        if let Some(file) = &self.file {
            return Ok(file.clone());
        }
        let root = session::mount(self.ip, &self.export).await?;
        let file = session.open(&root, "records").await?;
        Ok(self.file.insert(file).clone())
    }

    /// Makes ready for another try.
    async fn recover(&mut self, trouble: &Trouble) {
        self.board.note(|tally| tally.last_error = trouble.to_string());
        let rest = match trouble {
            Trouble::Transport(_) => {
                (self.session, self.volume) = (None, None);
                RETRY_AFTER
            }
            Trouble::Mount(_) | Trouble::Answer(nfsstat3::NFS3ERR_JUKEBOX) => PATIENCE,
            Trouble::Answer(nfsstat3::NFS3ERR_STALE | nfsstat3::NFS3ERR_BADHANDLE) => {
                self.file = None;
                self.board.note(|tally| tally.stale += 1);
                RETRY_AFTER
            }
            Trouble::Answer(status) => {
                crate::ui::complain(&format!("error: {status:?}"));
                self.board.note(|tally| tally.errors += 1);
                PATIENCE
            }
        };
        tokio::time::sleep(rest).await;
    }

    async fn read(&mut self, offset: u64, count: u32) -> Vec<u8> {
        loop {
            match self.try_read(offset, count).await {
                Ok(bytes) => return bytes,
                Err(trouble) => self.recover(&trouble).await,
            }
        }
    }

    async fn try_read(&mut self, offset: u64, count: u32) -> Result<Vec<u8>, Trouble> {
        if !self.sockets.is_empty() {
            return self.connected().await?.read(offset, count).await;
        }
        let file = self.ready().await?;
        let Some(session) = &mut self.session else {
            return Err(Trouble::Transport("no connection".to_owned()));
        };
        session.read(&file, offset, count).await
    }

    fn crc(&self, number: u64) -> Option<u32> {
        self.acknowledged.get(usize::try_from(number).ok()?).copied()
    }

    fn check(&self, number: u64, bytes: &[u8]) -> bool {
        let intact = self.crc(number).is_some_and(|crc| record::is_intact(bytes, number, crc));
        if !intact {
            self.board.note(|tally| {
                if tally.lost.len() < LOST_SHOWN && !tally.lost.contains(&number) {
                    tally.lost.push(number);
                }
            });
        }
        intact
    }

    /// Reads one earlier record back.
    async fn sample(&mut self, written: u64) -> Result<()> {
        let number = written.wrapping_mul(0x9e37_79b9_7f4a_7c15) % written;
        let count = u32::try_from(RECORD_BYTES).context("size of a record")?;
        let bytes = self.read(record::offset(number), count).await;
        if self.check(number, &bytes) {
            self.board.note(|tally| tally.sampled += 1);
        }
        Ok(())
    }

    /// Reads everything back.
    async fn verify(&mut self) -> Result<()> {
        let total = u64::try_from(self.acknowledged.len()).context("count the records")?;
        let mut number = 0;
        while number < total {
            let wanted = CHUNK.min(total - number);
            let count = u32::try_from(record::offset(wanted)).context("size of a chunk")?;
            let bytes = self.read(record::offset(number), count).await;
            let got = record::count(u64::try_from(bytes.len()).context("size of an answer")?);
            if got == 0 {
                // End of file before the last acknowledged record.
                (number..total).take(LOST_SHOWN).for_each(|n| {
                    self.check(n, &[]);
                });
                bail!("the file ends at record {number} of {total} acknowledged");
            }
            for record in bytes.chunks_exact(RECORD_BYTES) {
                if self.check(number, record) {
                    self.board.note(|tally| tally.found += 1);
                }
                number += 1;
            }
        }
        Ok(())
    }
}
