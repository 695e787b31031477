//! The control socket of `crm-blockd` (`/run/crm/blockd.sock`): JSON lines, one request a line, one reply a line.

use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Default path of the control socket.
pub const SOCKET: &str = "/run/crm/blockd.sock";

/// The socket in use: `CRM_BLOCKD_SOCKET`, else [`SOCKET`].
#[must_use]
pub fn socket_path() -> PathBuf {
    std::env::var_os("CRM_BLOCKD_SOCKET").map_or_else(|| PathBuf::from(SOCKET), PathBuf::from)
}

/// One replica as the data plane needs it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaSpec {
    /// Node name.
    pub node: String,
    /// `HOST:PORT` of the data plane there.
    pub address: String,
    /// Backing device or file there.
    pub disk: String,
}

/// A volume as the data plane needs it; stored by blockd, which starts from these alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeSpec {
    /// Name.
    pub name: String,
    /// Size in bytes, multiple of 4096.
    pub size_bytes: u64,
    /// Device path to show, e.g. `/dev/drbd0`.
    pub device: String,
    /// Name of this node: one of `replicas`.
    pub me: String,
    /// All replicas, same order on every node.
    pub replicas: Vec<ReplicaSpec>,
    /// Day-0 generation.
    pub day0: u64,
    /// Replicas start equal.
    pub assume_clean: bool,
}

/// Disk state of a replica, in DRBD's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum DiskState {
    /// No backing disk, or it failed.
    Diskless,
    /// In the middle of a sync: a mixture of old and new.
    Inconsistent,
    /// Whole, but known to be old.
    Outdated,
    /// Peer's state is not known (it is not connected).
    Unknown,
    /// Whole; whether it is the newest is not known yet.
    Consistent,
    /// Has every acknowledged write.
    UpToDate,
}

/// State of a connection to a peer, in DRBD's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Connection {
    /// Given up (split brain, unrelated data): waits for the operator.
    StandAlone,
    /// Trying.
    Connecting,
    /// Connected, replicating.
    Connected,
    /// Connected, sending what the peer lacks.
    SyncSource,
    /// Connected, receiving what is lacking here.
    SyncTarget,
}

/// A peer in [`VolumeStatus`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerStatus {
    /// Node name.
    pub node: String,
    /// Connection.
    pub connection: Connection,
    /// Peer is primary (as far as known).
    pub primary: bool,
    /// Peer's disk.
    pub disk: DiskState,
    /// Bytes still out of sync.
    pub out_of_sync_bytes: u64,
    /// Bytes sent or received by the current or last resync.
    pub resynced_bytes: u64,
    /// Why `StandAlone`, if so.
    pub why: Option<String>,
}

/// State of a volume on this node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeStatus {
    /// Name.
    pub name: String,
    /// Attached and connecting or connected.
    pub up: bool,
    /// Primary here.
    pub primary: bool,
    /// Disk here.
    pub disk: DiskState,
    /// Device path, while primary.
    pub device: Option<String>,
    /// How the device is made: `ublk`, `nbd`, `fuse+loop`, `fuse`, `socket`.
    pub front: Option<String>,
    /// I/O waits (peer lost and nobody has said yet that it may be left behind; or volume quorum lost).
    pub suspended: Option<String>,
    /// Current data generation, hexadecimal.
    pub generation: String,
    /// Epoch of the in-sync record it knows.
    pub epoch: u64,
    /// Promotion score as `ocf:linbit:drbd` would set it; `None` = must not be promoted.
    pub score: Option<i32>,
    /// Counters since start, bytes: written here by the application, read, sent to peers, received from peers.
    pub counters: Counters,
    /// Peers.
    pub peers: Vec<PeerStatus>,
}

/// Bytes since the daemon started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Counters {
    /// Written by the application.
    pub written: u64,
    /// Read by the application.
    pub read: u64,
    /// Sent to peers (replication and resync).
    pub sent: u64,
    /// Received from peers.
    pub received: u64,
}

/// A request to blockd.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Stores the definition (creates metadata when there is none, and the backing file when `disk` is an absolute path to a missing regular file).
    /// Idempotent; refused when it contradicts stored metadata. Does not bring it up.
    Define(VolumeSpec),
    /// Forgets a volume that is down.
    Undefine {
        /// Name.
        volume: String,
    },
    /// Attaches and connects. Idempotent.
    Up {
        /// Name.
        volume: String,
    },
    /// Demotes if need be, disconnects, detaches cleanly. Fails while the device is in use.
    Down {
        /// Name.
        volume: String,
    },
    /// Becomes primary and makes the device. Refused with a reason unless disk is `UpToDate`, no peer is primary and (3+ replicas) a majority is connected.
    /// Peers in `lost` are known dead (or left behind by a committed record): they need not answer.
    Promote {
        /// Name.
        volume: String,
        /// Peers known to be gone.
        lost: Vec<String>,
    },
    /// Removes the device, becomes secondary. Fails with `busy` while the device is in use.
    Demote {
        /// Name.
        volume: String,
    },
    /// Permission (from the control plane) to go on without these peers: they are no longer in sync by record `epoch`.
    Drop {
        /// Name.
        volume: String,
        /// Peers left behind.
        peers: Vec<String>,
        /// Epoch of the record.
        epoch: u64,
    },
    /// Operator: throw away this node's changes and become the target of a resync (`crm volume resolve`).
    DiscardMyData {
        /// Name.
        volume: String,
    },
    /// State of one volume, or all.
    Status {
        /// Name; `None` = all.
        volume: Option<String>,
    },
    /// Keeps the connection open and sends an [`Event`] line for every event. First the current [`Reply::Status`] of all.
    Watch,
}

/// Reply to a [`Request`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// Done.
    Ok,
    /// Not done: code for programs, clause for people. Codes: `unknown-volume`, `busy`, `not-up-to-date`, `peer-primary`, `no-quorum`, `split-brain`, `io`, `invalid`.
    Refused {
        /// Code.
        code: String,
        /// Why.
        why: String,
    },
    /// States.
    Status(Vec<VolumeStatus>),
}

/// What blockd tells a watcher.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// A primary lost these peers; writes wait until [`Request::Drop`] or until they are back. Repeated to a new watcher while it lasts.
    MayIDrop {
        /// Name.
        volume: String,
        /// Peers.
        peers: Vec<String>,
        /// Epoch known here.
        epoch: u64,
    },
    /// These peers finished their resync and have every acknowledged write again: the control plane should commit them to `in_sync`.
    InSync {
        /// Name.
        volume: String,
        /// Peers (never this node).
        peers: Vec<String>,
        /// Epoch known here.
        epoch: u64,
    },
    /// State changed.
    Changed(VolumeStatus),
}
