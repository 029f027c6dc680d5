//! The token of the configuration, with which the others are made.

use std::{
    fs::OpenOptions,
    io::{ErrorKind, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use super::TokenText;
use crate::config::{ConfigError, Secret, SecurityConfig, secret};

/// The shortest token that may be chosen by hand, in bytes.
const SHORTEST: usize = 32;

/// The configured token, which is made where its file is not there yet; `None` where none is configured.
///
/// # Errors
/// When it can't be read or written, or could be guessed.
pub fn token(config: &SecurityConfig) -> Result<Option<Secret>, ConfigError> {
    let SecurityConfig { admin_token_file: file, admin_token_env: variable, .. } = config;
    if let Some(path) = file
        && variable.is_none()
    {
        make(path).map_err(|error| {
            ConfigError::Secret(format!("cannot write [security] admin_token_file {}: {error}", path.display()))
        })?;
    }
    let token = secret("security", "admin_token", file.as_deref(), variable.as_deref())?;
    match &token {
        Some(token) if !is_strong(token.expose()) => Err(ConfigError::Secret(format!(
            "the admin token of [security] must be {SHORTEST} printable characters or more, without spaces"
        ))),
        _ => Ok(token),
    }
}

fn is_strong(token: &str) -> bool {
    token.len() >= SHORTEST && token.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Writes a new token into a file that is not there yet, for its owner alone.
fn make(path: &Path) -> std::io::Result<()> {
    let mut file = match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => return Ok(()),
        opened => opened?,
    };
    let token = TokenText::generate().map_err(std::io::Error::other)?;
    writeln!(file, "{}", token.expose())?;
    file.sync_all()?;
    tracing::info!(file = %path.display(), "an admin token was made");
    Ok(())
}
