//! The codec of the hub.

pub mod messages;
pub mod records;

pub use messages::END;
