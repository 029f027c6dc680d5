//! `[sandbox]` and `[[grants]]`

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use serde::{Deserialize, Deserializer, de::Error as _};

use super::{ConfigError, Secret, bounded};
use crate::function::{
    FunctionName, Lane,
    declaration::check_variable,
    network::{HostPattern, Network},
    pattern,
};

/// `[sandbox]`
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SandboxConfig {
    /// How strictly native programs are confined.
    pub programs: Strictness,
    /// Under a server that runs as root, the first of the user ids that programs get; their group has the same.
    #[serde(deserialize_with = "bounded::<1, 4_294_967_294, _>")]
    pub first_user_id: u64,
    /// How many such ids there are; 0: one for each program that may run at once.
    #[serde(deserialize_with = "bounded::<0, 100_000, _>")]
    pub user_ids: u64,
    /// How much a call may keep in its temporary folder, in bytes.
    #[serde(deserialize_with = "bounded::<1_048_576, 68_719_476_736, _>")]
    pub folder_bytes: u64,
    /// How much processor time the processes of a call may take together, in percent of one core; 0: any.
    #[serde(deserialize_with = "bounded::<0, 100_000, _>")]
    pub cpu_percent: u64,
}

impl Default for SandboxConfig {
    fn default() -> Self {
        Self {
            programs: Strictness::Required,
            // Beyond what distributions give to users, containers and services.
            first_user_id: 1_900_000_000,
            user_ids: 0,
            folder_bytes: 64 * 1024 * 1024,
            // A bomb of forks gets no further than this: the rest of the machine is there to end it.
            cpu_percent: 100,
        }
    }
}

/// What is done where the kernel can't confine programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Strictness {
    /// No program runs.
    Required,
    /// They run with what confinement there is.
    BestEffort,
    /// They are not confined even where they could be.
    Off,
}

/// `[[grants]]`: what some functions may do beyond what all may. Those that fit a call add up.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Grant {
    /// Patterns of lanes, with `*` for any number of characters; empty: all.
    #[serde(deserialize_with = "patterns")]
    pub lanes: Vec<String>,
    /// Patterns of functions; empty: all.
    #[serde(deserialize_with = "patterns")]
    pub functions: Vec<String>,
    /// The server's network.
    pub network: bool,
    /// Files and folders to read, and programs to run, with all below them.
    #[serde(deserialize_with = "absolute")]
    pub read: Vec<PathBuf>,
    /// Variables of the environment.
    #[serde(deserialize_with = "variables")]
    pub environment: BTreeMap<String, String>,
    /// The user, and group, to run as.
    #[serde(deserialize_with = "user")]
    pub user_id: Option<u32>,
    /// Hosts that components may send HTTP requests to, where their packages ask for them.
    pub hosts: Vec<HostPattern>,
    /// Networks that they may connect to although they are not the Internet's.
    pub networks: Vec<Network>,
    /// Patterns of the stores of values that they may use, where their packages ask for them.
    #[serde(deserialize_with = "stores")]
    pub stores: BTreeSet<String>,
    /// Values of `wasi:config`, for those whose packages have them too.
    pub configuration: BTreeMap<String, String>,
    /// Secret values of it, for those whose packages ask for them.
    pub secrets: BTreeMap<String, SecretSource>,
}

/// Where a secret stands; it is read at start.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SecretSource {
    /// The file; its last line end does not count.
    pub file: Option<PathBuf>,
    /// The environment variable.
    pub env: Option<String>,
}

impl SecretSource {
    /// Reads it.
    ///
    /// # Errors
    /// When it names none or both, or the one that it names can't be read.
    pub fn read(&self, name: &str) -> Result<Secret, ConfigError> {
        let failed = |why: String| ConfigError::Secret(format!("secrets.{name}: {why}"));
        match (&self.file, &self.env) {
            (Some(path), None) => std::fs::read_to_string(path)
                .map(|text| Secret::new(text.trim_end_matches(['\r', '\n']).to_owned()))
                .map_err(|error| failed(format!("cannot read {}: {error}", path.display()))),
            (None, Some(variable)) => std::env::var(variable)
                .map(Secret::new)
                .map_err(|_| failed(format!("{variable} is not set in the environment"))),
            _ => Err(failed("it must name one of 'file' and 'env'".into())),
        }
    }
}

impl Grant {
    /// Whether it is for calls of that function in that lane.
    #[must_use]
    pub fn fits(&self, lane: &Lane, function: &FunctionName) -> bool {
        let any = |patterns: &[String], text: &str| {
            patterns.is_empty() || patterns.iter().any(|wanted| pattern::matches(wanted, text))
        };
        any(&self.lanes, lane.as_str()) && any(&self.functions, function.as_str())
    }
}

fn stores<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeSet<String>, D::Error> {
    Ok(patterns(deserializer)?.into_iter().collect())
}

fn patterns<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let patterns = Vec::<String>::deserialize(deserializer)?;
    let plain = |text: &String| {
        !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b'*'))
    };
    match patterns.iter().find(|text| !plain(text)) {
        None => Ok(patterns),
        Some(text) => Err(D::Error::custom(format!(
            "'{text}' is not a pattern: it must be of letters, digits, '_', '.', '-', and '*' for any number of them"
        ))),
    }
}

fn absolute<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<PathBuf>, D::Error> {
    let paths = Vec::<PathBuf>::deserialize(deserializer)?;
    match paths.iter().find(|path| !path.is_absolute()) {
        None => Ok(paths),
        Some(path) => Err(D::Error::custom(format!("'{}' is not an absolute path", path.display()))),
    }
}

fn variables<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, String>, D::Error> {
    let variables = BTreeMap::<String, String>::deserialize(deserializer)?;
    for (key, value) in &variables {
        check_variable(key, value).map_err(D::Error::custom)?;
    }
    Ok(variables)
}

fn user<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    let id = bounded::<1, 4_294_967_294, _>(deserializer)?;
    u32::try_from(id).map(Some).map_err(D::Error::custom)
}
