//! The names in a package: each by itself, and all together.

use super::{EntryRule, PackageError, error::shown};
use crate::function::EntryName;

/// The longest path, in bytes, and the most parts it may have.
const MAX_BYTES: usize = 255;
const MAX_PARTS: usize = 32;

/// The parsed path, and whether it is a folder's.
pub(super) fn parse(raw: &[u8], marked_utf8: bool) -> Result<(EntryName, bool), PackageError> {
    let refuse = |rule| PackageError::entry(raw, rule);
    if raw.len() > MAX_BYTES {
        return Err(refuse(EntryRule::LongPath));
    }
    // Unmarked, bytes beyond ASCII are code page 437 to some readers and the system's charset to others.
    let text = std::str::from_utf8(raw)
        .ok()
        .filter(|text| marked_utf8 || text.is_ascii())
        .ok_or_else(|| refuse(EntryRule::NotUtf8))?;
    let folder = text.ends_with('/');
    let path = text.strip_suffix('/').unwrap_or(text);
    let rule = if text.chars().any(char::is_control) {
        Some(EntryRule::Control)
    } else if text.contains('\\') {
        Some(EntryRule::Backslash)
    } else if text.contains(':') {
        Some(EntryRule::Colon)
    } else if text.starts_with('/') {
        Some(EntryRule::Absolute)
    } else if path.split('/').any(|part| part == "..") {
        Some(EntryRule::Parent)
    } else if path.split('/').any(|part| part.is_empty() || part == ".") {
        Some(EntryRule::EmptyPart)
    } else if path.split('/').nth(MAX_PARTS).is_some() {
        Some(EntryRule::Deep)
    } else {
        None
    };
    if let Some(rule) = rule {
        return Err(refuse(rule));
    }
    // The rules above are those of an entry's name, told apart; so this can't fail any more.
    let name = EntryName::parse(path).map_err(|_| refuse(EntryRule::EmptyPart))?;
    Ok((name, folder))
}

/// A path with its case folded, ordered so that what is in a folder comes right after the folder.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Folded(String);

fn folded(name: &EntryName) -> Folded {
    // Through upper case, so that letters with two lower-case forms meet. The slash becomes the
    // lowest character, which no name holds.
    let fold = |c: char| c.to_uppercase().flat_map(char::to_lowercase);
    Folded(name.as_str().chars().map(|c| if c == '/' { '\0' } else { c }).flat_map(fold).collect())
}

/// Refuses names that are there twice, differ in case alone, or lead through a file.
pub(super) fn check_together<'a>(names: impl Iterator<Item = (&'a EntryName, bool)>) -> Result<(), PackageError> {
    let mut names: Vec<_> = names.map(|(name, folder)| (folded(name), name, folder)).collect();
    names.sort_unstable();
    // All that share a folder, however it is spelt, stand together, so neighbours are enough to compare.
    for pair in names.windows(2) {
        let [(before, above, above_is_folder), (after, below, _)] = pair else { continue };
        let refuse = |rule| Err(PackageError::entry(below.as_str().as_bytes(), rule));
        if above == below {
            return refuse(EntryRule::Duplicate);
        }
        let parts = || before.0.split('\0').zip(after.0.split('\0'));
        let shared = parts().take_while(|(above, below)| above == below).count();
        let same_spelling =
            above.as_str().split('/').zip(below.as_str().split('/')).take(shared).all(|(above, below)| above == below);
        if !same_spelling {
            return refuse(EntryRule::Case(shown(above.as_str().as_bytes())));
        }
        if shared == before.0.split('\0').count() && !above_is_folder {
            let rule = EntryRule::FileAndFolder(shown(below.as_str().as_bytes()));
            return Err(PackageError::entry(above.as_str().as_bytes(), rule));
        }
    }
    Ok(())
}
