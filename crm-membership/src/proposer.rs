//! Gets things done by the leader: here when we lead, over the peer API otherwise, again after a change
//! of leader. A proposal keeps its id over its retries and is applied once.

use crate::consensus::{Peer, Raft, Request};
use crate::settings::Seat;
use crate::site::Site;
use crm_core::store::{Command, Outcome};
use crm_proto::pb;
use crm_quorum::takeover::{Call, Service};
use openraft::ChangeMembers;
use openraft::async_runtime::{RecvError, WatchReceiver};
use openraft::errors::{ClientWriteError, RaftError};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;
use tokio::time::Instant;
use uuid::Uuid;

/// How long a proposal may take before its proposer is told that it did not work out.
pub(crate) const LIMIT: Duration = Duration::from_secs(6);

/// Why a proposal has no outcome.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ProposeError {
    /// Nobody leads with a quorum: nothing was changed.
    #[error("no leader with a quorum was found; nothing was changed")]
    NoLeader {
        /// Who led last, as far as known here.
        last: Option<String>,
    },
    /// No answer in time: it may be done or not.
    #[error("no answer from the leader in time; the change may still happen")]
    Timeout,
    /// The command cannot be sent.
    #[error("the command cannot be sent: {why}")]
    Invalid {
        /// Why.
        why: String,
    },
    /// This node's consensus has stopped for good.
    #[error("consensus on this node has stopped: {why}")]
    Stopped {
        /// Why.
        why: String,
    },
}

/// Something that only the leader can do.
#[derive(Debug, Clone)]
pub(crate) enum Ask {
    /// Write a command.
    Write(Request),
    /// Allocate a raft id: the index of an entry of its own.
    AllocateId,
    /// Add a learner.
    AddLearner(Seat),
}

/// The leader's answer.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) outcome: Option<Outcome>,
    pub(crate) index: u64,
}

/// How one attempt ended.
#[derive(Debug)]
pub(crate) enum Attempt {
    Done(Answer),
    /// Refused before anything was written.
    NotLeader(Option<String>),
    /// Sent, and no answer: it may happen or not.
    Unknown(String),
    Invalid(String),
    Stopped(String),
}

/// Proposes for one node. Clones share it.
#[derive(Clone)]
pub(crate) struct Proposer {
    pub(crate) site: Arc<Site>,
    pub(crate) raft: Raft,
}

impl Proposer {
    /// Proposes a command and waits until it is applied here as well.
    pub(crate) async fn propose(&self, command: &Command) -> Result<Outcome, ProposeError> {
        let state = self.site.machine.states().borrow().clone();
        state.may_propose(command).map_err(|why| ProposeError::Invalid { why })?;
        let command = serde_json::to_vec(command)
            .map_err(|e| ProposeError::Invalid { why: e.to_string() })?;
        let answer = self.ask(&Ask::Write(Request::of(command))).await?;
        let why = "the leader gave no outcome".to_owned();
        answer.outcome.ok_or(ProposeError::Invalid { why })
    }

    /// Tries until it is done or [`LIMIT`] is over.
    pub(crate) async fn ask(&self, ask: &Ask) -> Result<Answer, ProposeError> {
        let deadline = Instant::now() + LIMIT;
        let mut unknown = false;
        let mut last = None;
        let mut metrics = self.raft.metrics();
        while Instant::now() < deadline {
            match self.attempt(ask, deadline).await {
                Attempt::Done(answer) => {
                    self.applied_here(answer.index, deadline).await;
                    return Ok(answer);
                }
                Attempt::NotLeader(leader) => last = leader.or(last),
                Attempt::Unknown(why) => {
                    tracing::debug!(why, "proposal without an answer: trying again");
                    unknown = true;
                }
                Attempt::Invalid(why) => return Err(ProposeError::Invalid { why }),
                Attempt::Stopped(why) => return Err(ProposeError::Stopped { why }),
            }
            // Another leader, or an interval at most: a lease comes back without news. Other news of raft do not count: a leader whose
            // lease is over makes some with every proposal that it refuses, and this would turn round and round.
            let pause = Duration::from_millis(self.site.settings.profile.timing().interval_ms) / 4;
            let tried = metrics.borrow_watched().current_leader;
            let news = async {
                while metrics.borrow_watched().current_leader == tried {
                    metrics.changed().await?;
                }
                Ok(())
            };
            if let Ok(Err::<(), RecvError>(_)) = tokio::time::timeout(pause, news).await {
                let why = "it was shut down".to_owned();
                return Err(ProposeError::Stopped { why });
            }
        }
        if unknown { Err(ProposeError::Timeout) } else { Err(ProposeError::NoLeader { last }) }
    }

    async fn attempt(&self, ask: &Ask, deadline: Instant) -> Attempt {
        // One attempt may hang on a dead leader: leave time for another.
        let patience = Duration::from_millis(self.site.settings.profile.timing().dead_after_ms) * 2;
        let limit = patience.min(deadline.saturating_duration_since(Instant::now()));
        let me = self.site.settings.raft_id;
        let leader = self.raft.metrics().borrow_watched().current_leader;
        match leader {
            None => Attempt::NotLeader(None),
            Some(id) if id == me => match tokio::time::timeout(limit, self.here(ask)).await {
                Ok(attempt) => attempt,
                Err(_) => Attempt::Unknown("no quorum answered".to_owned()),
            },
            Some(id) => match self.site.members().remove(&id) {
                None => Attempt::NotLeader(None),
                Some(peer) => self.there(id, &peer, ask, limit).await,
            },
        }
    }

    /// Does it here, if we lead.
    pub(crate) async fn here(&self, ask: &Ask) -> Attempt {
        if self.site.succession.brief().service != Service::Full {
            return Attempt::NotLeader(None);
        }
        let result = match ask {
            Ask::Write(request) => self.raft.client_write(request.clone()).await,
            Ask::AllocateId => self.raft.write_blank().await,
            Ask::AddLearner(seat) => {
                let peer = Peer { name: seat.name.clone(), address: seat.address.clone() };
                let nodes = BTreeMap::from([(seat.raft_id, peer)]);
                self.raft.change_membership(ChangeMembers::AddNodes(nodes), true).await
            }
        };
        match result {
            Ok(response) => Attempt::Done(Answer {
                index: response.log_id.index,
                outcome: response.data.outcome,
            }),
            Err(RaftError::Fatal(fatal)) => Attempt::Stopped(fatal.to_string()),
            Err(RaftError::APIError(error)) => match error {
                ClientWriteError::ForwardToLeader(to) => {
                    Attempt::NotLeader(to.leader_node.map(|peer| peer.name))
                }
                ClientWriteError::LogEntryDiscarded(_) => {
                    Attempt::Unknown("the leader changed meanwhile".to_owned())
                }
                // Another membership change is under way: it may work the next time.
                ClientWriteError::ChangeMembershipError(error) => {
                    tracing::debug!(%error, "membership change refused for now");
                    Attempt::NotLeader(None)
                }
                ClientWriteError::PreconditionFailed(error) => Attempt::Invalid(error.to_string()),
            },
        }
    }

    async fn there(&self, id: u64, peer: &Peer, ask: &Ask, limit: Duration) -> Attempt {
        let (channel, link) = match self.site.line(id, peer) {
            Ok(line) => line,
            Err(error) => return Attempt::Invalid(error.to_string()),
        };
        let question = match ask.to_wire() {
            Ok(question) => question,
            Err(error) => return Attempt::Invalid(error.to_string()),
        };
        let question = match self.site.greet(id, question) {
            Ok(question) => question,
            Err(status) => return refused(&status),
        };
        let mut client = pb::peer_client::PeerClient::new(channel)
            .max_encoding_message_size(crate::consensus::network::MESSAGE_MAX);
        let call = async {
            tokio::select! {
                biased;
                answer = client.propose(question) => Some(answer),
                () = self.site.cut(&peer.name, link) => None,
            }
        };
        let answer = match tokio::time::timeout(limit, call).await {
            Ok(None) => return Attempt::Unknown(format!("the link to `{}` is down", peer.name)),
            Err(_) => {
                self.site.doubt(id, link);
                return Attempt::Unknown(format!("`{}` did not answer", peer.name));
            }
            Ok(Some(answer)) => match self.site.met(Call::Write, id, answer) {
                Ok(answer) => answer,
                Err(status) => return refused(&status),
            },
        };
        if answer.not_leader {
            return Attempt::NotLeader((!answer.leader.is_empty()).then_some(answer.leader));
        }
        if answer.body.is_empty() {
            return Attempt::Done(Answer { outcome: None, index: answer.index });
        }
        match serde_json::from_slice(&answer.body) {
            Ok(outcome) => Attempt::Done(Answer { outcome: Some(outcome), index: answer.index }),
            Err(error) => Attempt::Invalid(format!("the answer of `{}`: {error}", peer.name)),
        }
    }

    /// A proposer who has his answer finds it in the local state; a slow state is no failure.
    async fn applied_here(&self, index: u64, deadline: Instant) {
        let mut applied = self.site.machine.applied();
        let wait = applied.wait_for(|applied| *applied >= index);
        match tokio::time::timeout_at(deadline, wait).await {
            Ok(Ok(_)) => {}
            Ok(Err(_)) => tracing::debug!("the state machine is gone"),
            Err(_) => tracing::warn!(index, "an accepted change is not applied here yet"),
        }
    }
}

/// What a failed call means. Only errors that are certain to come before the call count as "not done".
fn refused(status: &tonic::Status) -> Attempt {
    match status.code() {
        tonic::Code::InvalidArgument => Attempt::Invalid(status.message().to_owned()),
        tonic::Code::Unavailable if never_connected(status) => Attempt::NotLeader(None),
        tonic::Code::PermissionDenied | tonic::Code::FailedPrecondition => Attempt::NotLeader(None),
        _ => Attempt::Unknown(status.to_string()),
    }
}

/// Whether a call failed before there was a connection to send it on.
fn never_connected(status: &tonic::Status) -> bool {
    let mut cause = std::error::Error::source(status);
    while let Some(error) = cause {
        if error.is::<tonic::ConnectError>() {
            return true;
        }
        cause = error.source();
    }
    false
}

impl Ask {
    fn to_wire(&self) -> Result<pb::Propose, serde_json::Error> {
        Ok(match self {
            Self::Write(request) => {
                pb::Propose { body: request.command.clone(), id: request.id.to_string(), kind: 0 }
            }
            Self::AllocateId => pb::Propose { body: Vec::new(), id: String::new(), kind: 1 },
            Self::AddLearner(seat) => {
                pb::Propose { body: serde_json::to_vec(seat)?, id: String::new(), kind: 2 }
            }
        })
    }

    /// Reads what a peer asks for, and refuses what this node would not understand in the log.
    pub(crate) fn from_wire(question: pb::Propose) -> Result<Self, String> {
        match question.kind {
            0 => {
                let id = Uuid::parse_str(&question.id).map_err(|e| e.to_string())?;
                serde_json::from_slice::<Command>(&question.body).map_err(|e| e.to_string())?;
                Ok(Self::Write(Request { id, ..Request::of(question.body) }))
            }
            1 => Ok(Self::AllocateId),
            2 => serde_json::from_slice(&question.body)
                .map(Self::AddLearner)
                .map_err(|e| e.to_string()),
            other => Err(format!("unknown kind {other}")),
        }
    }
}
