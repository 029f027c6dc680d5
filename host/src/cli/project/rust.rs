//! Rust, with Cargo: a `cdylib` becomes a component, a program a program.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{Built, function_name, output, read, tool};
use crate::{cli::Failure, function::FunctionType};

const INSTALL: &str = "install Rust from https://rustup.rs";
/// What components are built for.
const TARGET: &str = "wasm32-wasip2";

/// What `cargo metadata` says.
#[derive(Deserialize)]
struct Metadata {
    packages: Vec<CargoPackage>,
}

#[derive(Deserialize)]
struct CargoPackage {
    name: String,
    id: String,
    manifest_path: PathBuf,
    targets: Vec<Target>,
    default_run: Option<String>,
}

#[derive(Deserialize, PartialEq)]
struct Target {
    name: String,
    kind: Vec<String>,
}

impl Target {
    fn is(&self, kind: &str) -> bool {
        self.kind.iter().any(|own| own == kind)
    }
}

/// A line of `cargo build --message-format=json`.
#[derive(Deserialize)]
struct Message {
    reason: String,
    #[serde(default)]
    package_id: String,
    target: Option<Target>,
    #[serde(default)]
    filenames: Vec<PathBuf>,
    executable: Option<PathBuf>,
}

pub async fn build(folder: &Path) -> Result<Built, Failure> {
    let mut metadata = tool("cargo", folder);
    metadata.args(["metadata", "--no-deps", "--format-version", "1"]);
    let metadata = output(&mut metadata, INSTALL).await?;
    let Metadata { packages } = read("cargo metadata", &metadata)?;
    let manifest = folder.join("Cargo.toml");
    let package = packages.into_iter().find(|package| package.manifest_path == manifest).ok_or_else(|| {
        Failure::Usage(format!(
            "{} describes no package but a workspace: name the folder of the function's package",
            manifest.display()
        ))
    })?;
    let (target, kind) = target(&package)?;

    let mut build = tool("cargo", folder);
    build.args(["build", "--release", "--message-format", "json-render-diagnostics", "--package", &package.id]);
    match kind {
        FunctionType::Dll => {
            has_target(folder).await?;
            build.args(["--lib", "--target", TARGET]);
        }
        FunctionType::Exe => {
            build.args(["--bin", &target.name]);
        }
    }
    let said = output(&mut build, INSTALL).await?;
    let mut file = None;
    for line in said.lines().filter(|line| line.starts_with('{')) {
        let message: Message = read("cargo build", line)?;
        let ours = message.reason == "compiler-artifact" && message.package_id == package.id;
        if ours && message.target.as_ref() == Some(target) {
            let component = || message.filenames.iter().find(|file| file.extension().is_some_and(|end| end == "wasm"));
            file = message.executable.clone().or_else(|| component().cloned());
        }
    }
    let file = file.ok_or_else(|| Failure::local("cargo built the project, and does not say which file it made"))?;
    Ok(Built { name: function_name("Cargo.toml", &package.name)?, kind, file })
}

/// Which of the package's targets is the function.
fn target(package: &CargoPackage) -> Result<(&Target, FunctionType), Failure> {
    if let Some(library) = package.targets.iter().find(|target| target.is("cdylib")) {
        return Ok((library, FunctionType::Dll));
    }
    let programs: Vec<_> = package.targets.iter().filter(|target| target.is("bin")).collect();
    let chosen = match programs.as_slice() {
        [program] => Some(*program),
        several => several.iter().copied().find(|program| Some(&program.name) == package.default_run.as_ref()),
    };
    chosen.map(|program| (program, FunctionType::Exe)).ok_or_else(|| {
        Failure::Usage(if programs.is_empty() {
            "Cargo.toml: a component needs '[lib] crate-type = [\"cdylib\"]', and a program a src/main.rs".into()
        } else {
            "Cargo.toml: there are several programs: name the function's as 'default-run'".into()
        })
    })
}

async fn has_target(folder: &Path) -> Result<(), Failure> {
    let mut command = tool("rustc", folder);
    let root = output(command.args(["--print", "sysroot"]), INSTALL).await?;
    if Path::new(root.trim()).join("lib/rustlib").join(TARGET).is_dir() {
        return Ok(());
    }
    Err(Failure::local(format!("the Rust target {TARGET} is missing: run 'rustup target add {TARGET}'")))
}
