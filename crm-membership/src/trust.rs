//! Whom this node believes as a client: a server whose chain ends in the cluster's CA, whose certificate names the member that is called, and
//! is not revoked (ADR-0014).

use crate::admission::fingerprint_of;
use crate::consensus::machine::Machine;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, RootCertStore, SignatureScheme};
use std::sync::Arc;

/// The cluster's CA.
#[derive(Debug)]
pub(crate) struct Anchor(Arc<WebPkiServerVerifier>);

impl Anchor {
    /// From its certificate; or why it is none.
    pub(crate) fn new(ca_pem: &str) -> Result<Self, String> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(ca_pem.as_bytes()) {
            let certificate = certificate.map_err(|e| e.to_string())?;
            roots.add(certificate).map_err(|e| e.to_string())?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let built = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build();
        built.map(Self).map_err(|e| e.to_string())
    }
}

/// Asks the state at each handshake.
#[derive(Debug)]
pub(crate) struct Unrevoked {
    chain: Arc<WebPkiServerVerifier>,
    name: String,
    machine: Machine,
}

impl Unrevoked {
    /// For calls to the member called `name`.
    pub(crate) fn new(anchor: &Anchor, name: &str, machine: &Machine) -> Self {
        Self { chain: Arc::clone(&anchor.0), name: name.to_owned(), machine: machine.clone() }
    }
}

impl ServerCertVerifier for Unrevoked {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let verified = self.chain.verify_server_cert(
            end_entity,
            intermediates,
            server_name,
            ocsp_response,
            now,
        )?;
        let shown = fingerprint_of(end_entity);
        if self.machine.states().borrow().is_revoked(&self.name, &shown) {
            let name = &self.name;
            tracing::error!(name, "whoever answers in this name has a certificate that is revoked");
            return Err(rustls::Error::InvalidCertificate(CertificateError::Revoked));
        }
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chain.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chain.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}
