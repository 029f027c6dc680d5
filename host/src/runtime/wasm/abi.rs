//! Which ABI of the component model a component needs.
//!
//! Functions, streams and futures of the async ABI, which WASI 0.3 is made of, need an engine that can have several
//! tasks of a component wait at once. That costs each call some microseconds, so those that do without it have an
//! engine without it.

use wasmparser::{Parser, Payload, Validator, WasmFeatures};

/// The ABI that a component needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Abi {
    /// That of WASI 0.2, where whoever calls waits for the end.
    Sync,
    /// That of WASI 0.3.
    Async,
}

impl Abi {
    /// Both of them.
    pub const ALL: [Self; 2] = [Self::Sync, Self::Async];

    /// The ABI that a component needs. Of what is no valid component it says either: the compiler refuses that.
    pub(super) fn of(component: &[u8]) -> Self {
        if imports_of_3(component) || !is_valid_without_async(component) { Self::Async } else { Self::Sync }
    }
}

/// Whether it imports something of WASI 0.3: a part of that is plain, but all of it is offered together.
fn imports_of_3(component: &[u8]) -> bool {
    let mut depth = 0_u32;
    for payload in Parser::new(0).parse_all(component) {
        match payload {
            Ok(Payload::Version { .. }) => depth += 1,
            Ok(Payload::End(_)) => depth = depth.saturating_sub(1),
            // Of what it is made of, nothing is linked with the host.
            Ok(Payload::ComponentImportSection(imports)) if depth == 1 => {
                let mut names = imports.into_iter().filter_map(|import| Some(import.ok()?.name.name));
                if names.any(|name| name.starts_with("wasi:") && name.contains("@0.3.")) {
                    return true;
                }
            }
            Ok(_) => {}
            Err(_) => return false,
        }
    }
    false
}

/// Whether a component is valid without the async ABI, the code of its functions aside.
fn is_valid_without_async(component: &[u8]) -> bool {
    let features = WasmFeatures::default().difference(WasmFeatures::CM_ASYNC);
    let mut validator = Validator::new_with_features(features);
    Parser::new(0).parse_all(component).all(|payload| payload.is_ok_and(|payload| validator.payload(&payload).is_ok()))
}
