//! The words of the domain: names, versions, packages, manifests, invocations and their outcomes.
//!
//! Nothing in here does network or database work, and nothing in here imports another module of
//! ours: everything else stands on it. What comes from outside is parsed into these types once, so
//! that nothing below ever holds an unchecked name.

pub mod code;
pub mod declaration;
pub mod invocation;
pub mod job;
pub mod kind;
pub mod manifest;
pub mod name;
pub mod network;
pub mod outcome;
pub mod output;
pub mod package;
pub mod pattern;
pub mod reference;
pub mod result;
pub mod shape;
pub mod version;

pub use code::ErrorCode;
pub use declaration::{Asks, Declaration, DeclarationError, DeclaredLimits};
pub use invocation::{Confidential, Invocation, InvocationId, Seal};
pub use job::{ContinueOn, JobId, JobState, Misfire, Overlap, WordError};
pub use kind::FunctionType;
pub use manifest::{Manifest, PushId};
pub use name::{CallerId, EntryName, FunctionName, Lane, NameError, QueueName, TokenName};
pub use outcome::{Failure, FailureKind, Outcome, Status, Usage};
pub use output::{OutputLine, Stream, timestamp};
pub use reference::{Digest, FunctionRef, Location};
pub use result::ResultText;
pub use shape::Shape;
pub use version::{Selector, Version, VersionError};
