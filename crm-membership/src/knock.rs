//! Before a node moves: the others knock at its new addresses, so that it does not go where they cannot follow.

use crate::consensus::Peer;
use crate::settings::{Addresses, LINKS_MAX};
use crate::site::Site;
use crm_proto::pb;
use crm_quorum::takeover::Call;
use futures::future::join_all;
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long a connection may take.
const DIAL_LIMIT: Duration = Duration::from_secs(2);
/// How long one of the others may take to answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(4);

/// Knocks at addresses for another node: those where nobody opens, with the reason.
pub(crate) async fn knock(addresses: &[String]) -> Vec<String> {
    let dial = |address: &String| {
        let address = address.clone();
        async move {
            match timeout(DIAL_LIMIT, TcpStream::connect(&address)).await {
                Ok(Ok(_)) => None,
                Ok(Err(error)) => Some(format!("{address} ({error})")),
                Err(_) => Some(format!("{address} (no answer)")),
            }
        }
    };
    let dials = addresses.iter().take(LINKS_MAX).map(dial);
    join_all(dials).await.into_iter().flatten().collect()
}

/// Which of the living members cannot reach which of the addresses that are new, in words. A link has its own network: each is asked for the
/// links only that it has itself. Who does not answer, or is too old for the question, says nothing.
pub(crate) async fn unreached(
    site: &Site,
    alive: &BTreeSet<String>,
    to: &Addresses,
) -> Option<String> {
    let own = site.own();
    let others = site.members().into_iter().filter(|(_, peer)| alive.contains(&peer.name));
    let asked = others.filter(|(id, _)| *id != site.settings.raft_id).map(|(id, peer)| {
        let links = site.places(id, &peer).all().count();
        let new = to.all().take(links).filter(|address| own.all().all(|known| known != *address));
        let addresses = new.cloned().collect();
        async move {
            let closed = ask(site, id, &peer, addresses).await.unwrap_or_else(|why| {
                tracing::warn!(
                    peer = peer.name,
                    why,
                    "not asked whether it reaches the new addresses"
                );
                Vec::new()
            });
            (!closed.is_empty())
                .then(|| format!("{} cannot reach {}", peer.name, closed.join(", ")))
        }
    });
    let told: Vec<String> = join_all(asked).await.into_iter().flatten().collect();
    (!told.is_empty()).then(|| told.join("; "))
}

async fn ask(
    site: &Site,
    raft_id: u64,
    peer: &Peer,
    addresses: Vec<String>,
) -> Result<Vec<String>, String> {
    let said = |status: tonic::Status| status.message().to_owned();
    let channel = site.channel(raft_id, peer).map_err(|e| e.to_string())?;
    let mut client = pb::peer_client::PeerClient::new(channel);
    let call = client.knock(site.greet(raft_id, pb::Knock { addresses }).map_err(said)?);
    match timeout(ANSWER_LIMIT, call).await {
        Ok(reply) => site.met(Call::Order, raft_id, reply).map(|r| r.closed).map_err(said),
        Err(_) => Err("no answer in time".to_owned()),
    }
}
