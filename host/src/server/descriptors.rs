//! How much may be open at once.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the soft limit of open files to the hard one: each connection is one, and the soft limit is as low as it is
/// for programs that can't count beyond it. Programs that are run as functions have a limit of their own.
pub fn raise() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current == maximum {
        return;
    }
    let number = |limit: Option<u64>| limit.map_or_else(|| "any number of".to_owned(), |limit| limit.to_string());
    match setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        Ok(()) => {
            tracing::info!("{} files and connections may be open, and not only {}", number(maximum), number(current))
        }
        Err(error) => tracing::warn!(%error, "only {} files and connections may be open", number(current)),
    }
}
