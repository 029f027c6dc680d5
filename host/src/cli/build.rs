//! `sharpfaas build`

use std::{fs, io, os::unix::fs::PermissionsExt as _, path::PathBuf};

use clap::Args;
use serde_json::json;

use super::{Failure, Terminal, project::Project, terminal};

/// `build`
#[derive(Debug, Args)]
pub struct BuildArgs {
    /// The project's folder.
    #[arg(default_value = ".")]
    pub path: PathBuf,
    /// The package to write; dist/NAME.zip in the project where none is given.
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Print JSON on standard output, for programs.
    #[arg(long)]
    pub json: bool,
}

/// Builds the project, makes its package, and prints where that is.
pub async fn build(args: BuildArgs, terminal: &mut Terminal) -> Result<(), Failure> {
    let project = Project::find(&args.path)?;
    let built = project.build().await?;
    let mut package = project.package(&built)?;
    let to = args.out.unwrap_or_else(|| args.path.join("dist").join(format!("{}.zip", built.name)));
    let failed = |error: &io::Error| Failure::local(format!("{} can't be written: {error}", to.display()));
    let folder = match to.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => std::path::Path::new("."),
    };
    fs::create_dir_all(folder).map_err(|error| failed(&error))?;
    // Whole or not at all.
    let mut file = tempfile::Builder::new()
        .prefix(".package")
        .permissions(fs::Permissions::from_mode(0o666))
        .tempfile_in(folder)
        .map_err(|error| failed(&error))?;
    io::copy(&mut package.file, &mut file).map_err(|error| failed(&error))?;
    file.persist(&to).map_err(|error| failed(&error.error))?;
    if args.json {
        let kind = built.kind.as_str();
        let about = json!({ "name": built.name.as_str(), "type": kind, "package": to, "size": package.size });
        return terminal.print(&about.to_string());
    }
    terminal.print(&format!("{} ({}, {})", to.display(), built.kind.as_str(), terminal::size(package.size)))
}
