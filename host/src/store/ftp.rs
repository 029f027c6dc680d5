//! A store on an FTP server.
//!
//! Works with any server that has the commands of RFC 959 and a rename that fails on a folder that
//! holds something. Data connections are passive, by EPSV where the server has it, and go to the
//! address of the control connection only. Every step has a time limit; a step that failed on the way
//! (not one that the server refused, and not one that timed out) is tried again, which is safe
//! because each of the methods below can be repeated from its start: uploads go to a staging folder of
//! their own, and a rename whose answer was lost is found out by what stands where.

use std::{path::Path, sync::Arc, time::Duration};

use async_trait::async_trait;
use tokio::fs::File;

use self::{connection::Endpoint, fault::Fault, layout::Layout, pool::Pool, tls::Tls};
use super::{Commit, FunctionStore, MANIFEST, StoreError, is_older, local::NewFile, staged_push};
use crate::{
    config::{self, FtpUrl, Secret, StoreConfig},
    function::{FunctionName, Lane, Location, PushId, Version, manifest::MAX_MANIFEST_BYTES},
};

mod connection;
mod fault;
mod layout;
mod pool;
mod tls;

/// The pause before the first retry; each further one is twice as long.
const BACKOFF: Duration = Duration::from_millis(200);

/// A store on an FTP server.
pub struct FtpStore {
    pool: Arc<Pool>,
    layout: Layout,
    retries: u64,
}

impl FtpStore {
    /// The store at `url`. Does not connect yet.
    ///
    /// # Errors
    /// [`StoreError::Unusable`] when the trusted certificates can't be read.
    pub fn new(config: &StoreConfig, url: &FtpUrl, password: Option<Secret>) -> Result<Self, StoreError> {
        let endpoint = Endpoint {
            url: url.clone(),
            password,
            tls: url.tls.then(|| Tls::new(config.ca_file.as_deref())).transpose()?,
            limit: config::seconds(config.timeout_seconds),
            insecure: config.insecure,
            no_epsv: Arc::default(),
        };
        let size = usize::try_from(config.connections).unwrap_or(1);
        let pool = Pool::new(endpoint, size, config::seconds(config.idle_seconds));
        Ok(Self { pool, layout: Layout::new(&url.root), retries: config.retries })
    }

    /// Does `work` with a connection, again when the connection broke, with a pause that grows and
    /// varies, so that servers that lost their store together do not come back together. Of the steps
    /// that time out, `patience` are forgiven.
    async fn retrying<T, F>(&self, mut patience: u32, work: impl Fn() -> F) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, Fault>>,
    {
        let mut pause = BACKOFF;
        let mut tries = self.retries;
        loop {
            let result = work().await;
            if let Err(Fault::Lost(_) | Fault::Slow(_)) = &result {
                // What broke one connection broke those that lie unused.
                self.pool.forget();
            }
            match result {
                Ok(value) => return Ok(value),
                Err(Fault::Lost(text)) if tries > 0 => {
                    tries -= 1;
                    tracing::debug!(text, "the connection to the store broke: trying again");
                }
                Err(Fault::Slow(text)) if patience > 0 => {
                    patience -= 1;
                    tracing::debug!(text, "the store did not answer: trying again");
                }
                Err(fault) => return Err(fault.into()),
            }
            tokio::time::sleep(pause.mul_f64(0.5 + fastrand::f64())).await;
            pause = pause.saturating_mul(2);
        }
    }
}

#[async_trait]
impl FunctionStore for FtpStore {
    async fn stage(&self, push: PushId, package: &Path, manifest: &[u8]) -> Result<(), StoreError> {
        self.retrying(0, || async {
            let mut c = self.pool.get().await?;
            let result = self.layout.stage(&mut c, push, package, manifest).await?;
            c.give_back(result)
        })
        .await
    }

    async fn commit(&self, push: PushId, at: &Location) -> Result<Commit, StoreError> {
        // Patient with one step: when the answer to the rename does not come, another look at the
        // target tells how it ended.
        self.retrying(1, || async {
            let mut c = self.pool.get().await?;
            let result = self.layout.commit(&mut c, push, at).await?;
            c.give_back(result)
        })
        .await
    }

    async fn discard(&self, push: PushId) -> Result<(), StoreError> {
        self.retrying(0, || async {
            let mut c = self.pool.get().await?;
            let result = self.layout.clear(&mut c, push).await?;
            c.give_back(result)
        })
        .await
    }

    async fn manifest(&self, at: &Location) -> Result<Option<Vec<u8>>, StoreError> {
        let path = format!("{}/{MANIFEST}", self.layout.function(at));
        self.retrying(0, || async {
            let mut c = self.pool.get().await?;
            let result = c.read(&path, MAX_MANIFEST_BYTES).await?;
            c.give_back(result)
        })
        .await
    }

    async fn fetch(&self, at: &Location, size: u64, to: &Path) -> Result<(), StoreError> {
        self.retrying(0, || async {
            let mut c = self.pool.get().await?;
            // A new file each time: a write of an earlier try may still be under way.
            let mut new = NewFile::create(to)?;
            self.layout.fetch(&mut c, at, size, &mut File::from_std(new.handle()?)).await?;
            new.keep();
            c.give_back(())
        })
        .await
    }

    async fn lanes(&self) -> Result<Vec<Lane>, StoreError> {
        self.listed(self.layout.root(), |name| Lane::parse(name).ok()).await
    }

    async fn versions(&self, lane: &Lane) -> Result<Vec<Version>, StoreError> {
        self.listed(&self.layout.lane(lane), |name| name.parse().ok()).await
    }

    async fn functions(&self, lane: &Lane, version: Version) -> Result<Vec<FunctionName>, StoreError> {
        self.listed(&self.layout.version(lane, version), |name| FunctionName::parse(name).ok()).await
    }

    async fn probe(&self) -> Result<(), StoreError> {
        let pushes = [(); 3].map(|()| PushId::generate());
        self.retrying(0, || async {
            let mut c = self.pool.get().await?;
            let result = self.layout.probe(&mut c, pushes).await?;
            c.give_back(result)
        })
        .await
    }

    async fn sweep(&self, grace: Duration) -> Result<usize, StoreError> {
        let mut pushes = self.listed(&self.layout.staging(), staged_push).await?;
        pushes.retain(|push| is_older(*push, grace));
        for push in &pushes {
            self.discard(*push).await?;
        }
        Ok(pushes.len())
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.retrying(0, || async {
            let mut c = self.pool.get().await?;
            let result = c.noop().await?;
            c.give_back(result)
        })
        .await
    }
}

impl FtpStore {
    /// The names in a folder that `parse` takes, in order.
    async fn listed<T: Ord>(&self, folder: &str, parse: impl Fn(&str) -> Option<T>) -> Result<Vec<T>, StoreError> {
        let names = self
            .retrying(0, || async {
                let mut c = self.pool.get().await?;
                let result = c.names(folder).await?;
                c.give_back(result)
            })
            .await?;
        let mut found: Vec<T> = names.iter().filter_map(|name| parse(name)).collect();
        found.sort_unstable();
        found.dedup();
        Ok(found)
    }
}
