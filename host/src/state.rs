//! The services of a server: made here, and nowhere else.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    sync::{Mutex, OwnedSemaphorePermit, Semaphore},
    task::JoinHandle,
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use crate::{
    artifacts::{ArtifactError, Artifacts},
    catalog::{self, Catalog},
    config::{self, Config, ConfigError, Limits, seconds},
    database::{Database, DatabaseError},
    invoke::{Invoker, Parts},
    jobs::Jobs,
    key_values::DatabaseStores,
    publish::Publisher,
    runtime::{Runtime, RuntimeError},
    security::{self, Addresses, Audit, Connections, Payloads, Rate, Tls, TlsError, Tokens, origin::Origins, tokens},
    store::{self, FunctionStore, StoreError},
};

/// How long an answer about what can be reached is good for.
const REACHABLE_FOR: Duration = Duration::from_secs(1);
/// How long the question may take.
const REACHABLE_WITHIN: Duration = Duration::from_secs(5);

/// Why a server does not start. The texts are for whoever runs it.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The database.
    #[error(transparent)]
    Database(#[from] DatabaseError),
    /// The local function folder.
    #[error("the local function folder cannot be used: {0}")]
    Artifacts(#[from] ArtifactError),
    /// TLS.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The guests' runtime.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// Anyone could run code here.
    #[error(
        "cannot listen on {0} without tokens: whoever reaches it could run code here. Start it with \
         --admin-token FILE, which makes a token and writes it there, or name security.admin_token_file; then \
         'sharpfaas token create' makes more"
    )]
    NoTokens(SocketAddr),
    /// A file, socket or thread.
    #[error("{0}: {1}")]
    Io(String, std::io::Error),
}

/// What can be reached.
#[derive(Debug, Clone, Copy)]
pub struct Reachable {
    /// Where packages live.
    pub store: bool,
    /// The SQL database.
    pub database: bool,
}

/// Everything that a request may need.
pub struct State {
    config: Config,
    services: tokio::runtime::Handle,
    invoker: Invoker,
    jobs: Jobs,
    publisher: Arc<Publisher>,
    catalog: Arc<Catalog>,
    store: Arc<dyn FunctionStore>,
    database: Database,
    incoming: PathBuf,
    pushes: Arc<Semaphore>,
    reachable: Mutex<Option<(Instant, Reachable)>>,
    closing: CancellationToken,
    tokens: Tokens,
    audit: Audit,
    origins: Origins,
    payloads: Payloads,
    tls: Option<Tls>,
    connections: Connections,
    addresses: Addresses,
    token_rate: Rate,
    /// Ends with the state.
    _sweeper: AbortOnDropHandle<()>,
}

impl State {
    /// Makes the services on the runtime that this is called on: their connections live as long as it.
    ///
    /// # Errors
    /// When the configuration can't be followed, others than this machine could reach a server without tokens, or
    /// the store or database can't be reached.
    pub async fn build(config: Config, address: SocketAddr) -> Result<Self, StartError> {
        let admin = security::admin::token(&config.security)?;
        let keys = security::payload::keys(&config.security)?;
        let (file, variable) = (config.store.password_file.as_deref(), config.store.password_env.as_deref());
        let password = config::secret("store", "password", file, variable)?;
        let store = store::open(&config.store, password)?;
        let (file, variable) = (config.database.password_file.as_deref(), config.database.password_env.as_deref());
        let password = config::secret("database", "password", file, variable)?;
        let (database, probed) = tokio::join!(Database::connect(&config.database, password), probe(&store));
        let database = database?;
        probed?;

        let services = tokio::runtime::Handle::current();
        let stores = Arc::new(DatabaseStores::new(database.clone(), services.clone(), &config.key_values));
        let runtime = Arc::new(Runtime::new(&config, &Artifacts::packages(&config.artifacts)?, stores)?);
        let artifacts = Artifacts::open(&config.artifacts, &config.limits, store.clone(), runtime.wasm().clone())?;
        let catalog = Arc::new(Catalog::new(database.clone(), store.clone(), catalog::Settings::from(&config.store)));
        let node = node(&config.artifacts.dir)?;
        let abandoned = database.abandon(&node).await?;
        if abandoned > 0 {
            tracing::warn!(calls = abandoned, "calls were under way when this server last ended; they count as failed");
        }
        let publisher =
            Arc::new(Publisher::new(catalog.clone(), store.clone(), artifacts.clone(), config.limits.clone()));
        let tls = config.security.tls.as_ref().map(|tls| Tls::new(tls, &services)).transpose()?;
        if tls.is_none() && !address.ip().is_loopback() {
            tracing::warn!("without [security.tls], tokens and payloads pass in the clear");
        }
        let settings = tokens::Settings {
            configured: admin,
            always: !address.ip().is_loopback(),
            stale_seconds: config.security.stale_seconds,
        };
        let tokens = Tokens::open(database.clone(), node.as_str().into(), settings, &services).await?;
        if !address.ip().is_loopback() && !tokens.any() {
            return Err(StartError::NoTokens(address));
        }
        let parts = Parts {
            catalog: catalog.clone(),
            artifacts,
            runtime,
            database: database.clone(),
            node: node.into(),
            services: services.clone(),
        };
        let incoming = config.artifacts.dir.join("incoming");
        fresh_folder(&incoming).map_err(|error| StartError::Io(format!("cannot use {}", incoming.display()), error))?;
        let payloads = Payloads::new(keys, &config.security, database.clone());
        let sweeper = sweep(store.clone(), payloads.clone(), seconds(config.store.staging_grace_hours * 3600));
        let invoker = Invoker::new(parts, &config.limits, &config.history);
        let closing = CancellationToken::new();
        let jobs =
            Jobs::start(database.clone(), invoker.clone(), catalog.clone(), &config.jobs, closing.clone()).await?;
        Ok(Self {
            invoker,
            jobs,
            pushes: Arc::new(Semaphore::new(usize::try_from(config.limits.pushes).unwrap_or(1))),
            _sweeper: AbortOnDropHandle::new(services.spawn(sweeper)),
            reachable: Mutex::new(None),
            audit: Audit::new(database.clone(), &services),
            origins: Origins::new(&config.security, address),
            payloads,
            tls,
            connections: Connections::new(config.security.address_connections),
            addresses: Addresses::new(config.security.address_rate),
            token_rate: Rate::new(config.security.token_rate),
            tokens,
            closing,
            config,
            services,
            publisher,
            catalog,
            store,
            database,
            incoming,
        })
    }

    /// Runs what needs connections where they live, and sees it through when the caller goes away.
    pub fn spawn<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
        self.services.spawn(work)
    }

    /// The settings.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// What packages and calls may take.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.config.limits
    }

    /// Runs calls.
    #[must_use]
    pub fn invoker(&self) -> &Invoker {
        &self.invoker
    }

    /// Takes jobs in and runs them.
    #[must_use]
    pub fn jobs(&self) -> &Jobs {
        &self.jobs
    }

    /// Publishes packages.
    #[must_use]
    pub fn publisher(&self) -> &Arc<Publisher> {
        &self.publisher
    }

    /// Finds versions.
    #[must_use]
    pub fn catalog(&self) -> &Arc<Catalog> {
        &self.catalog
    }

    /// Keeps history and the catalog.
    #[must_use]
    pub fn database(&self) -> &Database {
        &self.database
    }

    /// The folder for packages that are arriving.
    #[must_use]
    pub fn incoming(&self) -> &Path {
        &self.incoming
    }

    /// A place for a push; `None` where all are taken.
    #[must_use]
    pub fn push_place(&self) -> Option<OwnedSemaphorePermit> {
        self.pushes.clone().try_acquire_owned().ok()
    }

    /// Cancelled when the server is about to stop: connections that are kept open for more are closed.
    #[must_use]
    pub fn closing(&self) -> &CancellationToken {
        &self.closing
    }

    /// Who may come in.
    #[must_use]
    pub fn tokens(&self) -> &Tokens {
        &self.tokens
    }

    /// Who did what.
    #[must_use]
    pub fn audit(&self) -> &Audit {
        &self.audit
    }

    /// Opens encrypted payloads.
    #[must_use]
    pub fn payloads(&self) -> &Payloads {
        &self.payloads
    }

    /// TLS, where it is spoken.
    #[must_use]
    pub fn tls(&self) -> Option<&Tls> {
        self.tls.as_ref()
    }

    /// How many connections addresses have.
    #[must_use]
    pub fn connections(&self) -> &Connections {
        &self.connections
    }

    /// How often addresses may come.
    #[must_use]
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// How often a token may come.
    #[must_use]
    pub fn token_rate(&self) -> &Rate {
        &self.token_rate
    }

    /// Where requests may come from.
    #[must_use]
    pub fn origins(&self) -> &Origins {
        &self.origins
    }

    /// What can be reached now, or could a moment ago: many may ask at once.
    pub async fn reachable(&self) -> Reachable {
        let mut last = self.reachable.lock().await;
        if let Some((at, reachable)) = *last
            && at.elapsed() < REACHABLE_FOR
        {
            return reachable;
        }
        let (store, database) = (self.store.clone(), self.database.clone());
        let asked = self.services.spawn(async move {
            let store = tokio::time::timeout(REACHABLE_WITHIN, store.ping());
            let database = tokio::time::timeout(REACHABLE_WITHIN, database.ping());
            let (store, database) = tokio::join!(store, database);
            Reachable { store: matches!(store, Ok(Ok(()))), database: matches!(database, Ok(Ok(()))) }
        });
        let reachable = asked.await.unwrap_or(Reachable { store: false, database: false });
        *last = Some((Instant::now(), reachable));
        reachable
    }
}

/// A store that can't be used must stop the start; one that can't be reached now may come back.
async fn probe(store: &Arc<dyn FunctionStore>) -> Result<(), StartError> {
    match store.probe().await {
        Err(StoreError::Unavailable(cause)) => {
            tracing::warn!(cause, "the store cannot be reached; what is cached here runs meanwhile");
            Ok(())
        }
        probed => Ok(probed?),
    }
}

/// Removes old staging folders, and the ids of payloads that have expired, now and every hour.
async fn sweep(store: Arc<dyn FunctionStore>, payloads: Payloads, grace: Duration) {
    loop {
        if let Err(error) = payloads.forget().await {
            tracing::debug!(%error, "the ids of expired payloads cannot be forgotten now");
        }
        match store.sweep(grace).await {
            Ok(0) => {}
            Ok(folders) => tracing::info!(folders, "staging folders of pushes that never ended are removed"),
            Err(error) => tracing::debug!(%error, "the store cannot be swept now"),
        }
        tokio::time::sleep(Duration::from_secs(3600)).await;
    }
}

/// The name of this server in history: made once, and kept beside its artifacts.
fn node(folder: &Path) -> Result<String, StartError> {
    let path = folder.join("node");
    let failed = |error| StartError::Io(format!("cannot use {}", path.display()), error);
    match std::fs::read_to_string(&path) {
        Ok(text) if uuid::Uuid::parse_str(text.trim()).is_ok() => return Ok(text.trim().to_owned()),
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
    }
    let node = uuid::Uuid::now_v7().to_string();
    std::fs::write(&path, &node).map_err(failed)?;
    Ok(node)
}

fn fresh_folder(path: &Path) -> std::io::Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    std::fs::create_dir(path)
}
