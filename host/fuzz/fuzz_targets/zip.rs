//! A package: read, unpacked, and its entry picked; nothing gets out of its folder, and no bound is passed.
#![no_main]

use std::{io::Write as _, path::Path};

use libfuzzer_sys::fuzz_target;
use sharpfaas_fuzz::{
    config::Limits,
    function::{FunctionName, FunctionType, package::Package},
};

fn bytes_below(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry"));
    let of = |entry: std::fs::DirEntry| {
        let metadata = entry.path().symlink_metadata().expect("it is there");
        assert!(metadata.is_file() || metadata.is_dir(), "{:?}", entry.path());
        if metadata.is_dir() { bytes_below(&entry.path()) } else { metadata.len() }
    };
    entries.map(of).sum()
}

fuzz_target!(|bytes: &[u8]| {
    let limits = Limits {
        package_bytes: 1 << 20,
        package_entries: 64,
        entry_bytes: 1 << 18,
        unpacked_bytes: 1 << 19,
        ..Limits::default()
    };
    let mut file = tempfile::tempfile_in("/dev/shm").expect("a file");
    file.write_all(bytes).expect("written");
    let Ok(package) = Package::read(file, &limits) else { return };
    assert!(package.entries().len() <= 64);
    let outer = tempfile::tempdir_in("/dev/shm").expect("a folder");
    let into = outer.path().join("into");
    let whole = package.unpack(&into).is_ok();
    let beside = std::fs::read_dir(outer.path()).expect("a folder").count();
    assert!(beside <= 1, "something got out");
    assert!(bytes_below(outer.path()) <= limits.unpacked_bytes);
    if whole {
        let name = FunctionName::parse("f").expect("a name");
        for kind in [FunctionType::Dll, FunctionType::Exe] {
            let _ = package.pick_entry(kind, &name, None);
        }
    }
});
