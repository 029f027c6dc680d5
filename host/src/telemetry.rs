//! The log.

use std::io::IsTerminal;

use tracing_subscriber::{EnvFilter, fmt};

use crate::config::{LogFormat, ServerConfig};

/// Libraries that tell more than whoever runs the server wants to read; the configured filter may say more.
const QUIET: &str = "actix_server=warn,sea_orm_migration=warn";

/// Starts logging to standard error, as the configuration says. Once a process.
///
/// # Errors
/// When the filter can't be parsed, in words for whoever runs the server.
pub fn start(config: &ServerConfig) -> Result<(), String> {
    let filter = EnvFilter::try_new(format!("{QUIET},{}", config.log_filter))
        .map_err(|error| format!("[server] log_filter {:?} is not valid: {error}", config.log_filter))?;
    let terminal = std::io::stderr().is_terminal();
    let log = fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(terminal);
    match config.log_format {
        LogFormat::Text => log.try_init(),
        LogFormat::Json => log.json().flatten_event(true).try_init(),
    }
    .map_err(|error| format!("cannot start the log: {error}"))
}
