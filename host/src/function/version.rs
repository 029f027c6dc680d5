//! Versions `major.minor`, and the selectors that calls use.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Why a version or selector was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("version {0:?} is not valid: give 'major.minor' as in 1.3, a major number as in 1, or 'latest'")]
pub struct VersionError(String);

impl VersionError {
    fn new(value: &str) -> Self {
        Self(value.chars().take(40).collect())
    }
}

/// A published version. Majors begin at 1, minors at 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Version {
    /// Raised by a push with `newVersion=true`.
    pub major: u32,
    /// Raised by every other push.
    pub minor: u32,
}

impl Version {
    /// What the first push of a name to a lane gets.
    pub const FIRST: Self = Self { major: 1, minor: 0 };

    /// The version after `newest` in its lane.
    #[must_use]
    pub fn after(newest: Option<Self>, new_major: bool) -> Self {
        match newest {
            None => Self::FIRST,
            Some(v) if new_major => v.next_major(),
            Some(v) => v.next_minor(),
        }
    }

    /// The next version of the same major.
    #[must_use]
    pub fn next_minor(self) -> Self {
        Self { major: self.major, minor: self.minor.saturating_add(1) }
    }

    /// The first version of the next major.
    #[must_use]
    pub fn next_major(self) -> Self {
        Self { major: self.major.saturating_add(1), minor: 0 }
    }
}

/// Digits without a sign or a needless leading zero, at most 9 of them.
fn number(text: &str) -> Option<u32> {
    let plain = !text.is_empty()
        && text.len() <= 9
        && text.bytes().all(|b| b.is_ascii_digit())
        && (text == "0" || !text.starts_with('0'));
    if plain { text.parse().ok() } else { None }
}

impl FromStr for Version {
    type Err = VersionError;

    fn from_str(value: &str) -> Result<Self, VersionError> {
        value
            .split_once('.')
            .and_then(|(major, minor)| Some(Self { major: number(major)?, minor: number(minor)? }))
            .filter(|version| version.major > 0)
            .ok_or_else(|| VersionError::new(value))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

impl Serialize for Version {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Version {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        value.parse().map_err(serde::de::Error::custom)
    }
}

/// Which version a call wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Selector {
    /// The newest of all: empty, `0` or `latest`.
    #[default]
    Latest,
    /// The newest of one major: `1`.
    Major(u32),
    /// One version and no other: `1.3`.
    Exact(Version),
}

impl FromStr for Selector {
    type Err = VersionError;

    fn from_str(value: &str) -> Result<Self, VersionError> {
        match value {
            "" | "0" => Ok(Self::Latest),
            _ if value.eq_ignore_ascii_case("latest") => Ok(Self::Latest),
            _ => match number(value) {
                Some(major) => Ok(Self::Major(major)),
                None => value.parse().map(Self::Exact),
            },
        }
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Latest => f.write_str("latest"),
            Self::Major(major) => write!(f, "{major}"),
            Self::Exact(version) => version.fmt(f),
        }
    }
}

impl Serialize for Selector {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Selector {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        value.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_follow_one_another() {
        let v = |major, minor| Version { major, minor };
        assert_eq!(Version::after(None, false), v(1, 0));
        assert_eq!(Version::after(None, true), v(1, 0));
        assert_eq!(Version::after(Some(v(1, 9)), false), v(1, 10));
        assert_eq!(Version::after(Some(v(1, 9)), true), v(2, 0));
        assert!(v(1, 10) > v(1, 9) && v(2, 0) > v(1, 10));
    }

    #[test]
    fn selectors_parse() {
        for latest in ["", "0", "latest", "Latest"] {
            assert_eq!(latest.parse(), Ok(Selector::Latest));
        }
        assert_eq!("1".parse(), Ok(Selector::Major(1)));
        assert_eq!("1.10".parse(), Ok(Selector::Exact(Version { major: 1, minor: 10 })));
        for bad in ["1.", ".1", "v1", "1.2.3", "0.1", "01", "1.00", "-1", "1 ", "9999999999", "../1"] {
            assert!(bad.parse::<Selector>().is_err(), "{bad}");
        }
    }
}
