//! The tables as they are. What their columns mean is with the types that are made of them.

pub(super) mod function;
pub(super) mod invocation;
pub(super) mod version;
