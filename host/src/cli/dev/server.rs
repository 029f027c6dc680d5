//! The server that `sharpfaas dev` runs for itself: this very binary, as a process of its own that ends with this one.

use std::{
    env,
    fs::{self, File},
    path::Path,
    process::Stdio,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
    time::timeout,
};

use crate::cli::{Failure, client::ServerUrl};

/// How long it may take to start.
const START: Duration = Duration::from_secs(60);
/// How long it may take to stop, once nothing is under way.
const STOP: Duration = Duration::from_secs(10);
/// How much of its log is shown when it fails, in lines.
const SHOWN: usize = 10;

/// A server on a port of its own, whose data is gone when it is.
pub struct DevServer {
    child: Child,
    folder: TempDir,
    url: ServerUrl,
}

impl DevServer {
    /// Starts it, with a configuration of the user's or the defaults.
    pub async fn start(config: Option<&Path>, project: &Path) -> Result<Self, Failure> {
        let failed = |error: &dyn std::fmt::Display| Failure::local(format!("no server could be started: {error}"));
        let folder = tempfile::Builder::new().prefix("sharpfaas-dev-").tempdir().map_err(|error| failed(&error))?;
        let log = File::create(folder.path().join("server.log")).map_err(|error| failed(&error))?;
        let program = env::current_exe().map_err(|error| failed(&error))?;
        let mut command = Command::new(program);
        command.args(["serve", "--child", "--listen", "127.0.0.1:0", "--data"]).arg(folder.path());
        // Without one, a config.toml of the project is something else; with one, its paths count from here.
        match config {
            Some(config) => {
                let config = fs::canonicalize(config)
                    .map_err(|error| Failure::Usage(format!("--config {}: {error}", config.display())))?;
                command.arg("--config").arg(config).current_dir(project)
            }
            None => command.current_dir(folder.path()),
        };
        // A group of its own: ctrl-c is for this process, which then sees to the server.
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log).process_group(0).kill_on_drop(true);
        let mut child = command.spawn().map_err(|error| failed(&error))?;
        let stdout = child.stdout.take().ok_or_else(|| failed(&"it has no output"))?;
        let line = timeout(START, BufReader::new(stdout).lines().next_line()).await;
        let url = line.ok().and_then(Result::ok).flatten().and_then(|line| line.parse().ok());
        match url {
            Some(url) => Ok(Self { child, folder, url }),
            None => Err(failed(&said(folder.path()))),
        }
    }

    /// Where it listens.
    pub fn url(&self) -> &ServerUrl {
        &self.url
    }

    /// Waits for an end that nobody asked for.
    pub async fn failed(&mut self) -> Failure {
        let status = self.child.wait().await;
        let how = status.map_or_else(|error| error.to_string(), |status| status.to_string());
        Failure::local(format!("the server ended with {how}:\n{}", said(self.folder.path())))
    }

    /// Ends it.
    pub async fn stop(mut self) {
        let pid = self.child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        if let Some(pid) = pid {
            // The one failure there is: it has ended by itself.
            let _ = kill_process(pid, Signal::TERM);
        }
        if timeout(STOP, self.child.wait()).await.is_err() {
            // Else it ends with this process.
            let _ = self.child.kill().await;
        }
    }
}

/// The end of its log.
fn said(folder: &Path) -> String {
    let log = fs::read_to_string(folder.join("server.log")).unwrap_or_default();
    let lines: Vec<_> = log.trim().lines().collect();
    lines.get(lines.len().saturating_sub(SHOWN)..).unwrap_or_default().join("\n")
}
