//! On real FTP servers: each run where its variable is set, which `ftp.sh start` prints.
//!
//! The tests share a server, each in a folder of its own on it; those that kill or hold the server have
//! a server of their own.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use sharpfaas_host::{
    config::{Secret, StoreConfig},
    function::Version,
    store::{Commit, FunctionStore, StoreError},
};
use tempfile::TempDir;
use uuid::Uuid;

use crate::store::{
    Backend,
    conformance::{Push, at, conformance},
};

/// What `ftp.sh` tells of a server.
struct Server {
    url: String,
    password: Option<Secret>,
    root: PathBuf,
    ca_file: Option<PathBuf>,
}

impl Server {
    /// The server of this variable, of what `get` knows.
    fn find(variable: &str, get: impl Fn(&str) -> Option<String>) -> Option<Self> {
        Some(Self {
            url: get(variable)?,
            password: get(&format!("{variable}_PASSWORD")).map(Secret::new),
            root: get(&format!("{variable}_ROOT"))?.into(),
            ca_file: get(&format!("{variable}_CA")).map(PathBuf::from),
        })
    }

    /// The one that the environment names.
    fn shared(variable: &str) -> Option<Self> {
        let server = Self::find(variable, |name| std::env::var(name).ok());
        if server.is_none() {
            println!("skipped: {variable} is not set");
        }
        server
    }

    /// A store in a folder of its own.
    fn backend(&self, guard: impl Send + 'static) -> Backend {
        let folder = Uuid::now_v7().to_string();
        let path = self.root.join(&folder);
        let config = StoreConfig {
            url: format!("{}/{folder}/store", self.url).parse().unwrap(),
            ca_file: self.ca_file.clone(),
            ..StoreConfig::default()
        };
        let guard = Box::new((Folder(path.clone()), guard));
        Backend { config, password: self.password.clone(), path: path.join("store"), _guard: guard }
    }
}

/// A folder that is removed in the end.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A server for one test.
struct Private {
    name: &'static str,
    dir: TempDir,
}

impl Private {
    /// Started where the shared one is there too, which tells that this machine has such servers.
    fn start(name: &'static str) -> Option<(Self, Server)> {
        let variable = format!("SHARPFAAS_TEST_FTP_{}", name.to_uppercase().replace('-', "_"));
        Server::shared(&variable)?;
        let private = Self { name, dir: TempDir::new().unwrap() };
        // Servers change to another user, who must get through.
        fs::set_permissions(private.dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let lines = private.run("start");
        let get = |name: &str| {
            lines.lines().find_map(|line| line.split_once('=').filter(|(key, _)| *key == name)).map(|(_, it)| it.into())
        };
        let server = Server::find(&variable, get).expect("the script tells where the server is");
        Some((private, server))
    }

    fn run(&self, verb: &str) -> String {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/services/ftp.sh");
        let output = Command::new(script).arg(verb).arg(self.dir.path()).arg(self.name).output().unwrap();
        assert!(output.status.success(), "{verb}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }
}

impl Drop for Private {
    fn drop(&mut self) {
        self.run("delete");
    }
}

/// Does a step until the store can be reached; for a minute.
async fn insist<T, F: Future<Output = Result<T, StoreError>>>(step: impl Fn() -> F) -> T {
    let began = Instant::now();
    loop {
        match step().await {
            Ok(done) => return done,
            Err(StoreError::Unavailable(_)) if began.elapsed() < Duration::from_secs(60) => {
                tokio::time::sleep(Duration::from_millis(20)).await
            }
            Err(other) => panic!("{other}"),
        }
    }
}

/// Pushes to the first number that is free.
async fn publish(store: &Arc<dyn FunctionStore>) -> (Push, Version) {
    let push = Push::new(200_000);
    insist(|| store.stage(push.id, &push.package, &push.manifest)).await;
    let mut location = at("dev", "1.0", "f");
    while insist(|| store.commit(push.id, &location)).await == Commit::Taken {
        location.version = location.version.next_minor();
    }
    (push, location.version)
}

/// Four clients push while the server is killed and started again.
async fn versions_are_whole_while_the_server_is_killed(name: &'static str) {
    let Some((private, server)) = Private::start(name) else { return };
    let mut backend = server.backend(());
    backend.config.timeout_seconds = 2;
    let done = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let (store, done) = (backend.open(), done.clone());
            tokio::spawn(async move {
                let mut pushed = Vec::new();
                while !done.load(Ordering::Relaxed) {
                    pushed.push(publish(&store).await);
                }
                pushed
            })
        })
        .collect();
    let store = backend.open();
    for round in 0..8 {
        // Each time at another point of someone's work: after some more pushes are through.
        publish(&store).await;
        tokio::time::sleep(Duration::from_millis(round * 7)).await;
        tokio::task::block_in_place(|| private.run("restart"));
    }
    done.store(true, Ordering::Relaxed);
    let mut versions = Vec::new();
    for client in clients {
        for (push, version) in client.await.unwrap() {
            let location = at("dev", &version.to_string(), "f");
            push.verify(&store, &location).await;
            versions.push(version);
        }
    }
    let there = store.versions(&at("dev", "1.0", "f").lane).await.unwrap();
    assert_eq!(there, (0..there.len()).map(|i| Version { major: 1, minor: i as u32 }).collect::<Vec<_>>());
    assert_eq!(there.len(), versions.len() + 8, "no number is lost, and none was given twice");
}

/// A server that stands still is unavailable in bounded time, and is used again when it goes on.
async fn a_server_that_is_held_is_unavailable_until_it_goes_on(name: &'static str) {
    let Some((private, server)) = Private::start(name) else { return };
    let mut backend = server.backend(());
    backend.config.timeout_seconds = 1;
    let store = backend.open();
    let (push, version) = publish(&store).await;
    private.run("freeze");
    let began = Instant::now();
    let calls: Vec<_> = (0..20)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move { store.manifest(&at("dev", "1.0", "f")).await })
        })
        .collect();
    for call in calls {
        let error = call.await.unwrap().unwrap_err();
        assert!(matches!(error, StoreError::Unavailable(_)), "{error}");
    }
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    private.run("thaw");
    // It first answers those that are gone.
    insist(|| store.ping()).await;
    push.verify(&store, &at("dev", &version.to_string(), "f")).await;
}

macro_rules! servers {
    ($($module:ident $name:literal $variable:literal,)*) => {
        $(
            mod $module {
                use super::*;

                async fn start() -> Option<Backend> {
                    Server::shared($variable).map(|server| server.backend(()))
                }

                conformance!(start);

                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn versions_are_whole_while_the_server_is_killed() {
                    super::versions_are_whole_while_the_server_is_killed($name).await;
                }

                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn a_server_that_is_held_is_unavailable_until_it_goes_on() {
                    super::a_server_that_is_held_is_unavailable_until_it_goes_on($name).await;
                }
            }
        )*
    };
}

servers! {
    vsftpd "vsftpd" "SHARPFAAS_TEST_FTP_VSFTPD",
    vsftpd_tls "vsftpd-tls" "SHARPFAAS_TEST_FTP_VSFTPD_TLS",
    pure_ftpd "pure-ftpd" "SHARPFAAS_TEST_FTP_PURE_FTPD",
    pure_ftpd_tls "pure-ftpd-tls" "SHARPFAAS_TEST_FTP_PURE_FTPD_TLS",
    proftpd "proftpd" "SHARPFAAS_TEST_FTP_PROFTPD",
    proftpd_tls "proftpd-tls" "SHARPFAAS_TEST_FTP_PROFTPD_TLS",
}

#[tokio::test]
async fn a_certificate_of_another_ca_is_refused() {
    for variable in
        ["SHARPFAAS_TEST_FTP_VSFTPD_TLS", "SHARPFAAS_TEST_FTP_PURE_FTPD_TLS", "SHARPFAAS_TEST_FTP_PROFTPD_TLS"]
    {
        let Some(server) = Server::shared(variable) else { continue };
        let mut backend = server.backend(());
        let others =
            std::env::vars().filter(|(name, _)| name.starts_with("SHARPFAAS_TEST_FTP") && name.ends_with("_CA"));
        let other = others.map(|(_, path)| PathBuf::from(path)).find(|path| Some(path) != server.ca_file.as_ref());
        backend.config.ca_file = Some(other.expect("the CA of another server"));
        let error = backend.open().ping().await.unwrap_err();
        assert!(matches!(&error, StoreError::Unusable(text) if text.contains("certificate")), "{error}");
    }
}

#[tokio::test]
async fn a_wrong_password_is_refused() {
    for variable in ["SHARPFAAS_TEST_FTP_PURE_FTPD", "SHARPFAAS_TEST_FTP_PROFTPD", "SHARPFAAS_TEST_FTP_PROFTPD_TLS"] {
        let Some(server) = Server::shared(variable) else { continue };
        let mut backend = server.backend(());
        backend.password = Some(Secret::new("wrong".into()));
        let error = backend.open().ping().await.unwrap_err();
        assert!(matches!(&error, StoreError::Unusable(text) if text.contains("530")), "{error}");
    }
}
