//! TLS: the server's certificate, read again when its files change, and the certificates of clients.

use std::{
    collections::HashMap,
    io,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, SystemTime},
};

use rustls::{
    RootCertStore, ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier},
    sign::CertifiedKey,
};
use tokio_util::task::AbortOnDropHandle;

use crate::config::TlsConfig;

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(1);

/// Why TLS can't be had.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file.
    #[error("[security.tls] {}: {cause}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        cause: String,
    },
    /// The certificates of clients.
    #[error("[security.tls] client_ca_file: {0}")]
    Clients(String),
    /// Anything else.
    #[error("[security.tls]: {0}")]
    Rustls(#[from] rustls::Error),
}

/// The server's side of TLS.
#[derive(Debug)]
pub struct Tls {
    config: ServerConfig,
    clients: HashMap<String, String>,
    /// Reads the certificate again when it changed; ends with this.
    _follower: AbortOnDropHandle<()>,
}

impl Tls {
    /// As configured; its files are followed on that runtime.
    ///
    /// # Errors
    /// When a file can't be read, or certificate and key don't belong together.
    pub fn new(config: &TlsConfig, services: &tokio::runtime::Handle) -> Result<Self, TlsError> {
        let provider = Arc::new(ring::default_provider());
        let stamp = stamp(config);
        let current = Arc::new(Current(RwLock::new(Arc::new(read(config)?))));
        let builder = ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions()?;
        let builder = match &config.client_ca_file {
            None => builder.with_no_client_auth(),
            Some(path) => {
                let mut roots = RootCertStore::empty();
                for certificate in certificates(path)? {
                    roots.add(certificate)?;
                }
                let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider);
                // Who has none shows a token.
                let verifier = verifier.allow_unauthenticated().build();
                builder.with_client_cert_verifier(verifier.map_err(|error| TlsError::Clients(error.to_string()))?)
            }
        };
        let follower = services.spawn(follow(config.clone(), current.clone(), stamp));
        Ok(Self {
            config: builder.with_cert_resolver(current),
            clients: config.clients.iter().map(|(name, token)| (name.to_ascii_lowercase(), token.clone())).collect(),
            _follower: AbortOnDropHandle::new(follower),
        })
    }

    /// What the web server takes.
    #[must_use]
    pub fn config(&self) -> ServerConfig {
        self.config.clone()
    }

    /// The token that stands for a client with such a certificate, which has been verified.
    #[must_use]
    pub fn token_of(&self, certificate: &CertificateDer<'_>) -> Option<&str> {
        let certificate = webpki::EndEntityCert::try_from(certificate).ok()?;
        let token = certificate.valid_dns_names().find_map(|name| self.clients.get(&name.to_ascii_lowercase()));
        token.map(String::as_str)
    }
}

/// The certificate that new connections get.
#[derive(Debug)]
struct Current(RwLock<Arc<CertifiedKey>>);

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        // What is in it is whole, whatever panicked.
        Some(self.0.read().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

fn file(path: &Path, cause: impl std::fmt::Display) -> TlsError {
    TlsError::File { path: path.to_owned(), cause: cause.to_string() }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match read {
        Ok(certificates) if certificates.is_empty() => Err(file(path, "it holds no PEM certificate")),
        Ok(certificates) => Ok(certificates),
        Err(error) => Err(file(path, error)),
    }
}

fn read(config: &TlsConfig) -> Result<CertifiedKey, TlsError> {
    let chain = certificates(&config.cert_file)?;
    let key = PrivateKeyDer::from_pem_file(&config.key_file).map_err(|error| file(&config.key_file, error))?;
    let key = CertifiedKey::from_der(chain, key, &ring::default_provider());
    key.map_err(|error| file(&config.cert_file, format!("it does not go with its key: {error}")))
}

/// When the files last changed, as far as can be told.
fn stamp(config: &TlsConfig) -> [Option<(SystemTime, u64)>; 2] {
    let of = |path: &Path| -> io::Result<(SystemTime, u64)> {
        let metadata = path.metadata()?;
        Ok((metadata.modified()?, metadata.len()))
    };
    [of(&config.cert_file).ok(), of(&config.key_file).ok()]
}

/// Reads the certificate again whenever its files change. While they are not right, which they may be between two
/// writes, the last that was right stays.
async fn follow(config: TlsConfig, current: Arc<Current>, mut known: [Option<(SystemTime, u64)>; 2]) {
    let mut told = None;
    loop {
        tokio::time::sleep(LOOK).await;
        let now = stamp(&config);
        if now == known {
            continue;
        }
        match read(&config) {
            Ok(key) => {
                *current.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(key);
                known = now;
                told = None;
                tracing::info!(certificate = %config.cert_file.display(), "the certificate was read again");
            }
            Err(error) if told != Some(now) => {
                told = Some(now);
                tracing::error!(%error, "the changed certificate cannot be used; the last one stays");
            }
            Err(_) => {}
        }
    }
}
