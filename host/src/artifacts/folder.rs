//! The local function folder: what lies where in it, and the seal that tells what this server wrote.
//!
//! ```text
//! node.key                              32 random bytes, of this folder alone
//! lock                                  held by the server that uses the folder
//! packages/<sha256 of the zip>/index    what was unpacked, sealed
//! packages/<sha256 of the zip>/files/   the package
//! code/<sha256 of the component>-<compatibility>.cwasm and .seal
//! tmp/                                  what is being made; emptied at start
//! ```
//!
//! Everything is made in `tmp` and renamed into its place, so what stands there is whole. A seal is an
//! HMAC-SHA256 (RFC 2104) under the node's key, over the name of the thing and its bytes.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use ring::{
    hmac,
    rand::{SecureRandom, SystemRandom},
};
use tempfile::TempDir;

use super::ArtifactError;
use crate::function::Digest;

/// The length of a seal, in bytes.
pub(super) const SEAL_BYTES: usize = 32;
const KEY_BYTES: usize = 32;

/// The folder, opened and locked.
#[derive(Debug)]
pub(super) struct Folder {
    root: PathBuf,
    key: hmac::Key,
    /// Held as long as the folder is open.
    _lock: File,
}

/// A thing in the folder that is kept and dropped as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Item {
    /// An unpacked package, by the digest of its zip.
    Package(Digest),
    /// Machine code, by the digest of its component.
    Code(Digest),
}

impl Folder {
    /// Opens the folder, makes what is missing, and removes what an earlier server left half made.
    pub(super) fn open(root: &Path) -> Result<Self, ArtifactError> {
        let failed = |what: &'static str| ArtifactError::local(format!("{what} {}", root.display()));
        let root = std::path::absolute(root).map_err(failed("finding"))?;
        packages(&root)?;
        for name in ["code", "tmp"] {
            private_folder(&root.join(name), 0o700)?;
        }
        let lock = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(no_follow())
            .open(root.join("lock"))
            .map_err(failed("locking"))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(ArtifactError::Folder(format!("another server uses {}", root.display()).into()));
            }
            Err(TryLockError::Error(error)) => return Err(failed("locking")(error)),
        }
        // After the lock: what is in it is nobody's any more.
        for item in fs::read_dir(root.join("tmp")).map_err(failed("cleaning"))? {
            let path = item.map_err(failed("cleaning"))?.path();
            remove(&path).map_err(failed("cleaning"))?;
        }
        let key = node_key(&root)?;
        Ok(Self { root, key, _lock: lock })
    }

    /// A new folder to make something in, removed when dropped.
    pub(super) fn workshop(&self) -> Result<TempDir, ArtifactError> {
        tempfile::Builder::new()
            .permissions(fs::Permissions::from_mode(0o700))
            .tempdir_in(self.root.join("tmp"))
            .map_err(ArtifactError::local("making a temporary folder"))
    }

    pub(super) fn package(&self, zip: &Digest) -> PathBuf {
        self.root.join("packages").join(zip.to_string())
    }

    /// The machine code of a component, and the seal beside it.
    pub(super) fn code(&self, component: &Digest, compatibility: &str) -> (PathBuf, PathBuf) {
        let folder = self.root.join("code");
        let name = |end: &str| folder.join(format!("{component}-{compatibility}.{end}"));
        (name("cwasm"), name("seal"))
    }

    /// Every package and every machine code that is there.
    pub(super) fn list(&self, folder: &str) -> io::Result<Vec<PathBuf>> {
        fs::read_dir(self.root.join(folder))?.map(|item| item.map(|item| item.path())).collect()
    }

    /// The seal of `bytes` as the thing of that name.
    pub(super) fn seal(&self, name: &str, bytes: &mut impl Read) -> io::Result<[u8; SEAL_BYTES]> {
        let tag = self.authenticate(name, bytes)?.sign();
        let mut seal = [0; SEAL_BYTES];
        for (to, from) in seal.iter_mut().zip(tag.as_ref()) {
            *to = *from;
        }
        Ok(seal)
    }

    /// Whether `seal` is the one of `bytes` as the thing of that name.
    pub(super) fn is_sealed(&self, name: &str, bytes: &mut impl Read, seal: &[u8]) -> io::Result<bool> {
        let tag = self.authenticate(name, bytes)?.sign();
        // Both tags under a key nobody else has: the library compares in constant time what it signs anew.
        let again = hmac::sign(&self.key, tag.as_ref());
        let expected = hmac::sign(&self.key, seal);
        Ok(seal.len() == SEAL_BYTES && again.as_ref() == expected.as_ref())
    }

    fn authenticate(&self, name: &str, bytes: &mut impl Read) -> io::Result<hmac::Context> {
        let mut context = hmac::Context::with_key(&self.key);
        // The length first, so that no name runs over into the bytes.
        context.update(&(name.len() as u64).to_le_bytes());
        context.update(name.as_bytes());
        each_piece(bytes, |piece| context.update(piece))?;
        Ok(context)
    }
}

/// Reads to the end, in pieces.
pub(super) fn each_piece(bytes: &mut impl Read, mut take: impl FnMut(&[u8])) -> io::Result<u64> {
    let mut buffer = vec![0; 128 * 1024];
    let mut total = 0;
    loop {
        let count = match bytes.read(&mut buffer) {
            Ok(0) => return Ok(total),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        total += count as u64;
        take(buffer.get(..count).unwrap_or_default());
    }
}

/// Opens a file to read it, but no link.
pub(super) fn open_plain(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(no_follow()).open(path)
}

/// Removes a file, or a folder with all that is in it; nothing there is fine.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    removed.or_else(|error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) })
}

/// What a file or folder takes on disk with all that is in it, in bytes.
pub(super) fn disk_bytes(path: &Path) -> io::Result<u64> {
    let metadata = fs::symlink_metadata(path)?;
    let mut total = metadata.blocks().saturating_mul(512);
    if metadata.is_dir() {
        for item in fs::read_dir(path)? {
            total = total.saturating_add(disk_bytes(&item?.path())?);
        }
    }
    Ok(total)
}

fn no_follow() -> i32 {
    rustix::fs::OFlags::NOFOLLOW.bits().cast_signed()
}

/// Makes the folder of unpacked packages, and the one that it is in, where they are missing. Only the server
/// enters the latter; programs that run as other users get to the packages past it, where they are led.
pub(super) fn packages(root: &Path) -> Result<PathBuf, ArtifactError> {
    let root = std::path::absolute(root).map_err(ArtifactError::local("finding the folder"))?;
    if let Some(parent) = root.parent() {
        let failed = || ArtifactError::local(format!("making the folder above {}", root.display()));
        fs::create_dir_all(parent).map_err(failed())?;
    }
    private_folder(&root, 0o700)?;
    let packages = root.join("packages");
    private_folder(&packages, 0o711)?;
    Ok(packages)
}

/// Makes the folder where it is missing, with that mode, and refuses one that others could put machine code into.
fn private_folder(path: &Path, mode: u32) -> Result<(), ArtifactError> {
    let failed = || ArtifactError::local(format!("making {}", path.display()));
    let unsafe_folder = |why: &str| {
        ArtifactError::Folder(format!("{} {why}: it must be private to this server", path.display()).into())
    };
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(failed()(error)),
        Ok(()) | Err(_) => {}
    }
    let metadata = fs::metadata(path).map_err(failed())?;
    if !metadata.is_dir() {
        return Err(unsafe_folder("is no folder"));
    }
    if metadata.uid() != rustix::process::geteuid().as_raw() {
        return Err(unsafe_folder("is owned by another user"));
    }
    if metadata.mode() & 0o022 != 0 {
        return Err(unsafe_folder("is writable by other users"));
    }
    if metadata.mode() & 0o777 != mode {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(failed())?;
    }
    Ok(())
}

/// The key of this node, made where there is none yet.
fn node_key(root: &Path) -> Result<hmac::Key, ArtifactError> {
    let path = root.join("node.key");
    let failed = || ArtifactError::local("reading or making node.key");
    let unsafe_key =
        |why: &str| ArtifactError::Folder(format!("{} {why}; remove it to have a new one made", path.display()).into());
    let mut file = match open_plain(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return new_node_key(root, &path),
        Err(error) => return Err(failed()(error)),
    };
    let metadata = file.metadata().map_err(failed())?;
    if metadata.uid() != rustix::process::geteuid().as_raw() || metadata.mode() & 0o077 != 0 {
        return Err(unsafe_key("can be read by other users"));
    }
    if metadata.len() != KEY_BYTES as u64 {
        return Err(unsafe_key("is damaged"));
    }
    let mut bytes = [0; KEY_BYTES];
    file.read_exact(&mut bytes).map_err(failed())?;
    Ok(hmac::Key::new(hmac::HMAC_SHA256, &bytes))
}

fn new_node_key(root: &Path, path: &Path) -> Result<hmac::Key, ArtifactError> {
    let failed = || ArtifactError::local("making node.key");
    let mut bytes = [0; KEY_BYTES];
    SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| ArtifactError::Folder("the system gives no random numbers".into()))?;
    // Renamed into place, so that no server ever reads half a key; temporary files have the mode 0600.
    let mut file = tempfile::NamedTempFile::new_in(root.join("tmp")).map_err(failed())?;
    file.write_all(&bytes).and_then(|()| file.as_file().sync_all()).map_err(failed())?;
    file.persist(path).map_err(|error| failed()(error.error))?;
    Ok(hmac::Key::new(hmac::HMAC_SHA256, &bytes))
}
