//! Keys and certificates: who we are, whom we believe. A peer is its certificate's `NAME.CLUSTER-UUID`.

use crate::consensus::machine::Machine;
use crate::greet::METADATA_MAX;
use crate::renewal;
use crate::trust::{Anchor, Unrevoked};
use ring::hmac;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use thiserror::Error;
use tokio::sync::watch;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity, ServerTlsConfig};

pub(crate) const CA_CERT: &str = "ca.pem";
pub(crate) const CA_KEY: &str = "ca.key";
pub(crate) const NODE_CERT: &str = "node.pem";
pub(crate) const NODE_KEY: &str = "node.key";
pub(crate) const HEARTBEAT_KEY: &str = "heartbeat.key";
/// Bytes of the heartbeat key and of the data key.
pub(crate) const KEY_BYTES: usize = 32;

/// Why the keys cannot be used.
#[derive(Debug, Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read `{path}`")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file holds something else than it should.
    #[error("`{path}` is not valid: {why}")]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Why.
        why: String,
    },
}

/// The keys of this node.
#[derive(Debug)]
pub(crate) struct Keys {
    cluster_uuid: String,
    ca_pem: String,
    anchor: Anchor,
    /// Chain and key of this node; replaced when they are renewed.
    own: RwLock<(String, String)>,
    renewed: watch::Sender<u64>,
    heartbeat: hmac::Key,
}

pub(crate) fn read(path: &Path) -> Result<String, TlsError> {
    std::fs::read_to_string(path).map_err(|source| TlsError::Read { path: path.to_owned(), source })
}

impl Keys {
    pub(crate) fn load(dir: &Path, cluster_uuid: &str) -> Result<Self, TlsError> {
        let heartbeat = read_key(&dir.join(HEARTBEAT_KEY))?;
        let path = dir.join(CA_CERT);
        let ca_pem = read(&path)?;
        let anchor = Anchor::new(&ca_pem).map_err(|why| TlsError::Invalid { path, why })?;
        Ok(Self {
            cluster_uuid: cluster_uuid.to_owned(),
            ca_pem,
            anchor,
            own: RwLock::new(renewal::load(dir)?),
            renewed: watch::Sender::new(0),
            heartbeat: hmac::Key::new(hmac::HMAC_SHA256, &heartbeat),
        })
    }

    pub(crate) const fn heartbeat(&self) -> &hmac::Key {
        &self.heartbeat
    }

    fn identity(&self) -> Identity {
        let own = self.own.read().unwrap_or_else(PoisonError::into_inner);
        Identity::from_pem(&own.0, &own.1)
    }

    /// Counts renewals of this node's certificate.
    pub(crate) fn renewals(&self) -> watch::Receiver<u64> {
        self.renewed.subscribe()
    }

    /// Uses this chain and key from now on; connections that are open go on.
    pub(crate) fn adopt(&self, chain: String, key: String) {
        *self.own.write().unwrap_or_else(PoisonError::into_inner) = (chain, key);
        self.renewed.send_modify(|n| *n += 1);
    }

    /// SHA-256 of this node's certificate, hex; empty when its file is no certificate (then nobody talks to this node either).
    pub(crate) fn fingerprint(&self) -> String {
        let own = self.own.read().unwrap_or_else(PoisonError::into_inner);
        crate::admission::fingerprint(&own.0).unwrap_or_default()
    }

    /// Clients may come without a certificate (to join); the peer service asks for one itself.
    pub(crate) fn server(&self) -> ServerTlsConfig {
        ServerTlsConfig::new()
            .identity(self.identity())
            .client_ca_root(Certificate::from_pem(&self.ca_pem))
            .client_auth_optional(true)
            .timeout(Duration::from_secs(5))
    }

    /// The member called `name`, and nobody else, at `address`: not whoever has a certificate of it that is revoked as the state has it then.
    pub(crate) fn endpoint(
        &self,
        name: &str,
        address: &str,
        machine: &Machine,
    ) -> Result<Endpoint, tonic::transport::Error> {
        let tls = ClientTlsConfig::new()
            .domain_name(format!("{name}.{}", self.cluster_uuid))
            .identity(self.identity());
        let verifier = Unrevoked::new(&self.anchor, name, machine);
        Ok(Endpoint::from_shared(format!("https://{address}"))?
            .tls_config_with_verifier(tls, Arc::new(verifier))?
            .connect_timeout(Duration::from_millis(500))
            .tcp_nodelay(true)
            .http2_max_header_list_size(METADATA_MAX)
            .http2_keep_alive_interval(Duration::from_millis(500))
            .keep_alive_timeout(Duration::from_millis(1000)))
    }

    /// The node that a client certificate names, if it is of this cluster.
    pub(crate) fn name_in(&self, certificate: &[u8]) -> Option<String> {
        let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
        let names = parsed.subject_alternative_name().ok()??;
        names.value.general_names.iter().find_map(|name| match name {
            x509_parser::extensions::GeneralName::DNSName(dns) => dns
                .strip_suffix(self.cluster_uuid.as_str())
                .and_then(|rest| rest.strip_suffix('.'))
                .map(str::to_owned),
            _ => None,
        })
    }
}

/// Reads a key of 32 bytes in hex.
pub(crate) fn read_key(path: &Path) -> Result<[u8; KEY_BYTES], TlsError> {
    let text = read(path)?;
    unhex(text.trim()).and_then(|bytes| bytes.try_into().ok()).ok_or_else(|| TlsError::Invalid {
        path: path.to_owned(),
        why: "not 64 hexadecimal digits".to_owned(),
    })
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a String takes every write");
        text
    })
}

pub(crate) fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> =
        text.chars().map(|c| c.to_digit(16).and_then(|d| u8::try_from(d).ok())).collect();
    let digits = digits.filter(|d| d.len() % 2 == 0)?;
    Some(digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}
