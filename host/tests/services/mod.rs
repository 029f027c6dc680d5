//! Tests against real servers.

mod ftp;
mod postgres;
