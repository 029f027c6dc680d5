//! The error that takes any other.

use std::fmt;

/// Any error, by `?`; or a text of the function's own, by [`Error::new`].
///
/// ```
/// fn double(text: &str) -> Result<i64, sharpfaas::Error> {
///     let number: i64 = text.parse()?;
///     number.checked_mul(2).ok_or_else(|| sharpfaas::Error::new(format!("{number} is too large")))
/// }
///
/// assert_eq!(double("21").unwrap(), 42);
/// assert_eq!(double("x").unwrap_err().to_string(), "invalid digit found in string");
/// ```
///
/// Its text, which is what the caller reads, tells the causes as well, each after a colon. Like other
/// errors of this kind it does not implement [`std::error::Error`] itself, because it could not be
/// made from all that do, then.
pub struct Error(Box<dyn std::error::Error>);

impl Error {
    /// An error of that text.
    pub fn new(text: impl fmt::Display) -> Self {
        Self(text.to_string().into())
    }

    /// The error that this was made from.
    #[must_use]
    pub fn source(&self) -> &(dyn std::error::Error + 'static) {
        &*self.0
    }
}

impl<E: std::error::Error + 'static> From<E> for Error {
    fn from(error: E) -> Self {
        Self(Box::new(error))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut said = self.0.to_string();
        f.write_str(&said)?;
        let mut next = self.0.source();
        while let Some(cause) = next {
            let text = cause.to_string();
            // Many errors repeat their cause in their own text.
            if !said.contains(&text) {
                write!(f, ": {text}")?;
                said = text;
            }
            next = cause.source();
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Outer(std::num::ParseIntError, &'static str);

    impl fmt::Display for Outer {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.1)
        }
    }

    impl std::error::Error for Outer {
        fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
            Some(&self.0)
        }
    }

    #[test]
    fn causes_are_told_once() {
        let cause = || "x".parse::<u8>().unwrap_err();
        assert_eq!(
            Error::from(Outer(cause(), "no quantity")).to_string(),
            "no quantity: invalid digit found in string"
        );
        let repeated = "no quantity (invalid digit found in string)";
        assert_eq!(Error::from(Outer(cause(), repeated)).to_string(), repeated);
        assert_eq!(Error::new("sold out").to_string(), "sold out");
    }
}
