//! The control socket of `crmd` (`/run/crm/crmd.sock`): JSON lines. Used by `crm`, by agents' shims (`crm_attribute`, ...) and by tests.

use crate::peer::Line;
use crm_core::cib::Cib;
use crm_core::fencing::{Answer, Coverage, History, Record, Task};
use crm_core::plan::Plan;
use crm_core::store::{Edit, FenceRequest, Outcome, Revision, State};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

/// Default path of the control socket.
pub const SOCKET: &str = "/run/crm/crmd.sock";

/// The socket in use: `CRM_SOCKET`, else [`SOCKET`].
#[must_use]
pub fn socket_path() -> PathBuf {
    std::env::var_os("CRM_SOCKET").map_or_else(|| PathBuf::from(SOCKET), PathBuf::from)
}

/// What this node may decide now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mode {
    /// Starting: has not found the others yet.
    Joining,
    /// Leads and plans.
    Leader,
    /// Another node leads.
    Follower,
    /// No leader; runs on by itself from its last state (`two_node`, no-quorum-policy=ignore). CIB read-only.
    Alone,
    /// No leader and no right to run: stops what it runs.
    NoQuorum,
}

/// A node as seen from here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeLine {
    /// Heartbeats arrive.
    pub alive: bool,
    /// Counts as online for planning.
    pub online: bool,
    /// Standby by its attribute.
    pub standby: bool,
    /// Peer address.
    pub address: String,
    /// The links to it, as the node that answers sees them; none to itself.
    #[serde(default)]
    pub links: Vec<LinkLine>,
}

/// A link to a node, as seen from here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkLine {
    /// The node's address on it.
    pub address: String,
    /// Heartbeats go both ways.
    pub up: bool,
    /// Calls go over it.
    pub in_use: bool,
    /// How long it has been up or down, milliseconds.
    pub for_ms: u64,
    /// When something was last heard on it, milliseconds ago; never without it.
    pub heard_ms_ago: Option<u64>,
    /// Smoothed round-trip time in microseconds.
    pub rtt_us: Option<u64>,
}

/// Service quorum as this node counts it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VotesLine {
    /// May run resources and fence.
    pub quorate: bool,
    /// `wait_for_all` holds it back.
    pub waiting: bool,
    /// Why.
    pub words: String,
    /// Members whose votes are not counted now.
    pub struck: BTreeSet<String>,
}

/// The whole picture, as answered to [`Request::Status`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusReply {
    /// Node that answers.
    pub me: String,
    /// Its mode.
    pub mode: Mode,
    /// Leader ("DC"), if known.
    pub leader: Option<String>,
    /// Consensus quorum: a majority of raft's voters.
    pub quorate: bool,
    /// Members whose votes make that majority, as of the last membership that this node knows to be committed.
    #[serde(default)]
    pub voters: BTreeSet<String>,
    /// Service quorum by the options of the CIB, where one is set (ADR-0019).
    #[serde(default)]
    pub votes: Option<VotesLine>,
    /// What it waits for, in words (`waiting for delta (wait_for_all) ...`), if anything.
    pub waiting: Option<String>,
    /// How it stands with its peer and the generations of the cluster, in words (ADR-0010).
    #[serde(default)]
    pub standing: String,
    /// The generations after the founding, oldest first, a sentence each.
    #[serde(default)]
    pub generations: Vec<String>,
    /// crm's version.
    pub version: String,
    /// Nodes.
    pub nodes: BTreeMap<String, NodeLine>,
    /// Members that vote only, and whether their heartbeats arrive.
    #[serde(default)]
    pub witnesses: BTreeMap<String, bool>,
    /// CIB, status, revisions (the last one only).
    pub state: State,
    /// Plan made from the state now, by this node (what is pending, and the reasons).
    pub plan: Plan,
    /// A transition is being executed.
    pub busy: bool,
    /// Wall clock of the answer, milliseconds.
    pub now_ms: u64,
}

impl StatusReply {
    /// Resources may run here: a majority of raft's, and the votes that the options ask for.
    #[must_use]
    pub fn may_run(&self) -> bool {
        self.quorate && self.votes.as_ref().is_none_or(|votes| votes.quorate)
    }
}

/// Two lines that have parted: what `crm cluster merge` shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Divergence {
    /// This node's.
    pub ours: Line,
    /// The other one.
    pub theirs: Line,
    /// How many generations are common.
    pub common: usize,
    /// The last revision that both have, if it is kept on both sides.
    pub base: Option<Revision>,
}

/// A request to crmd. What other users than root and the daemon's own may ask: [`crate::role::Role::needed`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// The whole picture.
    Status,
    /// CIB and its version only.
    Cib,
    /// Replace the CIB (compare-and-set on the version).
    Commit {
        /// Version it was made from.
        base: u64,
        /// New CIB.
        cib: Box<Cib>,
        /// Which command.
        message: String,
    },
    /// Small edits.
    Edit {
        /// Edits.
        edits: Vec<Edit>,
        /// Which command.
        message: String,
    },
    /// Forget failures and probe again.
    Cleanup {
        /// Primitive id; `None` = all with failures.
        resource: Option<String>,
        /// Node; `None` = all.
        node: Option<String>,
    },
    /// Waits until the plan is empty and nothing runs (idle), or the timeout; answers [`Reply::Waited`].
    WaitIdle {
        /// CIB version that must have been reached.
        version: u64,
        /// Limit in milliseconds.
        timeout_ms: u64,
    },
    /// Set or remove a transient attribute of this node (`crm_attribute -l reboot`, `crm_master`).
    SetAttr {
        /// Name.
        name: String,
        /// Value; `None` removes.
        value: Option<String>,
    },
    /// Read a transient attribute, or a permanent one of the node.
    GetAttr {
        /// Node; `None` = this one.
        node: Option<String>,
        /// Name.
        name: String,
    },
    /// Make a join token.
    Token {
        /// Lifetime in seconds.
        ttl_s: u64,
    },
    /// One revision of the CIB.
    Revision {
        /// Version.
        version: u64,
    },
    /// Fence a node, or say that it is off; answered with [`Reply::Fenced`] when it has ended, with [`Reply::Waited`] after the limit.
    Fence {
        /// What.
        request: FenceRequest,
        /// Limit in milliseconds.
        timeout_ms: u64,
    },
    /// Devices, and what came of fencing.
    Fencing,
    /// Go on without the other voters (ADR-0010).
    Force {
        /// Though they may live and have gone on themselves.
        accept_divergence: bool,
    },
    /// The line that has parted from this node's, and the base that both have.
    Divergence,
    /// Keep this node's line: commit what comes of both configurations, and have the other side give its line up (ADR-0016).
    Merge {
        /// CIB version of this side that the merge was made from.
        base: u64,
        /// CIB version of the other side.
        theirs: u64,
        /// What comes of both.
        cib: Box<Cib>,
        /// Which command.
        message: String,
    },
    /// Ask a fence device something on this node that does nobody any harm (`monitor`, `status`, `list`).
    FenceCheck {
        /// What.
        task: Task,
        /// Limit in milliseconds.
        timeout_ms: u64,
    },
    /// Remove a node from the cluster for good.
    RemoveNode {
        /// Which.
        node: String,
        /// It is off, and what it was last known to run does not count.
        force: bool,
    },
    /// This node leaves the cluster; its daemon ends.
    Leave,
    /// Give a node a new key and certificate.
    Renew {
        /// Which.
        node: String,
    },
    /// Give the node that is asked other addresses.
    Relocate {
        /// The node that is meant: refused by any other one.
        node: String,
        /// `HOST:PORT` of its first link.
        address: String,
        /// `HOST:PORT` of each further one.
        links: Vec<String>,
    },
    /// End the wait of `wait_for_all` on this node.
    CancelWait,
    /// Disarm the cluster for a time, or (`None`) arm it again.
    Disarm {
        /// How long, in milliseconds.
        for_ms: Option<u64>,
        /// Why.
        reason: String,
    },
    /// Volumes as this node's blockd sees them.
    Volumes,
    /// Pass a request to this node's blockd.
    Block(crate::block::Request),
    /// Stream: a [`Reply::Status`] now and after every change.
    Watch,
}

/// A reply of crmd.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// Picture.
    Status(Box<StatusReply>),
    /// CIB.
    Cib {
        /// Version.
        version: u64,
        /// CIB.
        cib: Box<Cib>,
    },
    /// What a change came to.
    Outcome(Outcome),
    /// Wait is over.
    Waited {
        /// Idle reached (false: time is up).
        idle: bool,
    },
    /// Attribute's value.
    Attr(Option<String>),
    /// Token.
    Token(String),
    /// A revision; `None` = not kept any more.
    Revision(Option<Box<Revision>>),
    /// Fencing that was asked for has ended.
    Fenced(Box<Record>),
    /// Devices, and what came of fencing.
    Fencing {
        /// Which devices reach which nodes.
        coverage: Coverage,
        /// Nodes that are being fenced.
        pending: BTreeSet<String>,
        /// What has ended.
        history: Box<History>,
    },
    /// What a fence device said.
    FenceAnswer(Answer),
    /// The other line.
    Divergence(Box<Divergence>),
    /// Done; in words.
    Said(String),
    /// blockd's answer.
    Block(crate::block::Reply),
    /// Not possible now; the reason, and the command that mends it.
    Refused {
        /// Why.
        why: String,
        /// What to do.
        remedy: String,
    },
}
