//! On PostgreSQL: run where `SHARPFAAS_TEST_POSTGRES` is set, which `postgres.sh start` prints.
//!
//! Each test has a database of its own on that server; those that stop the server have a server of their own.

use std::{
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use sea_orm::{ConnectionTrait, DatabaseConnection};
use sharpfaas_host::{
    catalog::{Catalog, Settings},
    config::{DatabaseConfig, Secret},
    database::{Database, DatabaseError},
    function::{FunctionRef, Manifest, PushId, Selector, Version},
    store::{Commit, FunctionStore, dir::DirStore},
};
use tempfile::TempDir;
use uuid::Uuid;

use crate::database::{Fixture, audit, config, each_database_test, ended, lane, name, pushed, running, version};

/// A server: where it is, and its password.
#[derive(Debug, Clone)]
pub(super) struct Server {
    pub(super) url: String,
    pub(super) password: String,
}

impl Server {
    /// The one that the environment names.
    fn shared() -> Option<Self> {
        let Ok(url) = std::env::var("SHARPFAAS_TEST_POSTGRES") else {
            eprintln!("not run: SHARPFAAS_TEST_POSTGRES is not set");
            return None;
        };
        Some(Self { url, password: std::env::var("SHARPFAAS_TEST_POSTGRES_PASSWORD").unwrap_or_default() })
    }

    fn password(&self) -> Option<Secret> {
        Some(Secret::new(self.password.clone()))
    }

    /// A new, empty database on it.
    async fn create(&self) -> DatabaseConfig {
        let name = format!("test_{}", Uuid::now_v7().simple());
        let mut url = url::Url::parse(&self.url).expect("a URL");
        url.set_password(Some(&self.password)).expect("a host");
        let server: DatabaseConnection = sea_orm::Database::connect(url.to_string()).await.expect("connected");
        server.execute_unprepared(&format!("CREATE DATABASE {name}")).await.expect("created");
        url.set_password(None).expect("a host");
        url.set_path(&name);
        config(url.into())
    }
}

async fn fixture() -> Option<Fixture<()>> {
    let server = Server::shared()?;
    let database = Database::connect(&server.create().await, server.password()).await.expect("connected");
    Some(Fixture { database, guard: () })
}

each_database_test!(fixture);

#[tokio::test]
async fn servers_that_start_at_once_migrate_once() {
    let Some(server) = Server::shared() else { return };
    let config = server.create().await;
    let starts = (0..4).map(|_| Database::connect(&config, server.password()));
    let databases = futures_util::future::try_join_all(starts).await.expect("all start");
    databases[0].insert_versions([&pushed("f", "dev", 1, 0)]).await.expect("inserted");
    assert_eq!(databases[3].count_versions().await, Ok(1));
}

#[tokio::test]
async fn the_audit_is_append_only() {
    let Some(server) = Server::shared() else { return };
    let config = server.create().await;
    let database = Database::connect(&config, server.password()).await.expect("connected");
    let mut url = url::Url::parse(&config.url).expect("a URL");
    url.set_password(Some(&server.password)).expect("a host");
    audit::entries_are_written_once(&database, url.as_str()).await;
}

#[tokio::test]
async fn a_row_that_is_refused_holds_up_no_other() {
    let Some(fixture) = fixture().await else { return };
    let mut rows: Vec<_> = (0..3).map(|_| ended(&running("f"))).collect();
    rows[1].node = "no\0text".into();
    fixture.database.save(&rows).await.expect("the others are saved");
    assert_eq!(fixture.database.invocation(rows[0].id).await, Ok(Some(rows[0].clone())));
    assert_eq!(fixture.database.invocation(rows[1].id).await, Ok(None));
    assert_eq!(fixture.database.invocation(rows[2].id).await, Ok(Some(rows[2].clone())));
}

#[tokio::test]
async fn a_start_without_the_server_says_so_in_time() {
    let Some(server) = Server::shared() else { return };
    let good = server.create().await;
    let wrong = Database::connect(&good, Some(Secret::new("wrong-password".into()))).await.expect_err("refused");
    let text = wrong.to_string();
    assert!(text.contains(&good.url) && text.contains("password"), "{text}");
    assert!(!text.contains("wrong-password"), "{text}");

    let closed = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("its number");
    let mut config = config(format!("postgres://x@{closed}/x"));
    config.timeout_seconds = 1;
    let start = Instant::now();
    let error = Database::connect(&config, None).await.expect_err("nobody is there");
    assert!(matches!(&error, DatabaseError::Unavailable(text) if text.contains(&config.url)), "{error}");
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
}

/// A server that the test may stop.
pub(super) struct Own {
    folder: TempDir,
    pub(super) server: Server,
}

impl Own {
    pub(super) fn start() -> Self {
        let folder = TempDir::new().expect("a folder");
        let printed = script("start", &folder);
        let value = |key: &str| {
            let line = printed.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
            line.unwrap_or_else(|| panic!("no {key} in {printed}")).to_owned()
        };
        let server =
            Server { url: value("SHARPFAAS_TEST_POSTGRES"), password: value("SHARPFAAS_TEST_POSTGRES_PASSWORD") };
        Self { folder, server }
    }

    pub(super) fn tell(&self, command: &str) {
        script(command, &self.folder);
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        self.tell("stop");
    }
}

fn script(command: &str, folder: &TempDir) -> String {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/services/postgres.sh");
    let output = Command::new(script).arg(command).arg(folder.path()).output().expect("the script runs");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command}: {out}{err}");
    out.into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_is_said_in_time_and_needs_no_restart() {
    if Server::shared().is_none() {
        return;
    }
    let own = Own::start();
    let mut config = own.server.create().await;
    config.timeout_seconds = 1;
    config.connections = 4;
    let database = Database::connect(&config, own.server.password()).await.expect("connected");
    let mut known = 0;
    // Stopped and started; stopped and started between two calls, so that every connection is dead and
    // nobody knows yet; there, but without an answer.
    for (away, back) in [(Some("stop"), "start"), (None, "restart"), (Some("freeze"), "thaw")] {
        // Every connection of the pool is open.
        let pings = futures_util::future::join_all((0..8).map(|_| database.ping())).await;
        assert!(pings.iter().all(Result::is_ok), "{pings:?}");
        if let Some(away) = away {
            own.tell(away);
            let start = Instant::now();
            let calls = (0..8).map(|_| async {
                let row = running("f");
                let answers = (database.ping().await, database.save(&[row]).await, database.count_versions().await);
                matches!(
                    answers,
                    (
                        Err(DatabaseError::Unavailable(_)),
                        Err(DatabaseError::Unavailable(_)),
                        Err(DatabaseError::Unavailable(_))
                    )
                )
            });
            let answers = futures_util::future::join_all(calls).await;
            assert!(answers.iter().all(|unavailable| *unavailable), "{away}: {answers:?}");
            // Three calls after one another, of a second each.
            assert!(start.elapsed() < Duration::from_secs(4), "{away}: {:?}", start.elapsed());
        }
        own.tell(back);
        known += 1;
        database.insert_versions([&pushed("f", "dev", 1, known)]).await.expect(back);
        assert_eq!(database.count_versions().await, Ok(u64::from(known)), "{back}");
    }
}

/// Publishes a version that the catalog does not hear of.
async fn publish(store: &DirStore, function: &str, at: Version) -> FunctionRef {
    let it = pushed(function, "dev", at.major, at.minor);
    let manifest = Manifest {
        push_id: PushId::generate(),
        name: it.location.name.clone(),
        lane: it.location.lane.clone(),
        kind: it.kind,
        entry: it.entry,
        shape: it.shape,
        asks: it.asks.map(|asks| *asks),
        sha256: it.sha256,
        size: it.size,
        pushed_at: it.pushed_at,
        pushed_by: it.pushed_by,
        sharpfaas_version: "0.1.0".into(),
    };
    let package = tempfile::NamedTempFile::new().expect("a file");
    let json = serde_json::to_vec(&manifest).expect("JSON");
    store.stage(manifest.push_id, package.path(), &json).await.expect("staged");
    assert_eq!(store.commit(manifest.push_id, &it.location).await.expect("committed"), Commit::Done);
    FunctionRef::from_manifest(manifest, at)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_and_pushes_go_on_while_the_database_is_away() {
    if Server::shared().is_none() {
        return;
    }
    let own = Own::start();
    let mut config = own.server.create().await;
    config.timeout_seconds = 2;
    let database = Database::connect(&config, own.server.password()).await.expect("connected");
    let folder = TempDir::new().expect("a folder");
    let store = DirStore::new(folder.path());
    publish(&store, "known", version(1, 0)).await;
    publish(&store, "unasked", version(1, 0)).await;
    let settings = Settings {
        fresh: Duration::from_millis(1),
        patience: Duration::from_millis(300),
        retry: Duration::from_millis(50),
        ..Settings::default()
    };
    let catalog = Catalog::new(database.clone(), Arc::new(store.clone()), settings);
    let dev = lane("dev");
    let resolve = async |function: &str| {
        let found = catalog.resolve(&name(function), &dev, Selector::Latest).await;
        found.map(|it| it.location.version).map_err(|error| error.to_string())
    };
    assert_eq!(resolve("known").await, Ok(version(1, 0)));
    let wait_for = async |is_so: &dyn Fn() -> bool| {
        let start = Instant::now();
        while !is_so() {
            assert!(start.elapsed() < Duration::from_secs(20), "it never came to be so");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    wait_for(&|| catalog.is_complete()).await;

    for (minor, (away, back)) in (1..).zip([("stop", "start"), ("freeze", "thaw")]) {
        own.tell(away);
        let start = Instant::now();
        // One waits for the database, in vain; nobody after it.
        assert_eq!(resolve("known").await, Ok(version(1, minor - 1)), "{away}");
        assert!(start.elapsed() < Duration::from_secs(1), "{away}: {:?}", start.elapsed());
        let start = Instant::now();
        for _ in 0..100 {
            assert_eq!(resolve("known").await, Ok(version(1, minor - 1)), "{away}");
        }
        assert_eq!(resolve("unasked").await, Ok(version(1, 0)), "from the store");
        assert!(start.elapsed() < Duration::from_millis(500), "{away}: {:?}", start.elapsed());
        assert!(catalog.is_impaired());
        // A push.
        assert_eq!(catalog.newest(&name("known"), &dev).await.expect("the store says"), Some(version(1, minor - 1)));
        let function = publish(&store, "known", version(1, minor)).await;
        let at = catalog.record(function).await.location.clone();
        assert_eq!(resolve("known").await, Ok(version(1, minor)));
        own.tell(back);
        wait_for(&|| !catalog.is_impaired()).await;
        let inserted = database.version(&at).await.expect("it is back");
        assert_eq!(inserted.map(|it| it.location.version), Some(version(1, minor)), "{back}");
    }
}
