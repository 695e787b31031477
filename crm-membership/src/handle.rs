//! Starts and owns everything; what the daemon holds is a [`Handle`].

use crate::admission::{Admission, AdmitError};
use crate::consensus::log::{LogError, LogStore};
use crate::consensus::machine::Machine;
use crate::consensus::network::{MESSAGE_MAX, Network};
use crate::consensus::{Peer, Raft, voters_of};
use crate::greet::METADATA_MAX;
use crate::heartbeat::{Change, Heartbeats, LinkSeen, PeerHealth, Setup};
use crate::leadership::{self, Leadership};
use crate::lease;
use crate::listen::{self, Ears};
use crate::proposer::{ProposeError, Proposer};
use crate::relocation::{Doors, MoveError};
use crate::renewal::{self, RenewError};
use crate::server::{JoinService, PeerService, give};
use crate::settings::{Addresses, Settings};
use crate::site::Site;
use crate::succession::{self, Begin, Standing, Succession, new_id};
use crate::tls::{Keys, TlsError};
use crate::token::{TokenError, Tokens, now_s};
use crate::{birth, departure, durable, duties, merge};
use crm_core::fencing::Answer;
use crm_core::store::{Command, LEVEL, Member, MemberRole, Outcome, State};
use crm_proto::{pb, peer};
use crm_quorum::lineage::{Evidence, How};
use crm_quorum::takeover::{self, Call, Effect, Refused};
use futures::{Stream, StreamExt};
use openraft::async_runtime::WatchReceiver;
use std::collections::BTreeMap;
use std::io;
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, oneshot, watch};
use tonic::transport::server::{Connected, TcpConnectInfo};

/// Orders that wait for the controller at most; more are refused.
const ORDERS_WAITING: usize = 256;
/// How long an order may take to reach its node and be accepted.
const EXECUTE_LIMIT: Duration = Duration::from_secs(6);
/// Entries in one call at most: a CIB may be big.
const PAYLOAD_ENTRIES: u64 = 64;
/// Threads for consensus, apart from everything else.
const WORKERS: usize = 2;

/// Why a node's membership did not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// A key file.
    #[error(transparent)]
    Keys(#[from] TlsError),
    /// The raft log.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The list of join tokens.
    #[error(transparent)]
    Tokens(#[from] TokenError),
    /// The state.
    #[error("cannot read or write the state in `{dir}`")]
    State {
        /// The data directory.
        dir: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The log is empty though this node has been a member: it must not vote again under its old id.
    #[error(
        "`{dir}` was emptied: this node has forgotten its votes; remove it from the cluster and join again"
    )]
    Wiped {
        /// The data directory.
        dir: PathBuf,
    },
    /// The others have removed this node.
    #[error(
        "{words}: its old membership is over; make a token on a member (`crm cluster token`) and run `crm cluster join` here"
    )]
    Departed {
        /// What they said.
        words: String,
    },
    /// This build is older than the cluster allows.
    #[error("{why}")]
    TooOld {
        /// The levels, and what to do.
        why: String,
    },
    /// Its line was given up, and not put away yet.
    #[error("`{dir}` holds a line that this node has given up")]
    GivenUp {
        /// The data directory.
        dir: PathBuf,
    },
    /// The address cannot be used.
    #[error("cannot listen on `{address}`")]
    Listen {
        /// The address.
        address: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Raft did not start.
    #[error("consensus did not start: {why}")]
    Raft {
        /// Why.
        why: String,
    },
    /// Threads or TLS could not be set up.
    #[error("cannot set up {what}: {why}")]
    SetUp {
        /// What.
        what: &'static str,
        /// Why.
        why: String,
    },
}

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
    doors: Option<Doors>,
    admission: Arc<Admission>,
    pub(crate) log: LogStore,
    heartbeats: Arc<Heartbeats>,
    leadership: watch::Receiver<Leadership>,
    failure: watch::Receiver<Option<String>>,
    inbox: mpsc::Sender<Incoming>,
    orders: Mutex<Option<mpsc::Receiver<Incoming>>>,
    fencing: Mutex<Option<mpsc::Receiver<FenceWork>>>,
    stop: watch::Sender<bool>,
    runtime: Mutex<Option<tokio::runtime::Runtime>>,
    tasks: Mutex<Vec<tokio::task::JoinHandle<()>>>,
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

/// Starts this node's membership: consensus, heartbeats, the services on the cluster port. `run_dir` is a directory
/// that a reboot empties.
///
/// # Errors
/// When a file cannot be used, the address is taken, or the data directory is not this node's.
pub async fn start(settings: Settings, run_dir: PathBuf) -> Result<Handle, StartError> {
    let set_up = set_up_error;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .thread_name("crm-raft")
        .enable_all()
        .build()
        .map_err(set_up("threads"))?;
    let starting = runtime.spawn(begin(settings, run_dir));
    match starting.await {
        Ok(Ok(inner)) => {
            *inner.runtime.lock().unwrap_or_else(PoisonError::into_inner) = Some(runtime);
            Ok(Handle(Arc::new(inner)))
        }
        Ok(Err(error)) => {
            runtime.shutdown_background();
            Err(error)
        }
        Err(error) => {
            runtime.shutdown_background();
            Err(StartError::SetUp { what: "consensus", why: error.to_string() })
        }
    }
}

fn set_up_error(what: &'static str) -> impl Fn(io::Error) -> StartError {
    move |e| StartError::SetUp { what, why: e.to_string() }
}

/// Everything that happens on the consensus threads.
async fn begin(settings: Settings, run_dir: PathBuf) -> Result<Inner, StartError> {
    let keys = Keys::load(&settings.tls_dir, &settings.cluster.uuid)?;
    let tokens = Tokens::open(&settings.data_dir)?;
    let dir = settings.data_dir.clone();
    let state = |source| StartError::State { dir: dir.clone(), source };
    if let Some(words) = departure::noted(&dir).map_err(state)? {
        return Err(StartError::Departed { words });
    }
    let surrender = merge::noted(&dir).map_err(state)?;
    if surrender.as_ref().is_some_and(merge::Surrender::is_over) {
        return Err(StartError::GivenUp { dir });
    }
    let identity = format!("{} of cluster {}", settings.raft_id, settings.cluster.uuid);
    let ears = Ears::open(&settings.addresses(), settings.listen).await?;
    let log = LogStore::open(&dir, &identity)?;
    // A start that fails lets go of the file before it says so.
    let (machine, founds, incarnation) = look_at(&dir, &log).inspect_err(|_| log.close())?;
    let dial = tonic::transport::Endpoint::connect_lazy;
    let failure = watch::Sender::new(None);
    let (succession, effects) =
        succeed(&settings, &run_dir, incarnation, (&log, &machine), failure.clone())?;
    let site = Arc::new(Site::new(settings, keys, machine, succession, dial));
    surrender.into_iter().for_each(|surrender| merge::take_up(&site, surrender));
    let listen = set_up_error("the cluster port");
    let (move_to, instead) = mpsc::unbounded_channel();
    let incoming = listen::incoming(ears.listeners().map_err(listen)?, instead);
    let config = raft_config(&site.settings);
    let ground = Ground { site, log, tokens, founds, config, effects, failure };
    let sockets = ears.sockets().map_err(set_up_error("the heartbeats' sockets"))?;
    let beat = |site: &Site, changes| beat(site, incarnation, sockets, changes);
    let mut inner = stand_up(ground, beat, incoming).await?;
    inner.doors = Some(Doors::new(ears, move_to));
    Ok(inner)
}

/// The state, whether this node founds the cluster, and the number of this start; they must fit the log.
fn look_at(dir: &Path, log: &LogStore) -> Result<(Machine, bool, u64), StartError> {
    let state = |source| StartError::State { dir: dir.to_owned(), source };
    let machine = Machine::open(dir).map_err(state)?;
    let old = machine.states().borrow().may_run(LEVEL);
    old.map_err(|why| StartError::TooOld { why })?;
    log.check_end(machine.last_applied())?;
    let founds = birth::check(dir, log.is_new())
        .map_err(state)?
        .ok_or_else(|| StartError::Wiped { dir: dir.to_owned() })?;
    Ok((machine, founds, next_incarnation(dir).map_err(state)?))
}

/// What a node stands on: its keys, its files, its memory of before.
pub(crate) struct Ground {
    pub(crate) site: Arc<Site>,
    pub(crate) log: LogStore,
    pub(crate) tokens: Tokens,
    /// It founds the cluster.
    pub(crate) founds: bool,
    pub(crate) config: openraft::Config,
    /// What the takeover wants done.
    pub(crate) effects: mpsc::UnboundedReceiver<Effect>,
    pub(crate) failure: watch::Sender<Option<String>>,
}

/// Starts everything on it; `incoming` are the connections to the cluster port.
pub(crate) async fn stand_up<C>(
    ground: Ground,
    beat: impl FnOnce(&Site, mpsc::UnboundedSender<Change>) -> Result<Heartbeats, StartError>,
    incoming: impl Stream<Item = io::Result<C>> + Send + 'static,
) -> Result<Inner, StartError>
where
    C: Connected<ConnectInfo = TcpConnectInfo> + AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let Ground { site, log, tokens, founds, config, effects, failure: tell_failure } = ground;
    let failure = tell_failure.subscribe();
    log.tell(&site.succession);
    site.machine.tell(&site.succession);
    let dir = site.settings.data_dir.clone();
    let state = |source| StartError::State { dir: dir.clone(), source };
    let raft = new_raft(&site, config, log.clone()).await?;
    // Raft's news are what its files hold only once it is under way.
    raft.with_raft_state(|_| ()).await.map_err(|e| StartError::Raft { why: e.to_string() })?;
    // The members are known from the log, before anybody leads.
    site.learn(&raft.metrics().borrow_watched().clone());
    if founds {
        found(&raft, &site).await?;
    }
    if !log.is_new() {
        birth::done(&dir).map_err(state)?;
    }
    let (changes, changed) = mpsc::unbounded_channel();
    let heartbeats = Arc::new(beat(&site, changes)?);
    site.heed(heartbeats.links());
    let proposer = Proposer { site: Arc::clone(&site), raft: raft.clone() };
    let admission = Arc::new(Admission { proposer: proposer.clone(), tokens });
    let (inbox, orders) = mpsc::channel(ORDERS_WAITING);
    let (tell_leadership, leadership) = watch::channel(Leadership::default());
    let stop = watch::Sender::new(false);
    let (agents, fencing) = mpsc::channel(ORDERS_WAITING);
    let service = PeerService {
        proposer: proposer.clone(),
        orders: inbox.clone(),
        fencing: agents,
        admission: Arc::clone(&admission),
    };
    let serving = serve(
        Arc::clone(&site),
        incoming,
        service,
        JoinService { admission: Arc::clone(&admission) },
        stop.subscribe(),
    )?;
    let too_old = tell_failure.clone();
    let watching =
        leadership::watch_over(raft.clone(), Arc::clone(&site), tell_leadership, tell_failure);
    let tasks = vec![
        tokio::spawn(serving),
        tokio::spawn(watching),
        tokio::spawn(duties::lead(proposer.clone(), Arc::clone(&heartbeats), leadership.clone())),
        tokio::spawn(duties::aim(raft.clone(), Arc::clone(&site), Arc::clone(&heartbeats))),
        tokio::spawn(duties::reroute(raft.clone(), Arc::clone(&site), heartbeats.links())),
        tokio::spawn(duties::tell_of_itself(proposer.clone(), too_old)),
        tokio::spawn(duties::welcome(raft.clone(), Arc::clone(&site), changed)),
        tokio::spawn(duties::seek(raft.clone(), Arc::clone(&site))),
        tokio::spawn(succession::carry_out(raft, site, effects)),
    ];
    Ok(Inner {
        proposer,
        doors: None,
        admission,
        log,
        heartbeats,
        leadership,
        failure,
        inbox,
        orders: Mutex::new(Some(orders)),
        fencing: Mutex::new(Some(fencing)),
        stop,
        runtime: Mutex::new(None),
        tasks: Mutex::new(tasks),
    })
}

/// Starts what decides who goes on alone, with all that is stored of it.
pub(crate) fn succeed(
    settings: &Settings,
    run_dir: &Path,
    incarnation: u64,
    (log, machine): (&LogStore, &Machine),
    failure: watch::Sender<Option<String>>,
) -> Result<(Arc<Succession>, mpsc::UnboundedReceiver<Effect>), StartError> {
    let set_up = |why: String| StartError::SetUp { what: "the takeover", why };
    let mut logged = machine.generations();
    logged.extend(log.generations());
    let at = logged.last().map_or(0, |(at, _)| *at);
    let effective = log.last_membership().unwrap_or_else(|| machine.membership());
    let uuid = &settings.cluster.uuid;
    let begin = Begin {
        data_dir: &settings.data_dir,
        run_dir,
        raft_id: settings.raft_id,
        incarnation,
        cluster: uuid.parse().map_err(|e: crm_quorum::lineage::BadId| set_up(e.to_string()))?,
        effective: voters_of(&effective),
        logged: (logged.into_iter().map(|(_, g)| g).collect(), at),
        failure,
    };
    let (succession, effects) = Succession::open(begin).map_err(|e| set_up(e.to_string()))?;
    Ok((Arc::new(succession), effects))
}

/// Starts the heartbeats.
fn beat(
    site: &Site,
    incarnation: u64,
    sockets: Vec<UdpSocket>,
    changes: mpsc::UnboundedSender<Change>,
) -> Result<Heartbeats, StartError> {
    let setup = Setup {
        raft_id: site.settings.raft_id,
        incarnation,
        timing: site.settings.profile.timing(),
        key: site.keys.heartbeat().clone(),
        sockets,
        realtime: site.settings.realtime,
    };
    Heartbeats::start(setup, changes)
        .map_err(|e| StartError::SetUp { what: "heartbeats", why: e.to_string() })
}

pub(crate) fn raft_config(settings: &Settings) -> openraft::Config {
    let timing = settings.profile.timing();
    let (mut least, mut most) = (timing.election_min_ms, timing.election_max_ms);
    if settings.role.is_witness() {
        // It stands for election after the nodes: it would give the leadership away at once.
        (least, most) = (most, most + (most - least));
    }
    openraft::Config {
        cluster_name: settings.cluster.name.clone(),
        heartbeat_interval: timing.raft_heartbeat_ms,
        election_timeout_min: least,
        election_timeout_max: most,
        enable_pre_vote: Some(true),
        // A restarted leader must win an election first (design/membership.md 2.3, 1b).
        enable_leader_restore: Some(false),
        allow_log_reversion: Some(false),
        max_payload_entries: PAYLOAD_ENTRIES,
        ..openraft::Config::default()
    }
}

async fn new_raft(
    site: &Arc<Site>,
    config: openraft::Config,
    log: LogStore,
) -> Result<Raft, StartError> {
    let refused = |why: String| StartError::Raft { why };
    let may_elect = site.succession.brief().may_elect;
    let config = openraft::Config { enable_elect: may_elect, ..config };
    let config = config.validate().map_err(|e| refused(e.to_string()))?;
    let (network, machine) = (Network(Arc::clone(site)), site.machine.clone());
    Raft::new(site.settings.raft_id, Arc::new(config), network, log, machine)
        .await
        .map_err(|e| refused(e.to_string()))
}

/// Makes a cluster of one of a fresh node.
async fn found(raft: &Raft, site: &Site) -> Result<(), StartError> {
    let refused = |why: String| StartError::Raft { why };
    if raft.is_initialized().await.map_err(|e| refused(e.to_string()))? {
        return Ok(());
    }
    let settings = &site.settings;
    let me = Peer { name: settings.name.clone(), address: settings.address.clone() };
    raft.initialize(BTreeMap::from([(settings.raft_id, me)]))
        .await
        .map_err(|e| refused(e.to_string()))
}

/// Counts the starts of this node, never backwards even when the clock goes back.
fn next_incarnation(dir: &Path) -> io::Result<u64> {
    let path = dir.join("incarnation");
    let last = match std::fs::read_to_string(&path) {
        Ok(text) => text.trim().parse().unwrap_or(0),
        Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
        Err(error) => return Err(error),
    };
    let next = now_s().saturating_mul(1000).max(last + 1);
    durable::replace(&path, next.to_string().as_bytes(), 0o600)?;
    Ok(next)
}

fn serve<C>(
    site: Arc<Site>,
    incoming: impl Stream<Item = io::Result<C>> + Send + 'static,
    peer: PeerService,
    join: JoinService,
    mut stop: watch::Receiver<bool>,
) -> Result<impl Future<Output = ()> + Send, StartError>
where
    C: Connected<ConnectInfo = TcpConnectInfo> + AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let mut renewals = site.keys.renewals();
    let (peer, join) = (Arc::new(peer), Arc::new(join));
    let incoming = Arc::new(tokio::sync::Mutex::new(Box::pin(incoming)));
    let serving = move || {
        let router = tonic::transport::Server::builder()
            .tls_config(site.keys.server())
            .map_err(|e| StartError::SetUp { what: "TLS", why: format!("{e:?}") })?
            .http2_max_header_list_size(METADATA_MAX)
            .add_service(
                pb::peer_server::PeerServer::from_arc(Arc::clone(&peer))
                    .max_decoding_message_size(MESSAGE_MAX)
                    .max_encoding_message_size(MESSAGE_MAX),
            )
            .add_service(pb::join_server::JoinServer::from_arc(Arc::clone(&join)));
        let connections = futures::stream::unfold(Arc::clone(&incoming), |incoming| async move {
            let next = incoming.lock().await.next().await;
            next.map(|connection| (connection, incoming))
        });
        Ok::<_, StartError>(router.serve_with_incoming(connections))
    };
    let mut now = serving()?;
    Ok(async move {
        loop {
            let ended = tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => return,
                Ok(()) = renewals.changed() => None,
                result = now => Some(result),
            };
            if let Some(Err(error)) = ended {
                tracing::error!(%error, "the cluster port is not served any more");
                return;
            }
            // New connections see the new certificate; those that are open go on.
            now = match serving() {
                Ok(next) => next,
                Err(error) => {
                    tracing::error!(%error, "the cluster port is not served any more");
                    return;
                }
            };
        }
    })
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
        let name = |id| site.name_of(id).unwrap_or_else(|| format!("raft id {id}"));
        site.succession.standing(name)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bootstrap::{Dirs, init};

    fn settings_in(root: &Path) -> Settings {
        let dirs = Dirs {
            settings: root.join("node.yaml"),
            data: root.join("data"),
            tls: root.join("tls"),
        };
        let probe = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = probe.local_addr().unwrap().to_string();
        drop(probe);
        let mut settings = init(&dirs, "lab", "n1", &address).unwrap();
        settings.realtime = false;
        settings
    }

    /// A confirmation that a person gives at once after the start must find its node. On one thread: what the start does not wait for has
    /// not happened when it returns.
    #[tokio::test(flavor = "current_thread")]
    async fn members_are_known_when_the_start_returns() {
        let dir = tempfile::tempdir().unwrap();
        let settings = settings_in(dir.path());
        let handle = start(settings.clone(), dir.path().to_owned()).await.unwrap();
        handle.leadership().wait_for(|l| l.me_leader).await.unwrap();
        let added = handle.add_member("n2", "127.0.0.2:1", MemberRole::Node).await;
        let raft_id = added.unwrap();
        handle.shutdown().await;
        let again = Handle(Arc::new(begin(settings, dir.path().to_owned()).await.unwrap()));
        assert_eq!(again.0.proposer.site.raft_id_of("n2"), Some(raft_id));
        again.shutdown().await;
    }

    /// What the others dial before they have the state.
    #[tokio::test(flavor = "multi_thread")]
    async fn rafts_own_membership_follows_a_node_that_moves() {
        let dir = tempfile::tempdir().unwrap();
        let settings = settings_in(dir.path());
        let (file, first) = (dir.path().join("node.yaml"), settings.address.clone());
        let handle = start(settings, dir.path().to_owned()).await.unwrap();
        handle.state().wait_for(|s| s.members.contains_key("n1")).await.unwrap();
        let to = Addresses { address: first.replace("127.0.0.1", "127.0.0.2"), links: vec![first] };
        handle.relocate(to.clone(), &file).await.unwrap();
        let mut metrics = handle.0.proposer.raft.metrics();
        let followed = async {
            while metrics
                .borrow_watched()
                .membership_config
                .nodes()
                .all(|(_, p)| p.address != to.address)
            {
                metrics.changed().await.unwrap();
            }
        };
        tokio::time::timeout(Duration::from_secs(10), followed).await.unwrap();
        handle.shutdown().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn storage_failure_stops_consensus_and_is_reported() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        let settings = settings_in(root);
        let handle = start(settings, root.to_owned()).await.unwrap();
        handle.leadership().wait_for(|l| l.me_leader).await.unwrap();
        handle.0.log.close();
        let command = Command::SetAttrs { node: "n1".into(), session: None, attrs: Vec::new() };
        handle.propose(command).await.unwrap_err();
        let mut failure = handle.failure();
        let told = failure.wait_for(Option::is_some);
        tokio::time::timeout(Duration::from_secs(10), told).await.unwrap().unwrap();
        // Leadership follows from consensus' own news, which may come a moment later than the failure.
        let mut leadership = handle.leadership();
        let lost = leadership.wait_for(|l| !l.quorate);
        tokio::time::timeout(Duration::from_secs(10), lost).await.unwrap().unwrap();
        handle.shutdown().await;
    }
}
