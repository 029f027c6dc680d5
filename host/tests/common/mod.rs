//! What the tests of several parts share.

pub mod ftp_proxy;
pub mod ftp_server;
