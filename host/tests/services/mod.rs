//! Tests against real servers.

mod clients;
mod ftp;
mod jobs;
mod postgres;
mod sdks;
mod signalr;
mod tokens;
mod wasmtime;
