//! What the tests of several parts share.

pub mod authority;
pub mod fixtures;
pub mod ftp_proxy;
pub mod ftp_server;
pub mod numbered;
pub mod process;
pub mod raw;
pub mod server;
pub mod websocket;
