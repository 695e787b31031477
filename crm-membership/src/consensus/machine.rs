//! The state machine under raft: applies commands to `crm_core::store::State`, publishes the state after
//! each batch, keeps one snapshot file.
//!
//! The file is `magic (8) | crc32c (4, little endian) | postcard of Image`.

use super::{LogId, Reply, Snapshot, SnapshotData, SnapshotMeta, StoredMembership, Types};
use crate::durable;
use crm_core::store::{Command, Outcome, State};
use futures::{Stream, TryStreamExt};
use openraft::EntryPayload;
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
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
    lineage: Vec<String>,
    outcomes: VecDeque<(Uuid, Outcome)>,
    state: Vec<u8>,
}

#[derive(Debug)]
struct Inside {
    applied: Option<LogId>,
    membership: StoredMembership,
    /// Generations of this cluster; the first is its uuid. Takeovers will add to it.
    lineage: Vec<String>,
    outcomes: VecDeque<(Uuid, Outcome)>,
    state: Arc<State>,
    snapshot: Option<(SnapshotMeta, Vec<u8>)>,
}

/// The state machine of one node. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Machine {
    inside: Arc<Mutex<Inside>>,
    path: PathBuf,
    states: watch::Sender<Arc<State>>,
    applied: watch::Sender<u64>,
}

fn broken(error: impl std::fmt::Display) -> io::Error {
    io::Error::other(error.to_string())
}

impl Machine {
    /// Opens the state as of the last snapshot in `dir`, or an empty one.
    pub(crate) fn open(dir: &Path, cluster_uuid: &str) -> io::Result<Self> {
        let path = dir.join(FILE);
        let mut inside = Inside {
            applied: None,
            membership: StoredMembership::default(),
            lineage: vec![cluster_uuid.to_owned()],
            outcomes: VecDeque::new(),
            state: Arc::new(State::default()),
            snapshot: None,
        };
        match std::fs::read(&path) {
            Ok(bytes) => inside.adopt(unwrap_file(&path, &bytes)?)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let states = watch::Sender::new(Arc::clone(&inside.state));
        let applied = watch::Sender::new(inside.applied.as_ref().map_or(0, |id| id.index));
        Ok(Self { inside: Arc::new(Mutex::new(inside)), path, states, applied })
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

    /// The generations that this node has lived through, oldest first.
    pub(crate) fn lineage(&self) -> Vec<String> {
        self.inside().lineage.clone()
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
        let path = self.path.clone();
        let write = move || {
            let mut file = MAGIC.to_vec();
            file.extend_from_slice(&crc32c::crc32c(&image).to_le_bytes());
            file.extend_from_slice(&image);
            durable::replace(&path, &file, 0o600).map(|()| image)
        };
        tokio::task::spawn_blocking(write).await.map_err(broken)?
    }
}

fn unwrap_file<'a>(path: &Path, bytes: &'a [u8]) -> io::Result<&'a [u8]> {
    let damaged = |why: &str| {
        broken(format!("snapshot `{}` is damaged: {why}; rejoin this node", path.display()))
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
        self.lineage = image.lineage;
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
            lineage: self.lineage.clone(),
            outcomes: self.outcomes.clone(),
            state: serde_json::to_vec(&*self.state).map_err(broken)?,
        };
        postcard::to_stdvec(&image).map_err(broken)
    }

    /// Applies a command once: a repeated one gets the answer of the first time.
    fn apply(&mut self, request: &super::Request) -> io::Result<Outcome> {
        if let Some((_, outcome)) = self.outcomes.iter().rev().find(|(id, _)| *id == request.id) {
            return Ok(outcome.clone());
        }
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
                    EntryPayload::Normal(request) => Some(inside.apply(request)?),
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

    fn found(id: u128) -> Request {
        let command = Command::Found { name: "lab".into(), uuid: "u".into() };
        Request { id: Uuid::from_u128(id), command: serde_json::to_vec(&command).unwrap() }
    }

    #[test]
    fn repeated_proposal_gets_its_first_answer() {
        let dir = tempfile::tempdir().unwrap();
        let machine = Machine::open(dir.path(), "u").unwrap();
        let mut inside = machine.inside();
        let first = inside.apply(&found(1)).unwrap();
        assert!(matches!(first, Outcome::Done { .. }));
        assert_eq!(inside.apply(&found(1)).unwrap(), first);
        assert!(matches!(inside.apply(&found(2)).unwrap(), Outcome::Refused { .. }));
    }

    #[test]
    fn unknown_command_stops_the_node_instead_of_being_skipped() {
        let dir = tempfile::tempdir().unwrap();
        let machine = Machine::open(dir.path(), "u").unwrap();
        let request = Request { id: Uuid::from_u128(1), command: b"{\"Dance\":{}}".to_vec() };
        assert!(machine.inside().apply(&request).unwrap_err().to_string().contains("unknown"));
    }

    #[tokio::test]
    async fn snapshot_survives_a_restart_and_damage_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let mut machine = Machine::open(dir.path(), "u").unwrap();
        machine.inside().apply(&found(1)).unwrap();
        machine.build_snapshot().await.unwrap();
        let again = Machine::open(dir.path(), "u").unwrap();
        assert_eq!(again.states().borrow().cluster_name, "lab");
        // The answer of before the snapshot is still known after it.
        assert!(matches!(again.inside().apply(&found(1)).unwrap(), Outcome::Done { .. }));

        let path = dir.path().join(FILE);
        let mut bytes = std::fs::read(&path).unwrap();
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        let refused = Machine::open(dir.path(), "u").unwrap_err().to_string();
        assert!(refused.contains("checksum"), "{refused}");
    }
}
