//! `manifest.json`: what stands beside `package.zip` in the store.

use std::fmt;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Asks, Digest, EntryName, FunctionName, FunctionType, Lane, Shape};

/// One push. A time-ordered UUID (RFC 9562, version 7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PushId(pub Uuid);

impl PushId {
    /// A new one.
    #[must_use]
    pub fn generate() -> Self {
        Self(Uuid::now_v7())
    }
}

impl fmt::Display for PushId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The largest `manifest.json` that is read, in bytes: what others wrote into the store is bounded too.
pub const MAX_MANIFEST_BYTES: usize = 16 * 1024;

/// The description of one version. The version itself is the folder's, so that the same staged
/// folder can be renamed to the next number when another server took the first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// The push that wrote it: tells one's own commit from another's after an answer got lost.
    pub push_id: PushId,
    /// The function's name.
    pub name: FunctionName,
    /// The lane it was pushed to.
    pub lane: Lane,
    /// How it runs.
    #[serde(rename = "type")]
    pub kind: FunctionType,
    /// The file in the package that runs.
    pub entry: EntryName,
    /// How a component is run. Servers of before there were several did not write it: then it is `execute`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shape: Option<Shape>,
    /// What it asks for, where it asks for anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asks: Option<Asks>,
    /// Of `package.zip`.
    pub sha256: Digest,
    /// Of `package.zip`, in bytes.
    pub size: u64,
    /// When the push was accepted.
    pub pushed_at: DateTime<Utc>,
    /// Who pushed, where known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pushed_by: Option<String>,
    /// The version of the server that wrote it.
    pub sharpfaas_version: String,
}
