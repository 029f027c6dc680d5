//! JavaScript and TypeScript, with npm: the script `build` of `package.json` makes `dist/NAME.wasm`.

use std::{collections::BTreeMap, fs, io, path::Path};

use serde::Deserialize;

use super::{Built, function_name, run, tool};
use crate::{cli::Failure, function::FunctionType};

const INSTALL: &str = "install Node.js 20 or later, with npm, from https://nodejs.org";
/// What npm writes when it has installed all that a project names.
const INSTALLED: &str = "node_modules/.package-lock.json";

#[derive(Deserialize)]
struct Description {
    #[serde(default)]
    name: String,
    #[serde(default)]
    scripts: BTreeMap<String, String>,
}

pub async fn build(folder: &Path) -> Result<Built, Failure> {
    let text = fs::read_to_string(folder.join("package.json"));
    let text = text.map_err(|error| Failure::Usage(format!("package.json: {error}")))?;
    let Description { name, scripts } =
        serde_json::from_str(&text).map_err(|error| Failure::Usage(format!("package.json: {error}")))?;
    // The part before it is whose the package is.
    let name = function_name("package.json", name.rsplit('/').next().unwrap_or_default())?;
    if !scripts.contains_key("build") {
        return Err(Failure::Usage(
            "package.json: 'scripts' has no 'build'; with the SDK it is \"build\": \"sharpfaas-build\"".into(),
        ));
    }
    if !is_installed(folder) {
        run(tool("npm", folder).args(["install", "--no-audit", "--no-fund"]), INSTALL).await?;
    }
    let file = folder.join("dist").join(format!("{name}.wasm"));
    // What is there afterwards is what was built now.
    if let Err(error) = fs::remove_file(&file)
        && error.kind() != io::ErrorKind::NotFound
    {
        return Err(Failure::local(format!("{}: {error}", file.display())));
    }
    run(tool("npm", folder).args(["run", "build", "--silent"]), INSTALL).await?;
    if !file.is_file() {
        return Err(Failure::Function(format!(
            "it could not be built: 'npm run build' went well, and wrote no dist/{name}.wasm"
        )));
    }
    Ok(Built { name, kind: FunctionType::Dll, file })
}

/// Whether npm has installed what the project names, since it last changed.
fn is_installed(folder: &Path) -> bool {
    let at = |file: &str| fs::metadata(folder.join(file)).and_then(|metadata| metadata.modified()).ok();
    at(INSTALLED).is_some_and(|installed| at("package.json").is_none_or(|changed| changed <= installed))
}
