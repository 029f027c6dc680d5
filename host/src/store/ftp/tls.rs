//! Explicit TLS (RFC 4217) by rustls.

use std::{path::Path, sync::Arc};

use rustls::{
    ClientConfig, RootCertStore,
    client::Resumption,
    pki_types::{CertificateDer, pem::PemObject},
};
use suppaftp::{tokio::AsyncRustlsConnector, tokio_rustls::TlsConnector};

use crate::store::StoreError;

/// How many TLS sessions a connection keeps for its data connections.
const SESSIONS: usize = 8;

/// Whom to trust.
#[derive(Debug, Clone)]
pub(super) struct Tls(Arc<ClientConfig>);

impl Tls {
    /// Trusts the certificates in `ca_file`, or the system's.
    pub(super) fn new(ca_file: Option<&Path>) -> Result<Self, StoreError> {
        let roots = match ca_file {
            Some(path) => of_file(path)?,
            None => of_system()?,
        };
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| StoreError::Unusable(format!("TLS: {error}")))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self(Arc::new(config)))
    }

    /// What connects one control connection and its data connections. Each has sessions of its own:
    /// servers that want the session of the control connection on the data connection (vsftpd's
    /// `require_ssl_reuse`, proftpd by default) know no other.
    pub(super) fn connector(&self) -> AsyncRustlsConnector {
        let mut config = ClientConfig::clone(&self.0);
        config.resumption = Resumption::in_memory_sessions(SESSIONS);
        AsyncRustlsConnector::from(TlsConnector::from(Arc::new(config)))
    }
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
