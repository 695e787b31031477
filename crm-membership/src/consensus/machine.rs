//! The state machine under raft: applies commands to `crm_core::store::State`, publishes the state after
//! each batch, keeps one snapshot file.
//!
//! The file is `magic (8) | crc32c (4, little endian) | postcard of Image`.

use super::{LogId, Reply, Snapshot, SnapshotData, SnapshotMeta, StoredMembership, Types};
use crate::durable;
use crate::succession::Succession;
use crm_core::store::{Command, LEVEL, Outcome, State};
use crm_quorum::lineage::Generation;
use crm_quorum::takeover::Event;
use futures::{Stream, TryStreamExt};
use openraft::EntryPayload;
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use tokio::sync::watch;
use uuid::Uuid;

/// Outcomes remembered so that a repeated proposal gets its first answer: more than can be in flight.
const OUTCOMES_KEPT: usize = 512;
/// Name of the snapshot's file in the data directory.
const FILE: &str = "raft.snapshot";
const MAGIC: &[u8; 8] = b"CRMSNAP\x01";

/// What a snapshot holds. The state is JSON, for the same reason as the commands.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Image {
    applied: Option<LogId>,
    membership: StoredMembership,
    /// The takeovers, with the indexes of their entries.
    generations: Vec<(u64, Generation)>,
    outcomes: VecDeque<(Uuid, Outcome)>,
    state: Vec<u8>,
}

#[derive(Debug)]
struct Inside {
    applied: Option<LogId>,
    membership: StoredMembership,
    generations: Vec<(u64, Generation)>,
    outcomes: VecDeque<(Uuid, Outcome)>,
    state: Arc<State>,
    snapshot: Option<(SnapshotMeta, Vec<u8>)>,
}

/// Where the snapshot is kept: all of it or the one before, whatever happens.
#[derive(Debug, Clone)]
pub(crate) enum Shelf {
    File(PathBuf),
    #[cfg(test)]
    Memory(Arc<Mutex<Option<Vec<u8>>>>),
}

impl Shelf {
    fn read(&self) -> io::Result<Option<Vec<u8>>> {
        match self {
            Self::File(path) => match std::fs::read(path) {
                Ok(bytes) => Ok(Some(bytes)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                Err(error) => Err(error),
            },
            #[cfg(test)]
            Self::Memory(file) => Ok(file.lock().unwrap_or_else(PoisonError::into_inner).clone()),
        }
    }

    async fn replace(&self, bytes: Vec<u8>) -> io::Result<()> {
        match self {
            Self::File(path) => {
                let path = path.clone();
                let write = move || durable::replace(&path, &bytes, 0o600);
                tokio::task::spawn_blocking(write).await.map_err(broken)?
            }
            #[cfg(test)]
            Self::Memory(file) => {
                *file.lock().unwrap_or_else(PoisonError::into_inner) = Some(bytes);
                Ok(())
            }
        }
    }
}

/// The state machine of one node. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Machine {
    inside: Arc<Mutex<Inside>>,
    shelf: Shelf,
    states: watch::Sender<Arc<State>>,
    applied: watch::Sender<u64>,
    succession: Arc<OnceLock<Arc<Succession>>>,
}

fn broken(error: impl std::fmt::Display) -> io::Error {
    io::Error::other(error.to_string())
}

impl Machine {
    /// Opens the state as of the last snapshot in `dir`, or an empty one.
    pub(crate) fn open(dir: &Path) -> io::Result<Self> {
        Self::on(Shelf::File(dir.join(FILE)))
    }

    /// Opens the state as of the snapshot on this shelf, or an empty one.
    pub(crate) fn on(shelf: Shelf) -> io::Result<Self> {
        let mut inside = Inside {
            applied: None,
            membership: StoredMembership::default(),
            generations: Vec::new(),
            outcomes: VecDeque::new(),
            state: Arc::new(State::default()),
            snapshot: None,
        };
        if let Some(bytes) = shelf.read()? {
            inside.adopt(unwrap_file(&shelf, &bytes)?)?;
        }
        let states = watch::Sender::new(Arc::clone(&inside.state));
        let applied = watch::Sender::new(inside.applied.as_ref().map_or(0, |id| id.index));
        Ok(Self {
            inside: Arc::new(Mutex::new(inside)),
            shelf,
            states,
            applied,
            succession: Arc::default(),
        })
    }

    /// The state after each batch.
    pub(crate) fn states(&self) -> watch::Receiver<Arc<State>> {
        self.states.subscribe()
    }

    /// Index of the last entry applied here.
    pub(crate) fn applied(&self) -> watch::Receiver<u64> {
        self.applied.subscribe()
    }

    /// The last entry that the state contains.
    pub(crate) fn last_applied(&self) -> Option<LogId> {
        self.inside().applied
    }

    /// The takeovers that the state contains, with the indexes of their entries.
    pub(crate) fn generations(&self) -> Vec<(u64, Generation)> {
        self.inside().generations.clone()
    }

    /// The membership that the state contains.
    pub(crate) fn membership(&self) -> StoredMembership {
        self.inside().membership.clone()
    }

    /// Tells it of the generations that a snapshot brings, before the snapshot is acknowledged.
    pub(crate) fn tell(&self, succession: &Arc<Succession>) {
        if self.succession.set(Arc::clone(succession)).is_err() {
            tracing::error!("the state tells somebody of its generations already");
        }
    }

    fn inside(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn publish(&self) {
        let (state, index) = {
            let inside = self.inside();
            (Arc::clone(&inside.state), inside.applied.as_ref().map_or(0, |id| id.index))
        };
        self.states.send_if_modified(|shown| {
            let news = !Arc::ptr_eq(shown, &state);
            *shown = state;
            news
        });
        self.applied.send_replace(index);
    }

    async fn persist(&self, image: Vec<u8>) -> io::Result<Vec<u8>> {
        let mut file = MAGIC.to_vec();
        file.extend_from_slice(&crc32c::crc32c(&image).to_le_bytes());
        file.extend_from_slice(&image);
        self.shelf.replace(file).await?;
        Ok(image)
    }
}

fn unwrap_file<'a>(shelf: &Shelf, bytes: &'a [u8]) -> io::Result<&'a [u8]> {
    let place = match shelf {
        Shelf::File(path) => path.as_path(),
        #[cfg(test)]
        Shelf::Memory(_) => Path::new("memory"),
    };
    let damaged = |why: &str| {
        broken(format!("snapshot `{}` is damaged: {why}; rejoin this node", place.display()))
    };
    let rest = bytes.strip_prefix(MAGIC.as_slice()).ok_or_else(|| damaged("unknown format"))?;
    let (sum, image) = rest.split_first_chunk::<4>().ok_or_else(|| damaged("too short"))?;
    if u32::from_le_bytes(*sum) != crc32c::crc32c(image) {
        return Err(damaged("checksum does not match"));
    }
    Ok(image)
}

fn read_image(bytes: &[u8]) -> io::Result<(Image, State)> {
    let image: Image = postcard::from_bytes(bytes).map_err(broken)?;
    let state = serde_json::from_slice(&image.state).map_err(broken)?;
    Ok((image, state))
}

impl Inside {
    fn adopt(&mut self, bytes: &[u8]) -> io::Result<()> {
        let (image, state) = read_image(bytes)?;
        self.state = Arc::new(state);
        self.applied = image.applied;
        self.membership = image.membership;
        self.generations = image.generations;
        self.outcomes = image.outcomes;
        self.snapshot = Some((self.meta(), bytes.to_vec()));
        Ok(())
    }

    fn meta(&self) -> SnapshotMeta {
        SnapshotMeta { last_log_id: self.applied, last_membership: self.membership.clone() }
    }

    fn image(&self) -> io::Result<Vec<u8>> {
        let image = Image {
            applied: self.applied,
            membership: self.membership.clone(),
            generations: self.generations.clone(),
            outcomes: self.outcomes.clone(),
            state: serde_json::to_vec(&*self.state).map_err(broken)?,
        };
        postcard::to_stdvec(&image).map_err(broken)
    }

    /// A generation begins; a repeated proposal of it changes nothing.
    fn begin(&mut self, at: u64, generation: &Generation) {
        if self.generations.iter().all(|(_, known)| known.id != generation.id) {
            self.generations.push((at, generation.clone()));
        }
    }

    /// Applies a command once: a repeated one gets the answer of the first time.
    fn apply(&mut self, request: &super::Request) -> io::Result<Outcome> {
        if let Some((_, outcome)) = self.outcomes.iter().rev().find(|(id, _)| *id == request.id) {
            return Ok(outcome.clone());
        }
        // What a newer crm means by the rest of the log is not known here, also where it can be read.
        self.state.may_run(LEVEL).map_err(broken)?;
        let command: Command = serde_json::from_slice(&request.command).map_err(|e| {
            broken(format!("a committed command is unknown to this version of crm: {e}"))
        })?;
        let outcome = Arc::make_mut(&mut self.state).apply(command);
        self.outcomes.push_back((request.id, outcome.clone()));
        if self.outcomes.len() > OUTCOMES_KEPT {
            self.outcomes.pop_front();
        }
        Ok(outcome)
    }
}

impl RaftSnapshotBuilder<Types> for Machine {
    type SnapshotData = SnapshotData;

    async fn build_snapshot(&mut self) -> io::Result<Snapshot> {
        let (meta, image) = {
            let inside = self.inside();
            (inside.meta(), inside.image()?)
        };
        let image = self.persist(image).await?;
        self.inside().snapshot = Some((meta.clone(), image.clone()));
        Ok(Snapshot { meta, snapshot: io::Cursor::new(image) })
    }
}

impl RaftStateMachine<Types> for Machine {
    type SnapshotData = SnapshotData;
    type SnapshotBuilder = Self;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        let inside = self.inside();
        Ok((inside.applied, inside.membership.clone()))
    }

    /// Applies a batch; answers only after the new state is published, so that a proposer who has his
    /// answer finds it in the state.
    async fn apply<S>(&mut self, mut entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<Types>>> + Unpin + openraft::OptionalSend,
    {
        let mut answers = Vec::new();
        while let Some((entry, responder)) = entries.try_next().await? {
            let outcome = {
                let mut inside = self.inside();
                inside.applied = Some(entry.log_id);
                match &entry.payload {
                    EntryPayload::Blank => None,
                    EntryPayload::Normal(request) => match &request.generation {
                        Some(generation) => {
                            inside.begin(entry.log_id.index, generation);
                            None
                        }
                        None => Some(inside.apply(request)?),
                    },
                    EntryPayload::Membership(membership) => {
                        inside.membership =
                            StoredMembership::new(Some(entry.log_id), membership.clone());
                        None
                    }
                }
            };
            if let Some(responder) = responder {
                answers.push((responder, Reply { outcome }));
            }
        }
        self.publish();
        for (responder, reply) in answers {
            responder.send(reply);
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Self {
        self.clone()
    }

    async fn install_snapshot(
        &mut self,
        _meta: &SnapshotMeta,
        snapshot: SnapshotData,
    ) -> io::Result<()> {
        let image = snapshot.into_inner();
        // What cannot be read must not replace what can.
        read_image(&image)?;
        let image = self.persist(image).await?;
        self.inside().adopt(&image)?;
        if let Some(succession) = self.succession.get() {
            let found = self.generations();
            let at = found.last().map_or(0, |(at, _)| *at);
            let generations = found.into_iter().map(|(_, g)| g).collect();
            succession.handle(Event::Logged { generations, at });
        }
        self.publish();
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<Snapshot>> {
        let kept = self.inside().snapshot.clone();
        Ok(kept.map(|(meta, image)| Snapshot { meta, snapshot: io::Cursor::new(image) }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::consensus::Request;
    use crm_core::store::{Build, Member};

    fn found(id: u128) -> Request {
        let command = Command::Found { name: "lab".into(), uuid: "u".into() };
        let command = serde_json::to_vec(&command).unwrap();
        Request { id: Uuid::from_u128(id), ..Request::of(command) }
    }

    #[test]
    fn repeated_proposal_gets_its_first_answer() {
        let dir = tempfile::tempdir().unwrap();
        let machine = Machine::open(dir.path()).unwrap();
        let mut inside = machine.inside();
        let first = inside.apply(&found(1)).unwrap();
        assert!(matches!(first, Outcome::Done { .. }));
        assert_eq!(inside.apply(&found(1)).unwrap(), first);
        assert!(matches!(inside.apply(&found(2)).unwrap(), Outcome::Refused { .. }));
    }

    #[test]
    fn unknown_command_stops_the_node_instead_of_being_skipped() {
        let dir = tempfile::tempdir().unwrap();
        let machine = Machine::open(dir.path()).unwrap();
        let request = Request::of(b"{\"Dance\":{}}".to_vec());
        assert!(machine.inside().apply(&request).unwrap_err().to_string().contains("unknown"));
    }

    #[test]
    fn nothing_is_applied_beyond_the_level_that_this_build_knows() {
        let dir = tempfile::tempdir().unwrap();
        let machine = Machine::open(dir.path()).unwrap();
        let apply = |command: &Command| {
            let request = Request::of(serde_json::to_vec(command).unwrap());
            machine.inside().apply(&request)
        };
        let (node, member) = ("n1".to_owned(), Member::new(1, "n1:1".into()));
        apply(&Command::SetMember { name: node.clone(), member }).unwrap();
        let build = Build { level: LEVEL + 1, version: "9".into() };
        apply(&Command::Build { node, raft_id: 1, build }).unwrap();
        let refused = apply(&Command::Disarm { disarmed: None }).unwrap_err().to_string();
        assert!(refused.contains("this crm knows"), "{refused}");
    }

    #[tokio::test]
    async fn snapshot_survives_a_restart_and_damage_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let mut machine = Machine::open(dir.path()).unwrap();
        machine.inside().apply(&found(1)).unwrap();
        machine.build_snapshot().await.unwrap();
        let again = Machine::open(dir.path()).unwrap();
        assert_eq!(again.states().borrow().cluster_name, "lab");
        // The answer of before the snapshot is still known after it.
        assert!(matches!(again.inside().apply(&found(1)).unwrap(), Outcome::Done { .. }));

        let path = dir.path().join(FILE);
        let mut bytes = std::fs::read(&path).unwrap();
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        let refused = Machine::open(dir.path()).unwrap_err().to_string();
        assert!(refused.contains("checksum"), "{refused}");
    }
}
