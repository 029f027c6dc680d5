//! WebAssembly components in wasmtime.

/// A component ready to run.
#[derive(Debug)]
pub struct Component;
