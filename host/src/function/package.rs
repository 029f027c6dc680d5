//! Packages as they come: zips read as hostile.
