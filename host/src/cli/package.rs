//! Makes the zip that a push sends, of whatever the user has.

use std::{
    fs::{self, File},
    io::{self, Read, Seek as _},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use zip::{CompressionMethod, ZipArchive, ZipWriter, write::SimpleFileOptions};

use super::Failure;
use crate::function::{EntryName, FunctionName, FunctionType};

/// The first bytes of WebAssembly, component or not: the server tells those apart, and says so.
const WASM: &[u8; 4] = b"\0asm";
/// The first bytes of a zip that has something in it.
const ZIP: &[u8; 4] = b"PK\x03\x04";

/// A package ready to be sent.
#[derive(Debug)]
pub struct Package {
    /// The zip, at its beginning.
    pub file: File,
    /// How many bytes it has.
    pub size: u64,
    /// What kind of function it looks like.
    pub kind: FunctionType,
    /// What was left out because its name begins with a dot, by path.
    pub left_out: Vec<String>,
}

impl Package {
    /// Makes a package of the folder, component, program or zip at `path`. With an `entry` that file
    /// decides what kind of function it is.
    pub fn of(path: &Path, entry: Option<&EntryName>) -> Result<Self, Failure> {
        let metadata = fs::metadata(path).map_err(|error| usage(path, error))?;
        if metadata.is_dir() {
            return of_folder(path, entry);
        }
        if !metadata.is_file() {
            return Err(usage(path, "it is no file and no folder"));
        }
        let mut file = File::open(path).map_err(|error| usage(path, error))?;
        match &head(&mut file).map_err(|error| usage(path, error))? {
            ZIP => of_zip(path, file, entry),
            head => of_file(path, head == WASM, metadata.permissions().mode(), entry),
        }
    }
}

impl Package {
    /// Makes a package of these files under these names.
    pub fn of_files(files: &[(PathBuf, EntryName)], kind: FunctionType) -> Result<Self, Failure> {
        let mut zip = Writer::new()?;
        for (path, name) in files {
            zip.add(path, name.as_str())?;
        }
        zip.finish(kind, Vec::new())
    }
}

/// The name that a function at that path gets where the user gives none.
pub fn name_of(path: &Path) -> Result<FunctionName, Failure> {
    // `.` and `..` have names too.
    let whole = fs::canonicalize(path).map_err(|error| usage(path, error))?;
    let named = match whole.extension().and_then(|extension| extension.to_str()) {
        Some("wasm" | "zip" | "exe") if !whole.is_dir() => whole.file_stem(),
        _ => whole.file_name(),
    };
    let name = named.unwrap_or_default().to_string_lossy();
    FunctionName::parse(&name)
        .map_err(|error| Failure::Usage(format!("--name is needed, because {} can't give it: {error}", path.display())))
}

fn usage(path: &Path, error: impl std::fmt::Display) -> Failure {
    Failure::Usage(format!("PATH {}: {error}", path.display()))
}

fn head(file: &mut File) -> io::Result<[u8; 4]> {
    let mut head = Vec::new();
    Read::by_ref(file).take(4).read_to_end(&mut head)?;
    file.rewind()?;
    Ok(head.try_into().unwrap_or_default())
}

fn of_file(path: &Path, is_wasm: bool, mode: u32, entry: Option<&EntryName>) -> Result<Package, Failure> {
    if !is_wasm && mode & 0o111 == 0 {
        return Err(usage(
            path,
            "it is no WebAssembly, no zip and not executable: for a native program, run chmod +x on it",
        ));
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let name = EntryName::parse(&name).map_err(|error| usage(path, error))?;
    if let Some(entry) = entry.filter(|entry| **entry != name) {
        return Err(Failure::Usage(format!("--entry {entry}: the only file of the package is {name}")));
    }
    let mut zip = Writer::new()?;
    zip.add(path, name.as_str())?;
    let kind = if is_wasm { FunctionType::Dll } else { FunctionType::Exe };
    zip.finish(kind, Vec::new())
}

fn of_folder(folder: &Path, entry: Option<&EntryName>) -> Result<Package, Failure> {
    let mut zip = Writer::new()?;
    let mut left_out = Vec::new();
    let mut components = false;
    let mut entry_is_wasm = None;
    let mut waiting = vec![(folder.to_owned(), String::new())];
    while let Some((path, prefix)) = waiting.pop() {
        for (path, name) in children(&path, &prefix)? {
            if name.rsplit('/').next().is_some_and(|last| last.starts_with('.')) {
                left_out.push(name);
                continue;
            }
            // Of the link itself, where it is one.
            let kind = fs::symlink_metadata(&path).map_err(|error| usage(&path, error))?.file_type();
            if kind.is_symlink() {
                return Err(usage(&path, "it is a symbolic link, and a package can't hold those: put the file there"));
            }
            if kind.is_dir() {
                waiting.push((path, name));
            } else if kind.is_file() {
                let is_wasm = zip.add(&path, &name)? == *WASM;
                components |= is_wasm;
                if entry.is_some_and(|entry| entry.as_str() == name) {
                    entry_is_wasm = Some(is_wasm);
                }
            } else {
                return Err(usage(&path, "it is no file and no folder"));
            }
        }
    }
    if zip.files == 0 {
        return Err(usage(folder, "there is no file in it"));
    }
    let is_wasm = match (entry, entry_is_wasm) {
        (Some(entry), None) => return Err(no_entry(entry, folder)),
        (_, of_entry) => of_entry.unwrap_or(components),
    };
    zip.finish(if is_wasm { FunctionType::Dll } else { FunctionType::Exe }, left_out)
}

fn no_entry(entry: &EntryName, path: &Path) -> Failure {
    Failure::Usage(format!("--entry {entry}: {} has no such file", path.display()))
}

/// What a folder holds, in the order of names, so that the same folder always makes the same zip.
fn children(folder: &Path, prefix: &str) -> Result<Vec<(PathBuf, String)>, Failure> {
    let mut children = Vec::new();
    for entry in fs::read_dir(folder).map_err(|error| usage(folder, error))? {
        let entry = entry.map_err(|error| usage(folder, error))?;
        let name = entry.file_name();
        let name = name.to_str().ok_or_else(|| usage(&entry.path(), "its name is not UTF-8"))?;
        let name = if prefix.is_empty() { name.to_owned() } else { format!("{prefix}/{name}") };
        children.push((entry.path(), name));
    }
    children.sort_unstable_by(|(_, one), (_, other)| one.cmp(other));
    Ok(children)
}

fn of_zip(path: &Path, mut file: File, entry: Option<&EntryName>) -> Result<Package, Failure> {
    let size = file.metadata().map_err(|error| usage(path, error))?.len();
    let mut zip = ZipArchive::new(&mut file).map_err(|error| usage(path, format!("it is no sound zip: {error}")))?;
    let mut is_wasm = false;
    let mut found = false;
    for index in 0..zip.len() {
        let mut member = zip.by_index(index).map_err(|error| usage(path, format!("it is no sound zip: {error}")))?;
        // A name that can't be read is not the one that is looked for; the server refuses it.
        let counts = member.name().is_ok_and(|name| match entry {
            Some(entry) => name == entry.as_str(),
            None => name.ends_with(".wasm"),
        });
        if counts {
            found = true;
            let mut head = Vec::new();
            let read = Read::by_ref(&mut member).take(4).read_to_end(&mut head);
            is_wasm |= read.is_ok() && head == WASM;
        }
    }
    if let Some(entry) = entry.filter(|_| !found) {
        return Err(no_entry(entry, path));
    }
    drop(zip);
    file.rewind().map_err(|error| usage(path, error))?;
    let kind = if is_wasm { FunctionType::Dll } else { FunctionType::Exe };
    Ok(Package { file, size, kind, left_out: Vec::new() })
}

/// A zip in a temporary file that has no name, so that nothing is left of it whatever happens.
struct Writer {
    zip: ZipWriter<File>,
    files: usize,
}

impl Writer {
    fn new() -> Result<Self, Failure> {
        let file = tempfile::tempfile().map_err(no_room)?;
        Ok(Self { zip: ZipWriter::new(file), files: 0 })
    }

    /// Adds a file and gives its first bytes.
    fn add(&mut self, path: &Path, name: &str) -> Result<[u8; 4], Failure> {
        let mut file = File::open(path).map_err(|error| usage(path, error))?;
        let metadata = file.metadata().map_err(|error| usage(path, error))?;
        let head = head(&mut file).map_err(|error| usage(path, error))?;
        let executable = metadata.permissions().mode() & 0o111 != 0;
        let options = SimpleFileOptions::default()
            .compression_method(CompressionMethod::Deflated)
            .unix_permissions(if executable { 0o755 } else { 0o644 })
            .large_file(metadata.len() >= u64::from(u32::MAX));
        self.zip.start_file(name, options).map_err(no_room)?;
        io::copy(&mut file, &mut self.zip).map_err(|error| usage(path, error))?;
        self.files += 1;
        Ok(head)
    }

    fn finish(self, kind: FunctionType, left_out: Vec<String>) -> Result<Package, Failure> {
        let mut file = self.zip.finish().map_err(no_room)?;
        let size = file.stream_position().map_err(no_room)?;
        file.rewind().map_err(no_room)?;
        Ok(Package { file, size, kind, left_out })
    }
}

fn no_room(error: impl std::fmt::Display) -> Failure {
    Failure::local(format!("the package can't be written to a temporary file: {error}"))
}

#[cfg(test)]
mod tests;
