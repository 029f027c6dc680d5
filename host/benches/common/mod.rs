//! Servers as processes, for the measurements.

use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// A server process, ended when this is dropped.
pub struct Served {
    pub process: Child,
    pub address: String,
}

impl Served {
    /// Our server on its defaults, in `folder`, started by `launcher`.
    #[allow(dead_code, reason = "not every measurement starts it so")]
    pub fn sharpfaas(launcher: &[&str], folder: &Path) -> Result<Self, Failure> {
        Self::sharpfaas_with(launcher, &[], folder, &[])
    }

    /// As [`sharpfaas`](Self::sharpfaas), with further arguments and variables.
    pub fn sharpfaas_with(
        launcher: &[&str],
        arguments: &[&str],
        folder: &Path,
        variables: &[(&str, &Path)],
    ) -> Result<Self, Failure> {
        let server = program();
        let mut words = launcher.iter().copied().chain([server.as_str()]);
        let mut command = Command::new(words.next().ok_or("no command")?);
        command.args(words).args(["serve", "--listen", "127.0.0.1:0", "--data"]).arg(folder.join("data"));
        Self::start(command.args(arguments).envs(variables.iter().copied()).current_dir(folder))
    }

    /// How much processor time it has taken so far.
    #[allow(dead_code, reason = "not every measurement asks")]
    pub fn cpu(&self) -> Result<std::time::Duration, Failure> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.process.id()))?;
        // User and system time, the 14th and 15th field, in hundredths of a second on every Linux.
        let fields = stat.rsplit_once(')').ok_or("no name")?.1.split_whitespace();
        let ticks = fields.skip(11).take(2).map(str::parse::<u64>).sum::<Result<u64, _>>()?;
        Ok(std::time::Duration::from_millis(ticks * 10))
    }

    /// A server that tells on standard error where it listens.
    pub fn start(command: &mut Command) -> Result<Self, Failure> {
        let mut process = command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn()?;
        let mut log = BufReader::new(process.stderr.take().ok_or("no log")?);
        let mut lines = String::new();
        loop {
            let from = lines.len();
            if log.read_line(&mut lines)? == 0 {
                return Err(format!("the server ended before it listened:\n{lines}").into());
            }
            if let Some(address) = told(lines.get(from..).unwrap_or_default().trim()) {
                std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
                return Ok(Self { process, address });
            }
        }
    }
}

/// Where a server listens, if the line says so: ours, the plain echo and node; `wasmtime serve`; workerd.
fn told(line: &str) -> Option<String> {
    let told = ["listening on http://", "Serving HTTP on http://"];
    let address = told.iter().find_map(|told| line.rsplit_once(told)).map(|(_, address)| address.trim_end_matches('/'));
    let port = || line.strip_prefix('{')?.split_once("\"port\":")?.1.strip_suffix('}');
    address.map(ToOwned::to_owned).or_else(|| port().map(|port| format!("127.0.0.1:{port}")))
}

impl Drop for Served {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

/// The server that is measured: the one named by `SHARPFAAS_BENCH_SERVER`, or the one built with what measures it.
pub fn program() -> String {
    std::env::var("SHARPFAAS_BENCH_SERVER").unwrap_or_else(|_| env!("CARGO_BIN_EXE_sharpfaas").into())
}

/// The example, built by `make examples`.
#[allow(dead_code, reason = "not every measurement calls it")]
pub fn echo_component() -> Result<PathBuf, Failure> {
    let path = std::env::var_os("SHARPFAAS_ECHO").map(PathBuf::from).ok_or("SHARPFAAS_ECHO names no component")?;
    if path.exists() { Ok(path) } else { Err(format!("{} is not there", path.display()).into()) }
}

/// A guest of the tests, built by `make fixtures`.
#[allow(dead_code, reason = "not every measurement calls it")]
pub fn fixture(file: &str) -> Result<PathBuf, Failure> {
    let folder = std::env::var_os("SHARPFAAS_FIXTURES").ok_or("SHARPFAAS_FIXTURES names no folder")?;
    let path = PathBuf::from(folder).join(file);
    if path.exists() { Ok(path) } else { Err(format!("{} is not there", path.display()).into()) }
}

/// Makes a token that may do everything; from then on the server asks for one.
#[allow(dead_code, reason = "not every measurement needs it")]
pub fn token(server: &Served) -> Result<String, Failure> {
    let made = Command::new(env!("CARGO_BIN_EXE_sharpfaas"))
        .args(["token", "create", "--server", &format!("http://{}", server.address), "--name", "bench"])
        .args(["--run", "*", "--manage", "*"])
        .output()?;
    let token = String::from_utf8(made.stdout)?.trim().to_owned();
    if made.status.success() { Ok(token) } else { Err("no token was made".into()) }
}

/// Pushes into lane `bench`.
pub fn push(server: &Served, name: &str, what: &Path) -> Result<(), Failure> {
    let pushed = Command::new(env!("CARGO_BIN_EXE_sharpfaas"))
        .args(["push", "--server", &format!("http://{}", server.address), "--name", name, "--lane", "bench"])
        .arg(what)
        .stdout(Stdio::null())
        .status()?;
    if pushed.success() { Ok(()) } else { Err("the push failed".into()) }
}
