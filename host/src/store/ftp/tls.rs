//! Explicit TLS (RFC 4217) by rustls.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use rustls::{
    ClientConfig, RootCertStore, SupportedProtocolVersion,
    client::Resumption,
    pki_types::{CertificateDer, pem::PemObject},
    version::{TLS12, TLS13},
};
use suppaftp::{tokio::AsyncRustlsConnector, tokio_rustls::TlsConnector};

use crate::store::StoreError;

/// How many TLS sessions a connection keeps for its data connections.
const SESSIONS: usize = 8;

/// Whom to trust, and how to speak.
///
/// Servers can want the session of the control connection on each data connection (vsftpd's
/// `require_ssl_reuse`, proftpd by default). A TLS 1.2 session can be resumed any number of times; TLS
/// 1.3 tickets serve once each, and proftpd does not hand out new ones for those used up by uploads: the
/// third data connection fails. So TLS 1.2 is spoken, and TLS 1.3 with servers that have nothing else.
#[derive(Debug)]
pub(super) struct Tls {
    tls12: ClientConfig,
    tls13: ClientConfig,
    /// Whether the server was seen to refuse TLS 1.2.
    newer: AtomicBool,
}

impl Tls {
    /// Trusts the certificates in `ca_file`, or the system's.
    pub(super) fn new(ca_file: Option<&Path>) -> Result<Self, StoreError> {
        let roots = match ca_file {
            Some(path) => of_file(path)?,
            None => of_system()?,
        };
        Ok(Self { tls12: config(roots.clone(), &TLS12)?, tls13: config(roots, &TLS13)?, newer: AtomicBool::new(false) })
    }

    /// What connects one control connection and its data connections. Each has sessions of its own:
    /// those of another control connection are worth nothing on its data connections.
    pub(super) fn connector(&self) -> AsyncRustlsConnector {
        let mut config = if self.is_newer() { &self.tls13 } else { &self.tls12 }.clone();
        config.resumption = Resumption::in_memory_sessions(SESSIONS);
        AsyncRustlsConnector::from(TlsConnector::from(Arc::new(config)))
    }

    /// Speaks TLS 1.3 from now on, because the server refused TLS 1.2.
    pub(super) fn speak_newer(&self) {
        self.newer.store(true, Ordering::Relaxed);
    }

    /// Whether TLS 1.3 is spoken.
    pub(super) fn is_newer(&self) -> bool {
        self.newer.load(Ordering::Relaxed)
    }
}

fn config(roots: RootCertStore, version: &'static SupportedProtocolVersion) -> Result<ClientConfig, StoreError> {
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&[version])
        .map_err(|error| StoreError::Unusable(format!("TLS: {error}")))?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

fn of_file(path: &Path) -> Result<RootCertStore, StoreError> {
    let unusable = |text: String| StoreError::Unusable(format!("[store] ca_file {}: {text}", path.display()));
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path).map_err(|error| unusable(error.to_string()))? {
        let certificate = certificate.map_err(|error| unusable(error.to_string()))?;
        roots.add(certificate).map_err(|error| unusable(error.to_string()))?;
    }
    if roots.is_empty() { Err(unusable("it holds no certificate".into())) } else { Ok(roots) }
}

fn of_system() -> Result<RootCertStore, StoreError> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let why = found.errors.first().map(|error| format!(": {error}")).unwrap_or_default();
        return Err(StoreError::Unusable(format!(
            "the system has no trusted certificates{why}; name some in [store] ca_file"
        )));
    }
    Ok(roots)
}
