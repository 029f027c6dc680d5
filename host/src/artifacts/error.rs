//! Why an artifact can't be had.

use std::{io, sync::Arc};

use crate::{
    function::{ErrorCode, package::PackageError},
    runtime::RuntimeError,
    store::StoreError,
};

/// Why an artifact can't be had. Shared by all who waited for it, so it can be cloned.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ArtifactError {
    /// The store did not give the package.
    #[error("{0}")]
    Store(#[source] Arc<StoreError>),
    /// The package was refused; never [`PackageError::Local`]. The text is for whoever pushed it.
    #[error("{0}")]
    Package(#[source] Arc<PackageError>),
    /// The component was refused by the compiler. The text is for whoever pushed it.
    #[error("{0}")]
    Component(Arc<str>),
    /// The compiler failed by no fault of the component. The text is for the log.
    #[error("the compiler failed: {0}")]
    Compiler(Arc<str>),
    /// A file of the local function folder can't be read or written. The text is for the log.
    #[error("the local function folder: {what}: {source}")]
    Local {
        /// What was tried.
        what: Arc<str>,
        /// Why it failed.
        source: Arc<io::Error>,
    },
    /// The local function folder can't be used at all. The text is for whoever runs the server.
    #[error("the local function folder cannot be used: {0}")]
    Folder(Arc<str>),
    /// What was prepared can't be loaded. The text is for the log.
    #[error("{0}")]
    Runtime(#[source] Arc<RuntimeError>),
    /// The work ended before it was done: the server shuts down, or has a bug. The text is for the log.
    #[error("the artifact was not prepared: {0}")]
    Aborted(Arc<str>),
}

impl ArtifactError {
    /// Its code.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Store(error) => error.code(),
            Self::Package(error) if matches!(**error, PackageError::TooLarge { .. }) => ErrorCode::PackageTooLarge,
            Self::Package(_) | Self::Component(_) => ErrorCode::InvalidPackage,
            Self::Compiler(_) | Self::Local { .. } | Self::Folder(_) | Self::Runtime(_) | Self::Aborted(_) => {
                ErrorCode::Internal
            }
        }
    }

    pub(super) fn local(what: impl Into<Arc<str>>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Local { what, source: Arc::new(source) }
    }
}

impl From<PackageError> for ArtifactError {
    fn from(error: PackageError) -> Self {
        match error {
            PackageError::Local(source) => Self::local("reading or unpacking a package")(source),
            refused => Self::Package(Arc::new(refused)),
        }
    }
}

impl From<StoreError> for ArtifactError {
    fn from(error: StoreError) -> Self {
        Self::Store(Arc::new(error))
    }
}

impl From<RuntimeError> for ArtifactError {
    fn from(error: RuntimeError) -> Self {
        match error {
            RuntimeError::Unsuitable(why) => Self::Component(why.into()),
            error => Self::Runtime(Arc::new(error)),
        }
    }
}

impl From<tokio::task::JoinError> for ArtifactError {
    fn from(error: tokio::task::JoinError) -> Self {
        Self::Aborted(error.to_string().into())
    }
}
