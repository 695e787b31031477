//! The two services on the cluster port. `Peer` is for members with their certificate; `Join` is for
//! newcomers with a token.

use crate::admission::Admission;
use crate::bootstrap::chain_of;
use crate::consensus::{Snapshot, SnapshotMeta, Types, Vote, network};
use crate::departure;
use crate::handle::{FenceWork, Incoming};
use crate::knock;
use crate::merge;
use crate::proposer::{Ask, Attempt, Proposer};
use crate::renewal;
use crate::site::{LeaderSign, Site};
use crm_proto::pb;
use crm_quorum::takeover::Call;
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse};
use openraft::vote::RaftLeaderId;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tonic::{Request, Response, Status};

/// A node that does not say within this whether it takes an order has refused it.
const ORDER_LIMIT: Duration = Duration::from_secs(5);

/// Answers the members.
pub(crate) struct PeerService {
    pub(crate) proposer: Proposer,
    pub(crate) orders: mpsc::Sender<Incoming>,
    pub(crate) fencing: mpsc::Sender<FenceWork>,
    pub(crate) admission: Arc<Admission>,
}

fn internal(error: impl std::fmt::Display) -> Status {
    Status::internal(error.to_string())
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Status> {
    postcard::from_bytes(body).map_err(|e| Status::invalid_argument(e.to_string()))
}

fn write<T: Serialize>(answer: &T) -> Result<Vec<u8>, Status> {
    postcard::to_stdvec(answer).map_err(internal)
}

impl PeerService {
    fn site(&self) -> &Site {
        &self.proposer.site
    }

    /// Raft id of the caller: his certificate names a member.
    fn caller<T>(&self, request: &Request<T>) -> Result<u64, Status> {
        let certificates = request
            .peer_certs()
            .ok_or_else(|| Status::unauthenticated("a member certificate is needed"))?;
        let certificate = certificates
            .first()
            .ok_or_else(|| Status::unauthenticated("a member certificate is needed"))?;
        departure::judge(self.site(), certificate)
    }

    /// The sender is who he says, means us, and is of our cluster.
    fn check(&self, caller: u64, envelope: &pb::Raft) -> Result<(), Status> {
        let settings = &self.site().settings;
        let refuse = |why: String| Err(Status::failed_precondition(why));
        if envelope.cluster != settings.cluster.uuid {
            return refuse(format!("this node is of cluster {}", settings.cluster.uuid));
        }
        if envelope.to != settings.raft_id {
            let (meant, mine) = (envelope.to, settings.raft_id);
            return refuse(format!("this node has raft id {mine}, not {meant}"));
        }
        if envelope.from != caller {
            let from = envelope.from;
            return refuse(format!("the certificate is of raft id {caller}, not {from}"));
        }
        Ok(())
    }

    async fn append(&self, envelope: &pb::Raft) -> Result<Vec<u8>, Status> {
        let question: AppendEntriesRequest<Types> = read(&envelope.body)?;
        let term = question.vote.leader_id.term();
        let answer = self.proposer.raft.append_entries(question).await.map_err(internal)?;
        let accepted = match &answer {
            AppendEntriesResponse::Success
            | AppendEntriesResponse::PartialSuccess(_)
            | AppendEntriesResponse::Conflict => true,
            AppendEntriesResponse::HigherVote(_) => false,
        };
        if accepted {
            self.site().leader_sign.send_replace(Some(LeaderSign {
                raft_id: envelope.from,
                term,
                at: Instant::now(),
                quorate: envelope.quorate,
            }));
        }
        write(&answer)
    }

    async fn snapshot(&self, envelope: &pb::Raft) -> Result<Vec<u8>, Status> {
        let (vote, meta, image): (Vote, SnapshotMeta, Vec<u8>) = read(&envelope.body)?;
        let snapshot = Snapshot { meta, snapshot: std::io::Cursor::new(image) };
        let raft = &self.proposer.raft;
        write(&raft.install_full_snapshot(vote, snapshot).await.map_err(internal)?)
    }
}

#[tonic::async_trait]
impl pb::peer_server::Peer for PeerService {
    async fn raft(&self, request: Request<pb::Raft>) -> Result<Response<pb::Raft>, Status> {
        let caller = self.caller(&request)?;
        self.site().reply(caller, self.serve_raft(caller, request).await)
    }

    async fn propose(
        &self,
        request: Request<pb::Propose>,
    ) -> Result<Response<pb::Proposed>, Status> {
        let caller = self.caller(&request)?;
        self.site().reply(caller, self.serve_proposal(caller, request).await)
    }

    async fn execute(
        &self,
        request: Request<pb::Execute>,
    ) -> Result<Response<pb::Accepted>, Status> {
        let caller = self.caller(&request)?;
        self.site().reply(caller, self.serve_order(caller, request).await)
    }

    async fn certify(
        &self,
        request: Request<pb::Certify>,
    ) -> Result<Response<pb::Certified>, Status> {
        let caller = self.caller(&request)?;
        self.site().reply(caller, self.serve_certificate(caller, request).await)
    }

    async fn fence(&self, request: Request<pb::Fence>) -> Result<Response<pb::Fenced>, Status> {
        let caller = self.caller(&request)?;
        self.site().reply(caller, self.serve_fencing(caller, request).await)
    }

    async fn knock(&self, request: Request<pb::Knock>) -> Result<Response<pb::Knocked>, Status> {
        let caller = self.caller(&request)?;
        self.site().reply(caller, self.serve_knock(caller, request).await)
    }

    async fn parley(&self, request: Request<pb::Parley>) -> Result<Response<pb::Parleyed>, Status> {
        let caller = self.caller(&request)?;
        self.site().reply(caller, self.serve_parley(caller, request).await)
    }
}

impl PeerService {
    async fn serve_raft(
        &self,
        caller: u64,
        request: Request<pb::Raft>,
    ) -> Result<pb::Raft, Status> {
        self.check(caller, request.get_ref())?;
        let call = match network::call_of(request.get_ref().kind) {
            Some(call) => call,
            None if request.get_ref().kind == network::REJOIN => {
                Call::Rejoin { empty: read(&request.get_ref().body)? }
            }
            None => {
                let kind = request.get_ref().kind;
                return Err(Status::unimplemented(format!("raft call of kind {kind}")));
            }
        };
        self.site().admit(call, caller, request.metadata())?;
        let envelope = request.into_inner();
        let raft = &self.proposer.raft;
        let body = match envelope.kind {
            network::APPEND => self.append(&envelope).await?,
            network::VOTE => write(&raft.vote(read(&envelope.body)?).await.map_err(internal)?)?,
            network::PRE_VOTE => {
                write(&raft.pre_vote(read(&envelope.body)?).await.map_err(internal)?)?
            }
            network::SNAPSHOT => self.snapshot(&envelope).await?,
            network::TRANSFER => {
                let question = read(&envelope.body)?;
                write(&raft.handle_transfer_leader(question).await.map_err(internal)?)?
            }
            _ => write(&())?,
        };
        Ok(pb::Raft {
            kind: envelope.kind,
            from: envelope.to,
            to: envelope.from,
            cluster: envelope.cluster,
            body,
            quorate: self.site().is_leading(),
        })
    }

    async fn serve_proposal(
        &self,
        caller: u64,
        request: Request<pb::Propose>,
    ) -> Result<pb::Proposed, Status> {
        self.site().admit(Call::Write, caller, request.metadata())?;
        let ask = Ask::from_wire(request.into_inner()).map_err(Status::invalid_argument)?;
        match self.proposer.here(&ask).await {
            Attempt::Done(answer) => {
                let outcome = answer.outcome.map(|o| serde_json::to_vec(&o)).transpose();
                Ok(pb::Proposed {
                    body: outcome.map_err(internal)?.unwrap_or_default(),
                    index: answer.index,
                    ..pb::Proposed::default()
                })
            }
            Attempt::NotLeader(leader) => Ok(pb::Proposed {
                not_leader: true,
                leader: leader.unwrap_or_default(),
                ..pb::Proposed::default()
            }),
            Attempt::Unknown(why) => Err(Status::unknown(why)),
            Attempt::Invalid(why) => Err(Status::invalid_argument(why)),
            Attempt::Stopped(why) => Err(Status::failed_precondition(why)),
        }
    }

    async fn serve_order(
        &self,
        caller: u64,
        request: Request<pb::Execute>,
    ) -> Result<pb::Accepted, Status> {
        self.site().admit(Call::Order, caller, request.metadata())?;
        let order = serde_json::from_slice(&request.into_inner().body)
            .map_err(|e| Status::invalid_argument(e.to_string()))?;
        let why = match give(&self.orders, order).await {
            Ok(()) => String::new(),
            Err(why) => why,
        };
        Ok(pb::Accepted { accepted: why.is_empty(), why })
    }

    async fn serve_certificate(
        &self,
        caller: u64,
        request: Request<pb::Certify>,
    ) -> Result<pb::Certified, Status> {
        self.site().admit(Call::Order, caller, request.metadata())?;
        let csr = request.into_inner().csr_pem;
        let done = if csr.is_empty() {
            renewal::renew(&self.proposer).await.map(|_| String::new())
        } else {
            let name = self.site().name_of(caller);
            let name = name.ok_or_else(|| Status::permission_denied("not a member any more"))?;
            renewal::sign_for(self.site(), &name, &csr)
        };
        Ok(match done {
            Ok(certificate_pem) => pb::Certified { certificate_pem, why: String::new() },
            Err(error) => pb::Certified { certificate_pem: String::new(), why: chain_of(&error) },
        })
    }

    async fn serve_knock(
        &self,
        caller: u64,
        request: Request<pb::Knock>,
    ) -> Result<pb::Knocked, Status> {
        self.site().admit(Call::Order, caller, request.metadata())?;
        let closed = knock::knock(&request.into_inner().addresses).await;
        Ok(pb::Knocked { closed })
    }

    async fn serve_parley(
        &self,
        caller: u64,
        request: Request<pb::Parley>,
    ) -> Result<pb::Parleyed, Status> {
        self.site().admit(Call::Parley, caller, request.metadata())?;
        let what = serde_json::from_slice(&request.into_inner().body)
            .map_err(|e| Status::invalid_argument(e.to_string()))?;
        let answer = merge::answer(&self.admission, caller, what).await;
        Ok(pb::Parleyed { body: serde_json::to_vec(&answer).map_err(internal)? })
    }

    async fn serve_fencing(
        &self,
        caller: u64,
        request: Request<pb::Fence>,
    ) -> Result<pb::Fenced, Status> {
        self.site().admit(Call::Order, caller, request.metadata())?;
        let call = serde_json::from_slice(&request.into_inner().body)
            .map_err(|e| Status::invalid_argument(e.to_string()))?;
        let (reply, answer) = oneshot::channel();
        self.fencing
            .try_send(FenceWork { call, reply })
            .map_err(|_| Status::unavailable("the node is not ready to run fence agents"))?;
        let answer = answer.await.map_err(|_| Status::aborted("the node's daemon ends"))?;
        let body = serde_json::to_vec(&answer).map_err(internal)?;
        Ok(pb::Fenced { body })
    }
}

/// Hands an order to this node's controller and waits for its word.
pub(crate) async fn give(
    orders: &mpsc::Sender<Incoming>,
    order: crm_proto::peer::Order,
) -> Result<(), String> {
    let (reply, answer) = oneshot::channel();
    orders
        .try_send(Incoming { order, reply })
        .map_err(|_| "the node is not ready to take orders".to_owned())?;
    match tokio::time::timeout(ORDER_LIMIT, answer).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(_)) => Err("the node dropped the order".to_owned()),
        Err(_) => Err("the node did not say whether it takes the order".to_owned()),
    }
}

/// Answers newcomers.
pub(crate) struct JoinService {
    pub(crate) admission: Arc<Admission>,
}

#[tonic::async_trait]
impl pb::join_server::Join for JoinService {
    async fn join(
        &self,
        request: Request<pb::JoinRequest>,
    ) -> Result<Response<pb::JoinReply>, Status> {
        let request = request.into_inner();
        let name = request.name.clone();
        match self.admission.admit(request).await {
            Ok(reply) => {
                tracing::info!(node = name, raft_id = reply.raft_id, "admitted");
                Ok(Response::new(reply))
            }
            Err(error) => {
                tracing::warn!(node = name, %error, "join request refused");
                Err(Status::failed_precondition(error.to_string()))
            }
        }
    }
}
