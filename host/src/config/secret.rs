//! Secrets, which stand in files or the environment and never in the configuration itself.

use std::{fmt, path::Path};

use super::ConfigError;

/// A password or key: shown and logged as `***`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// A secret that is `text`.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// The secret itself; for the one place that sends it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Reads a secret from the file or environment variable that the configuration names; at most one of them.
///
/// # Errors
/// When both are named, or the named one can't be read.
pub fn secret(
    section: &str,
    key: &str,
    file: Option<&Path>,
    variable: Option<&str>,
) -> Result<Option<Secret>, ConfigError> {
    match (file, variable) {
        (None, None) => Ok(None),
        (Some(_), Some(_)) => {
            Err(ConfigError::Secret(format!("[{section}] names both {key}_file and {key}_env: name one of them")))
        }
        (Some(path), None) => match std::fs::read_to_string(path) {
            Ok(text) => Ok(Some(Secret::new(text.trim_end_matches(['\r', '\n']).to_owned()))),
            Err(error) => {
                Err(ConfigError::Secret(format!("cannot read [{section}] {key}_file {}: {error}", path.display())))
            }
        },
        (None, Some(name)) => match std::env::var(name) {
            Ok(text) => Ok(Some(Secret::new(text))),
            Err(_) => Err(ConfigError::Secret(format!(
                "[{section}] {key}_env names {name}, which is not set in the environment"
            ))),
        },
    }
}
