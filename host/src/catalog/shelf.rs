//! What the catalog reads of the store: manifests, and the names in its folders.
//!
//! Everything there was written by somebody else, and is read as hostile: a manifest that is not one, or is
//! of another function or lane than its folder, is logged once an hour and counts as a version that exists
//! and can't be used.

use std::{collections::HashSet, sync::Arc, time::Duration};

use chrono::SubsecRound;
use moka::sync::Cache;

use super::CatalogError;
use crate::{
    function::{FunctionName, FunctionRef, Lane, Location, Manifest, Version, manifest::MAX_MANIFEST_BYTES},
    store::{FunctionStore, StoreError},
};

/// How often the same damage is logged.
const DAMAGE_LOGGED: Duration = Duration::from_secs(3600);
/// How many damaged places are kept in mind.
const DAMAGE_KEPT: u64 = 10_000;
/// How many lanes' names are kept at once. A listing of 10,000 names takes about a megabyte.
const LISTINGS_KEPT: u64 = 16;

/// What stands at a place of the store.
#[derive(Debug)]
pub(super) enum Found {
    Nothing,
    Damaged,
    Version(Arc<FunctionRef>),
}

pub(super) struct Shelf {
    pub(super) store: Arc<dyn FunctionStore>,
    /// The listings of the last moment, so that unknown names cost one for all of them.
    lanes: moka::future::Cache<(), Arc<HashSet<Lane>>>,
    names: moka::future::Cache<Lane, Arc<HashSet<FunctionName>>>,
    damaged: Cache<Location, ()>,
}

impl std::fmt::Debug for Shelf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shelf").finish_non_exhaustive()
    }
}

impl Shelf {
    pub(super) fn new(store: Arc<dyn FunctionStore>, fresh: Duration) -> Self {
        Self {
            store,
            lanes: moka::future::Cache::builder().max_capacity(1).time_to_live(fresh).build(),
            names: moka::future::Cache::builder().max_capacity(LISTINGS_KEPT).time_to_live(fresh).build(),
            damaged: Cache::builder().max_capacity(DAMAGE_KEPT).time_to_live(DAMAGE_LOGGED).build(),
        }
    }

    /// Reads the manifest at a place.
    pub(super) async fn read(&self, at: &Location) -> Result<Found, StoreError> {
        let bytes = match self.store.manifest(at).await {
            Ok(Some(bytes)) => bytes,
            Ok(None) => return Ok(Found::Nothing),
            Err(error @ StoreError::Damaged(_)) => return Ok(self.damage(at, &error)),
            Err(error) => return Err(error),
        };
        Ok(match parse(&bytes, at) {
            Ok(function) => Found::Version(Arc::new(function)),
            Err(why) => self.damage(at, &why),
        })
    }

    fn damage(&self, at: &Location, why: &dyn std::fmt::Display) -> Found {
        if self.damaged.entry_by_ref(at).or_insert(()).is_fresh() {
            tracing::warn!(%at, %why, "a version of the store is passed over: its manifest is damaged");
        }
        Found::Damaged
    }

    /// Whether what stands there was found damaged within the last hour.
    pub(super) fn is_damaged(&self, at: &Location) -> bool {
        self.damaged.contains_key(at)
    }

    /// Every lane, as of a moment ago.
    pub(super) async fn lanes(&self) -> Result<Arc<HashSet<Lane>>, CatalogError> {
        let listing = async { Ok(Arc::new(self.store.lanes().await?.into_iter().collect())) };
        self.lanes.try_get_with((), listing).await.map_err(CatalogError::Store)
    }

    /// Every function of a lane, as of a moment ago: each has a first version.
    pub(super) async fn names(&self, lane: &Lane) -> Result<Arc<HashSet<FunctionName>>, CatalogError> {
        let listing = async { Ok(Arc::new(self.store.functions(lane, Version::FIRST).await?.into_iter().collect())) };
        self.names.try_get_with(lane.clone(), listing).await.map_err(CatalogError::Store)
    }
}

fn parse(bytes: &[u8], at: &Location) -> Result<FunctionRef, String> {
    if bytes.len() > MAX_MANIFEST_BYTES {
        return Err(format!("it has more than {MAX_MANIFEST_BYTES} bytes"));
    }
    let manifest: Manifest = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    if manifest.name != at.name || manifest.lane != at.lane {
        return Err(format!("it is of function '{}' in lane '{}'", manifest.name, manifest.lane));
    }
    let mut function = FunctionRef::from_manifest(manifest, at.version);
    // As exactly as the database keeps it, so that the same version is the same from wherever it comes.
    function.pushed_at = function.pushed_at.trunc_subsecs(6);
    Ok(function)
}
