//! A file of a control group, held open: opening one costs the kernel more than reading it.

use std::{io, os::fd::OwnedFd, path::Path};

use rustix::fs::{Mode, OFlags};

/// The most that is read of one, in bytes. They hold some short lines.
const MOST: usize = 1024;

/// A file that is read again and again. Not for lists of processes: the first version of groups shows one that was
/// opened before as it was then.
#[derive(Debug)]
pub struct Control(OwnedFd);

impl Control {
    /// Opens it for reading.
    ///
    /// # Errors
    /// When it is not there, or may not be read.
    pub fn read(path: &Path) -> io::Result<Self> {
        Self::open(path, OFlags::RDONLY)
    }

    /// Opens it for reading and writing.
    ///
    /// # Errors
    /// When it is not there, or may not be written.
    pub fn write(path: &Path) -> io::Result<Self> {
        Self::open(path, OFlags::RDWR)
    }

    fn open(path: &Path, access: OFlags) -> io::Result<Self> {
        Ok(Self(rustix::fs::open(path, access | OFlags::CLOEXEC, Mode::empty())?))
    }

    /// What it holds now, as `parse` makes it out.
    pub fn get<T>(&self, parse: impl FnOnce(&str) -> Option<T>) -> Option<T> {
        let mut buffer = [0; MOST];
        let read = rustix::io::pread(&self.0, &mut buffer, 0).ok()?;
        parse(std::str::from_utf8(buffer.get(..read)?).ok()?)
    }

    /// The number that it holds.
    pub fn number(&self) -> Option<u64> {
        self.get(|text| text.trim().parse().ok())
    }

    /// The number behind a name, of lines of such; 0 where there is none.
    pub fn field(&self, name: &str) -> u64 {
        let find =
            |text: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok());
        self.get(find).unwrap_or_default()
    }

    /// Writes into it.
    ///
    /// # Errors
    /// When the kernel takes it not.
    pub fn set(&self, text: &str) -> io::Result<()> {
        rustix::io::pwrite(&self.0, text.as_bytes(), 0)?;
        Ok(())
    }
}
