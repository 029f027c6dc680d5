//! A store on an FTP server.
