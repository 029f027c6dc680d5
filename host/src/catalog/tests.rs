//! The catalog on SQLite and a store in memory that counts what is asked of it.
//!
//! Most tests use a catalog without its tasks, so that what happens in the store is what they asked for.

use std::{sync::Arc, time::Duration};

use tempfile::TempDir;

use super::{Catalog, CatalogError, Settings};
use crate::{
    config::DatabaseConfig,
    database::Database,
    function::{FunctionName, FunctionRef, FunctionType, Lane, Location, PushId, Selector, Version},
    store::Commit,
};

mod outage;
mod pushing;
mod resolving;
mod store;
mod walking;

use store::MemoryStore;

const EVER: Duration = Duration::from_secs(3600);

fn name(text: &str) -> FunctionName {
    text.parse().unwrap()
}

fn lane(text: &str) -> Lane {
    text.parse().unwrap()
}

fn v(major: u32, minor: u32) -> Version {
    Version { major, minor }
}

fn exact(major: u32, minor: u32) -> Selector {
    Selector::Exact(v(major, minor))
}

fn at(lane_name: &str, version: Version, function: &str) -> Location {
    Location { lane: lane(lane_name), version, name: name(function) }
}

/// A server: a database of its own on a store that others may share.
struct Server {
    catalog: Catalog,
    database: Database,
    store: Arc<MemoryStore>,
    folder: TempDir,
}

/// Where every answer is good for ever, so that all that is asked again is asked for a reason.
fn settled() -> Settings {
    Settings { fresh: EVER, missing: EVER, refresh: None, ..Settings::default() }
}

/// Where no answer is good for longer than the moment.
fn restless() -> Settings {
    Settings { fresh: Duration::ZERO, missing: Duration::ZERO, refresh: None, patience: EVER, ..Settings::default() }
}

impl Server {
    async fn start(store: &Arc<MemoryStore>, settings: Settings) -> Self {
        let folder = TempDir::new().unwrap();
        let database = connect(&folder).await;
        let catalog = Catalog::idle(database.clone(), store.clone(), settings);
        Self { catalog, database, store: store.clone(), folder }
    }

    /// The version that a call gets.
    async fn resolve(&self, function: &str, lane_name: &str, selector: Selector) -> Result<Version, CatalogError> {
        let found = self.catalog.resolve(&name(function), &lane(lane_name), selector).await?;
        assert_eq!((found.location.name.as_str(), found.location.lane.as_str()), (function, lane_name));
        Ok(found.location.version)
    }

    async fn newest(&self, function: &str) -> Version {
        self.resolve(function, "dev", Selector::Latest).await.unwrap()
    }

    /// Publishes as the publisher does: the next number, and the one after it where that is taken.
    async fn push(&self, function: &str, lane_name: &str, new_major: bool) -> Result<Arc<FunctionRef>, CatalogError> {
        let (function, lane) = (name(function), lane(lane_name));
        self.catalog.check_push(&function, &lane, FunctionType::Dll).await?;
        let mut version = Version::after(self.catalog.newest(&function, &lane).await?, new_major);
        let push = PushId::generate();
        let manifest = store::manifest(push, &function, &lane, FunctionType::Dll);
        self.store.stage_manifest(push, &manifest);
        loop {
            let at = Location { lane: lane.clone(), version, name: function.clone() };
            match self.store.commit_staged(push, &at)? {
                Commit::Done => return Ok(self.catalog.record(FunctionRef::from_manifest(manifest, version)).await),
                Commit::Taken => version = version.next_minor(),
            }
        }
    }
}

async fn connect(folder: &TempDir) -> Database {
    let url = format!("sqlite:{}", folder.path().join("x.db").display());
    let config = DatabaseConfig { url, timeout_seconds: 1, ..DatabaseConfig::default() };
    Database::connect(&config, None).await.unwrap()
}

/// Waits until it is so; a test that waits in vain fails.
async fn until<F: Future<Output = bool>>(mut is_so: impl FnMut() -> F) {
    let wait = async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), wait).await.expect("it never came to be so");
}
