//! How a step of the FTP protocol fails, and what that means for the steps after it.

use suppaftp::{FtpError, Status, types::Response};

use crate::store::StoreError;

/// How a step failed. After anything but [`Fault::Refused`] the state of the connection is uncertain.
#[derive(Debug)]
pub(super) enum Fault {
    /// The connection broke, or the server said that it will. Another try on a new one may succeed.
    Lost(String),
    /// The server did not answer in time. Not tried again: the time limit was the patience.
    Slow(String),
    /// The server answered, and the answer is no.
    Refused(Refusal),
    /// What no further try will mend.
    Final(StoreError),
}

/// A negative answer.
#[derive(Debug, Clone)]
pub(super) struct Refusal {
    /// The server's answer was for this.
    step: String,
    status: Status,
    text: String,
}

impl Refusal {
    /// Whether the answer says that there is no such file or folder; servers do not tell it apart from
    /// one that is there but can't be read.
    pub(super) fn is_missing(&self) -> bool {
        matches!(
            self.status,
            Status::FileUnavailable | Status::RequestFileActionIgnored | Status::BadFilename | Status::PageTypeUnknown
        )
    }

    /// Whether the answer says that the server does not know this command.
    pub(super) fn is_unknown_command(&self) -> bool {
        matches!(
            self.status,
            Status::BadCommand | Status::BadArguments | Status::NotImplemented | Status::NotImplementedParameter
        )
    }

    /// The server's own words.
    pub(super) fn text(&self) -> String {
        format!("{}: {} {}", self.step, self.status.code(), self.text)
    }
}

impl Fault {
    /// What `error` in `step` means.
    pub(super) fn new(step: &str, error: FtpError) -> Self {
        match error {
            FtpError::UnexpectedResponse(response) => Self::refused(step, &response),
            // A certificate does not get better by another try.
            FtpError::SecureError(text) if text.contains("invalid peer certificate") => {
                Self::Final(StoreError::Unusable(format!("{step}: {}", plain(&text))))
            }
            other => Self::Lost(format!("{step}: {}", plain(&other.to_string()))),
        }
    }

    fn refused(step: &str, response: &Response) -> Self {
        let body = String::from_utf8_lossy(&response.body);
        let text = plain(body.get(4..).unwrap_or_default().trim());
        let refusal = Refusal { step: step.to_owned(), status: response.status, text };
        match response.status {
            Status::NotAvailable | Status::CannotOpenDataConnection | Status::TransferAborted => {
                Self::Lost(refusal.text())
            }
            _ => Self::Refused(refusal),
        }
    }

    /// Whether the step may succeed on a new connection.
    pub(super) fn is_lost(&self) -> bool {
        matches!(self, Self::Lost(_))
    }
}

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Self {
        Self::Final(error)
    }
}

impl From<std::io::Error> for Fault {
    fn from(error: std::io::Error) -> Self {
        Self::Final(error.into())
    }
}

impl From<Fault> for StoreError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Lost(text) | Fault::Slow(text) => Self::Unavailable(text),
            // 4xx: try again later (RFC 959, 4.2.1); but what is full stays full.
            Fault::Refused(refusal) => match refusal.status.code() {
                400..=451 | 453..=499 => Self::Unavailable(refusal.text()),
                _ => Self::Unusable(refusal.text()),
            },
            Fault::Final(error) => error,
        }
    }
}

/// A server's words without what could forge lines in a log, and not too many of them.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(200).collect()
}
