//! Which file of a package runs, and whether it can.

use super::{Package, PackageError};
use crate::function::{EntryName, FunctionName, FunctionType, declaration::DECLARATION};

/// How many of a file's first bytes tell whether it can run.
pub const HEAD_BYTES: usize = 256;

/// How many names a message lists.
const LISTED: usize = 10;

/// The first bytes of a WebAssembly component, version 13 of layer 1 (the component model's binary format).
const COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0";
/// The first bytes of a core module.
const MODULE: &[u8] = b"\0asm\x01\0\0\0";
const ELF: &[u8] = b"\x7fELF";

impl Package {
    /// The file that runs: the `requested` one; or, where nobody asked for one, the one that the
    /// package and the function's name make plain.
    ///
    /// # Errors
    /// When the requested one is not there, none is plain, or its first bytes say that it can't run
    /// as `kind`.
    pub fn pick_entry(
        &self,
        kind: FunctionType,
        function: &FunctionName,
        requested: Option<&EntryName>,
    ) -> Result<EntryName, PackageError> {
        let entry = match requested {
            Some(requested) => self
                .file(requested)
                .ok_or_else(|| PackageError::entry_missing(requested, self.files().map(|entry| &entry.name)))?,
            None => match kind {
                FunctionType::Dll => self.plain_component(function),
                FunctionType::Exe => self.plain_program(function),
            }
            .ok_or_else(|| PackageError::EntryUnclear { kind, files: self.listed() })?,
        };
        check_head(kind, &entry.name, &self.head(entry, HEAD_BYTES)?)?;
        Ok(entry.name.clone())
    }

    fn plain_component(&self, function: &FunctionName) -> Option<&super::Entry> {
        let components = || self.files().filter(|entry| entry.name.as_str().ends_with(".wasm"));
        // Cargo writes underscores where a package's name has dashes.
        let built = function.as_str().replace('-', "_");
        only(components())
            .or_else(|| self.named(&format!("{function}.wasm")))
            .or_else(|| self.named(&format!("{built}.wasm")))
            .or_else(|| self.named("function.wasm"))
            .or_else(|| self.named("main.wasm"))
            .or_else(|| only(self.own()))
    }

    fn plain_program(&self, function: &FunctionName) -> Option<&super::Entry> {
        [function.as_str(), "main", "run", "run.sh", "main.sh"]
            .into_iter()
            .find_map(|name| self.named(name))
            .or_else(|| only(self.files().filter(|entry| entry.executable)))
            .or_else(|| only(self.own()))
    }

    /// The files without what the package says of itself.
    fn own(&self) -> impl Iterator<Item = &super::Entry> {
        self.files().filter(|entry| entry.name.as_str() != DECLARATION)
    }

    /// The file of that name, in whatever folder, if there is only one.
    fn named(&self, name: &str) -> Option<&super::Entry> {
        let same = |entry: &&super::Entry| entry.name.as_str().rsplit('/').next() == Some(name);
        only(self.files().filter(same))
    }

    fn listed(&self) -> String {
        listed(self.files().map(|entry| &entry.name))
    }
}

/// The names for a message: the first of them, in order.
fn listed<'a>(names: impl Iterator<Item = &'a EntryName>) -> String {
    let mut names: Vec<&str> = names.map(EntryName::as_str).collect();
    names.sort_unstable();
    let more = names.len().saturating_sub(LISTED);
    names.truncate(LISTED);
    let listed = names.join(", ");
    if more > 0 { format!("{listed} and {more} more") } else { listed }
}

impl PackageError {
    /// That a package of these files does not hold the one that was asked for.
    pub(crate) fn entry_missing<'a>(entry: &EntryName, files: impl Iterator<Item = &'a EntryName>) -> Self {
        Self::EntryMissing { entry: entry.clone(), files: listed(files) }
    }
}

fn only<T>(mut items: impl Iterator<Item = T>) -> Option<T> {
    let first = items.next()?;
    items.next().is_none().then_some(first)
}

/// Whether the system can run a file that begins so.
pub(super) fn runs_natively(head: &[u8]) -> bool {
    head.starts_with(ELF) || head.starts_with(b"#!")
}

/// Finds whether a file that begins with `head` ([`HEAD_BYTES`] of it, or all there is) can run as `kind`.
///
/// # Errors
/// [`PackageError::EntryUnfit`], with what the file is and what would be right.
pub fn check_head(kind: FunctionType, entry: &EntryName, head: &[u8]) -> Result<(), PackageError> {
    let reason = match kind {
        FunctionType::Dll => unfit_component(head),
        FunctionType::Exe => unfit_program(head),
    };
    match reason {
        None => Ok(()),
        Some(reason) => Err(PackageError::EntryUnfit { entry: entry.clone(), kind, reason }),
    }
}

fn unfit_component(head: &[u8]) -> Option<String> {
    // Whether a core module is one that a component can be made of shows when that is tried.
    if head.starts_with(COMPONENT) || head.starts_with(MODULE) {
        return None;
    }
    Some(if head.starts_with(b"\0asm") {
        "it is WebAssembly of a version this server does not know: it must be a component".into()
    } else {
        let hint = if runs_natively(head) { ", which runs as type 'exe'" } else { "" };
        format!("it is {}{hint}, not a WebAssembly component", describe(head))
    })
}

fn unfit_program(head: &[u8]) -> Option<String> {
    if head.starts_with(b"#!") {
        let line = head.split(|byte| *byte == b'\n').next().unwrap_or_default();
        return line.ends_with(b"\r").then(|| {
            "its '#!' line ends with a carriage return, so its interpreter would not be found: give the script Unix \
             line ends"
                .into()
        });
    }
    if head.starts_with(ELF) {
        return None;
    }
    let hint = if head.starts_with(COMPONENT) { ", which runs as type 'dll'" } else { "" };
    Some(format!(
        "it is {}{hint}; it must be a program for Linux (ELF) or a script that begins with '#!'",
        describe(head)
    ))
}

/// What a file that begins so is, in words.
fn describe(head: &[u8]) -> &'static str {
    const KNOWN: &[(&[u8], &str)] = &[
        (ELF, "a program for Linux (ELF)"),
        (b"#!", "a script"),
        (COMPONENT, "a WebAssembly component"),
        (b"\0asm", "a core WebAssembly module"),
        (b"MZ", "a program or library for Windows or .NET (PE)"),
        (b"\xcf\xfa\xed\xfe", "a program for macOS (Mach-O)"),
        (b"\xca\xfe\xba\xbe", "a Java class or a program for macOS (Mach-O)"),
        (b"PK\x03\x04", "a zip in the zip"),
    ];
    if head.is_empty() {
        return "an empty file";
    }
    match KNOWN.iter().find(|(magic, _)| head.starts_with(magic)) {
        Some((_, what)) => what,
        // The head may end within a character.
        None if std::str::from_utf8(head).is_ok_and(|text| !text.contains('\0'))
            || std::str::from_utf8(head).is_err_and(|error| error.error_len().is_none()) =>
        {
            "a text file"
        }
        None => "a file of an unknown kind",
    }
}
