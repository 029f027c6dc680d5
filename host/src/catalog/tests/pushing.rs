//! What publishing asks.

use std::collections::BTreeSet;

use futures_util::future::try_join_all;

use super::*;

#[tokio::test]
async fn a_push_is_seen_at_once_whatever_was_known_before() {
    let server = Server::start(&MemoryStore::new(), settled()).await;
    for selector in [Selector::Latest, Selector::Major(1), exact(1, 0), exact(1, 1), Selector::Major(2), exact(2, 0)] {
        server.resolve("f", "dev", selector).await.unwrap_err();
    }
    server.push("f", "dev", true).await.unwrap();
    for selector in [Selector::Latest, Selector::Major(1), exact(1, 0)] {
        assert_eq!(server.resolve("f", "dev", selector).await.unwrap(), v(1, 0));
    }
    server.push("f", "dev", false).await.unwrap();
    for selector in [Selector::Latest, Selector::Major(1), exact(1, 1)] {
        assert_eq!(server.resolve("f", "dev", selector).await.unwrap(), v(1, 1));
    }
    let pushed = server.push("f", "dev", true).await.unwrap();
    for selector in [Selector::Latest, Selector::Major(2), exact(2, 0)] {
        assert_eq!(server.resolve("f", "dev", selector).await.unwrap(), v(2, 0));
    }
    assert_eq!(server.resolve("f", "dev", Selector::Major(1)).await.unwrap(), v(1, 1));
    // It is the same from wherever it comes.
    assert_eq!(server.database.version(&pushed.location).await.unwrap().as_ref(), Some(&*pushed));
    let other = Server::start(&server.store, settled()).await;
    assert_eq!(other.catalog.resolve(&name("f"), &lane("dev"), Selector::Latest).await.unwrap(), pushed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_with_databases_of_their_own_share_the_numbers() {
    let store = MemoryStore::new();
    let (a, b) = (Server::start(&store, restless()).await, Server::start(&store, restless()).await);
    let pushes = (0..100).map(|i| if i % 2 == 0 { &a } else { &b }.push("f", "dev", false));
    let pushed = try_join_all(pushes).await.unwrap();
    let versions: BTreeSet<_> = pushed.iter().map(|it| it.location.version).collect();
    assert_eq!(versions, (0..100).map(|minor| v(1, minor)).collect());
    assert_eq!(versions, store.all("f"));
    for server in [&a, &b] {
        for function in &pushed {
            let at = &function.location;
            let found = server.catalog.resolve(&at.name, &at.lane, Selector::Exact(at.version)).await.unwrap();
            assert_eq!(found.push_id, function.push_id, "{at}");
        }
        assert_eq!(server.newest("f").await, v(1, 99));
    }
}

#[tokio::test]
async fn the_next_number_is_beyond_what_the_database_knows() {
    let store = MemoryStore::new();
    let server = Server::start(&store, settled()).await;
    assert_eq!(server.catalog.newest(&name("f"), &lane("dev")).await.unwrap(), None);
    server.push("f", "dev", false).await.unwrap();
    // Others pushed.
    let store = store.holding("dev", "f", &[41]);
    assert_eq!(server.catalog.newest(&name("f"), &lane("dev")).await.unwrap(), Some(v(1, 40)));
    store.put("dev", v(2, 0), "f", FunctionType::Dll);
    assert_eq!(server.catalog.newest(&name("f"), &lane("dev")).await.unwrap(), Some(v(2, 0)));
    assert_eq!(server.catalog.newest(&name("f"), &lane("production")).await.unwrap(), None);
}

#[tokio::test]
async fn a_name_keeps_its_type_and_its_case() {
    let store = MemoryStore::new();
    store.put("production", v(1, 0), "Tax", FunctionType::Exe);
    let server = Server::start(&store, settled()).await;
    // The database knows nothing at first, and everything then.
    for _ in 0..2 {
        let check = async |function: &str, lane_name: &str, kind| {
            server.catalog.check_push(&name(function), &lane(lane_name), kind).await
        };
        for lane_name in ["dev", "production"] {
            check("Tax", lane_name, FunctionType::Exe).await.unwrap();
            check("other", lane_name, FunctionType::Dll).await.unwrap();
            let error = check("Tax", lane_name, FunctionType::Dll).await.unwrap_err();
            assert!(
                matches!(error, CatalogError::TypeConflict { is: FunctionType::Exe, wanted: FunctionType::Dll, .. }),
                "{error}"
            );
            let error = check("tAX", lane_name, FunctionType::Exe).await.unwrap_err();
            assert!(matches!(&error, CatalogError::CaseConflict { there, .. } if there.as_str() == "Tax"), "{error}");
        }
        server.catalog.refresh().await.unwrap();
    }
    // A name that is known needs no look into the store.
    let asked = store.asked();
    server.catalog.check_push(&name("Tax"), &lane("dev"), FunctionType::Exe).await.unwrap();
    assert_eq!(store.asked(), asked);
}
