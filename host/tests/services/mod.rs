//! Tests against real servers.

mod postgres;
