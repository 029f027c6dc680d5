//! sharpfaas: a function host.

pub mod artifacts;
pub mod catalog;
pub mod cli;
pub mod config;
pub mod database;
pub mod function;
pub mod publish;
pub mod runtime;
pub mod store;
