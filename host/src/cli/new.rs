//! `sharpfaas new`

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use clap::{Args, ValueEnum};

use super::{Failure, Terminal};
use crate::function::FunctionName;

mod files;

/// What can't name a package of Cargo: words of the language, and crates that every project knows.
const RESERVED: [&str; 52] = [
    "abstract", "alloc", "as", "async", "await", "become", "box", "break", "const", "continue", "core", "crate", "do",
    "dyn", "else", "enum", "extern", "false", "final", "fn", "for", "gen", "if", "impl", "in", "let", "loop", "macro",
    "match", "mod", "move", "mut", "override", "priv", "pub", "ref", "return", "self", "serde", "static", "std",
    "struct", "super", "test", "trait", "true", "try", "type", "unsafe", "use", "where", "while",
];

/// What kind of project is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Template {
    /// A component in Rust.
    Rust,
    /// A component in Rust that answers HTTP.
    RustHttp,
    /// A component in JavaScript or TypeScript.
    Js,
    /// A component in Python.
    Python,
    /// A native program, in Rust.
    Exe,
}

/// `new`
#[derive(Debug, Args)]
pub struct NewArgs {
    /// The folder to make; its last part is the function's name.
    #[arg(value_name = "NAME")]
    pub path: PathBuf,
    /// What to make.
    #[arg(long, short, value_enum, default_value_t = Template::Rust)]
    pub template: Template,
    /// Print JSON on standard output, for programs.
    #[arg(long)]
    pub json: bool,
}

/// Makes the folder of a project that is ready to be built and run.
pub fn new(args: &NewArgs, terminal: &mut Terminal) -> Result<(), Failure> {
    let path = &args.path;
    let name = name(path, args.template).map_err(|why| Failure::Usage(format!("NAME {}: {why}", path.display())))?;
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        fs::create_dir_all(parent).map_err(|error| failed(parent, &error))?;
    }
    fs::create_dir(path).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => {
            Failure::Usage(format!("NAME {}: it is there already; give another, or remove it", path.display()))
        }
        _ => failed(path, &error),
    })?;
    for (file, text) in files::of(args.template) {
        let to = path.join(file);
        let written = to.parent().map_or(Ok(()), fs::create_dir_all);
        written.and_then(|()| fs::write(&to, text.replace("{{name}}", &name))).map_err(|error| failed(&to, &error))?;
    }
    if args.json {
        let template = args.template.to_possible_value().map(|value| value.get_name().to_owned());
        return terminal.print(&serde_json::json!({ "name": name, "folder": path, "template": template }).to_string());
    }
    terminal.note(&format!("made {}; now:\n  cd {}\n  sharpfaas dev", path.display(), path.display()));
    Ok(())
}

fn failed(path: &Path, error: &io::Error) -> Failure {
    Failure::local(format!("{} can't be made: {error}", path.display()))
}

/// The project's name, which the function has too, and what builds it must take.
fn name(path: &Path, template: Template) -> Result<String, String> {
    let name = path.file_name().and_then(|name| name.to_str()).ok_or("it ends in no name")?;
    FunctionName::parse(name).map_err(|error| error.to_string())?;
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if !name.starts_with(|c: char| c.is_ascii_alphabetic()) || !name.chars().all(plain) {
        return Err("a project's name has letters, digits, '-' and '_', and begins with a letter".into());
    }
    let is_cargo = matches!(template, Template::Rust | Template::RustHttp | Template::Exe);
    if name.eq_ignore_ascii_case("sharpfaas") || (is_cargo && RESERVED.contains(&name)) {
        return Err("that name is taken by something the project needs".into());
    }
    if template == Template::Js && name.chars().any(|c| c.is_ascii_uppercase()) {
        return Err("npm wants a package's name in lower case".into());
    }
    Ok(name.to_owned())
}
