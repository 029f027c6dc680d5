//! An FTP server in this process, which can be killed and started again.

use std::{
    fmt::Debug,
    io::Cursor,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::mpsc,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use libunftp::{
    ServerBuilder,
    options::{FtpsRequired, TlsFlags},
};
use tokio::{io::AsyncRead, net::TcpListener, sync::oneshot};
use unftp_core::{
    auth::{DefaultUser, UserDetail},
    storage::{Fileinfo, Metadata, Result, StorageBackend},
};
use unftp_sbe_fs::Filesystem;

/// A server for a folder. It dies with this value, and all its connections with it.
pub struct FtpServer {
    pub address: SocketAddr,
    root: PathBuf,
    options: Options,
    running: Option<Running>,
}

/// What a server does and does not.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    pub rename: Rename,
    /// The TLS versions that it speaks, on both channels and nothing else; none: it has no TLS.
    pub tls: Option<TlsFlags>,
}

struct Running {
    stop: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

/// How a rename onto a folder that holds something ends.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Rename {
    /// In an error, as a store needs it.
    #[default]
    Fails,
    /// In the loss of what was there.
    Replaces,
}

impl FtpServer {
    pub fn start(root: &Path, options: Options) -> Self {
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut server = Self { address, root: root.into(), options, running: None };
        server.restart();
        server
    }

    /// Starts it again, at the same address.
    pub fn restart(&mut self) {
        self.kill();
        let (root, options, address) = (self.root.clone(), self.options, self.address);
        let (stop, stopped) = oneshot::channel();
        let (tell, told) = mpsc::channel();
        // A runtime of its own: when it is shut down, every socket is closed, as after a kill.
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
            runtime.block_on(async move {
                let listener = bind(address).await;
                tell.send(listener.local_addr().unwrap()).unwrap();
                let accept = async {
                    while let Ok((socket, _)) = listener.accept().await {
                        let root = root.clone();
                        tokio::spawn(async move {
                            let rename = options.rename;
                            let storage = Box::new(move || Storage { inner: Filesystem::new(&root).unwrap(), rename });
                            let mut builder = ServerBuilder::new(storage);
                            if let Some(versions) = options.tls {
                                let flags = versions | TlsFlags::RESUMPTION_SESS_ID | TlsFlags::RESUMPTION_TICKETS;
                                builder = builder
                                    .ftps(tls_file("server.pem"), tls_file("server.key"))
                                    .ftps_required(FtpsRequired::All, FtpsRequired::All)
                                    .ftps_tls_flags(flags);
                            }
                            let server = builder.build().unwrap();
                            let _ = server.service(socket).await;
                        });
                    }
                };
                tokio::select! {
                    () = accept => {}
                    _ = stopped => {}
                }
            });
            runtime.shutdown_background();
        });
        self.address = told.recv().expect("the server starts");
        self.running = Some(Running { stop, thread });
    }

    pub fn kill(&mut self) {
        if let Some(running) = self.running.take() {
            let _ = running.stop.send(());
            running.thread.join().expect("the server's thread ends");
        }
    }
}

/// Binds to an address that was ours a moment ago, unless it is the first time: somebody else's connection
/// may have got its port meanwhile, for as long as that takes.
async fn bind(address: SocketAddr) -> TcpListener {
    let began = Instant::now();
    loop {
        match TcpListener::bind(address).await {
            Ok(listener) => return listener,
            Err(error) => assert!(began.elapsed() < Duration::from_secs(30), "{address}: {error}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

impl Drop for FtpServer {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A file of the certificates made for tests alone: `ca.pem` signed `server.pem` for 127.0.0.1.
pub fn tls_file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/common/tls").join(name)
}

#[derive(Debug)]
struct Storage {
    inner: Filesystem,
    rename: Rename,
}

type Meta = <Filesystem as StorageBackend<DefaultUser>>::Metadata;

#[async_trait]
impl<User: UserDetail> StorageBackend<User> for Storage {
    type Metadata = Meta;

    async fn metadata<P: AsRef<Path> + Send + Debug>(&self, user: &User, path: P) -> Result<Meta> {
        self.inner.metadata(user, path).await
    }

    async fn list<P: AsRef<Path> + Send + Debug>(&self, user: &User, path: P) -> Result<Vec<Fileinfo<PathBuf, Meta>>>
    where
        Meta: Metadata,
    {
        self.inner.list(user, path).await
    }

    async fn nlst<P: AsRef<Path> + Send + Debug>(
        &self,
        user: &User,
        path: P,
    ) -> std::result::Result<Cursor<Vec<u8>>, std::io::Error> {
        self.inner.nlst(user, path).await
    }

    async fn get<P: AsRef<Path> + Send + Debug>(
        &self,
        user: &User,
        path: P,
        start: u64,
    ) -> Result<Box<dyn AsyncRead + Send + Sync + Unpin>> {
        self.inner.get(user, path, start).await
    }

    async fn put<P: AsRef<Path> + Send + Debug, R: AsyncRead + Send + Sync + Unpin + 'static>(
        &self,
        user: &User,
        bytes: R,
        path: P,
        start: u64,
    ) -> Result<u64> {
        self.inner.put(user, bytes, path, start).await
    }

    async fn del<P: AsRef<Path> + Send + Debug>(&self, user: &User, path: P) -> Result<()> {
        self.inner.del(user, path).await
    }

    async fn mkd<P: AsRef<Path> + Send + Debug>(&self, user: &User, path: P) -> Result<()> {
        self.inner.mkd(user, path).await
    }

    async fn rename<P: AsRef<Path> + Send + Debug>(&self, user: &User, from: P, to: P) -> Result<()> {
        if self.rename == Rename::Replaces {
            let name = to.as_ref().to_owned();
            let there = self.inner.list(user, &name).await.unwrap_or_default();
            for file in there {
                self.inner.del(user, name.join(file.path)).await?;
            }
        }
        self.inner.rename(user, from, to).await
    }

    async fn rmd<P: AsRef<Path> + Send + Debug>(&self, user: &User, path: P) -> Result<()> {
        self.inner.rmd(user, path).await
    }

    async fn cwd<P: AsRef<Path> + Send + Debug>(&self, user: &User, path: P) -> Result<()> {
        self.inner.cwd(user, path).await
    }
}
