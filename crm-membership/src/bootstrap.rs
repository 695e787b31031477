//! Before the first start: founding a cluster (`init`) and joining one (`join`). Writes keys, settings
//! and the note for the first start; overwrites nothing.

use crate::admission::{DATA_KEY, fingerprint, node_parameters};
use crate::birth::{self, Birth};
use crate::departure;
use crate::durable;
use crate::settings::{
    Addresses, Cluster, Seat, Settings, SettingsError, check_address, check_name,
};
use crate::tls::{CA_CERT, CA_KEY, HEARTBEAT_KEY, KEY_BYTES, NODE_CERT, NODE_KEY, TlsError, hex};
use crate::token::{Token, TokenError, ca_pin, now_s, random, sign};
use crm_core::store::{LEVEL, MemberRole};
use crm_proto::pb;
use crm_quorum::Failover;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, SignatureScheme};
use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;
use tonic::transport::{ClientTlsConfig, Endpoint};
use uuid::Uuid;

/// Raft id of the node that founds a cluster; later ones are log indexes, which are higher.
const FOUNDER: u64 = 1;
/// A join waits for a leader at the other side, too.
const JOIN_LIMIT: Duration = Duration::from_secs(30);
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// Where things go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dirs {
    /// The settings file.
    pub settings: PathBuf,
    /// Raft log, snapshots, data key.
    pub data: PathBuf,
    /// Certificates and keys.
    pub tls: PathBuf,
}

impl Dirs {
    /// The usual places; the settings where `CRM_CONFIG` says, with the certificates beside them, and the data where `CRM_DATA_DIR` says.
    #[must_use]
    pub fn usual() -> Self {
        let settings = Settings::path();
        let tls = settings.parent().unwrap_or_else(|| Path::new("/etc/crm")).join("tls");
        let data = std::env::var_os("CRM_DATA_DIR")
            .map_or_else(|| PathBuf::from("/var/lib/crm"), PathBuf::from);
        Self { settings, data, tls }
    }
}

/// Why a cluster was not founded or joined.
#[derive(Debug, Error)]
pub enum BootstrapError {
    /// This node is in a cluster already.
    #[error(
        "`{path}` exists: this node is in a cluster already; run `crm cluster leave` first (a node that the others have removed learns it when crmd is started once)"
    )]
    Exists {
        /// What exists.
        path: PathBuf,
    },
    /// A bad name or address.
    #[error("{why}")]
    Argument {
        /// What is wrong.
        why: String,
    },
    /// A file could not be written.
    #[error("cannot write `{path}`")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The settings.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// A key file.
    #[error(transparent)]
    Keys(#[from] TlsError),
    /// The token.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// A certificate could not be made.
    #[error("cannot make the certificate")]
    Certificate(#[from] rcgen::Error),
    /// The other node cannot be reached, or is not the one of the token.
    #[error("cannot reach `{address}` as a node of the token's cluster: {why}")]
    Connect {
        /// Where.
        address: String,
        /// Why.
        why: String,
    },
    /// It refused.
    #[error("`{address}` refused: {why}")]
    Refused {
        /// Where.
        address: String,
        /// Why.
        why: String,
    },
}

/// Founds a cluster of this one node. The daemon starts it.
///
/// # Errors
/// When this node is in a cluster already, or a file cannot be written.
pub fn init(
    dirs: &Dirs,
    cluster_name: &str,
    node_name: &str,
    addresses: impl Into<Addresses>,
) -> Result<Settings, BootstrapError> {
    let addresses = addresses.into();
    check(dirs, node_name, &addresses)?;
    let cluster = Cluster { name: cluster_name.to_owned(), uuid: Uuid::new_v4().to_string() };
    let ca_key = KeyPair::generate()?;
    let mut parameters = CertificateParams::new(Vec::new())?;
    parameters.distinguished_name.push(DnType::CommonName, format!("crm {}", cluster.uuid));
    parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let ca_pem = parameters.self_signed(&ca_key)?.pem();
    let node_key = KeyPair::generate()?;
    let issuer = Issuer::from_params(&parameters, &ca_key);
    let certificate = node_parameters(node_name, &cluster.uuid)?.signed_by(&node_key, &issuer)?;
    let chain = format!("{}{ca_pem}", certificate.pem());
    make_dirs(dirs)?;
    put(&dirs.tls.join(CA_KEY), ca_key.serialize_pem().as_bytes(), 0o600)?;
    let secrets = Secrets {
        chain: &chain,
        node_key: &node_key.serialize_pem(),
        ca: &ca_pem,
        heartbeat: &random::<KEY_BYTES>()?,
        data: &random::<KEY_BYTES>()?,
    };
    write_secrets(dirs, &secrets)?;
    let Addresses { address, links } = addresses.clone();
    let seats = vec![Seat { name: node_name.to_owned(), raft_id: FOUNDER, address, links }];
    finish(dirs, Birth::Founded, node_settings(dirs, node_name, addresses, cluster, seats))
}

/// Who joins.
#[derive(Debug, Clone)]
pub struct Newcomer<'a> {
    /// Node name.
    pub name: &'a str,
    /// Where the others reach it.
    pub addresses: Addresses,
    /// What it is for.
    pub role: MemberRole,
}

impl<'a> Newcomer<'a> {
    /// One that votes and runs resources.
    #[must_use]
    pub fn node(name: &'a str, addresses: impl Into<Addresses>) -> Self {
        Self { name, addresses: addresses.into(), role: MemberRole::Node }
    }
}

/// Joins the cluster of the token through the node at `at` (or at the token's own addresses). The
/// daemon then starts as a learner and votes once it has caught up.
///
/// # Errors
/// When this node is in a cluster already, the other side is not the token's cluster or refuses, or a
/// file cannot be written.
pub async fn join(
    dirs: &Dirs,
    newcomer: Newcomer<'_>,
    at: Option<&str>,
    token: &str,
) -> Result<Settings, BootstrapError> {
    let Newcomer { name, addresses, role } = newcomer;
    check(dirs, name, &addresses)?;
    let token = Token::parse(token)?;
    if token.expires <= now_s() {
        return Err(TokenError::Expired.into());
    }
    let node_key = KeyPair::generate()?;
    let request = node_parameters(name, &token.cluster)?.serialize_request(&node_key)?.pem()?;
    let mut request = pb::JoinRequest {
        name: name.to_owned(),
        address: addresses.address.clone(),
        links: addresses.links.clone(),
        token_id: token.id.clone(),
        csr_pem: request,
        witness: role.is_witness(),
        level: LEVEL,
        ..pb::JoinRequest::default()
    };
    request.hmac = sign(&token.secret, &request);
    let reply = ask(&token, at, request).await?;
    if fingerprint(&reply.ca_pem).as_ref() != Ok(&token.ca) {
        return Err(TokenError::Damaged.into());
    }
    make_dirs(dirs)?;
    let secrets = Secrets {
        chain: &reply.certificate_pem,
        node_key: &node_key.serialize_pem(),
        ca: &reply.ca_pem,
        heartbeat: &reply.heartbeat_key,
        data: &reply.data_key,
    };
    write_secrets(dirs, &secrets)?;
    let cluster = Cluster { name: reply.cluster_name, uuid: reply.cluster_uuid };
    let seats = reply
        .seats
        .into_iter()
        .map(|s| Seat { name: s.name, raft_id: s.raft_id, address: s.address, links: s.links })
        .collect();
    let mut settings = node_settings(dirs, name, addresses, cluster, seats);
    settings.raft_id = reply.raft_id;
    settings.role = role;
    finish(dirs, Birth::Joined, settings)
}

/// Asks one address after the other; the first that can be reached decides.
async fn ask(
    token: &Token,
    at: Option<&str>,
    request: pb::JoinRequest,
) -> Result<pb::JoinReply, BootstrapError> {
    let addresses = at.map_or_else(|| token.addresses.clone(), |at| vec![at.to_owned()]);
    let mut last = TokenError::Damaged.into();
    for address in addresses {
        check_address(&address).map_err(|why| BootstrapError::Argument { why })?;
        let channel = match connect(token, &address).await {
            Ok(channel) => channel,
            Err(error) => {
                last = error;
                continue;
            }
        };
        let mut client = pb::join_client::JoinClient::new(channel);
        let call = tokio::time::timeout(JOIN_LIMIT, client.join(request));
        let refused = |why| BootstrapError::Refused { address: address.clone(), why };
        return match call.await {
            Ok(Ok(reply)) => Ok(reply.into_inner()),
            Ok(Err(status)) => Err(refused(status.message().to_owned())),
            Err(_) => Err(refused("no answer in time".to_owned())),
        };
    }
    Err(last)
}

async fn connect(
    token: &Token,
    address: &str,
) -> Result<tonic::transport::Channel, BootstrapError> {
    let failed = |error: tonic::transport::Error| BootstrapError::Connect {
        address: address.to_owned(),
        why: chain_of(&error),
    };
    let verifier =
        Pinned { ca: ca_pin(token)?, provider: Arc::new(rustls::crypto::ring::default_provider()) };
    let tls = ClientTlsConfig::new().domain_name(token.cluster.clone());
    Endpoint::from_shared(format!("https://{address}"))
        .map_err(failed)?
        .tls_config_with_verifier(tls, Arc::new(verifier))
        .map_err(failed)?
        .connect_timeout(CONNECT_LIMIT)
        .connect()
        .await
        .map_err(failed)
}

/// All causes of an error in one line.
pub(crate) fn chain_of(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}

/// Believes a server whose chain ends in the CA that the token names, whatever the server is called: any
/// node of the cluster may answer.
#[derive(Debug)]
struct Pinned {
    ca: [u8; 32],
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let sum = |der: &[u8]| ring::digest::digest(&ring::digest::SHA256, der);
        let ca = intermediates
            .iter()
            .find(|der| sum(der.as_ref()).as_ref() == self.ca.as_slice())
            .ok_or(rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer))?;
        let mut roots = rustls::RootCertStore::empty();
        roots.add(ca.clone().into_owned())?;
        let parsed = rustls::server::ParsedCertificate::try_from(end_entity)?;
        rustls::client::verify_server_cert_signed_by_trust_anchor(
            &parsed,
            &roots,
            intermediates,
            now,
            self.provider.signature_verification_algorithms.all,
        )?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

fn check(dirs: &Dirs, name: &str, addresses: &Addresses) -> Result<(), BootstrapError> {
    let argument = |why| BootstrapError::Argument { why };
    check_name(name).map_err(argument)?;
    addresses.check().map_err(argument)?;
    departure::put_aside(dirs)
        .map_err(|source| BootstrapError::Write { path: dirs.data.clone(), source })?;
    let taken = [
        dirs.settings.clone(),
        dirs.data.join("raft.redb"),
        dirs.data.join("raft.snapshot"),
        dirs.data.join(DATA_KEY),
        dirs.tls.join(CA_KEY),
        dirs.tls.join(NODE_KEY),
    ];
    match taken.into_iter().find(|path| path.exists()) {
        Some(path) => Err(BootstrapError::Exists { path }),
        None => Ok(()),
    }
}

fn make_dirs(dirs: &Dirs) -> Result<(), BootstrapError> {
    let parent = dirs.settings.parent().unwrap_or_else(|| Path::new("/"));
    for (dir, mode) in [(parent, 0o755), (&dirs.data, 0o700), (&dirs.tls, 0o700)] {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(mode)
            .create(dir)
            .map_err(|source| BootstrapError::Write { path: dir.to_owned(), source })?;
    }
    Ok(())
}

/// What a node keeps to itself.
struct Secrets<'a> {
    chain: &'a str,
    node_key: &'a str,
    ca: &'a str,
    heartbeat: &'a [u8],
    data: &'a [u8],
}

fn write_secrets(dirs: &Dirs, secrets: &Secrets<'_>) -> Result<(), BootstrapError> {
    put(&dirs.tls.join(CA_CERT), secrets.ca.as_bytes(), 0o644)?;
    put(&dirs.tls.join(NODE_CERT), secrets.chain.as_bytes(), 0o644)?;
    put(&dirs.tls.join(NODE_KEY), secrets.node_key.as_bytes(), 0o600)?;
    put(&dirs.tls.join(HEARTBEAT_KEY), hex(secrets.heartbeat).as_bytes(), 0o600)?;
    put(&dirs.data.join(DATA_KEY), hex(secrets.data).as_bytes(), 0o600)
}

fn put(path: &Path, bytes: &[u8], mode: u32) -> Result<(), BootstrapError> {
    durable::replace(path, bytes, mode)
        .map_err(|source| BootstrapError::Write { path: path.to_owned(), source })
}

fn node_settings(
    dirs: &Dirs,
    name: &str,
    addresses: Addresses,
    cluster: Cluster,
    seats: Vec<Seat>,
) -> Settings {
    Settings {
        name: name.to_owned(),
        address: addresses.address,
        links: addresses.links,
        listen: None,
        data_dir: dirs.data.clone(),
        tls_dir: dirs.tls.clone(),
        raft_id: FOUNDER,
        role: MemberRole::Node,
        cluster,
        profile: Failover::Normal,
        realtime: true,
        watchdog: None,
        seats,
    }
}

/// The note for the first start, then the settings: their file makes the node a member.
fn finish(dirs: &Dirs, born: Birth, settings: Settings) -> Result<Settings, BootstrapError> {
    let write = |source| BootstrapError::Write { path: dirs.data.clone(), source };
    birth::note(&dirs.data, born).map_err(write)?;
    settings.save(&dirs.settings)?;
    Ok(settings)
}
