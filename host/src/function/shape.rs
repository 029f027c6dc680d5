//! What a component is, by what it exports.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How a component is run. Its exports tell; where it has several, the first in the order of [`Shape::ALL`] counts,
/// unless its package says another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Shape {
    /// It exports `execute: func(payload: string) -> result<string, string>`.
    Execute,
    /// It exports `wasi:http/handler@0.3` or `wasi:http/incoming-handler@0.2`: it answers HTTP requests.
    Http,
    /// It exports `wasi:cli/run@0.3` or `@0.2`, or was a core module of WASI preview 1 with `_start`: a command line, its
    /// payload the first argument and standard input, its standard output the result.
    Command,
}

impl Shape {
    /// All of them, in the order in which one is picked of several.
    pub const ALL: [Self; 3] = [Self::Execute, Self::Http, Self::Command];

    /// The name on the wire, in manifests and in the database.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Execute => "execute",
            Self::Http => "http",
            Self::Command => "command",
        }
    }

    /// The shape of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|shape| shape.as_str() == name)
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
