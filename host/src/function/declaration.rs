//! `sharpfaas.toml`: what a package says of itself.

use serde::Deserialize;

use super::{EntryName, FunctionType, Shape};

/// The file's name, at the root of a package.
pub const DECLARATION: &str = "sharpfaas.toml";

/// The largest that is read, in bytes.
pub const MAX_DECLARATION_BYTES: usize = 8 * 1024;

/// What a package says of itself. Without the file, nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Declaration {
    /// The file that runs, where the push names none.
    pub entry: Option<EntryName>,
    /// How it is run, where it exports what several shapes need.
    pub shape: Option<Shape>,
}

/// Why a declaration was refused, in words for whoever pushed it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the package's {DECLARATION} is not valid: {0}")]
pub struct DeclarationError(String);

impl DeclarationError {
    /// That something in it is for packages of the other type.
    #[must_use]
    pub fn not_for(key: &str, kind: FunctionType) -> Self {
        Self(format!("'{key}' has no meaning for type '{kind}'"))
    }
}

impl Declaration {
    /// Reads one from the bytes of the file.
    ///
    /// # Errors
    /// When it is too large, no TOML, or holds keys or values that are not known.
    pub fn parse(bytes: &[u8]) -> Result<Self, DeclarationError> {
        if bytes.len() > MAX_DECLARATION_BYTES {
            return Err(DeclarationError(format!("it may have {MAX_DECLARATION_BYTES} bytes, and has more")));
        }
        let text = std::str::from_utf8(bytes).map_err(|_| DeclarationError("it must be UTF-8 text".into()))?;
        toml::from_str(text).map_err(|error| DeclarationError(error.to_string().trim_end().to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_is_wrong() {
        let text = |text: &str| Declaration::parse(text.as_bytes()).expect_err("refused").to_string();
        assert!(text("entri = \"a.wasm\"").contains("`entri`"));
        assert!(text("shape = \"reactor\"").contains("`execute`, `http`, `command`"));
        assert!(text("entry = \"../a.wasm\"").contains("entry"));
        assert!(text(&"#".repeat(MAX_DECLARATION_BYTES + 1)).contains("8192 bytes"));
        assert!(Declaration::parse(b"\xff").is_err());
    }

    #[test]
    fn reads_what_is_there() {
        let declared = Declaration::parse(b"entry = \"bin/a.wasm\"\nshape = \"http\"\n").expect("it is valid");
        assert_eq!(declared.entry.expect("an entry").as_str(), "bin/a.wasm");
        assert_eq!(declared.shape, Some(Shape::Http));
        assert_eq!(Declaration::parse(b"").expect("it is valid"), Declaration::default());
    }
}
