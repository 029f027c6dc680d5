//! The real server: our binary as a process, in a folder of its own, on a port of its own.

use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, OnceLock},
    time::{Duration, Instant},
};

use reqwest::{
    Client, StatusCode,
    header::{AUTHORIZATION, HeaderMap},
    multipart,
};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::fixtures;

/// How long anything may take that should take a moment; only reached when something is wrong.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The client of all tests.
pub fn client() -> Client {
    client_of(HeaderMap::new())
}

/// One with a token.
pub fn client_with(token: &str) -> Client {
    client_of([(AUTHORIZATION, format!("Bearer {token}").parse().expect("a header"))].into_iter().collect())
}

fn client_of(headers: HeaderMap) -> Client {
    static PROVIDER: OnceLock<()> = OnceLock::new();
    PROVIDER.get_or_init(|| {
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
    Client::builder().timeout(PATIENCE).default_headers(headers).build().expect("a client")
}

/// A server process; killed when dropped.
pub struct Server {
    process: Child,
    pub url: String,
    pub folder: Arc<TempDir>,
    config: String,
    environment: Vec<(String, String)>,
    pub client: Client,
    pub log: Arc<Mutex<String>>,
}

impl Server {
    /// One with the defaults, but for these lines of configuration. `DATA` in them stands for its folder.
    pub fn start(config: &str) -> Self {
        Self::start_in(Arc::new(tempfile::tempdir().expect("a folder")), config, &[])
    }

    /// One in a folder that other servers may know, with these variables in its environment.
    pub fn start_in(folder: Arc<TempDir>, config: &str, environment: &[(&str, &str)]) -> Self {
        let environment: Vec<_> = environment.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let (process, url, log) = launch(folder.path(), config, &environment).unwrap_or_else(|log| panic!("{log}"));
        Self { process, url, folder, config: config.into(), environment, client: client(), log }
    }

    /// What a server says that refuses to start.
    pub fn refusal(config: &str) -> String {
        Self::refusal_at(LISTEN, config)
    }

    /// What it says that is to listen there.
    pub fn refusal_at(listen: &str, config: &str) -> String {
        let folder = tempfile::tempdir().expect("a folder");
        match launch_at(listen, folder.path(), config, &[]) {
            Ok((mut process, ..)) => {
                let _ = process.kill();
                let _ = process.wait();
                panic!("it started");
            }
            Err(log) => log,
        }
    }

    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    pub fn path(&self, below: &str) -> PathBuf {
        self.folder.path().join(below)
    }

    /// kill -9.
    pub fn kill(&mut self) {
        self.process.kill().expect("it can be killed");
        self.process.wait().expect("it ends");
    }

    /// SIGTERM; gives how long it took to end.
    pub fn stop(&mut self) -> Duration {
        let started = Instant::now();
        let pid = rustix::process::Pid::from_child(&self.process);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it can be told");
        let ended = self.process.wait().expect("it ends");
        assert!(ended.success(), "{ended}: {}", self.log.lock().expect("the log"));
        started.elapsed()
    }

    /// Starts it again, with the same folder and configuration.
    pub fn restart(&mut self) {
        let (process, url, log) =
            launch(self.folder.path(), &self.config, &self.environment).unwrap_or_else(|log| panic!("{log}"));
        (self.process, self.url, self.log) = (process, url, log);
    }

    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }

    /// Pushes a zip; the status and the body.
    pub async fn push_zip(&self, query: &str, zip: Vec<u8>) -> (StatusCode, Value) {
        let form = multipart::Form::new().part("file", multipart::Part::bytes(zip).file_name("package.zip"));
        let url = self.url(&format!("/api/function/pushfunction?{query}"));
        let response = self.client.post(url).multipart(form).send().await.expect("an answer");
        (response.status(), response.json().await.expect("JSON"))
    }

    /// Pushes a fixture under its own name into lane dev; its version.
    pub async fn push(&self, fixture: &str) -> String {
        let name = fixture.trim_end_matches(".wasm");
        let kind = if name == fixture { "exe" } else { "dll" };
        let query = format!("functionName={name}&lane=dev&type={kind}");
        let (status, body) = self.push_zip(&query, fixtures::zipped(fixture)).await;
        assert_eq!(status, StatusCode::CREATED, "{body}");
        body["version"].as_str().expect("a version").to_owned()
    }

    /// Runs a function of lane dev; the status and the body.
    pub async fn run(&self, name: &str, payload: Value) -> (StatusCode, Value) {
        self.run_with(json!({ "functionName": name, "lane": "dev", "payload": payload })).await
    }

    pub async fn run_with(&self, fields: Value) -> (StatusCode, Value) {
        let response = self.client.post(self.url("/api/function/runfunction")).json(&fields).send();
        let response = response.await.expect("an answer");
        (response.status(), response.json().await.expect("JSON"))
    }

    /// Starts a call and gives its id.
    pub async fn start_call(&self, name: &str, payload: Value) -> String {
        let response = self
            .client
            .post(self.url("/api/function/runfunction"))
            .header("Prefer", "respond-async")
            .json(&json!({ "functionName": name, "lane": "dev", "payload": payload }))
            .send()
            .await
            .expect("an answer");
        assert_eq!(response.status(), StatusCode::ACCEPTED);
        let location = response.headers()["location"].to_str().expect("text").to_owned();
        let body: Value = response.json().await.expect("JSON");
        let id = body["invocationId"].as_str().expect("an id").to_owned();
        assert_eq!(location, format!("/api/invocations/{id}"));
        id
    }

    pub async fn get(&self, path: &str) -> (StatusCode, Value) {
        let response = self.client.get(self.url(path)).send().await.expect("an answer");
        (response.status(), response.json().await.expect("JSON"))
    }

    /// The call, once it stands as `wanted` says.
    pub async fn call_when(&self, id: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let started = Instant::now();
        loop {
            let (_, call) = self.get(&format!("/api/invocations/{id}")).await;
            if wanted(&call) {
                return call;
            }
            assert!(started.elapsed() < PATIENCE, "{call}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// The call, once it has ended.
    pub async fn ended(&self, id: &str) -> Value {
        self.call_when(id, |call| !matches!(call["status"].as_str(), Some("queued" | "running"))).await
    }

    /// The newest call of a function that stands so, once there is one.
    pub async fn call_when_of(&self, name: &str, status: &str) -> Value {
        let started = Instant::now();
        loop {
            let (_, page) = self.get(&format!("/api/invocations?function={name}&status={status}&limit=1")).await;
            if let Some(call) = page["invocations"].get(0) {
                return call.clone();
            }
            assert!(started.elapsed() < PATIENCE, "no call of {name} is {status}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// The resident memory of the server, in bytes.
    pub fn resident(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("it runs");
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("it has memory");
        let kib: u64 = line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).expect("a number");
        kib * 1024
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The real services that servers of this run use instead of a folder and SQLite, as
/// `SHARPFAAS_TEST_SERVERS_ON` names them: `FTP_VSFTPD POSTGRES` stands for what the variables
/// `SHARPFAAS_TEST_FTP_VSFTPD` and `SHARPFAAS_TEST_POSTGRES` tell. Each folder has its own part of them.
fn on_services(folder: &Path, config: &str) -> String {
    let own: String =
        folder.file_name().expect("a name").to_string_lossy().chars().filter(char::is_ascii_alphanumeric).collect();
    let mut config = config.to_owned();
    for service in std::env::var("SHARPFAAS_TEST_SERVERS_ON").unwrap_or_default().split_whitespace() {
        let variable = format!("SHARPFAAS_TEST_{service}");
        let url = std::env::var(&variable).unwrap_or_else(|_| panic!("{variable} is not set"));
        let (section, url) = if service == "POSTGRES" {
            ("database", create_database(&url, &own))
        } else {
            ("store", format!("{url}/{own}"))
        };
        if config.contains(&format!("[{section}]")) {
            continue;
        }
        config += &format!("\n[{section}]\nurl = \"{url}\"\npassword_env = \"{variable}_PASSWORD\"\n");
        if let Ok(ca) = std::env::var(format!("{variable}_CA")) {
            config += &format!("ca_file = \"{ca}\"\n");
        }
    }
    config
}

/// Makes the database of that name where it is not there yet; its URL.
pub fn create_database(server: &str, name: &str) -> String {
    let name = format!("spine_{}", name.to_lowercase());
    let mut url = url::Url::parse(server).expect("a URL");
    let made = Command::new("psql")
        .args(["--no-psqlrc", "--quiet", "--dbname", server, "--command", &format!("CREATE DATABASE {name}")])
        .env("PGPASSWORD", std::env::var("SHARPFAAS_TEST_POSTGRES_PASSWORD").unwrap_or_default())
        .output()
        .expect("psql is there");
    let error = String::from_utf8_lossy(&made.stderr);
    assert!(made.status.success() || error.contains("already exists"), "{error}");
    url.set_path(&name);
    url.into()
}

/// A variable for tests: the command line that is to start the server instead of the test.
pub const STARTED_BY: &str = "SHARPFAAS_TEST_STARTED_BY";

/// A variable for tests: where the server is, for one who may not go where it was built.
pub const PROGRAM: &str = "SHARPFAAS_TEST_PROGRAM";

fn command(environment: &[(String, String)]) -> Command {
    let program = environment.iter().find(|(name, _)| name == PROGRAM);
    let server = program.map_or(env!("CARGO_BIN_EXE_sharpfaas"), |(_, path)| path);
    match environment.iter().find(|(name, _)| name == STARTED_BY) {
        None => Command::new(server),
        Some((_, line)) => {
            let mut words = line.split_whitespace();
            let mut command = Command::new(words.next().expect("a command"));
            command.args(words).arg(server);
            command
        }
    }
}

/// Where servers of tests listen.
const LISTEN: &str = "127.0.0.1:0";

type Launched = (Child, String, Arc<Mutex<String>>);

fn launch(folder: &Path, config: &str, environment: &[(String, String)]) -> Result<Launched, String> {
    launch_at(LISTEN, folder, config, environment)
}

fn launch_at(listen: &str, folder: &Path, config: &str, environment: &[(String, String)]) -> Result<Launched, String> {
    let config = &on_services(folder, config);
    let file = folder.join("config.toml");
    std::fs::write(&file, config.replace("DATA", &folder.display().to_string())).expect("the configuration");
    let mut process = command(environment)
        .args(["serve", "--listen", listen, "--data"])
        .arg(folder)
        .arg("--config")
        .arg(&file)
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the server can be started");
    let mut lines = BufReader::new(process.stderr.take().expect("its log")).lines();
    let log = Arc::new(Mutex::new(String::new()));
    while let Some(Ok(line)) = lines.next() {
        let url = line.rsplit_once("listening on ").map(|(_, url)| url.trim().to_owned());
        log.lock().expect("the log").push_str(&(line + "\n"));
        if let Some(url) = url {
            let kept = log.clone();
            std::thread::spawn(move || {
                for line in lines.map_while(Result::ok) {
                    kept.lock().expect("the log").push_str(&(line + "\n"));
                }
            });
            return Ok((process, url, log));
        }
    }
    let _ = process.wait();
    let log = log.lock().expect("the log").clone();
    Err(log)
}
