//! What calls ask.

use futures_util::future::join_all;

use super::*;

#[tokio::test]
async fn what_was_asked_before_comes_from_memory() {
    let server = Server::start(&MemoryStore::new(), settled()).await;
    for _ in 0..3 {
        server.push("f", "dev", false).await.unwrap();
    }
    let asked = server.store.asked();
    // Neither the database nor the store is there any more.
    server.database.close().await;
    server.store.away.store(true, std::sync::atomic::Ordering::SeqCst);
    for _ in 0..100 {
        assert_eq!(server.newest("f").await, v(1, 2));
        assert_eq!(server.resolve("f", "dev", Selector::Major(1)).await.unwrap(), v(1, 2));
        assert_eq!(server.resolve("f", "dev", exact(1, 0)).await.unwrap(), v(1, 0));
    }
    assert_eq!(server.store.asked(), asked);
}

#[tokio::test]
async fn the_database_answers_without_the_store_once_it_was_walked() {
    let store = MemoryStore::new().holding("dev", "f", &[12, 3]);
    let first = Server::start(&store, settled()).await;
    assert_eq!(first.catalog.refresh().await.unwrap(), 15);
    let asked = store.asked();
    assert_eq!(first.newest("f").await, v(2, 2));
    assert_eq!(first.resolve("f", "dev", Selector::Major(1)).await.unwrap(), v(1, 11));
    assert_eq!(first.resolve("f", "dev", exact(1, 9)).await.unwrap(), v(1, 9));
    assert_eq!(store.asked(), asked);
}

#[tokio::test]
async fn many_callers_are_one_look_up() {
    let store = MemoryStore::new().holding("dev", "f", &[1]);
    let server = Server::start(&store, settled()).await;
    let answers = join_all((0..200).map(|_| server.resolve("f", "dev", Selector::Latest))).await;
    assert!(answers.iter().all(|answer| answer.as_ref().is_ok_and(|it| *it == v(1, 0))), "{answers:?}");
    let asked = store.asked();
    // Is the lane there, is the name there, and then 1.0, no 2.0, no 1.1.
    assert_eq!((asked.lanes, asked.functions, asked.manifests), (1, 1, 3));
}

#[tokio::test]
async fn a_caller_who_goes_away_takes_nobodys_answer_away() {
    let store = MemoryStore::new().holding("dev", "f", &[1]);
    let server = Server::start(&store, settled()).await;
    let (function, dev) = (name("f"), lane("dev"));
    {
        let mut impatient = std::pin::pin!(server.catalog.resolve(&function, &dev, Selector::Latest));
        assert!(futures_util::poll!(impatient.as_mut()).is_pending());
    }
    assert_eq!(server.newest("f").await, v(1, 0));
    assert_eq!(store.asked().manifests, 3);
}

#[tokio::test]
async fn the_newest_is_asked_again_when_it_is_not_fresh() {
    for (settings, seen) in [(settled(), v(1, 0)), (restless(), v(1, 1))] {
        let server = Server::start(&MemoryStore::new(), settings).await;
        let mut next = (*server.push("f", "dev", false).await.unwrap()).clone();
        assert_eq!(server.newest("f").await, v(1, 0));
        // Another server on the same database.
        next.location.version = v(1, 1);
        next.push_id = PushId::generate();
        server.database.insert_versions([&next]).await.unwrap();
        assert_eq!(server.newest("f").await, seen);
    }
}

#[tokio::test]
async fn the_newest_is_found_in_an_empty_database_without_a_walk() {
    let store = MemoryStore::new().holding("dev", "f", &[300, 7, 700]).holding("production", "f", &[1]);
    let server = Server::start(&store, settled()).await;
    assert_eq!(server.newest("f").await, v(3, 699));
    let reads = store.asked().manifests;
    assert!(reads < 30, "{reads} reads for the newest of 1007 versions");
    assert_eq!(server.resolve("f", "dev", Selector::Major(1)).await.unwrap(), v(1, 299));
    assert_eq!(server.resolve("f", "dev", Selector::Major(2)).await.unwrap(), v(2, 6));
    assert_eq!(server.resolve("f", "dev", exact(1, 123)).await.unwrap(), v(1, 123));
    let reads = store.asked().manifests;
    assert!(reads < 60, "{reads} reads for four answers");
    // What was read on the way is in the database, for the others and for the next start.
    assert_eq!(
        server.database.newest(&name("f"), &lane("dev"), None).await.unwrap().unwrap().location.version,
        v(3, 699)
    );
}

#[tokio::test]
async fn another_servers_push_is_found_without_a_common_database() {
    let store = MemoryStore::new();
    let (here, there) = (Server::start(&store, restless()).await, Server::start(&store, restless()).await);
    // A name and lane this server has never heard of.
    there.push("f", "dev", false).await.unwrap();
    assert_eq!(here.newest("f").await, v(1, 0));
    // An exact version it has not heard of.
    there.push("f", "dev", false).await.unwrap();
    assert_eq!(here.resolve("f", "dev", exact(1, 1)).await.unwrap(), v(1, 1));
    assert_eq!(here.newest("f").await, v(1, 1));
    // A new major.
    there.push("f", "dev", true).await.unwrap();
    assert_eq!(here.resolve("f", "dev", Selector::Major(2)).await.unwrap(), v(2, 0));
}

#[tokio::test]
async fn a_newest_that_is_known_is_looked_past_in_the_background() {
    let store = MemoryStore::new();
    let settings = Settings { refresh: Some(Duration::ZERO), ..restless() };
    let here = Server::start(&store, settings).await;
    let there = Server::start(&store, restless()).await;
    here.push("f", "dev", false).await.unwrap();
    here.catalog.refresh().await.unwrap();
    for minor in 1..6 {
        there.push("f", "dev", false).await.unwrap();
        until(|| async { here.newest("f").await == v(1, minor) }).await;
    }
}

#[tokio::test]
async fn after_a_start_the_newest_is_not_what_it_was_before() {
    let store = MemoryStore::new().holding("dev", "f", &[2]);
    let server = Server::start(&store, settled()).await;
    server.catalog.refresh().await.unwrap();
    drop(server.catalog);
    // Others pushed while this server was down.
    store.put("dev", v(1, 2), "f", FunctionType::Dll);
    store.put("dev", v(2, 0), "f", FunctionType::Dll);
    let catalog = Catalog::idle(connect(&server.folder).await, store.clone(), settled());
    let newest = catalog.resolve(&name("f"), &lane("dev"), Selector::Latest).await.unwrap();
    assert_eq!(newest.location.version, v(2, 0));
}

#[tokio::test]
async fn what_is_not_there_is_named_with_what_is() {
    let store = MemoryStore::new().holding("dev", "f", &[3, 2]).holding("production", "g", &[1]);
    let server = Server::start(&store, settled()).await;
    server.catalog.refresh().await.unwrap();
    let text = async |function: &str, lane_name: &str, selector: &str| {
        server.resolve(function, lane_name, selector.parse().unwrap()).await.unwrap_err().to_string()
    };
    assert_eq!(text("f", "test", "latest").await, "there is no lane 'test'; there is 'dev', 'production'");
    assert_eq!(text("h", "dev", "1").await, "there is no function 'h' in lane 'dev'");
    assert_eq!(text("g", "dev", "1.0").await, "there is no function 'g' in lane 'dev'; it is in 'production'");
    assert_eq!(text("F", "dev", "latest").await, "there is no function 'F' in lane 'dev'");
    for missing in ["1.3", "2.2", "3.0", "1.999999", "3", "999999999", "999999999.0"] {
        let expected = format!("function 'f' has no version {missing} in lane 'dev'; its newest there is 2.1");
        assert_eq!(text("f", "dev", missing).await, expected);
    }
    let empty = Server::start(&MemoryStore::new(), settled()).await;
    let error = empty.resolve("f", "dev", Selector::Latest).await.unwrap_err();
    assert_eq!(error.to_string(), "there is no lane 'dev'; nothing was pushed yet");
    assert!(error.is_answer());
}

#[tokio::test]
async fn a_flood_of_what_is_not_there_costs_no_more_than_one_of_it() {
    let store = MemoryStore::new().holding("dev", "f", &[3, 2]);
    let server = Server::start(&store, settled()).await;
    server.catalog.refresh().await.unwrap();
    let before = store.asked();
    let names: Vec<_> = (0..300).map(|i| format!("unknown{i}")).collect();
    let lanes: Vec<_> = (0..300).map(|i| format!("lane{i}")).collect();
    let names = join_all(names.iter().map(|name| server.resolve(name, "dev", Selector::Latest))).await;
    let lanes = join_all(lanes.iter().map(|lane| server.resolve("f", lane, Selector::Latest))).await;
    let exact_ones = join_all((0..300).map(|i| server.resolve("f", "dev", exact(1 + i % 4, 10 + i)))).await;
    let majors = join_all((0..300).map(|i| server.resolve("f", "dev", Selector::Major(10 + i)))).await;
    for answers in [names, lanes, exact_ones, majors] {
        assert!(answers.iter().all(|answer| answer.as_ref().is_err_and(CatalogError::is_answer)), "{answers:?}");
    }
    let after = store.asked();
    assert!(after.lanes - before.lanes <= 1, "{before:?} {after:?}");
    assert!(after.functions - before.functions <= 1, "{before:?} {after:?}");
    // One look past the newest, one past each of the two majors, one version read by itself.
    assert!(after.manifests - before.manifests <= 6, "{before:?} {after:?}");
    // The same again is known in memory.
    server.resolve("unknown7", "dev", Selector::Latest).await.unwrap_err();
    assert_eq!(store.asked(), after);
}
