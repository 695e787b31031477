//! What the daemon holds of its membership: a [`Handle`].

use crate::admission::{Admission, AdmitError};
use crate::consensus::log::LogStore;
use crate::consensus::{Peer, voters_of};
use crate::departure;
use crate::heartbeat::{Heartbeats, LinkSeen, PeerHealth};
use crate::leadership::Leadership;
use crate::lease;
use crate::proposer::{ProposeError, Proposer};
use crate::relocation::{Doors, MoveError};
use crate::renewal::{self, RenewError};
use crate::server::give;
use crate::settings::Addresses;
use crate::succession::{Standing, new_id};
use crate::token::now_s;
use crate::votes::{Act, Votes};
use crm_core::fencing::Answer;
use crm_core::store::{Command, Member, MemberRole, Outcome, State};
use crm_proto::{pb, peer};
use crm_quorum::lineage::{Evidence, How};
use crm_quorum::takeover::{self, Call, Refused};
use openraft::async_runtime::WatchReceiver;
use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use thiserror::Error;
use tokio::sync::{mpsc, oneshot, watch};

/// How long an order may take to reach its node and be accepted.
const EXECUTE_LIMIT: Duration = Duration::from_secs(6);

/// Why a node did not take an order.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ExecuteError {
    /// No such member.
    #[error("`{node}` is not a member")]
    NoSuchNode {
        /// The node.
        node: String,
    },
    /// It refused.
    #[error("`{node}` refused the order: {why}")]
    Refused {
        /// The node.
        node: String,
        /// Why.
        why: String,
    },
    /// It did not answer: the order may have arrived or not.
    #[error("`{node}` cannot be reached: {why}")]
    Unreachable {
        /// The node.
        node: String,
        /// Why.
        why: String,
    },
}

/// An order for this node, with the place for its answer: taken, or why not.
#[derive(Debug)]
pub struct Incoming {
    /// The order.
    pub order: peer::Order,
    /// Whether it is taken.
    pub reply: oneshot::Sender<Result<(), String>>,
}

/// A run of a fence agent that another node wants. Called off when nobody listens to the answer any more.
#[derive(Debug)]
pub struct FenceWork {
    /// What.
    pub call: peer::FenceCall,
    /// For the answer.
    pub reply: oneshot::Sender<Answer>,
}

/// A link to another member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// The member's address on it.
    pub address: String,
    /// How it is.
    pub seen: LinkSeen,
    /// Calls go over it.
    pub in_use: bool,
}

/// The membership of this node. Clones share it.
#[derive(Clone)]
pub struct Handle(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) proposer: Proposer,
    /// What it listens on; a simulated node has none.
    pub(crate) doors: Option<Doors>,
    pub(crate) admission: Arc<Admission>,
    pub(crate) log: LogStore,
    pub(crate) heartbeats: Arc<Heartbeats>,
    pub(crate) leadership: watch::Receiver<Leadership>,
    pub(crate) failure: watch::Receiver<Option<String>>,
    pub(crate) votes: watch::Receiver<Option<Votes>>,
    pub(crate) acts: mpsc::UnboundedSender<Act>,
    pub(crate) inbox: mpsc::Sender<Incoming>,
    pub(crate) orders: Mutex<Option<mpsc::Receiver<Incoming>>>,
    pub(crate) fencing: Mutex<Option<mpsc::Receiver<FenceWork>>>,
    pub(crate) stop: watch::Sender<bool>,
    pub(crate) runtime: Mutex<Option<tokio::runtime::Runtime>>,
    pub(crate) tasks: Mutex<Vec<tokio::task::JoinHandle<()>>>,
}

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handle").field("node", &self.0.proposer.site.settings.name).finish()
    }
}

impl Drop for Inner {
    /// Without [`Handle::shutdown`] a node ends like one whose power fails.
    fn drop(&mut self) {
        self.heartbeats.fall_silent();
        let runtime = self.runtime.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(runtime) = runtime {
            runtime.shutdown_background();
        }
    }
}

impl Handle {
    /// Gives the leadership to a voter that is alive, so that nobody has to wait for an election.
    async fn hand_over(&self) {
        let site = &self.0.proposer.site;
        if !self.0.leadership.borrow().me_leader {
            return;
        }
        let raft = &self.0.proposer.raft;
        let voters: Vec<u64> = raft.voter_ids().collect();
        let peers = self.0.heartbeats.peers().borrow().clone();
        let state = site.machine.states().borrow().clone();
        let alive = |name: &String| peers.get(name).is_some_and(|health| health.alive);
        let fit = |(id, peer): &(u64, Peer)| voters.contains(id) && alive(&peer.name);
        // A witness only when nobody else is left.
        let heir = site
            .members()
            .into_iter()
            .filter(fit)
            .min_by_key(|(id, peer)| (state.is_witness(&peer.name), *id));
        let Some((heir, _)) = heir else { return };
        let mut metrics = raft.metrics();
        let handing = async {
            raft.trigger().transfer_leader(heir).await.map_err(|e| e.to_string())?;
            while metrics.borrow_watched().current_leader == Some(site.settings.raft_id) {
                metrics.changed().await.map_err(|e| e.to_string())?;
            }
            Ok::<(), String>(())
        };
        let limit = Duration::from_millis(site.settings.profile.timing().dead_after_ms);
        match tokio::time::timeout(limit, handing).await {
            Ok(Ok(())) => {}
            Ok(Err(why)) => tracing::warn!(why, "leadership not handed over"),
            Err(_) => tracing::warn!("leadership not handed over in time"),
        }
    }

    /// Says with the last beats that this node leaves, where votes are counted (`allow_downscale`).
    async fn leave_the_votes(&self) {
        let mut votes = self.votes();
        if votes.borrow().is_none() {
            return;
        }
        self.act(Act::Leave);
        let limit =
            Duration::from_millis(self.0.proposer.site.settings.profile.timing().dead_after_ms);
        let left = votes.wait_for(|votes| votes.as_ref().is_none_or(|votes| !votes.quorate));
        if tokio::time::timeout(limit, left).await.is_err() {
            tracing::warn!("the others are not told that this node leaves: its vote is missed");
        }
    }

    /// Proposes a command to the cluster, through the leader wherever it is. The state seen by
    /// [`Handle::state`] has the change when this returns.
    ///
    /// # Errors
    /// When nobody leads, the outcome is unknown, or consensus has stopped.
    pub async fn propose(&self, command: Command) -> Result<Outcome, ProposeError> {
        self.0.proposer.propose(&command).await
    }

    /// The replicated state, after each batch of changes.
    #[must_use]
    pub fn state(&self) -> watch::Receiver<Arc<State>> {
        self.0.proposer.site.machine.states()
    }

    /// Who leads, and whether with a quorum.
    #[must_use]
    pub fn leadership(&self) -> watch::Receiver<Leadership> {
        self.0.leadership.clone()
    }

    /// Service quorum by the options of the CIB (ADR-0019); `None` while none is set: then a majority of raft's is all there is.
    #[must_use]
    pub fn votes(&self) -> watch::Receiver<Option<Votes>> {
        self.0.votes.clone()
    }

    /// Ends the wait of `wait_for_all` on this node: an administrator says that those who are missing are off.
    pub fn cancel_wait(&self) {
        self.act(Act::CancelWait);
    }

    fn act(&self, act: Act) {
        if self.0.acts.send(act).is_err() {
            tracing::debug!(?act, "nobody counts votes any more");
        }
    }

    /// The other members, as their heartbeats tell. The time of the last beat is kept current without
    /// waking the watchers.
    #[must_use]
    pub fn peers(&self) -> watch::Receiver<BTreeMap<String, PeerHealth>> {
        self.0.heartbeats.peers()
    }

    /// The links to each other member, in their order.
    #[must_use]
    pub fn links(&self) -> BTreeMap<String, Vec<Link>> {
        let site = &self.0.proposer.site;
        let seen = self.0.heartbeats.links().borrow().clone();
        let links = |(name, seen): (String, Vec<LinkSeen>)| {
            let raft_id = site.raft_id_of(&name)?;
            let peer = site.members().remove(&raft_id)?;
            let (places, used) = (site.places(raft_id, &peer), site.link_in_use(raft_id, &peer));
            let link = |(number, (address, seen)): (usize, (&String, LinkSeen))| Link {
                address: address.clone(),
                seen,
                in_use: number == used,
            };
            Some((name, places.all().zip(seen).enumerate().map(link).collect()))
        };
        seen.into_iter().filter_map(links).collect()
    }

    /// Until when whoever leads takes this node for alive, as far as is known: a watchdog that others rely on may be fed until then
    /// (ADR-0013). `None`: it may be taken for dead already.
    #[must_use]
    pub fn lease(&self) -> Option<Instant> {
        let site = &self.0.proposer.site;
        let judged = site.judged.lock().unwrap_or_else(PoisonError::into_inner).into_std();
        let dead_after = Duration::from_millis(site.settings.profile.timing().dead_after_ms);
        let leadership = self.0.leadership.borrow();
        lease::ends(&leadership, judged, &self.0.heartbeats.peers().borrow(), dead_after)
    }

    /// How long after a new leader's election, or after the last word that a leader had of this node, [`Handle::lease`] may still be in force.
    #[must_use]
    pub fn lease_lag(&self) -> Duration {
        lease::lag(self.0.proposer.site.settings.profile.timing())
    }

    /// Why consensus has stopped for good; the daemon must exit then.
    #[must_use]
    pub fn failure(&self) -> watch::Receiver<Option<String>> {
        self.0.failure.clone()
    }

    /// Puts the session of this node's daemon into its heartbeats.
    pub fn set_session(&self, session: u64) {
        self.0.heartbeats.set_session(session);
    }

    /// Puts a byte of the daemon's choice into its heartbeats.
    pub fn set_mode_hint(&self, hint: u8) {
        self.0.heartbeats.set_mode_hint(hint);
    }

    /// Name of this node.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.proposer.site.settings.name
    }

    /// Has a node take an order; this node's own go to its queue directly.
    ///
    /// # Errors
    /// When the node is not a member, refuses, or cannot be reached.
    pub async fn execute(&self, node: &str, order: &peer::Order) -> Result<(), ExecuteError> {
        let site = &self.0.proposer.site;
        let node = node.to_owned();
        if node == site.settings.name {
            let given = give(&self.0.inbox, order.clone()).await;
            return given.map_err(|why| ExecuteError::Refused { node, why });
        }
        let found = site.members().into_iter().find(|(_, peer)| peer.name == node);
        let Some((raft_id, peer)) = found else {
            return Err(ExecuteError::NoSuchNode { node });
        };
        let refused = |why: String| ExecuteError::Refused { node: node.clone(), why };
        let lost = |why: String| ExecuteError::Unreachable { node: node.clone(), why };
        let body = serde_json::to_vec(order).map_err(|e| refused(e.to_string()))?;
        let channel = site.channel(raft_id, &peer).map_err(|e| lost(e.to_string()))?;
        let mut client = pb::peer_client::PeerClient::new(channel);
        let question =
            site.greet(raft_id, pb::Execute { body }).map_err(|e| lost(e.to_string()))?;
        let call = client.execute(question);
        let answer = tokio::time::timeout(EXECUTE_LIMIT, call)
            .await
            .map_err(|_| lost("no answer in time".to_owned()))?;
        let answer =
            site.met(Call::Order, raft_id, answer).map_err(|status| lost(status.to_string()))?;
        if answer.accepted { Ok(()) } else { Err(refused(answer.why)) }
    }

    /// The orders for this node; `None` when they were taken before.
    #[must_use]
    pub fn orders(&self) -> Option<mpsc::Receiver<Incoming>> {
        self.0.orders.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Has another node run a fence agent. Dropping the future calls it off there.
    ///
    /// # Errors
    /// When the node is not a member or cannot be reached, or its answer cannot be read.
    pub async fn fence(&self, node: &str, call: &peer::FenceCall) -> Result<Answer, ExecuteError> {
        let site = &self.0.proposer.site;
        let node = node.to_owned();
        let found = site.members().into_iter().find(|(_, peer)| peer.name == node);
        let Some((raft_id, peer)) = found else {
            return Err(ExecuteError::NoSuchNode { node });
        };
        let lost = |why: String| ExecuteError::Unreachable { node: node.clone(), why };
        let body = serde_json::to_vec(call).map_err(|e| lost(e.to_string()))?;
        let channel = site.channel(raft_id, &peer).map_err(|e| lost(e.to_string()))?;
        let mut client = pb::peer_client::PeerClient::new(channel);
        let question = site.greet(raft_id, pb::Fence { body }).map_err(|e| lost(e.to_string()))?;
        let answer = client.fence(question).await;
        let answer =
            site.met(Call::Order, raft_id, answer).map_err(|status| lost(status.to_string()))?;
        serde_json::from_slice(&answer.body).map_err(|e| lost(e.to_string()))
    }

    /// Runs of fence agents that other nodes want of this one; `None` when they were taken before.
    #[must_use]
    pub fn fencing(&self) -> Option<mpsc::Receiver<FenceWork>> {
        self.0.fencing.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// The newest start of a node's daemon that this node has heard of. To be asked when its fencing begins, and given to
    /// [`Handle::confirmed_off`].
    #[must_use]
    pub fn incarnation_of(&self, node: &str) -> u64 {
        let site = &self.0.proposer.site;
        site.raft_id_of(node).map_or(0, |id| site.succession.heard_of(id))
    }

    /// A node was off, or reset, after its fencing began: of two, this one may go on alone (ADR-0010).
    pub fn confirmed_off(&self, node: &str, incarnation: u64, how: How, at_ms: u64) {
        let site = &self.0.proposer.site;
        let Some(peer) = site.raft_id_of(node) else {
            return tracing::error!(node, "was confirmed off, and is no member");
        };
        let metrics = self.0.proposer.raft.metrics().borrow_watched().clone();
        site.succession.handle(takeover::Event::Voters {
            effective: voters_of(&metrics.membership_config),
            committed: voters_of(&metrics.committed_membership_config),
        });
        site.succession.confirmed(Evidence { peer, incarnation, how, at_ms });
    }

    /// What ran on this stale node is stopped: it may be taken back.
    pub fn stopped(&self) {
        self.0.proposer.site.succession.handle(takeover::Event::Stopped);
    }

    /// Goes on without the others, as an operator orders.
    ///
    /// # Errors
    /// When this is not the situation for it, with the reason.
    pub fn force(&self, operator: &str, accept_divergence: bool) -> Result<(), Refused> {
        if self.0.proposer.site.surrender.borrow().is_some() {
            let taken_back = accept_divergence.then(|| self.stand_up_again());
            match taken_back {
                Some(Ok(())) => tracing::warn!(operator, "this line is not given up after all"),
                Some(Err(error)) => {
                    tracing::error!(%error, "cannot take back that this line is given up");
                    return Err(Refused::GivingUp);
                }
                None => return Err(Refused::GivingUp),
            }
        }
        self.0.proposer.site.succession.order(takeover::Order::Force {
            operator: operator.to_owned(),
            accept_divergence,
            id: new_id(),
            at_ms: now_s().saturating_mul(1000),
        })
    }

    /// How this node stands with its peer, and the generations of the cluster.
    #[must_use]
    pub fn standing(&self) -> Standing {
        let site = &self.0.proposer.site;
        site.succession.standing(|id| site.called(id))
    }

    /// The members as the state has them.
    #[must_use]
    pub fn members(&self) -> BTreeMap<String, Member> {
        self.state().borrow().members.clone()
    }

    /// Makes a member of a node: a raft id of its own, an entry in the state, a learner. It votes once
    /// it has caught up.
    ///
    /// # Errors
    /// When the name is taken or nobody leads.
    pub async fn add_member(
        &self,
        name: &str,
        addresses: impl Into<Addresses>,
        role: MemberRole,
    ) -> Result<u64, AdmitError> {
        self.0.admission.add_member(name, addresses.into(), role).await
    }

    /// Gives this node other addresses while it runs; `file` is its node.yaml. The others have changed over when this returns, or do it
    /// as soon as they see the log.
    ///
    /// # Errors
    /// When it cannot listen there, the cluster refuses or cannot be told, or the file cannot be written: all is as before then.
    pub async fn relocate(&self, to: Addresses, file: &Path) -> Result<(), MoveError> {
        let refused = || MoveError::Refused { why: "this node listens on nothing".to_owned() };
        let doors = self.0.doors.as_ref().ok_or_else(refused)?;
        doors.relocate(&self.0.proposer, &self.0.heartbeats, to, file).await
    }

    /// That the others have removed this node: their words.
    #[must_use]
    pub fn expelled(&self) -> watch::Receiver<Option<String>> {
        self.0.proposer.site.expelled.subscribe()
    }

    /// Notes that this node's membership is over: it does not start again, and a join puts its old files aside.
    ///
    /// # Errors
    /// When the note cannot be written.
    pub fn lay_down(&self, words: &str) -> io::Result<()> {
        departure::note(&self.0.proposer.site.settings.data_dir, words)
    }

    /// Gives the leadership away if this node has it: it is about to leave.
    pub async fn step_down(&self) {
        self.hand_over().await;
    }

    /// Waits until raft's membership is without this id, too. False when that took too long.
    pub async fn without(&self, raft_id: u64, limit: Duration) -> bool {
        let mut metrics = self.0.proposer.raft.metrics();
        let gone = async {
            loop {
                let seen = metrics.borrow_watched().clone();
                if !seen.committed_membership_config.nodes().any(|(id, _)| *id == raft_id) {
                    return true;
                }
                if metrics.changed().await.is_err() {
                    return false;
                }
            }
        };
        tokio::time::timeout(limit, gone).await.unwrap_or(false)
    }

    /// Gives a node (this one, too) a new key and a new certificate from the CA; nothing stops, and the old certificate is revoked.
    ///
    /// # Errors
    /// When the node or whoever has the CA's key cannot be reached, or a file cannot be written.
    pub async fn renew(&self, node: &str) -> Result<(), RenewError> {
        if node == self.name() {
            return renewal::renew(&self.0.proposer).await.map(|_| ());
        }
        renewal::have_renewed(&self.0.proposer.site, node).await
    }

    /// Makes a join token for one node, good for `ttl`.
    ///
    /// # Errors
    /// When this node has no CA key, or the token cannot be kept.
    pub fn make_token(&self, ttl: Duration) -> Result<String, AdmitError> {
        self.0.admission.invite(ttl)
    }

    /// Stops everything and lets go of the files and the port. A leader hands over first.
    pub async fn shutdown(&self) {
        self.hand_over().await;
        self.leave_the_votes().await;
        self.0.stop.send_replace(true);
        if let Err(error) = self.0.proposer.raft.shutdown().await {
            tracing::error!(%error, "raft did not end cleanly");
        }
        let tasks: Vec<_> =
            self.0.tasks.lock().unwrap_or_else(PoisonError::into_inner).drain(..).collect();
        for task in tasks {
            task.abort();
            if let Err(error) = task.await
                && !error.is_cancelled()
            {
                tracing::error!(%error, "a task of the membership panicked");
            }
        }
        if let Some(doors) = &self.0.doors {
            doors.close().await;
        }
        let (log, heartbeats) = (self.0.log.clone(), Arc::clone(&self.0.heartbeats));
        let ended = tokio::task::spawn_blocking(move || {
            heartbeats.stop();
            log.close();
        });
        if let Err(error) = ended.await {
            tracing::error!(%error, "a thread of the membership did not end");
        }
        let runtime = self.0.runtime.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(runtime) = runtime {
            runtime.shutdown_background();
        }
    }
}
