//! graphile_worker with a task that does nothing: `graphile URL JOBS CONCURRENCY QUEUE`, where QUEUE is how many jobs
//! a worker fetches ahead, or 0 to fetch each by itself, which is its default.
//!
//! Prints, one a line: jobs enqueued one by one a second, in bulk a second, run a second, and the microseconds from
//! an idle worker's job being handed in to its start, p50 and p99.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use graphile_worker::{IntoTaskHandlerResult, JobSpec, LocalQueueConfig, TaskHandler, WorkerContext, WorkerOptions};
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
    let [url, jobs, concurrency, queue] = arguments.as_slice() else {
        return Err("usage: graphile URL JOBS CONCURRENCY QUEUE".into());
    };
    let (jobs, concurrency, queue): (usize, usize, usize) = (jobs.parse()?, concurrency.parse()?, queue.parse()?);
    let mut options =
        WorkerOptions::default().database_url(url).max_pg_conn(8).concurrency(concurrency).define_job::<Nothing>();
    if queue > 0 {
        options = options.local_queue(LocalQueueConfig::default().with_size(queue));
    }
    let worker = options.init().await?;
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
    let some = vec![(Nothing {}, &spec); BULK];
    let bulks = (jobs - singly).div_ceil(BULK);
    for _ in 0..bulks {
        utils.add_jobs(&some).await?;
    }
    println!("{:.0}", (bulks * BULK) as f64 / started.elapsed().as_secs_f64());

    let (all, started) = (singly + bulks * BULK, Instant::now());
    tokio::spawn(async move { worker.run().await.map_err(|error| eprintln!("{error}")) });
    while RAN.load(Ordering::Relaxed) < all {
        CAME.notified().await;
    }
    println!("{:.0}", all as f64 / started.elapsed().as_secs_f64());

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
    std::process::exit(0)
}
