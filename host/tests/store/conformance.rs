//! What every store must do, whatever it is made of.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use serde_json::json;
use sharpfaas_host::{
    function::{FunctionName, Lane, Location, PushId, Version, manifest::MAX_MANIFEST_BYTES},
    store::{Commit, FunctionStore, MANIFEST, PACKAGE, STAGING, StoreError},
};
use tempfile::TempDir;
use uuid::{NoContext, Timestamp, Uuid};

use super::Backend;

/// A test for each rule, against the backend that `$start` starts; where it gives `None`, none is run.
macro_rules! conformance {
    ($start:path) => {
        $crate::store::conformance::conformance!($start:
            publishes_a_version_whole,
            a_number_is_taken_once,
            racing_servers_get_numbers_of_their_own,
            a_commit_can_be_asked_for_again,
            lists_in_order,
            foreign_names_are_passed_over,
            foreign_contents_do_no_harm,
            what_is_discarded_is_gone,
            a_push_can_be_staged_again,
            old_staging_is_swept,
            the_probe_passes_and_leaves_nothing,
            dropped_calls_do_no_harm,
            busy_tasks_get_their_answers,
        );
    };
    ($start:path: $($test:ident),* $(,)?) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                if let Some(backend) = $start().await {
                    $crate::store::conformance::$test(&backend).await;
                }
            }
        )*
    };
}

pub(crate) use conformance;

pub fn at(lane: &str, version: &str, name: &str) -> Location {
    Location {
        lane: Lane::parse(lane).unwrap(),
        version: version.parse().unwrap(),
        name: FunctionName::parse(name).unwrap(),
    }
}

/// Something to push.
pub struct Push {
    pub id: PushId,
    pub package: PathBuf,
    pub bytes: Vec<u8>,
    pub manifest: Vec<u8>,
    folder: TempDir,
}

impl Push {
    pub fn new(size: usize) -> Self {
        Self::with_id(PushId::generate(), size)
    }

    fn with_id(id: PushId, size: usize) -> Self {
        let folder = TempDir::new().unwrap();
        let package = folder.path().join("upload");
        // Every byte value and every pair of line ends is in it, and no two packages are the same.
        let seed = usize::from(id.0.as_bytes()[15]);
        let bytes: Vec<u8> = (0..size).map(|i| ((i * 7 + i / 251 + seed) % 256) as u8).collect();
        fs::write(&package, &bytes).unwrap();
        let manifest = json!({ "pushId": id, "name": "any", "text": "one\r\ntwo\n" }).to_string().into_bytes();
        Self { id, package, bytes, manifest, folder }
    }

    /// Made `ago`.
    fn old(ago: Duration) -> Self {
        let time = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap() - ago;
        Self::with_id(PushId(Uuid::new_v7(Timestamp::from_unix(NoContext, time.as_secs(), 0))), 100)
    }

    pub async fn stage(&self, store: &Arc<dyn FunctionStore>) {
        store.stage(self.id, &self.package, &self.manifest).await.unwrap();
    }

    /// Checks that `location` holds this push, whole.
    pub async fn verify(&self, store: &Arc<dyn FunctionStore>, location: &Location) {
        let manifest = store.manifest(location).await.unwrap();
        assert_eq!(manifest.as_deref(), Some(self.manifest.as_slice()), "{location}");
        let to = self.folder.path().join(Uuid::now_v7().to_string());
        store.fetch(location, self.bytes.len() as u64, &to).await.unwrap();
        assert!(fs::read(to).unwrap() == self.bytes, "{location} has other bytes");
    }
}

/// What is in a folder.
fn entries(path: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

pub async fn publishes_a_version_whole(backend: &Backend) {
    let store = backend.open();
    store.ping().await.unwrap();
    let location = at("dev", "1.0", "Example.Function-1");
    assert_eq!(store.manifest(&location).await.unwrap(), None);
    let push = Push::new(3_000_001);
    push.stage(&store).await;
    assert_eq!(store.manifest(&location).await.unwrap(), None);
    assert_eq!(store.lanes().await.unwrap(), []);
    assert_eq!(store.commit(push.id, &location).await.unwrap(), Commit::Done);
    push.verify(&store, &location).await;
    push.verify(&backend.open(), &location).await;
    assert_eq!(entries(&backend.path.join(location.to_string())), [MANIFEST, PACKAGE]);
    assert_eq!(entries(&backend.path.join(STAGING)), [""; 0]);

    // Another size than the manifest's is found out, and leaves no file.
    let to = push.folder.path().join("fetched");
    for wrong in [0, 3_000_000, 3_000_002] {
        let error = store.fetch(&location, wrong, &to).await.unwrap_err();
        assert!(matches!(error, StoreError::Damaged(_)), "{error}");
        assert!(!to.exists());
    }
    let error = store.fetch(&at("dev", "1.1", "Example.Function-1"), 5, &to).await.unwrap_err();
    assert!(matches!(error, StoreError::Damaged(_)), "{error}");
    // A file that is there already is not touched.
    fs::write(&to, "mine").unwrap();
    let error = store.fetch(&location, 3_000_001, &to).await.unwrap_err();
    assert!(matches!(error, StoreError::Local(_)), "{error}");
    assert_eq!(fs::read_to_string(&to).unwrap(), "mine");
}

pub async fn a_number_is_taken_once(backend: &Backend) {
    let (one, two) = (backend.open(), backend.open());
    let (first, second) = (Push::new(10), Push::new(20));
    first.stage(&one).await;
    second.stage(&two).await;
    let location = at("dev", "1.0", "f");
    assert_eq!(one.commit(first.id, &location).await.unwrap(), Commit::Done);
    assert_eq!(two.commit(second.id, &location).await.unwrap(), Commit::Taken);
    assert_eq!(two.commit(second.id, &location).await.unwrap(), Commit::Taken);
    first.verify(&two, &location).await;
    let next = at("dev", "1.1", "f");
    assert_eq!(two.commit(second.id, &next).await.unwrap(), Commit::Done);
    second.verify(&one, &next).await;
    first.verify(&one, &location).await;
}

pub async fn racing_servers_get_numbers_of_their_own(backend: &Backend) {
    let barrier = Arc::new(tokio::sync::Barrier::new(12));
    let tasks: Vec<_> = (0..12)
        .map(|i| {
            let (store, barrier) = (backend.open(), barrier.clone());
            tokio::spawn(async move {
                let push = Push::new(1000 + i);
                push.stage(&store).await;
                let mut location = at("dev", "1.0", "raced");
                barrier.wait().await;
                while store.commit(push.id, &location).await.unwrap() == Commit::Taken {
                    location.version = location.version.next_minor();
                }
                (push, location)
            })
        })
        .collect();
    let store = backend.open();
    let mut won = Vec::new();
    for task in tasks {
        let (push, location) = task.await.unwrap();
        push.verify(&store, &location).await;
        won.push(location.version);
    }
    won.sort_unstable();
    let expected: Vec<_> = (0..12).map(|minor| Version { major: 1, minor }).collect();
    assert_eq!(won, expected);
    assert_eq!(store.versions(&Lane::parse("dev").unwrap()).await.unwrap(), expected);
}

pub async fn a_commit_can_be_asked_for_again(backend: &Backend) {
    let store = backend.open();
    let push = Push::new(10);
    push.stage(&store).await;
    let location = at("dev", "2.3", "again");
    for _ in 0..3 {
        assert_eq!(store.commit(push.id, &location).await.unwrap(), Commit::Done);
    }
    push.verify(&store, &location).await;
    let error = store.commit(PushId::generate(), &at("dev", "2.4", "again")).await.unwrap_err();
    assert!(matches!(error, StoreError::Damaged(_)), "{error}");
    assert_eq!(store.manifest(&at("dev", "2.4", "again")).await.unwrap(), None);
}

pub async fn lists_in_order(backend: &Backend) {
    let store = backend.open();
    let dev = Lane::parse("dev").unwrap();
    assert_eq!(store.lanes().await.unwrap(), []);
    assert_eq!(store.versions(&dev).await.unwrap(), []);
    assert_eq!(store.functions(&dev, Version::FIRST).await.unwrap(), []);
    let there = [
        ("dev", "1.10", "b"),
        ("dev", "1.9", "a"),
        ("dev", "1.9", "B.x"),
        ("dev", "10.0", "a"),
        ("Prod-1", "1.0", "a"),
    ];
    for (lane, version, name) in there {
        let push = Push::new(10);
        push.stage(&store).await;
        assert_eq!(store.commit(push.id, &at(lane, version, name)).await.unwrap(), Commit::Done);
    }
    assert_eq!(store.lanes().await.unwrap(), [Lane::parse("Prod-1").unwrap(), dev.clone()]);
    let versions: Vec<_> = store.versions(&dev).await.unwrap().iter().map(ToString::to_string).collect();
    assert_eq!(versions, ["1.9", "1.10", "10.0"]);
    let names = store.functions(&dev, "1.9".parse().unwrap()).await.unwrap();
    assert_eq!(names.iter().map(FunctionName::as_str).collect::<Vec<_>>(), ["B.x", "a"]);
    assert_eq!(store.functions(&dev, "1.8".parse().unwrap()).await.unwrap(), []);
}

pub async fn foreign_names_are_passed_over(backend: &Backend) {
    let store = backend.open();
    let push = Push::new(10);
    push.stage(&store).await;
    let location = at("dev", "1.0", "f");
    assert_eq!(store.commit(push.id, &location).await.unwrap(), Commit::Done);
    for name in ["a b", ".hidden", "-rf", "lane.with.dots", "ümlaut", "tab\there", "star*", "$(x)", &"x".repeat(33)] {
        fs::create_dir(backend.path.join(name)).unwrap();
    }
    fs::write(backend.path.join("notes.txt"), "no lane").unwrap();
    for name in ["1", "01.0", "1.00", "v1.0", "1.0.0", "0.1", "latest", "-1.0", "1.0 ", "9999999999.0"] {
        fs::create_dir(backend.path.join("dev").join(name)).unwrap();
    }
    for name in ["a b", "-x", "_x", ".f", "ö", "f~", &"x".repeat(65)] {
        fs::create_dir(backend.path.join("dev/1.0").join(name)).unwrap();
    }
    let (lane, name) = (&location.lane, &location.name);
    assert_eq!(store.lanes().await.unwrap().iter().collect::<Vec<_>>(), [lane]);
    assert_eq!(store.versions(lane).await.unwrap(), [location.version]);
    assert_eq!(store.functions(lane, location.version).await.unwrap().iter().collect::<Vec<_>>(), [name]);

    // A name can hold a line end, and then look like two: nothing is found there, and nothing breaks.
    fs::create_dir(backend.path.join("dev/1.0").join("g\r\nh")).unwrap();
    for found in store.functions(lane, location.version).await.unwrap() {
        let manifest = store.manifest(&Location { name: found.clone(), ..location.clone() }).await.unwrap();
        assert_eq!(manifest.is_some(), found == *name, "{found}");
    }
}

pub async fn foreign_contents_do_no_harm(backend: &Backend) {
    let store = backend.open();
    let push = Push::new(10);
    push.stage(&store).await;
    let first = Push::new(10);
    first.stage(&store).await;
    assert_eq!(store.commit(first.id, &at("dev", "9.0", "f")).await.unwrap(), Commit::Done);
    let folder = |version: &str| {
        let parent = backend.path.join("dev").join(version);
        let path = parent.join("f");
        fs::create_dir_all(&path).unwrap();
        // What fails must not fail because a server runs as another user.
        for folder in [&parent, &path] {
            fs::set_permissions(folder, fs::Permissions::from_mode(0o777)).unwrap();
        }
        path
    };
    // A manifest that is too large, one that is none, one that is a folder, a folder without one, and a
    // file in the place of the folder.
    fs::write(folder("1.0").join(MANIFEST), vec![b' '; MAX_MANIFEST_BYTES + 1]).unwrap();
    let error = store.manifest(&at("dev", "1.0", "f")).await.unwrap_err();
    assert!(matches!(error, StoreError::Damaged(_)), "{error}");
    fs::write(folder("1.1").join(MANIFEST), vec![b' '; MAX_MANIFEST_BYTES]).unwrap();
    assert_eq!(
        store.manifest(&at("dev", "1.1", "f")).await.unwrap().map(|bytes| bytes.len()),
        Some(MAX_MANIFEST_BYTES)
    );
    fs::create_dir(folder("1.2").join(MANIFEST)).unwrap();
    fs::write(folder("1.3").join("something"), "else").unwrap();
    fs::remove_dir(folder("1.4")).unwrap();
    fs::write(backend.path.join("dev/1.4/f"), "a file").unwrap();
    for version in ["1.2", "1.3", "1.4"] {
        assert_eq!(store.manifest(&at("dev", version, "f")).await.unwrap(), None, "{version}");
    }
    for version in ["1.1", "1.2", "1.3"] {
        assert_eq!(store.commit(push.id, &at("dev", version, "f")).await.unwrap(), Commit::Taken, "{version}");
    }
    assert_eq!(fs::read_to_string(backend.path.join("dev/1.3/f/something")).unwrap(), "else");
    assert_eq!(store.commit(push.id, &at("dev", "1.5", "f")).await.unwrap(), Commit::Done);
    push.verify(&store, &at("dev", "1.5", "f")).await;
}

pub async fn what_is_discarded_is_gone(backend: &Backend) {
    let store = backend.open();
    store.discard(PushId::generate()).await.unwrap();
    let (push, other) = (Push::new(10), Push::new(10));
    push.stage(&store).await;
    other.stage(&store).await;
    store.discard(push.id).await.unwrap();
    store.discard(push.id).await.unwrap();
    assert_eq!(entries(&backend.path.join(STAGING)), [other.id.to_string()]);
    let error = store.commit(push.id, &at("dev", "1.0", "f")).await.unwrap_err();
    assert!(matches!(error, StoreError::Damaged(_)), "{error}");
    assert_eq!(store.commit(other.id, &at("dev", "1.0", "f")).await.unwrap(), Commit::Done);
    // What is published can't be discarded any more.
    store.discard(other.id).await.unwrap();
    other.verify(&store, &at("dev", "1.0", "f")).await;
}

pub async fn a_push_can_be_staged_again(backend: &Backend) {
    let store = backend.open();
    let push = Push::new(5000);
    push.stage(&store).await;
    push.stage(&store).await;
    // What a client left that died in the middle: half a package, no manifest, and something else.
    let folder = backend.path.join(STAGING).join(push.id.to_string());
    fs::write(folder.join(PACKAGE), &push.bytes[..1234]).unwrap();
    fs::write(folder.join("part"), "x").unwrap();
    fs::remove_file(folder.join(MANIFEST)).unwrap();
    push.stage(&store).await;
    assert_eq!(entries(&folder), [MANIFEST, PACKAGE]);
    let location = at("dev", "1.0", "f");
    assert_eq!(store.commit(push.id, &location).await.unwrap(), Commit::Done);
    push.verify(&store, &location).await;
}

pub async fn old_staging_is_swept(backend: &Backend) {
    let store = backend.open();
    let hour = Duration::from_secs(3600);
    assert_eq!(store.sweep(hour).await.unwrap(), 0);
    let (old, older, young) = (Push::old(hour * 2), Push::old(hour * 30), Push::new(10));
    for push in [&old, &older, &young] {
        push.stage(&store).await;
    }
    let staging = backend.path.join(STAGING);
    // One that someone began to remove, with a file that has no business there; and a stranger's.
    fs::rename(staging.join(older.id.to_string()), staging.join(format!("{}.gone", older.id))).unwrap();
    fs::write(staging.join(format!("{}.gone/part", older.id)), "x").unwrap();
    fs::create_dir(staging.join("strange")).unwrap();
    assert_eq!(store.sweep(hour * 3).await.unwrap(), 1);
    assert_eq!(store.sweep(hour).await.unwrap(), 1);
    assert_eq!(store.sweep(hour).await.unwrap(), 0);
    assert_eq!(entries(&staging), [young.id.to_string(), "strange".into()]);
    assert_eq!(store.commit(young.id, &at("dev", "1.0", "f")).await.unwrap(), Commit::Done);
}

pub async fn the_probe_passes_and_leaves_nothing(backend: &Backend) {
    let store = backend.open();
    store.probe().await.unwrap();
    let (one, two) = (backend.open(), backend.open());
    let (one, two) = tokio::join!(one.probe(), two.probe());
    one.unwrap();
    two.unwrap();
    assert_eq!(entries(&backend.path.join(STAGING)), [""; 0]);
    assert_eq!(entries(&backend.path), [STAGING]);
}

pub async fn dropped_calls_do_no_harm(backend: &Backend) {
    let mut config = backend.config.clone();
    config.connections = 2;
    let store = sharpfaas_host::store::open(&config, backend.password.clone()).unwrap();
    let push = Push::new(400_000);
    let location = at("dev", "1.0", "f");
    let to = push.folder.path().join("fetched");
    // Each is dropped a little later in its work than the one before.
    for micros in (0..20_000).step_by(500) {
        let limit = Duration::from_micros(micros);
        let _ = tokio::time::timeout(limit, store.stage(push.id, &push.package, &push.manifest)).await;
    }
    push.stage(&store).await;
    for micros in (0..4_000).step_by(200) {
        let _ = tokio::time::timeout(Duration::from_micros(micros), store.commit(push.id, &location)).await;
    }
    assert_eq!(store.commit(push.id, &location).await.unwrap(), Commit::Done);
    for micros in (0..20_000).step_by(500) {
        let fetch = store.fetch(&location, push.bytes.len() as u64, &to);
        let _ = tokio::time::timeout(Duration::from_micros(micros), fetch).await;
        let _ = fs::remove_file(&to);
    }
    push.verify(&store, &location).await;
}

/// A command goes out whole, and its answer comes, from a task that has used up any part of the work that it may do
/// before it must let others go on.
pub async fn busy_tasks_get_their_answers(backend: &Backend) {
    let store = backend.open();
    for spent in 0..=128 {
        let store = store.clone();
        let task = tokio::spawn(async move {
            for _ in 0..spent {
                tokio::task::coop::consume_budget().await;
            }
            store.ping().await
        });
        task.await.unwrap().unwrap_or_else(|error| panic!("after {spent}: {error}"));
    }
}
