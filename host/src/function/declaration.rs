//! `sharpfaas.toml`: what a package says of itself.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Deserializer, Serialize, de::Error as _};

use super::{EntryName, FunctionType, Shape, network::HostPattern};

/// The file's name, at the root of a package.
pub const DECLARATION: &str = "sharpfaas.toml";

/// The largest that is read, in bytes.
pub const MAX_DECLARATION_BYTES: usize = 4 * 1024;

/// What a package says of itself. Without the file, nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Declaration {
    /// The file that runs, where the push names none.
    pub entry: Option<EntryName>,
    /// How it is run, where it exports what several shapes need.
    pub shape: Option<Shape>,
    /// How little it is content with.
    pub limits: DeclaredLimits,
    /// Variables of its environment.
    #[serde(deserialize_with = "variables")]
    pub environment: BTreeMap<String, String>,
    /// What it gets by `wasi:config`, where the server has no other value for it.
    pub configuration: BTreeMap<String, String>,
    /// What else it wants by `wasi:config`, of the server's secrets.
    pub secrets: BTreeSet<String>,
    /// The hosts that it wants to send HTTP requests to.
    pub outbound: Vec<HostPattern>,
    /// The stores of values that it wants to use.
    pub stores: BTreeSet<String>,
}

/// Limits that a package sets itself. Only lower ones than the server's have any effect.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct DeclaredLimits {
    /// How much memory a call may take, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// How long a call may take, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deadline_seconds: Option<u64>,
    /// The largest result, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub result_bytes: Option<u64>,
}

/// What a version asks for, as it is kept and shown: names, and no values.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct Asks {
    /// Limits below the server's.
    pub limits: DeclaredLimits,
    /// Names of variables that its package sets.
    pub environment: Vec<String>,
    /// Names of configured values.
    pub configuration: Vec<String>,
    /// Names of secrets.
    pub secrets: Vec<String>,
    /// Hosts.
    pub outbound: Vec<String>,
    /// Stores of values.
    pub stores: Vec<String>,
}

/// Finds whether a function may have that variable in its environment.
///
/// # Errors
/// When its name is none, or the server's to set; or its value can't be one.
pub fn check_variable(name: &str, value: &str) -> Result<(), String> {
    let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        && name.bytes().next().is_some_and(|b| !b.is_ascii_digit());
    if !plain {
        return Err(format!("'{name}' is not the name of a variable"));
    }
    if name.starts_with("SHARPFAAS_") || matches!(name, "HOME" | "TMPDIR") {
        return Err(format!("'{name}' is the server's to set"));
    }
    if value.contains('\0') {
        return Err(format!("the value of '{name}' holds a NUL character"));
    }
    Ok(())
}

fn variables<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, String>, D::Error> {
    let variables = BTreeMap::<String, String>::deserialize(deserializer)?;
    for (name, value) in &variables {
        check_variable(name, value).map_err(D::Error::custom)?;
    }
    Ok(variables)
}

/// Why a declaration was refused, in words for whoever pushed it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the package's {DECLARATION} is not valid: {0}")]
pub struct DeclarationError(String);

impl Declaration {
    /// What it asks for; none: nothing.
    #[must_use]
    pub fn asks(&self) -> Option<Asks> {
        let names = |map: &BTreeMap<String, String>| map.keys().cloned().collect();
        let asks = Asks {
            limits: self.limits,
            environment: names(&self.environment),
            configuration: names(&self.configuration),
            secrets: self.secrets.iter().cloned().collect(),
            outbound: self.outbound.iter().map(ToString::to_string).collect(),
            stores: self.stores.iter().cloned().collect(),
        };
        (asks != Asks::default()).then_some(asks)
    }

    /// Finds whether all of it can be had by functions of that type.
    ///
    /// # Errors
    /// When something is for components alone.
    pub fn check(&self, kind: FunctionType) -> Result<(), DeclarationError> {
        let components = [
            ("shape", self.shape.is_some()),
            ("environment", !self.environment.is_empty()),
            ("configuration", !self.configuration.is_empty()),
            ("secrets", !self.secrets.is_empty()),
            ("outbound", !self.outbound.is_empty()),
            ("stores", !self.stores.is_empty()),
        ];
        match components.into_iter().find(|(_, there)| *there && kind == FunctionType::Exe) {
            Some((key, _)) => Err(DeclarationError(format!("'{key}' has no meaning for type '{kind}'"))),
            None => Ok(()),
        }
    }

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
        assert!(text(&"#".repeat(MAX_DECLARATION_BYTES + 1)).contains("4096 bytes"));
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
