//! Errors become HTTP here: problem documents (RFC 9457), through one table of codes.

use std::fmt;

use actix_web::{
    HttpResponse, ResponseError,
    http::{StatusCode, header},
};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    artifacts::ArtifactError,
    catalog::CatalogError,
    database::{DatabaseError, InvocationRow},
    function::{ErrorCode, InvocationId, NameError, VersionError, WordError, kind::TypeError},
    invoke::{DetachedError, InvokeError},
    jobs::{JobError, ScheduleError},
    publish::PublishError,
    store::StoreError,
};

/// How long a client should wait before it tries again what failed for a passing reason, in seconds.
const RETRY_AFTER: u32 = 2;

/// An error as its caller sees it.
#[derive(Debug, Clone)]
pub struct Problem {
    code: ErrorCode,
    /// What was wrong and what would be right.
    detail: String,
    /// The call that it ended, where there was one.
    invocation: Option<InvocationId>,
}

/// The body of a problem.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProblemDocument {
    /// A URI that names the kind of problem.
    #[serde(rename = "type")]
    kind: String,
    /// The kind in words.
    title: &'static str,
    /// The HTTP status.
    status: u16,
    /// The kind in one word, for programs.
    code: &'static str,
    /// What was wrong, and what would be right.
    detail: String,
    /// The call that it ended, where there was one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<uuid::Uuid>)]
    invocation_id: Option<InvocationId>,
}

impl Problem {
    /// A problem of that code.
    pub fn new(code: ErrorCode, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into(), invocation: None }
    }

    /// The request is not of the endpoint's form.
    pub fn invalid(detail: impl Into<String>) -> Self {
        Self::new(ErrorCode::InvalidRequest, detail)
    }

    /// The problem of this call.
    #[must_use]
    pub fn of(mut self, invocation: InvocationId) -> Self {
        self.invocation = Some(invocation);
        self
    }

    /// The response.
    #[must_use]
    pub fn response(&self) -> HttpResponse {
        let (status, _) = status(self.code);
        let mut response = HttpResponse::build(status);
        response.insert_header((header::CONTENT_TYPE, "application/problem+json"));
        if matches!(status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS) {
            response.insert_header((header::RETRY_AFTER, RETRY_AFTER));
        }
        if status == StatusCode::UNAUTHORIZED {
            response.insert_header((header::WWW_AUTHENTICATE, "Bearer realm=\"sharpfaas\""));
        }
        response.json(self.document())
    }

    /// The document, as it stands in a response's body.
    #[must_use]
    pub fn document(&self) -> ProblemDocument {
        let (status, title) = status(self.code);
        ProblemDocument {
            kind: format!("urn:sharpfaas:problem:{}", self.code.as_str()),
            title,
            status: status.as_u16(),
            code: self.code.as_str(),
            detail: self.detail.clone(),
            invocation_id: self.invocation,
        }
    }

    /// Why a call that has ended has no result; `None` where it has one.
    #[must_use]
    pub fn of_ended(row: &InvocationRow) -> Option<Self> {
        let code = row.error_code.as_deref()?;
        let code = ErrorCode::from_name(code).unwrap_or(ErrorCode::Internal);
        Some(Self::new(code, row.detail.as_deref().unwrap_or_default()).of(row.id))
    }
}

/// The one table of codes.
fn status(code: ErrorCode) -> (StatusCode, &'static str) {
    match code {
        ErrorCode::InvalidRequest => (StatusCode::BAD_REQUEST, "The request is not valid"),
        ErrorCode::InvalidName => (StatusCode::BAD_REQUEST, "A name is not valid"),
        ErrorCode::InvalidPackage => (StatusCode::BAD_REQUEST, "The package cannot be used"),
        ErrorCode::InvalidPayload => (StatusCode::BAD_REQUEST, "The payload cannot be used"),
        ErrorCode::Unauthorized => (StatusCode::UNAUTHORIZED, "A token is needed"),
        ErrorCode::Forbidden => (StatusCode::FORBIDDEN, "This is not allowed"),
        ErrorCode::TooManyRequests => (StatusCode::TOO_MANY_REQUESTS, "Too many requests"),
        ErrorCode::FunctionNotFound => (StatusCode::NOT_FOUND, "There is no such function"),
        ErrorCode::LaneNotFound => (StatusCode::NOT_FOUND, "The function is not in this lane"),
        ErrorCode::VersionNotFound => (StatusCode::NOT_FOUND, "The function does not have this version"),
        ErrorCode::InvocationNotFound => (StatusCode::NOT_FOUND, "There is no such invocation"),
        ErrorCode::TokenNotFound => (StatusCode::NOT_FOUND, "There is no such token"),
        ErrorCode::JobNotFound => (StatusCode::NOT_FOUND, "There is no such job"),
        ErrorCode::ScheduleNotFound => (StatusCode::NOT_FOUND, "There is no such schedule"),
        ErrorCode::JobConflict => (StatusCode::CONFLICT, "The job stands where this cannot be done"),
        ErrorCode::NotFound => (StatusCode::NOT_FOUND, "There is nothing here"),
        ErrorCode::MethodNotAllowed => (StatusCode::METHOD_NOT_ALLOWED, "The method is not allowed here"),
        ErrorCode::TypeConflict => (StatusCode::CONFLICT, "The function has another type"),
        ErrorCode::VersionConflict => (StatusCode::CONFLICT, "Another name or version is in the way"),
        ErrorCode::TokenConflict => (StatusCode::CONFLICT, "Another token is in the way"),
        ErrorCode::PayloadTooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "The payload is too large"),
        ErrorCode::PackageTooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "The package is too large"),
        ErrorCode::FunctionFailed => (StatusCode::INTERNAL_SERVER_ERROR, "The function failed"),
        ErrorCode::FunctionTrapped => (StatusCode::INTERNAL_SERVER_ERROR, "The function crashed"),
        ErrorCode::MemoryExceeded => (StatusCode::INTERNAL_SERVER_ERROR, "The function wanted too much memory"),
        ErrorCode::DeadlineExceeded => (StatusCode::GATEWAY_TIMEOUT, "The function took too long"),
        ErrorCode::Cancelled => (StatusCode::CONFLICT, "The call was cancelled"),
        ErrorCode::AtCapacity => (StatusCode::SERVICE_UNAVAILABLE, "The server is busy"),
        ErrorCode::Unconfined => (StatusCode::SERVICE_UNAVAILABLE, "The server does not run native programs"),
        ErrorCode::StoreUnavailable => (StatusCode::SERVICE_UNAVAILABLE, "The store cannot be reached"),
        ErrorCode::DatabaseUnavailable => (StatusCode::SERVICE_UNAVAILABLE, "The database cannot be reached"),
        ErrorCode::Internal => (StatusCode::INTERNAL_SERVER_ERROR, "The server failed"),
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code.as_str(), self.detail)
    }
}

impl std::error::Error for Problem {}

impl ResponseError for Problem {
    fn status_code(&self) -> StatusCode {
        status(self.code).0
    }

    fn error_response(&self) -> HttpResponse {
        self.response()
    }
}

/// What the caller reads when the fault is the server's: what really happened goes to the log.
fn hidden(code: ErrorCode, error: &dyn fmt::Display) -> Problem {
    let detail = match code {
        ErrorCode::StoreUnavailable => "the store cannot be reached now; try again later",
        ErrorCode::DatabaseUnavailable => "the database cannot be reached now; try again later",
        _ => "the server could not do it; its log says why",
    };
    tracing::warn!(code = code.as_str(), %error, "a request failed");
    Problem::new(code, detail)
}

/// The problem of an error that knows its code: shown as it is where it is the caller's, else hidden.
fn told(code: ErrorCode, error: &dyn fmt::Display) -> Problem {
    match code {
        ErrorCode::Internal | ErrorCode::StoreUnavailable | ErrorCode::DatabaseUnavailable => hidden(code, error),
        _ => Problem::new(code, error.to_string()),
    }
}

impl From<NameError> for Problem {
    fn from(error: NameError) -> Self {
        Self::new(ErrorCode::InvalidName, error.to_string())
    }
}

impl From<VersionError> for Problem {
    fn from(error: VersionError) -> Self {
        Self::new(ErrorCode::InvalidName, error.to_string())
    }
}

impl From<TypeError> for Problem {
    fn from(error: TypeError) -> Self {
        Self::invalid(error.to_string())
    }
}

impl From<WordError> for Problem {
    fn from(error: WordError) -> Self {
        Self::invalid(error.to_string())
    }
}

impl From<JobError> for Problem {
    fn from(error: JobError) -> Self {
        told(error.code(), &error)
    }
}

impl From<ScheduleError> for Problem {
    fn from(error: ScheduleError) -> Self {
        told(error.code(), &error)
    }
}

impl From<&InvokeError> for Problem {
    fn from(error: &InvokeError) -> Self {
        // The invoker logs what is the server's fault.
        Self::new(error.code(), error.detail())
    }
}

impl From<DetachedError> for Problem {
    fn from(error: DetachedError) -> Self {
        match error {
            DetachedError::Invoke(error) => (&error).into(),
            DetachedError::Database(error) => error.into(),
        }
    }
}

impl From<DatabaseError> for Problem {
    fn from(error: DatabaseError) -> Self {
        told(error.code(), &error)
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        told(error.code(), &error)
    }
}

impl From<CatalogError> for Problem {
    fn from(error: CatalogError) -> Self {
        told(error.code(), &error)
    }
}

impl From<ArtifactError> for Problem {
    fn from(error: ArtifactError) -> Self {
        told(error.code(), &error)
    }
}

impl From<PublishError> for Problem {
    fn from(error: PublishError) -> Self {
        told(error.code(), &error)
    }
}

/// A problem as the result of a task that was to run on the services' threads and did not end.
impl From<tokio::task::JoinError> for Problem {
    fn from(error: tokio::task::JoinError) -> Self {
        hidden(ErrorCode::Internal, &error)
    }
}
