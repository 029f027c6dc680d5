//! Components that are command lines (`wasi:cli/run`).
//!
//! The same rules as for native programs: the payload is the first argument and standard input, standard output is
//! the result where the code is 0, and the end of standard error says why where it is not.

use std::sync::Arc;

use wasmtime::{Store, component::InstancePre};
use wasmtime_wasi::{I32Exit, p2, p3};

use super::{Guest, MAX_ERROR, cut, failure, usize_of};
use crate::{
    function::{Failure, FailureKind, Outcome},
    runtime::{Call, RuntimeError, capture::Capture},
};

/// The export of one for WASI 0.3.
pub(super) const RUN_3: &str = "wasi:cli/run@0.3.0";

/// A command of either generation.
pub(super) enum Program {
    Wasi2(p2::bindings::CommandPre<Guest>),
    Wasi3(p3::bindings::CommandPre<Guest>),
}

impl Program {
    /// Where it is one of both, the newer one.
    pub(super) fn new(linked: InstancePre<Guest>) -> wasmtime::Result<Self> {
        Ok(if linked.component().get_export_index(None, RUN_3).is_some() {
            Self::Wasi3(p3::bindings::CommandPre::new(linked)?)
        } else {
            Self::Wasi2(p2::bindings::CommandPre::new(linked)?)
        })
    }

    async fn call(&self, store: &mut Store<Guest>) -> Result<Result<(), ()>, wasmtime::Error> {
        match self {
            Self::Wasi2(command) => {
                let command = command.instantiate_async(&mut *store).await?;
                command.wasi_cli_run().call_run(&mut *store).await
            }
            Self::Wasi3(command) => {
                let command = command.instantiate_async(&mut *store).await?;
                // Not beside others: so one that waits for what never comes is found out.
                let (ended,) = command.wasi_cli_run().func_run().call_async(&mut *store, ()).await?;
                Ok(ended)
            }
        }
    }
}

/// Runs one call to its end.
pub(super) async fn run(command: &Program, call: &Arc<Call>, mut store: Store<Guest>) -> Result<Outcome, RuntimeError> {
    let capture = Arc::new(Capture::new(call.result_bytes));
    store.data_mut().be_command(&capture);
    let mut failed = match code(command, &mut store).await {
        Ok(0) => return Ok(result(&capture, call)),
        Ok(code) => match store.data().limits.starved() {
            Some(starved) => return Ok(Err(starved)),
            None => Failure::new(FailureKind::Failed, format!("exited with code {code}")),
        },
        Err(error) => match failure(&error, store.data())? {
            Err(failed) => failed,
            Ok(_) => return Err(RuntimeError::Host("a failure that is none".into())),
        },
    };
    let said = capture.errors();
    if failed.kind != FailureKind::MemoryExceeded && !said.is_empty() {
        failed.detail = cut(&format!("{}: {said}", failed.detail), usize_of(call.result_bytes).min(MAX_ERROR)).into();
    }
    Ok(Err(failed))
}

/// The code that it exits with.
async fn code(command: &Program, store: &mut Store<Guest>) -> Result<i32, wasmtime::Error> {
    match command.call(store).await {
        Ok(Ok(())) => Ok(0),
        Ok(Err(())) => Ok(1),
        Err(error) => match error.downcast_ref::<I32Exit>() {
            Some(exit) => Ok(exit.0),
            None => Err(error),
        },
    }
}

fn result(capture: &Capture, call: &Call) -> Outcome {
    capture.result().ok_or_else(|| {
        let detail = format!("the function printed more than the {} bytes that a result may have", call.result_bytes);
        Failure::new(FailureKind::ResultTooLarge, detail)
    })
}
