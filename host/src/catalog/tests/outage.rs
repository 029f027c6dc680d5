//! Without the database, and without the store.

use std::sync::atomic::Ordering::SeqCst;

use sea_orm::{ConnectionTrait, TransactionOptions, TransactionTrait};

use super::*;

#[tokio::test]
async fn without_the_database_memory_and_the_store_answer() {
    let store = MemoryStore::new().holding("dev", "stored", &[3]);
    let server = Server::start(&store, restless()).await;
    server.push("f", "dev", false).await.unwrap();
    server.catalog.refresh().await.unwrap();
    server.database.close().await;
    // From memory, however stale.
    assert_eq!(server.newest("f").await, v(1, 0));
    assert!(server.catalog.is_impaired());
    // From the store.
    assert_eq!(server.newest("stored").await, v(1, 2));
    assert_eq!(server.resolve("stored", "dev", exact(1, 1)).await.unwrap(), v(1, 1));
    assert!(server.resolve("nothing", "dev", Selector::Latest).await.unwrap_err().is_answer());
    // Pushing goes on.
    for minor in 1..4 {
        assert_eq!(server.push("f", "dev", false).await.unwrap().location.version, v(1, minor));
        assert_eq!(server.newest("f").await, v(1, minor));
    }
    assert_eq!(server.push("new", "dev", false).await.unwrap().location.version, v(1, 0));
    assert_eq!(server.newest("new").await, v(1, 0));
    // What only the database has is not to be had.
    let error = server.catalog.functions(None, 10).await.unwrap_err();
    assert!(matches!(error, CatalogError::Database(_)), "{error}");
}

#[tokio::test]
async fn what_is_pushed_while_the_database_is_away_is_inserted_when_it_is_back() {
    let store = MemoryStore::new();
    let folder = TempDir::new().unwrap();
    let database = connect(&folder).await;
    let settings = Settings { retry: Duration::from_millis(5), ..restless() };
    let catalog = Catalog::new(database.clone(), store.clone(), settings);
    until(|| async { catalog.is_complete() }).await;
    // Another process holds the write lock for longer than a call waits for it.
    let url = format!("sqlite:{}", folder.path().join("x.db").display());
    let other = sea_orm::Database::connect(url).await.unwrap();
    let immediate = TransactionOptions {
        sqlite_transaction_mode: Some(sea_orm::SqliteTransactionMode::Immediate),
        ..TransactionOptions::default()
    };
    let lock = other.begin_with_options(immediate).await.unwrap();
    let server = Server { catalog, database, store, folder };
    let pushed = server.push("f", "dev", false).await.unwrap();
    assert_eq!(server.newest("f").await, v(1, 0));
    assert_eq!(server.database.version(&pushed.location).await.unwrap(), None);
    lock.execute_unprepared("DELETE FROM versions").await.unwrap();
    lock.commit().await.unwrap();
    until(|| async { server.database.version(&pushed.location).await.unwrap().is_some() }).await;
    until(|| async { !server.catalog.is_impaired() }).await;
}

#[tokio::test]
async fn a_store_that_is_away_is_not_asked_for_each_call() {
    let store = MemoryStore::new().holding("dev", "f", &[1]);
    let server = Server::start(&store, restless()).await;
    server.catalog.refresh().await.unwrap();
    store.away.store(true, SeqCst);
    let before = store.asked();
    for i in 0..50 {
        let error = server.resolve(&format!("unknown{i}"), "dev", Selector::Latest).await.unwrap_err();
        assert!(matches!(error, CatalogError::Store(_)), "{error}");
        // What the database knows is answered.
        assert_eq!(server.newest("f").await, v(1, 0));
    }
    let asked = store.asked();
    assert!(asked.lanes - before.lanes + asked.manifests - before.manifests <= 2, "{before:?} {asked:?}");
    assert!(matches!(server.push("f", "dev", false).await, Err(CatalogError::Store(_))));
    // It is asked whether it is back, and then it is used again.
    assert!(!server.catalog.inner.mended().await);
    store.away.store(false, SeqCst);
    assert!(server.catalog.inner.mended().await);
    assert!(server.resolve("unknown", "dev", Selector::Latest).await.unwrap_err().is_answer());
    server.push("f", "dev", false).await.unwrap();
}

#[tokio::test]
async fn a_start_without_the_store_walks_when_it_is_back() {
    let store = MemoryStore::new().holding("dev", "f", &[5]);
    store.away.store(true, SeqCst);
    let folder = TempDir::new().unwrap();
    let database = connect(&folder).await;
    let settings = Settings { retry: Duration::from_millis(5), ..restless() };
    let catalog = Catalog::new(database.clone(), store.clone(), settings);
    let error = catalog.resolve(&name("f"), &lane("dev"), Selector::Latest).await.unwrap_err();
    assert!(matches!(error, CatalogError::Store(_)), "{error}");
    until(|| async { store.asked().pings > 3 }).await;
    store.away.store(false, SeqCst);
    until(|| async { catalog.is_complete() && !catalog.is_impaired() }).await;
    assert_eq!(database.count_versions().await.unwrap(), 5);
}
