//! sharpfaas: a function host.
//!
//! People push functions as zips and call them by name, lane and version. The way of a call:
//!
//! ```text
//! api::door           who asks
//! api::run            parse the request
//! invoke::Invoker     1 a place  2 catalog: the version  3 artifacts: ready to run
//!                     4 runtime: a component in its own instance, or a subprocess  5 history
//! api::run            write the answer
//! ```
//! and of a push:
//!
//! ```text
//! api::push           receive the zip
//! publish::Publisher  read it as hostile, compile and check it, stage it in the store, rename it into
//!                     place as the next version, tell the catalog
//! ```
//! Imports point one way: `main → cli, server → hub → api → jobs → invoke, publish → catalog, artifacts, key_values → store,
//! runtime, database → function, config`; `security` stands above `database`. Only `state` sees all.

pub mod allocator;
pub mod api;
pub mod artifacts;
pub mod catalog;
pub mod cli;
pub mod config;
pub mod database;
pub mod function;
pub mod hub;
pub mod invoke;
pub mod jobs;
pub mod key_values;
pub mod metrics;
pub mod publish;
pub mod runtime;
pub mod security;
pub mod server;
pub mod state;
pub mod store;
pub mod telemetry;
