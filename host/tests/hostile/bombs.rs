//! Zips that no tool would write: bombs, and such as lie about what is in them.

use serde_json::Value;

use super::{Target, form, part, push_request};

/// One file of a zip that is written by hand, with whatever its directory says of it.
#[derive(Clone)]
struct Entry {
    name: String,
    packed: Vec<u8>,
    method: u16,
    size: u32,
    crc: u32,
    flags: u16,
    mode: u32,
    /// Has no file of its own: the directory leads to that of the first.
    of_first: bool,
}

fn stored(name: &str, content: &[u8]) -> Entry {
    let mut crc = flate2::Crc::new();
    crc.update(content);
    Entry {
        name: name.into(),
        packed: content.into(),
        method: 0,
        size: content.len() as u32,
        crc: crc.sum(),
        flags: 0,
        mode: 0o100_755,
        of_first: false,
    }
}

/// A file of that many zeros, deflated.
fn zeros(name: &str, count: usize) -> Entry {
    use std::io::Write as _;
    let content = vec![0; count];
    let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(&content).expect("it is packed");
    Entry { packed: encoder.finish().expect("it is packed"), method: 8, ..stored(name, &content) }
}

fn by_hand(entries: &[Entry]) -> Vec<u8> {
    let (mut zip, mut directory) = (Vec::new(), Vec::new());
    for entry in entries {
        let mut common = Vec::new();
        common.extend(20_u16.to_le_bytes());
        common.extend(entry.flags.to_le_bytes());
        common.extend(entry.method.to_le_bytes());
        common.extend([0, 0, 0x21, 0]);
        common.extend(entry.crc.to_le_bytes());
        common.extend((entry.packed.len() as u32).to_le_bytes());
        common.extend(entry.size.to_le_bytes());
        common.extend((entry.name.len() as u16).to_le_bytes());
        common.extend([0, 0]);
        let offset = if entry.of_first { 0 } else { zip.len() as u32 };
        if !entry.of_first {
            zip.extend(b"PK\x03\x04");
            zip.extend(&common);
            zip.extend(entry.name.as_bytes());
            zip.extend(&entry.packed);
        }
        directory.extend(b"PK\x01\x02");
        directory.extend([20, 3]);
        directory.extend(&common);
        directory.extend([0; 6]);
        directory.extend((entry.mode << 16).to_le_bytes());
        directory.extend(offset.to_le_bytes());
        directory.extend(entry.name.as_bytes());
    }
    let (at, count) = (zip.len() as u32, entries.len() as u16);
    zip.extend(&directory);
    zip.extend(b"PK\x05\x06\0\0\0\0");
    zip.extend(count.to_le_bytes());
    zip.extend(count.to_le_bytes());
    zip.extend((directory.len() as u32).to_le_bytes());
    zip.extend(at.to_le_bytes());
    zip.extend([0, 0]);
    zip
}

#[tokio::test]
async fn bombs_and_zips_that_lie_are_refused_by_name() {
    let target = Target::start("").await;
    let script = || stored("run.sh", b"#!/bin/sh\necho hello\n");
    let with = |name: &str| vec![script(), stored(name, b"x")];
    let bomb = zeros("zeros", 48 << 20);
    let lie = Entry { size: 10, ..bomb.clone() };
    let overlap = (0..100).map(|i| Entry { name: format!("f{i}"), of_first: i > 0, ..zeros("", 1 << 20) });
    let many = (0..60_000).map(|i| stored(&format!("e{i}"), b""));
    let cases: Vec<(&str, Vec<Entry>)> = vec![
        ("a file far larger than its zip", vec![script(), bomb]),
        ("a file larger than it says", vec![script(), lie]),
        ("files that are one and the same", overlap.collect()),
        ("60,000 files", many.collect()),
        ("a way up", with("../up")),
        ("a way up inside", with("a/../../up")),
        ("an absolute path", with("/etc/cron.d/x")),
        ("a drive", with("C:\\x")),
        ("a backslash", with("a\\..\\x")),
        ("a NUL", with("a\0b")),
        ("a line end", with("a\r\nb")),
        ("a file twice", with("run.sh")),
        ("a file twice but for case", with("RUN.SH")),
        ("a file below a file", with("run.sh/x")),
        ("no name", with("")),
        ("a link", vec![script(), Entry { mode: 0o120_777, ..stored("link", b"/etc/passwd") }]),
        ("a device", vec![script(), Entry { mode: 0o020_666, ..stored("device", b"") }]),
        ("an encrypted file", vec![script(), Entry { flags: 1, ..stored("secret", b"123456789012345") }]),
        ("an unknown method", vec![script(), Entry { method: 99, ..stored("odd", b"x") }]),
        ("a wrong checksum", vec![Entry { crc: 1, ..script() }]),
    ];
    assert!(by_hand(&[script()]).len() > 100);
    for (what, entries) in &cases {
        let body = form(&[part("file", &by_hand(entries))]);
        let request = push_request("functionName=bomb&lane=dev&type=exe&entryFileName=run.sh", &body);
        let (status, body) = target.send(&request).await.unwrap_or_else(|| panic!("{what}: no answer"));
        let problem: Value = serde_json::from_slice(&body).unwrap_or_else(|_| panic!("{what}: {status}"));
        let code = problem["code"].as_str().unwrap_or_default();
        assert!(
            matches!((status, code), (400, "invalid_package") | (413, "package_too_large")),
            "{what}: {status} {problem}"
        );
        println!("{what}: {}", problem["detail"]);
    }
    // The same without a fault is taken, so that each was refused for what it is.
    let right = form(&[part("file", &by_hand(&[script(), stored("data", b"x")]))]);
    let (status, body) =
        target.send(&push_request("functionName=right&lane=dev&type=exe", &right)).await.expect("an answer");
    assert_eq!(status, 201, "{}", String::from_utf8_lossy(&body));
    target.stands_as_before(2).await;
}
