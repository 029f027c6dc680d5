//! Notices that files of a project change: by looking, which works on every file system.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

/// How often is looked.
const PERIOD: Duration = Duration::from_millis(250);
/// How long nothing may change before it counts as written: editors and tools write one file after another.
const SETTLED: Duration = Duration::from_millis(100);
/// How many files are looked at.
const MOST: usize = 20_000;
/// Folders of what is made or installed, beside those that begin with a dot.
const MADE: [&str; 5] = ["target", "node_modules", "dist", "__pycache__", "venv"];
/// Files that tools write while they build.
const LOCKS: [&str; 2] = ["Cargo.lock", "package-lock.json"];

type Mark = Option<(SystemTime, u64)>;

/// What changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Something that the function is made of.
    Project,
    /// The file of the payload alone.
    Payload,
}

/// How the files stood at one time.
#[derive(Debug, Default, PartialEq, Eq)]
struct Look {
    files: BTreeMap<PathBuf, Mark>,
    payload: Mark,
}

/// A project that is watched.
#[derive(Debug)]
pub struct Watch {
    folder: PathBuf,
    payload: Option<PathBuf>,
    seen: Look,
}

impl Watch {
    /// Watches a folder from now on, and a file that holds the payload, in it or elsewhere.
    pub fn of(folder: &Path, payload: Option<&Path>) -> Self {
        let payload = payload.and_then(|file| fs::canonicalize(file).ok());
        let mut watch = Self { folder: folder.to_owned(), payload, seen: Look::default() };
        watch.seen = watch.look();
        watch
    }

    /// Waits until something is otherwise than when this last came back, and nothing changes any more. Given up
    /// midway, nothing is forgotten.
    pub async fn changed(&mut self) -> Change {
        let mut now = self.look();
        while now == self.seen {
            tokio::time::sleep(PERIOD).await;
            now = self.look();
        }
        loop {
            tokio::time::sleep(SETTLED).await;
            let later = self.look();
            if later == now {
                break;
            }
            now = later;
        }
        let change = if now.files == self.seen.files { Change::Payload } else { Change::Project };
        self.seen = now;
        change
    }

    fn look(&self) -> Look {
        let mut files = BTreeMap::new();
        let mut waiting = vec![self.folder.clone()];
        while let Some(folder) = waiting.pop() {
            // What is gone meanwhile is a change that the parent shows.
            let Ok(entries) = fs::read_dir(&folder) else { continue };
            for entry in entries.flatten() {
                let (name, path) = (entry.file_name(), entry.path());
                let name = name.to_string_lossy();
                let Ok(kind) = entry.file_type() else { continue };
                if name.starts_with('.') || LOCKS.contains(&&*name) || Some(&path) == self.payload.as_ref() {
                    continue;
                }
                if kind.is_dir() {
                    if !MADE.contains(&&*name) {
                        waiting.push(path);
                    }
                } else if files.len() < MOST {
                    let mark = mark(&path);
                    files.insert(path, mark);
                }
            }
        }
        Look { files, payload: self.payload.as_deref().and_then(mark) }
    }
}

fn mark(path: &Path) -> Mark {
    let metadata = fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_is_written_is_noticed_and_what_is_made_is_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        let write = |name: &str, text: &str| fs::write(at(name), text).expect("written");
        for name in ["src", "target", ".git"] {
            fs::create_dir(at(name)).expect("made");
        }
        write("payload.json", "1");
        write("src/lib.rs", "");
        let mut watch = Watch::of(folder.path(), Some(&at("payload.json")));
        for made in ["target/out", ".git/index", "Cargo.lock"] {
            write(made, "x");
        }
        assert_eq!(watch.changed().now_or_never(), None);
        write("payload.json", "22");
        assert_eq!(watch.changed().await, Change::Payload);
        write("src/lib.rs", "fn f() {}");
        write("payload.json", "333");
        assert_eq!(watch.changed().await, Change::Project);
        write("src/new.rs", "");
        assert_eq!(watch.changed().await, Change::Project);
        fs::remove_file(at("src/new.rs")).expect("removed");
        assert_eq!(watch.changed().await, Change::Project);
        assert_eq!(watch.changed().now_or_never(), None);
    }
}
