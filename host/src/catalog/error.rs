//! Why the catalog gave no version.

use std::sync::Arc;

use crate::{
    database::DatabaseError,
    function::{ErrorCode, FunctionName, FunctionType, Lane, Selector, Version},
    store::StoreError,
};

/// How many lanes a text names.
const NAMED_LANES: usize = 8;

/// Why the catalog gave no version. The texts of the first five are for callers; those of the last
/// three are for the log.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CatalogError {
    /// No such function, or not in that lane.
    #[error("{}", function_not_found(name, lane.as_ref(), elsewhere))]
    FunctionNotFound {
        /// What was asked for.
        name: FunctionName,
        /// Where, if a lane was asked for.
        lane: Option<Lane>,
        /// The lanes that are known to hold it.
        elsewhere: Vec<Lane>,
    },
    /// No function was ever pushed to that lane.
    #[error("there is no lane '{lane}'; {}", lanes_there(there))]
    LaneNotFound {
        /// What was asked for.
        lane: Lane,
        /// The lanes there are.
        there: Vec<Lane>,
    },
    /// The function is in the lane, but not at that version.
    #[error("function '{name}' has no version {selector} in lane '{lane}'; {}", newest_there(*newest))]
    VersionNotFound {
        /// The function.
        name: FunctionName,
        /// The lane.
        lane: Lane,
        /// What was asked for.
        selector: Selector,
        /// The newest there.
        newest: Option<Version>,
    },
    /// The name belongs to the other type, for ever.
    #[error("function '{name}' is of type '{is}', not '{wanted}'; a name keeps its type for ever")]
    TypeConflict {
        /// The function.
        name: FunctionName,
        /// What it is.
        is: FunctionType,
        /// What was asked for.
        wanted: FunctionType,
    },
    /// The name differs from another's in case alone, which not every store tells apart.
    #[error("function '{name}' differs from '{there}', which exists, in upper and lower case alone; take another name")]
    CaseConflict {
        /// What was asked for.
        name: FunctionName,
        /// What is there.
        there: FunctionName,
    },
    /// The store failed.
    #[error(transparent)]
    Store(Arc<StoreError>),
    /// The database failed.
    #[error(transparent)]
    Database(#[from] DatabaseError),
    /// The catalog was dropped while it worked, or a bug ended the work.
    #[error("the catalog ended before it had an answer")]
    Ended,
}

impl From<StoreError> for CatalogError {
    fn from(error: StoreError) -> Self {
        Self::Store(Arc::new(error))
    }
}

impl CatalogError {
    /// Its code.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::FunctionNotFound { .. } => ErrorCode::FunctionNotFound,
            Self::LaneNotFound { .. } => ErrorCode::LaneNotFound,
            Self::VersionNotFound { .. } => ErrorCode::VersionNotFound,
            Self::TypeConflict { .. } => ErrorCode::TypeConflict,
            Self::CaseConflict { .. } => ErrorCode::VersionConflict,
            Self::Store(error) => error.code(),
            Self::Database(error) => error.code(),
            Self::Ended => ErrorCode::Internal,
        }
    }

    /// Whether it is an answer about what was asked for, and no failure of the host's.
    #[must_use]
    pub fn is_answer(&self) -> bool {
        match self {
            Self::FunctionNotFound { .. }
            | Self::LaneNotFound { .. }
            | Self::VersionNotFound { .. }
            | Self::TypeConflict { .. }
            | Self::CaseConflict { .. } => true,
            Self::Store(_) | Self::Database(_) | Self::Ended => false,
        }
    }
}

fn function_not_found(name: &FunctionName, lane: Option<&Lane>, elsewhere: &[Lane]) -> String {
    match (lane, elsewhere) {
        (None, _) => format!("there is no function '{name}'"),
        (Some(lane), []) => format!("there is no function '{name}' in lane '{lane}'"),
        (Some(lane), elsewhere) => {
            format!("there is no function '{name}' in lane '{lane}'; it is in {}", list(elsewhere))
        }
    }
}

fn lanes_there(there: &[Lane]) -> String {
    if there.is_empty() { "nothing was pushed yet".into() } else { format!("there is {}", list(there)) }
}

fn newest_there(newest: Option<Version>) -> String {
    newest.map_or_else(|| "it has none that can be used".into(), |newest| format!("its newest there is {newest}"))
}

fn list(lanes: &[Lane]) -> String {
    let mut text: Vec<_> = lanes.iter().take(NAMED_LANES).map(|lane| format!("'{lane}'")).collect();
    if lanes.len() > NAMED_LANES {
        text.push(format!("and {} more", lanes.len() - NAMED_LANES));
    }
    text.join(", ")
}
