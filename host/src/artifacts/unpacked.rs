//! Unpacked packages: made from zips, and looked through before they are used.

use std::{
    fs::{self, File, OpenOptions, Permissions},
    io::{self, Read, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use tempfile::TempDir;

use super::{
    ArtifactError,
    folder::{Folder, SEAL_BYTES, each_piece, open_plain, remove},
};
use crate::{
    config::Limits,
    function::{
        Declaration, Digest, EntryName, FunctionType,
        declaration::{DECLARATION, MAX_DECLARATION_BYTES},
        package::{HEAD_BYTES, Package, PackageError, Unpacked, check_head},
    },
    store::StoreError,
};

/// The largest index that is read, in bytes: that of the most files with the longest names.
const MAX_INDEX_BYTES: u64 = 64 * 1024 * 1024;

/// What stands in the file `index`, behind its seal.
#[derive(Debug, Serialize, Deserialize)]
struct Index {
    files: Vec<IndexFile>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct IndexFile {
    name: EntryName,
    size: u64,
    sha256: Digest,
}

/// An entry of an unpacked package, found to be what was unpacked.
#[derive(Debug, Clone)]
pub(super) struct FoundEntry {
    /// The folder of the package's files.
    pub(super) files: PathBuf,
    /// Of the entry's bytes.
    pub(super) sha256: Digest,
}

/// The name that an index is sealed under.
fn sealed_name(zip: &Digest) -> String {
    format!("package/{zip}")
}

/// Finds whether the file at `path` is the zip of that size and digest.
pub(super) fn verify_zip(path: &Path, size: u64, sha256: &Digest, what: &str) -> Result<(), ArtifactError> {
    let failed = || ArtifactError::local("reading a fetched package");
    let mut file = open_plain(path).map_err(failed())?;
    let (found, length) = digest(&mut file).map_err(failed())?;
    if found == *sha256 && length == size {
        return Ok(());
    }
    tracing::warn!("the store's {what} has {length} bytes and the digest {found}, not {size} and {sha256}");
    Err(StoreError::Damaged(format!("{what}: its package is not the one that was pushed")).into())
}

/// Unpacks the zip into its place. `workshop` is a folder to work in, gone afterwards.
pub(super) fn install(
    folder: &Folder,
    workshop: TempDir,
    zip: &Path,
    sha256: &Digest,
    limits: &Limits,
) -> Result<(), ArtifactError> {
    let failed = || ArtifactError::local("putting an unpacked package into its place");
    let package = Package::read(open_plain(zip).map_err(failed())?, limits)?;
    let made = workshop.path().join("made");
    fs::create_dir(&made).map_err(failed())?;
    let files = package.unpack(&made.join("files"))?;
    let files = files.into_iter().map(|Unpacked { name, size, sha256 }| IndexFile { name, size, sha256 }).collect();
    let text = serde_json::to_vec(&Index { files }).map_err(|error| failed()(error.into()))?;
    let seal = folder.seal(&sealed_name(sha256), &mut text.as_slice()).map_err(failed())?;
    let mut index =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(made.join("index")).map_err(failed())?;
    index.write_all(&seal).and_then(|()| index.write_all(&text)).map_err(failed())?;
    // For programs that run as another user, where they are let at it; the folders above are the server's alone.
    fs::set_permissions(&made, Permissions::from_mode(0o711)).map_err(failed())?;
    let place = folder.package(sha256);
    fs::rename(&made, &place).map_err(failed())
}

/// The entry of an unpacked package, where the package is there and as it was unpacked: by its index,
/// the sizes of all its files, and the digest of the entry, or of every file where `thorough`. One that
/// is not is dropped, and is then not there.
pub(super) fn find(
    folder: &Folder,
    zip: &Digest,
    kind: FunctionType,
    entry: &EntryName,
    thorough: bool,
) -> Result<Option<FoundEntry>, ArtifactError> {
    let place = folder.package(zip);
    match check(folder, &place, zip, kind, entry, thorough) {
        Ok(Checked::Sound(found)) => found.map(Some).map_err(ArtifactError::from),
        Err(error) if error.kind() == io::ErrorKind::NotFound && !place.exists() => Ok(None),
        Ok(Checked::Damaged(why)) => drop_damaged(&place, &why),
        Err(error) => drop_damaged(&place, &error.to_string()),
    }
}

/// What the package whose files are there says of itself.
pub(super) fn declaration(files: &Path) -> Result<Declaration, ArtifactError> {
    let mut bytes = Vec::new();
    let read = |file: File, bytes: &mut Vec<u8>| file.take(MAX_DECLARATION_BYTES as u64 + 1).read_to_end(bytes);
    match open_plain(&files.join(DECLARATION)).and_then(|file| read(file, &mut bytes)) {
        Ok(_) => Ok(Declaration::parse(&bytes).map_err(PackageError::from)?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Declaration::default()),
        Err(error) => Err(PackageError::Local(error).into()),
    }
}

fn drop_damaged(place: &Path, why: &str) -> Result<Option<FoundEntry>, ArtifactError> {
    tracing::warn!("dropping the unpacked package {}: {why}", place.display());
    remove(place).map_err(ArtifactError::local("dropping a damaged package"))?;
    Ok(None)
}

enum Checked {
    /// The package is as it was unpacked; whether its entry can run is another matter.
    Sound(Result<FoundEntry, PackageError>),
    Damaged(String),
}

fn check(
    folder: &Folder,
    place: &Path,
    zip: &Digest,
    kind: FunctionType,
    entry: &EntryName,
    thorough: bool,
) -> io::Result<Checked> {
    let damaged = |why: &str| Ok(Checked::Damaged(why.to_owned()));
    let mut bytes = Vec::new();
    open_plain(&place.join("index"))?.take(MAX_INDEX_BYTES).read_to_end(&mut bytes)?;
    let Some((seal, mut text)) = bytes.split_at_checked(SEAL_BYTES) else { return damaged("its index is cut short") };
    if !folder.is_sealed(&sealed_name(zip), &mut text, seal)? {
        return damaged("its index was not written by this server");
    }
    let (_, text) = bytes.split_at(SEAL_BYTES);
    let Ok(index) = serde_json::from_slice::<Index>(text) else { return damaged("its index is of another form") };

    let files = place.join("files");
    for file in &index.files {
        let path = files.join(file.name.as_str());
        let metadata = fs::symlink_metadata(&path)?;
        if !metadata.is_file() || metadata.len() != file.size {
            return damaged(&format!("its file '{}' has changed", file.name));
        }
        if (thorough || file.name == *entry) && digest(&mut open_plain(&path)?)?.0 != file.sha256 {
            return damaged(&format!("its file '{}' has changed", file.name));
        }
    }
    let Some(file) = index.files.iter().find(|file| file.name == *entry) else {
        let names: Vec<_> = index.files.iter().map(|file| file.name.clone()).collect();
        return Ok(Checked::Sound(Err(PackageError::entry_missing(entry, names.iter()))));
    };
    let path = files.join(entry.as_str());
    let mut opened = open_plain(&path)?;
    let mut head = Vec::new();
    Read::by_ref(&mut opened).take(HEAD_BYTES as u64).read_to_end(&mut head)?;
    if let Err(unfit) = check_head(kind, entry, &head) {
        return Ok(Checked::Sound(Err(unfit)));
    }
    if kind == FunctionType::Exe && opened.metadata()?.mode() & 0o100 == 0 {
        return damaged(&format!("its file '{entry}' is not executable any more"));
    }
    Ok(Checked::Sound(Ok(FoundEntry { files, sha256: file.sha256 })))
}

fn digest(file: &mut File) -> io::Result<(Digest, u64)> {
    let mut context = ring::digest::Context::new(&ring::digest::SHA256);
    let length = each_piece(file, |piece| context.update(piece))?;
    Ok((Digest::from_ring(&context.finish()), length))
}
