//! Writing a package into a folder, counting what really comes out.

use std::{
    collections::BTreeSet,
    fs::{self, DirBuilder, OpenOptions, Permissions},
    io::{self, BufReader, Read, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::Path,
};

use flate2::{Crc, bufread::DeflateDecoder};

use super::{Entry, EntryRule, Method, Package, PackageError, Section, entry::runs_natively};
use crate::function::{Digest, EntryName};

/// A file as it was unpacked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unpacked {
    /// Its path below the folder.
    pub name: EntryName,
    /// In bytes.
    pub size: u64,
    /// Of its bytes.
    pub sha256: Digest,
}

impl Package {
    /// Writes everything into the new folder `into`, whose parent must be private to this server:
    /// then nobody can put a link in the way, and nobody else reads it. Files get the mode 0644, and 0755 where
    /// the zip marks them as executable or they are native programs by their first bytes, for not every zip
    /// keeps that mark; folders get 0755: programs may run as another user. No other mode, owner or time is
    /// taken over.
    ///
    /// # Errors
    /// When the bytes are not what the zip declares, or can't be written. What was written until
    /// then stays, for the caller to remove with the folder.
    pub fn unpack(&self, into: &Path) -> Result<Vec<Unpacked>, PackageError> {
        let mut folders = DirBuilder::new();
        folders.mode(0o700).create(into).map_err(PackageError::Local)?;
        folders.recursive(true);
        let mut made = BTreeSet::from([into.to_owned()]);
        let mut files = Vec::new();
        for entry in &self.entries {
            let path = into.join(entry.name.as_str());
            let folder = if entry.folder { Some(path.as_path()) } else { path.parent() };
            if let Some(folder) = folder {
                folders.create(folder).map_err(PackageError::Local)?;
                made.extend(folder.ancestors().take_while(|folder| *folder != into).map(Path::to_owned));
            }
            if entry.folder {
                continue;
            }
            files.push(self.unpack_file(entry, &path)?);
        }
        // Whatever the server's umask is.
        for folder in made {
            fs::set_permissions(folder, Permissions::from_mode(0o755)).map_err(PackageError::Local)?;
        }
        Ok(files)
    }

    fn unpack_file(&self, entry: &Entry, path: &Path) -> Result<Unpacked, PackageError> {
        let mut bytes = self.open(entry);
        let mut buffer = vec![0; 64 * 1024];
        let first = bytes.read(&mut buffer)?;
        let head = buffer.get(..first).unwrap_or_default();
        let mode = if entry.executable || runs_natively(head) { 0o755 } else { 0o644 };
        let mut file =
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(PackageError::Local)?;
        file.set_permissions(Permissions::from_mode(mode)).map_err(PackageError::Local)?;

        let mut digest = ring::digest::Context::new(&ring::digest::SHA256);
        let mut count = first;
        while count > 0 {
            let piece = buffer.get(..count).unwrap_or_default();
            digest.update(piece);
            file.write_all(piece).map_err(PackageError::Local)?;
            count = bytes.read(&mut buffer)?;
        }
        bytes.finish()?;
        Ok(Unpacked { name: entry.name.clone(), size: entry.size, sha256: Digest::from_ring(&digest.finish()) })
    }

    /// The first bytes of a file, `most` at most.
    pub(super) fn head(&self, entry: &Entry, most: usize) -> Result<Vec<u8>, PackageError> {
        let mut head = vec![0; most];
        let mut bytes = self.open(entry);
        let mut filled = 0;
        while let Some(room) = head.get_mut(filled..).filter(|room| !room.is_empty()) {
            match bytes.read(room)? {
                0 => break,
                count => filled += count,
            }
        }
        head.truncate(filled);
        Ok(head)
    }

    fn open<'a>(&'a self, entry: &'a Entry) -> Bytes<'a> {
        let packed = BufReader::with_capacity(
            32 * 1024,
            self.source.section(entry.data, entry.data.saturating_add(entry.packed)),
        );
        let packed = match entry.method {
            Method::Stored => Packed::Stored(packed),
            Method::Deflated => Packed::Deflated(DeflateDecoder::new(packed)),
        };
        Bytes { entry, packed, crc: Crc::new(), count: 0 }
    }
}

/// The bytes of one entry, never more than it declares.
struct Bytes<'a> {
    entry: &'a Entry,
    packed: Packed<'a>,
    crc: Crc,
    count: u64,
}

enum Packed<'a> {
    Stored(BufReader<Section<'a>>),
    Deflated(DeflateDecoder<BufReader<Section<'a>>>),
}

impl Bytes<'_> {
    fn damaged(&self) -> PackageError {
        PackageError::entry(self.entry.name.as_str().as_bytes(), EntryRule::Damaged)
    }

    fn read(&mut self, into: &mut [u8]) -> Result<usize, PackageError> {
        let count = loop {
            let read = match &mut self.packed {
                Packed::Stored(packed) => packed.read(into),
                Packed::Deflated(packed) => packed.read(into),
            };
            match read {
                Ok(count) => break count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // What the decoder finds wrong has no number of the system's.
                Err(error) if error.raw_os_error().is_none() => return Err(self.damaged()),
                Err(error) => return Err(PackageError::Local(error)),
            }
        };
        self.count = self.count.saturating_add(count as u64);
        if self.count > self.entry.size {
            return Err(self.damaged());
        }
        self.crc.update(into.get(..count).unwrap_or_default());
        Ok(count)
    }

    /// At the end: whether it was all, and as declared.
    fn finish(self) -> Result<(), PackageError> {
        let consumed = match &self.packed {
            Packed::Stored(_) => self.count,
            Packed::Deflated(packed) => packed.total_in(),
        };
        let whole = self.count == self.entry.size && self.crc.sum() == self.entry.crc && consumed == self.entry.packed;
        if whole { Ok(()) } else { Err(self.damaged()) }
    }
}
