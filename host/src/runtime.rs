//! Running functions: components in wasmtime, programs as subprocesses.
//!
//! A [`Program`] is what an artifact holds ready to run; a [`Call`] is one run of it. The guest's end,
//! good or bad, is an [`Outcome`]; what goes wrong on the host's side is a [`RuntimeError`].

use std::{path::PathBuf, sync::Arc, time::Instant};

use tokio_util::sync::CancellationToken;

use crate::function::{CallerId, FunctionName, InvocationId, Lane, Version};

pub mod console;
pub mod native;
pub mod wasm;

use console::Console;

/// The host could not run the guest. Texts are for the log.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// No place left in the pool of instances, or no process could be made.
    #[error("no resources to run the function: {0}")]
    Exhausted(String),
    /// The artifact is not as it was prepared: to be dropped and prepared again.
    #[error("the artifact is damaged: {0}")]
    Damaged(String),
    /// Anything else; a bug or a broken machine.
    #[error("the function could not be run: {0}")]
    Host(String),
}

/// One run of a program.
#[derive(Debug, Clone)]
pub struct Call {
    /// Its invocation.
    pub id: InvocationId,
    /// Who calls, where they said.
    pub caller_id: Option<CallerId>,
    /// The function's name, for its context.
    pub name: FunctionName,
    /// The lane, for its context.
    pub lane: Lane,
    /// The exact version, for its context.
    pub version: Version,
    /// What it gets.
    pub payload: String,
    /// The caller's own query parameters.
    pub parameters: Vec<(String, String)>,
    /// When it must have ended.
    pub deadline: Instant,
    /// Fires when somebody wants it to end.
    pub cancel: CancellationToken,
    /// How much memory it may take, in bytes.
    pub memory_bytes: u64,
    /// How large its result or error may be, in bytes.
    pub result_bytes: u64,
    /// Where its output goes.
    pub console: Arc<Console>,
}

/// What an artifact holds ready to run.
#[derive(Debug)]
pub enum Program {
    /// A component, compiled and linked.
    Wasm(wasm::Component),
    /// A native program in its unpacked package.
    Native(native::Executable),
}

/// Where a native program stands, for [`native::Executable`].
#[derive(Debug, Clone)]
pub struct ProgramPath {
    /// The folder of the unpacked package.
    pub package: PathBuf,
    /// The file that runs, below it.
    pub entry: PathBuf,
}
