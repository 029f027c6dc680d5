//! What becomes a package, and what does not.

use std::os::unix::fs::symlink;

use super::*;

fn folder(files: &[(&str, &[u8], u32)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    for (name, bytes, mode) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().expect("has one")).expect("made");
        fs::write(&path, bytes).expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(*mode)).expect("set");
    }
    folder
}

fn entry(name: &str) -> EntryName {
    EntryName::parse(name).expect("valid")
}

fn refused(result: Result<Package, Failure>) -> String {
    match result {
        Err(Failure::Usage(text)) => text,
        other => panic!("{other:?}"),
    }
}

const PROGRAM: &[u8] = b"#!/bin/sh\necho hello\n";

#[test]
fn a_folder_becomes_a_zip_of_what_is_not_hidden() {
    let folder = folder(&[
        ("run.sh", PROGRAM, 0o700),
        ("data/table.csv", b"a,b\n", 0o600),
        (".git/config", b"secret", 0o644),
        ("data/.env", b"secret", 0o644),
    ]);
    let package = Package::of(folder.path(), None).expect("packed");
    assert_eq!(package.kind, FunctionType::Exe);
    assert_eq!(package.left_out, [".git", "data/.env"]);
    assert_eq!(package.size, package.file.metadata().expect("read").len());
    let mut zip = ZipArchive::new(&package.file).expect("a zip");
    let mut seen: Vec<(String, u32, Vec<u8>)> = Vec::new();
    for index in 0..zip.len() {
        let mut member = zip.by_index(index).expect("a member");
        let mut bytes = Vec::new();
        member.read_to_end(&mut bytes).expect("read");
        seen.push((member.name().expect("a name").into_owned(), member.unix_mode().expect("a mode") & 0o777, bytes));
    }
    let expected =
        [("run.sh".to_owned(), 0o755, PROGRAM.to_vec()), ("data/table.csv".to_owned(), 0o644, b"a,b\n".to_vec())];
    assert_eq!(seen, expected);
}

#[test]
fn the_same_folder_makes_the_same_bytes() {
    let folder = folder(&[("b", PROGRAM, 0o755), ("a/c", PROGRAM, 0o755), ("a/b", PROGRAM, 0o755)]);
    let bytes = || {
        let mut bytes = Vec::new();
        Package::of(folder.path(), None).expect("packed").file.read_to_end(&mut bytes).expect("read");
        bytes
    };
    assert_eq!(bytes(), bytes());
}

#[test]
fn links_are_refused_by_name() {
    let folder = folder(&[("run.sh", PROGRAM, 0o755)]);
    symlink("/etc/passwd", folder.path().join("link")).expect("linked");
    let text = refused(Package::of(folder.path(), None));
    assert!(text.contains("/link: it is a symbolic link"), "{text}");
}

#[test]
fn the_type_is_that_of_the_entry() {
    let wasm: &[u8] = b"\0asm\x0d\0\x01\0";
    let both = folder(&[("a.wasm", wasm, 0o644), ("tool", PROGRAM, 0o755)]);
    let kind = |name: Option<&str>| Package::of(both.path(), name.map(entry).as_ref()).expect("packed").kind;
    assert_eq!(kind(None), FunctionType::Dll);
    assert_eq!(kind(Some("a.wasm")), FunctionType::Dll);
    assert_eq!(kind(Some("tool")), FunctionType::Exe);
    assert_eq!(Package::of(&both.path().join("a.wasm"), None).expect("packed").kind, FunctionType::Dll);
    assert_eq!(Package::of(&both.path().join("tool"), None).expect("packed").kind, FunctionType::Exe);
    let text = refused(Package::of(both.path(), Some(&entry("b.wasm"))));
    assert!(text.starts_with("--entry b.wasm: "), "{text}");
    let text = refused(Package::of(&both.path().join("tool"), Some(&entry("a.wasm"))));
    assert!(text.starts_with("--entry a.wasm: "), "{text}");
}

#[test]
fn a_zip_is_sent_as_it_is() {
    let source = folder(&[("a.wasm", b"\0asm\x0d\0\x01\0", 0o644), ("tool", PROGRAM, 0o755)]);
    let mut bytes = Vec::new();
    Package::of(source.path(), None).expect("packed").file.read_to_end(&mut bytes).expect("read");
    let folder = folder(&[("made.zip", &bytes, 0o644), ("broken.zip", b"PK\x03\x04 and no more", 0o644)]);
    let path = folder.path().join("made.zip");
    let mut package = Package::of(&path, None).expect("taken");
    assert_eq!((package.kind, package.size), (FunctionType::Dll, bytes.len() as u64));
    let mut sent = Vec::new();
    package.file.read_to_end(&mut sent).expect("read");
    assert_eq!(sent, bytes);
    assert_eq!(Package::of(&path, Some(&entry("tool"))).expect("taken").kind, FunctionType::Exe);
    assert!(refused(Package::of(&path, Some(&entry("x")))).starts_with("--entry x: "));
    assert!(refused(Package::of(&folder.path().join("broken.zip"), None)).contains("no sound zip"));
}

#[test]
fn what_can_be_no_package_is_refused() {
    let folder = folder(&[("notes.txt", b"text", 0o644), ("empty/.hidden", b"", 0o644)]);
    assert!(refused(Package::of(&folder.path().join("notes.txt"), None)).contains("chmod +x"));
    assert!(refused(Package::of(&folder.path().join("empty"), None)).contains("no file in it"));
    assert!(refused(Package::of(&folder.path().join("missing"), None)).contains("missing"));
}

#[test]
fn names_come_from_paths() {
    let folder =
        folder(&[("hello.wasm", b"", 0o644), ("made.zip", b"", 0o644), ("tool-1.2", b"", 0o755), ("a b", b"", 0o755)]);
    let name = |file: &str| name_of(&folder.path().join(file));
    assert_eq!(name("hello.wasm").expect("a name").as_str(), "hello");
    assert_eq!(name("made.zip").expect("a name").as_str(), "made");
    assert_eq!(name("tool-1.2").expect("a name").as_str(), "tool-1.2");
    match name("a b") {
        Err(Failure::Usage(text)) => assert!(text.starts_with("--name is needed"), "{text}"),
        other => panic!("{other:?}"),
    }
}
