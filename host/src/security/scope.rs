//! What a token may do: verbs, each on some lanes and functions.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use crate::function::{FunctionName, Lane, pattern::matches};

/// How many scopes a token may have for one verb.
const MAX_SCOPES: usize = 64;

/// What can be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// Publish versions.
    Push,
    /// Run functions, and see and end what one has run.
    Run,
    /// See functions, calls and their output.
    Read,
    /// End calls of others; with every lane and function, also tokens and the audit.
    Manage,
}

impl Verb {
    /// The verb as it is written.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Push => "push",
            Self::Run => "run",
            Self::Read => "read",
            Self::Manage => "manage",
        }
    }
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a scope was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "scope {0:?} is not valid: it must be LANE or LANE/FUNCTION, of letters, digits, '_', '.', '-' and '*' for any \
     number of them, as in 'dev', 'production/report-*' and '*'"
)]
pub struct ScopeError(String);

/// Lanes and functions: `LANE` or `LANE/FUNCTION`, in which `*` stands for any number of characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    lane: Box<str>,
    function: Box<str>,
}

impl Scope {
    /// Every function in every lane.
    #[must_use]
    pub fn all() -> Self {
        Self { lane: "*".into(), function: "*".into() }
    }

    fn is_all(&self) -> bool {
        let any = |pattern: &str| pattern.bytes().all(|byte| byte == b'*');
        any(&self.lane) && any(&self.function)
    }

    fn covers(&self, lane: &str, function: &str) -> bool {
        matches(&self.lane, lane) && matches(&self.function, function)
    }
}

impl FromStr for Scope {
    type Err = ScopeError;

    fn from_str(text: &str) -> Result<Self, ScopeError> {
        let (lane, function) = text.split_once('/').unwrap_or((text, "*"));
        let good = |pattern: &str| {
            (1..=64).contains(&pattern.len())
                && pattern.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-*".contains(&byte))
        };
        if good(lane) && good(function) {
            Ok(Self { lane: lane.into(), function: function.into() })
        } else {
            Err(ScopeError(text.chars().take(80).collect()))
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if &*self.function == "*" { f.write_str(&self.lane) } else { write!(f, "{}/{}", self.lane, self.function) }
    }
}

impl Serialize for Scope {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Scope {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(D::Error::custom)
    }
}

/// All that a token may do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Scopes {
    /// Where it may push.
    pub push: Vec<Scope>,
    /// What it may run.
    pub run: Vec<Scope>,
    /// What it may see.
    pub read: Vec<Scope>,
    /// What it may manage.
    pub manage: Vec<Scope>,
}

impl Scopes {
    /// Everything.
    #[must_use]
    pub fn all() -> Self {
        let all = || vec![Scope::all()];
        Self { push: all(), run: all(), read: all(), manage: all() }
    }

    fn of(&self, verb: Verb) -> &[Scope] {
        match verb {
            Verb::Push => &self.push,
            Verb::Run => &self.run,
            Verb::Read => &self.read,
            Verb::Manage => &self.manage,
        }
    }

    /// Whether it allows that.
    #[must_use]
    pub fn allow(&self, verb: Verb, lane: &Lane, function: &FunctionName) -> bool {
        self.of(verb).iter().any(|scope| scope.covers(lane.as_str(), function.as_str()))
    }

    /// Whether it allows that for some function, of those lanes and names that are given.
    #[must_use]
    pub fn allow_some(&self, verb: Verb, lane: Option<&Lane>, function: Option<&FunctionName>) -> bool {
        self.of(verb).iter().any(|scope| {
            lane.is_none_or(|lane| matches(&scope.lane, lane.as_str()))
                && function.is_none_or(|function| matches(&scope.function, function.as_str()))
        })
    }

    /// Whether it allows that for everything.
    #[must_use]
    pub fn allow_all(&self, verb: Verb) -> bool {
        self.of(verb).iter().any(Scope::is_all)
    }

    /// Whether it allows nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        [Verb::Push, Verb::Run, Verb::Read, Verb::Manage].into_iter().all(|verb| self.of(verb).is_empty())
    }

    /// Whether it has no more scopes for a verb than there may be.
    #[must_use]
    pub fn is_bounded(&self) -> bool {
        [Verb::Push, Verb::Run, Verb::Read, Verb::Manage].into_iter().all(|verb| self.of(verb).len() <= MAX_SCOPES)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scopes(run: &str) -> Scopes {
        Scopes { run: run.split(',').map(|scope| scope.parse().expect("a scope")).collect(), ..Scopes::default() }
    }

    fn may(scopes: &Scopes, lane: &str, function: &str) -> bool {
        scopes.allow(Verb::Run, &lane.parse().expect("a lane"), &function.parse().expect("a name"))
    }

    #[test]
    fn a_scope_covers_its_lane_and_functions_and_nothing_else() {
        let scopes = scopes("dev,production/report-*,*/health");
        for (lane, function, expected) in [
            ("dev", "anything", true),
            ("dev2", "anything", false),
            ("de", "anything", false),
            ("production", "report-daily", true),
            ("production", "report-", true),
            ("production", "a-report-daily", false),
            ("production", "health", true),
            ("staging", "health", true),
            ("staging", "healthy", false),
        ] {
            assert_eq!(may(&scopes, lane, function), expected, "{lane}/{function}");
        }
        assert!(!scopes.allow(Verb::Push, &"dev".parse().expect("a lane"), &"x".parse().expect("a name")));
        assert!(!scopes.allow_all(Verb::Run));
        assert!(self::scopes("*").allow_all(Verb::Run) && self::scopes("*/**").allow_all(Verb::Run));
        assert!(scopes.allow_some(Verb::Run, Some(&"staging".parse().expect("a lane")), None));
        assert!(!scopes.allow_some(Verb::Read, None, None));
    }

    #[test]
    fn stars_stand_for_any_number_of_characters() {
        for (pattern, text, expected) in [
            ("*", "", true),
            ("a*b*c", "abc", true),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "acb", false),
            ("**a", "bba", true),
            ("", "a", false),
            ("a", "", false),
            ("*a*a*a*a*a*b", &"a".repeat(64), false),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn what_is_no_scope_is_refused() {
        for bad in ["", "/", "dev/", "/f", "a b", "dev/a/b", "é", &"a".repeat(65)] {
            assert!(bad.parse::<Scope>().is_err(), "{bad:?}");
        }
        let text = r#"{"push":["dev"],"run":["dev/*","p/x"]}"#;
        let scopes: Scopes = serde_json::from_str(text).expect("parses");
        let again = serde_json::to_string(&scopes).expect("text");
        assert_eq!(again, r#"{"push":["dev"],"run":["dev","p/x"],"read":[],"manage":[]}"#);
        assert!(serde_json::from_str::<Scopes>(r#"{"psuh":[]}"#).is_err());
    }
}
