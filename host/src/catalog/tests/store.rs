//! A store in memory, which counts what is asked of it and can be away.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use async_trait::async_trait;
use chrono::Utc;

use super::{at, name, v};
use crate::{
    function::{Digest, FunctionName, FunctionType, Lane, Location, Manifest, PushId, Version},
    store::{Commit, FunctionStore, StoreError},
};

pub(super) fn manifest(push: PushId, name: &FunctionName, lane: &Lane, kind: FunctionType) -> Manifest {
    Manifest {
        push_id: push,
        name: name.clone(),
        lane: lane.clone(),
        kind,
        entry: "function.wasm".parse().unwrap(),
        shape: None,
        asks: None,
        sha256: Digest::of(push.to_string().as_bytes()),
        size: 1000,
        pushed_at: Utc::now(),
        pushed_by: None,
        sharpfaas_version: "0.1.0".into(),
    }
}

/// How often each was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Asked {
    pub(super) manifests: usize,
    pub(super) functions: usize,
    pub(super) versions: usize,
    pub(super) lanes: usize,
    pub(super) pings: usize,
}

#[derive(Default)]
pub(super) struct MemoryStore {
    versions: Mutex<BTreeMap<Location, Vec<u8>>>,
    staged: Mutex<HashMap<PushId, Vec<u8>>>,
    /// Whether it can't be reached.
    pub(super) away: AtomicBool,
    manifests: AtomicUsize,
    functions: AtomicUsize,
    listed: AtomicUsize,
    lanes: AtomicUsize,
    pings: AtomicUsize,
}

impl MemoryStore {
    pub(super) fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Puts versions there that no server of the test pushed: each major with the number of its minors.
    pub(super) fn holding(self: Arc<Self>, lane: &str, function: &str, majors: &[u32]) -> Arc<Self> {
        for (major, minors) in (1..).zip(majors) {
            for minor in 0..*minors {
                self.put(lane, v(major, minor), function, FunctionType::Dll);
            }
        }
        self
    }

    pub(super) fn put(&self, lane: &str, version: Version, function: &str, kind: FunctionType) {
        let at = at(lane, version, function);
        let manifest = manifest(PushId::generate(), &at.name, &at.lane, kind);
        self.write(at, serde_json::to_vec(&manifest).unwrap());
    }

    pub(super) fn write(&self, at: Location, manifest: Vec<u8>) {
        self.versions.lock().unwrap().insert(at, manifest);
    }

    pub(super) fn stage_manifest(&self, push: PushId, manifest: &Manifest) {
        self.staged.lock().unwrap().insert(push, serde_json::to_vec(manifest).unwrap());
    }

    pub(super) fn commit_staged(&self, push: PushId, at: &Location) -> Result<Commit, StoreError> {
        self.answer(&AtomicUsize::new(0))?;
        let mut versions = self.versions.lock().unwrap();
        if versions.contains_key(at) {
            return Ok(Commit::Taken);
        }
        versions.insert(at.clone(), self.staged.lock().unwrap().remove(&push).unwrap());
        Ok(Commit::Done)
    }

    pub(super) fn asked(&self) -> Asked {
        Asked {
            manifests: self.manifests.load(SeqCst),
            functions: self.functions.load(SeqCst),
            versions: self.listed.load(SeqCst),
            lanes: self.lanes.load(SeqCst),
            pings: self.pings.load(SeqCst),
        }
    }

    pub(super) fn all(&self, function: &str) -> BTreeSet<Version> {
        let versions = self.versions.lock().unwrap();
        versions.keys().filter(|at| at.name == name(function)).map(|at| at.version).collect()
    }

    fn answer(&self, count: &AtomicUsize) -> Result<(), StoreError> {
        count.fetch_add(1, SeqCst);
        if self.away.load(SeqCst) { Err(StoreError::Unavailable("the test took it away".into())) } else { Ok(()) }
    }
}

#[async_trait]
impl FunctionStore for MemoryStore {
    async fn stage(&self, push: PushId, _package: &Path, manifest: &[u8]) -> Result<(), StoreError> {
        self.staged.lock().unwrap().insert(push, manifest.into());
        Ok(())
    }

    async fn commit(&self, push: PushId, at: &Location) -> Result<Commit, StoreError> {
        self.commit_staged(push, at)
    }

    async fn discard(&self, push: PushId) -> Result<(), StoreError> {
        self.staged.lock().unwrap().remove(&push);
        Ok(())
    }

    async fn manifest(&self, at: &Location) -> Result<Option<Vec<u8>>, StoreError> {
        self.answer(&self.manifests)?;
        // Others run while this one waits for its answer.
        tokio::task::yield_now().await;
        Ok(self.versions.lock().unwrap().get(at).cloned())
    }

    async fn fetch(&self, at: &Location, _size: u64, _to: &Path) -> Result<(), StoreError> {
        Err(StoreError::Damaged(at.to_string()))
    }

    async fn lanes(&self) -> Result<Vec<Lane>, StoreError> {
        self.answer(&self.lanes)?;
        let lanes: BTreeSet<_> = self.versions.lock().unwrap().keys().map(|at| at.lane.clone()).collect();
        Ok(lanes.into_iter().collect())
    }

    async fn versions(&self, lane: &Lane) -> Result<Vec<Version>, StoreError> {
        self.answer(&self.listed)?;
        let versions = self.versions.lock().unwrap();
        let versions: BTreeSet<_> = versions.keys().filter(|at| at.lane == *lane).map(|at| at.version).collect();
        Ok(versions.into_iter().collect())
    }

    async fn functions(&self, lane: &Lane, version: Version) -> Result<Vec<FunctionName>, StoreError> {
        self.answer(&self.functions)?;
        tokio::task::yield_now().await;
        let versions = self.versions.lock().unwrap();
        Ok(versions.keys().filter(|at| at.lane == *lane && at.version == version).map(|at| at.name.clone()).collect())
    }

    async fn probe(&self) -> Result<(), StoreError> {
        Ok(())
    }

    async fn sweep(&self, _grace: Duration) -> Result<usize, StoreError> {
        Ok(0)
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.answer(&self.pings)
    }
}
