//! Compiling components, and finding out what they are.

use std::{borrow::Cow, path::Path};

use wasi_preview1_component_adapter_provider::{
    WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME as PREVIEW1, WASI_SNAPSHOT_PREVIEW1_COMMAND_ADAPTER as COMMAND_ADAPTER,
    WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER as REACTOR_ADAPTER,
};
use wasmparser::{Parser, Payload};
use wasmtime::component::{Component, Type, types::ComponentItem};
use wit_component::ComponentEncoder;

use super::{Abi, EXECUTE, Ready, command, http, linker, settings};
use crate::function::Shape;

/// The first bytes of a core module.
const MODULE: &[u8] = b"\0asm\x01\0\0\0";
/// What `execute` must be.
const EXECUTE_TYPE: &str = "execute: func(payload: string) -> result<string, string>";

/// Why a component was refused. Texts are for whoever pushed it, but for `Host`.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    /// It is no valid component.
    #[error("the file is not a valid component: {0}")]
    Invalid(String),
    /// It is valid, but can't run here: it lacks the export, or imports what the host does not have.
    #[error("the component cannot run here: {0}")]
    Unsuitable(String),
    /// The compiler or its files failed.
    #[error("the compiler failed: {0}")]
    Host(String),
}

/// Compiles the component in the file `input` into machine code in the new file `output`, and checks
/// that it can run: that it exports what one of the shapes needs, and imports nothing that the host does not have.
/// Of a core module a component is made first. Gives the ABI that the code is for.
///
/// Hostile components can make the compiler take long and much memory, so this belongs into a child
/// process with limits.
///
/// # Errors
/// When the component is not valid, can't run here, or the files can't be read or written.
pub fn compile(input: &Path, output: &Path) -> Result<Abi, CompileError> {
    let failed = |error: wasmtime::Error| CompileError::Host(format!("{error:#}"));
    let unsuitable = |error: wasmtime::Error| CompileError::Unsuitable(format!("{error:#}"));
    let bytes = std::fs::read(input).map_err(|error| CompileError::Host(format!("cannot read it: {error}")))?;
    let is_module = bytes.starts_with(MODULE);
    let bytes = if is_module { componentized(&bytes)?.into() } else { Cow::Borrowed(&*bytes) };
    let abi = Abi::of(&bytes);
    let engine = wasmtime::Engine::new(&settings(abi)).map_err(failed)?;
    let component =
        Component::from_binary(&engine, &bytes).map_err(|error| CompileError::Invalid(format!("{error:#}")))?;
    check_execute(&engine, &component)?;
    let shapes = shapes(&component);
    if shapes.is_empty() {
        let cause = shapeless(&engine, &component);
        return Err(if is_module { no_component(&cause) } else { CompileError::Unsuitable(cause) });
    }
    let linked = linker(&engine, abi).map_err(failed)?.instantiate_pre(&component).map_err(unsuitable)?;
    for shape in shapes {
        Ready::new(linked.clone(), shape).map_err(|error| {
            CompileError::Unsuitable(format!("its export for the shape '{shape}' has another type: {error:#}"))
        })?;
    }
    let code = component.serialize().map_err(failed)?;
    std::fs::write(output, code).map_err(|error| CompileError::Host(format!("cannot write it: {error}")))?;
    Ok(abi)
}

/// What a component can be run as, the first choice first.
pub(super) fn shapes(component: &Component) -> Vec<Shape> {
    let exported = |name: &&str| component.get_export_index(None, *name).is_some();
    Shape::ALL.into_iter().filter(|shape| exports(*shape).iter().any(exported)).collect()
}

/// The exports that a shape is known by, the first choice first. Minor versions are found alike.
fn exports(shape: Shape) -> &'static [&'static str] {
    match shape {
        Shape::Execute => &[EXECUTE],
        Shape::Http => &[http::HANDLER_3, "wasi:http/incoming-handler@0.2.0"],
        Shape::Command => &[command::RUN_3, "wasi:cli/run@0.2.0"],
    }
}

/// A component made of a core module: a command line of WASI preview 1, or a module that says in itself which world it is
/// of, as those do that are made with the bindings of wit-bindgen.
fn componentized(module: &[u8]) -> Result<Vec<u8>, CompileError> {
    let encoder = ComponentEncoder::default().module(module);
    let adapter = Preview1::of(module).adapter();
    let encoder = match adapter {
        Some(adapter) => encoder.and_then(|encoder| encoder.adapter(PREVIEW1, adapter)),
        None => encoder,
    };
    let encoded = encoder.and_then(|encoder| encoder.validate(true).encode());
    encoded.map_err(|error| no_component(&format!("{error:#}")))
}

/// Why no component could be made of a core module.
fn no_component(cause: &str) -> CompileError {
    CompileError::Unsuitable(format!(
        "it is a core WebAssembly module, of which a component can be made only where it is a command line of WASI preview \
         1 with an export '_start', or holds the types of its world as the bindings of wit-bindgen do: {cause}; build it \
         for the target wasm32-wasip2, or make it a component with 'wasm-tools component new'"
    ))
}

/// How a core module uses WASI preview 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Preview1 {
    /// As a program, from its start to its end.
    Command,
    /// As what a library needs whose functions are called.
    Reactor,
    /// Not at all.
    Unused,
}

impl Preview1 {
    /// Of what is no valid module it says anything: making a component of that fails.
    fn of(module: &[u8]) -> Self {
        let (mut imported, mut starts) = (false, false);
        for payload in Parser::new(0).parse_all(module) {
            match payload {
                Ok(Payload::ImportSection(imports)) => {
                    imported |= imports.into_imports().flatten().any(|import| import.module == PREVIEW1);
                }
                Ok(Payload::ExportSection(exports)) => {
                    starts |= exports.into_iter().flatten().any(|export| export.name == "_start");
                }
                Ok(_) => {}
                Err(_) => break,
            }
        }
        match (starts, imported) {
            (true, _) => Self::Command,
            (false, true) => Self::Reactor,
            (false, false) => Self::Unused,
        }
    }

    fn adapter(self) -> Option<&'static [u8]> {
        match self {
            Self::Command => Some(COMMAND_ADAPTER),
            Self::Reactor => Some(REACTOR_ADAPTER),
            Self::Unused => None,
        }
    }
}

fn shapeless(engine: &wasmtime::Engine, component: &Component) -> String {
    let exported: Vec<_> = component.component_type().exports(engine).map(|(name, _)| name.to_owned()).collect();
    let what = if exported.is_empty() { "nothing".to_owned() } else { format!("'{}'", exported.join("', '")) };
    let [http, command] = [Shape::Http, Shape::Command].map(|shape| exports(shape).join("', '"));
    format!("it must export '{EXECUTE_TYPE}', '{http}' or '{command}', and exports {what}")
}

/// That an export of that name is what it must be: the error of the bindings would not say what that is.
fn check_execute(engine: &wasmtime::Engine, component: &Component) -> Result<(), CompileError> {
    let ty = component.component_type();
    let Some(export) = ty.get_export(engine, EXECUTE) else { return Ok(()) };
    let ComponentItem::ComponentFunc(function) = export.ty else {
        return Err(CompileError::Unsuitable(format!(
            "its export 'execute' is no function; it must be '{EXECUTE_TYPE}'"
        )));
    };
    let string = |ty: &Type| matches!(ty, Type::String);
    let takes: Vec<_> = function.params().map(|(_, ty)| ty).collect();
    let gives: Vec<_> = function.results().collect();
    let right = matches!(takes.as_slice(), [payload] if string(payload))
        && matches!(gives.as_slice(), [Type::Result(result)]
            if result.ok().as_ref().is_some_and(string) && result.err().as_ref().is_some_and(string));
    if right {
        Ok(())
    } else {
        Err(CompileError::Unsuitable(format!("its export 'execute' has another type; it must be '{EXECUTE_TYPE}'")))
    }
}
