//! What the parts of one node's membership share: its settings and keys, who its members are, and the
//! channels to them.

use crate::consensus::machine::Machine;
use crate::consensus::{Metrics, Peer};
use crate::merge::Surrender;
use crate::settings::Settings;
use crate::succession::Succession;
use crate::tls::Keys;
use crm_core::store::Certificate;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
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
    channels: Mutex<BTreeMap<u64, (Peer, Channel)>>,
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
            channels: Mutex::new(BTreeMap::new()),
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

    /// The channel to a peer; made at first use and whenever its address changes.
    pub(crate) fn channel(
        &self,
        raft_id: u64,
        peer: &Peer,
    ) -> Result<Channel, tonic::transport::Error> {
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, channel)) = channels.get(&raft_id)
            && known == peer
        {
            return Ok(channel.clone());
        }
        let _inside = self.threads.enter();
        let channel = (self.dial)(&self.keys.endpoint(&peer.name, &peer.address)?);
        channels.insert(raft_id, (peer.clone(), channel.clone()));
        Ok(channel)
    }

    /// Forgets all channels: new connections show this node's new certificate.
    pub(crate) fn drop_channels(&self) {
        self.channels.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Forgets the channel to a peer: the next use makes a new connection.
    pub(crate) fn drop_channel(&self, raft_id: u64) {
        self.channels.lock().unwrap_or_else(PoisonError::into_inner).remove(&raft_id);
    }
}
