//! The SQL database.
