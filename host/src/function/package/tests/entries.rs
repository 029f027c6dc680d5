use super::*;
use crate::function::{FunctionName, FunctionType};

fn name(text: &str) -> FunctionName {
    FunctionName::parse(text).unwrap()
}

fn pick(kind: FunctionType, entries: &[RawEntry], requested: Option<&str>) -> Result<String, PackageError> {
    let requested = requested.map(|name| EntryName::parse(name).unwrap());
    let package = read(&zip(entries)).expect("sound");
    package.pick_entry(kind, &name("my-function"), requested.as_ref()).map(|entry| entry.to_string())
}

#[test]
fn picks_the_component_that_is_plain() {
    let component = |name: &str| stored(name, COMPONENT);
    let cases: [(&[&str], Option<&str>); 7] = [
        (&["x/anything.wasm", "readme"], Some("x/anything.wasm")),
        (&["a.wasm", "my-function.wasm"], Some("my-function.wasm")),
        (&["a.wasm", "out/my_function.wasm"], Some("out/my_function.wasm")),
        (&["a.wasm", "function.wasm", "main.wasm"], Some("function.wasm")),
        (&["a.wasm", "b.wasm"], None),
        (&["1/main.wasm", "2/main.wasm"], None),
        (&["component"], Some("component")),
    ];
    for (names, expected) in cases {
        let entries: Vec<_> = names.iter().map(|name| component(name)).collect();
        match (pick(FunctionType::Dll, &entries, None), expected) {
            (Ok(found), Some(expected)) => assert_eq!(found, expected, "{names:?}"),
            (Err(error @ PackageError::EntryUnclear { .. }), None) => {
                let text = error.to_string();
                assert!(text.contains("give entryFileName") && names.iter().all(|name| text.contains(name)), "{text}");
            }
            (other, _) => panic!("{names:?}: {other:?}"),
        }
    }
    let both = [component("a.wasm"), component("b.wasm")];
    assert_eq!(pick(FunctionType::Dll, &both, Some("b.wasm")).unwrap(), "b.wasm");
    let error = pick(FunctionType::Dll, &both, Some("c.wasm")).expect_err("not there").to_string();
    assert!(error.contains("c.wasm") && error.contains("a.wasm, b.wasm"), "{error}");
    let folder = [component("d/a.wasm"), stored("d/", b"").mode(0o40_755)];
    assert!(matches!(pick(FunctionType::Dll, &folder, Some("d")), Err(PackageError::EntryMissing { .. })));
}

#[test]
fn picks_the_program_that_is_plain() {
    let script = |name: &str| stored(name, b"#!/bin/sh\n");
    let marked = |name: &str| script(name).mode(0o100_755);
    let cases: [(&[RawEntry], Option<&str>); 7] = [
        (&[script("run.sh"), script("bin/my-function"), marked("x")], Some("bin/my-function")),
        (&[script("main"), script("run.sh")], Some("main")),
        (&[script("a"), marked("b"), script("c")], Some("b")),
        (&[marked("a"), marked("b")], None),
        (&[script("a"), script("b")], None),
        (&[script("a")], Some("a")),
        (&[script("1/main"), script("2/main"), script("run.sh")], Some("run.sh")),
    ];
    for (entries, expected) in cases {
        match (pick(FunctionType::Exe, entries, None), expected) {
            (Ok(found), Some(expected)) => assert_eq!(found, expected),
            (Err(PackageError::EntryUnclear { .. }), None) => {}
            (other, _) => panic!("{other:?}"),
        }
    }
}

#[test]
fn says_what_an_entry_is_that_cannot_run() {
    use FunctionType::{Dll, Exe};
    let cases: [(FunctionType, &[u8], &str); 10] = [
        (Dll, b"\0asm\x0e\0\x01\0", "version"),
        (Dll, b"MZ\x90\0", ".NET"),
        (Dll, b"\x7fELF\x02", "which runs as type 'exe'"),
        (Dll, b"\0asm\x0d\0", "version"),
        (Exe, COMPONENT, "which runs as type 'dll'"),
        (Exe, b"MZ\x90\0", "Windows"),
        (Exe, b"print('hi')\n", "a text file"),
        (Exe, b"#!/bin/sh\r\n", "carriage return"),
        (Exe, b"", "an empty file"),
        (Exe, b"\xff\xfe\0\0", "unknown kind"),
    ];
    for (kind, bytes, expected) in cases {
        let error = pick(kind, &[packed("entry", bytes)], None).expect_err("it cannot run");
        let text = error.to_string();
        assert!(matches!(error, PackageError::EntryUnfit { .. }), "{text}");
        assert!(text.contains(expected) && text.contains("'entry'"), "{bytes:?}: {text}");
    }
    for good in [&b"\x7fELF\x02\x01\x01"[..], b"#!/usr/bin/env python3\nprint()"] {
        pick(Exe, &[stored("entry", good)], None).expect("it can run");
    }
}
