//! Native programs: each call a subprocess in a session of its own.

/// A program ready to run.
#[derive(Debug)]
pub struct Executable;
