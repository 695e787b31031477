//! A new key and a new certificate for a node that runs (ADR-0014): signed by whoever has the CA's key, written so that a crash at any
//! moment leaves a pair that fits, used for new connections at once, and told to the cluster, which revokes the old one.

use crate::admission::{AdmitError, node_parameters, sign};
use crate::consensus::Peer;
use crate::durable;
use crate::proposer::{ProposeError, Proposer};
use crate::site::Site;
use crate::tls::{self, CA_KEY, NODE_CERT, NODE_KEY, TlsError};
use crm_core::store::{Command, Outcome};
use crm_proto::pb;
use crm_quorum::takeover::Call;
use rcgen::{KeyPair, PublicKeyData};
use std::io;
use std::path::Path;
use std::time::Duration;
use thiserror::Error;

/// The key that the next certificate belongs to, until the certificate is written.
const NEXT_KEY: &str = "node.key.next";
/// How long another node may take to sign, or to renew its own.
const LIMIT: Duration = Duration::from_secs(20);

/// Why a certificate was not renewed. The old one is good as before.
#[derive(Debug, Error)]
pub enum RenewError {
    /// The key or the request could not be made.
    #[error("cannot make a key")]
    Key(#[from] rcgen::Error),
    /// A file.
    #[error("cannot write `{dir}`")]
    Write {
        /// Where.
        dir: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Nobody signs.
    #[error(
        "no node that can be reached has the CA's key (`ca.key`); it is where `crm cluster init` ran: {why}"
    )]
    NoSigner {
        /// What those said that were asked.
        why: String,
    },
    /// It was not signed here.
    #[error(transparent)]
    Sign(#[from] AdmitError),
    /// The cluster was not told; the node uses the new certificate and tells it as soon as it can.
    #[error(
        "the new certificate is in use, but the cluster does not know yet, so the old one is not revoked"
    )]
    Tell(#[from] ProposeError),
    /// Another node did not renew its own.
    #[error("{node}: {why}")]
    There {
        /// The node.
        node: String,
        /// Why.
        why: String,
    },
}

/// The chain and the key of this node. A renewal that was interrupted is completed or forgotten.
pub(crate) fn load(dir: &Path) -> Result<(String, String), TlsError> {
    let (pem, next) = (tls::read(&dir.join(NODE_CERT))?, dir.join(NEXT_KEY));
    if let Ok(key) = std::fs::read_to_string(&next) {
        let finished = if belongs(&pem, &key) {
            durable::replace(&dir.join(NODE_KEY), key.as_bytes(), 0o600)
        } else {
            Ok(())
        };
        finished
            .and_then(|()| durable::remove(&next))
            .map_err(|source| TlsError::Read { path: next, source })?;
    }
    Ok((pem, tls::read(&dir.join(NODE_KEY))?))
}

/// The first certificate of the chain is of this key.
fn belongs(chain: &str, key: &str) -> bool {
    let Ok(key) = KeyPair::from_pem(key) else { return false };
    let Ok((_, parsed)) = x509_parser::pem::parse_x509_pem(chain.as_bytes()) else { return false };
    parsed.parse_x509().is_ok_and(|c| c.public_key().raw == key.subject_public_key_info())
}

/// The key first, the certificate, then the key in its place.
fn store(dir: &Path, chain: &str, key: &str) -> io::Result<()> {
    let next = dir.join(NEXT_KEY);
    durable::replace(&next, key.as_bytes(), 0o600)?;
    durable::replace(&dir.join(NODE_CERT), chain.as_bytes(), 0o644)?;
    durable::replace(&dir.join(NODE_KEY), key.as_bytes(), 0o600)?;
    durable::remove(&next)
}

/// Signs for a member; only where the CA's key is.
pub(crate) fn sign_for(site: &Site, name: &str, csr: &str) -> Result<String, RenewError> {
    let settings = &site.settings;
    if !settings.tls_dir.join(CA_KEY).exists() {
        let why = format!("{} has none", settings.name);
        return Err(RenewError::NoSigner { why });
    }
    Ok(sign(&settings.tls_dir, name, &settings.cluster.uuid, csr)?)
}

/// Renews the certificate of this node; the fingerprint of the new one.
pub(crate) async fn renew(proposer: &Proposer) -> Result<String, RenewError> {
    let site = &proposer.site;
    let settings = &site.settings;
    let key = KeyPair::generate()?;
    let csr = node_parameters(&settings.name, &settings.cluster.uuid)?;
    let csr = csr.serialize_request(&key)?.pem()?;
    let chain = match sign_for(site, &settings.name, &csr) {
        Err(RenewError::NoSigner { why }) => ask_signers(site, &csr, why).await?,
        signed => signed?,
    };
    let key = key.serialize_pem();
    store(&settings.tls_dir, &chain, &key).map_err(|source| {
        let dir = settings.tls_dir.display().to_string();
        RenewError::Write { dir, source }
    })?;
    site.keys.adopt(chain, key);
    site.drop_channels();
    let certificate = site.certificate();
    let fingerprint = certificate.fingerprint.clone();
    let (node, raft_id) = (settings.name.clone(), settings.raft_id);
    let told = proposer.propose(&Command::Certificate { node, raft_id, certificate }).await?;
    match told {
        Outcome::Done { .. } => tracing::info!(fingerprint, "this node has a new certificate"),
        other => tracing::error!(?other, "the cluster refuses our new certificate"),
    }
    Ok(fingerprint)
}

async fn ask_signers(site: &Site, csr: &str, mut why: String) -> Result<String, RenewError> {
    let signers: Vec<String> = {
        let states = site.machine.states();
        let state = states.borrow();
        let sign = state.certificates.iter().filter(|(_, c)| c.signs);
        sign.map(|(name, _)| name.clone()).collect()
    };
    for name in signers {
        match certify(site, &name, csr).await {
            Ok(chain) => return Ok(chain),
            Err(said) => why = format!("{why}; {name}: {said}"),
        }
    }
    Err(RenewError::NoSigner { why })
}

/// Has another node renew its certificate.
pub(crate) async fn have_renewed(site: &Site, node: &str) -> Result<(), RenewError> {
    let done = certify(site, node, "").await;
    done.map(|_| ()).map_err(|why| RenewError::There { node: node.to_owned(), why })
}

async fn certify(site: &Site, node: &str, csr: &str) -> Result<String, String> {
    let found: Option<(u64, Peer)> = site.members().into_iter().find(|(_, p)| p.name == node);
    let (raft_id, peer) = found.ok_or_else(|| "it is no member".to_owned())?;
    let channel = site.channel(raft_id, &peer).map_err(|e| e.to_string())?;
    let mut client = pb::peer_client::PeerClient::new(channel);
    let said = |status: tonic::Status| status.message().to_owned();
    let question = pb::Certify { csr_pem: csr.to_owned() };
    let call = client.certify(site.greet(raft_id, question).map_err(said)?);
    let reply = match tokio::time::timeout(LIMIT, call).await {
        Ok(reply) => site.met(Call::Order, raft_id, reply).map_err(said)?,
        Err(_) => return Err("no answer in time".to_owned()),
    };
    if reply.why.is_empty() { Ok(reply.certificate_pem) } else { Err(reply.why) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(name: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let certificate = node_parameters(name, "u").unwrap().self_signed(&key).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    #[test]
    fn a_crash_during_a_renewal_leaves_a_pair_that_fits() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let (old, new) = (pair("n1"), pair("n1"));
        store(dir.path(), &old.0, &old.1).unwrap();
        // Before the certificate was written: as if nothing had been begun.
        std::fs::write(at(NEXT_KEY), &new.1).unwrap();
        assert_eq!(load(dir.path()).unwrap(), old);
        assert!(!at(NEXT_KEY).exists());
        // After it: the new pair.
        std::fs::write(at(NEXT_KEY), &new.1).unwrap();
        std::fs::write(at(NODE_CERT), &new.0).unwrap();
        assert_eq!(load(dir.path()).unwrap(), new);
        assert_eq!(load(dir.path()).unwrap(), new);
        assert!(!at(NEXT_KEY).exists());
    }
}
