//! Programs that print what tells them apart, and what a store holds of them on disk.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use serde_json::Value;

use super::fixtures::zip;

/// A package whose program prints `text`, and nothing else.
pub fn printing(text: &str) -> Vec<u8> {
    zip(&[("run.sh", format!("#!/bin/sh\necho '\"{text}\"'\n").as_bytes())])
}

/// The configuration of a server whose store is at that address, with these lines more in `[store]`.
pub fn on_ftp(address: SocketAddr, more: &str) -> String {
    format!("[store]\nurl = \"ftp://{address}/functionstore\"\n{more}\n")
}

/// The versions `N.0`, `N.1`, … in order.
pub fn consecutive(major: u32, count: usize) -> Vec<String> {
    (0..count).map(|minor| format!("{major}.{minor}")).collect()
}

/// The folders of a folder, by name; none when it is not there.
pub fn folders(path: &Path) -> Vec<(String, PathBuf)> {
    let entries = std::fs::read_dir(path).into_iter().flatten().map(|entry| entry.expect("an entry").path());
    let mut found: Vec<_> =
        entries.map(|path| (path.file_name().unwrap().to_str().expect("a name").to_owned(), path)).collect();
    found.sort();
    found
}

/// The packages of a function in lane dev by version, read off the store's disk. Each must be whole: its
/// two files and nothing else, as its manifest says.
pub fn packages(root: &Path, name: &str) -> BTreeMap<String, Vec<u8>> {
    let versions = folders(&root.join("dev")).into_iter().filter(|(_, path)| path.join(name).exists());
    versions
        .map(|(version, path)| {
            let files = folders(&path.join(name));
            let names: Vec<_> = files.iter().map(|(name, _)| name.as_str()).collect();
            assert_eq!(names, ["manifest.json", "package.zip"], "{version}");
            let manifest: Value = serde_json::from_slice(&std::fs::read(&files[0].1).unwrap()).expect("a manifest");
            let package = std::fs::read(&files[1].1).unwrap();
            assert_eq!(manifest["sha256"], sha256(&package), "{version}");
            assert_eq!(manifest["size"], package.len(), "{version}");
            (version, package)
        })
        .collect()
}

pub fn sha256(bytes: &[u8]) -> String {
    ring::digest::digest(&ring::digest::SHA256, bytes).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}
