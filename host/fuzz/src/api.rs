//! What the fields of a request need of the API.

mod fields;
pub mod line;

pub use fields::Fields;

/// A refusal.
#[derive(Debug)]
pub struct Problem(String);

impl Problem {
    pub fn invalid(detail: impl Into<String>) -> Self {
        Self(detail.into())
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

macro_rules! refusal {
    ($($error:ty),*) => { $(impl From<$error> for Problem {
        fn from(error: $error) -> Self {
            Self(error.to_string())
        }
    })* };
}

refusal!(crate::function::NameError, crate::function::VersionError, crate::function::kind::TypeError);
