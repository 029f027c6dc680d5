//! The tables as they are. What their columns mean is with the types that are made of them.

pub(super) mod audit;
pub(super) mod function;
pub(super) mod invocation;
pub(super) mod payload_id;
pub(super) mod token;
pub(super) mod token_node;
pub(super) mod token_revision;
pub(super) mod version;
