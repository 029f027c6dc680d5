//! Artifacts: packages unpacked and compiled in the local function folder, ready to run.
//!
//! [`Artifacts::get`] looks in memory, then in the folder, then in the store, and one task does that
//! however many callers wait; when they go away it still comes to its end, and what failed is tried
//! again by the next caller. Nothing in the folder is believed for being there: packages and machine
//! code carry a seal of this node and are looked through when they are first loaded, and what is not as
//! it was written is dropped and made again.
//!
//! What bounds it: fetches by the store's connections, unpacking and compiling by places of their own,
//! the memory by the number of artifacts loaded, the disk by its size; the longest unused go first, but
//! never one that somebody holds an [`Artifact`] of.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use moka::{future::Cache, policy::EvictionPolicy};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::{
    config::{ArtifactsConfig, Limits},
    function::{
        Declaration, DeclaredLimits, Digest, EntryName, FunctionRef, FunctionType, Shape, package::PackageError,
    },
    runtime::{
        Program, ProgramPath, RuntimeError, native,
        wasm::{self, Abi},
    },
    store::FunctionStore,
};

mod code;
mod compiler;
mod error;
mod folder;
mod unpacked;
mod usage;

pub use compiler::{Compiler, SUBCOMMAND, compile_in_child};
pub use error::ArtifactError;

use folder::{Folder, Item};
use unpacked::FoundEntry;
use usage::{Pin, Usage};

/// How many packages are unpacked at once.
const UNPACKERS: usize = 4;

/// One entry of a package, ready to run. As long as it is held, its files stay where they are.
#[derive(Debug)]
pub struct Artifact {
    /// What runs.
    pub program: Program,
    /// What its package is content with.
    pub limits: DeclaredLimits,
    pins: Vec<Pin>,
}

/// The local function folder and what is loaded from it. Clones are handles of the same.
#[derive(Debug, Clone)]
pub struct Artifacts {
    inner: Arc<Inner>,
}

/// An artifact made for a push that is not published yet. Neither kept nor discarded, it is discarded
/// when dropped.
#[derive(Debug)]
pub struct Prepared {
    inner: Arc<Inner>,
    key: Key,
    artifact: Arc<Artifact>,
}

/// What an artifact is known by in memory.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    zip: Digest,
    kind: FunctionType,
    entry: EntryName,
}

struct Inner {
    folder: Arc<Folder>,
    usage: Arc<Usage>,
    memory: Cache<Key, Arc<Artifact>>,
    store: Arc<dyn FunctionStore>,
    wasm: Arc<wasm::Engine>,
    compiler: Compiler,
    limits: Limits,
    max_bytes: u64,
    unpackers: Semaphore,
    /// One at a time makes room.
    trimming: tokio::sync::Mutex<()>,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inner").field("folder", &self.folder).finish_non_exhaustive()
    }
}

/// Where a package comes from when the folder does not have it.
#[derive(Clone, Copy)]
enum Source<'a> {
    Store(&'a FunctionRef),
    /// A file of a push, that somebody may give up.
    Zip(&'a Path, &'a CancellationToken),
}

impl Artifacts {
    /// The folder that all unpacked packages are in, made where it is missing.
    ///
    /// # Errors
    /// When it can't be made, or others could write to it.
    pub fn packages(config: &ArtifactsConfig) -> Result<PathBuf, ArtifactError> {
        folder::packages(&config.dir)
    }

    /// Opens the local function folder, which must be this server's own, and compiles with this
    /// process's own binary.
    ///
    /// # Errors
    /// When the folder can't be made, can be written by others, or is in use by another server.
    pub fn open(
        config: &ArtifactsConfig,
        limits: &Limits,
        store: Arc<dyn FunctionStore>,
        wasm: Arc<wasm::Engine>,
    ) -> Result<Self, ArtifactError> {
        Self::open_with(config, limits, store, wasm, Compiler::new(config)?)
    }

    /// As [`open`](Self::open), with another compiler.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_with(
        config: &ArtifactsConfig,
        limits: &Limits,
        store: Arc<dyn FunctionStore>,
        wasm: Arc<wasm::Engine>,
        compiler: Compiler,
    ) -> Result<Self, ArtifactError> {
        let folder = Arc::new(Folder::open(&config.dir)?);
        let inner = Inner {
            usage: Usage::new(folder.clone(), Abi::ALL.map(|abi| wasm.compatibility(abi).to_owned())),
            folder,
            memory: Cache::builder().max_capacity(config.loaded).eviction_policy(EvictionPolicy::lru()).build(),
            store,
            wasm,
            compiler,
            limits: limits.clone(),
            max_bytes: config.max_bytes,
            unpackers: Semaphore::new(UNPACKERS),
            trimming: tokio::sync::Mutex::default(),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The artifact of a version, with another entry of its package where the caller picks one.
    ///
    /// # Errors
    /// When the store does not give the package, it is refused, or can't be prepared.
    pub async fn get(&self, function: &FunctionRef, entry: Option<&EntryName>) -> Result<Arc<Artifact>, ArtifactError> {
        let key = Key::of(function, entry);
        if let Some(artifact) = self.inner.memory.get(&key).await {
            artifact.touch();
            return Ok(artifact);
        }
        // In a task of its own: the caller may go away, the others who wait still want it.
        let (inner, function) = (self.inner.clone(), function.clone());
        tokio::spawn(async move {
            let making = async { inner.prepare(&key, Source::Store(&function), true).await.map(Arc::new) };
            let artifact = inner.memory.try_get_with_by_ref(&key, making).await.map_err(|error| (*error).clone())?;
            artifact.touch();
            inner.make_room().await;
            Ok(artifact)
        })
        .await?
    }

    /// Prepares the artifact of a package that is not in the store yet: the zip at `zip`, whose digest
    /// the caller found to be `sha256`. So a component is compiled, and refused, before it is published.
    /// Run it to its end: to give up, fire `cancel`, which kills the compiler.
    ///
    /// # Errors
    /// When the package or its entry is refused or can't be prepared; nothing of it stays then.
    pub async fn prepare(
        &self,
        zip: &Path,
        sha256: Digest,
        kind: FunctionType,
        entry: &EntryName,
        cancel: &CancellationToken,
    ) -> Result<Prepared, ArtifactError> {
        let key = Key { zip: sha256, kind, entry: entry.clone() };
        let artifact = Arc::new(self.inner.prepare(&key, Source::Zip(zip, cancel), false).await?);
        Ok(Prepared { inner: self.inner.clone(), key, artifact })
    }

    /// Forgets an artifact that turned out damaged when it ran: the files of its package are looked
    /// through, its machine code is dropped, and the next [`get`](Self::get) makes anew what is missing.
    ///
    /// # Errors
    /// When the folder can't be read or written.
    pub async fn invalidate(&self, function: &FunctionRef, entry: Option<&EntryName>) -> Result<(), ArtifactError> {
        let key = Key::of(function, entry);
        self.inner.memory.invalidate(&key).await;
        let package = self.inner.usage.pin(Item::Package(key.zip), true);
        let _making = package.making().await;
        let (folder, wasm) = (self.inner.folder.clone(), self.inner.wasm.clone());
        blocking(move || {
            let found = unpacked::find(&folder, &key.zip, key.kind, &key.entry, true)?;
            match (found, key.kind) {
                (Some(found), FunctionType::Dll) => Abi::ALL
                    .into_iter()
                    .try_for_each(|abi| code::discard(&folder, &found.sha256, wasm.compatibility(abi))),
                (Some(_), FunctionType::Exe) | (None, _) => Ok(()),
            }
        })
        .await
    }
}

impl AsRef<Program> for Artifact {
    fn as_ref(&self) -> &Program {
        &self.program
    }
}

impl Artifact {
    /// How its component is run; none: it is a native program.
    #[must_use]
    pub fn shape(&self) -> Option<Shape> {
        match &self.program {
            Program::Wasm(component) => Some(component.shape()),
            Program::Native(_) => None,
        }
    }

    fn touch(&self) {
        self.pins.iter().for_each(Pin::touch);
    }
}

impl Key {
    fn of(function: &FunctionRef, entry: Option<&EntryName>) -> Self {
        Self { zip: function.sha256, kind: function.kind, entry: entry.unwrap_or(&function.entry).clone() }
    }
}

impl Prepared {
    /// What was prepared.
    #[must_use]
    pub fn artifact(&self) -> &Arc<Artifact> {
        &self.artifact
    }

    /// Keeps it: the push is published, and its first call finds it loaded.
    pub async fn keep(self) {
        self.artifact.pins.iter().for_each(Pin::keep);
        self.inner.memory.insert(self.key, self.artifact).await;
        self.inner.make_room().await;
    }

    /// Removes it, unless another push or a published version has the same package.
    pub async fn discard(self) {
        // Where this task ends meanwhile, the work does not.
        if let Err(error) = tokio::task::spawn_blocking(move || drop(self)).await {
            tracing::warn!("a refused push was not cleaned up: {error}");
        }
    }
}

/// Runs what reads and writes files where that may block.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ArtifactError> + Send + 'static,
) -> Result<T, ArtifactError> {
    tokio::task::spawn_blocking(work).await?
}

impl Inner {
    /// From the folder, or else from the source. With `keep` it stays whatever becomes of the artifact.
    async fn prepare(&self, key: &Key, source: Source<'_>, keep: bool) -> Result<Artifact, ArtifactError> {
        let package = self.usage.pin(Item::Package(key.zip), keep);
        match self.program(key, &package, source, keep).await {
            Ok((program, limits, code)) => {
                Ok(Artifact { program, limits, pins: std::iter::once(package).chain(code).collect() })
            }
            Err(error) => {
                // The last one to let go may have a large folder to remove.
                blocking(move || {
                    drop(package);
                    Ok(())
                })
                .await?;
                Err(error)
            }
        }
    }

    async fn program(
        &self,
        key: &Key,
        package: &Pin,
        source: Source<'_>,
        keep: bool,
    ) -> Result<(Program, DeclaredLimits, Option<Pin>), ArtifactError> {
        let found = {
            let _making = package.making().await;
            // Every file, since a program may use any of them: once a load, so once a start mostly.
            match self.find_entry(key, true).await? {
                Some(found) => found,
                None => {
                    self.fetch(key, source).await?;
                    package.made();
                    let vanished = || ArtifactError::Aborted("its files vanished while it was made".into());
                    self.find_entry(key, false).await?.ok_or_else(vanished)?
                }
            }
        };
        let declared = self.declared(&found).await?;
        let limits = declared.limits;
        match key.kind {
            FunctionType::Exe => {
                let path = ProgramPath { package: found.files, entry: PathBuf::from(key.entry.as_str()) };
                Ok((Program::Native(native::Executable::new(path)), limits, None))
            }
            FunctionType::Dll => {
                let code = self.usage.pin(Item::Code(found.sha256), keep);
                let never = CancellationToken::new();
                let cancel = match source {
                    Source::Store(_) => &never,
                    Source::Zip(_, cancel) => cancel,
                };
                let component = self.component(&found, &key.entry, &code, declared, cancel).await?;
                Ok((Program::Wasm(component), limits, Some(code)))
            }
        }
    }

    async fn find_entry(&self, key: &Key, thorough: bool) -> Result<Option<FoundEntry>, ArtifactError> {
        let (folder, key) = (self.folder.clone(), key.clone());
        blocking(move || unpacked::find(&folder, &key.zip, key.kind, &key.entry, thorough)).await
    }

    /// Unpacks the package into its place.
    async fn fetch(&self, key: &Key, source: Source<'_>) -> Result<(), ArtifactError> {
        let workshop = self.folder.workshop()?;
        let fetched = match source {
            Source::Zip(zip, _) => {
                let _place = self.unpackers.acquire().await;
                return self.install(key, workshop, zip.to_owned()).await;
            }
            Source::Store(function) => {
                if function.size > self.limits.package_bytes {
                    let limit = self.limits.package_bytes;
                    return Err(PackageError::TooLarge { of: "bytes as a zip", limit }.into());
                }
                let zip = workshop.path().join("package.zip");
                self.store.fetch(&function.location, function.size, &zip).await?;
                let (path, size, sha256) = (zip.clone(), function.size, function.sha256);
                let what = function.location.to_string();
                blocking(move || unpacked::verify_zip(&path, size, &sha256, &what)).await?;
                tracing::info!("fetched {} ({size} bytes)", function.location);
                zip
            }
        };
        let _place = self.unpackers.acquire().await;
        self.install(key, workshop, fetched).await
    }

    async fn install(&self, key: &Key, workshop: tempfile::TempDir, zip: PathBuf) -> Result<(), ArtifactError> {
        let (folder, sha256, limits) = (self.folder.clone(), key.zip, self.limits.clone());
        blocking(move || unpacked::install(&folder, workshop, &zip, &sha256, &limits)).await
    }

    /// Loads the machine code of an entry, and has it compiled where there is none.
    async fn component(
        &self,
        found: &FoundEntry,
        entry: &EntryName,
        code: &Pin,
        declared: Declaration,
        cancel: &CancellationToken,
    ) -> Result<wasm::Component, ArtifactError> {
        let _making = code.making().await;
        let declared = Arc::new(declared);
        match self.load(found.sha256, declared.clone()).await {
            Ok(Some(component)) => return Ok(component),
            Ok(None) => {}
            Err(ArtifactError::Runtime(error)) if matches!(*error, RuntimeError::Damaged(_)) => {
                tracing::warn!("compiling again what could not be loaded: {error}");
            }
            Err(error) => return Err(error),
        }
        let workshop = self.folder.workshop()?;
        let made = workshop.path().join("made.cwasm");
        let input = found.files.join(entry.as_str());
        let abi = tokio::select! {
            biased;
            () = cancel.cancelled() => return Err(ArtifactError::Aborted("the push was given up".into())),
            compiled = self.compiler.compile(&input, &made) => compiled?,
        };
        let compatibility = self.wasm.compatibility(abi).to_owned();
        let (folder, sha256) = (self.folder.clone(), found.sha256);
        blocking(move || code::install(&folder, &made, &sha256, &compatibility)).await?;
        drop(workshop);
        code.made();
        let vanished = || ArtifactError::Aborted("its machine code vanished while it was made".into());
        self.load(found.sha256, declared).await?.ok_or_else(vanished)
    }

    /// What the package of an entry says of itself.
    async fn declared(&self, found: &FoundEntry) -> Result<Declaration, ArtifactError> {
        let files = found.files.clone();
        blocking(move || unpacked::declaration(&files)).await
    }

    async fn load(&self, sha256: Digest, declared: Arc<Declaration>) -> Result<Option<wasm::Component>, ArtifactError> {
        let (folder, wasm) = (self.folder.clone(), self.wasm.clone());
        blocking(move || {
            for abi in Abi::ALL {
                if let Some(file) = code::find(&folder, &sha256, wasm.compatibility(abi))? {
                    return Ok(Some(wasm.load(file, abi, declared)?));
                }
            }
            Ok(None)
        })
        .await
    }

    /// Drops what was not used for longest until the rest fits. What can't be dropped is tried again
    /// when the next one is added.
    async fn make_room(self: &Arc<Self>) {
        let Ok(_one) = self.trimming.try_lock() else { return };
        let inner = self.clone();
        let over = blocking(move || {
            let total = inner.usage.total()?;
            Ok(if total > inner.max_bytes { inner.usage.oldest_first() } else { Vec::new() })
        });
        let oldest = match over.await {
            Ok(oldest) => oldest,
            Err(error) => return tracing::warn!("no room can be made: {error}"),
        };
        for item in oldest {
            self.forget(&item).await;
            let inner = self.clone();
            let dropped = blocking(move || {
                let gone = inner.usage.drop_unheld(&item)?;
                if gone {
                    tracing::info!("dropped {item:?} to make room");
                }
                Ok(inner.usage.total()? <= inner.max_bytes)
            });
            match dropped.await {
                Ok(true) => return,
                Ok(false) => {}
                Err(error) => tracing::warn!("no room can be made: {error}"),
            }
        }
    }

    /// Takes the artifacts of a thing out of memory, where memory alone holds them.
    async fn forget(&self, item: &Item) {
        let unused: Vec<Key> = self
            .memory
            .iter()
            .filter(|(_, artifact)| artifact.pins.iter().any(|pin| pin.item() == *item))
            // One of them is the cache's, the other the iterator's.
            .filter(|(_, artifact)| Arc::strong_count(artifact) <= 2)
            .map(|(key, _)| (*key).clone())
            .collect();
        for key in &unused {
            self.memory.invalidate(key).await;
        }
        if !unused.is_empty() {
            // Only then does the cache let go of what it holds.
            self.memory.run_pending_tasks().await;
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
