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
//! ends, leaves nothing but a staging folder that is removed here, when the store is back, or after a
//! crash by a sweep. After it the version is there, even if the database is away. An answer of the store
//! that got lost is asked for again, because it is better to know than to push twice.
//!
//! What bounds it: the caller's number of pushes at once, and within it the places for unpacking and
//! compiling, and the store's connections.

use std::{fs::File, sync::Arc, time::Duration};

use chrono::{SubsecRound, Utc};
use tempfile::TempPath;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{
    artifacts::{ArtifactError, Artifacts},
    catalog::{Catalog, CatalogError},
    config::Limits,
    function::{
        Declaration, Digest, EntryName, ErrorCode, FunctionName, FunctionRef, FunctionType, Lane, Manifest, PushId,
        Shape,
        package::{Package, PackageError},
    },
    store::{FunctionStore, StoreError},
};

mod commit;

use commit::{MOST_LOST, Queues};

/// The longest `pushed_by` that is kept, in characters.
const MAX_PUSHED_BY: usize = 128;

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
    /// Which file runs; none: the one that the package says, or that is plain to see.
    pub entry: Option<EntryName>,
    /// Who pushes, where known.
    pub pushed_by: Option<String>,
    /// The zip; removed when the push has ended.
    pub package: TempPath,
    /// Its size in bytes.
    pub size: u64,
    /// Its digest.
    pub sha256: Digest,
    /// Fires when nobody waits for the push any more: then its compiler is ended, and it is undone. Once
    /// it takes a number it is seen through.
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
    /// Nobody waited for it any more, so it was undone.
    #[error("the push was given up before it was published")]
    GivenUp,
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
            Self::GivenUp => ErrorCode::Cancelled,
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
    queues: Queues,
    /// How long a commit whose outcome is not known is asked for again.
    patience: Duration,
    /// How long to wait before what is staged is tried to be removed again.
    undo_wait: Duration,
    /// Ends the tasks that remove later what could not be removed at once.
    end: CancellationToken,
    _end: DropGuard,
}

impl Publisher {
    /// A publisher into `store`, which is the catalog's and the artifacts' too.
    #[must_use]
    pub fn new(catalog: Arc<Catalog>, store: Arc<dyn FunctionStore>, artifacts: Artifacts, limits: Limits) -> Self {
        let end = CancellationToken::new();
        Self {
            catalog,
            store,
            artifacts,
            limits,
            queues: Queues::default(),
            patience: commit::PATIENCE,
            undo_wait: commit::UNDO_WAIT,
            _end: end.clone().drop_guard(),
            end,
        }
    }

    /// Publishes a package. To be seen through in a task of its own, since the version is there or not
    /// there whether or not the pusher waits for the answer.
    ///
    /// # Errors
    /// When it is refused or fails; then nothing of it is left. Where the store is away, what was staged
    /// is removed later, and what turns out to be published is made known.
    pub async fn publish(&self, push: Push) -> Result<FunctionRef, PublishError> {
        self.catalog.check_push(&push.name, &push.lane, push.kind).await?;
        let (entry, declared) = self.entry(&push).await?;
        let prepared = self.artifacts.prepare(&push.package, push.sha256, push.kind, &entry, &push.cancel).await;
        let prepared = match prepared {
            Err(_) if push.cancel.is_cancelled() => return Err(PublishError::GivenUp),
            prepared => prepared?,
        };
        match self.place(&push, manifest(&push, entry, prepared.artifact().shape(), &declared)).await {
            Ok(function) => {
                prepared.keep().await;
                tracing::info!(version = %function.location, sha256 = %function.sha256, "published");
                Ok(Arc::unwrap_or_clone(function))
            }
            Err(error) => {
                prepared.discard().await;
                Err(error)
            }
        }
    }

    /// Reads the package as hostile, and finds the file that runs, and what the package says of itself.
    async fn entry(&self, push: &Push) -> Result<(EntryName, Declaration), PublishError> {
        let (path, limits) = (push.package.to_path_buf(), self.limits.clone());
        let (name, kind, wanted) = (push.name.clone(), push.kind, push.entry.clone());
        let picked = tokio::task::spawn_blocking(move || {
            let package = Package::read(File::open(path).map_err(PackageError::Local)?, &limits)?;
            let declared = package.declaration()?;
            declared.check(kind)?;
            let wanted = wanted.as_ref().or(declared.entry.as_ref());
            Ok::<_, PackageError>((package.pick_entry(kind, &name, wanted)?, declared))
        });
        Ok(picked.await.map_err(ArtifactError::from)?.map_err(ArtifactError::from)?)
    }

    /// Stages and commits; where that fails, what is staged is removed.
    async fn place(&self, push: &Push, manifest: Manifest) -> Result<Arc<FunctionRef>, PublishError> {
        if push.cancel.is_cancelled() {
            return Err(PublishError::GivenUp);
        }
        let id = manifest.push_id;
        let text = serde_json::to_vec_pretty(&manifest)?;
        let placed = match self.store.stage(id, &push.package, &text).await {
            Ok(()) => self.commit(push, manifest).await,
            Err(error) => Err(error.into()),
        };
        match placed {
            Ok(function) => Ok(function),
            // An answer got lost, and the version is there.
            Err(failed) => self.undo(id, failed.maybe).await.ok_or(failed.error),
        }
    }
}

fn manifest(push: &Push, entry: EntryName, shape: Option<Shape>, declared: &Declaration) -> Manifest {
    let plain = |text: &String| text.chars().filter(|c| !c.is_control()).take(MAX_PUSHED_BY).collect();
    Manifest {
        push_id: PushId::generate(),
        name: push.name.clone(),
        lane: push.lane.clone(),
        kind: push.kind,
        entry,
        shape,
        asks: declared.asks(),
        sha256: push.sha256,
        size: push.size,
        // As exact as the database keeps it, so that all who read it see the same.
        pushed_at: Utc::now().trunc_subsecs(6),
        pushed_by: push.pushed_by.as_ref().map(plain),
        sharpfaas_version: env!("CARGO_PKG_VERSION").to_owned(),
    }
}

#[cfg(test)]
mod tests;
