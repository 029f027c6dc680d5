//! Jobs: calls that were handed in for later, or for as soon as there is a worker.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The id of a job, or of a batch of them. A time-ordered UUID (RFC 9562, version 7), so that older jobs come first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct JobId(pub Uuid);

impl JobId {
    /// A new one.
    #[must_use]
    pub fn generate() -> Self {
        Self(Uuid::now_v7())
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for JobId {
    type Err = uuid::Error;

    fn from_str(value: &str) -> Result<Self, uuid::Error> {
        Uuid::parse_str(value).map(Self)
    }
}

/// A closed set of words, the same on the wire, in the database and on the command line.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $word:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
        // As the words are, which a test sees to: the description of the API can't read a macro's.
        #[serde(rename_all = "camelCase")]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)*
        }

        impl $name {
            /// Every one, in its order.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The word.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)*
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl FromStr for $name {
            type Err = WordError;

            fn from_str(value: &str) -> Result<Self, WordError> {
                let found = Self::ALL.iter().find(|word| word.as_str().eq_ignore_ascii_case(value));
                found.copied().ok_or_else(|| WordError {
                    value: value.chars().take(40).collect(),
                    known: [$($word),*].join(", "),
                })
            }
        }
    };
}

/// Why a word was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{value:?} is not known here: it must be one of {known}")]
pub struct WordError {
    value: String,
    known: String,
}

words! {
    /// Where a job stands.
    JobState {
        /// Waits for its time: a job for later, or the next attempt of one that failed.
        Scheduled = "scheduled",
        /// Waits for a worker.
        Enqueued = "enqueued",
        /// An attempt of it runs.
        Processing = "processing",
        /// Waits for the end of another job or batch.
        Awaiting = "awaiting",
        /// An attempt succeeded.
        Succeeded = "succeeded",
        /// Its attempts are used up. It stays until somebody requeues or deletes it.
        Failed = "failed",
        /// Somebody gave it up, or it was to vanish where it fails.
        Deleted = "deleted",
    }
}

impl JobState {
    /// Whether nothing comes after it by itself.
    #[must_use]
    pub fn is_end(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Deleted)
    }
}

words! {
    /// After which end of another job or batch a job goes on.
    ContinueOn {
        /// Only when it succeeded.
        Succeeded = "succeeded",
        /// After any end.
        Ended = "ended",
    }
}

words! {
    /// What becomes of ticks of a schedule that no server was there for.
    Misfire {
        /// One run makes up for all of them.
        One = "one",
        /// Each of them is run.
        All = "all",
        /// They are passed over.
        None = "none",
    }
}

words! {
    /// What a tick does while the job of an earlier one has not ended.
    Overlap {
        /// It is passed over.
        Skip = "skip",
        /// It is run all the same.
        Allow = "allow",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_the_same_everywhere() {
        fn check<T: Serialize + utoipa::PartialSchema>(words: &[T], text: impl Fn(&T) -> &'static str) {
            let said: Vec<_> = words.iter().map(|word| serde_json::json!(text(word))).collect();
            assert_eq!(serde_json::to_value(words).expect("words"), serde_json::json!(said));
            assert_eq!(serde_json::to_value(T::schema()).expect("a schema")["enum"], serde_json::json!(said));
        }
        check(JobState::ALL, |word| word.as_str());
        check(ContinueOn::ALL, |word| word.as_str());
        check(Misfire::ALL, |word| word.as_str());
        check(Overlap::ALL, |word| word.as_str());
    }
}
