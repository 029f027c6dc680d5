//! The guests that `make fixtures` and `make examples` built, and zips of them.

use std::{
    io::{Cursor, Write},
    path::{Path, PathBuf},
};

use zip::{CompressionMethod, ZipWriter, write::SimpleFileOptions};

/// Below which the Makefile puts guests: the target folder, of which this test's binary lies in `debug/deps`.
fn target() -> PathBuf {
    let binary = std::env::current_exe().expect("the test knows its binary");
    binary.ancestors().nth(3).expect("it lies in a target folder").to_owned()
}

/// The bytes of the fixture of that name.
pub fn fixture(name: &str) -> Vec<u8> {
    read(&fixture_path(name))
}

/// Where that is.
pub fn fixture_path(name: &str) -> PathBuf {
    std::env::var_os("SHARPFAAS_FIXTURES").map_or_else(|| target().join("fixtures"), PathBuf::from).join(name)
}

/// The bytes of the example of that name.
pub fn example(name: &str) -> Vec<u8> {
    let path = match name.strip_suffix(".wasm") {
        Some(_) => format!("guests/wasm32-wasip2/release/{}", name.replace('-', "_")),
        None => format!("guests/release/{name}"),
    };
    read(&target().join(path))
}

fn read(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}: run 'make fixtures examples'", path.display()))
}

/// A zip of these files, executable where they are no components.
pub fn zip(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in files {
        let mode = if name.ends_with(".wasm") { 0o644 } else { 0o755 };
        let options =
            SimpleFileOptions::default().compression_method(CompressionMethod::Deflated).unix_permissions(mode);
        zip.start_file(*name, options).expect("a file can be begun");
        zip.write_all(bytes).expect("it can be written");
    }
    zip.finish().expect("the zip can be ended").into_inner()
}

/// A zip of one fixture.
pub fn zipped(name: &str) -> Vec<u8> {
    zip(&[(name, &fixture(name))])
}
