//! Why a package was refused, in words for whoever pushed it.

use crate::function::{DeclarationError, EntryName, FunctionType};

/// Why a package was refused. Every text but that of [`PackageError::Local`]'s source may be shown to
/// whoever pushed it.
#[derive(Debug, thiserror::Error)]
pub enum PackageError {
    /// It is not a zip, or not one that every reader reads alike.
    #[error("the package is not a sound zip: {0}")]
    Malformed(&'static str),
    /// The whole of it is over a limit.
    #[error("the package is too large: at most {limit} {of} are allowed")]
    TooLarge {
        /// What there is too much of.
        of: &'static str,
        /// The limit.
        limit: u64,
    },
    /// One of its entries breaks a rule.
    #[error("the package's entry \"{entry}\" {rule}")]
    Entry {
        /// The beginning of its name, escaped.
        entry: String,
        /// The rule.
        rule: EntryRule,
    },
    /// It holds no file.
    #[error("the package is empty: it holds no file")]
    Empty,
    /// The entry that was asked for is not in it.
    #[error("the package holds no file '{entry}'; its files are: {files}")]
    EntryMissing {
        /// What was asked for.
        entry: EntryName,
        /// The files there are, or the first of them.
        files: String,
    },
    /// Nobody said which file runs, and it does not tell by itself.
    #[error("which file of the package runs as type '{kind}' is not clear: give entryFileName; its files are: {files}")]
    EntryUnclear {
        /// The function's type.
        kind: FunctionType,
        /// The files there are, or the first of them.
        files: String,
    },
    /// The entry can't run as the function's type.
    #[error("the entry '{entry}' cannot run as type '{kind}': {reason}")]
    EntryUnfit {
        /// The entry.
        entry: EntryName,
        /// The function's type.
        kind: FunctionType,
        /// What it is instead, and what would be right.
        reason: String,
    },
    /// What it says of itself is wrong.
    #[error(transparent)]
    Declaration(#[from] DeclarationError),
    /// A file of the server's can't be read or written: not the package's fault.
    #[error("the server could not read or write the package's files")]
    Local(#[source] std::io::Error),
}

/// The rules that every entry of a package must keep.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EntryRule {
    /// Names are UTF-8 and marked so where they are more than ASCII, so that everyone reads the same.
    #[error("has a name that is not ASCII and not marked as UTF-8")]
    NotUtf8,
    /// At most 255 bytes.
    #[error("has a path longer than 255 bytes")]
    LongPath,
    /// At most 32 parts.
    #[error("is deeper than 32 folders")]
    Deep,
    /// No leading slash.
    #[error("has an absolute path: paths must be relative")]
    Absolute,
    /// No `..`.
    #[error("has a path with '..': it must stay inside the package")]
    Parent,
    /// No `.` and nothing empty.
    #[error("has a path with an empty or '.' part")]
    EmptyPart,
    /// Separators are slashes.
    #[error("has a path with a backslash: folders are separated by '/'")]
    Backslash,
    /// No drive letters and no alternate streams.
    #[error("has a path with a ':', as of a drive letter")]
    Colon,
    /// No control characters.
    #[error("has a name with control characters")]
    Control,
    /// No links of any kind.
    #[error("is a link: links are not allowed")]
    Link,
    /// Files and folders only.
    #[error("is a device, pipe or socket: only files and folders are allowed")]
    Special,
    /// A name that ends with a slash is a folder's, and no other.
    #[error("is marked as a file and as a folder at once")]
    Ambiguous,
    /// A folder has no bytes.
    #[error("is a folder that holds bytes")]
    FolderWithBytes,
    /// Each name once.
    #[error("is there twice")]
    Duplicate,
    /// Names must differ in more than case.
    #[error("differs from \"{0}\" in upper and lower case alone")]
    Case(String),
    /// A path can't lead through a file.
    #[error("is a file, and a folder on the path of \"{0}\" too")]
    FileAndFolder(String),
    /// No encryption.
    #[error("is encrypted")]
    Encrypted,
    /// Stored or deflated.
    #[error("is packed with method {0}: only 0 (stored) and 8 (deflated) are allowed")]
    Method(u16),
    /// The limit of one file.
    #[error("is larger than the {0} bytes that one file may have")]
    Large(u64),
    /// The limit of compression.
    #[error("unpacks to more than {0} times its packed size")]
    Ratio(u64),
    /// Local header, central directory and data descriptor say the same.
    #[error("is described in two places of the zip that do not agree")]
    Disagrees,
    /// No byte counts twice.
    #[error("overlaps with another part of the zip")]
    Overlaps,
    /// No byte counts for nothing.
    #[error("is followed by bytes that belong to no entry")]
    Gap,
    /// The 64-bit sizes are there where they are needed, and not where they are not.
    #[error("has a zip64 field that does not fit its header")]
    Zip64,
    /// What is unpacked is what was declared.
    #[error("is damaged: its bytes are not those that the zip declares")]
    Damaged,
}

impl PackageError {
    /// That the entry of this name breaks a rule.
    pub(super) fn entry(name: &[u8], rule: EntryRule) -> Self {
        Self::Entry { entry: shown(name), rule }
    }

    /// Whether a limit of sizes is what it broke.
    #[must_use]
    pub fn is_too_large(&self) -> bool {
        match self {
            Self::TooLarge { .. } => true,
            Self::Entry { rule, .. } => matches!(rule, EntryRule::Large(_) | EntryRule::Ratio(_)),
            Self::Malformed(_)
            | Self::Empty
            | Self::EntryMissing { .. }
            | Self::EntryUnclear { .. }
            | Self::EntryUnfit { .. }
            | Self::Declaration(_)
            | Self::Local(_) => false,
        }
    }
}

/// The beginning of a hostile name, fit for a message or a log line.
pub(super) fn shown(name: &[u8]) -> String {
    const MOST: usize = 80;
    let text = String::from_utf8_lossy(name.get(..MOST * 4).unwrap_or(name));
    let mut shown: String = text.chars().take(MOST).flat_map(char::escape_debug).collect();
    if text.chars().nth(MOST).is_some() {
        shown.push('…');
    }
    shown
}
