//! The words between the state machine and the world.

use crate::lineage::Disk;
use crate::meta::Piece;
use crate::wire::Msg;

/// What happened. `D` is the payload of a write.
#[derive(Debug, Clone)]
pub enum Event<D> {
    /// A peer is connected and authenticated.
    PeerUp {
        /// Index.
        peer: u8,
    },
    /// The connection is gone.
    PeerDown {
        /// Index.
        peer: u8,
    },
    /// A message of the current connection.
    PeerMsg {
        /// Index.
        peer: u8,
        /// Message.
        msg: Msg<D>,
    },
    /// The application writes.
    Write {
        /// For [`Effect::Complete`].
        id: u64,
        /// Byte offset.
        offset: u64,
        /// Bytes.
        len: u64,
        /// Payload; `None` = zeroes.
        data: Option<D>,
        /// Durable before it is answered.
        fua: bool,
    },
    /// The application wants durability.
    Flush {
        /// For [`Effect::Complete`].
        id: u64,
    },
    /// [`Effect::DiskWrite`] or [`Effect::DiskZero`] ended.
    DiskDone {
        /// Which.
        op: u64,
        /// It worked.
        ok: bool,
    },
    /// [`Effect::DiskRead`] ended.
    ReadDone {
        /// Which.
        op: u64,
        /// What was read; `Err` = failed.
        data: Result<Read<D>, ()>,
    },
    /// [`Effect::DiskFlush`] or [`Effect::MetaWrite`] ended.
    Stored {
        /// Which.
        token: u64,
        /// It worked.
        ok: bool,
    },
    /// Become primary.
    Promote {
        /// For [`Effect::Reply`].
        id: u64,
        /// Mask of peers known to be gone.
        lost: u32,
    },
    /// Become secondary.
    Demote {
        /// For [`Effect::Reply`].
        id: u64,
    },
    /// Detach cleanly.
    Down {
        /// For [`Effect::Reply`].
        id: u64,
    },
    /// These peers are left behind by record `epoch`.
    Drop {
        /// Mask.
        peers: u32,
        /// Epoch.
        epoch: u64,
    },
    /// Give this replica's changes up.
    Discard {
        /// For [`Effect::Reply`].
        id: u64,
    },
    /// The deadline is reached.
    Tick,
}

/// What a resync read found.
#[derive(Debug, Clone)]
pub enum Read<D> {
    /// Bytes.
    Data(D),
    /// All zero.
    Zero,
}

/// What to do.
#[derive(Debug, Clone)]
pub enum Effect<D> {
    /// Send, in order.
    Send {
        /// Index.
        peer: u8,
        /// Message.
        msg: Msg<D>,
    },
    /// Close the connection; the state machine already takes it for gone.
    Disconnect {
        /// Index.
        peer: u8,
    },
    /// Write to the local disk.
    DiskWrite {
        /// For [`Event::DiskDone`].
        op: u64,
        /// Byte offset.
        offset: u64,
        /// Payload.
        data: D,
    },
    /// Make a range of the local disk zero.
    DiskZero {
        /// For [`Event::DiskDone`].
        op: u64,
        /// Byte offset.
        offset: u64,
        /// Bytes.
        len: u64,
    },
    /// Read for a resync.
    DiskRead {
        /// For [`Event::ReadDone`].
        op: u64,
        /// Byte offset.
        offset: u64,
        /// Bytes.
        len: u64,
    },
    /// Make durable all writes to the local disk that ended.
    DiskFlush {
        /// For [`Event::Stored`].
        token: u64,
    },
    /// Write to the metadata file, then make durable. In order.
    MetaWrite {
        /// For [`Event::Stored`].
        token: u64,
        /// What.
        pieces: Vec<Piece>,
    },
    /// A request of the application ended.
    Complete {
        /// Which.
        id: u64,
        /// Outcome.
        result: Result<(), Failure>,
    },
    /// A command ended.
    Reply {
        /// Which.
        id: u64,
        /// Outcome.
        result: Result<(), Refusal>,
    },
    /// Writes wait for these peers: may they be left behind?
    MayIDrop {
        /// Mask.
        peers: u32,
    },
    /// These peers have every acknowledged write again.
    InSync {
        /// Mask.
        peers: u32,
    },
    /// [`View`] changed.
    Changed,
}

/// Why a request of the application failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// Not primary here.
    #[error("this node is not primary")]
    NotPrimary,
    /// Outside of the volume.
    #[error("outside of the volume")]
    Range,
    /// The local disk failed.
    #[error("the local disk failed")]
    Disk,
    /// Fewer than a majority of replicas are connected.
    #[error("the majority of replicas is not connected")]
    NoQuorum,
}

/// Why a command was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Disk is not `UpToDate`.
    #[error("the disk here is not UpToDate")]
    NotUpToDate,
    /// A peer is or becomes primary.
    #[error("a peer is primary or becomes it")]
    PeerPrimary,
    /// A peer neither answered nor is known to be gone.
    #[error("a peer is not connected and not known to be gone")]
    PeerUnknown,
    /// No majority.
    #[error("the majority of replicas is not connected")]
    NoQuorum,
    /// Something else is going on, or the volume is primary.
    #[error("busy: the volume is primary or another change of role is going on")]
    Busy,
    /// Disk failed.
    #[error("the local disk failed")]
    Disk,
}

/// What is known from the last run on the same boot of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Resume {
    /// Was primary.
    pub primary: bool,
    /// Was `UpToDate`.
    pub up_to_date: bool,
}

/// State of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link {
    /// Refused until something changes.
    StandAlone,
    /// Not there.
    Connecting,
    /// There.
    Connected,
    /// Sending what the peer lacks.
    SyncSource,
    /// Receiving what is lacking here.
    SyncTarget,
}

/// A peer in [`View`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerView {
    /// Index.
    pub index: u8,
    /// Connection.
    pub link: Link,
    /// It is primary.
    pub primary: bool,
    /// Its disk, `None` = unknown.
    pub disk: Option<Disk>,
    /// Blocks out of sync.
    pub out_of_sync: u64,
    /// Blocks resynced since the last resync began.
    pub resynced: u64,
    /// Why `StandAlone`, or why it was refused until now.
    pub why: Option<String>,
}

/// State of the volume here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    /// Primary here.
    pub primary: bool,
    /// Disk here.
    pub disk: Disk,
    /// Why writes wait.
    pub suspended: Option<String>,
    /// Generation.
    pub current: u64,
    /// Epoch.
    pub epoch: u64,
    /// Promotion score.
    pub score: Option<i32>,
    /// Peers.
    pub peers: Vec<PeerView>,
}
