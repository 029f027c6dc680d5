//! The server: from a configuration to a listening socket, and at SIGTERM back again.
//!
//! Three kinds of threads: actix's workers parse requests and write answers, and run the first slice of a
//! call; the services' threads hold connections to store and database, and wait; the guests' threads run
//! what takes longer. None of them can hold up another kind.

use std::net::{SocketAddr, TcpListener};

use actix_web::{dev::ServerHandle, web::Data};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

mod connect;
mod descriptors;
mod followed;
mod web;

use crate::{
    config::{Config, seconds},
    security::Tls,
    state::{StartError, State},
};

/// How many threads hold connections and wait.
const SERVICE_THREADS: usize = 2;

/// A server that is about to run.
pub struct Server {
    services: tokio::runtime::Runtime,
    state: Data<State>,
    listener: TcpListener,
    address: SocketAddr,
}

impl Server {
    /// Binds the address, lets this process open as much as it may, and makes the services, which probes the
    /// store and migrates the database.
    ///
    /// # Errors
    /// When the address is taken, or a service can't be made.
    pub fn bind(config: Config) -> Result<Self, StartError> {
        descriptors::raise();
        let listen = config.server.listen;
        let bound = TcpListener::bind(listen).and_then(|listener| Ok((listener.local_addr()?, listener)));
        let (address, listener) = bound.map_err(|error| StartError::Io(format!("cannot listen on {listen}"), error))?;
        let services = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(SERVICE_THREADS)
            .thread_name("service")
            .enable_all()
            .build()
            .map_err(|error| StartError::Io("cannot start threads".into(), error))?;
        let state = services.block_on(State::build(config, address))?;
        Ok(Self { services, state: Data::new(state), listener, address })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The same as a URL.
    #[must_use]
    pub fn url(&self) -> String {
        let scheme = if self.state.tls().is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }

    /// Serves until SIGTERM, SIGINT or the handle that `started` gets says so; then stops to listen,
    /// lets what is under way end, and sees history written.
    ///
    /// # Errors
    /// When the socket fails.
    pub fn run(self, started: impl FnOnce(ServerHandle)) -> Result<(), StartError> {
        let failed = |error| StartError::Io("the server failed".into(), error);
        let url = self.url();
        let (tls, state) = (self.state.tls().map(Tls::config), self.state.clone());
        let closing = self.state.closing().clone();
        let limit = seconds(self.state.config().server.shutdown_seconds);
        actix_web::rt::System::new().block_on(async move {
            let signals = Signals::listen().map_err(failed)?;
            let running = web::listen(self.listener, tls, state).map_err(failed)?;
            tracing::info!("listening on {url}");
            let handle = running.handle();
            started(handle.clone());
            actix_web::rt::spawn(signals.stop(handle, closing));
            running.await.map_err(failed)
        })?;
        self.services.block_on(async {
            self.state.jobs().shutdown(limit).await;
            self.state.invoker().shutdown(limit).await;
            self.state.audit().flushed(std::time::Duration::from_secs(5)).await;
            self.state.tokens().leave().await;
            self.state.database().close().await;
        });
        tracing::info!("stopped");
        Ok(())
    }
}

/// The signals that stop the server.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// From now on they no longer end the process by themselves.
    fn listen() -> std::io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Waits for one, and stops the server as soon as what is under way has ended.
    async fn stop(mut self, server: ServerHandle, closing: CancellationToken) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
        tracing::info!("stopping");
        closing.cancel();
        server.stop(true).await;
    }
}
