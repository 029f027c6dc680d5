//! What a new project is made of: the templates, and the SDKs that they come with.

use super::Template;

/// A file of a project: where it goes, and what is in it.
pub type File = (&'static str, &'static str);

/// A file of the templates, under the name that it has in a project.
macro_rules! template {
    ($to:literal) => {
        template!($to, $to)
    };
    ($to:literal, $from:literal) => {
        ($to, include_str!(concat!("templates/", $from)))
    };
}

/// Files of `guest-sdk`.
macro_rules! sdk {
    ($($from:literal => $to:literal,)*) => {
        &[$(($to, include_str!(concat!("../../../../guest-sdk/", $from))),)*]
    };
}

const COMMON: &[File] = &[template!(".gitignore", "gitignore"), template!("payload.json")];

const RUST: &[File] = &[
    template!("Cargo.toml", "rust/Cargo.toml.in"),
    template!("README.md", "rust/README.md"),
    template!("src/lib.rs", "rust/src/lib.rs"),
];

const RUST_HTTP: &[File] = &[
    template!("Cargo.toml", "rust-http/Cargo.toml.in"),
    template!("README.md", "rust-http/README.md"),
    template!("src/lib.rs", "rust-http/src/lib.rs"),
];

const EXE: &[File] = &[
    template!("Cargo.toml", "exe/Cargo.toml.in"),
    template!("README.md", "exe/README.md"),
    template!("src/main.rs", "exe/src/main.rs"),
];

const JS: &[File] = &[
    template!("package.json", "js/package.json.in"),
    template!("README.md", "js/README.md"),
    template!("src/index.js", "js/src/index.js"),
    template!("src/greet.js", "js/src/greet.js"),
    template!("test/greet.test.js", "js/test/greet.test.js"),
];

const PYTHON: &[File] = &[
    template!("app.py", "python/app.py"),
    template!("pyproject.toml", "python/pyproject.toml.in"),
    template!("requirements.txt", "python/requirements.txt"),
    template!("README.md", "python/README.md"),
    template!("tests/test_app.py", "python/tests/test_app.py"),
];

const RUST_SDK: &[File] = sdk! {
    "Cargo.toml" => "vendor/sharpfaas/Cargo.toml",
    "macros/Cargo.toml" => "vendor/sharpfaas/macros/Cargo.toml",
    "macros/src/lib.rs" => "vendor/sharpfaas/macros/src/lib.rs",
    "macros/src/tests.rs" => "vendor/sharpfaas/macros/src/tests.rs",
    "src/__private.rs" => "vendor/sharpfaas/src/__private.rs",
    "src/console.rs" => "vendor/sharpfaas/src/console.rs",
    "src/error.rs" => "vendor/sharpfaas/src/error.rs",
    "src/invocation.rs" => "vendor/sharpfaas/src/invocation.rs",
    "src/lib.rs" => "vendor/sharpfaas/src/lib.rs",
    "src/memory.rs" => "vendor/sharpfaas/src/memory.rs",
    "src/payload.rs" => "vendor/sharpfaas/src/payload.rs",
    "src/payload/tests.rs" => "vendor/sharpfaas/src/payload/tests.rs",
    "wit/function.wit" => "vendor/sharpfaas/wit/function.wit",
};

const JS_SDK: &[File] = sdk! {
    "js/package.json" => "vendor/sharpfaas/package.json",
    "js/build.js" => "vendor/sharpfaas/build.js",
    "js/console.js" => "vendor/sharpfaas/console.js",
    "js/host.js" => "vendor/sharpfaas/host.js",
    "js/index.d.ts" => "vendor/sharpfaas/index.d.ts",
    "js/index.js" => "vendor/sharpfaas/index.js",
    "js/no-host.js" => "vendor/sharpfaas/no-host.js",
    "wit/function.wit" => "vendor/sharpfaas/wit/function.wit",
};

const PYTHON_SDK: &[File] = sdk! {
    "python/src/sharpfaas/__init__.py" => "vendor/sharpfaas/sharpfaas/__init__.py",
    "python/src/sharpfaas/_function.py" => "vendor/sharpfaas/sharpfaas/_function.py",
    "python/src/sharpfaas/_invocation.py" => "vendor/sharpfaas/sharpfaas/_invocation.py",
    "python/src/sharpfaas/_payload.py" => "vendor/sharpfaas/sharpfaas/_payload.py",
    "python/src/sharpfaas/_preload.py" => "vendor/sharpfaas/sharpfaas/_preload.py",
    "python/src/sharpfaas/build.py" => "vendor/sharpfaas/sharpfaas/build.py",
    "python/src/sharpfaas/py.typed" => "vendor/sharpfaas/sharpfaas/py.typed",
    "wit/function.wit" => "vendor/sharpfaas/sharpfaas/wit/function.wit",
};

/// All files of a project of that template; `{{name}}` in them stands for its name.
pub fn of(template: Template) -> impl Iterator<Item = File> {
    let (own, sdk): (_, &[File]) = match template {
        Template::Rust => (RUST, RUST_SDK),
        Template::RustHttp => (RUST_HTTP, &[]),
        Template::Js => (JS, JS_SDK),
        Template::Python => (PYTHON, PYTHON_SDK),
        Template::Exe => (EXE, &[]),
    };
    COMMON.iter().chain(own).chain(sdk).copied()
}

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeSet,
        fs,
        path::{Path, PathBuf},
    };

    use super::*;

    /// The files below a folder that have one of these ends.
    fn below(folder: &Path, ends: &[&str]) -> BTreeSet<PathBuf> {
        let mut found = BTreeSet::new();
        for entry in fs::read_dir(folder).expect("a folder").flatten() {
            let path = entry.path();
            let name = entry.file_name().into_string().expect("text");
            if path.is_dir() {
                found.extend(below(&path, ends));
            } else if ends.iter().any(|end| name.ends_with(end)) {
                found.insert(path);
            }
        }
        found
    }

    /// A file that is added to an SDK must be in new projects too.
    #[test]
    fn the_sdks_are_whole() {
        let sdk = Path::new(env!("CARGO_MANIFEST_DIR")).join("../guest-sdk");
        let texts = |files: &[File]| files.iter().map(|(_, text)| (*text).to_owned()).collect::<BTreeSet<_>>();
        for (folder, ends, files) in [
            ("src", &[".rs"][..], RUST_SDK),
            ("macros/src", &[".rs"], RUST_SDK),
            ("wit", &[".wit"], RUST_SDK),
            ("wit", &[".wit"], JS_SDK),
            ("wit", &[".wit"], PYTHON_SDK),
            ("python/src", &[".py", ".typed"], PYTHON_SDK),
        ] {
            let embedded = texts(files);
            let found = below(&sdk.join(folder), ends);
            assert!(!found.is_empty(), "{folder}");
            for path in found {
                assert!(embedded.contains(&fs::read_to_string(&path).expect("text")), "{}", path.display());
            }
        }
        let embedded = texts(JS_SDK);
        for entry in fs::read_dir(sdk.join("js")).expect("a folder").flatten() {
            let name = entry.file_name().into_string().expect("text");
            if [".js", ".ts"].iter().any(|end| name.ends_with(end)) && !name.ends_with(".test.js") {
                assert!(embedded.contains(&fs::read_to_string(entry.path()).expect("text")), "{name}");
            }
        }
    }

    #[test]
    fn no_file_stands_for_another() {
        for template in [Template::Rust, Template::RustHttp, Template::Js, Template::Python, Template::Exe] {
            let names: Vec<_> = of(template).map(|(name, _)| name).collect();
            assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len(), "{names:?}");
        }
    }
}
