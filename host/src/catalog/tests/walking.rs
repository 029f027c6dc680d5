//! The walk through the whole store.

use super::*;

#[tokio::test]
async fn a_walk_reads_only_what_is_not_known() {
    let store =
        MemoryStore::new().holding("dev", "f", &[20, 3]).holding("dev", "g", &[5]).holding("production", "f", &[1]);
    let server = Server::start(&store, settled()).await;
    assert!(!server.catalog.is_complete());
    assert_eq!(server.catalog.refresh().await.unwrap(), 29);
    assert!(server.catalog.is_complete());
    assert_eq!(store.asked().manifests, 29);
    assert_eq!(server.database.count_versions().await.unwrap(), 29);
    store.put("production", v(1, 1), "f", FunctionType::Dll);
    assert_eq!(server.catalog.refresh().await.unwrap(), 1);
    assert_eq!(server.catalog.refresh().await.unwrap(), 0);
    assert_eq!(store.asked().manifests, 30);

    let all = server.catalog.functions(None, 10).await.unwrap();
    assert_eq!(all.iter().map(|it| it.name.as_str()).collect::<Vec<_>>(), ["f", "g"]);
    let (summary, versions) = server.catalog.function(&name("f"), 3).await.unwrap();
    assert_eq!(summary, all[0]);
    assert_eq!(versions.iter().map(|it| it.location.version).collect::<Vec<_>>(), [v(2, 2), v(2, 1), v(2, 0)]);
    let error = server.catalog.function(&name("h"), 3).await.unwrap_err();
    assert_eq!(error.to_string(), "there is no function 'h'");
}

#[tokio::test]
async fn a_walk_brings_news_to_what_is_in_memory() {
    let store = MemoryStore::new();
    let server = Server::start(&store, settled()).await;
    server.push("f", "dev", false).await.unwrap();
    store.put("dev", v(1, 1), "f", FunctionType::Dll);
    assert_eq!(server.newest("f").await, v(1, 0));
    server.catalog.refresh().await.unwrap();
    assert_eq!(server.newest("f").await, v(1, 1));
    assert_eq!(server.resolve("f", "dev", Selector::Major(1)).await.unwrap(), v(1, 1));
}

#[tokio::test]
async fn damaged_manifests_are_passed_over() {
    let store = MemoryStore::new().holding("dev", "f", &[4]);
    let of_another = {
        let other = store::manifest(PushId::generate(), &name("g"), &lane("dev"), FunctionType::Dll);
        serde_json::to_vec(&other).unwrap()
    };
    let mut large = of_another.clone();
    large.resize(crate::function::manifest::MAX_MANIFEST_BYTES + 1, b' ');
    for (minor, bytes) in [(2, b"{".to_vec()), (4, of_another), (5, large), (6, b"\xff\xfe".to_vec())] {
        store.write(at("dev", v(1, minor), "f"), bytes);
    }
    for walked in [false, true] {
        let server = Server::start(&store, restless()).await;
        if walked {
            assert_eq!(server.catalog.refresh().await.unwrap(), 3);
            let asked = store.asked().manifests;
            assert_eq!(server.catalog.refresh().await.unwrap(), 0);
            assert_eq!(store.asked().manifests, asked, "damage is not read again and again");
        }
        assert_eq!(server.newest("f").await, v(1, 3));
        let error = server.resolve("f", "dev", exact(1, 2)).await.unwrap_err();
        assert!(
            matches!(error, CatalogError::VersionNotFound { newest: Some(newest), .. } if newest == v(1, 3)),
            "{error}"
        );
        assert_eq!(server.resolve("f", "dev", exact(1, 1)).await.unwrap(), v(1, 1));
    }
}

#[tokio::test]
async fn a_start_walks_in_the_background() {
    let store = MemoryStore::new().holding("dev", "f", &[400, 600]);
    let folder = TempDir::new().unwrap();
    let database = connect(&folder).await;
    let catalog = Catalog::new(database.clone(), store.clone(), settled());
    // Calls are answered meanwhile.
    let newest = catalog.resolve(&name("f"), &lane("dev"), Selector::Latest).await.unwrap();
    assert_eq!(newest.location.version, v(2, 599));
    until(|| async { catalog.is_complete() }).await;
    assert_eq!(database.count_versions().await.unwrap(), 1000);
}

#[tokio::test]
async fn the_store_is_walked_from_time_to_time_until_the_catalog_is_dropped() {
    let store = MemoryStore::new();
    let folder = TempDir::new().unwrap();
    let database = connect(&folder).await;
    let settings = Settings { refresh: Some(Duration::from_millis(5)), ..settled() };
    let catalog = Catalog::new(database.clone(), store.clone(), settings);
    for minor in 0..3 {
        store.put("dev", v(1, minor), "f", FunctionType::Dll);
        until(|| async { database.count_versions().await.unwrap() == u64::from(minor) + 1 }).await;
    }
    drop(catalog);
    // The tasks held the store too.
    until(|| async { Arc::strong_count(&store) == 1 }).await;
}
