//! A project on this machine, and how it is built: with the tools of its language, which say themselves what is wrong
//! with the code.

use std::{
    io,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
};

use serde::Deserialize;
use tokio::process::Command;

use super::{Failure, package::Package};
use crate::function::{EntryName, FunctionName, FunctionType};

mod javascript;
mod python;
mod rust;

/// What a function may say of itself; it goes into the package as it is.
const MANIFEST: &str = "sharpfaas.toml";

/// A folder that something can be built in.
#[derive(Debug)]
pub struct Project {
    /// With no symbolic link in it.
    pub folder: PathBuf,
    language: Language,
}

#[derive(Debug, Clone, Copy)]
enum Language {
    Rust,
    JavaScript,
    Python,
}

/// What came of building.
#[derive(Debug)]
pub struct Built {
    /// The function's name, which the project gives it.
    pub name: FunctionName,
    /// Whether it is a component or a program.
    pub kind: FunctionType,
    /// The component or program.
    pub file: PathBuf,
}

impl Project {
    /// The project in that folder.
    pub fn find(folder: &Path) -> Result<Self, Failure> {
        let usage = |why: &str| Failure::Usage(format!("{}: {why}", folder.display()));
        let folder = std::fs::canonicalize(folder).map_err(|error| usage(&error.to_string()))?;
        let language = [
            ("Cargo.toml", Language::Rust),
            ("package.json", Language::JavaScript),
            (python::MODULE, Language::Python),
        ]
        .into_iter()
        .find(|(file, _)| folder.join(file).is_file())
        .map(|(_, language)| language)
        .ok_or_else(|| {
            usage(
                "there is no project here: a Cargo.toml, a package.json or an app.py tells one; \
                 'sharpfaas new NAME' makes one",
            )
        })?;
        Ok(Self { folder, language })
    }

    /// Builds it, with what that needs installed first. The tools write to standard error of this process.
    pub async fn build(&self) -> Result<Built, Failure> {
        match self.language {
            Language::Rust => rust::build(&self.folder).await,
            Language::JavaScript => javascript::build(&self.folder).await,
            Language::Python => python::build(&self.folder).await,
        }
    }

    /// The package of what was built.
    pub fn package(&self, built: &Built) -> Result<Package, Failure> {
        let entry = match built.kind {
            FunctionType::Dll => format!("{}.wasm", built.name),
            FunctionType::Exe => built.name.to_string(),
        };
        let mut files = vec![(built.file.clone(), entry_name(&entry)?)];
        let manifest = self.folder.join(MANIFEST);
        if manifest.is_file() {
            files.push((manifest, entry_name(MANIFEST)?));
        }
        Package::of_files(&files, built.kind)
    }
}

fn entry_name(name: &str) -> Result<EntryName, Failure> {
    EntryName::parse(name).map_err(|error| Failure::Usage(format!("{name}: {error}")))
}

/// The name that a tool's own file gives the function.
fn function_name(file: &str, name: &str) -> Result<FunctionName, Failure> {
    FunctionName::parse(name).map_err(|error| Failure::Usage(format!("{file} names it '{name}': {error}")))
}

/// A tool that runs in the project's folder. What it prints goes to standard error: standard output is for results.
fn tool(program: impl AsRef<std::ffi::OsStr>, folder: &Path) -> Command {
    let mut command = Command::new(program);
    command.current_dir(folder).stdin(Stdio::null()).stdout(io::stderr()).kill_on_drop(true);
    command
}

/// Runs a tool to its end; `install` says how to come by it.
async fn run(command: &mut Command, install: &str) -> Result<(), Failure> {
    let status = command.status().await.map_err(|error| missing(command, &error, install))?;
    ended(command, status)
}

/// What it prints on standard output.
async fn output(command: &mut Command, install: &str) -> Result<String, Failure> {
    command.stdout(Stdio::piped()).stderr(Stdio::inherit());
    let child = command.spawn().map_err(|error| missing(command, &error, install))?;
    let output = child.wait_with_output().await.map_err(|error| Failure::local(error.to_string()))?;
    ended(command, output.status)?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn named(command: &Command) -> String {
    command.as_std().get_program().to_string_lossy().into_owned()
}

fn missing(command: &Command, error: &io::Error, install: &str) -> Failure {
    let name = named(command);
    Failure::local(match error.kind() {
        io::ErrorKind::NotFound => format!("{name} is missing: {install}"),
        _ => format!("{name} can't be run: {error}"),
    })
}

fn ended(command: &Command, status: ExitStatus) -> Result<(), Failure> {
    if status.success() {
        return Ok(());
    }
    let words: Vec<_> = command.as_std().get_args().take(2).map(std::ffi::OsStr::to_string_lossy).collect();
    Err(Failure::Function(format!(
        "it could not be built: '{} {}' failed with {status}",
        named(command),
        words.join(" ")
    )))
}

/// Reads what a tool answers.
fn read<'a, T: Deserialize<'a>>(what: &str, text: &'a str) -> Result<T, Failure> {
    serde_json::from_str(text).map_err(|error| Failure::local(format!("{what}: {error}")))
}
