//! The configuration: one typed value, read once at start. No other file reads settings.
//!
//! Every key is documented in `config.toml` at the root of the repository, with its default, unit and
//! bound. Unknown keys and values out of bounds are refused by name and line, because a misspelt limit
//! that silently falls back to its default is worse than no start.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Deserializer, de::Error as _};

mod jobs;
mod sandbox;
mod secret;
mod security;
mod store_url;

pub use jobs::{FunctionJobs, JobsConfig, QueueConfig};
pub use sandbox::{Grant, SandboxConfig, SecretSource, Strictness};
pub use secret::{Secret, secret};
pub use security::{PayloadClaim, PayloadKey, SecurityConfig, TlsConfig};
pub use store_url::{FtpUrl, StoreUrl};

/// The whole configuration.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The HTTP server.
    pub server: ServerConfig,
    /// Where packages live for ever.
    pub store: StoreConfig,
    /// The local function folder.
    pub artifacts: ArtifactsConfig,
    /// The SQL database.
    pub database: DatabaseConfig,
    /// What packages and calls may take.
    pub limits: Limits,
    /// How guests run.
    pub runtime: RuntimeConfig,
    /// How native programs are confined.
    pub sandbox: SandboxConfig,
    /// What some functions may do beyond what all may.
    pub grants: Vec<Grant>,
    /// What components may keep between calls.
    pub key_values: KeyValuesConfig,
    /// What is kept of calls.
    pub history: HistoryConfig,
    /// The WebSockets on which calls are made and followed.
    pub hub: HubConfig,
    /// Who may come in.
    pub security: SecurityConfig,
    /// How jobs are run.
    pub jobs: JobsConfig,
}

/// `[server]`
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ServerConfig {
    /// Address and port; port 0 picks a free one.
    pub listen: SocketAddr,
    /// Web worker threads; 0: one a core.
    #[serde(deserialize_with = "bounded::<0, 1024, _>")]
    pub workers: u64,
    /// How long shutdown waits for calls that are at work, in seconds.
    #[serde(deserialize_with = "bounded::<0, 3600, _>")]
    pub shutdown_seconds: u64,
    /// How long a client may take to send the head of a request, and then its body (which gets
    /// another second for each 64 KiB it has sent), in seconds.
    #[serde(deserialize_with = "bounded::<1, 3600, _>")]
    pub read_seconds: u64,
    /// How long a connection may be idle between requests, in seconds.
    #[serde(deserialize_with = "bounded::<1, 3600, _>")]
    pub keep_alive_seconds: u64,
    /// How the log is written.
    pub log_format: LogFormat,
    /// What is logged: a filter such as `info` or `info,sharpfaas_host::store=debug`.
    pub log_filter: String,
}

/// How the log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line, for collectors.
    Json,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            workers: 0,
            shutdown_seconds: 30,
            read_seconds: 30,
            keep_alive_seconds: 75,
            log_format: LogFormat::Text,
            log_filter: "info".into(),
        }
    }
}

/// `[store]`
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StoreConfig {
    /// `ftp://user@host:21/path`, `ftps://…` (explicit TLS) or `file:path`.
    pub url: StoreUrl,
    /// A file that holds the password; its last line end does not count.
    pub password_file: Option<PathBuf>,
    /// An environment variable that holds the password.
    pub password_env: Option<String>,
    /// PEM certificates to trust instead of the system's, for `ftps://`.
    pub ca_file: Option<PathBuf>,
    /// Allows plain `ftp://` to another host than loopback.
    pub insecure: bool,
    /// At most this many FTP connections at once.
    #[serde(deserialize_with = "bounded::<1, 256, _>")]
    pub connections: u64,
    /// How long one step of the FTP protocol may take, in seconds; a transfer may take this long
    /// without a byte moving.
    #[serde(deserialize_with = "bounded::<1, 600, _>")]
    pub timeout_seconds: u64,
    /// How often a step that failed on the way is tried again.
    #[serde(deserialize_with = "bounded::<0, 10, _>")]
    pub retries: u64,
    /// How long an unused connection is kept, in seconds.
    #[serde(deserialize_with = "bounded::<1, 3600, _>")]
    pub idle_seconds: u64,
    /// How often the whole store is looked through for what other servers pushed, in seconds; 0: never.
    #[serde(deserialize_with = "bounded::<0, 86_400, _>")]
    pub refresh_seconds: u64,
    /// How old a staging folder must be to be swept, in hours.
    #[serde(deserialize_with = "bounded::<1, 720, _>")]
    pub staging_grace_hours: u64,
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self {
            url: StoreUrl::File("data/functionstore".into()),
            password_file: None,
            password_env: None,
            ca_file: None,
            insecure: false,
            connections: 8,
            timeout_seconds: 10,
            retries: 3,
            idle_seconds: 60,
            refresh_seconds: 60,
            staging_grace_hours: 24,
        }
    }
}

/// `[artifacts]`
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ArtifactsConfig {
    /// The local function folder: unpacked packages and machine code. Private to the server.
    pub dir: PathBuf,
    /// How much it may hold, in bytes; the longest unused go first.
    #[serde(deserialize_with = "bounded::<16_777_216, { u64::MAX }, _>")]
    pub max_bytes: u64,
    /// How many versions are kept loaded in memory.
    #[serde(deserialize_with = "bounded::<1, 1_000_000, _>")]
    pub loaded: u64,
    /// How long the compiler may take for one component, in seconds.
    #[serde(deserialize_with = "bounded::<1, 3600, _>")]
    pub compile_seconds: u64,
    /// How much memory the compiler may take, in bytes.
    #[serde(deserialize_with = "bounded::<134_217_728, { u64::MAX }, _>")]
    pub compile_memory_bytes: u64,
    /// How many compilations may run at once; 0: half the cores, at least one.
    #[serde(deserialize_with = "bounded::<0, 256, _>")]
    pub compilers: u64,
}

impl Default for ArtifactsConfig {
    fn default() -> Self {
        Self {
            dir: "data/artifacts".into(),
            max_bytes: 10 * 1024 * 1024 * 1024,
            loaded: 1000,
            compile_seconds: 120,
            compile_memory_bytes: 2 * 1024 * 1024 * 1024,
            compilers: 0,
        }
    }
}

/// `[database]`
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DatabaseConfig {
    /// `sqlite:path` or `postgres://user@host:5432/name`.
    #[serde(deserialize_with = "database_url")]
    pub url: String,
    /// A file that holds the password; its last line end does not count.
    pub password_file: Option<PathBuf>,
    /// An environment variable that holds the password.
    pub password_env: Option<String>,
    /// At most this many connections.
    #[serde(deserialize_with = "bounded::<1, 256, _>")]
    pub connections: u64,
    /// How long to wait for a connection, and for a statement, in seconds.
    #[serde(deserialize_with = "bounded::<1, 600, _>")]
    pub timeout_seconds: u64,
}

impl Default for DatabaseConfig {
    fn default() -> Self {
        Self {
            url: "sqlite:data/sharpfaas.db".into(),
            password_file: None,
            password_env: None,
            connections: 8,
            timeout_seconds: 5,
        }
    }
}

fn database_url<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let text = String::deserialize(deserializer)?;
    if text.starts_with("sqlite:") {
        return Ok(text);
    }
    let url = url::Url::parse(&text).map_err(|error| D::Error::custom(format!("not a URL: {error}")))?;
    if !matches!(url.scheme(), "postgres" | "postgresql") {
        let scheme = url.scheme();
        return Err(D::Error::custom(format!("scheme '{scheme}' is not known: it must be 'sqlite:' or 'postgres://'")));
    }
    if url.password().is_some() {
        return Err(D::Error::custom("a password does not belong in the URL: name 'password_file' or 'password_env'"));
    }
    Ok(text)
}

/// `[limits]`
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// The largest zip that may be pushed, in bytes.
    #[serde(deserialize_with = "bounded::<1024, 17_179_869_184, _>")]
    pub package_bytes: u64,
    /// How many files and folders a package may hold.
    #[serde(deserialize_with = "bounded::<1, 65_535, _>")]
    pub package_entries: u64,
    /// The largest file in a package, unpacked, in bytes.
    #[serde(deserialize_with = "bounded::<1024, 17_179_869_184, _>")]
    pub entry_bytes: u64,
    /// All files of a package together, unpacked, in bytes.
    #[serde(deserialize_with = "bounded::<1024, 68_719_476_736, _>")]
    pub unpacked_bytes: u64,
    /// How many times larger than packed a file of more than 1 MiB may be.
    #[serde(deserialize_with = "bounded::<1, 1032, _>")]
    pub package_ratio: u64,
    /// The largest payload, in bytes.
    #[serde(deserialize_with = "bounded::<1, 1_073_741_824, _>")]
    pub payload_bytes: u64,
    /// The largest result or error text, in bytes.
    #[serde(deserialize_with = "bounded::<1, 1_073_741_824, _>")]
    pub result_bytes: u64,
    /// How much of the end of a call's console output is kept, in bytes.
    #[serde(deserialize_with = "bounded::<0, 16_777_216, _>")]
    pub output_bytes: u64,
    /// How much memory a call may take, in bytes.
    #[serde(deserialize_with = "bounded::<1_048_576, 68_719_476_736, _>")]
    pub memory_bytes: u64,
    /// How long a call may take, in seconds. A caller may ask for less, never for more.
    #[serde(deserialize_with = "bounded::<1, 86_400, _>")]
    pub deadline_seconds: u64,
    /// How many calls may be at work at once.
    #[serde(deserialize_with = "bounded::<1, 100_000, _>")]
    pub concurrency: u64,
    /// How many of those may be native programs.
    #[serde(deserialize_with = "bounded::<1, 10_000, _>")]
    pub processes: u64,
    /// How much of the places one function of a lane may hold at once, in percent.
    #[serde(deserialize_with = "bounded::<1, 100, _>")]
    pub function_share_percent: u64,
    /// How much of the places the functions of one lane may hold together, in percent.
    #[serde(deserialize_with = "bounded::<1, 100, _>")]
    pub lane_share_percent: u64,
    /// How much of the places the calls of one token may hold together, in percent.
    #[serde(deserialize_with = "bounded::<1, 100, _>")]
    pub token_share_percent: u64,
    /// How many calls may wait for a place; those beyond it are `at_capacity` at once.
    #[serde(deserialize_with = "bounded::<0, 1_000_000, _>")]
    pub queue: u64,
    /// How long a call may wait for a place, in seconds, before it is `at_capacity`.
    #[serde(deserialize_with = "bounded::<0, 3600, _>")]
    pub queue_seconds: u64,
    /// How many pushes may be at work at once.
    #[serde(deserialize_with = "bounded::<1, 256, _>")]
    pub pushes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        const MIB: u64 = 1024 * 1024;
        Self {
            package_bytes: 128 * MIB,
            package_entries: 10_000,
            entry_bytes: 256 * MIB,
            unpacked_bytes: 512 * MIB,
            package_ratio: 200,
            payload_bytes: 4 * MIB,
            result_bytes: 4 * MIB,
            output_bytes: MIB / 4,
            memory_bytes: 128 * MIB,
            deadline_seconds: 30,
            concurrency: 512,
            processes: 64,
            function_share_percent: 75,
            lane_share_percent: 100,
            token_share_percent: 100,
            queue: 2048,
            queue_seconds: 10,
            pushes: 16,
        }
    }
}

/// `[runtime]`
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RuntimeConfig {
    /// Threads that run guests; 0: one a core.
    #[serde(deserialize_with = "bounded::<0, 1024, _>")]
    pub threads: u64,
    /// Whether components of the component model's async ABI may be run, WASI 0.3 among them.
    pub async_abi: bool,
    /// The folder in which native programs get their temporary folders; none: the system's.
    pub temp_dir: Option<PathBuf>,
    /// How long the processes of a call get between SIGTERM and SIGKILL when it ends early, in milliseconds.
    #[serde(deserialize_with = "bounded::<0, 60_000, _>")]
    pub kill_grace_ms: u64,
}

impl Default for RuntimeConfig {
    fn default() -> Self {
        Self { threads: 0, async_abi: true, temp_dir: None, kill_grace_ms: 50 }
    }
}

/// `[key_values]`
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KeyValuesConfig {
    /// The largest value, in bytes.
    #[serde(deserialize_with = "bounded::<1, 67_108_864, _>")]
    pub value_bytes: u64,
    /// All keys and values of one store, in bytes.
    #[serde(deserialize_with = "bounded::<1, 1_099_511_627_776, _>")]
    pub store_bytes: u64,
    /// How many keys one store may have.
    #[serde(deserialize_with = "bounded::<1, 1_000_000_000, _>")]
    pub keys: u64,
}

impl Default for KeyValuesConfig {
    fn default() -> Self {
        Self { value_bytes: 1024 * 1024, store_bytes: 64 * 1024 * 1024, keys: 100_000 }
    }
}

/// `[history]`
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HistoryConfig {
    /// How long the rows of ended calls are kept, in days.
    #[serde(deserialize_with = "bounded::<1, 36_500, _>")]
    pub keep_days: u64,
    /// How many rows may wait to be written. Beyond it, while the database is away, the oldest are
    /// dropped, which is logged and counted.
    #[serde(deserialize_with = "bounded::<100, 10_000_000, _>")]
    pub waiting: u64,
}

impl Default for HistoryConfig {
    fn default() -> Self {
        Self { keep_days: 30, waiting: 100_000 }
    }
}

/// `[hub]`
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HubConfig {
    /// After how long a silence the server sends a ping, in seconds.
    #[serde(deserialize_with = "bounded::<1, 3600, _>")]
    pub ping_seconds: u64,
    /// After how long without anything from the client its connection is closed, in seconds.
    #[serde(deserialize_with = "bounded::<1, 3600, _>")]
    pub timeout_seconds: u64,
    /// How long a client may take to say which dialect it speaks, in seconds.
    #[serde(deserialize_with = "bounded::<1, 3600, _>")]
    pub handshake_seconds: u64,
    /// How many calls may be under way on one connection.
    #[serde(deserialize_with = "bounded::<1, 10_000, _>")]
    pub calls: u64,
}

impl Default for HubConfig {
    fn default() -> Self {
        Self { ping_seconds: 15, timeout_seconds: 30, handshake_seconds: 15, calls: 100 }
    }
}

/// A whole number from `MIN` to `MAX`.
fn bounded<'de, const MIN: u64, const MAX: u64, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let value = i64::deserialize(deserializer)?;
    u64::try_from(value).ok().filter(|value| (MIN..=MAX).contains(value)).ok_or_else(|| {
        D::Error::custom(if MAX == u64::MAX {
            format!("{value} is out of bounds: it must be at least {MIN}")
        } else {
            format!("{value} is out of bounds: it must be {MIN} to {MAX}")
        })
    })
}

/// Why the server can't start with this configuration. The texts are for whoever runs it.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file can't be read.
    #[error("cannot read the configuration {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A key or value is wrong; the text has the line.
    #[error("the configuration {} is not valid:\n{text}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Line, key and what would be right.
        text: String,
    },
    /// A secret can't be had.
    #[error("{0}")]
    Secret(String),
}

impl Config {
    /// Reads the file.
    ///
    /// # Errors
    /// When it can't be read, holds unknown keys, or a value is out of its bounds.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.into(), source })?;
        Self::parse(&text).map_err(|text| ConfigError::Invalid { path: path.into(), text })
    }

    /// Reads a configuration from its text.
    ///
    /// # Errors
    /// As [`Config::read`], with line and key in the text.
    pub fn parse(text: &str) -> Result<Self, String> {
        toml::from_str(text).map_err(|error| error.to_string())
    }

    /// Puts store, artifacts and database below `data`, each where it is not configured to be elsewhere.
    #[must_use]
    pub fn with_data(mut self, data: &Path) -> Self {
        let default = Self::default();
        if self.store.url == default.store.url {
            self.store.url = StoreUrl::File(data.join("functionstore"));
        }
        if self.artifacts.dir == default.artifacts.dir {
            self.artifacts.dir = data.join("artifacts");
        }
        if self.database.url == default.database.url {
            self.database.url = format!("sqlite:{}", data.join("sharpfaas.db").display());
        }
        self
    }
}

/// Seconds of the configuration as a duration.
#[must_use]
pub fn seconds(value: u64) -> Duration {
    Duration::from_secs(value)
}

#[cfg(test)]
mod tests;
