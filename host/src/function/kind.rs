//! The two types of function.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// What a package holds and how it runs. The names are those of the .NET ancestor and stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum FunctionType {
    /// A WebAssembly component, each call in an instance of its own.
    #[default]
    Dll,
    /// A native program, each call a subprocess.
    Exe,
}

/// Why a type was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("type {0:?} is not valid: it must be 'dll' (a WebAssembly component) or 'exe' (a native program)")]
pub struct TypeError(String);

impl FunctionType {
    /// The name on the wire and in the database.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Dll => "dll",
            Self::Exe => "exe",
        }
    }
}

impl FromStr for FunctionType {
    type Err = TypeError;

    fn from_str(value: &str) -> Result<Self, TypeError> {
        if value.eq_ignore_ascii_case("dll") {
            Ok(Self::Dll)
        } else if value.eq_ignore_ascii_case("exe") {
            Ok(Self::Exe)
        } else {
            Err(TypeError(value.chars().take(40).collect()))
        }
    }
}

impl fmt::Display for FunctionType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
