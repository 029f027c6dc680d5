//! Requests a second of `runfunction`, beside a plain actix handler that echoes the same JSON: the ceiling
//! of what any function host on this web server could reach. One machine, one run: the server on one core,
//! wrk on another; the ratio is what counts.
//!
//! `make bench` runs it; it needs `wrk` and `taskset`, and the example `echo` built.

#![expect(clippy::print_stdout, reason = "its output is what it is for")]

use std::{io::Write, path::Path, process::Command, time::Instant};

use actix_web::{App, HttpResponse, HttpServer, web};

mod common;

use common::{Failure, Served, echo_component, push};

/// What is sent: the payload of each call, and the whole body of the plain echo.
const PAYLOAD: &str =
    r#"{"name":"Ada","items":[{"sku":"a-1","count":2},{"sku":"b-2","count":1}],"note":"please ring twice"}"#;
/// How long each server is loaded.
const SECONDS: u32 = 10;
/// How often: the best of these is kept, since whatever else the machine does only makes it worse.
const ROUNDS: u32 = 3;

fn main() -> Result<(), Failure> {
    if std::env::args().any(|argument| argument == "--plain-echo") {
        return plain_echo();
    }
    let folder = tempfile::tempdir()?;
    let script = folder.path().join("post.lua");
    std::fs::write(
        &script,
        format!("wrk.method = 'POST'\nwrk.headers['Content-Type'] = 'application/json'\nwrk.body = '{PAYLOAD}'\n"),
    )?;
    let plain =
        Served::start(Command::new("taskset").args(["-c", "0"]).arg(std::env::current_exe()?).arg("--plain-echo"))?;
    let host = Served::sharpfaas(&["taskset", "-c", "0"], folder.path())?;
    push(&host, "echo", &echo_component()?)?;
    let run = format!("http://{}/api/function/runfunction?functionName=echo&lane=bench", host.address);
    let echo = format!("http://{}/", plain.address);

    let mut best: Vec<(&str, Load)> = Vec::new();
    for _ in 0..ROUNDS {
        for (name, url) in [("plain actix-web echo, no isolation", &echo), ("runfunction, a fresh instance each", &run)]
        {
            let load = load(url, &script)?;
            match best.iter_mut().find(|(known, _)| *known == name) {
                Some((_, known)) if known.rate >= load.rate => {}
                Some((_, known)) => *known = load,
                None => best.push((name, load)),
            }
        }
    }
    let ceiling = best.first().map_or(f64::NAN, |(_, load)| load.rate);
    println!(
        "\n| server on one core, wrk -t1 -c32 on another, best of {ROUNDS} | requests/s | of the ceiling | p50 | p99 |"
    );
    println!("|---|---|---|---|---|");
    for (name, load) in &best {
        println!("| {name} | {:.0} | {:.2} | {} | {} |", load.rate, load.rate / ceiling, load.p50, load.p99);
    }
    Ok(())
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

/// What wrk measured.
struct Load {
    rate: f64,
    p50: String,
    p99: String,
}

fn load(url: &str, script: &Path) -> Result<Load, Failure> {
    let started = Instant::now();
    let output = Command::new("taskset")
        .args(["-c", "1", "wrk", "-t1", "-c32", "--latency", "-s"])
        .arg(script)
        .arg(format!("-d{SECONDS}s"))
        .arg(url)
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if text.contains("Non-2xx") || !output.status.success() {
        return Err(format!("wrk of {url} after {:?}:\n{text}", started.elapsed()).into());
    }
    let field = |name: &str| {
        text.lines()
            .find_map(|line| line.trim().strip_prefix(name))
            .map(|rest| rest.trim().to_owned())
            .ok_or(name.to_owned())
    };
    std::io::stderr().write_all(format!("{url}: {} requests/s\n", field("Requests/sec:")?).as_bytes())?;
    Ok(Load { rate: field("Requests/sec:")?.parse()?, p50: field("50%")?, p99: field("99%")? })
}
