use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::*;
use crate::function::{FunctionName, FunctionType};

/// Everything below a folder.
fn tree(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for item in std::fs::read_dir(root).expect("a folder") {
        let path = item.expect("an item").path();
        if path.symlink_metadata().expect("it is there").is_dir() {
            found.extend(tree(&path));
        }
        found.push(path);
    }
    found
}

/// Reads and unpacks whatever it is, and looks that nothing got out of the folder.
fn survives(bytes: &[u8]) -> Result<(), TestCaseError> {
    let Ok(package) = read(bytes) else { return Ok(()) };
    let outer = tempfile::tempdir().expect("a folder");
    let into = outer.path().join("deep/new");
    std::fs::create_dir(outer.path().join("deep")).expect("a folder");
    let whole = package.unpack(&into).is_ok();
    let mut bytes = 0;
    for path in tree(outer.path()) {
        prop_assert!(path.starts_with(&into) || path == outer.path().join("deep"), "{:?}", path);
        let metadata = path.symlink_metadata().expect("it is there");
        prop_assert!(metadata.is_file() || metadata.is_dir(), "{:?}", path);
        if metadata.is_file() {
            bytes += metadata.len();
        }
    }
    prop_assert!(bytes <= limits().unpacked_bytes);
    if whole {
        for kind in [FunctionType::Dll, FunctionType::Exe] {
            let _ = package.pick_entry(kind, &FunctionName::parse("f").expect("a name"), None);
        }
    }
    Ok(())
}

fn sample() -> Vec<u8> {
    zip(&[
        stored("lib/", b"").mode(0o40_755),
        packed("lib/data.txt", "some words, some words, some words".as_bytes()),
        stored("main.wasm", COMPONENT),
        packed("run.sh", b"#!/bin/sh\n").mode(0o100_755).streamed(true, false),
    ])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn flipped_bits_are_survived(flips in prop::collection::vec((any::<prop::sample::Index>(), 0_u8..8), 1..6)) {
        let mut bytes = sample();
        for (at, bit) in flips {
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
        }
        survives(&bytes)?;
    }

    #[test]
    fn cut_doubled_and_spliced_zips_are_survived(
        from in any::<prop::sample::Index>(), to in any::<prop::sample::Index>(), at in any::<prop::sample::Index>(),
    ) {
        let bytes = sample();
        let (from, to, at) = (from.index(bytes.len()), to.index(bytes.len()), at.index(bytes.len()));
        survives(&bytes[..at])?;
        let (from, to) = (from.min(to), from.max(to));
        survives(&[&bytes[..at], &bytes[from..to], &bytes[at..]].concat())?;
        survives(&[&bytes[..from], &bytes[to..]].concat())?;
    }

    #[test]
    fn any_names_and_modes_stay_in_the_folder(
        names in prop::collection::vec(("[a-cA-C./\\\\]{0,6}|(\\.\\./){1,3}x|/x|.{0,8}", any::<u16>()), 1..6),
    ) {
        let entries: Vec<_> = names
            .iter()
            .map(|(name, mode)| {
                packed(name, b"bytes").mode(u32::from(*mode)).with(|entry| entry.flags = 1 << 11)
            })
            .collect();
        survives(&zip(&entries))?;
    }

    #[test]
    fn what_is_packed_comes_out(files in prop::collection::btree_map("[a-z]{1,4}", prop::collection::vec(any::<u8>(), 0..2000), 1..8)) {
        let entries: Vec<_> = files
            .iter()
            .enumerate()
            .map(|(at, (name, bytes))| match at % 3 {
                0 => stored(name, bytes),
                1 => packed(name, bytes),
                _ => packed(name, bytes).streamed(at % 2 == 0, at % 4 == 0),
            })
            .collect();
        let found = unpacked(&read(&zip(&entries)).expect("sound")).expect("unpacks");
        prop_assert_eq!(found.into_iter().map(|(name, (_, bytes))| (name, bytes)).collect::<BTreeMap<_, _>>(), files);
    }
}
