//! graphile_worker with a task that does nothing, on the database `URL`.
//!
//! - `graphile URL fill JOBS` hands jobs in, and prints how many a second it took one by one, and then in bulk.
//! - `graphile URL run JOBS CONCURRENCY AHEAD BATCH SECONDS` runs those that lie ready, and ends when the last of them is
//!   gone from the database, or after so many seconds; it prints how many it ran.
//! - `graphile URL idle CONCURRENCY AHEAD BATCH` prints the microseconds from a job's being handed in to its start while
//!   nothing else is done, p50 and p99.
//!
//! AHEAD is how many jobs a worker fetches ahead, or 0 to fetch each by itself, and BATCH for how many milliseconds
//! it gathers those that are done, or 0 to complete each by itself; both are its default.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use graphile_worker::{
    IntoTaskHandlerResult, JobSpec, LocalQueueConfig, TaskHandler, Worker, WorkerContext, WorkerOptions,
};
use serde::{Deserialize, Serialize};
use tokio::{sync::Notify, task::JoinSet};

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// How many hand jobs in one by one at once.
const CALLERS: usize = 8;
/// How many jobs go in at once in bulk.
const BULK: usize = 1000;
/// How many jobs an idle worker is given, and how far apart.
const IDLE: usize = 200;
const APART: Duration = Duration::from_millis(20);
/// How often it is looked whether the last jobs are gone.
const LOOK: Duration = Duration::from_millis(10);

static RAN: AtomicUsize = AtomicUsize::new(0);
static BEGUN: Mutex<Option<Instant>> = Mutex::new(None);
static CAME: Notify = Notify::const_new();

#[derive(Clone, Serialize, Deserialize)]
struct Nothing {}

impl TaskHandler for Nothing {
    const IDENTIFIER: &'static str = "nothing";

    async fn run(self, _: WorkerContext) -> impl IntoTaskHandlerResult {
        *BEGUN.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        RAN.fetch_add(1, Ordering::Relaxed);
        CAME.notify_one();
        Ok::<(), String>(())
    }
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        [url, "fill", jobs] => fill(&worker(url, "1", "0", "0").await?, jobs.parse()?).await?,
        [url, "run", jobs, concurrency, ahead, batch, seconds] => {
            let worker = worker(url, concurrency, ahead, batch).await?;
            let limit = Duration::from_secs(seconds.parse()?);
            if let Ok(failed) = tokio::time::timeout(limit, run(worker, jobs.parse()?)).await {
                failed?;
            }
            println!("{}", RAN.load(Ordering::Relaxed));
        }
        [url, "idle", concurrency, ahead, batch] => idle(worker(url, concurrency, ahead, batch).await?).await?,
        _ => return Err("usage: graphile URL fill|run|idle ...".into()),
    }
    std::process::exit(0)
}

async fn worker(url: &str, concurrency: &str, ahead: &str, batch: &str) -> Result<Worker, Failure> {
    let (ahead, batch) = (ahead.parse()?, batch.parse()?);
    let mut options = WorkerOptions::default()
        .database_url(url)
        .max_pg_conn(8)
        .concurrency(concurrency.parse()?)
        .define_job::<Nothing>();
    if ahead > 0 {
        options = options.local_queue(LocalQueueConfig::default().with_size(ahead));
    }
    if batch > 0 {
        options = options.complete_job_batch_delay(Duration::from_millis(batch));
    }
    Ok(options.init().await?)
}

async fn fill(worker: &Worker, jobs: usize) -> Result<(), Failure> {
    let utils = worker.create_utils();
    let started = Instant::now();
    let mut callers = JoinSet::new();
    for _ in 0..CALLERS {
        let utils = utils.clone();
        callers.spawn(async move {
            for _ in 0..jobs / 4 / CALLERS {
                utils.add_job(Nothing {}, JobSpec::default()).await?;
            }
            Ok::<_, Failure>(())
        });
    }
    while let Some(ended) = callers.join_next().await {
        ended??;
    }
    let singly = jobs / 4 / CALLERS * CALLERS;
    println!("{:.0}", singly as f64 / started.elapsed().as_secs_f64());

    let (started, spec) = (Instant::now(), JobSpec::default());
    let mut left = jobs - singly;
    while left > 0 {
        let some = vec![(Nothing {}, &spec); left.min(BULK)];
        utils.add_jobs(&some).await?;
        left -= some.len();
    }
    println!("{:.0}", (jobs - singly) as f64 / started.elapsed().as_secs_f64());
    Ok(())
}

async fn run(worker: Worker, jobs: usize) -> Result<(), Failure> {
    let pool = worker.pg_pool().clone();
    tokio::spawn(async move { worker.run().await.map_err(|error| eprintln!("{error}")) });
    while RAN.load(Ordering::Relaxed) < jobs {
        CAME.notified().await;
    }
    // What it ran, it deletes.
    while sqlx::query("SELECT 1 FROM graphile_worker.jobs LIMIT 1").fetch_optional(&pool).await?.is_some() {
        tokio::time::sleep(LOOK).await;
    }
    Ok(())
}

async fn idle(worker: Worker) -> Result<(), Failure> {
    let utils = worker.create_utils();
    tokio::spawn(async move { worker.run().await.map_err(|error| eprintln!("{error}")) });
    let mut waits = Vec::new();
    for _ in 0..IDLE {
        tokio::time::sleep(APART).await;
        let (before, started) = (RAN.load(Ordering::Relaxed), Instant::now());
        utils.add_job(Nothing {}, JobSpec::default()).await?;
        while RAN.load(Ordering::Relaxed) == before {
            CAME.notified().await;
        }
        let begun = BEGUN.lock().unwrap_or_else(PoisonError::into_inner).ok_or("it has not begun")?;
        waits.push(begun.saturating_duration_since(started).as_micros());
    }
    waits.sort_unstable();
    println!("{}\n{}", waits[IDLE / 2], waits[IDLE - 1 - IDLE / 100]);
    Ok(())
}
