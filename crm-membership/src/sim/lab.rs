//! The nodes of a run: what each keeps over its lives, how a life begins, what the run can see of it.

use super::clock::Clock;
use super::disk::Disk;
use super::net;
use super::{Dice, mixed};
use crate::consensus::log::LogStore;
use crate::consensus::machine::{Machine, Shelf};
use crate::handle::Handle;
use crate::heartbeat::{Change, Heartbeats, PeerHealth};
use crate::settings::Settings;
use crate::site::Site;
use crate::start::{Ground, StartError, raft_config, stand_up, succeed};
use crate::tls::{CA_CERT, CA_KEY, HEARTBEAT_KEY, Keys, NODE_CERT, NODE_KEY};
use crate::token::Tokens;
use crate::{Dirs, birth, bootstrap};
use crm_core::store::{Command, MemberRole, Outcome};
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{mpsc, watch};

const PORT: u16 = 7631;
/// Short logs: nodes that were away come back by snapshot too.
const SNAPSHOT_EVERY: u64 = 60;
const ENTRIES_KEPT: u64 = 15;

/// What a node is told at its start, and what it keeps.
pub(super) struct Node {
    pub(super) settings: Settings,
    pub(super) disk: Disk,
    pub(super) clock: Arc<Clock>,
    shelf: Arc<Mutex<Option<Vec<u8>>>>,
    /// What its heartbeats tell of the others.
    pub(super) peers: watch::Sender<BTreeMap<String, PeerHealth>>,
    /// Its present life, once it has begun.
    pub(super) life: Mutex<Option<Handle>>,
    changes: Mutex<Option<mpsc::UnboundedSender<Change>>>,
    /// Lives begun.
    lives: AtomicU64,
}

/// What the nodes and the run share.
#[derive(Default)]
pub(super) struct World {
    pub(super) nodes: Mutex<BTreeMap<u8, Arc<Node>>>,
    /// Raft ids of those who were admitted and have not started yet.
    pub(super) admitted: Mutex<BTreeMap<u8, u64>>,
    /// The one that votes only, if there is one.
    pub(super) witness: Mutex<Option<u8>>,
    pub(super) acknowledged: Mutex<Vec<String>>,
    pub(super) writing: Mutex<bool>,
    pub(super) trace: Mutex<DefaultHasher>,
}

impl World {
    /// Makes an event part of the run's identity.
    pub(super) fn note(&self, event: &str) {
        let at = turmoil::sim_elapsed().map_or(0, |at| at.as_micros());
        tracing::info!(at, event);
        (at, event).hash(&mut *self.trace.lock().unwrap());
    }

    pub(super) fn hash(&self) -> u64 {
        self.trace.lock().unwrap().finish()
    }

    pub(super) fn role(&self, number: u8) -> MemberRole {
        let witness = *self.witness.lock().unwrap() == Some(number);
        if witness { MemberRole::Witness } else { MemberRole::Node }
    }

    pub(super) fn node(&self, number: u8) -> Arc<Node> {
        Arc::clone(&self.nodes.lock().unwrap()[&number])
    }
}

pub(super) fn name(number: u8) -> String {
    format!("n{number}")
}

pub(super) fn ip(number: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(192, 168, 9, number))
}

pub(super) fn address(number: u8) -> String {
    format!("{}:{PORT}", ip(number))
}

fn dirs(root: &Path, number: u8) -> Dirs {
    let root = root.join(name(number));
    Dirs { settings: root.join("node.yaml"), data: root.join("data"), tls: root.join("tls") }
}

/// The founder's settings; its keys are the cluster's.
pub(super) fn founder(root: &Path) -> Settings {
    bootstrap::init(&dirs(root, 1), "lab", &name(1), &address(1)).unwrap()
}

/// What `bootstrap::join` leaves on a newcomer, without its call.
pub(super) fn newcomer(
    root: &Path,
    founder: &Settings,
    number: u8,
    (raft_id, role): (u64, MemberRole),
) -> Settings {
    let (first, mine) = (dirs(root, 1), dirs(root, number));
    std::fs::create_dir_all(&mine.data).unwrap();
    std::fs::create_dir_all(&mine.tls).unwrap();
    let read = |file: &str| std::fs::read_to_string(first.tls.join(file)).unwrap();
    let ca_key = rcgen::KeyPair::from_pem(&read(CA_KEY)).unwrap();
    let issuer = rcgen::Issuer::from_ca_cert_pem(&read(CA_CERT), ca_key).unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let dns = format!("{}.{}", name(number), founder.cluster.uuid);
    let certificate = rcgen::CertificateParams::new(vec![dns]).unwrap();
    let pem = certificate.signed_by(&key, &issuer).unwrap().pem();
    for (file, text) in [
        (CA_CERT, read(CA_CERT)),
        (HEARTBEAT_KEY, read(HEARTBEAT_KEY)),
        (NODE_CERT, pem),
        (NODE_KEY, key.serialize_pem()),
    ] {
        std::fs::write(mine.tls.join(file), text).unwrap();
    }
    birth::note(&mine.data, birth::Birth::Joined).unwrap();
    Settings {
        name: name(number),
        address: address(number),
        data_dir: mine.data,
        tls_dir: mine.tls,
        raft_id,
        role,
        ..founder.clone()
    }
}

impl Node {
    pub(super) fn new(settings: Settings) -> Self {
        Self {
            settings,
            disk: Disk::default(),
            clock: Arc::default(),
            shelf: Arc::default(),
            peers: watch::Sender::default(),
            life: Mutex::default(),
            lives: AtomicU64::new(0),
            changes: Mutex::default(),
        }
    }

    pub(super) fn life(&self) -> Option<Handle> {
        self.life.lock().unwrap().clone()
    }

    /// A peer is heard, or not any more.
    pub(super) fn hears(&self, peer: &str, alive: bool) {
        let health = PeerHealth { alive, ..PeerHealth::default() };
        let before = self.peers.send_replace({
            let mut all = self.peers.borrow().clone();
            all.insert(peer.to_owned(), health);
            all
        });
        let was = before.get(peer).is_some_and(|health| health.alive);
        if was != alive
            && let Some(changes) = &*self.changes.lock().unwrap()
        {
            let name = peer.to_owned();
            let change =
                if alive { Change::Returned { name, incarnation: 0 } } else { Change::Died(name) };
            drop(changes.send(change));
        }
    }

    /// A life of this node, with the real assembly of `start::begin` on simulated ground.
    async fn begin(&self, seed: u64) -> Result<Handle, StartError> {
        let settings = self.settings.clone();
        let dir = settings.data_dir.clone();
        let state = |source| StartError::State { dir: dir.clone(), source };
        let identity = format!("{} of cluster {}", settings.raft_id, settings.cluster.uuid);
        let keys = Keys::load(&settings.tls_dir, &settings.cluster.uuid)?;
        let tokens = Tokens::open(&settings.data_dir)?;
        let mut dice = Dice(mixed(seed));
        // A sync takes a while, sometimes long.
        let pause = move || {
            let slow = if dice.below(50) == 0 { 150 } else { 3 };
            Duration::from_micros(200 + dice.below(slow * 1000))
        };
        let log = LogStore::simulated(self.disk.open(), &identity, pause)?;
        let shelf = Shelf::Memory(Arc::clone(&self.shelf));
        let machine = Machine::on(shelf).map_err(state)?;
        log.check_end(machine.last_applied())?;
        let founds = birth::check(&dir, log.is_new())
            .map_err(state)?
            .ok_or_else(|| StartError::Wiped { dir: dir.clone() })?;
        let mut config = raft_config(&settings);
        config.snapshot_policy = openraft::SnapshotPolicy::LogsSinceLast(SNAPSHOT_EVERY);
        config.max_in_snapshot_log_to_keep = ENTRIES_KEPT;
        let incarnation = self.lives.fetch_add(1, Ordering::Relaxed) + 1;
        let failure = watch::Sender::new(None);
        let (succession, effects) =
            succeed(&settings, &dir, incarnation, (&log, &machine), failure.clone())?;
        let site = Arc::new(Site::new(settings, keys, machine, succession, net::dial));
        let ground = Ground { site, log, tokens, founds, config, effects, failure };
        let any = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        let listener = turmoil::net::TcpListener::bind((any, PORT)).await.map_err(state)?;
        let beat = |_: &Site, changes| {
            *self.changes.lock().unwrap() = Some(changes);
            Ok(Heartbeats::told(self.peers.subscribe()))
        };
        Ok(Handle(Arc::new(stand_up(ground, beat, net::incoming(listener)).await?)))
    }
}

/// One life of a node: it writes all the while, and the founder admits those who are named.
pub(super) async fn live(
    world: Arc<World>,
    number: u8,
    seed: u64,
    admit: Vec<u8>,
) -> Result<(), Box<dyn std::error::Error>> {
    let node = world.node(number);
    tokio::spawn(Arc::clone(&node.clock).turn());
    let handle = node.begin(seed).await?;
    *node.life.lock().unwrap() = Some(handle.clone());
    world.note(&format!("n{number} is up"));
    if number == 1 {
        for other in admit {
            if handle.state().borrow().members.contains_key(&name(other)) {
                continue;
            }
            handle.leadership().wait_for(|l| l.me_leader).await?;
            let raft_id =
                handle.add_member(&name(other), &address(other), world.role(other)).await?;
            world.admitted.lock().unwrap().insert(other, raft_id);
            handle.leadership().wait_for(|l| l.voters.contains(&name(other))).await?;
        }
    }
    let (mut dice, mut count) = (Dice(mixed(seed ^ 1)), 0_u64);
    let mut failure = handle.failure();
    loop {
        tokio::time::sleep(Duration::from_millis(10 + dice.below(60))).await;
        if let Some(why) = failure.borrow_and_update().clone() {
            return Err(format!("consensus of n{number} has stopped: {why}").into());
        }
        if !*world.writing.lock().unwrap() {
            continue;
        }
        count += 1;
        let key = format!("{number}-{seed}-{count}");
        let attrs = vec![(key.clone(), Some("x".to_owned()))];
        let command = Command::SetAttrs { node: name(1), session: None, attrs };
        if let Ok(Outcome::Done { .. }) = handle.propose(command).await {
            world.note(&format!("n{number} has {key}"));
            world.acknowledged.lock().unwrap().push(key);
        }
    }
}
