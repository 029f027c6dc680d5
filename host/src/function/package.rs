//! Packages: zips that strangers made, read as hostile.
//!
//! [`Package::read`] looks at every structure of the file before a byte is unpacked, and is stricter
//! than a zip reader needs to be: the local entries, the central directory and its end must cover the
//! whole file, each byte once, and say the same. So there is nothing hidden between the entries, no
//! bytes count twice, and no other program reads other files out of the same zip. That is more than a
//! general zip library can ask for, which is why the structures are parsed here and only inflating is
//! left to a library.
//!
//! [`Package::unpack`] then trusts none of the sizes that were declared: it counts what comes out.
//!
//! Everything in here blocks; call it where blocking is allowed. Memory is bounded by the number of
//! entries, never by what a header claims. Error texts are for whoever pushed the package: they name
//! the entry and the rule, and no path of the server.

mod entry;
mod error;
mod layout;
mod names;
mod unpack;

use std::{fs::File, os::unix::fs::FileExt};

pub use entry::{HEAD_BYTES, check_head};
pub use error::{EntryRule, PackageError};
pub use unpack::Unpacked;

use super::{
    Declaration, EntryName,
    declaration::{DECLARATION, MAX_DECLARATION_BYTES},
};
use crate::config::Limits;

/// A zip whose structure was found sound.
#[derive(Debug)]
pub struct Package {
    source: Source,
    entries: Vec<Entry>,
}

/// A file or folder of a package.
#[derive(Debug)]
pub struct Entry {
    name: EntryName,
    folder: bool,
    executable: bool,
    /// Unpacked, in bytes, as declared.
    size: u64,
    /// In the zip, in bytes.
    packed: u64,
    crc: u32,
    method: Method,
    /// Where its local header begins.
    header: u64,
    /// Where its bytes begin; known once the local header was read.
    data: u64,
    /// Whether sizes and checksum stand behind the bytes too.
    descriptor: bool,
}

/// How an entry is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Method {
    Stored,
    Deflated,
}

impl Entry {
    /// Its path in the package; of a folder, without the slash at its end.
    #[must_use]
    pub fn name(&self) -> &EntryName {
        &self.name
    }

    /// Whether it is a folder.
    #[must_use]
    pub fn is_folder(&self) -> bool {
        self.folder
    }

    /// Whether the zip marks it as executable.
    #[must_use]
    pub fn is_executable(&self) -> bool {
        self.executable
    }

    /// Its size unpacked, in bytes, as the zip declares it.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }
}

impl Package {
    /// Reads the structure of the zip that `file` holds.
    ///
    /// # Errors
    /// When it is not a zip, is over one of the limits, or breaks one of the rules of [`EntryRule`].
    pub fn read(file: File, limits: &Limits) -> Result<Self, PackageError> {
        let source = Source { length: file.metadata().map_err(PackageError::Local)?.len(), file };
        if source.length > limits.package_bytes {
            return Err(PackageError::TooLarge { of: "bytes as a zip", limit: limits.package_bytes });
        }
        let entries = layout::read(&source, limits)?;
        Ok(Self { source, entries })
    }

    /// Its files and folders, in the order of their places in the zip.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// What it says of itself, in its `sharpfaas.toml`.
    ///
    /// # Errors
    /// When that is not valid.
    pub fn declaration(&self) -> Result<Declaration, PackageError> {
        match self.files().find(|entry| entry.name.as_str() == DECLARATION) {
            Some(entry) => Ok(Declaration::parse(&self.head(entry, MAX_DECLARATION_BYTES + 1)?)?),
            None => Ok(Declaration::default()),
        }
    }

    /// The file of that name.
    #[must_use]
    pub fn file(&self, name: &EntryName) -> Option<&Entry> {
        self.files().find(|entry| entry.name == *name)
    }

    fn files(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(|entry| !entry.folder)
    }
}

/// The zip's bytes.
#[derive(Debug)]
struct Source {
    file: File,
    length: u64,
}

impl Source {
    /// Fills `bytes` from `offset` on.
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> Result<(), PackageError> {
        let end = offset.checked_add(bytes.len() as u64);
        if end.is_none_or(|end| end > self.length) {
            return Err(PackageError::Malformed("a structure of it lies beyond its end"));
        }
        self.file.read_exact_at(bytes, offset).map_err(PackageError::Local)
    }

    /// A reader of the bytes from `from` up to `to`.
    fn section(&self, from: u64, to: u64) -> Section<'_> {
        Section { source: self, at: from, end: to.min(self.length) }
    }
}

/// A reader of a part of the zip.
#[derive(Debug)]
struct Section<'a> {
    source: &'a Source,
    at: u64,
    end: u64,
}

impl std::io::Read for Section<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> std::io::Result<usize> {
        let left = usize::try_from(self.end.saturating_sub(self.at)).unwrap_or(usize::MAX);
        let room = bytes.len().min(left);
        let count = match bytes.get_mut(..room) {
            Some(bytes) => self.source.file.read_at(bytes, self.at)?,
            None => 0,
        };
        self.at = self.at.saturating_add(count as u64);
        Ok(count)
    }
}

#[cfg(test)]
pub(crate) mod raw;
#[cfg(test)]
mod tests;
