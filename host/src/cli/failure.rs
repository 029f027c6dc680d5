//! How a verb fails, and which exit code that is.

use std::process::ExitCode;

use serde::Deserialize;

use super::terminal::Terminal;

/// Why a verb did not succeed.
#[derive(Debug)]
pub enum Failure {
    /// The command line is wrong; the text names the flag. Exit code 2.
    Usage(String),
    /// The function failed, as the text says. Exit code 1.
    Function(String),
    /// The server answered with a problem. Exit code 1 where the function is at fault, otherwise 3.
    Problem(Box<Problem>),
    /// The server could not be reached, or did not answer as one should; or this machine is at fault.
    /// Exit code 3.
    Other(String),
    /// Whoever read standard output went away: there is nothing left to do, and nobody to tell.
    Unread,
}

/// A problem document (RFC 9457), with what the server adds to it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Problem {
    /// The kind in words.
    pub title: String,
    /// The kind in one word.
    pub code: String,
    /// What was wrong, and what would be right.
    pub detail: String,
    /// The document as it came, for `--json`; empty where it is to be shown in words.
    #[serde(skip)]
    pub document: String,
}

impl Problem {
    /// Whether it is the function that failed and not the server.
    pub fn is_of_function(&self) -> bool {
        is_of_function(&self.code)
    }
}

/// Whether an error of that code is the function's.
pub fn is_of_function(code: &str) -> bool {
    matches!(code, "function_failed" | "function_trapped" | "memory_exceeded" | "deadline_exceeded" | "cancelled")
}

impl Failure {
    /// Something on this machine failed.
    pub fn local(text: impl Into<String>) -> Self {
        Self::Other(text.into())
    }

    /// The code that the process ends with.
    pub fn exit_code(&self) -> ExitCode {
        self.code().into()
    }

    /// That code as a number.
    pub fn code(&self) -> u8 {
        match self {
            Self::Unread => 0,
            Self::Function(_) => 1,
            Self::Problem(problem) if problem.is_of_function() => 1,
            Self::Usage(_) => 2,
            Self::Problem(_) | Self::Other(_) => 3,
        }
    }

    /// Tells the user: in words on standard error, and with `--json` a problem as it came on standard
    /// output too.
    pub fn show(&self, terminal: &mut Terminal) {
        match self {
            Self::Unread => {}
            Self::Usage(text) | Self::Function(text) | Self::Other(text) => terminal.error(text),
            Self::Problem(problem) => {
                if !problem.document.is_empty() {
                    // The error below is shown whether this could be written or not.
                    let _ = terminal.print(&problem.document);
                }
                let Problem { title, code, detail, .. } = &**problem;
                terminal.error(&format!("{title}: {detail} ({code})"));
            }
        }
    }
}
