//! The store: where packages live for ever, shared by every server.
//!
//! A version is the folder `<lane>/<major.minor>/<function>/` with `package.zip` and `manifest.json`.
//! It is staged under `.staging/<push id>/` first and then renamed into place, which is what makes it
//! seen whole or not at all, and lets exactly one of any number of racing servers win a number.

use std::{path::Path, time::Duration};

use async_trait::async_trait;

use crate::function::{FunctionName, Lane, Location, PushId, Version};

pub mod dir;
pub mod ftp;

/// The folder of staged pushes below the store's root.
pub const STAGING: &str = ".staging";
/// The name of the package in a version's folder.
pub const PACKAGE: &str = "package.zip";
/// The name of the description in a version's folder.
pub const MANIFEST: &str = "manifest.json";

/// What went wrong with the store. Texts are for the log: they may hold paths and addresses.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It can't be reached, or did not answer in time; another try later may succeed.
    #[error("the store is unavailable: {0}")]
    Unavailable(String),
    /// It answered, but not as a store can be used: not exclusive, read-only, full.
    #[error("the store cannot be used: {0}")]
    Unusable(String),
    /// A file that must be there is not, or is not what its manifest says.
    #[error("the store holds no whole {0}")]
    Damaged(String),
    /// A local file of the push or fetch can't be read or written.
    #[error("local file: {0}")]
    Local(#[from] std::io::Error),
}

/// How a commit ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Commit {
    /// The version is there, and is this push.
    Done,
    /// Another push has this number.
    Taken,
}

/// A place for packages. Every method has an end in bounded time, and may be called from any number
/// of tasks at once. A backend is a file of this module.
#[async_trait]
pub trait FunctionStore: Send + Sync + 'static {
    /// Uploads both files into `.staging/<push>/` and checks their sizes there. May be called again
    /// after an error; what an earlier try left is replaced.
    async fn stage(&self, push: PushId, package: &Path, manifest: &[u8]) -> Result<(), StoreError>;

    /// Renames the staged folder to `at`. After an answer that got lost it looks at the target and
    /// compares push ids, so its own answer is right whatever happened on the way. Commits the same
    /// push at most once: when an earlier call did commit and its answer was lost, `Done`.
    async fn commit(&self, push: PushId, at: &Location) -> Result<Commit, StoreError>;

    /// Removes what is staged of this push; nothing staged is no error.
    async fn discard(&self, push: PushId) -> Result<(), StoreError>;

    /// The bytes of a version's `manifest.json`; `None` where there is no such version.
    async fn manifest(&self, at: &Location) -> Result<Option<Vec<u8>>, StoreError>;

    /// Downloads a version's `package.zip`, which must have `size` bytes, into the new file `to`. Its
    /// digest is the caller's to verify.
    async fn fetch(&self, at: &Location, size: u64, to: &Path) -> Result<(), StoreError>;

    /// Every lane. Folders whose names are no lane's are passed over.
    async fn lanes(&self) -> Result<Vec<Lane>, StoreError>;

    /// Every version folder of a lane, in order. A lane that is not there has none.
    async fn versions(&self, lane: &Lane) -> Result<Vec<Version>, StoreError>;

    /// Every function that has this version in this lane.
    async fn functions(&self, lane: &Lane, version: Version) -> Result<Vec<FunctionName>, StoreError>;

    /// Finds out whether the store keeps the promises that publishing stands on: makes two staged
    /// folders and renames both onto one target; the second must fail. Leaves nothing behind.
    async fn probe(&self) -> Result<(), StoreError>;

    /// Removes staging folders older than `grace`, which nobody can still be working at. Gives their number.
    async fn sweep(&self, grace: Duration) -> Result<usize, StoreError>;

    /// Whether it can be reached now.
    async fn ping(&self) -> Result<(), StoreError>;
}
