//! What a name, a lane and a selector resolve to.

use std::{fmt, str::FromStr};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Asks, EntryName, FunctionName, FunctionType, Lane, Manifest, PushId, Shape, Version};

/// The place of one version in the store: `<lane>/<major.minor>/<function>`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Location {
    /// The lane's folder.
    pub lane: Lane,
    /// The version's folder in it.
    pub version: Version,
    /// The function's folder in that.
    pub name: FunctionName,
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.lane, self.version, self.name)
    }
}

/// A SHA-256 digest (FIPS 180-4), in lower-case hexadecimal on the wire.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self::from_ring(&ring::digest::digest(&ring::digest::SHA256, bytes))
    }

    /// The digest that a finished SHA-256 context gave.
    #[must_use]
    pub fn from_ring(digest: &ring::digest::Digest) -> Self {
        let mut bytes = [0; 32];
        for (to, from) in bytes.iter_mut().zip(digest.as_ref()) {
            *to = *from;
        }
        Self(bytes)
    }

    /// The 32 bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why a digest was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a SHA-256 digest must be 64 hexadecimal digits")]
pub struct DigestError;

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(value: &str) -> Result<Self, DigestError> {
        let mut bytes = [0; 32];
        if value.len() != 64 || !value.is_ascii() {
            return Err(DigestError);
        }
        for (at, byte) in bytes.iter_mut().enumerate() {
            let pair = value.get(at * 2..at * 2 + 2).ok_or(DigestError)?;
            if !pair.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(DigestError);
            }
            *byte = u8::from_str_radix(pair, 16).map_err(|_| DigestError)?;
        }
        Ok(Self(bytes))
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        value.parse().map_err(serde::de::Error::custom)
    }
}

/// One published version, resolved: all that is needed to fetch, verify and run it. Immutable, as
/// versions are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FunctionRef {
    /// Where it stands in the store.
    pub location: Location,
    /// How it runs.
    pub kind: FunctionType,
    /// The file in the package that runs when the call picks no other.
    pub entry: EntryName,
    /// How that is run, of a component.
    pub shape: Option<Shape>,
    /// What it asks for, where it asks for anything.
    pub asks: Option<Box<Asks>>,
    /// Of `package.zip`.
    pub sha256: Digest,
    /// Of `package.zip`, in bytes.
    pub size: u64,
    /// The push that made it.
    pub push_id: PushId,
    /// When that push was accepted.
    pub pushed_at: DateTime<Utc>,
    /// Who pushed, where known.
    pub pushed_by: Option<String>,
}

impl FunctionRef {
    /// The version that `manifest`, found in the folder of `version`, describes.
    #[must_use]
    pub fn from_manifest(manifest: Manifest, version: Version) -> Self {
        Self {
            location: Location { lane: manifest.lane, version, name: manifest.name },
            kind: manifest.kind,
            shape: shape_of(manifest.kind, manifest.shape),
            asks: manifest.asks.map(Box::new),
            entry: manifest.entry,
            sha256: manifest.sha256,
            size: manifest.size,
            push_id: manifest.push_id,
            pushed_at: manifest.pushed_at,
            pushed_by: manifest.pushed_by,
        }
    }
}

/// The shape of a version, of which its manifest or row says `told`: components of before there were several are
/// `execute`.
#[must_use]
pub fn shape_of(kind: FunctionType, told: Option<Shape>) -> Option<Shape> {
    match kind {
        FunctionType::Dll => Some(told.unwrap_or(Shape::Execute)),
        FunctionType::Exe => None,
    }
}
