//! Starts everything that a node's membership is made of, in its order.

use crate::admission::Admission;
use crate::consensus::log::{LogError, LogStore};
use crate::consensus::machine::Machine;
use crate::consensus::network::{MESSAGE_MAX, Network};
use crate::consensus::{Peer, Raft, voters_of};
use crate::greet::METADATA_MAX;
use crate::handle::{Handle, Inner};
use crate::heartbeat::{Change, Heartbeats, Setup};
use crate::leadership::{self, Leadership};
use crate::listen::{self, Ears};
use crate::proposer::Proposer;
use crate::relocation::Doors;
use crate::server::{JoinService, PeerService};
use crate::settings::Settings;
use crate::site::Site;
use crate::succession::{self, Begin, Succession};
use crate::tls::{Keys, TlsError};
use crate::token::{TokenError, Tokens, now_s};
use crate::votes::{Booth, Votes};
use crate::{birth, departure, durable, duties, merge};
use crm_core::store::LEVEL;
use crm_proto::pb;
use crm_quorum::takeover::Effect;
use futures::{Stream, StreamExt};
use openraft::async_runtime::WatchReceiver;
use std::collections::BTreeMap;
use std::io;
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, watch};
use tonic::transport::server::{Connected, TcpConnectInfo};

/// Entries in one call at most: a CIB may be big.
const PAYLOAD_ENTRIES: u64 = 64;
/// Threads for consensus, apart from everything else. One would cost an idle node a sixth less, and a third of its commits per second.
const WORKERS: usize = 2;
/// Orders that wait for the controller at most; more are refused.
const ORDERS_WAITING: usize = 256;

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
    let (booth, votes) = Booth::open(Arc::clone(&site), tell_failure.clone()).map_err(state)?;
    let (acts, acted) = mpsc::unbounded_channel();
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
    let mut tasks = vec![
        tokio::spawn(serving),
        tokio::spawn(watching),
        tokio::spawn(booth.count(Arc::clone(&heartbeats), acted)),
        tokio::spawn(duties::tell_of_itself(proposer.clone(), too_old)),
        tokio::spawn(duties::welcome(raft.clone(), Arc::clone(&site), changed)),
        tokio::spawn(succession::carry_out(raft, site, effects)),
    ];
    tasks.extend(do_duties(&proposer, &heartbeats, &leadership, &votes));
    Ok(Inner {
        proposer,
        doors: None,
        admission,
        log,
        heartbeats,
        leadership,
        failure,
        votes,
        acts,
        inbox,
        orders: Mutex::new(Some(orders)),
        fencing: Mutex::new(Some(fencing)),
        stop,
        runtime: Mutex::new(None),
        tasks: Mutex::new(tasks),
    })
}

/// What the leader, and every node, does for the membership all the while.
fn do_duties(
    proposer: &Proposer,
    heartbeats: &Arc<Heartbeats>,
    leadership: &watch::Receiver<Leadership>,
    votes: &watch::Receiver<Option<Votes>>,
) -> [tokio::task::JoinHandle<()>; 5] {
    let (raft, site) = (&proposer.raft, &proposer.site);
    let every = Duration::from_millis(site.settings.profile.timing().raft_heartbeat_ms);
    let lead = (proposer.clone(), Arc::clone(heartbeats), leadership.clone(), votes.clone());
    [
        tokio::spawn(leadership::pulse(raft.clone(), every)),
        tokio::spawn(duties::lead(lead.0, lead.1, lead.2, lead.3)),
        tokio::spawn(duties::aim(raft.clone(), Arc::clone(site), Arc::clone(heartbeats))),
        tokio::spawn(duties::reroute(raft.clone(), Arc::clone(site), heartbeats.links())),
        tokio::spawn(duties::seek(raft.clone(), Arc::clone(site))),
    ]
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
        // Not how often heartbeats are sent: `leadership::pulse` does that. Raft's clock ticks five times in this, on every node, and what a
        // follower does not answer within it is sent again.
        heartbeat_interval: 2 * timing.raft_heartbeat_ms,
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
    let raft = Raft::new(site.settings.raft_id, Arc::new(config), network, log, machine)
        .await
        .map_err(|e| refused(e.to_string()))?;
    raft.runtime_config().heartbeat(false);
    Ok(raft)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bootstrap::{Dirs, init};
    use crate::settings::Addresses;
    use crm_core::store::{Command, MemberRole};

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
