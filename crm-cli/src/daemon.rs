//! The other end: `crmd` behind its socket, or (in tests) the replicated state itself.

use crate::fail::{Fail, version_of};
use crm_core::cib::Cib;
use crm_core::fencing::{Answer, Coverage, History, Record, Task};
use crm_core::store::{Edit, FenceRequest, Outcome, Revision};
use crm_proto::line::{CallError, Line};
use crm_proto::local::{Divergence, Reply, Request, StatusReply};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

/// Longest wait for an answer that needs no waiting on the other side. A commit needs a majority to write it down.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);

/// How long a fence device may take to say how it is, in milliseconds.
const DEVICE_LIMIT_MS: u64 = 30_000;

/// Who answers requests.
pub(crate) trait Daemon {
    /// One request, one reply.
    fn call(&mut self, request: &Request) -> Result<Reply, CallError>;
    /// Sends a request whose reply is a stream; `each` says whether to go on.
    fn stream(
        &mut self,
        request: &Request,
        each: &mut dyn FnMut(Reply) -> bool,
    ) -> Result<(), CallError>;
}

/// `crmd` behind its socket.
#[derive(Debug)]
pub(crate) struct Socket {
    path: PathBuf,
}

impl Socket {
    /// The daemon of this node.
    pub(crate) fn here() -> Self {
        Self { path: crm_proto::local::socket_path() }
    }
}

impl Daemon for Socket {
    fn call(&mut self, request: &Request) -> Result<Reply, CallError> {
        let extra = match request {
            Request::WaitIdle { timeout_ms, .. } | Request::Fence { timeout_ms, .. } => {
                Duration::from_millis(*timeout_ms)
            }
            Request::FenceCheck { timeout_ms, .. } => Duration::from_millis(*timeout_ms),
            _ => Duration::ZERO,
        };
        Line::call(&self.path, Some(ANSWER_LIMIT + extra), request)
    }

    fn stream(
        &mut self,
        request: &Request,
        each: &mut dyn FnMut(Reply) -> bool,
    ) -> Result<(), CallError> {
        let mut line = Line::connect(&self.path, None)?;
        line.send(request)?;
        loop {
            match line.receive() {
                Ok(reply) => {
                    if !each(reply) {
                        return Ok(());
                    }
                }
                Err(CallError::Closed) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }
}

impl dyn Daemon + '_ {
    fn ask(&mut self, request: &Request) -> Result<Reply, Fail> {
        match self.call(request)? {
            Reply::Refused { why, remedy } => Err(Fail::Refused { why, remedy }),
            reply => Ok(reply),
        }
    }

    /// The whole picture.
    pub(crate) fn status(&mut self) -> Result<Box<StatusReply>, Fail> {
        match self.ask(&Request::Status)? {
            Reply::Status(status) => Ok(status),
            other => Err(unexpected(&other)),
        }
    }

    /// The CIB and its version.
    pub(crate) fn cib(&mut self) -> Result<(u64, Cib), Fail> {
        match self.ask(&Request::Cib)? {
            Reply::Cib { version, cib } => Ok((version, *cib)),
            other => Err(unexpected(&other)),
        }
    }

    /// A revision of the CIB, if it is still kept.
    pub(crate) fn revision(&mut self, version: u64) -> Result<Option<Box<Revision>>, Fail> {
        match self.ask(&Request::Revision { version })? {
            Reply::Revision(revision) => Ok(revision),
            other => Err(unexpected(&other)),
        }
    }

    /// A request that changes something; what it came to.
    pub(crate) fn change(&mut self, request: &Request) -> Result<Outcome, Fail> {
        match self.ask(request)? {
            Reply::Outcome(outcome) => Ok(outcome),
            other => Err(unexpected(&other)),
        }
    }

    /// Small edits; the version that they made.
    pub(crate) fn edit(&mut self, edits: Vec<Edit>, message: String) -> Result<u64, Fail> {
        version_of(self.change(&Request::Edit { edits, message })?)
    }

    /// Waits until the cluster is idle at `version` or later; false when the time is up.
    pub(crate) fn wait_idle(&mut self, version: u64, timeout_ms: u64) -> Result<bool, Fail> {
        match self.ask(&Request::WaitIdle { version, timeout_ms })? {
            Reply::Waited { idle } => Ok(idle),
            other => Err(unexpected(&other)),
        }
    }

    /// Fences a node, or says that it is off. `None`: it has not ended in time.
    pub(crate) fn fence(
        &mut self,
        request: FenceRequest,
        timeout_ms: u64,
    ) -> Result<Option<Record>, Fail> {
        match self.ask(&Request::Fence { request, timeout_ms })? {
            Reply::Fenced(record) => Ok(Some(*record)),
            Reply::Waited { .. } => Ok(None),
            other => Err(unexpected(&other)),
        }
    }

    /// Devices, nodes that are being fenced, and what came of fencing.
    pub(crate) fn fencing(&mut self) -> Result<(Coverage, BTreeSet<String>, History), Fail> {
        match self.ask(&Request::Fencing)? {
            Reply::Fencing { coverage, pending, history } => Ok((coverage, pending, *history)),
            other => Err(unexpected(&other)),
        }
    }

    /// Asks a fence device something that does nobody any harm.
    pub(crate) fn check_device(&mut self, task: Task) -> Result<Answer, Fail> {
        match self.ask(&Request::FenceCheck { task, timeout_ms: DEVICE_LIMIT_MS })? {
            Reply::FenceAnswer(answer) => Ok(answer),
            other => Err(unexpected(&other)),
        }
    }

    /// A request that is answered in words.
    pub(crate) fn done(&mut self, request: &Request) -> Result<String, Fail> {
        match self.ask(request)? {
            Reply::Said(words) => Ok(words),
            other => Err(unexpected(&other)),
        }
    }

    /// This line, and the one that has parted from it.
    pub(crate) fn divergence(&mut self) -> Result<Box<Divergence>, Fail> {
        match self.ask(&Request::Divergence)? {
            Reply::Divergence(lines) => Ok(lines),
            other => Err(unexpected(&other)),
        }
    }

    /// Volumes as this node's blockd sees them.
    pub(crate) fn volumes(&mut self) -> Result<Vec<crm_proto::block::VolumeStatus>, Fail> {
        match self.block(&Request::Volumes)? {
            crm_proto::block::Reply::Status(volumes) => Ok(volumes),
            crm_proto::block::Reply::Ok => Ok(Vec::new()),
            crm_proto::block::Reply::Refused { why, .. } => Err(Fail::refused(why)),
        }
    }

    /// A request that blockd answers.
    pub(crate) fn block(&mut self, request: &Request) -> Result<crm_proto::block::Reply, Fail> {
        match self.ask(request)? {
            Reply::Block(reply) => Ok(reply),
            other => Err(unexpected(&other)),
        }
    }

    /// A token with which a node may join.
    pub(crate) fn token(&mut self, ttl_s: u64) -> Result<String, Fail> {
        match self.ask(&Request::Token { ttl_s })? {
            Reply::Token(token) => Ok(token),
            other => Err(unexpected(&other)),
        }
    }
}

fn unexpected(reply: &Reply) -> Fail {
    let kind = match reply {
        Reply::Status(_) => "a status",
        Reply::Cib { .. } => "a CIB",
        Reply::Outcome(_) => "an outcome",
        Reply::Waited { .. } => "the end of a wait",
        Reply::Attr(_) => "an attribute",
        Reply::Token(_) => "a token",
        Reply::Revision(_) => "a revision",
        Reply::Fenced(_) => "the end of fencing",
        Reply::Fencing { .. } => "what is known of fencing",
        Reply::FenceAnswer(_) => "a fence device's answer",
        Reply::Divergence(_) => "two lines",
        Reply::Said(_) => "words",
        Reply::Block(_) => "blockd's answer",
        Reply::Refused { .. } => "a refusal",
    };
    Fail::Broken(anyhow::anyhow!("crmd answered with {kind}, which fits no question asked"))
}
