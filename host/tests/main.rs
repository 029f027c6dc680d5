//! The integration tests: one binary, a module a feature.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test fails by panicking, helpers of tests too, and says what it skips"
)]

mod common;
mod crash;
mod database;
mod develop;
mod engine;
mod faults;
mod fleet;
mod grants;
mod hostile;
mod http;
mod hub;
mod jobs;
mod outage;
mod sandbox;
mod security;
mod services;
mod shapes;
mod spine;
mod store;
