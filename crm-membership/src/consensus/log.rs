//! The durable raft log: redb behind one writer that commits in groups, the unpurged log mirrored in memory. Votes and entries keep their order because there is one writer; reads never touch the disk.
//!
//! An entry on disk is `crc32c (4, little endian) | postcard`, keyed by its index.

use super::{Entry, LogId, StoredMembership, Types, Vote, intact};
use crate::succession::Succession;
use crm_quorum::lineage::Generation;
use crm_quorum::takeover::Event;
use openraft::EntryPayload;
use openraft::entry::RaftEntry;
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use redb::{ReadableDatabase, ReadableTable};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::io;
use std::ops::RangeBounds;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::JoinHandle;
use thiserror::Error;
use tokio::sync::mpsc;

/// Writes taken into one commit at most.
const GROUP_MAX: usize = 256;
/// Name of the log's file in the data directory.
const FILE: &str = "raft.redb";

const LOG: redb::TableDefinition<'_, u64, &[u8]> = redb::TableDefinition::new("log");
const META: redb::TableDefinition<'_, &str, &[u8]> = redb::TableDefinition::new("meta");

/// Why the log could not be opened.
#[derive(Debug, Error)]
pub enum LogError {
    /// The file cannot be opened or read.
    #[error("cannot open raft log `{path}`")]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<redb::Error>,
    },
    /// It belongs to another node or cluster.
    #[error("raft log `{path}` belongs to {found}, this node is {mine}")]
    Foreign {
        /// The file.
        path: PathBuf,
        /// Identity found.
        found: String,
        /// Identity expected.
        mine: String,
    },
    /// What it holds is damaged.
    #[error("raft log `{path}` is damaged at {place}: {why}; move it away and rejoin this node")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Entry or field.
        place: String,
        /// What is wrong.
        why: String,
    },
    /// The writer thread could not be started.
    #[error("cannot start the log writer thread")]
    Thread(#[source] io::Error),
}

#[derive(Debug, Default)]
struct Memory {
    log: BTreeMap<u64, Entry>,
    purged: Option<LogId>,
    vote: Option<Vote>,
    committed: Option<LogId>,
}

enum Write {
    Append(Vec<(u64, Vec<u8>)>),
    Vote(Vec<u8>),
    Committed(Vec<u8>),
    Truncate(u64),
    Purge(u64, Vec<u8>),
    Close,
}

type Done = Box<dyn FnOnce(io::Result<()>) + Send>;

struct Job {
    write: Write,
    sync: bool,
    done: Option<Done>,
}

/// The log of one node. Clones share it.
#[derive(Clone)]
pub(crate) struct LogStore {
    path: PathBuf,
    memory: Arc<Mutex<Memory>>,
    jobs: mpsc::UnboundedSender<Job>,
    writer: Arc<Mutex<Option<JoinHandle<()>>>>,
    succession: Arc<OnceLock<Arc<Succession>>>,
}

fn generation_in(entry: &Entry) -> Option<(u64, Generation)> {
    let EntryPayload::Normal(request) = &entry.payload else { return None };
    request.generation.as_deref().map(|g| (entry.index(), g.clone()))
}

fn broken(error: impl std::fmt::Display) -> io::Error {
    io::Error::other(error.to_string())
}

fn encode<T: Serialize>(value: &T) -> io::Result<Vec<u8>> {
    postcard::to_stdvec(value).map_err(broken)
}

fn seal(body: &[u8]) -> Vec<u8> {
    let mut sealed = crc32c::crc32c(body).to_le_bytes().to_vec();
    sealed.extend_from_slice(body);
    sealed
}

fn unseal<T: DeserializeOwned>(sealed: &[u8]) -> Result<T, String> {
    let Some((sum, body)) = sealed.split_first_chunk::<4>() else {
        return Err(format!("only {} bytes", sealed.len()));
    };
    if u32::from_le_bytes(*sum) != crc32c::crc32c(body) {
        return Err("checksum does not match".to_owned());
    }
    postcard::from_bytes(body).map_err(|e| format!("cannot be decoded: {e}"))
}

impl LogStore {
    /// Opens (or makes) the log in `dir` for the node called `identity`.
    pub(crate) fn open(dir: &Path, identity: &str) -> Result<Self, LogError> {
        let path = dir.join(FILE);
        let open = |e: redb::Error| LogError::Open { path: path.clone(), source: Box::new(e) };
        if let Err(why) = intact::look(&path).map_err(|e| open(e.into()))? {
            return Err(LogError::Damaged { path, place: "its file".to_owned(), why });
        }
        let db = redb::Database::create(&path).map_err(|e| open(e.into()))?;
        let (log, mut writer, mut inbox) = Self::on(db, path, identity)?;
        let thread = std::thread::Builder::new()
            .name("crm-log".to_owned())
            .spawn(move || {
                while let Some(first) = inbox.blocking_recv() {
                    if writer.write(group(first, &mut inbox)) {
                        return;
                    }
                }
            })
            .map_err(LogError::Thread)?;
        *log.writer.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread);
        Ok(log)
    }

    /// The log on this database, and what has to write it.
    fn on(
        db: redb::Database,
        path: PathBuf,
        identity: &str,
    ) -> Result<(Self, Writer, mpsc::UnboundedReceiver<Job>), LogError> {
        claim(&db, &path, identity)?;
        let memory = Arc::new(Mutex::new(load(&db, &path)?));
        let (jobs, inbox) = mpsc::unbounded_channel();
        let writer = Arc::new(Mutex::new(None));
        let log = Self { path, memory, jobs, writer, succession: Arc::default() };
        Ok((log, Writer { db, failed: None }, inbox))
    }

    /// The log on a simulated disk, written by a task: each group takes as long as `pause` says.
    #[cfg(test)]
    pub(crate) fn simulated(
        disk: impl redb::StorageBackend,
        identity: &str,
        mut pause: impl FnMut() -> std::time::Duration + 'static,
    ) -> Result<Self, LogError> {
        let path = PathBuf::from(FILE);
        let open = |e: redb::Error| LogError::Open { path: path.clone(), source: Box::new(e) };
        let db = redb::Builder::new().create_with_backend(disk).map_err(|e| open(e.into()))?;
        let (log, mut writer, mut inbox) = Self::on(db, path, identity)?;
        tokio::task::spawn_local(async move {
            while let Some(first) = inbox.recv().await {
                tokio::time::sleep(pause()).await;
                if writer.write(group(first, &mut inbox)) {
                    return;
                }
            }
        });
        Ok(log)
    }

    /// Who wrote an entry and what it is, for those that know the cluster from outside.
    #[cfg(test)]
    pub(crate) fn entry(&self, index: u64) -> Option<String> {
        self.memory().log.get(&index).map(|entry| format!("{} {}", entry.log_id, entry.payload))
    }

    /// The log must reach what was committed, unless the snapshot (up to `applied`) does.
    pub(crate) fn check_end(&self, applied: Option<LogId>) -> Result<(), LogError> {
        let memory = self.memory();
        let last = memory.log.last_key_value().map(|(_, entry)| entry.log_id());
        let end = last.max(memory.purged).max(applied);
        match memory.committed {
            Some(committed) if end < Some(committed) => Err(LogError::Damaged {
                path: self.path.clone(),
                place: "its end".to_owned(),
                why: format!("entry {}, which was committed, is missing", committed.index),
            }),
            _ => Ok(()),
        }
    }

    /// Tells it of every generation from now on: after the entry is durable, before that is acknowledged.
    pub(crate) fn tell(&self, succession: &Arc<Succession>) {
        if self.succession.set(Arc::clone(succession)).is_err() {
            tracing::error!("the log tells somebody of its generations already");
        }
    }

    /// The generations in the log, with their indexes.
    pub(crate) fn generations(&self) -> Vec<(u64, Generation)> {
        self.memory().log.values().filter_map(generation_in).collect()
    }

    /// The last membership in the log, if there is one.
    pub(crate) fn last_membership(&self) -> Option<StoredMembership> {
        self.memory().log.values().rev().find_map(|entry| match &entry.payload {
            EntryPayload::Membership(found) => {
                Some(StoredMembership::new(Some(entry.log_id), found.clone()))
            }
            EntryPayload::Blank | EntryPayload::Normal(_) => None,
        })
    }

    /// Nothing was ever voted, written or purged here.
    pub(crate) fn is_new(&self) -> bool {
        let memory = self.memory();
        memory.vote.is_none() && memory.log.is_empty() && memory.purged.is_none()
    }

    /// Ends the writer thread and lets go of the file. Later writes fail.
    pub(crate) fn close(&self) {
        let closing = self.jobs.send(Job { write: Write::Close, sync: false, done: None });
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let (Ok(()), Some(writer)) = (closing, writer)
            && writer.join().is_err()
        {
            tracing::error!("the log writer thread panicked");
        }
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn send(&self, write: Write, sync: bool, done: Option<Done>) -> io::Result<()> {
        self.jobs.send(Job { write, sync, done }).map_err(|_| broken("the log is closed"))
    }

    async fn write(&self, write: Write) -> io::Result<()> {
        let (tell, told) = tokio::sync::oneshot::channel();
        let done: Done = Box::new(move |result| {
            if tell.send(result).is_err() {
                tracing::debug!("nobody waits for this log write any more");
            }
        });
        self.send(write, true, Some(done))?;
        told.await.map_err(|_| broken("the log writer is gone"))?
    }
}

/// Writes our identity into a new log; refuses another's.
fn claim(db: &redb::Database, path: &Path, identity: &str) -> Result<(), LogError> {
    let open = |e: redb::Error| LogError::Open { path: path.to_owned(), source: Box::new(e) };
    let change = db.begin_write().map_err(|e| open(e.into()))?;
    {
        change.open_table(LOG).map_err(|e| open(e.into()))?;
        let mut meta = change.open_table(META).map_err(|e| open(e.into()))?;
        let found = meta
            .get("identity")
            .map_err(|e| open(e.into()))?
            .map(|v| String::from_utf8_lossy(v.value()).into_owned());
        match found {
            Some(found) if found != identity => {
                let (path, mine) = (path.to_owned(), identity.to_owned());
                return Err(LogError::Foreign { path, found, mine });
            }
            Some(_) => {}
            None => {
                meta.insert("identity", identity.as_bytes()).map_err(|e| open(e.into()))?;
            }
        }
    }
    change.commit().map_err(|e| open(e.into()))
}

/// Reads everything into memory and checks that the log is whole: every entry decodes, sits under its
/// own index, and no index is missing.
fn load(db: &redb::Database, path: &Path) -> Result<Memory, LogError> {
    let open = |e: redb::Error| LogError::Open { path: path.to_owned(), source: Box::new(e) };
    let damaged =
        |place: String, why: String| LogError::Damaged { path: path.to_owned(), place, why };
    let view = db.begin_read().map_err(|e| open(e.into()))?;
    let meta = view.open_table(META).map_err(|e| open(e.into()))?;
    let field = |name: &str| -> Result<Option<Vec<u8>>, LogError> {
        Ok(meta.get(name).map_err(|e| open(e.into()))?.map(|v| v.value().to_vec()))
    };
    let mut memory = Memory::default();
    if let Some(bytes) = field("vote")? {
        memory.vote = Some(unseal(&bytes).map_err(|why| damaged("the vote".to_owned(), why))?);
    }
    if let Some(bytes) = field("committed")? {
        memory.committed =
            unseal(&bytes).map_err(|why| damaged("the commit index".to_owned(), why))?;
    }
    if let Some(bytes) = field("purged")? {
        memory.purged =
            Some(unseal(&bytes).map_err(|why| damaged("the purge mark".to_owned(), why))?);
    }
    let log = view.open_table(LOG).map_err(|e| open(e.into()))?;
    let mut expected = memory.purged.as_ref().map(|id| id.index + 1);
    for row in log.iter().map_err(|e| open(e.into()))? {
        let (key, value) = row.map_err(|e| open(e.into()))?;
        let index = key.value();
        let place = || format!("entry {index}");
        let entry: Entry = unseal(value.value()).map_err(|why| damaged(place(), why))?;
        if entry.log_id.index != index {
            return Err(damaged(place(), format!("holds entry {}", entry.log_id.index)));
        }
        if expected.is_some_and(|expected| expected != index) {
            return Err(damaged(place(), format!("expected entry {}", expected.unwrap_or(0))));
        }
        expected = Some(index + 1);
        memory.log.insert(index, entry);
    }
    Ok(memory)
}

/// What waits, up to a limit.
fn group(first: Job, inbox: &mut mpsc::UnboundedReceiver<Job>) -> Vec<Job> {
    let mut group = vec![first];
    while group.len() < GROUP_MAX
        && let Ok(next) = inbox.try_recv()
    {
        group.push(next);
    }
    group
}

/// The writer: commits a group as one, then tells everybody. After the first error nothing is written any
/// more, so that no later write can overtake a lost one.
struct Writer {
    db: redb::Database,
    failed: Option<String>,
}

impl Writer {
    /// Writes a group; whether it was the last.
    fn write(&mut self, group: Vec<Job>) -> bool {
        if self.failed.is_none()
            && let Err(error) = commit(&self.db, &group)
        {
            tracing::error!(%error, "cannot write the raft log");
            self.failed = Some(error.to_string());
        }
        let closing = group.iter().any(|job| matches!(job.write, Write::Close));
        for done in group.into_iter().filter_map(|job| job.done) {
            done(self.failed.as_ref().map_or(Ok(()), |why| Err(broken(why))));
        }
        closing
    }
}

fn commit(db: &redb::Database, group: &[Job]) -> Result<(), redb::Error> {
    let mut change = db.begin_write()?;
    if !group.iter().any(|job| job.sync) {
        change.set_durability(redb::Durability::None)?;
    }
    {
        let mut log = change.open_table(LOG)?;
        let mut meta = change.open_table(META)?;
        for job in group {
            match &job.write {
                Write::Append(entries) => {
                    for (index, bytes) in entries {
                        log.insert(index, bytes.as_slice())?;
                    }
                }
                Write::Vote(bytes) => {
                    meta.insert("vote", bytes.as_slice())?;
                }
                Write::Committed(bytes) => {
                    meta.insert("committed", bytes.as_slice())?;
                }
                Write::Truncate(from) => log.retain_in::<u64, _>(*from.., |_, _| false)?,
                Write::Purge(upto, bytes) => {
                    meta.insert("purged", bytes.as_slice())?;
                    log.retain_in::<u64, _>(..=*upto, |_, _| false)?;
                }
                Write::Close => {}
            }
        }
    }
    change.commit()?;
    Ok(())
}

impl RaftLogReader<Types> for LogStore {
    async fn try_get_log_entries<
        RB: RangeBounds<u64> + Clone + std::fmt::Debug + openraft::OptionalSend,
    >(
        &mut self,
        range: RB,
    ) -> io::Result<Vec<Entry>> {
        Ok(self.memory().log.range(range).map(|(_, entry)| entry.clone()).collect())
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        Ok(self.memory().vote)
    }
}

impl RaftLogStorage<Types> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<Types>> {
        let memory = self.memory();
        let last = memory.log.last_key_value().map(|(_, entry)| entry.log_id());
        Ok(LogState { last_purged_log_id: memory.purged, last_log_id: last.or(memory.purged) })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        self.write(Write::Vote(seal(&encode(vote)?))).await?;
        self.memory().vote = Some(*vote);
        Ok(())
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        self.memory().committed = committed;
        self.send(Write::Committed(seal(&encode(&committed)?)), false, None)
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        Ok(self.memory().committed)
    }

    async fn append<I>(&mut self, entries: I, flushed: IOFlushed<Types>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + openraft::OptionalSend,
        I::IntoIter: openraft::OptionalSend,
    {
        let entries: Vec<Entry> = entries.into_iter().collect();
        let mut bytes = Vec::with_capacity(entries.len());
        for entry in &entries {
            bytes.push((entry.index(), seal(&encode(entry)?)));
        }
        let found: Vec<(u64, Generation)> = entries.iter().filter_map(generation_in).collect();
        self.memory().log.extend(entries.into_iter().map(|entry| (entry.index(), entry)));
        let succession = self.succession.get().filter(|_| !found.is_empty()).cloned();
        let done: Done = Box::new(move |result| {
            if let (Some(succession), Ok(())) = (succession, &result) {
                let at = found.last().map_or(0, |(at, _)| *at);
                let generations = found.into_iter().map(|(_, g)| g).collect();
                succession.handle(Event::Logged { generations, at });
            }
            flushed.io_completed(result);
        });
        self.send(Write::Append(bytes), true, Some(done))
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> io::Result<()> {
        let from = last.map_or(0, |id| id.index + 1);
        self.memory().log.split_off(&from);
        self.write(Write::Truncate(from)).await
    }

    async fn purge(&mut self, upto: LogId) -> io::Result<()> {
        {
            let mut memory = self.memory();
            memory.purged = Some(upto);
            memory.log = memory.log.split_off(&(upto.index + 1));
        }
        self.write(Write::Purge(upto.index, seal(&encode(&upto)?))).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::consensus::machine::Machine;
    use openraft::EntryPayload;
    use openraft::entry::RaftEntry;
    use openraft::testing::log::{StoreBuilder, Suite};
    use openraft::type_config::TypeConfigExt;
    use openraft::vote::RaftLeaderId;

    struct Builder;

    impl StoreBuilder<Types, LogStore, Machine, tempfile::TempDir> for Builder {
        async fn build(
            &self,
        ) -> Result<(tempfile::TempDir, LogStore, Machine), openraft::StorageError<Types>> {
            let dir = tempfile::tempdir().unwrap();
            let log = LogStore::open(dir.path(), "1").unwrap();
            let machine = Machine::open(dir.path()).unwrap();
            Ok((dir, log, machine))
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn store_passes_the_suite_of_openraft() {
        Suite::test_all(Builder).await.unwrap();
    }

    fn id(index: u64) -> LogId {
        type Leader = <Types as openraft::RaftTypeConfig>::LeaderId;
        openraft::LogId::new(Leader::new(1, 1).to_committed(), index)
    }

    async fn fill(dir: &Path) {
        let mut log = LogStore::open(dir, "1").unwrap();
        let entries: Vec<Entry> =
            (0..10).map(|index| Entry::new(id(index), EntryPayload::Blank)).collect();
        let (tell, told) = Types::oneshot();
        log.append(entries, IOFlushed::signal(tell)).await.unwrap();
        told.await.unwrap().unwrap();
        log.save_committed(Some(id(8))).await.unwrap();
        log.save_vote(&Vote::new(1, 1)).await.unwrap();
        log.close();
    }

    fn tamper(dir: &Path, act: impl FnOnce(&mut redb::Table<'_, u64, &[u8]>)) {
        let db = redb::Database::create(dir.join(FILE)).unwrap();
        let change = db.begin_write().unwrap();
        act(&mut change.open_table(LOG).unwrap());
        change.commit().unwrap();
    }

    fn refusal(dir: &Path) -> String {
        let checked = LogStore::open(dir, "1").and_then(|log| log.check_end(None));
        checked.map_or_else(|error| error.to_string(), |()| "opened".to_owned())
    }

    #[tokio::test]
    async fn damage_anywhere_in_the_log_is_named_and_refused() {
        type Act = fn(&mut redb::Table<'_, u64, &[u8]>);
        let cases: [(Act, &str); 4] = [
            (
                |log| {
                    let mut bytes = log.get(9).unwrap().unwrap().value().to_vec();
                    bytes.pop();
                    log.insert(9, bytes.as_slice()).unwrap();
                },
                "damaged at entry 9: checksum",
            ),
            (
                |log| {
                    log.remove(4).unwrap();
                },
                "damaged at entry 5: expected entry 4",
            ),
            (
                |log| {
                    let bytes = log.get(3).unwrap().unwrap().value().to_vec();
                    log.insert(2, bytes.as_slice()).unwrap();
                },
                "damaged at entry 2: holds entry 3",
            ),
            (
                |log| {
                    log.remove(9).unwrap();
                    log.remove(8).unwrap();
                },
                "damaged at its end: entry 8",
            ),
        ];
        for (act, want) in cases {
            let dir = tempfile::tempdir().unwrap();
            fill(dir.path()).await;
            LogStore::open(dir.path(), "1").unwrap().close();
            tamper(dir.path(), act);
            let refused = refusal(dir.path());
            assert!(refused.contains(want), "{refused}");
        }
    }

    /// What a log holds: vote, commit index, entries.
    fn contents(log: &LogStore) -> String {
        let memory = log.memory();
        format!("{:?} {:?} {:?} {:?}", memory.vote, memory.committed, memory.purged, memory.log)
    }

    /// What becomes of a log with this file: what it holds, or why it is refused.
    fn reopened(dir: &Path) -> Result<String, String> {
        let log = LogStore::open(dir, "1").map_err(|error| error.to_string())?;
        let held = log.check_end(None).map(|()| contents(&log)).map_err(|e| e.to_string());
        log.close();
        held
    }

    #[tokio::test]
    async fn bytes_that_change_below_the_database_change_nothing_or_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        fill(dir.path()).await;
        let log = LogStore::open(dir.path(), "1").unwrap();
        let held = contents(&log);
        log.close();
        let good = std::fs::read(dir.path().join(FILE)).unwrap();
        assert_eq!(reopened(dir.path()).unwrap(), held);
        let written: Vec<usize> = (0..good.len()).filter(|at| good[*at] != 0).collect();
        // Of the header every byte, of the pages as many as a test has time for.
        let pages = written.iter().filter(|at| **at >= 320);
        let step = written.len() / 200 + 1;
        let chosen = written.iter().filter(|at| **at < 320).chain(pages.step_by(step));
        let (mut refused, mut wrong) = (0, Vec::new());
        for at in chosen {
            let mut bytes = good.clone();
            bytes[*at] ^= 0x41;
            std::fs::write(dir.path().join(FILE), &bytes).unwrap();
            match reopened(dir.path()) {
                Ok(now) if now == held => {}
                Ok(now) => wrong.push(format!("byte {at}: {now}")),
                Err(_) => refused += 1,
            }
        }
        eprintln!("{} bytes, {} written, {refused} refused", good.len(), written.len());
        assert!(wrong.is_empty(), "{} of {held}: {wrong:#?}", wrong.len());
    }

    #[tokio::test]
    async fn a_file_that_was_cut_off_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        fill(dir.path()).await;
        let good = std::fs::read(dir.path().join(FILE)).unwrap();
        for length in (1..good.len()).step_by(good.len() / 64).chain([good.len() - 1]) {
            std::fs::write(dir.path().join(FILE), &good[..length]).unwrap();
            let refused = reopened(dir.path());
            assert!(refused.is_err(), "{length} of {}: {refused:?}", good.len());
        }
    }

    #[tokio::test]
    async fn log_of_another_node_is_refused_and_a_closed_one_takes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        fill(dir.path()).await;
        let foreign = LogStore::open(dir.path(), "2");
        assert!(matches!(foreign, Err(LogError::Foreign { .. })));
        let mut log = LogStore::open(dir.path(), "1").unwrap();
        assert!(!log.is_new());
        log.close();
        log.save_vote(&Vote::new(2, 1)).await.unwrap_err();
    }
}
