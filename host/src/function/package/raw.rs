//! A zip writer for tests, which writes whatever it is told to, sound or not.

use std::io::Write;

use flate2::{Compression, Crc, write::DeflateEncoder};

/// An entry to write; the fields are those of its headers.
#[derive(Debug, Clone)]
pub(crate) struct RawEntry {
    pub(crate) name: Vec<u8>,
    pub(crate) flags: u16,
    pub(crate) method: u16,
    pub(crate) crc: u32,
    pub(crate) packed: Vec<u8>,
    pub(crate) size: u32,
    pub(crate) attributes: u32,
    pub(crate) extra: Vec<u8>,
    /// Where the local header is to differ.
    pub(crate) local: Local,
    /// Written after the bytes.
    pub(crate) behind: Vec<u8>,
    /// What the central directory says in place of the truth.
    pub(crate) packed_said: Option<u32>,
    pub(crate) offset_said: Option<u32>,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Local {
    pub(crate) name: Option<Vec<u8>>,
    pub(crate) flags: Option<u16>,
    pub(crate) method: Option<u16>,
    pub(crate) sizes: Option<(u32, u32, u32)>,
    pub(crate) extra: Option<Vec<u8>>,
}

pub(crate) fn crc(bytes: &[u8]) -> u32 {
    let mut crc = Crc::new();
    crc.update(bytes);
    crc.sum()
}

pub(crate) fn deflated(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).expect("writes to memory");
    encoder.finish().expect("writes to memory")
}

/// A stored file with the mode 0644.
pub(crate) fn stored(name: &str, bytes: &[u8]) -> RawEntry {
    RawEntry {
        name: name.into(),
        flags: 0,
        method: 0,
        crc: crc(bytes),
        packed: bytes.to_vec(),
        size: bytes.len() as u32,
        attributes: 0o100_644 << 16,
        extra: Vec::new(),
        local: Local::default(),
        behind: Vec::new(),
        packed_said: None,
        offset_said: None,
    }
}

/// A deflated file with the mode 0644.
pub(crate) fn packed(name: &str, bytes: &[u8]) -> RawEntry {
    RawEntry { method: 8, packed: deflated(bytes), ..stored(name, bytes) }
}

impl RawEntry {
    pub(crate) fn mode(mut self, mode: u32) -> Self {
        self.attributes = mode << 16;
        self
    }

    pub(crate) fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    /// Moves sizes and checksum behind the bytes, in that form.
    pub(crate) fn streamed(mut self, signature: bool, wide: bool) -> Self {
        self.flags |= 8;
        self.local.sizes = Some((0, 0, 0));
        self.behind = if signature { 0x0807_4b50_u32.to_le_bytes().to_vec() } else { Vec::new() };
        self.behind.extend(self.crc.to_le_bytes());
        for size in [self.packed.len() as u64, self.size.into()] {
            let bytes = size.to_le_bytes();
            self.behind.extend(if wide { &bytes[..] } else { &bytes[..4] });
        }
        self
    }
}

/// The last record of a zip.
pub(crate) fn end(entries: u16, size: u32, start: u32, comment: &[u8]) -> Vec<u8> {
    let mut out = 0x0605_4b50_u32.to_le_bytes().to_vec();
    out.extend([0; 4]);
    out.extend(entries.to_le_bytes());
    out.extend(entries.to_le_bytes());
    out.extend(size.to_le_bytes());
    out.extend(start.to_le_bytes());
    out.extend((comment.len() as u16).to_le_bytes());
    out.extend(comment);
    out
}

/// The zip64 record and its locator, for a directory of `size` bytes at `start` with the record right after it.
pub(crate) fn end64(entries: u64, size: u64, start: u64) -> Vec<u8> {
    let mut out = 0x0606_4b50_u32.to_le_bytes().to_vec();
    out.extend(44_u64.to_le_bytes());
    out.extend([45, 3, 45, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    for number in [entries, entries, size, start] {
        out.extend(number.to_le_bytes());
    }
    out.extend(0x0706_4b50_u32.to_le_bytes());
    out.extend(0_u32.to_le_bytes());
    out.extend((start + size).to_le_bytes());
    out.extend(1_u32.to_le_bytes());
    out
}

/// Local entries and central directory, and where the directory begins.
pub(crate) fn body(entries: &[RawEntry]) -> (Vec<u8>, usize) {
    let mut out = Vec::new();
    let mut central = Vec::new();
    for entry in entries {
        let offset = entry.offset_said.unwrap_or(out.len() as u32);
        let name = entry.local.name.as_ref().unwrap_or(&entry.name);
        let extra = entry.local.extra.as_ref().unwrap_or(&entry.extra);
        let (crc, packed, size) = entry.local.sizes.unwrap_or((entry.crc, entry.packed.len() as u32, entry.size));
        out.extend(0x0403_4b50_u32.to_le_bytes());
        out.extend(20_u16.to_le_bytes());
        out.extend(entry.local.flags.unwrap_or(entry.flags).to_le_bytes());
        out.extend(entry.local.method.unwrap_or(entry.method).to_le_bytes());
        out.extend([0, 0, 0x21, 0]);
        for number in [crc, packed, size] {
            out.extend(number.to_le_bytes());
        }
        out.extend((name.len() as u16).to_le_bytes());
        out.extend((extra.len() as u16).to_le_bytes());
        out.extend(name);
        out.extend(extra);
        out.extend(&entry.packed);
        out.extend(&entry.behind);

        central.extend(0x0201_4b50_u32.to_le_bytes());
        central.extend([20, 3, 20, 0]);
        central.extend(entry.flags.to_le_bytes());
        central.extend(entry.method.to_le_bytes());
        central.extend([0, 0, 0x21, 0]);
        for number in [entry.crc, entry.packed_said.unwrap_or(entry.packed.len() as u32), entry.size] {
            central.extend(number.to_le_bytes());
        }
        central.extend((entry.name.len() as u16).to_le_bytes());
        central.extend((entry.extra.len() as u16).to_le_bytes());
        central.extend([0; 6]);
        central.extend(entry.attributes.to_le_bytes());
        central.extend(offset.to_le_bytes());
        central.extend(&entry.name);
        central.extend(&entry.extra);
    }
    let start = out.len();
    out.extend(central);
    (out, start)
}

/// A whole zip.
pub(crate) fn zip(entries: &[RawEntry]) -> Vec<u8> {
    let (mut out, start) = body(entries);
    let size = out.len() - start;
    out.extend(end(entries.len() as u16, size as u32, start as u32, b""));
    out
}

/// `bytes` as an open file.
pub(crate) fn file(bytes: &[u8]) -> std::fs::File {
    let mut file = tempfile::tempfile().expect("a temporary file");
    file.write_all(bytes).expect("written");
    file
}
