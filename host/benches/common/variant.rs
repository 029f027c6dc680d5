//! Components of which no two are the same to the server.

use std::{fs, path::Path};

use super::common::{Failure, echo_component};

/// Writes the example `echo`, with a number of its own in it.
pub fn variant(number: usize, at: &Path) -> Result<(), Failure> {
    let mut component = fs::read(echo_component()?)?;
    // A custom section: its length, and its name with its length before it (WebAssembly, section 5.5.3).
    let name = format!("variant {number:08}");
    component.extend([0, u8::try_from(name.len() + 1)?, u8::try_from(name.len())?]);
    component.extend(name.as_bytes());
    Ok(fs::write(at, component)?)
}
