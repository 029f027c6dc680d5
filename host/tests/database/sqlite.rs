//! On SQLite, each test in a file of its own.

use sharpfaas_host::database::{Database, DatabaseError};
use tempfile::TempDir;

use super::{Fixture, audit, config, each_database_test, name, pushed};

async fn fixture() -> Option<Fixture<TempDir>> {
    let folder = TempDir::new().expect("a folder");
    let url = format!("sqlite:{}", folder.path().join("some/folder/a b%20c?d.db").display());
    let database = Database::connect(&config(url), None).await.expect("connected");
    assert!(folder.path().join("some/folder/a b%20c?d.db").exists(), "the path is taken as it is");
    Some(Fixture { database, guard: folder })
}

each_database_test!(fixture);

#[tokio::test]
async fn servers_that_start_at_once_share_a_file() {
    let folder = TempDir::new().expect("a folder");
    let config = config(format!("sqlite:{}", folder.path().join("x.db").display()));
    let starts = (0..4).map(|_| Database::connect(&config, None));
    let databases = futures_util::future::try_join_all(starts).await.expect("all start");
    let version = pushed("f", "dev", 1, 0);
    databases[0].insert_versions([&version]).await.expect("inserted");
    for database in &databases {
        database.ping().await.expect("there");
        assert_eq!(database.newest(&name("f"), &version.location.lane, None).await, Ok(Some(version.clone())));
    }
    drop(databases);
    // What there is stays when it is opened again.
    let again = Database::connect(&config, None).await.expect("opened again");
    assert_eq!(again.count_versions().await, Ok(1));
}

#[tokio::test]
async fn the_audit_is_append_only() {
    let folder = TempDir::new().expect("a folder");
    let url = format!("sqlite:{}", folder.path().join("x.db").display());
    let database = Database::connect(&config(url.clone()), None).await.expect("connected");
    audit::entries_are_written_once(&database, &url).await;
}

#[tokio::test]
async fn what_can_not_be_opened_is_named() {
    let folder = TempDir::new().expect("a folder");
    std::fs::write(folder.path().join("file"), "not a database, and longer than its header of 100 bytes".repeat(9))
        .expect("written");
    for (path, says) in [("file", "not a database"), ("file/x.db", "cannot make the folder"), (".", "cannot open")] {
        let url = format!("sqlite:{}", folder.path().join(path).display());
        let error = Database::connect(&config(url), None).await.expect_err("refused");
        assert!(error.to_string().contains(says), "{path}: {error}");
    }
    let error = Database::connect(&config("sqlite::memory:".into()), None).await.expect_err("refused");
    assert!(matches!(&error, DatabaseError::Unavailable(text) if text.contains("needs a file")), "{error}");
}
