//! Publishing: a package becomes the next version of its function.
//!
//! ```text
//! 1 catalog.check_push   the name is free, or of this type
//! 2 artifacts.prepare    read as hostile, its entry found, compiled, checked, kept ready to run here
//! 3 store.stage          uploaded to where nobody looks
//! 4 store.commit         renamed into place; where another push was first, to the next number
//! 5 catalog.record       known here at once, and to all of this database
//! ```
//! Only the fourth step is seen by anybody, and it is one rename: a push that ends before it, however it
//! ends, leaves nothing but a staging folder that is removed here or, after a crash, swept later. After
//! it the version is there, even if the database is away.

use std::{fs::File, sync::Arc};

use chrono::{SubsecRound, Utc};
use tempfile::TempPath;
use tokio_util::sync::CancellationToken;

use crate::{
    artifacts::{ArtifactError, Artifacts},
    catalog::{Catalog, CatalogError},
    config::Limits,
    function::{
        Digest, EntryName, ErrorCode, FunctionName, FunctionRef, FunctionType, Lane, Location, Manifest, PushId,
        Version,
        package::{Package, PackageError},
    },
    store::{Commit, FunctionStore, StoreError},
};

/// How many numbers in a row a push may lose to others before it gives up.
const MOST_LOST: u32 = 1000;

/// A package that somebody pushes.
#[derive(Debug)]
pub struct Push {
    /// The function's name.
    pub name: FunctionName,
    /// The lane.
    pub lane: Lane,
    /// How it is to run.
    pub kind: FunctionType,
    /// Whether it begins a new major version.
    pub new_version: bool,
    /// Which file runs; none: the one that is plain to see.
    pub entry: Option<EntryName>,
    /// Who pushes, where known.
    pub pushed_by: Option<String>,
    /// The zip; removed when the push has ended.
    pub package: TempPath,
    /// Its size in bytes.
    pub size: u64,
    /// Its digest.
    pub sha256: Digest,
    /// Fires when nobody waits for the push any more: then it is not compiled for nothing. Once it goes
    /// to the store it is seen through.
    pub cancel: CancellationToken,
}

/// Why a push was refused or failed.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The name is in the way, or the catalog failed.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// The package can't be used, or could not be prepared.
    #[error(transparent)]
    Artifact(#[from] ArtifactError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Others took every number that this push went for.
    #[error("{MOST_LOST} other pushes of {0} came first; try again")]
    Outrun(FunctionName),
    /// The description could not be written.
    #[error("the manifest cannot be written: {0}")]
    Manifest(#[from] serde_json::Error),
}

impl PublishError {
    /// Its code.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Catalog(error) => error.code(),
            Self::Artifact(error) => error.code(),
            Self::Store(error) => error.code(),
            Self::Outrun(_) => ErrorCode::AtCapacity,
            Self::Manifest(_) => ErrorCode::Internal,
        }
    }
}

/// Publishes. One a server.
pub struct Publisher {
    catalog: Arc<Catalog>,
    store: Arc<dyn FunctionStore>,
    artifacts: Artifacts,
    limits: Limits,
}

impl Publisher {
    /// A publisher into `store`.
    #[must_use]
    pub fn new(catalog: Arc<Catalog>, store: Arc<dyn FunctionStore>, artifacts: Artifacts, limits: Limits) -> Self {
        Self { catalog, store, artifacts, limits }
    }

    /// Publishes a package. To be seen through in a task of its own, since the version is there or not
    /// there whether or not the pusher waits for the answer.
    ///
    /// # Errors
    /// When it is refused or fails; then nothing of it is left.
    pub async fn publish(&self, push: Push) -> Result<FunctionRef, PublishError> {
        self.catalog.check_push(&push.name, &push.lane, push.kind).await?;
        let entry = self.entry(&push).await?;
        let prepared = self.artifacts.prepare(&push.package, push.sha256, push.kind, &entry, &push.cancel).await?;
        let manifest = Manifest {
            push_id: PushId::generate(),
            name: push.name.clone(),
            lane: push.lane.clone(),
            kind: push.kind,
            entry,
            sha256: push.sha256,
            size: push.size,
            pushed_at: Utc::now().trunc_subsecs(6),
            pushed_by: push.pushed_by.clone(),
            sharpfaas_version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        match self.place(&push, &manifest).await {
            Ok(version) => {
                prepared.keep().await;
                let function = FunctionRef::from_manifest(manifest, version);
                tracing::info!(version = %function.location, sha256 = %function.sha256, "published");
                self.catalog.record(function.clone()).await;
                Ok(function)
            }
            Err(error) => {
                prepared.discard().await;
                if let Err(left) = self.store.discard(manifest.push_id).await {
                    tracing::info!(push = %manifest.push_id, error = %left, "a staging folder is left to be swept");
                }
                Err(error)
            }
        }
    }

    /// Reads the package as hostile, and finds the file that runs.
    async fn entry(&self, push: &Push) -> Result<EntryName, PublishError> {
        let (path, limits) = (push.package.to_path_buf(), self.limits.clone());
        let (name, kind, wanted) = (push.name.clone(), push.kind, push.entry.clone());
        let picked = tokio::task::spawn_blocking(move || {
            let package = Package::read(File::open(path).map_err(PackageError::Local)?, &limits)?;
            package.pick_entry(kind, &name, wanted.as_ref())
        });
        Ok(picked.await.map_err(ArtifactError::from)?.map_err(ArtifactError::from)?)
    }

    /// Stages and commits; the version that it got.
    async fn place(&self, push: &Push, manifest: &Manifest) -> Result<Version, PublishError> {
        self.store.stage(manifest.push_id, &push.package, &serde_json::to_vec_pretty(manifest)?).await?;
        let mut newest = self.catalog.newest(&push.name, &push.lane).await?;
        for _ in 0..MOST_LOST {
            let version = Version::after(newest, push.new_version);
            let at = Location { lane: push.lane.clone(), version, name: push.name.clone() };
            match self.store.commit(manifest.push_id, &at).await? {
                Commit::Done => return Ok(version),
                Commit::Taken => {
                    // Whoever was first may have made it a function of the other type.
                    self.catalog.check_push(&push.name, &push.lane, push.kind).await?;
                    newest = self.catalog.newest(&push.name, &push.lane).await?.max(Some(version));
                }
            }
        }
        Err(PublishError::Outrun(push.name.clone()))
    }
}
