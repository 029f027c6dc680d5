//! From how a program ended to the outcome of its call.

use std::{os::unix::process::ExitStatusExt, process::ExitStatus};

use super::{
    capture::Capture,
    keeper::{Excess, Remains, nearly},
};
use crate::{
    function::{Failure, FailureKind, Outcome},
    runtime::Call,
};

/// The longest detail of a failure, in bytes, where the result limit allows it.
const MAX_DETAIL: usize = 4 * 1024;

/// Why a call came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// The program ended by itself.
    Ended,
    /// Its time was over.
    Deadline,
    /// Somebody wanted it to end.
    Cancelled,
    /// It took too much.
    Excess(Excess),
}

/// What is known of a program that has ended.
#[derive(Debug, Clone, Copy)]
pub struct Ended {
    /// What its keeper saw.
    pub remains: Remains,
    /// What the server itself had taken when it started it, in bytes.
    pub baseline: u64,
    /// How large its files could become, in bytes.
    pub file_bytes: u64,
}

/// The outcome of a call whose processes are gone.
pub fn outcome(cause: Cause, ended: &Ended, capture: &Capture, call: &Call) -> Outcome {
    let remains = ended.remains;
    let failure = match cause {
        Cause::Deadline => Failure::new(FailureKind::DeadlineExceeded, "the program did not end before its deadline"),
        Cause::Cancelled => Failure::new(FailureKind::Cancelled, "the call was cancelled"),
        Cause::Excess(Excess::Memory) => memory(call),
        Cause::Excess(Excess::Processes) => processes(),
        Cause::Excess(Excess::Folder) => {
            let detail = format!("the program kept more than {} bytes in its folder", ended.file_bytes);
            Failure::new(FailureKind::Failed, detail)
        }
        Cause::Ended => match remains.status {
            Some(status) if status.success() => match capture.result() {
                Some(result) => return Ok(result),
                None => Failure::new(
                    FailureKind::ResultTooLarge,
                    format!("the program printed more than the {} bytes that a result may have", call.result_bytes),
                ),
            },
            Some(_) if starved(&remains, ended.baseline, call.memory_bytes) => memory(call),
            Some(_) if remains.taken.crowded => processes(),
            Some(status) => abnormal(status, ended.file_bytes, capture),
            None => Failure::new(FailureKind::Trapped, "the program ended, and how is not known"),
        },
    };
    Err(bounded(failure, call.result_bytes))
}

/// Whether a program that failed had so much memory that this will be why. What the kernel counts for a process
/// holds what the server had when it started it, so that tells something only where it is more.
fn starved(remains: &Remains, baseline: u64, limit: u64) -> bool {
    let counted = if remains.counted_peak > baseline { remains.counted_peak } else { 0 };
    remains.taken.starved || remains.sampled_peak.max(counted) >= nearly(limit)
}

fn processes() -> Failure {
    Failure::new(FailureKind::Failed, "the program had more processes and threads at once than it may")
}

fn memory(call: &Call) -> Failure {
    let detail = format!("the program wanted more than the {} bytes of memory that it may have", call.memory_bytes);
    Failure::new(FailureKind::MemoryExceeded, detail)
}

fn abnormal(status: ExitStatus, file_bytes: u64, capture: &Capture) -> Failure {
    let (kind, mut detail) = match (status.code(), status.signal()) {
        (Some(code), _) => (FailureKind::Failed, format!("exited with code {code}")),
        (None, Some(libc::SIGXFSZ)) => (
            FailureKind::Trapped,
            format!("ended by signal SIGXFSZ ({}): a file grew beyond {file_bytes} bytes", libc::SIGXFSZ),
        ),
        (None, Some(signal)) => (FailureKind::Trapped, format!("ended by signal {} ({signal})", signal_name(signal))),
        (None, None) => (FailureKind::Trapped, format!("ended: {status}")),
    };
    let errors = capture.errors();
    if !errors.is_empty() {
        detail.push_str(": ");
        detail.push_str(&errors);
    }
    Failure::new(kind, detail)
}

fn signal_name(signal: i32) -> &'static str {
    match signal {
        libc::SIGHUP => "SIGHUP",
        libc::SIGINT => "SIGINT",
        libc::SIGQUIT => "SIGQUIT",
        libc::SIGILL => "SIGILL",
        libc::SIGTRAP => "SIGTRAP",
        libc::SIGABRT => "SIGABRT",
        libc::SIGBUS => "SIGBUS",
        libc::SIGFPE => "SIGFPE",
        libc::SIGKILL => "SIGKILL",
        libc::SIGUSR1 => "SIGUSR1",
        libc::SIGSEGV => "SIGSEGV",
        libc::SIGUSR2 => "SIGUSR2",
        libc::SIGPIPE => "SIGPIPE",
        libc::SIGALRM => "SIGALRM",
        libc::SIGTERM => "SIGTERM",
        libc::SIGXCPU => "SIGXCPU",
        libc::SIGXFSZ => "SIGXFSZ",
        libc::SIGSYS => "SIGSYS",
        _ => "unnamed",
    }
}

/// The failure with a detail no longer than it may be.
fn bounded(mut failure: Failure, result_bytes: u64) -> Failure {
    let most = usize::try_from(result_bytes).unwrap_or(usize::MAX).min(MAX_DETAIL);
    failure.detail.truncate(failure.detail.floor_char_boundary(most));
    failure
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peak_counts_only_above_what_the_server_had() {
        let remains = |sampled_peak, counted_peak| Remains { sampled_peak, counted_peak, ..Remains::default() };
        assert!(starved(&remains(90, 0), 500, 100));
        assert!(starved(&remains(0, 95), 50, 100));
        assert!(!starved(&remains(0, 500), 500, 100));
        assert!(!starved(&remains(89, 80), 50, 100));
    }

    #[test]
    fn details_are_cut_between_characters() {
        let cut = bounded(Failure::new(FailureKind::Failed, "aéé"), 4);
        assert_eq!(cut.detail, "aé");
    }
}
