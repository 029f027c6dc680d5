//! Python, with componentize-py: `app.py` has the function, `requirements.txt` says what it needs.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use super::{Built, run, tool};
use crate::{
    cli::{Failure, package::name_of},
    function::FunctionType,
};

/// The module with the function.
pub const MODULE: &str = "app.py";
/// What the project needs.
const NEEDED: &str = "requirements.txt";
/// Where the SDK lies in projects that `sharpfaas new` made.
const SDK: &str = "vendor/sharpfaas";
const INSTALL: &str =
    "install Python 3.11 or later, with its module venv, as with 'apt-get install python3 python3-venv'";

pub async fn build(folder: &Path) -> Result<Built, Failure> {
    let name = name_of(folder)?;
    let python = python(folder).await?;
    let file = folder.join("dist").join(format!("{name}.wasm"));
    let mut command = tool(&python, folder);
    command.args(["-m", "sharpfaas.build", "app", "--out"]).arg(&file);
    let sdk = folder.join(SDK);
    if sdk.is_dir() {
        let paths = env::var_os("PYTHONPATH").unwrap_or_default();
        let paths = [sdk].into_iter().chain(env::split_paths(&paths).filter(|path| !path.as_os_str().is_empty()));
        let paths = env::join_paths(paths).map_err(|error| Failure::local(format!("PYTHONPATH: {error}")))?;
        command.env("PYTHONPATH", paths);
    }
    run(&mut command, INSTALL).await?;
    Ok(Built { name, kind: FunctionType::Dll, file })
}

/// The Python of the environment that is active, or else of the project's own, which is made where it is missing and
/// gets what the project needs.
async fn python(folder: &Path) -> Result<PathBuf, Failure> {
    if let Some(active) = env::var_os("VIRTUAL_ENV").filter(|active| !active.is_empty()) {
        return Ok(Path::new(&active).join("bin/python"));
    }
    let own = folder.join(".venv");
    let python = own.join("bin/python");
    if !python.is_file() {
        run(tool("python3", folder).args(["-m", "venv"]).arg(&own), INSTALL).await?;
    }
    let needed = folder.join(NEEDED);
    let Ok(needs) = fs::read(&needed) else { return Ok(python) };
    // What was installed last; written when that is done.
    let installed = own.join("sharpfaas-installed.txt");
    if fs::read(&installed).is_ok_and(|last| last == needs) {
        return Ok(python);
    }
    let mut pip = tool(&python, folder);
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--requirement"]).arg(&needed);
    run(&mut pip, INSTALL).await?;
    fs::write(&installed, needs).map_err(|error| Failure::local(format!("{}: {error}", installed.display())))?;
    Ok(python)
}
