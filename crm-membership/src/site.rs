//! What the parts of one node's membership share: its settings and keys, who its members are, and the
//! channels to them.

use crate::consensus::machine::Machine;
use crate::consensus::{Metrics, Peer};
use crate::heartbeat::Links;
use crate::merge::Surrender;
use crate::route::{self, Path};
use crate::settings::{Addresses, Seat, Settings};
use crate::succession::Succession;
use crate::tls::Keys;
use crm_core::store::Certificate;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;
use tonic::transport::{Channel, Endpoint};

/// The last sign of life from a leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LeaderSign {
    pub(crate) raft_id: u64,
    pub(crate) term: u64,
    pub(crate) at: Instant,
    /// The leader said that a quorum follows it.
    pub(crate) quorate: bool,
}

/// Makes the connections of an endpoint: over the host's network, or over one that a simulation has.
pub(crate) type Dial = fn(&Endpoint) -> Channel;

/// How calls reach the peers.
#[derive(Debug, Default)]
struct Lines {
    /// By raft id and link, with the name and the address that it is for.
    channels: BTreeMap<(u64, usize), (String, String, Channel)>,
    routes: BTreeMap<u64, Route>,
}

/// Over which link a peer is called.
#[derive(Debug, Default)]
struct Route {
    link: usize,
    /// When a call over a link failed last.
    doubts: BTreeMap<usize, std::time::Instant>,
}

/// Shared by the parts of one node.
#[derive(Debug)]
pub(crate) struct Site {
    pub(crate) settings: Settings,
    pub(crate) keys: Keys,
    pub(crate) machine: Machine,
    pub(crate) succession: Arc<Succession>,
    pub(crate) leader_sign: watch::Sender<Option<LeaderSign>>,
    /// We lead, and a quorum answered within the lease.
    pub(crate) leading: AtomicBool,
    /// When leadership was looked at last.
    pub(crate) judged: Mutex<Instant>,
    /// The others have removed this node: their words.
    pub(crate) expelled: watch::Sender<Option<String>>,
    /// This node gives its line up.
    pub(crate) surrender: watch::Sender<Option<Surrender>>,
    /// Raft's membership, as of its last change.
    roster: Mutex<BTreeMap<u64, Peer>>,
    lines: Mutex<Lines>,
    /// Where this node listens.
    own: Mutex<Addresses>,
    /// Its addresses are being changed: nothing is told of them now.
    pub(crate) moving: tokio::sync::Mutex<()>,
    /// How the links are, once the heartbeats tell it.
    links: OnceLock<watch::Receiver<Links>>,
    dial: Dial,
    /// The consensus threads: the tasks of the channels run there, whoever uses them first.
    threads: tokio::runtime::Handle,
}

impl Site {
    /// Call it on the consensus threads.
    pub(crate) fn new(
        settings: Settings,
        keys: Keys,
        machine: Machine,
        succession: Arc<Succession>,
        dial: Dial,
    ) -> Self {
        Self {
            dial,
            threads: tokio::runtime::Handle::current(),
            own: Mutex::new(settings.addresses()),
            moving: tokio::sync::Mutex::new(()),
            links: OnceLock::new(),
            settings,
            keys,
            machine,
            succession,
            leader_sign: watch::Sender::new(None),
            leading: AtomicBool::new(false),
            judged: Mutex::new(Instant::now()),
            expelled: watch::Sender::new(None),
            surrender: watch::Sender::new(None),
            roster: Mutex::new(BTreeMap::new()),
            lines: Mutex::default(),
        }
    }

    pub(crate) fn is_leading(&self) -> bool {
        self.leading.load(Ordering::Acquire)
    }

    /// The certificate that this node uses now.
    pub(crate) fn certificate(&self) -> Certificate {
        let signs = self.settings.tls_dir.join(crate::tls::CA_KEY).exists();
        Certificate { fingerprint: self.keys.fingerprint(), signs }
    }

    /// Takes over raft's membership from its metrics.
    pub(crate) fn learn(&self, metrics: &Metrics) {
        let nodes = metrics.membership_config.nodes();
        *self.roster.lock().unwrap_or_else(PoisonError::into_inner) =
            nodes.map(|(id, peer)| (*id, peer.clone())).collect();
    }

    /// Everybody who may talk to us, by raft id: raft's membership, or, until we are in it, those known
    /// when we joined.
    pub(crate) fn members(&self) -> BTreeMap<u64, Peer> {
        let roster = self.roster.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if roster.contains_key(&self.settings.raft_id) {
            return self.with_evicted(roster);
        }
        let seats = self.settings.seats.iter();
        let mut members: BTreeMap<u64, Peer> = seats
            .map(|s| (s.raft_id, Peer { name: s.name.clone(), address: s.address.clone() }))
            .collect();
        members.extend(roster);
        members
    }

    /// Members of the cluster that are not in raft's membership now: the others went on without them.
    fn with_evicted(&self, mut roster: BTreeMap<u64, Peer>) -> BTreeMap<u64, Peer> {
        let names: BTreeSet<String> = roster.values().map(|peer| peer.name.clone()).collect();
        let state = self.machine.states().borrow().clone();
        for (name, member) in state.members.iter().filter(|(name, _)| !names.contains(*name)) {
            let peer = Peer { name: name.clone(), address: member.address.clone() };
            roster.insert(member.raft_id, peer);
        }
        roster
    }

    /// Raft id of a member by name: the newest, while one that joined again replaces its former self.
    pub(crate) fn raft_id_of(&self, name: &str) -> Option<u64> {
        self.members().into_iter().rev().find(|(_, peer)| peer.name == name).map(|(id, _)| id)
    }

    /// Name of a member by raft id.
    pub(crate) fn name_of(&self, raft_id: u64) -> Option<String> {
        self.members().remove(&raft_id).map(|peer| peer.name)
    }

    /// The name of a member for people, its raft id where it has gone.
    pub(crate) fn called(&self, raft_id: u64) -> String {
        self.name_of(raft_id).unwrap_or_else(|| format!("raft id {raft_id}"))
    }

    /// The addresses of a member: as the state has them, or, until it has, as they were when we joined.
    pub(crate) fn places(&self, raft_id: u64, peer: &Peer) -> Addresses {
        let state = self.machine.states().borrow().clone();
        if let Some(member) = state.members.get(&peer.name).filter(|m| m.raft_id == raft_id) {
            return Addresses { address: member.address.clone(), links: member.links.clone() };
        }
        let known = |seat: &&Seat| seat.raft_id == raft_id && seat.address == peer.address;
        let seat = self.settings.seats.iter().find(known);
        seat.map_or_else(|| Addresses::from(&peer.address), Seat::addresses)
    }

    /// Where this node listens.
    pub(crate) fn own(&self) -> Addresses {
        self.own.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// This node listens there from now on.
    pub(crate) fn moved(&self, to: Addresses) {
        *self.own.lock().unwrap_or_else(PoisonError::into_inner) = to;
    }

    /// This node's addresses are being changed.
    pub(crate) fn is_moving(&self) -> bool {
        self.moving.try_lock().is_err()
    }

    /// Has the calls go by what the heartbeats tell of the links.
    pub(crate) fn heed(&self, links: watch::Receiver<Links>) {
        if self.links.set(links).is_err() {
            tracing::error!("the heartbeats were started twice");
        }
    }

    fn lines(&self) -> std::sync::MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The channel to a peer, over the link that is to be used now.
    pub(crate) fn channel(
        &self,
        raft_id: u64,
        peer: &Peer,
    ) -> Result<Channel, tonic::transport::Error> {
        self.line(raft_id, peer).map(|(channel, _)| channel)
    }

    /// The channel to a peer and the link that it goes over; made at first use and whenever its address changes.
    pub(crate) fn line(
        &self,
        raft_id: u64,
        peer: &Peer,
    ) -> Result<(Channel, usize), tonic::transport::Error> {
        let places = self.places(raft_id, peer);
        let mut lines = self.lines();
        let link = self.choose(&mut lines, raft_id, &peer.name, &places);
        let address = places.all().nth(link).unwrap_or(&places.address);
        if let Some((name, known, channel)) = lines.channels.get(&(raft_id, link))
            && (name, known) == (&peer.name, address)
        {
            return Ok((channel.clone(), link));
        }
        let _inside = self.threads.enter();
        let channel = (self.dial)(&self.keys.endpoint(&peer.name, address, &self.machine)?);
        let kept = (peer.name.clone(), address.clone(), channel.clone());
        lines.channels.insert((raft_id, link), kept);
        Ok((channel, link))
    }

    /// The link that a call to a peer goes over now.
    pub(crate) fn link_in_use(&self, raft_id: u64, peer: &Peer) -> usize {
        let places = self.places(raft_id, peer);
        self.choose(&mut self.lines(), raft_id, &peer.name, &places)
    }

    fn choose(&self, lines: &mut Lines, raft_id: u64, name: &str, places: &Addresses) -> usize {
        let both = places.all().count().min(self.own().all().count());
        let route = lines.routes.entry(raft_id).or_default();
        if both < 2 {
            route.link = 0;
            return 0;
        }
        let seen = self.links.get().and_then(|links| links.borrow().get(name).cloned());
        let path = |link: usize| {
            let seen = seen.as_ref().and_then(|seen| seen.get(link));
            Path {
                up: seen.filter(|seen| seen.up).map(|seen| seen.since),
                answered: seen.and_then(|seen| seen.answered),
                doubted: route.doubts.get(&link).copied(),
            }
        };
        let paths: Vec<Path> = (0..both).map(path).collect();
        let settle = Duration::from_millis(self.settings.profile.timing().dead_after_ms) * 2;
        let link = route::choose(std::time::Instant::now(), &paths, route.link, settle);
        if link != route.link {
            tracing::info!(peer = name, link, before = route.link, "calls go over another link");
            route.link = link;
        }
        link
    }

    /// A call over a link was not answered in time: another one is tried first, until a heartbeat has come through.
    pub(crate) fn doubt(&self, raft_id: u64, link: usize) {
        let mut lines = self.lines();
        let route = lines.routes.entry(raft_id).or_default();
        route.doubts.insert(link, std::time::Instant::now());
    }

    /// Waits until a link is down while the peer is up on another one: what was sent over it is not waited for.
    pub(crate) async fn cut(&self, name: &str, link: usize) {
        let cut = |links: &Links| {
            let seen = links.get(name).filter(|seen| seen.iter().any(|link| link.up));
            seen.and_then(|seen| seen.get(link)).is_some_and(|link| !link.up)
        };
        if let Some(mut links) = self.links.get().cloned()
            && links.wait_for(cut).await.is_ok()
        {
            return;
        }
        std::future::pending::<()>().await;
    }

    /// Drops the channels over links that are down, of peers that have another one; raft ids of the peers that were called over them.
    pub(crate) fn hang_up(&self, links: &Links) -> Vec<u64> {
        let mut lines = self.lines();
        let mut left = Vec::new();
        let Lines { channels, routes } = &mut *lines;
        channels.retain(|(raft_id, link), (name, _, _)| {
            let seen = links.get(name).filter(|seen| seen.iter().any(|link| link.up));
            let keep = seen.and_then(|seen| seen.get(*link)).is_none_or(|link| link.up);
            if !keep && routes.get(raft_id).is_some_and(|route| route.link == *link) {
                left.push(*raft_id);
            }
            keep
        });
        left
    }

    /// Forgets all channels: new connections show this node's new certificate.
    pub(crate) fn drop_channels(&self) {
        self.lines().channels.clear();
    }

    /// Forgets the channels to a peer: the next use makes a new connection.
    pub(crate) fn drop_channel(&self, raft_id: u64) {
        self.lines().channels.retain(|(id, _), _| *id != raft_id);
    }
}
