//! The binary `sharpfaas`.

fn main() {}
