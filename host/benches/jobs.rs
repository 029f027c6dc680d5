//! Jobs: how many a second are handed in and run, and how soon one begins, on SQLite and on PostgreSQL, on one server
//! and on three; beside graphile_worker with an empty task on the same PostgreSQL. One machine, one run, everything
//! on the same cores: what counts is how the figures stand to each other. What lies ready is counted, ours and the
//! peer's, from the start of the process to the end of the last job, written.
//!
//! `make bench-jobs` runs it; it starts a PostgreSQL of its own, which must be installed or installable.

#![allow(clippy::indexing_slicing, reason = "a measurement that goes wrong ends")]
#![expect(clippy::print_stdout, reason = "its output is what it is for")]

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use tokio::task::JoinSet;

mod common;

use common::{Failure, Served, push};

/// How many jobs are handed in while they are run, a quarter one by one and all of it again in bulk.
const JOBS: usize = 4000;
/// How many jobs lie ready when those who run them are started; graphile_worker's, too.
const READY: usize = 12_000;
/// How many callers hand them in one by one.
const CALLERS: usize = 8;
const BULK: usize = 1000;
/// How many jobs measure how soon one begins, and how far apart they are when nothing else is done.
const WAITS: usize = 200;
const APART: Duration = Duration::from_millis(20);
/// How many jobs measure how soon one begins at half load.
const HALF: usize = 1000;
/// How long jobs may take at all.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long the peer may take for what lies ready; where it takes longer, what it ran until then is its figure.
const PEERS_PATIENCE: Duration = Duration::from_secs(20);
/// How many jobs run at once on a server; graphile_worker's, too.
const WORKERS: usize = 32;

fn main() -> Result<(), Failure> {
    // Nothing here speaks TLS, but the client wants to be able to.
    drop(rustls::crypto::ring::default_provider().install_default());
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?.block_on(measure())
}

async fn measure() -> Result<(), Failure> {
    let folder = tempfile::tempdir()?;
    let postgres = Postgres::start(folder.path())?;
    println!(
        "\n| | run/s of those that lie ready | handed in one by one/s | in bulk/s | one by one and run/s | in bulk and run/s | a job alone begins after p50 | p99 | at half load p50 | p99 |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|");
    for servers in [1, 3] {
        let url = postgres.database(&format!("ours_{servers}"))?;
        let database = format!("[database]\nurl = \"{url}\"\npassword_env = \"SHARPFAAS_TEST_POSTGRES_PASSWORD\"\n");
        let name = if servers == 1 { "PostgreSQL, one server" } else { "PostgreSQL, three servers" };
        ours(name, &database, servers, &postgres, folder.path()).await?;
    }
    ours("SQLite, one server", "", 1, &postgres, folder.path()).await?;
    if let Some(peer) = std::env::var_os("SHARPFAAS_GRAPHILE").map(PathBuf::from).filter(|path| path.exists()) {
        for (name, ahead, batch) in [
            ("graphile_worker as it comes, empty task", 0, 0),
            ("graphile_worker, fetching 500 ahead", 500, 0),
            ("graphile_worker, fetching 500 ahead, completing what is done in 5 ms at once", 500, 5),
        ] {
            graphile(name, &peer, &postgres, [ahead, batch])?;
        }
    } else {
        eprintln!("graphile_worker is not measured: SHARPFAAS_GRAPHILE does not name its program");
    }
    Ok(())
}

/// Measures the peer with as many jobs fetched ahead, and completed after as many milliseconds.
fn graphile(name: &str, peer: &Path, postgres: &Postgres, settings: [u32; 2]) -> Result<(), Failure> {
    let [ahead, batch] = settings.map(|setting| setting.to_string());
    let url = postgres.with_password(&postgres.database(&format!("graphile_{ahead}_{batch}"))?)?;
    let idle_url = postgres.with_password(&postgres.database(&format!("graphile_{ahead}_{batch}_idle"))?)?;
    let workers = WORKERS.to_string();
    let told = |url: &str, arguments: &[&str]| -> Result<Vec<f64>, Failure> {
        let output = Command::new(peer).arg(url).args(arguments).output()?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into());
        }
        String::from_utf8(output.stdout)?.lines().map(|line| Ok(line.parse()?)).collect()
    };
    let [singly, bulk] = told(&url, &["fill", &READY.to_string()])?[..] else { return Err("not filled".into()) };
    let started = Instant::now();
    let seconds = PEERS_PATIENCE.as_secs().to_string();
    let [ran] = told(&url, &["run", &READY.to_string(), &workers, &ahead, &batch, &seconds])?[..] else {
        return Err("nothing ran".into());
    };
    let run = ran / started.elapsed().as_secs_f64();
    let [p50, p99] = told(&idle_url, &["idle", &workers, &ahead, &batch])?[..] else { return Err("not idle".into()) };
    println!("| {name} | {run:.0} | {singly:.0} | {bulk:.0} | | | {:.1} ms | {:.1} ms | | |", p50 / 1e3, p99 / 1e3);
    Ok(())
}

/// Measures our servers, all on one database and one store.
async fn ours(name: &str, database: &str, count: usize, postgres: &Postgres, folder: &Path) -> Result<(), Failure> {
    let home = tempfile::tempdir_in(folder)?;
    let store = home.path().join("store");
    std::fs::create_dir(&store)?;
    let start = |number: usize, run: bool| {
        let folder = home.path().join(number.to_string());
        std::fs::create_dir_all(&folder)?;
        let config = format!(
            "[store]\nurl = \"file:{}\"\n{database}[jobs]\nworkers = {WORKERS}\nrun = {run}\n",
            store.display()
        );
        std::fs::write(folder.join("config.toml"), config)?;
        let mut command = Command::new(common::program());
        command.args(["serve", "--listen", "127.0.0.1:0", "--config", "config.toml", "--data", "data"]);
        command.env("SHARPFAAS_TEST_POSTGRES_PASSWORD", &postgres.password).current_dir(&folder);
        Served::start(&mut command)
    };
    let servers = (0..count).map(|number| start(number, true)).collect::<Result<Vec<_>, _>>()?;
    let first = servers.first().ok_or("no server")?;
    push(first, "hello", &hello()?)?;
    let client = Client { http: reqwest::Client::new(), address: first.address.clone() };
    // Every server has the function ready before anything is measured.
    client.send("POST", "jobs", bulk(100)).await?;
    client.drained().await?;

    let mut waits = Vec::new();
    for _ in 0..WAITS {
        tokio::time::sleep(APART).await;
        waits.push(client.enqueue().await?);
    }
    client.drained().await?;
    let [idle50, idle99] = client.starts(&waits).await?;

    let started = Instant::now();
    let mut callers = JoinSet::new();
    for _ in 0..CALLERS {
        let client = client.clone();
        callers.spawn(async move {
            for _ in 0..JOBS / 4 / CALLERS {
                client.enqueue().await?;
            }
            Ok::<_, Failure>(())
        });
    }
    while let Some(ended) = callers.join_next().await {
        ended??;
    }
    let singly = (JOBS / 4) as f64 / started.elapsed().as_secs_f64();
    client.drained().await?;
    let singly_run = (JOBS / 4) as f64 / started.elapsed().as_secs_f64();

    let bulk_started = Instant::now();
    let mut handed = Duration::ZERO;
    for _ in 0..JOBS.div_ceil(BULK) {
        let started = Instant::now();
        client.send("POST", "jobs", bulk(BULK)).await?;
        handed += started.elapsed();
    }
    client.drained().await?;
    let (bulk_rate, run) = (JOBS as f64 / handed.as_secs_f64(), JOBS as f64 / bulk_started.elapsed().as_secs_f64());

    // Half of what was handed in one by one and run, evenly.
    let (apart, mut waits, started) = (Duration::from_secs_f64(2.0 / singly_run), JoinSet::new(), Instant::now());
    for number in 0..HALF as u32 {
        tokio::time::sleep_until((started + apart * number).into()).await;
        let client = client.clone();
        waits.spawn(async move { client.enqueue().await });
    }
    let mut half = Vec::new();
    while let Some(id) = waits.join_next().await {
        half.push(id??);
    }
    client.drained().await?;
    let [half50, half99] = client.starts(&half).await?;

    // As the peer's: all lie ready, and then those who run them are started.
    drop(servers);
    let taking = start(0, false)?;
    let client = Client { http: reqwest::Client::new(), address: taking.address.clone() };
    for _ in 0..READY / BULK {
        client.send("POST", "jobs", bulk(BULK)).await?;
    }
    drop(taking);
    let started = Instant::now();
    let servers = std::thread::scope(|scope| {
        let start = &start;
        let starting: Vec<_> = (0..count).map(|number| scope.spawn(move || start(number, true))).collect();
        starting.into_iter().map(|it| it.join().map_err(|_| "no server")?).collect::<Result<Vec<_>, Failure>>()
    })?;
    let clients: Vec<_> =
        servers.iter().map(|server| Client { http: reqwest::Client::new(), address: server.address.clone() }).collect();
    while started.elapsed() < PATIENCE {
        let mut ended = 0;
        for client in &clients {
            ended += client.succeeded().await?;
        }
        if ended >= READY {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    clients.first().ok_or("no server")?.drained().await?;
    let ready = READY as f64 / started.elapsed().as_secs_f64();
    println!(
        "| {name} | {ready:.0} | {singly:.0} | {bulk_rate:.0} | {singly_run:.0} | {run:.0} | {idle50:.1} ms | {idle99:.1} ms | {half50:.1} ms | {half99:.1} ms |"
    );
    Ok(())
}

fn job() -> Value {
    json!({ "functionName": "hello", "lane": "bench", "payload": { "name": "Ada" } })
}

fn bulk(count: usize) -> Value {
    json!({ "jobs": vec![job(); count] })
}

fn hello() -> Result<PathBuf, Failure> {
    let echo = common::echo_component()?;
    Ok(echo.with_file_name("hello.wasm"))
}

#[derive(Clone)]
struct Client {
    http: reqwest::Client,
    address: String,
}

impl Client {
    async fn send(&self, method: &str, path: &str, body: Value) -> Result<Value, Failure> {
        let mut request = self.http.request(method.parse()?, format!("http://{}/api/{path}", self.address));
        if !body.is_null() {
            request = request.json(&body);
        }
        let answer = request.send().await?;
        let status = answer.status();
        let body: Value = answer.json().await?;
        if status.is_success() { Ok(body) } else { Err(body.to_string().into()) }
    }

    /// Hands a job in; its id.
    async fn enqueue(&self) -> Result<String, Failure> {
        let made = self.send("POST", "jobs", job()).await?;
        Ok(made["jobId"].as_str().ok_or("no id")?.to_owned())
    }

    /// Waits until no job is open.
    async fn drained(&self) -> Result<(), Failure> {
        let started = Instant::now();
        while started.elapsed() < PATIENCE {
            let queues = self.send("GET", "queues", Value::Null).await?;
            let open = queues["queues"].as_array().into_iter().flatten().flat_map(|queue| {
                ["enqueued", "processing", "scheduled", "awaiting"]
                    .map(|state| queue["jobs"][state].as_u64().unwrap_or(0))
            });
            if open.sum::<u64>() == 0 {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Err("jobs are still open".into())
    }

    /// How many calls this server has seen succeed. Unlike [`drained`](Self::drained), this costs the database nothing.
    async fn succeeded(&self) -> Result<usize, Failure> {
        let text = self.http.get(format!("http://{}/metrics", self.address)).send().await?.text().await?;
        let count =
            text.lines().find_map(|line| line.strip_prefix("sharpfaas_invocations_total{status=\"succeeded\"} "));
        Ok(count.unwrap_or("0").parse()?)
    }

    /// From being handed in to the start of the attempt, in milliseconds: p50 and p99.
    async fn starts(&self, ids: &[String]) -> Result<[f64; 2], Failure> {
        let mut waits = Vec::new();
        for id in ids {
            let job = self.send("GET", &format!("jobs/{id}"), Value::Null).await?;
            let at = |state: &str| -> Result<DateTime<Utc>, Failure> {
                let steps = job["history"].as_array().ok_or("no history")?;
                let step = steps.iter().find(|step| step["state"] == state).ok_or("not in its history")?;
                Ok(step["at"].as_str().ok_or("no time")?.parse()?)
            };
            let wait = at("processing")? - at("enqueued")?;
            waits.push(wait.num_microseconds().unwrap_or(i64::MAX) as f64 / 1e3);
        }
        waits.sort_unstable_by(f64::total_cmp);
        let of = |percent: usize| waits.get((waits.len() * percent / 100).min(waits.len() - 1)).copied();
        Ok([of(50).ok_or("no jobs")?, of(99).ok_or("no jobs")?])
    }
}

/// A server of our own, gone with this.
struct Postgres {
    folder: PathBuf,
    url: String,
    password: String,
}

impl Postgres {
    fn start(folder: &Path) -> Result<Arc<Self>, Failure> {
        let folder = folder.join("postgres");
        std::fs::create_dir(&folder)?;
        // It does not run as root, and must reach its files.
        for folder in folder.ancestors().take(2) {
            let mut permissions = std::fs::metadata(folder)?.permissions();
            std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o755);
            std::fs::set_permissions(folder, permissions)?;
        }
        let told = script("start", &folder)?;
        let value = |name: &str| {
            let line = told.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
            line.map(str::to_owned).ok_or_else(|| Failure::from(format!("no {name} in {told}")))
        };
        let (url, password) = (value("SHARPFAAS_TEST_POSTGRES")?, value("SHARPFAAS_TEST_POSTGRES_PASSWORD")?);
        Ok(Arc::new(Self { folder, url, password }))
    }

    /// A new database; its URL, without the password.
    fn database(&self, name: &str) -> Result<String, Failure> {
        let made = Command::new("psql")
            .args(["--no-psqlrc", "--quiet", "--dbname", &self.url, "--command", &format!("CREATE DATABASE {name}")])
            .env("PGPASSWORD", &self.password)
            .output()?;
        if !made.status.success() {
            return Err(String::from_utf8_lossy(&made.stderr).into());
        }
        let mut url = url::Url::parse(&self.url)?;
        url.set_path(name);
        Ok(url.into())
    }

    fn with_password(&self, url: &str) -> Result<String, Failure> {
        let mut url = url::Url::parse(url)?;
        url.set_password(Some(&self.password)).map_err(|()| "no place for a password")?;
        Ok(url.into())
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        drop(script("delete", &self.folder));
    }
}

fn script(command: &str, folder: &Path) -> Result<String, Failure> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/services/postgres.sh");
    let output = Command::new(script).arg(command).arg(folder).output()?;
    if output.status.success() {
        Ok(String::from_utf8(output.stdout)?)
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into())
    }
}
