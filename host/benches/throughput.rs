//! Requests a second of `runfunction` beside a plain actix handler that echoes the same JSON, which is the
//! ceiling of what any function host on this web server could reach, and beside the peers that are on this
//! machine: `wasmtime serve` and node. One machine, one run: the server on one core, wrk on another; the
//! ratio is what counts.
//!
//! `make bench` runs it; it needs `wrk` and `taskset`, the example `echo` and the ceiling built. `wasmtime` is measured
//! where it is in the path (`cargo install wasmtime-cli`), and so are `node` and `workerd` (from npm).

#![expect(clippy::print_stdout, reason = "its output is what it is for")]

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    rc::Rc,
    time::{Duration, Instant},
};

mod common;

use common::{Failure, Served, echo_component, push, token};

/// What is sent: the payload of each call, and the whole body of the plain echo.
const PAYLOAD: &str =
    r#"{"name":"Ada","items":[{"sku":"a-1","count":2},{"sku":"b-2","count":1}],"note":"please ring twice"}"#;
/// How long each server is loaded.
const SECONDS: u32 = 5;
/// How often: the best of these is kept, since whatever else the machine does only makes it worse.
const ROUNDS: u32 = 4;
/// Where servers run.
const CORE: [&str; 3] = ["taskset", "-c", "0"];

fn main() -> Result<(), Failure> {
    let folder = tempfile::tempdir()?;
    let plain = std::env::var("SHARPFAAS_PLAIN_ECHO").map_err(|_| "SHARPFAAS_PLAIN_ECHO names no server")?;
    let plain = Served::start(&mut pinned(&plain))?;
    let mut subjects = vec![Subject::new("plain actix-web echo, no isolation: the ceiling", plain, "/")];
    let host = Served::sharpfaas(&CORE, folder.path())?;
    push(&host, "echo", &echo_component()?)?;
    let module = std::env::var_os("SHARPFAAS_ECHO_MODULE").map(PathBuf::from).filter(|path| path.exists());
    if let Some(module) = &module {
        push(&host, "echo-module", module)?;
    }
    let http_echo = std::env::var_os("SHARPFAAS_HTTP_ECHO").map(PathBuf::from).filter(|path| path.exists());
    if let Some(component) = &http_echo {
        push(&host, "http-echo", component)?;
    }
    let (token, host) = (token(&host)?, Rc::new(host));
    let of_ours = |name, path| Subject { token: Some(token.clone()), ..Subject::new(name, host.clone(), path) };
    subjects.push(of_ours(
        "`runfunction`, a fresh instance each; history, limits, output, tokens",
        "/api/function/runfunction?functionName=echo&lane=bench",
    ));
    if module.is_some() {
        subjects.push(of_ours(
            "the same function built without WASI, as above",
            "/api/function/runfunction?functionName=echo-module&lane=bench",
        ));
    }
    if http_echo.is_some() {
        subjects.push(of_ours("the component of `wasmtime serve` at its route, as above", "/fn/bench/http-echo"));
    }
    subjects.extend(peers(http_echo.as_deref())?);
    let script = folder.path().join("post.lua");
    for _ in 0..ROUNDS {
        for subject in &mut subjects {
            subject.measure(&script)?;
        }
    }
    let ceiling = subjects.iter().find_map(|subject| subject.best.as_ref()).map_or(f64::NAN, |load| load.rate);
    println!(
        "\n| server on one core, wrk -t1 -c32 on another, best of {ROUNDS} | requests/s | of the ceiling | CPU a request | p50 | p99 |\n|---|---|---|---|---|---|"
    );
    for Subject { name, best, .. } in &subjects {
        let Some(Load { rate, cpu, p50, p99 }) = best else { continue };
        println!("| {name} | {rate:.0} | {:.2} | {:.0} µs | {p50} | {p99} |", rate / ceiling, cpu.as_secs_f64() * 1e6);
    }
    Ok(())
}

/// The peers that are on this machine.
fn peers(component: Option<&Path>) -> Result<Vec<Subject>, Failure> {
    let mut peers = Vec::new();
    match component {
        Some(component) if is_there("wasmtime") => {
            let best = "pooling-allocator=y,pooling-memory-keep-resident=262144,pooling-table-keep-resident=65536,\
                        memory-init-cow=y,pooling-pagemap-scan=y";
            for (name, flags) in [
                ("`wasmtime serve`, a fresh instance each", vec!["--max-instance-reuse-count=1"]),
                (
                    "`wasmtime serve`, a fresh instance each, best flags",
                    vec!["--max-instance-reuse-count=1", "-O", best],
                ),
                ("`wasmtime serve`, one instance for 1,000 calls", vec!["--max-instance-reuse-count=1000", "-O", best]),
            ] {
                let mut command = pinned("wasmtime");
                command.args(["serve", "-S", "cli", "--addr", "127.0.0.1:0"]).args(flags).arg(component);
                peers.push(Subject::new(name, Served::start(&mut command)?, "/"));
            }
        }
        _ => eprintln!("`wasmtime serve` is not measured: it is not in the path, or its component is not built"),
    }
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/peers");
    if is_there("node") {
        let server = Served::start(pinned("node").arg(scripts.join("echo.mjs")))?;
        peers.push(Subject::new("node echo, no isolation, nothing printed", server, "/"));
    } else {
        eprintln!("node is not measured: it is not in the path");
    }
    if is_there("workerd") {
        let config = scripts.join("workerd/echo.capnp");
        let server = Served::start(pinned("workerd").args(["serve", "--control-fd=2"]).arg(config))?;
        peers.push(Subject::new("workerd echo, the isolate used again, nothing printed", server, "/"));
    } else {
        eprintln!("workerd is not measured: it is not in the path");
    }
    Ok(peers)
}

fn is_there(program: &str) -> bool {
    let asked = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    asked.is_ok_and(|status| status.success())
}

/// The program on the servers' core.
fn pinned(program: &str) -> Command {
    let [taskset, arguments @ ..] = CORE;
    let mut command = Command::new(taskset);
    command.args(arguments).arg(program);
    command
}

/// A server that is measured.
struct Subject {
    name: &'static str,
    server: Rc<Served>,
    path: &'static str,
    token: Option<String>,
    best: Option<Load>,
}

/// What wrk measured.
struct Load {
    rate: f64,
    /// What the server's process took of its core for each request.
    cpu: Duration,
    p50: String,
    p99: String,
}

impl Subject {
    fn new(name: &'static str, server: impl Into<Rc<Served>>, path: &'static str) -> Self {
        Self { name, server: server.into(), path, token: None, best: None }
    }

    fn measure(&mut self, script: &Path) -> Result<(), Failure> {
        let url = format!("http://{}{}", self.server.address, self.path);
        let token = self.token.iter().map(|token| format!("wrk.headers['Authorization'] = 'Bearer {token}'\n"));
        let json = "wrk.headers['Content-Type'] = 'application/json'\n";
        fs::write(script, format!("wrk.method = 'POST'\n{json}{}wrk.body = '{PAYLOAD}'\n", token.collect::<String>()))?;
        let (started, before) = (Instant::now(), self.server.cpu()?);
        let output = Command::new("taskset")
            .args(["-c", "1", "wrk", "-t1", "-c32", "--latency", "-s"])
            .arg(script)
            .arg(format!("-d{SECONDS}s"))
            .arg(&url)
            .output()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if text.contains("Non-2xx") || !output.status.success() {
            return Err(format!("wrk of {url} after {:?}:\n{text}", started.elapsed()).into());
        }
        let field = |name: &str| {
            let line = text.lines().find_map(|line| line.trim().strip_prefix(name));
            line.map(|rest| rest.trim().to_owned()).ok_or(name.to_owned())
        };
        let rate: f64 = field("Requests/sec:")?.parse()?;
        std::io::stderr().write_all(format!("{}: {rate:.0} requests/s\n", self.name).as_bytes())?;
        if self.best.as_ref().is_none_or(|best| best.rate < rate) {
            let cpu = (self.server.cpu()? - before).div_f64(rate * started.elapsed().as_secs_f64());
            self.best = Some(Load { rate, cpu, p50: field("50%")?, p99: field("99%")? });
        }
        Ok(())
    }
}
