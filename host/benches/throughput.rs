//! Requests a second of `runfunction` beside a plain actix handler that echoes the same JSON, which is the
//! ceiling of what any function host on this web server could reach, and beside the peers that are on this
//! machine: `wasmtime serve` and node. One machine, one run: the server on one core, wrk on another; the
//! ratio is what counts.
//!
//! `make bench` runs it; it needs `wrk` and `taskset`, and the example `echo` built. `wasmtime` is measured
//! where it is in the path (`cargo install wasmtime-cli`), and so is `node`.

#![expect(clippy::print_stdout, reason = "its output is what it is for")]

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use actix_web::{App, HttpResponse, HttpServer, web};

mod common;

use common::{Failure, Served, echo_component, push};

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
    if std::env::args().any(|argument| argument == "--plain-echo") {
        return plain_echo();
    }
    let folder = tempfile::tempdir()?;
    let script = folder.path().join("post.lua");
    fs::write(
        &script,
        format!("wrk.method = 'POST'\nwrk.headers['Content-Type'] = 'application/json'\nwrk.body = '{PAYLOAD}'\n"),
    )?;
    let plain = Served::start(pinned(&std::env::current_exe()?.display().to_string()).arg("--plain-echo"))?;
    let host = Served::sharpfaas(&CORE, folder.path())?;
    push(&host, "echo", &echo_component()?)?;
    let run = "/api/function/runfunction?functionName=echo&lane=bench";
    let mut subjects = vec![
        Subject { name: "plain actix-web echo, no isolation: the ceiling", server: plain, path: "/", best: None },
        Subject { name: "`runfunction`, a fresh instance each, history on", server: host, path: run, best: None },
    ];
    subjects.extend(peers()?);
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
fn peers() -> Result<Vec<Subject>, Failure> {
    let mut peers = Vec::new();
    let component = std::env::var_os("SHARPFAAS_HTTP_ECHO").map(PathBuf::from).filter(|path| path.exists());
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
                command.args(["serve", "-S", "cli", "--addr", "127.0.0.1:0"]).args(flags).arg(&component);
                peers.push(Subject { name, server: Served::start(&mut command)?, path: "/", best: None });
            }
        }
        _ => eprintln!("`wasmtime serve` is not measured: it is not in the path, or its component is not built"),
    }
    if is_there("node") {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/peers/echo.mjs");
        let name = "node echo, no isolation, nothing printed";
        peers.push(Subject { name, server: Served::start(pinned("node").arg(script))?, path: "/", best: None });
    } else {
        eprintln!("node is not measured: it is not in the path");
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

/// Parses the JSON and writes it again, on one worker.
fn plain_echo() -> Result<(), Failure> {
    actix_web::rt::System::new().block_on(async {
        let server = HttpServer::new(|| {
            App::new().route(
                "/",
                web::post().to(|body: web::Json<serde_json::Value>| async move { HttpResponse::Ok().json(body.0) }),
            )
        })
        .workers(1)
        .bind("127.0.0.1:0")?;
        for address in server.addrs() {
            eprintln!("listening on http://{address}");
        }
        Ok(server.run().await?)
    })
}

/// A server that is measured.
struct Subject {
    name: &'static str,
    server: Served,
    path: &'static str,
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
    fn measure(&mut self, script: &Path) -> Result<(), Failure> {
        let url = format!("http://{}{}", self.server.address, self.path);
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
