//! Tests against real servers.

mod clients;
mod ftp;
mod postgres;
mod tokens;
