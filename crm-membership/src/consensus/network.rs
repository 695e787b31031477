//! Raft's calls to its peers, over the peer API. Every call names its sender, its target, the cluster and
//! the greeting.

use super::{Peer, Snapshot, SnapshotMeta, Types, Vote};
use crate::departure;
use crate::site::Site;
use crm_proto::pb;
use crm_quorum::takeover::Call;
use openraft::async_runtime::WatchReceiver;
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

pub(crate) const APPEND: u32 = 1;
pub(crate) const VOTE: u32 = 2;
pub(crate) const PRE_VOTE: u32 = 3;
pub(crate) const SNAPSHOT: u32 = 4;
pub(crate) const TRANSFER: u32 = 5;
pub(crate) const REJOIN: u32 = 6;
pub(crate) const HELLO: u32 = 7;
/// Largest message: a snapshot travels in one.
pub(crate) const MESSAGE_MAX: usize = 64 << 20;
/// Bytes per microsecond that even a slow link moves: a big call gets that much more time.
const SLOW_LINK: usize = 5;
/// A snapshot is bigger than the other calls: it gets at least this long.
const SNAPSHOT_LIMIT: Duration = Duration::from_secs(10);
const REJOIN_LIMIT: Duration = Duration::from_secs(2);

/// Makes connections for raft.
#[derive(Debug, Clone)]
pub(crate) struct Network(pub(crate) Arc<Site>);

/// Calls to one peer.
#[derive(Debug)]
pub(crate) struct Connection {
    site: Arc<Site>,
    target: u64,
    peer: Peer,
}

impl RaftNetworkFactory<Types> for Network {
    type Network = Connection;

    async fn new_client(&mut self, target: u64, peer: &Peer) -> Connection {
        Connection { site: Arc::clone(&self.0), target, peer: peer.clone() }
    }
}

fn unreachable(why: &(impl std::error::Error + 'static)) -> RPCError<Types> {
    RPCError::Unreachable(Unreachable::new(why))
}

fn failed(why: &(impl std::error::Error + 'static)) -> RPCError<Types> {
    RPCError::Network(NetworkError::new(why))
}

/// What kind of call it is for the takeover.
pub(crate) const fn call_of(kind: u32) -> Option<Call> {
    Some(match kind {
        APPEND => Call::Append,
        VOTE => Call::Vote,
        PRE_VOTE => Call::PreVote,
        SNAPSHOT => Call::Snapshot,
        TRANSFER => Call::Transfer,
        HELLO => Call::Heartbeat,
        _ => return None,
    })
}

/// Tells a peer of our generations and hears of its own, also by a refusal: raft does not call a node that is not in
/// its membership.
pub(crate) async fn greet(site: &Arc<Site>, target: u64, peer: Peer) {
    let connection = Connection { site: Arc::clone(site), target, peer };
    let met: Result<(), _> = connection.call(HELLO, &(), REJOIN_LIMIT).await;
    if let Err(error) = met {
        tracing::debug!(%error, target, "greeted");
    }
}

/// Asks to be taken back as a voter: what we have missed comes then.
pub(crate) async fn rejoin(site: &Arc<Site>, raft: &super::Raft, of: u64) -> Result<(), String> {
    let peer = site.members().remove(&of).ok_or("it is no member")?;
    let empty = raft.metrics().borrow_watched().last_log_index.is_none();
    let connection = Connection { site: Arc::clone(site), target: of, peer };
    let asked: Result<(), _> = connection.call(REJOIN, &empty, REJOIN_LIMIT).await;
    asked.map_err(|e| e.to_string())
}

impl Connection {
    /// The peer is off, and this node goes on without it: it answers for it (ADR-0010).
    fn is_ghost(&self) -> bool {
        self.site.succession.is_ghost(self.target)
    }

    async fn call<Q: Serialize + Sync, R: DeserializeOwned>(
        &self,
        kind: u32,
        question: &Q,
        limit: Duration,
    ) -> Result<R, RPCError<Types>> {
        let (site, call) = (&self.site, call_of(kind).unwrap_or(Call::Rejoin { empty: false }));
        if matches!(kind, VOTE | PRE_VOTE) && !site.succession.brief().may_elect {
            return Err(unreachable(&io::Error::other("this node may not be elected")));
        }
        let (channel, link) = site.line(self.target, &self.peer).map_err(|e| unreachable(&e))?;
        let envelope = pb::Raft {
            kind,
            from: self.site.settings.raft_id,
            to: self.target,
            cluster: self.site.settings.cluster.uuid.clone(),
            body: postcard::to_stdvec(question).map_err(|e| failed(&e))?,
            quorate: self.site.is_leading(),
        };
        let size = u64::try_from(envelope.body.len() / SLOW_LINK).unwrap_or(u64::MAX);
        let limit = limit + Duration::from_micros(size);
        let mut client = pb::peer_client::PeerClient::new(channel)
            .max_decoding_message_size(MESSAGE_MAX)
            .max_encoding_message_size(MESSAGE_MAX);
        let question = site.greet(self.target, envelope).map_err(|e| unreachable(&e))?;
        let answer = tokio::time::timeout(limit, client.raft(question))
            .await
            .inspect_err(|_| site.doubt(self.target, link))
            .map_err(|late| failed(&late))?;
        if answer.as_ref().is_err_and(|status| status.code() == tonic::Code::Unavailable) {
            site.doubt(self.target, link);
        }
        let answer = site.met(call, self.target, answer);
        let answer =
            answer.inspect_err(|status| departure::heed(site, status)).map_err(|status| {
                match status.code() {
                    tonic::Code::Unavailable
                    | tonic::Code::FailedPrecondition
                    | tonic::Code::PermissionDenied
                    | tonic::Code::Unauthenticated => unreachable(&status),
                    _ => failed(&status),
                }
            })?;
        postcard::from_bytes(&answer.body).map_err(|e| failed(&e))
    }
}

impl RaftNetworkV2<Types> for Connection {
    type SnapshotData = super::SnapshotData;

    async fn append_entries(
        &mut self,
        question: AppendEntriesRequest<Types>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<Types>, RPCError<Types>> {
        if self.is_ghost() {
            return Ok(AppendEntriesResponse::Success);
        }
        self.call(APPEND, &question, option.soft_ttl()).await
    }

    async fn vote(
        &mut self,
        question: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        if self.is_ghost() {
            return Ok(VoteResponse::new(question.vote, None, true));
        }
        self.call(VOTE, &question, option.soft_ttl()).await
    }

    async fn pre_vote(
        &mut self,
        question: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        if self.is_ghost() {
            return Ok(VoteResponse::new(question.vote, None, true));
        }
        self.call(PRE_VOTE, &question, option.soft_ttl()).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + openraft::OptionalSend + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        if self.is_ghost() {
            return Ok(SnapshotResponse::new(vote));
        }
        let question: (Vote, SnapshotMeta, Vec<u8>) =
            (vote, snapshot.meta, snapshot.snapshot.into_inner());
        let call = self.call(SNAPSHOT, &question, option.hard_ttl().max(SNAPSHOT_LIMIT));
        tokio::select! {
            biased;
            closed = cancel => Err(StreamingError::Closed(closed)),
            answer = call => answer.map_err(|error| match error {
                RPCError::Unreachable(e) => StreamingError::Unreachable(e),
                RPCError::Network(e) => StreamingError::Network(e),
                RPCError::Timeout(e) => StreamingError::Timeout(e),
                RPCError::RemoteError(e) => StreamingError::Unreachable(Unreachable::new(&e)),
            }),
        }
    }

    async fn transfer_leader(
        &mut self,
        question: TransferLeaderRequest<Types>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<Types>, RPCError<Types>> {
        self.call(TRANSFER, &question, option.soft_ttl()).await
    }
}
