//! Admits newcomers: checks the token, signs the certificate, makes a learner of the node. It becomes a
//! voter when it has caught up (`duties`).

use crate::proposer::{Ask, ProposeError, Proposer};
use crate::settings::{Addresses, Seat, check_name};
use crate::tls::{self, CA_CERT, CA_KEY, HEARTBEAT_KEY, TlsError};
use crate::token::{TokenError, Tokens};
use crm_core::store::{Command, Member, MemberRole, Outcome};
use crm_proto::pb;
use openraft::async_runtime::WatchReceiver;
use rcgen::{
    CertificateParams, CertificateSigningRequestParams, DnType, ExtendedKeyUsagePurpose, Issuer,
    KeyPair,
};
use std::path::Path;
use std::time::Duration;
use thiserror::Error;

/// Name of the file with the key of the volumes' data network, in the data directory.
pub const DATA_KEY: &str = "data.key";

/// Why a node was not admitted.
#[derive(Debug, Error)]
pub enum AdmitError {
    /// The token.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// A key file.
    #[error(transparent)]
    Keys(#[from] TlsError),
    /// The request itself.
    #[error("{why}")]
    Request {
        /// What is wrong with it.
        why: String,
    },
    /// The name is taken.
    #[error("`{name}` is a member already; choose another name")]
    Taken {
        /// The name.
        name: String,
    },
    /// The certificate could not be made.
    #[error("cannot make the certificate")]
    Certificate(#[from] rcgen::Error),
    /// The cluster did not accept the new member.
    #[error("the cluster did not take the new member")]
    Propose(#[from] ProposeError),
    /// The command was refused.
    #[error("the new member was refused: {outcome:?}")]
    Refused {
        /// How.
        outcome: Outcome,
    },
}

/// The door of one node.
pub(crate) struct Admission {
    pub(crate) proposer: Proposer,
    pub(crate) tokens: Tokens,
}

impl Admission {
    /// Makes a token for one node; only where the CA key is.
    pub(crate) fn invite(&self, ttl: Duration) -> Result<String, AdmitError> {
        let settings = &self.proposer.site.settings;
        let path = settings.tls_dir.join(CA_KEY);
        if !path.exists() {
            return Err(TokenError::NoCaKey { path }.into());
        }
        let ca_path = settings.tls_dir.join(CA_CERT);
        let pin = fingerprint(&tls::read(&ca_path)?)
            .map_err(|why| TlsError::Invalid { path: ca_path, why })?;
        let addresses = self.proposer.site.own().all().cloned().collect();
        Ok(self.tokens.issue(&settings.cluster.uuid, &pin, addresses, ttl)?.text())
    }

    /// Lets a newcomer in. Everything that can be refused is checked before the token is burnt.
    pub(crate) async fn admit(
        &self,
        request: pb::JoinRequest,
    ) -> Result<pb::JoinReply, AdmitError> {
        let settings = &self.proposer.site.settings;
        let bad = |why| AdmitError::Request { why };
        check_name(&request.name).map_err(bad)?;
        let addresses =
            Addresses { address: request.address.clone(), links: request.links.clone() };
        addresses.check().map_err(bad)?;
        let key_path = settings.tls_dir.join(CA_KEY);
        if !key_path.exists() {
            return Err(TokenError::NoCaKey { path: key_path }.into());
        }
        let state = self.proposer.site.machine.states().borrow().clone();
        state.may_run(request.level.max(1)).map_err(bad)?;
        self.check_free(&request.name)?;
        self.tokens.redeem(&request)?;
        let certificate =
            sign(&settings.tls_dir, &request.name, &settings.cluster.uuid, &request.csr_pem)?;
        let role = if request.witness { MemberRole::Witness } else { MemberRole::Node };
        let raft_id = self.add_member(&request.name, addresses, role).await?;
        let site = &self.proposer.site;
        let mut seats = site.members();
        let peer = crate::consensus::Peer { name: request.name, address: request.address };
        seats.insert(raft_id, peer);
        let seat = |(raft_id, peer)| {
            let Addresses { address, links } = site.places(raft_id, &peer);
            pb::Seat { name: peer.name, raft_id, address, links }
        };
        Ok(pb::JoinReply {
            certificate_pem: certificate,
            ca_pem: tls::read(&settings.tls_dir.join(CA_CERT))?,
            cluster_name: settings.cluster.name.clone(),
            cluster_uuid: settings.cluster.uuid.clone(),
            raft_id,
            heartbeat_key: tls::read_key(&settings.tls_dir.join(HEARTBEAT_KEY))?.to_vec(),
            data_key: tls::read_key(&settings.data_dir.join(DATA_KEY))?.to_vec(),
            seats: seats.into_iter().map(seat).collect(),
        })
    }

    /// Gives the node a raft id of its own and makes it a member and a learner.
    pub(crate) async fn add_member(
        &self,
        name: &str,
        addresses: Addresses,
        role: MemberRole,
    ) -> Result<u64, AdmitError> {
        self.check_free(name)?;
        let raft_id = self.proposer.ask(&Ask::AllocateId).await?.index;
        let Addresses { address, links } = addresses;
        let member = Member { links, role, ..Member::new(raft_id, address.clone()) };
        let command = Command::SetMember { name: name.to_owned(), member };
        let outcome = self.proposer.propose(&command).await?;
        if !matches!(outcome, Outcome::Done { .. }) {
            return Err(AdmitError::Refused { outcome });
        }
        let seat = Seat { name: name.to_owned(), raft_id, address, links: Vec::new() };
        self.proposer.ask(&Ask::AddLearner(seat)).await?;
        Ok(raft_id)
    }

    /// A voter's name is taken. A learner that never caught up may be replaced.
    fn check_free(&self, name: &str) -> Result<(), AdmitError> {
        let metrics = self.proposer.raft.metrics().borrow_watched().clone();
        let membership = metrics.membership_config.membership();
        let voters: Vec<u64> = membership.voter_ids().collect();
        let taken = membership.nodes().any(|(id, peer)| peer.name == name && voters.contains(id));
        if taken {
            return Err(AdmitError::Taken { name: name.to_owned() });
        }
        Ok(())
    }
}

/// SHA-256 of a certificate, hex.
pub(crate) fn fingerprint(pem: &str) -> Result<String, String> {
    let (_, parsed) =
        x509_parser::pem::parse_x509_pem(pem.as_bytes()).map_err(|e| e.to_string())?;
    Ok(fingerprint_of(&parsed.contents))
}

/// SHA-256 of a certificate (DER), hex.
pub(crate) fn fingerprint_of(der: &[u8]) -> String {
    tls::hex(ring::digest::digest(&ring::digest::SHA256, der).as_ref())
}

/// What every node certificate says; nothing of it comes from the request.
pub(crate) fn node_parameters(
    name: &str,
    cluster_uuid: &str,
) -> Result<CertificateParams, rcgen::Error> {
    let names = vec![name.to_owned(), format!("{name}.{cluster_uuid}")];
    let mut parameters = CertificateParams::new(names)?;
    parameters.distinguished_name.push(DnType::CommonName, name);
    parameters.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    Ok(parameters)
}

/// Signs a request with the CA key. The answer is the chain: node certificate, then CA.
pub(crate) fn sign(dir: &Path, name: &str, uuid: &str, csr: &str) -> Result<String, AdmitError> {
    let ca_pem = tls::read(&dir.join(CA_CERT))?;
    let key = KeyPair::from_pem(&tls::read(&dir.join(CA_KEY))?)?;
    let issuer = Issuer::from_ca_cert_pem(&ca_pem, key)?;
    let mut request = CertificateSigningRequestParams::from_pem(csr)?;
    request.params = node_parameters(name, uuid)?;
    let certificate = request.signed_by(&issuer)?;
    Ok(format!("{}{ca_pem}", certificate.pem()))
}
