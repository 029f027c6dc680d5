//! Names as users give them, parsed once.
//!
//! Function and lane names become folder names on disk and on FTP servers, so their alphabets leave
//! out separators, control characters and anything a protocol line could be ended with.

use std::{borrow::Borrow, fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Why a name was refused. The text names the value's part that is wrong and the rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} {value:?} is not valid: {rule}")]
pub struct NameError {
    what: &'static str,
    /// At most the first 80 characters of what was given.
    value: String,
    rule: &'static str,
}

impl NameError {
    fn new(what: &'static str, value: &str, rule: &'static str) -> Self {
        Self { what, value: value.chars().take(80).collect(), rule }
    }
}

/// `[A-Za-z0-9]` and then up to `max - 1` of `[A-Za-z0-9-]`, `_`, and where `dots`, `.`.
fn is_plain(value: &str, max: usize, dots: bool) -> bool {
    let mut bytes = value.bytes();
    value.len() <= max
        && bytes.next().is_some_and(|b| b.is_ascii_alphanumeric())
        && bytes.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-') || (dots && b == b'.'))
}

macro_rules! newtype {
    ($(#[$doc:meta])* $name:ident, $what:literal, $rule:literal, $check:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Parses the name.
            ///
            /// # Errors
            /// When it breaks the rule that the type's documentation gives.
            pub fn parse(value: &str) -> Result<Self, NameError> {
                let check: fn(&str) -> bool = $check;
                if check(value) { Ok(Self(value.into())) } else { Err(NameError::new($what, value, $rule)) }
            }

            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, f)
            }
        }

        impl FromStr for $name {
            type Err = NameError;
            fn from_str(value: &str) -> Result<Self, NameError> {
                Self::parse(value)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let value = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                Self::parse(&value).map_err(serde::de::Error::custom)
            }
        }
    };
}

newtype!(
    /// The name of a function, unique in the store: a letter or digit, then at most 63 of letters,
    /// digits, `_`, `.` and `-`.
    FunctionName,
    "functionName",
    "it must be 1 to 64 letters, digits, '_', '.' or '-', and begin with a letter or digit",
    |value| is_plain(value, 64, true)
);

newtype!(
    /// The name of a lane: a letter or digit, then at most 31 of letters, digits, `_` and `-`.
    Lane,
    "lane",
    "it must be 1 to 32 letters, digits, '_' or '-', and begin with a letter or digit",
    |value| is_plain(value, 32, false)
);

newtype!(
    /// The name of a queue of jobs: as that of a lane, with dots.
    QueueName,
    "queue",
    "it must be 1 to 64 letters, digits, '_', '.' or '-', and begin with a letter or digit",
    |value| is_plain(value, 64, true)
);

newtype!(
    /// Who calls, in the caller's own words, for history and logs: 1 to 128 printable characters
    /// without control characters.
    CallerId,
    "callerId",
    "it must be 1 to 128 bytes of text without control characters",
    |value| !value.is_empty() && value.len() <= 128 && !value.chars().any(char::is_control)
);

newtype!(
    /// The name of a token: a letter or digit, then at most 63 of letters, digits, `_`, `.` and `-`.
    TokenName,
    "token",
    "it must be 1 to 64 letters, digits, '_', '.' or '-', and begin with a letter or digit",
    |value| is_plain(value, 64, true)
);

newtype!(
    /// The path of an entry inside its package, with `/` between folders: relative, without `.` and
    /// `..` parts, backslashes, colons and control characters, at most 255 bytes.
    EntryName,
    "entryFileName",
    "it must be a relative path inside the package, at most 255 bytes, without '.' or '..' parts, '\\', ':' or control characters",
    is_entry
);

fn is_entry(value: &str) -> bool {
    !value.is_empty()
        && value.len() <= 255
        && value.split('/').all(|part| !part.is_empty() && part != "." && part != "..")
        && !value.chars().any(|c| c.is_control() || c == '\\' || c == ':')
}

impl FunctionName {
    /// The name in lower case: two names that differ in case alone are refused, because not every
    /// store tells them apart.
    #[must_use]
    pub fn folded(&self) -> String {
        self.0.to_ascii_lowercase()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_what_the_rules_allow() {
        for name in ["a", "9", "Example.Function-1_x", &"a".repeat(64)] {
            assert!(FunctionName::parse(name).is_ok(), "{name}");
        }
        for lane in ["dev", "Production-2", &"a".repeat(32)] {
            assert!(Lane::parse(lane).is_ok(), "{lane}");
        }
        for entry in ["main", "bin/run.sh", "a b.wasm", "..a"] {
            assert!(EntryName::parse(entry).is_ok(), "{entry}");
        }
    }

    #[test]
    fn refuses_what_could_leave_its_folder_or_end_a_line() {
        for name in ["", ".", "..", ".x", "-x", "a/b", "a\\b", "a\r\nDELE x", "a\0", "é", &"a".repeat(65)] {
            assert!(FunctionName::parse(name).is_err(), "{name:?}");
        }
        for lane in ["", "a.b", "_a", "a/b", "a b", &"a".repeat(33)] {
            assert!(Lane::parse(lane).is_err(), "{lane:?}");
        }
        for entry in ["", "/x", "x/", "a//b", "../x", "a/./b", "c:x", "a\nb"] {
            assert!(EntryName::parse(entry).is_err(), "{entry:?}");
        }
    }

    #[test]
    fn the_message_names_the_field_and_the_rule() {
        let error = Lane::parse("a.b").expect_err("dots are refused").to_string();
        assert!(error.contains("lane") && error.contains("a.b") && error.contains("1 to 32"), "{error}");
    }
}
