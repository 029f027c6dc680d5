//! The structures of a zip (APPNOTE.TXT 6.3.10 of PKWARE), and that they fit together without a gap.

use std::io::{BufReader, Read};

use super::{Entry, EntryRule, Method, PackageError, Source, names};
use crate::config::Limits;

const LOCAL: u32 = 0x0403_4b50;
const CENTRAL: u32 = 0x0201_4b50;
const DESCRIPTOR: u32 = 0x0807_4b50;
const END: u32 = 0x0605_4b50;
const END64: u32 = 0x0606_4b50;
const LOCATOR64: u32 = 0x0706_4b50;

const LOCAL_BYTES: u64 = 30;
const CENTRAL_BYTES: u64 = 46;
const END_BYTES: u64 = 22;
const END64_BYTES: u64 = 56;
const LOCATOR64_BYTES: u64 = 20;

/// Encrypted; strongly encrypted; local header masked.
const FLAGS_ENCRYPTED: u16 = 1 | 1 << 6 | 1 << 13;
const FLAG_DESCRIPTOR: u16 = 1 << 3;
const FLAG_PATCH: u16 = 1 << 5;
const FLAG_UTF8: u16 = 1 << 11;

/// Extra fields: the 64-bit sizes, and the UTF-8 name beside one in another charset (Info-ZIP).
const EXTRA_ZIP64: u16 = 0x0001;
const EXTRA_UTF8_NAME: u16 = 0x7075;

/// A file smaller than this may be packed at any ratio, in bytes.
const RATIO_FROM: u64 = 1024 * 1024;

/// A cursor over little-endian numbers.
struct Numbers<'a>(&'a [u8]);

impl<'a> Numbers<'a> {
    fn bytes<const N: usize>(&mut self) -> Result<[u8; N], PackageError> {
        let (bytes, rest) =
            self.0.split_first_chunk().ok_or(PackageError::Malformed("a structure of it is cut short"))?;
        self.0 = rest;
        Ok(*bytes)
    }

    fn u16(&mut self) -> Result<u16, PackageError> {
        self.bytes().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Result<u32, PackageError> {
        self.bytes().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, PackageError> {
        self.bytes().map(u64::from_le_bytes)
    }

    fn take(&mut self, count: u16) -> Option<&'a [u8]> {
        let (bytes, rest) = self.0.split_at_checked(count.into())?;
        self.0 = rest;
        Some(bytes)
    }
}

/// All entries, in the order of their places, checked in every way that needs no unpacking.
pub(super) fn read(source: &Source, limits: &Limits) -> Result<Vec<Entry>, PackageError> {
    let directory = Directory::find(source)?;
    // Before anything is allocated for each of them.
    if directory.entries > limits.package_entries {
        return Err(PackageError::TooLarge { of: "files and folders", limit: limits.package_entries });
    }
    let mut entries = directory.read(source, limits)?;
    if entries.iter().all(|entry| entry.folder) {
        return Err(PackageError::Empty);
    }
    let total = entries.iter().fold(0_u64, |total, entry| total.saturating_add(entry.size));
    if total > limits.unpacked_bytes {
        return Err(PackageError::TooLarge { of: "bytes unpacked", limit: limits.unpacked_bytes });
    }
    names::check_together(entries.iter().map(|entry| (&entry.name, entry.folder)))?;
    check_places(source, &mut entries, directory.start)?;
    Ok(entries)
}

/// Where the central directory stands.
struct Directory {
    start: u64,
    end: u64,
    entries: u64,
}

impl Directory {
    /// Finds it by the record at the very end of the file, which must be the last that looks like one.
    fn find(source: &Source) -> Result<Self, PackageError> {
        const NOT_A_ZIP: PackageError = PackageError::Malformed("it has no central directory; is it a zip at all?");
        let tail_start = source.length.saturating_sub(END_BYTES + u64::from(u16::MAX));
        let mut tail = vec![0; usize::try_from(source.length - tail_start).map_err(|_| NOT_A_ZIP)?];
        source.read_at(&mut tail, tail_start)?;
        let at = tail.windows(4).rposition(|window| window == END.to_le_bytes()).ok_or(NOT_A_ZIP)?;
        let end_at = tail_start + at as u64;

        let mut numbers = Numbers(tail.get(at + 4..).unwrap_or_default());
        let (disk, first_disk) = (numbers.u16()?, numbers.u16()?);
        let (here, entries) = (numbers.u16()?, numbers.u16()?);
        let (size, start) = (numbers.u32()?, numbers.u32()?);
        let comment = numbers.u16()?;
        if numbers.0.len() != usize::from(comment) {
            return Err(PackageError::Malformed("bytes that belong to nothing follow its end"));
        }
        if disk != 0 || first_disk != 0 || here != entries {
            return Err(PackageError::Malformed("it is one part of several"));
        }
        let found = match Self::find64(source, end_at)? {
            None => Self { start: start.into(), end: end_at, entries: entries.into() },
            Some(found) => {
                // Who reads the old record must come to the same numbers, or see that they are not there.
                let same = |old: u64, new: u64, absent: u64| old == new || old == absent;
                let agree = same(entries.into(), found.entries, u16::MAX.into())
                    && same(start.into(), found.start, u32::MAX.into())
                    && same(size.into(), found.end.saturating_sub(found.start), u32::MAX.into());
                if !agree {
                    return Err(PackageError::Malformed("its two end records do not agree"));
                }
                return Ok(found);
            }
        };
        if found.start.checked_add(size.into()) != Some(found.end) {
            return Err(PackageError::Malformed("its central directory does not end where its end record begins"));
        }
        Ok(found)
    }

    /// The same by the zip64 records, where the locator of one stands before the end record.
    fn find64(source: &Source, end_at: u64) -> Result<Option<Self>, PackageError> {
        let Some(locator_at) = end_at.checked_sub(LOCATOR64_BYTES) else { return Ok(None) };
        let mut locator = [0; LOCATOR64_BYTES as usize];
        source.read_at(&mut locator, locator_at)?;
        let mut numbers = Numbers(&locator);
        if numbers.u32()? != LOCATOR64 {
            return Ok(None);
        }
        let (disk, record_at, disks) = (numbers.u32()?, numbers.u64()?, numbers.u32()?);
        const WRONG: PackageError = PackageError::Malformed("its zip64 records do not fit together");
        if disk != 0 || disks > 1 || record_at.checked_add(END64_BYTES) != Some(locator_at) {
            return Err(WRONG);
        }
        let mut record = [0; END64_BYTES as usize];
        source.read_at(&mut record, record_at)?;
        let mut numbers = Numbers(&record);
        let (signature, length) = (numbers.u32()?, numbers.u64()?);
        let _versions = numbers.u32()?;
        let (disk, first_disk) = (numbers.u32()?, numbers.u32()?);
        let (here, entries, size, start) = (numbers.u64()?, numbers.u64()?, numbers.u64()?, numbers.u64()?);
        let fits = signature == END64
            && length == END64_BYTES - 12
            && disk == 0
            && first_disk == 0
            && here == entries
            && start.checked_add(size) == Some(record_at);
        if !fits {
            return Err(WRONG);
        }
        Ok(Some(Self { start, end: record_at, entries }))
    }

    /// Reads its headers one by one: as many as the end record says, up to its end, and no byte more.
    fn read(&self, source: &Source, limits: &Limits) -> Result<Vec<Entry>, PackageError> {
        const SHORT: PackageError = PackageError::Malformed("its central directory holds fewer entries than it says");
        if self.end.saturating_sub(self.start) / CENTRAL_BYTES < self.entries {
            return Err(SHORT);
        }
        let mut reader = BufReader::with_capacity(64 * 1024, source.section(self.start, self.end));
        let mut entries = Vec::with_capacity(usize::try_from(self.entries).unwrap_or_default());
        let mut variable = Vec::new();
        for _ in 0..self.entries {
            let mut fixed = [0; CENTRAL_BYTES as usize];
            read_all(&mut reader, &mut fixed, SHORT)?;
            let header = Central::parse(&fixed)?;
            variable.resize(usize::from(header.name) + usize::from(header.extra) + usize::from(header.comment), 0);
            read_all(&mut reader, &mut variable, SHORT)?;
            let mut rest = Numbers(&variable);
            let name = rest.take(header.name).ok_or(SHORT)?;
            let extra = rest.take(header.extra).ok_or(SHORT)?;
            entries.push(header.entry(name, extra, limits)?);
        }
        match reader.read(&mut [0]).map_err(PackageError::Local)? {
            0 => Ok(entries),
            _ => Err(PackageError::Malformed("its central directory holds more than the entries it says")),
        }
    }
}

fn read_all(reader: &mut impl Read, bytes: &mut [u8], short: PackageError) -> Result<(), PackageError> {
    reader.read_exact(bytes).map_err(|error| match error.kind() {
        std::io::ErrorKind::UnexpectedEof => short,
        _ => PackageError::Local(error),
    })
}

/// A header of the central directory, as far as it is used.
struct Central {
    flags: u16,
    method: u16,
    crc: u32,
    packed: u32,
    size: u32,
    name: u16,
    extra: u16,
    comment: u16,
    disk: u16,
    attributes: u32,
    offset: u32,
}

impl Central {
    fn parse(fixed: &[u8]) -> Result<Self, PackageError> {
        let mut numbers = Numbers(fixed);
        if numbers.u32()? != CENTRAL {
            return Err(PackageError::Malformed("its central directory holds something else than entries"));
        }
        let _versions = numbers.u32()?;
        let (flags, method) = (numbers.u16()?, numbers.u16()?);
        let _time = numbers.u32()?;
        let (crc, packed, size) = (numbers.u32()?, numbers.u32()?, numbers.u32()?);
        let (name, extra, comment, disk) = (numbers.u16()?, numbers.u16()?, numbers.u16()?, numbers.u16()?);
        let _internal_attributes = numbers.u16()?;
        let (attributes, offset) = (numbers.u32()?, numbers.u32()?);
        Ok(Self { flags, method, crc, packed, size, name, extra, comment, disk, attributes, offset })
    }

    fn entry(&self, raw_name: &[u8], extra: &[u8], limits: &Limits) -> Result<Entry, PackageError> {
        let refuse = |rule| PackageError::entry(raw_name, rule);
        let (name, folder) = parse_name(raw_name, self.flags, extra)?;
        if self.flags & FLAGS_ENCRYPTED != 0 {
            return Err(refuse(EntryRule::Encrypted));
        }
        let method = match self.method {
            0 => Method::Stored,
            8 => Method::Deflated,
            other => return Err(refuse(EntryRule::Method(other))),
        };
        if self.flags & FLAG_PATCH != 0 || self.disk != 0 {
            return Err(refuse(EntryRule::Disagrees));
        }
        let executable = self.check_kind(folder).map_err(refuse)?;

        let zip64 = extra_field(extra, EXTRA_ZIP64).map_err(|()| refuse(EntryRule::Zip64))?;
        let mut wide = Numbers(zip64.unwrap_or_default());
        let mut full = |narrow: u32| match narrow {
            u32::MAX => wide.u64().map_err(|_| refuse(EntryRule::Zip64)),
            narrow => Ok(narrow.into()),
        };
        let (size, packed, header) = (full(self.size)?, full(self.packed)?, full(self.offset)?);
        if !wide.0.is_empty() {
            return Err(refuse(EntryRule::Zip64));
        }

        // An empty deflate stream has two bytes; some write it for folders.
        if folder && (size != 0 || packed > 2) {
            return Err(refuse(EntryRule::FolderWithBytes));
        }
        if method == Method::Stored && size != packed {
            return Err(refuse(EntryRule::Disagrees));
        }
        if size > limits.entry_bytes {
            return Err(refuse(EntryRule::Large(limits.entry_bytes)));
        }
        if size > RATIO_FROM && size / limits.package_ratio.max(1) > packed {
            return Err(refuse(EntryRule::Ratio(limits.package_ratio)));
        }
        let descriptor = self.flags & FLAG_DESCRIPTOR != 0;
        Ok(Entry { name, folder, executable, size, packed, crc: self.crc, method, header, data: 0, descriptor })
    }

    /// Refuses everything but files and folders that are marked as what they are. Gives whether a
    /// file is marked as executable.
    fn check_kind(&self, folder: bool) -> Result<bool, EntryRule> {
        const DOS_FOLDER: u32 = 0x10;
        // Not every writer that gives a Unix mode says that it is one, nor does every reader ask.
        let mode = self.attributes >> 16;
        match mode & 0o170_000 {
            0o120_000 => return Err(EntryRule::Link),
            0o040_000 if !folder => return Err(EntryRule::Ambiguous),
            0o100_000 if folder => return Err(EntryRule::Ambiguous),
            0 | 0o040_000 | 0o100_000 => {}
            _ => return Err(EntryRule::Special),
        }
        if !folder && self.attributes & DOS_FOLDER != 0 {
            return Err(EntryRule::Ambiguous);
        }
        Ok(!folder && mode & 0o111 != 0)
    }
}

fn parse_name(raw: &[u8], flags: u16, extra: &[u8]) -> Result<(crate::function::EntryName, bool), PackageError> {
    // Version, checksum of the plain name, UTF-8 name. Where the two names differ, so would two readers.
    let other = extra_field(extra, EXTRA_UTF8_NAME).map_err(|()| PackageError::entry(raw, EntryRule::Disagrees))?;
    let same = other.map(|field| field.get(5..) == Some(raw));
    if same == Some(false) {
        return Err(PackageError::entry(raw, EntryRule::Disagrees));
    }
    names::parse(raw, flags & FLAG_UTF8 != 0 || same == Some(true))
}

/// The one extra field of that kind; an error when there are two, as readers may take either.
fn extra_field(extra: &[u8], kind: u16) -> Result<Option<&[u8]>, ()> {
    let mut numbers = Numbers(extra);
    let mut found = None;
    // What is too short to be a field is padding, which some writers align with.
    while let (Ok(id), Ok(length)) = (numbers.u16(), numbers.u16()) {
        let Some(field) = numbers.take(length) else { break };
        if id == kind && found.replace(field).is_some() {
            return Err(());
        }
    }
    Ok(found)
}

/// Walks the local headers in the order of their places: from the first byte of the file to the
/// central directory, each must begin where the one before it ends.
fn check_places(source: &Source, entries: &mut [Entry], directory: u64) -> Result<(), PackageError> {
    entries.sort_unstable_by_key(|entry| entry.header);
    if entries.first().is_some_and(|entry| entry.header != 0) {
        return Err(PackageError::Malformed("bytes that belong to nothing stand before its first entry"));
    }
    let ends: Vec<u64> = entries.iter().skip(1).map(|entry| entry.header).chain([directory]).collect();
    for (entry, end) in entries.iter_mut().zip(ends) {
        entry.check_place(source, end)?;
    }
    Ok(())
}

impl Entry {
    /// Reads the local header, and finds that the entry fills its place up to `end`.
    fn check_place(&mut self, source: &Source, end: u64) -> Result<(), PackageError> {
        let raw_name = self.raw_name();
        let refuse = |rule| PackageError::entry(&raw_name, rule);
        if self.header.checked_add(LOCAL_BYTES).is_none_or(|fixed| fixed > end) {
            return Err(refuse(EntryRule::Overlaps));
        }
        let mut fixed = [0; LOCAL_BYTES as usize];
        source.read_at(&mut fixed, self.header)?;
        let mut numbers = Numbers(&fixed);
        if numbers.u32()? != LOCAL {
            return Err(refuse(EntryRule::Disagrees));
        }
        let _version_needed = numbers.u16()?;
        let (flags, method) = (numbers.u16()?, numbers.u16()?);
        let _time = numbers.u32()?;
        let (crc, packed, size) = (numbers.u32()?, numbers.u32()?, numbers.u32()?);
        let (name, extra) = (numbers.u16()?, numbers.u16()?);

        self.data = self.header + LOCAL_BYTES + u64::from(name) + u64::from(extra);
        let data_end = self.data.checked_add(self.packed).filter(|data_end| *data_end <= end);
        let Some(data_end) = data_end else { return Err(refuse(EntryRule::Overlaps)) };
        let mut variable = vec![0; usize::from(name) + usize::from(extra)];
        source.read_at(&mut variable, self.header + LOCAL_BYTES)?;
        let mut rest = Numbers(&variable);
        let (name, extra) = (rest.take(name).unwrap_or_default(), rest.take(extra).unwrap_or_default());

        let descriptor = flags & FLAG_DESCRIPTOR != 0;
        let zip64 = extra_field(extra, EXTRA_ZIP64).map_err(|()| refuse(EntryRule::Zip64))?;
        let other_name = extra_field(extra, EXTRA_UTF8_NAME).map_err(|()| refuse(EntryRule::Disagrees))?;
        let mut wide = Numbers(zip64.unwrap_or_default());
        let mut says = |narrow: u32, full: u64| match narrow {
            0 if descriptor => true,
            u32::MAX if zip64.is_some() => wide.u64().is_ok_and(|wide| wide == full || (descriptor && wide == 0)),
            narrow => u64::from(narrow) == full,
        };
        let agrees = name == raw_name
            && other_name.is_none_or(|field| field.get(5..) == Some(name))
            && flags & FLAGS_ENCRYPTED == 0
            && descriptor == self.descriptor
            && method == self.method.number()
            && (crc == self.crc || (descriptor && crc == 0))
            && says(size, self.size)
            && says(packed, self.packed);
        if !agrees {
            return Err(refuse(EntryRule::Disagrees));
        }
        if !descriptor {
            return if data_end == end { Ok(()) } else { Err(refuse(EntryRule::Gap)) };
        }
        if self.descriptor_fills(source, data_end, end)? { Ok(()) } else { Err(refuse(EntryRule::Gap)) }
    }

    /// Whether what stands between `from` and `end` is this entry's data descriptor: with or without
    /// a signature, with sizes of 32 or 64 bits.
    fn descriptor_fills(&self, source: &Source, from: u64, end: u64) -> Result<bool, PackageError> {
        let length = end - from;
        if !matches!(length, 12 | 16 | 20 | 24) {
            return Ok(false);
        }
        let mut bytes = vec![0; usize::try_from(length).unwrap_or_default()];
        source.read_at(&mut bytes, from)?;
        let mut numbers = Numbers(&bytes);
        if matches!(length, 16 | 24) && numbers.u32()? != DESCRIPTOR {
            return Ok(false);
        }
        let crc = numbers.u32()?;
        let (packed, size) = if matches!(length, 12 | 16) {
            (numbers.u32()?.into(), numbers.u32()?.into())
        } else {
            (numbers.u64()?, numbers.u64()?)
        };
        Ok(crc == self.crc && packed == self.packed && size == self.size)
    }

    /// The name as its headers hold it.
    fn raw_name(&self) -> Vec<u8> {
        let mut raw = self.name.as_str().as_bytes().to_vec();
        if self.folder {
            raw.push(b'/');
        }
        raw
    }
}

impl Method {
    fn number(self) -> u16 {
        match self {
            Self::Stored => 0,
            Self::Deflated => 8,
        }
    }
}
