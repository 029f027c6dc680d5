//! The local file that a package is downloaded into.

use std::{
    fs::{self, File, OpenOptions},
    io,
    path::Path,
};

/// A new file that is removed again unless it is kept, whatever ends the download.
#[derive(Debug)]
pub(super) struct NewFile<'a> {
    file: File,
    path: Option<&'a Path>,
}

impl<'a> NewFile<'a> {
    /// Makes the file, which must not be there yet.
    pub(super) fn create(path: &'a Path) -> io::Result<Self> {
        let file = OpenOptions::new().write(true).create_new(true).open(path)?;
        Ok(Self { file, path: Some(path) })
    }

    /// What to write to.
    pub(super) fn file(&mut self) -> &mut File {
        &mut self.file
    }

    /// Another handle to the same file.
    pub(super) fn handle(&self) -> io::Result<File> {
        self.file.try_clone()
    }

    /// Leaves the file where it is.
    pub(super) fn keep(&mut self) {
        self.path = None;
    }
}

impl Drop for NewFile<'_> {
    fn drop(&mut self) {
        if let Some(path) = self.path {
            // Where it can't be removed either, whoever owns the folder will.
            let _ = fs::remove_file(path);
        }
    }
}
