//! The store: where packages live for ever, shared by every server.
//!
//! A version is the folder `<lane>/<major.minor>/<function>/` with `package.zip` and `manifest.json`.
//! It is staged under `.staging/<push id>/` first and then renamed into place, which is what makes it
//! seen whole or not at all, and lets exactly one of any number of racing servers win a number.

use std::{
    net::IpAddr,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use serde::Deserialize;
use uuid::Uuid;

use crate::{
    config::{FtpUrl, Secret, StoreConfig, StoreUrl},
    function::{ErrorCode, FunctionName, Lane, Location, PushId, Version},
};

pub mod dir;
pub mod ftp;
mod local;

/// The folder of staged pushes below the store's root.
pub const STAGING: &str = ".staging";
/// The name of the package in a version's folder.
pub const PACKAGE: &str = "package.zip";
/// The name of the description in a version's folder.
pub const MANIFEST: &str = "manifest.json";

/// What a staged folder is renamed to, behind its push id, before it is removed: a rename into a lane
/// that is still on its way can't then publish a folder that is half gone.
const GONE: &str = ".gone";

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

impl StoreError {
    /// Its code.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Unavailable(_) => ErrorCode::StoreUnavailable,
            Self::Unusable(_) | Self::Damaged(_) | Self::Local(_) => ErrorCode::Internal,
        }
    }
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
    /// push at most once: when an earlier call did commit and its answer was lost, `Done`. So after an
    /// error call it again with the same `at`; another number is to be tried after `Taken` alone.
    async fn commit(&self, push: PushId, at: &Location) -> Result<Commit, StoreError>;

    /// Removes what is staged of this push; nothing staged is no error.
    async fn discard(&self, push: PushId) -> Result<(), StoreError>;

    /// The bytes of a version's `manifest.json`; `None` where there is no such version.
    async fn manifest(&self, at: &Location) -> Result<Option<Vec<u8>>, StoreError>;

    /// Downloads a version's `package.zip`, which must have `size` bytes, into the new file `to`. Its
    /// digest is the caller's to verify.
    async fn fetch(&self, at: &Location, size: u64, to: &Path) -> Result<(), StoreError>;

    /// Every lane. Folders whose names are no lane's are passed over. Here and below, a file that is
    /// named like a folder may be among the names, because not every server tells the two apart:
    /// nothing is in it, and it has no manifest.
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

/// Opens the store that the configuration names. Does not connect yet.
///
/// # Errors
/// [`StoreError::Unusable`] when the password would go to another host unencrypted and nobody allowed
/// that, or the trusted certificates can't be read.
pub fn open(config: &StoreConfig, password: Option<Secret>) -> Result<Arc<dyn FunctionStore>, StoreError> {
    match &config.url {
        StoreUrl::File(root) => Ok(Arc::new(dir::DirStore::new(root))),
        StoreUrl::Ftp(url) => {
            if !url.tls && !is_loopback(url) {
                if !config.insecure {
                    return Err(StoreError::Unusable(format!(
                        "plain ftp:// to {} would send the password and every package unencrypted: use ftps:// in [store] \
                         url, or set insecure = true there if the network between is trusted",
                        url.host
                    )));
                }
                tracing::warn!(host = %url.host, "the store is reached by plain ftp://: passwords and packages go unencrypted");
            }
            Ok(Arc::new(ftp::FtpStore::new(config, url, password)?))
        }
    }
}

/// Whether the URL names this machine itself.
fn is_loopback(url: &FtpUrl) -> bool {
    url.host.eq_ignore_ascii_case("localhost")
        || url.host.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback())
}

/// The push whose staging folder has this name, whatever state it was left in; `None` for names that
/// are not ours.
fn staged_push(name: &str) -> Option<PushId> {
    let id = name.strip_suffix(GONE).unwrap_or(name);
    let uuid = Uuid::parse_str(id).ok()?;
    (uuid.get_version_num() == 7 && uuid.to_string() == id).then_some(PushId(uuid))
}

/// Whether a push began longer than `grace` ago. The time is the push id's own, because not every
/// server tells the times of folders.
fn is_older(push: PushId, grace: Duration) -> bool {
    let Some((seconds, nanos)) = push.0.get_timestamp().map(|time| time.to_unix()) else { return false };
    let began = SystemTime::UNIX_EPOCH.checked_add(Duration::new(seconds, nanos));
    began.and_then(|began| SystemTime::now().duration_since(began).ok()).is_some_and(|age| age > grace)
}

/// Which push wrote this manifest; `None` when it is no manifest.
fn push_of(manifest: &[u8]) -> Option<PushId> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Pushed {
        push_id: PushId,
    }
    serde_json::from_slice::<Pushed>(manifest).ok().map(|pushed| pushed.push_id)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(url: &str, insecure: bool) -> StoreConfig {
        StoreConfig { url: url.parse().expect("a URL"), insecure, ..StoreConfig::default() }
    }

    #[test]
    fn plain_ftp_to_another_host_must_be_allowed() {
        for url in ["ftp://files.example.org/store", "ftp://192.0.2.7/store", "ftp://localhost.example.org/store"] {
            let Err(StoreError::Unusable(text)) = open(&config(url, false), None) else { panic!("{url} was opened") };
            assert!(text.contains("ftps://") && text.contains("insecure = true"), "{text}");
            assert!(open(&config(url, true), None).is_ok());
        }
        for url in
            ["ftp://localhost/store", "ftp://127.8.9.1:2121/store", "ftp://[::1]/store", "ftps://192.0.2.7/store"]
        {
            assert!(open(&config(url, false), None).is_ok(), "{url}");
        }
    }

    #[test]
    fn an_unreadable_ca_file_is_named() {
        let mut config = config("ftps://192.0.2.7/store", false);
        config.ca_file = Some("/nowhere/ca.pem".into());
        let Err(error) = open(&config, None) else { panic!("opened without its certificates") };
        assert!(error.to_string().contains("/nowhere/ca.pem"), "{error}");
    }

    #[test]
    fn staging_folders_are_known_by_their_names() {
        let push = PushId::generate();
        assert_eq!(staged_push(&push.to_string()), Some(push));
        assert_eq!(staged_push(&format!("{push}{GONE}")), Some(push));
        let other = Uuid::from_u128(0x1234_5678_1234_4678_8234_5678_1234_5678).to_string();
        for name in ["", "..", "x", ".gone", &other, &push.to_string().to_uppercase(), &format!("{{{push}}}")] {
            assert_eq!(staged_push(name), None, "{name:?}");
        }
    }

    #[test]
    fn the_age_of_a_push_is_its_ids() {
        let at = |seconds| PushId(Uuid::new_v7(uuid::Timestamp::from_unix(uuid::NoContext, seconds, 0)));
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_secs();
        let hour = Duration::from_secs(3600);
        assert!(is_older(at(now - 3700), hour));
        assert!(!is_older(at(now - 3500), hour));
        assert!(!is_older(at(now + 7200), hour), "a clock that runs ahead");
    }
}
