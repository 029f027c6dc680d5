//! The context of the call.

use std::time::{Duration, Instant};

/// What a call knows of itself.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Invocation {
    /// This call; no other has the same. It stands in the host's log and history.
    pub id: String,
    /// Who calls, as the caller said it; not checked by the host.
    pub caller_id: Option<String>,
    /// The name the function was called by.
    pub function_name: String,
    /// The lane it runs in, such as `dev`.
    pub lane: String,
    /// The exact version that runs, `major.minor`, whatever the caller selected it by.
    pub version: String,
    /// The call's further parameters in their order; a name may stand there more than once.
    pub parameters: Vec<(String, String)>,
    /// When the host ends the call; `None`: it does not.
    pub deadline: Option<Instant>,
}

impl Invocation {
    /// The first parameter of that name, upper and lower case being the same.
    #[must_use]
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// How much time is left until the deadline; zero when it has passed, `None` when there is none.
    #[must_use]
    pub fn remaining(&self) -> Option<Duration> {
        self.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()))
    }
}

/// The context of the call that is running.
///
/// ```no_run
/// let invocation = sharpfaas::invocation();
/// println!("{} runs in {}", invocation.function_name, invocation.lane);
/// if invocation.parameter("verbose").is_some() {
///     println!("{:?} left", invocation.remaining());
/// }
/// ```
///
/// # Panics
/// Outside a host, so in tests on the machine that builds: give what a handler reads from it to a
/// function of its own, and test that.
#[must_use]
pub fn invocation() -> Invocation {
    let context = crate::bindings::sharpfaas::function::invocation::current();
    Invocation {
        id: context.invocation_id,
        caller_id: context.caller_id,
        function_name: context.function_name,
        lane: context.lane,
        version: context.version,
        parameters: context.parameters,
        // A deadline too far away to be told is none.
        deadline: context.deadline_ms.and_then(|left| Instant::now().checked_add(Duration::from_millis(left))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_found_by_name_in_any_case_and_the_first_counts() {
        let invocation = Invocation {
            id: "1".into(),
            caller_id: None,
            function_name: "f".into(),
            lane: "dev".into(),
            version: "1.0".into(),
            parameters: vec![("Tag".into(), "a".into()), ("tag".into(), "b".into())],
            deadline: Some(Instant::now()),
        };
        assert_eq!(invocation.parameter("TAG"), Some("a"));
        assert_eq!(invocation.parameter("other"), None);
        assert_eq!(invocation.remaining(), Some(Duration::ZERO));
    }
}
