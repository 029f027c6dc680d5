//! What the attribute's code stands on.

use std::{fmt, io::Write as _, marker::PhantomData};

// All of them, because the export macro looks up what it needs by this module's path, and that differs
// from target to target.
use crate::{
    Error,
    payload::{FromPayload, IntoPayload},
};
pub use crate::{
    bindings::*,
    console::{Output, print_line},
};

/// Decodes the payload for the handler.
///
/// # Errors
/// When it does not fit; the text is for the caller.
pub fn decode<'a, T: FromPayload<'a>>(payload: &'a str) -> Result<T, String> {
    T::from_payload(payload)
}

/// Runs the handler and writes out what it left in the buffer of standard output: a line that it began
/// and did not end. Nothing else would, as the instance does not live longer than the call. Where there is no standard
/// error, panics are told all the same.
///
/// # Errors
/// The handler's own.
pub fn run(handler: impl FnOnce() -> Result<String, String>) -> Result<String, String> {
    #[cfg(all(target_family = "wasm", target_os = "unknown"))]
    std::panic::set_hook(Box::new(|panic| print_line(Output::Stderr, format_args!("{panic}"))));
    let outcome = handler();
    // A console that is gone does not change what the handler came to.
    let _ = std::io::stdout().flush();
    outcome
}

/// Which kind of value the handler returned. The three traits below are told apart by how often their
/// type has to be dereferenced, so that the most telling one that fits is taken, whatever name the
/// type goes by; a `Result` serialises too, so a bound alone could not tell.
pub struct Returned<T>(PhantomData<fn() -> T>);

impl<T> Returned<T> {
    /// The kind of that value.
    pub fn of(_: &T) -> Self {
        Self(PhantomData)
    }
}

/// A `Result` whose error can tell its causes.
pub trait ViaError {
    /// How to finish.
    fn kind(&self) -> FinishError {
        FinishError
    }
}

impl<T, E: Into<Error>> ViaError for &&Returned<Result<T, E>> {}

/// Any other `Result`.
pub trait ViaDisplay {
    /// How to finish.
    fn kind(&self) -> FinishDisplay {
        FinishDisplay
    }
}

impl<T, E> ViaDisplay for &Returned<Result<T, E>> {}

/// No `Result`.
pub trait ViaValue {
    /// How to finish.
    fn kind(&self) -> FinishValue {
        FinishValue
    }
}

impl<T> ViaValue for Returned<T> {}

/// What an error of a handler must be.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be told to the caller",
    label = "implement `std::fmt::Display` or `std::error::Error` for this type",
    note = "`sharpfaas::Error` takes any error by `?`"
)]
pub trait Told: Sized {
    /// Its text.
    fn told(self) -> String;
}

impl<E: fmt::Display> Told for E {
    fn told(self) -> String {
        // Errors that hold their causes tell them in the alternate form.
        format!("{self:#}")
    }
}

/// Finishes a [`ViaError`].
pub struct FinishError;

impl FinishError {
    /// The outcome of the call.
    ///
    /// # Errors
    /// The handler's own.
    pub fn finish<T: IntoPayload, E: Into<Error>>(self, returned: Result<T, E>) -> Result<String, String> {
        returned.map_err(|error| error.into().to_string())?.into_payload()
    }
}

/// Finishes a [`ViaDisplay`].
pub struct FinishDisplay;

impl FinishDisplay {
    /// The outcome of the call.
    ///
    /// # Errors
    /// The handler's own.
    pub fn finish<T: IntoPayload, E: Told>(self, returned: Result<T, E>) -> Result<String, String> {
        returned.map_err(Told::told)?.into_payload()
    }
}

/// Finishes a [`ViaValue`].
pub struct FinishValue;

impl FinishValue {
    /// The outcome of the call.
    ///
    /// # Errors
    /// When JSON cannot hold the value.
    pub fn finish<T: IntoPayload>(self, returned: T) -> Result<String, String> {
        returned.into_payload()
    }
}
