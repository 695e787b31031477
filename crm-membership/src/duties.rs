//! What the leader does for the membership, and what every node does when a peer comes back.

use crate::consensus::{Metrics, Peer, Raft, StoredMembership, network};
use crate::heartbeat::{Change, Heartbeats, Links, Target};
use crate::leadership::Leadership;
use crate::proposer::Proposer;
use crate::settings::Addresses;
use crate::site::Site;
use crate::votes::Votes;
use crm_core::store::{Build, Command, LEVEL, Member, Outcome, State};
use crm_quorum::takeover::Event;
use openraft::ChangeMembers;
use openraft::async_runtime::WatchReceiver;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// A learner this many entries behind has caught up: the rest comes with the promotion.
const CAUGHT_UP: u64 = 64;
/// Without news, the leader looks again after this; and names are looked up again.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// What the leader should do next for the membership.
#[derive(Debug, PartialEq, Eq)]
enum Duty {
    Propose(Box<Command>),
    Promote(u64),
    Remove(u64),
    Evict(u64),
    /// Its vote is not counted any more (`last_man_standing`): it learns on, and votes again when it is back.
    Strike(u64),
    /// This node is a witness: another one is to lead.
    HandOver(u64),
    Readdress(u64, Peer),
}

/// Founds the cluster's state, promotes learners that have caught up, drops those that were replaced.
pub(crate) async fn lead(
    proposer: Proposer,
    heartbeats: Arc<Heartbeats>,
    mut leadership: watch::Receiver<Leadership>,
    mut votes: watch::Receiver<Option<Votes>>,
) {
    let (mut metrics, mut server) = (proposer.raft.metrics(), proposer.raft.server_metrics());
    let mut states = proposer.site.machine.states();
    let mut peers = heartbeats.peers();
    let mut handed = None;
    loop {
        // Raft's other news come with every heartbeat of its own: they matter only while somebody has to catch up.
        let catching_up = proposer.site.settings.role.is_witness()
            || metrics
                .borrow_watched()
                .membership_config
                .membership()
                .learner_ids()
                .next()
                .is_some();
        let wake = async {
            tokio::select! {
                biased;
                change = leadership.changed() => change.is_ok(),
                change = states.changed() => change.is_ok(),
                change = peers.changed() => change.is_ok(),
                Ok(()) = votes.changed() => true,
                change = server.changed() => change.is_ok(),
                change = metrics.changed(), if catching_up => change.is_ok(),
            }
        };
        if let Ok(false) = tokio::time::timeout(LOOK_AGAIN, wake).await {
            return;
        }
        if !leadership.borrow_and_update().me_leader {
            continue;
        }
        let seen = metrics.borrow_watched().clone();
        let alive: BTreeSet<String> = peers
            .borrow_and_update()
            .iter()
            .filter(|(_, health)| health.alive)
            .map(|(name, _)| name.clone())
            .collect();
        let state = Arc::clone(&states.borrow_and_update());
        let counted = votes.borrow_and_update().clone();
        // Once in a term: a leader that has begun to hand over leads no more, whatever comes of it.
        let heir = heir_of_witness(&seen, &state, &proposer.site.settings.name, &alive);
        if let Some(heir) = heir.filter(|_| handed != Some(seen.current_term)) {
            handed = Some(seen.current_term);
            fulfil(&proposer, Duty::HandOver(heir)).await;
        } else if let Some(duty) = next_duty(&proposer.site, &seen, &state, &alive) {
            fulfil(&proposer, duty).await;
        } else if let Some(votes) = counted
            && let Some(id) = struck_out(&seen, &votes, &alive)
        {
            fulfil(&proposer, Duty::Strike(id)).await;
        }
    }
}

/// Whom a witness that leads gives the leadership to: a voter that lives, is none, and has (nearly) everything.
fn heir_of_witness(
    metrics: &Metrics,
    state: &State,
    me: &str,
    alive: &BTreeSet<String>,
) -> Option<u64> {
    if !state.is_witness(me) {
        return None;
    }
    let membership = metrics.membership_config.membership();
    let voters: BTreeSet<u64> = membership.voter_ids().collect();
    let fit = |(id, peer): &(&u64, &Peer)| {
        voters.contains(*id)
            && alive.contains(&peer.name)
            && !state.is_witness(&peer.name)
            && behind(metrics, **id).is_some_and(|entries| entries <= CAUGHT_UP)
    };
    let fit = membership.nodes().filter(fit);
    fit.min_by_key(|(id, _)| (behind(metrics, **id), **id)).map(|(id, _)| *id)
}

/// A voter of raft's that is gone and whose vote service quorum has ceased to count.
fn struck_out(metrics: &Metrics, votes: &Votes, alive: &BTreeSet<String>) -> Option<u64> {
    let current: &StoredMembership = &metrics.membership_config;
    if !votes.quorate || current.log_id() != metrics.committed_membership_config.log_id() {
        return None;
    }
    let membership = current.membership();
    let voters: BTreeSet<u64> = membership.voter_ids().collect();
    let gone = |name: &String| votes.struck.contains(name) && !alive.contains(name);
    let gone = |(id, peer): &(&u64, &Peer)| voters.contains(*id) && gone(&peer.name);
    membership.nodes().find(gone).map(|(id, _)| *id).filter(|id| *id != metrics.id)
}

/// How many entries a follower lacks, as far as this leader knows.
fn behind(metrics: &Metrics, id: u64) -> Option<u64> {
    let matched = metrics.replication.as_ref()?.get(&id).copied().flatten()?;
    Some(metrics.last_log_index.unwrap_or(0).saturating_sub(matched.index))
}

fn next_duty(
    site: &Site,
    metrics: &Metrics,
    state: &State,
    alive: &BTreeSet<String>,
) -> Option<Duty> {
    let settings = &site.settings;
    if state.cluster_uuid.is_empty() {
        let (name, uuid) = (settings.cluster.name.clone(), settings.cluster.uuid.clone());
        return Some(Duty::Propose(Box::new(Command::Found { name, uuid })));
    }
    let departed = |id: &u64| state.departed.contains_key(id);
    if !state.members.contains_key(&settings.name) && !departed(&settings.raft_id) {
        let Addresses { address, links } = site.own();
        let role = settings.role;
        let member = Member { links, role, ..Member::new(settings.raft_id, address) };
        let name = settings.name.clone();
        return Some(Duty::Propose(Box::new(Command::SetMember { name, member })));
    }
    #[cfg(feature = "pretend-next")]
    if state.feature_level() >= 2 && state.mark.is_none() {
        let text = format!("{} leads", settings.name);
        return Some(Duty::Propose(Box::new(Command::Mark { text })));
    }
    let current: &StoredMembership = &metrics.membership_config;
    if current.log_id() != metrics.committed_membership_config.log_id() {
        return None;
    }
    let membership = current.membership();
    let learners: BTreeSet<u64> = membership.learner_ids().collect();
    if let Some((id, _)) = membership.nodes().find(|(id, _)| departed(id)) {
        return Some(if learners.contains(id) { Duty::Remove(*id) } else { Duty::Evict(*id) });
    }
    for (id, peer) in membership.nodes() {
        let member = state.members.get(&peer.name).filter(|m| m.raft_id == *id);
        if let Some(member) = member.filter(|m| m.address != peer.address) {
            let (name, address) = (peer.name.clone(), member.address.clone());
            return Some(Duty::Readdress(*id, Peer { name, address }));
        }
    }
    for (id, peer) in membership.nodes().filter(|(id, _)| learners.contains(id)) {
        let Some(member) = state.members.get(&peer.name) else { continue };
        if member.raft_id != *id {
            return Some(Duty::Remove(*id));
        }
        let caught_up = behind(metrics, *id).is_some_and(|entries| entries <= CAUGHT_UP);
        if caught_up && alive.contains(&peer.name) {
            return Some(Duty::Promote(*id));
        }
    }
    None
}

async fn fulfil(proposer: &Proposer, duty: Duty) {
    // Who leads by a ghost's vote does nothing for the members but what the takeover asks for: others might be a majority without it.
    if proposer.site.succession.is_taking_over() {
        return;
    }
    // Whoever is not removed stays, also as a learner.
    let retain = !matches!(duty, Duty::Evict(_));
    let change = match duty {
        Duty::Propose(command) => {
            if let Err(error) = proposer.propose(&command).await {
                tracing::warn!(%error, "cannot record this node in the cluster's state yet");
            }
            return;
        }
        Duty::HandOver(heir) => {
            tracing::info!(heir, "this member is a witness: handing the leadership over");
            if let Err(error) = proposer.raft.trigger().transfer_leader(heir).await {
                tracing::warn!(%error, "leadership not handed over");
            }
            return;
        }
        Duty::Promote(id) => ChangeMembers::AddVoterIds(BTreeSet::from([id])),
        Duty::Remove(id) => ChangeMembers::RemoveNodes(BTreeSet::from([id])),
        // Who a node is, is told by its raft id and its certificate: an address alone cannot make it another one.
        Duty::Readdress(id, peer) => ChangeMembers::SetNodes(BTreeMap::from([(id, peer)])),
        Duty::Evict(id) | Duty::Strike(id) => ChangeMembers::RemoveVoters(BTreeSet::from([id])),
    };
    match proposer.raft.change_membership(change, retain).await {
        Ok(response) => tracing::info!(membership = ?response.membership, "membership changed"),
        Err(error) => tracing::warn!(%error, "membership not changed; will try again"),
    }
}

/// Has the state know which certificate this node uses, whether the CA's key is here, which build this is, and where the node listens, for
/// the node's life.
pub(crate) async fn tell_of_itself(proposer: Proposer, too_old: watch::Sender<Option<String>>) {
    let site = Arc::clone(&proposer.site);
    let mut states = site.machine.states();
    loop {
        let state = Arc::clone(&states.borrow_and_update());
        let (name, raft_id) = (&site.settings.name, site.settings.raft_id);
        let member = state.members.get(name).is_some_and(|m| m.raft_id == raft_id);
        if let Err(why) = state.may_run(LEVEL) {
            too_old.send_replace(Some(why));
            return;
        }
        let (certificate, build) = (site.certificate(), Build::this());
        let mut news = Vec::new();
        if member && state.certificates.get(name) != Some(&certificate) {
            news.push(Command::Certificate { node: name.clone(), raft_id, certificate });
        }
        if member && state.builds.get(name) != Some(&build) {
            news.push(Command::Build { node: name.clone(), raft_id, build });
        }
        for command in news {
            match proposer.propose(&command).await {
                Ok(Outcome::Done { .. }) => {}
                Ok(outcome) => tracing::error!(?outcome, "the cluster refuses what this node says"),
                Err(error) => tracing::debug!(%error, "cannot tell of this node yet"),
            }
        }
        let Addresses { address, links } = site.own();
        let known = |m: &Member| (&m.address, &m.links) == (&address, &links);
        if member && !state.members.get(name).is_some_and(known) && !site.is_moving() {
            let command = Command::SetAddresses { name: name.clone(), raft_id, address, links };
            match proposer.propose(&command).await {
                Ok(Outcome::Done { .. }) => {}
                Ok(outcome) => {
                    tracing::error!(?outcome, "the cluster refuses the addresses of node.yaml");
                }
                Err(error) => tracing::debug!(%error, "cannot tell our addresses yet"),
            }
        }
        if let Ok(Err(_)) = tokio::time::timeout(LOOK_AGAIN, states.changed()).await {
            return;
        }
    }
}

/// Aims the heartbeats at the members, as their list or their addresses change.
pub(crate) async fn aim(raft: Raft, site: Arc<Site>, heartbeats: Arc<Heartbeats>) {
    let (metrics, mut server) = (raft.metrics(), raft.server_metrics());
    let mut states = site.machine.states();
    let (mut aimed, mut revoked) = (Vec::new(), states.borrow().revoked.len());
    let others = |site: &Site| -> Vec<(u64, Peer, Addresses)> {
        let others = site.members().into_iter().filter(|(id, _)| *id != site.settings.raft_id);
        let placed = others.map(|(id, peer)| (id, peer.clone(), site.places(id, &peer)));
        placed.collect()
    };
    loop {
        site.learn(&metrics.borrow_watched().clone());
        // Connections that are open were made when a certificate still counted: the next call makes another one.
        let now = states.borrow().revoked.len();
        if std::mem::replace(&mut revoked, now) != now {
            site.drop_channels();
        }
        let members = others(&site);
        let mut targets = Vec::new();
        for (raft_id, peer, places) in &members {
            let (raft_id, name) = (*raft_id, peer.name.clone());
            let addresses = look_up(&name, places).await;
            targets.push(Target { name, raft_id, addresses });
        }
        if targets != aimed {
            heartbeats.aim(targets.clone());
            aimed = targets;
        }
        let wake = async {
            loop {
                let go_on = tokio::select! {
                    biased;
                    change = server.changed() => change.is_ok(),
                    change = states.changed() => change.is_ok(),
                };
                site.learn(&metrics.borrow_watched().clone());
                let replaced = states.borrow().revoked.len() != revoked;
                if !go_on || replaced || others(&site) != members {
                    return go_on;
                }
            }
        };
        if let Ok(false) = tokio::time::timeout(LOOK_AGAIN * 5, wake).await {
            return;
        }
    }
}

/// The addresses of a peer's links.
async fn look_up(peer: &str, places: &Addresses) -> Vec<Option<SocketAddr>> {
    let mut addresses = Vec::new();
    for place in places.all() {
        let found = tokio::net::lookup_host(place).await.map(|mut found| found.next());
        match &found {
            Ok(Some(_)) => {}
            Ok(None) => tracing::warn!(peer, place, "this name has no address"),
            Err(error) => tracing::warn!(%error, peer, place, "cannot look up this name"),
        }
        addresses.push(found.ok().flatten());
    }
    addresses
}

/// Calls that went over a link that is down go over another one, and raft tries again at once.
pub(crate) async fn reroute(raft: Raft, site: Arc<Site>, mut links: watch::Receiver<Links>) {
    while links.changed().await.is_ok() {
        let left = site.hang_up(&links.borrow_and_update().clone());
        if left.is_empty() {
            continue;
        }
        if let Err(fatal) = raft.trigger().reset_backoff(left).await {
            tracing::debug!(%fatal, "raft has stopped");
            return;
        }
    }
}

/// Greets the members that raft does not call: they are behind, or have gone on without us.
pub(crate) async fn seek(raft: Raft, site: Arc<Site>) {
    let mut pace = tokio::time::interval(LOOK_AGAIN);
    loop {
        pace.tick().await;
        let metrics = raft.metrics().borrow_watched().clone();
        let known: BTreeSet<u64> =
            metrics.membership_config.nodes().map(|(id, _)| *id).chain([metrics.id]).collect();
        for (id, peer) in site.members().into_iter().filter(|(id, _)| !known.contains(id)) {
            network::greet(&site, id, peer).await;
        }
    }
}

/// A peer that is back gets a new connection and its entries at once, not after raft's back-off.
pub(crate) async fn welcome(
    raft: Raft,
    site: Arc<Site>,
    mut changes: mpsc::UnboundedReceiver<Change>,
) {
    while let Some(change) = changes.recv().await {
        let (Change::Returned { name, .. } | Change::Died(name)) = &change;
        let Some(raft_id) = site.raft_id_of(name) else { continue };
        site.drop_channel(raft_id);
        site.succession.handle(match change {
            Change::Returned { incarnation, .. } => Event::Heard { peer: raft_id, incarnation },
            Change::Died(_) => Event::Lost { peer: raft_id },
        });
        if let Change::Returned { .. } = change
            && let Err(fatal) = raft.trigger().reset_backoff([raft_id]).await
        {
            tracing::debug!(%fatal, "raft has stopped");
            return;
        }
    }
}
