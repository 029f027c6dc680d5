//! The readers of what comes from outside, for the fuzzer: the server's own files, by links, and nothing of what
//! stands around them, so that a target builds in a minute.
#![allow(missing_docs, dead_code, reason = "the files belong to another crate, which checks them")]

pub mod api;
pub mod config;
pub mod function;
pub mod hub;
pub mod security;
