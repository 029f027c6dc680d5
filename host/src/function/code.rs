//! The codes of errors, as callers see them and as history keeps them.

/// What went wrong, in one word. The API turns each into a status; the set is the contract's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorCode {
    /// The request is not of the endpoint's form.
    InvalidRequest,
    /// A name, version or type is not valid.
    InvalidName,
    /// The package can't be used.
    InvalidPackage,
    /// The payload can't be used.
    InvalidPayload,
    /// Nobody knows who asks.
    Unauthorized,
    /// Who asks may not.
    Forbidden,
    /// Who asks does so too often.
    TooManyRequests,
    /// No function has that name.
    FunctionNotFound,
    /// The function is not in that lane.
    LaneNotFound,
    /// The lane does not have that version of the function.
    VersionNotFound,
    /// No invocation has that id.
    InvocationNotFound,
    /// No token has that name.
    TokenNotFound,
    /// No job, or batch of jobs, has that id.
    JobNotFound,
    /// No schedule has that id.
    ScheduleNotFound,
    /// The job stands where this can't be done with it.
    JobConflict,
    /// There is nothing at that address.
    NotFound,
    /// The address does not take that method.
    MethodNotAllowed,
    /// The name has another type.
    TypeConflict,
    /// Another name or version is in the way.
    VersionConflict,
    /// Another token is in the way, or none would be left.
    TokenConflict,
    /// The payload is larger than it may be.
    PayloadTooLarge,
    /// The package is larger than it may be.
    PackageTooLarge,
    /// The function said that it failed.
    FunctionFailed,
    /// The function crashed.
    FunctionTrapped,
    /// The function wanted more memory than it may have.
    MemoryExceeded,
    /// The function's time was over.
    DeadlineExceeded,
    /// Somebody ended the call.
    Cancelled,
    /// Too much is going on; later it may work.
    AtCapacity,
    /// The server can't confine native programs, and must.
    Unconfined,
    /// The store can't be reached; later it may work.
    StoreUnavailable,
    /// The database can't be reached; later it may work.
    DatabaseUnavailable,
    /// The server is at fault; its log says how.
    Internal,
}

impl ErrorCode {
    const ALL: [Self; 32] = [
        Self::InvalidRequest,
        Self::InvalidName,
        Self::InvalidPackage,
        Self::InvalidPayload,
        Self::Unauthorized,
        Self::Forbidden,
        Self::TooManyRequests,
        Self::FunctionNotFound,
        Self::LaneNotFound,
        Self::VersionNotFound,
        Self::InvocationNotFound,
        Self::TokenNotFound,
        Self::JobNotFound,
        Self::ScheduleNotFound,
        Self::JobConflict,
        Self::NotFound,
        Self::MethodNotAllowed,
        Self::TypeConflict,
        Self::VersionConflict,
        Self::TokenConflict,
        Self::PayloadTooLarge,
        Self::PackageTooLarge,
        Self::FunctionFailed,
        Self::FunctionTrapped,
        Self::MemoryExceeded,
        Self::DeadlineExceeded,
        Self::Cancelled,
        Self::AtCapacity,
        Self::Unconfined,
        Self::StoreUnavailable,
        Self::DatabaseUnavailable,
        Self::Internal,
    ];

    /// The code that is written so.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|code| code.as_str() == name)
    }

    /// The code as it is written.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InvalidRequest => "invalid_request",
            Self::InvalidName => "invalid_name",
            Self::InvalidPackage => "invalid_package",
            Self::InvalidPayload => "invalid_payload",
            Self::Unauthorized => "unauthorized",
            Self::Forbidden => "forbidden",
            Self::TooManyRequests => "too_many_requests",
            Self::FunctionNotFound => "function_not_found",
            Self::LaneNotFound => "lane_not_found",
            Self::VersionNotFound => "version_not_found",
            Self::InvocationNotFound => "invocation_not_found",
            Self::TokenNotFound => "token_not_found",
            Self::JobNotFound => "job_not_found",
            Self::ScheduleNotFound => "schedule_not_found",
            Self::JobConflict => "job_conflict",
            Self::NotFound => "not_found",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::TypeConflict => "type_conflict",
            Self::VersionConflict => "version_conflict",
            Self::TokenConflict => "token_conflict",
            Self::PayloadTooLarge => "payload_too_large",
            Self::PackageTooLarge => "package_too_large",
            Self::FunctionFailed => "function_failed",
            Self::FunctionTrapped => "function_trapped",
            Self::MemoryExceeded => "memory_exceeded",
            Self::DeadlineExceeded => "deadline_exceeded",
            Self::Cancelled => "cancelled",
            Self::AtCapacity => "at_capacity",
            Self::Unconfined => "unconfined",
            Self::StoreUnavailable => "store_unavailable",
            Self::DatabaseUnavailable => "database_unavailable",
            Self::Internal => "internal",
        }
    }
}

impl From<super::FailureKind> for ErrorCode {
    fn from(kind: super::FailureKind) -> Self {
        use super::FailureKind as Kind;
        match kind {
            Kind::Failed | Kind::ResultTooLarge => Self::FunctionFailed,
            Kind::Trapped => Self::FunctionTrapped,
            Kind::MemoryExceeded => Self::MemoryExceeded,
            Kind::DeadlineExceeded => Self::DeadlineExceeded,
            Kind::Cancelled => Self::Cancelled,
        }
    }
}
