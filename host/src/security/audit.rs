//! The audit's way into the log, at once, and into the database, behind the request's back.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    runtime::Handle,
    sync::{
        mpsc::{self, Receiver, Sender},
        watch,
    },
};
use tokio_util::task::AbortOnDropHandle;

use super::{Bucket, Rate};
use crate::{
    database::{AuditEntry, Database},
    metrics,
};

/// How many entries may wait for a database that is away; beyond it they are in the log alone.
const WAITING: usize = 10_000;
/// How many are written at once.
const BATCH: usize = 500;
/// How many refusals it takes in a second.
const DENIALS: u64 = 50;
/// How long to wait before another try.
const PAUSE: Duration = Duration::from_secs(1);

/// Takes entries. A clone is another hand on the same.
#[derive(Debug, Clone)]
pub struct Audit {
    waiting: Sender<AuditEntry>,
    /// How many entries were ever taken, and how many of them are written.
    taken: Arc<AtomicU64>,
    written: watch::Receiver<u64>,
    denials: Arc<(Rate, Bucket)>,
    _writer: Arc<AbortOnDropHandle<()>>,
}

impl Audit {
    /// An audit in that database, written on that runtime.
    #[must_use]
    pub fn new(database: Database, services: &Handle) -> Self {
        let (waiting, come) = mpsc::channel(WAITING);
        let (done, written) = watch::channel(0);
        let writer = AbortOnDropHandle::new(services.spawn(write(database, come, done)));
        let denials = Arc::new((Rate::new(DENIALS), Bucket::default()));
        Self { waiting, taken: Arc::default(), written, denials, _writer: Arc::new(writer) }
    }

    /// Takes an entry, to be written soon.
    pub fn record(&self, entry: AuditEntry) {
        log(&entry);
        if self.waiting.try_send(entry).is_ok() {
            self.taken.fetch_add(1, Ordering::Relaxed);
        } else {
            metrics::AUDIT_LOST.count();
            tracing::error!(target: "sharpfaas::audit", "the audit cannot be written; this entry is in the log alone");
        }
    }

    /// As [`record`](Self::record), for what was refused: of a flood the log and the database get so much.
    pub fn record_denied(&self, entry: AuditEntry) {
        if self.denials.0.take(&self.denials.1) {
            self.record(entry);
        } else {
            metrics::AUDIT_LOST.count();
        }
    }

    /// Waits until what was taken is written, at most `limit`.
    pub async fn flushed(&self, limit: Duration) {
        let mut written = self.written.clone();
        let all = written.wait_for(|written| *written >= self.taken.load(Ordering::Relaxed));
        if tokio::time::timeout(limit, all).await.is_err() {
            let why = "the database was away until the end; entries of the audit are in the log alone";
            tracing::error!(target: "sharpfaas::audit", why);
        }
    }
}

/// Writes an entry to the log.
pub fn log(entry: &AuditEntry) {
    let AuditEntry { actor, address, action, target, detail, .. } = entry;
    tracing::info!(
        target: "sharpfaas::audit",
        actor = actor.as_deref(),
        address = address.as_deref(),
        action,
        target,
        detail = detail.as_deref(),
        "audit"
    );
}

async fn write(database: Database, mut come: Receiver<AuditEntry>, done: watch::Sender<u64>) {
    let mut batch = Vec::new();
    while come.recv_many(&mut batch, BATCH).await > 0 {
        while let Err(error) = database.audited(batch.clone()).await {
            tracing::warn!(%error, entries = batch.len(), "the audit cannot be written; it waits");
            tokio::time::sleep(PAUSE).await;
        }
        done.send_modify(|written| *written += batch.len() as u64);
        batch.clear();
    }
}
