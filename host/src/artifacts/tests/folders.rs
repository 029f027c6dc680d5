//! What stands in the folder is not believed.

use super::*;

/// Opens the folder and does something to it before the next server looks.
async fn prepared(bench: &Bench) -> FunctionRef {
    let entries = [packed("f.wasm", &echo(1)), stored("data/words", b"some words")];
    let function = bench.publish("f", FunctionType::Dll, "f.wasm", &entries).await;
    bench.open().get(&function, None).await.expect("it is prepared");
    assert_eq!((bench.fetches(), bench.compilations()), (1, 1));
    function
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).expect("it is there");
    bytes[at] ^= 1;
    fs::write(path, bytes).expect("it is written");
}

async fn runs(bench: &Bench, function: &FunctionRef) {
    let artifact = bench.open().get(function, None).await.expect("it is prepared");
    assert_eq!(bench.run(&artifact, "x").await, "x");
}

#[tokio::test(flavor = "multi_thread")]
async fn machine_code_that_was_changed_is_never_loaded() {
    let bench = Bench::new();
    let function = prepared(&bench).await;
    let code = |end: &str| {
        let found = bench.list("code").into_iter().find(|path| path.extension().is_some_and(|found| found == end));
        found.expect("it is there")
    };
    let length = fs::metadata(code("cwasm")).expect("it is there").len() as usize;
    let changes: [&dyn Fn(); 6] = [
        &|| flip(&code("cwasm"), length / 2),
        &|| flip(&code("cwasm"), length - 1),
        &|| fs::write(code("cwasm"), b"").expect("it is written"),
        &|| flip(&code("seal"), 0),
        &|| fs::write(code("seal"), b"").expect("it is written"),
        &|| fs::remove_file(code("seal")).expect("it is removed"),
    ];
    for (at, change) in changes.into_iter().enumerate() {
        change();
        runs(&bench, &function).await;
        assert_eq!((bench.fetches(), bench.compilations()), (1, at + 2), "{at}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn machine_code_of_another_node_or_another_component_is_never_loaded() {
    let bench = Bench::new();
    let function = prepared(&bench).await;
    let other = bench.publish("g", FunctionType::Dll, "f.wasm", &[packed("f.wasm", &echo(2))]).await;
    bench.open().get(&other, None).await.expect("it is prepared");
    assert_eq!(bench.compilations(), 2);

    // Each gets the other's, seal and all.
    let mut codes = bench.list("code");
    codes.sort();
    let [one, one_seal, two, two_seal] = codes.as_slice() else { panic!("{codes:?}") };
    for (from, to) in [(one, two), (one_seal, two_seal)] {
        fs::copy(from, to).expect("it is copied");
    }
    runs(&bench, &function).await;
    runs(&bench, &other).await;
    assert_eq!(bench.compilations(), 3);

    // All of them sealed by another key.
    fs::remove_file(bench.config.dir.join("node.key")).expect("it is removed");
    runs(&bench, &function).await;
    assert_eq!((bench.compilations(), bench.fetches()), (4, 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_in_the_place_of_machine_code_is_not_followed() {
    let bench = Bench::new();
    let function = prepared(&bench).await;
    let code = bench.list("code").into_iter().find(|path| path.extension().is_some_and(|end| end == "cwasm"));
    let code = code.expect("it is there");
    let moved = bench.root.path().join("moved");
    fs::rename(&code, &moved).expect("it is moved");
    std::os::unix::fs::symlink(&moved, &code).expect("it is linked");
    runs(&bench, &function).await;
    assert_eq!(bench.compilations(), 2);
    assert!(moved.exists() && !code.is_symlink());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_package_that_was_changed_is_fetched_again() {
    let bench = Bench::new();
    let function = prepared(&bench).await;
    let place = bench.config.dir.join("packages").join(function.sha256.to_string());
    let changes: [&dyn Fn(); 7] = [
        &|| flip(&place.join("files/f.wasm"), 20),
        &|| fs::write(place.join("files/data/words"), b"other").expect("it is written"),
        &|| fs::remove_file(place.join("files/data/words")).expect("it is removed"),
        &|| flip(&place.join("index"), 0),
        &|| flip(&place.join("index"), 60),
        &|| fs::write(place.join("index"), b"").expect("it is written"),
        &|| fs::remove_dir_all(place.join("files")).expect("it is removed"),
    ];
    for (at, change) in changes.into_iter().enumerate() {
        change();
        runs(&bench, &function).await;
        assert_eq!((bench.fetches(), bench.compilations()), (at + 2, 1), "{at}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_turns_out_damaged_when_it_runs_is_made_anew() {
    let bench = Bench::new();
    let entries = [stored("main", SCRIPT), stored("lib", b"some code")];
    let function = bench.publish("f", FunctionType::Exe, "main", &entries).await;
    let artifacts = bench.open();
    artifacts.get(&function, None).await.expect("it is prepared");
    let lib = bench.config.dir.join("packages").join(function.sha256.to_string()).join("files/lib");
    flip(&lib, 0);
    artifacts.get(&function, None).await.expect("memory does not look");
    artifacts.invalidate(&function, None).await.expect("it is forgotten");
    artifacts.get(&function, None).await.expect("it is prepared");
    assert_eq!(fs::read(&lib).expect("it is there"), b"some code");
    assert_eq!(bench.fetches(), 2);

    fs::set_permissions(lib.with_file_name("main"), fs::Permissions::from_mode(0o600)).expect("it is unmarked");
    artifacts.invalidate(&function, None).await.expect("it is forgotten");
    artifacts.get(&function, None).await.expect("it is prepared");
    assert_eq!(bench.fetches(), 3);

    let function = bench.publish("g", FunctionType::Dll, "f.wasm", &[packed("f.wasm", &echo(1))]).await;
    artifacts.get(&function, None).await.expect("it is prepared");
    artifacts.invalidate(&function, None).await.expect("it is forgotten");
    assert_eq!(bench.list("code").len(), 0);
    let artifact = artifacts.get(&function, None).await.expect("it is prepared");
    assert_eq!(bench.run(&artifact, "x").await, "x");
    assert_eq!(bench.compilations(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_folder_must_be_private() {
    let mode = |path: &Path, mode: u32| fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("it is set");
    let bench = Bench::new();
    let function = prepared(&bench).await;
    let dir = &bench.config.dir;
    let found = |path: &Path| fs::metadata(path).expect("it is there").permissions().mode() & 0o7777;
    assert_eq!((found(dir), found(&dir.join("node.key"))), (0o700, 0o600));

    for path in [dir.clone(), dir.join("code"), dir.join("packages"), dir.join("tmp")] {
        for open in [0o777, 0o770, 0o720, 0o702] {
            mode(&path, open);
            let error = bench.try_open().expect_err("others can write to it");
            assert!(matches!(&error, ArtifactError::Folder(why) if why.contains("writable by other users")), "{error}");
        }
        mode(&path, 0o755);
        drop(bench.open());
        let expected = if path.ends_with("packages") { 0o711 } else { 0o700 };
        assert_eq!(found(&path), expected, "it is closed to others");
    }
    mode(&dir.join("node.key"), 0o640);
    assert!(bench.try_open().expect_err("others can read it").to_string().contains("node.key"));
    mode(&dir.join("node.key"), 0o600);
    fs::write(dir.join("node.key"), b"short").expect("it is written");
    assert!(bench.try_open().expect_err("it is cut short").to_string().contains("damaged"));
    fs::remove_file(dir.join("node.key")).expect("it is removed");
    runs(&bench, &function).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_server_at_a_time_and_no_leftovers() {
    let bench = Bench::new();
    let one = bench.open();
    let leftover = bench.config.dir.join("tmp/leftover");
    fs::create_dir_all(leftover.join("deep")).expect("it is made");
    fs::write(leftover.join("deep/file"), b"x").expect("it is written");
    fs::write(bench.config.dir.join("tmp/file"), b"x").expect("it is written");
    let error = bench.try_open().expect_err("it is in use");
    assert!(error.to_string().contains("another server"), "{error}");
    assert!(leftover.exists(), "what another server works at stays");
    drop(one);
    let _two = bench.open();
    assert_eq!(bench.list("tmp"), Vec::<PathBuf>::new());
}
