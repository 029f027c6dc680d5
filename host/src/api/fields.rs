//! The fields of a request, by name, wherever they came from: query, form or JSON object.
//!
//! Names are matched without regard to case, because clients out there write `payLoadEncrypted`.

use std::{fmt, str::FromStr};

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::value::RawValue;

use super::Problem;

/// How many fields a request may have.
const MAX_FIELDS: usize = 256;

/// The fields that were not taken yet, in their order.
#[derive(Debug, Default)]
pub struct Fields(Vec<(String, String)>);

impl Fields {
    /// Of a query string or a form (the URL Standard's `application/x-www-form-urlencoded`).
    pub fn of_form(text: &[u8]) -> Result<Self, Problem> {
        let pairs = url::form_urlencoded::parse(text).map(|(name, value)| (name.into_owned(), value.into_owned()));
        Self::bounded(pairs.take(MAX_FIELDS + 1).collect())
    }

    /// Of a JSON object. A string stands for its text, `null` for nothing, anything else for its JSON.
    pub fn of_json(body: &[u8]) -> Result<Self, Problem> {
        let Members(members) = serde_json::from_slice(body).map_err(|error| {
            Problem::invalid(format!("the body must be a JSON object of the call's fields: {error}"))
        })?;
        let mut fields = Vec::with_capacity(members.len());
        for (name, value) in members {
            if name.eq_ignore_ascii_case("parameters") {
                let Members(parameters) = serde_json::from_str(value.get())
                    .map_err(|_| Problem::invalid("'parameters' must be a JSON object of names and values"))?;
                for (name, value) in parameters {
                    fields.extend(text_of(&value)?.map(|value| (name, value)));
                }
            } else {
                fields.extend(text_of(&value)?.map(|value| (name, value)));
            }
        }
        Self::bounded(fields)
    }

    fn bounded(fields: Vec<(String, String)>) -> Result<Self, Problem> {
        Self::check(fields.len()).map(|()| Self(fields))
    }

    fn check(count: usize) -> Result<(), Problem> {
        if count > MAX_FIELDS {
            return Err(Problem::invalid(format!("the request has more than {MAX_FIELDS} fields")));
        }
        Ok(())
    }

    /// These and then those.
    pub fn and(mut self, others: Self) -> Result<Self, Problem> {
        self.0.extend(others.0);
        Self::bounded(self.0)
    }

    /// Adds one.
    pub fn push(&mut self, name: String, value: String) -> Result<(), Problem> {
        self.0.push((name, value));
        Self::check(self.0.len())
    }

    /// Whether there is one of that name.
    pub fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(given, _)| given.eq_ignore_ascii_case(name))
    }

    /// Takes the field of that name; none where it is not there or empty.
    pub fn take(&mut self, name: &str) -> Result<Option<String>, Problem> {
        Ok(self.take_any(name)?.filter(|value| !value.is_empty()))
    }

    /// Takes the field of that name, empty or not.
    pub fn take_any(&mut self, name: &str) -> Result<Option<String>, Problem> {
        let Some(at) = self.0.iter().position(|(given, _)| given.eq_ignore_ascii_case(name)) else { return Ok(None) };
        let (_, value) = self.0.remove(at);
        if self.has(name) {
            return Err(Problem::invalid(format!("'{name}' is given more than once")));
        }
        Ok(Some(value))
    }

    /// Takes the field of that name and parses it.
    pub fn parse<T>(&mut self, name: &str) -> Result<Option<T>, Problem>
    where
        T: FromStr,
        Problem: From<T::Err>,
    {
        Ok(self.take(name)?.map(|value| value.parse()).transpose()?)
    }

    /// Takes what a list is to be narrowed by. An empty one is refused: it would mean everything where the caller
    /// meant something, and may be an unset variable of a script.
    pub fn filter<T>(
        &mut self,
        name: &str,
        parse: impl FnOnce(&str) -> Result<T, Problem>,
    ) -> Result<Option<T>, Problem> {
        let Some(value) = self.take_any(name)? else { return Ok(None) };
        if value.is_empty() {
            return Err(Problem::invalid(format!("'{name}' is empty: give a value, or leave it out")));
        }
        // PostgreSQL's text can't hold it, so no row has it.
        if value.contains('\0') {
            return Err(Problem::invalid(format!("'{name}' may not hold U+0000")));
        }
        parse(&value).map(Some)
    }

    /// As [`parse`](Self::parse), of one that must be there.
    pub fn require<T>(&mut self, name: &str) -> Result<T, Problem>
    where
        T: FromStr,
        Problem: From<T::Err>,
    {
        self.parse(name)?.ok_or_else(|| Problem::invalid(format!("'{name}' is missing")))
    }

    /// Takes a truth value; none counts as `false`.
    pub fn flag(&mut self, name: &str) -> Result<bool, Problem> {
        match self.take(name)? {
            None => Ok(false),
            Some(value) if value.eq_ignore_ascii_case("true") || value == "1" => Ok(true),
            Some(value) if value.eq_ignore_ascii_case("false") || value == "0" => Ok(false),
            Some(value) => {
                let value: String = value.chars().take(40).collect();
                Err(Problem::invalid(format!("{name} {value:?} is not valid: it must be 'true' or 'false'")))
            }
        }
    }

    /// Takes a whole number from `least` to `most`.
    pub fn number(&mut self, name: &str, least: u64, most: u64) -> Result<Option<u64>, Problem> {
        let Some(value) = self.take_any(name)? else { return Ok(None) };
        let number = value.parse().ok().filter(|number| (least..=most).contains(number));
        number.map(Some).ok_or_else(|| {
            let value: String = value.chars().take(40).collect();
            Problem::invalid(format!("{name} {value:?} is not valid: it must be a whole number from {least} to {most}"))
        })
    }

    /// Refuses what was not taken, by name.
    pub fn done(self, known: &str) -> Result<(), Problem> {
        match self.0.first() {
            None => Ok(()),
            Some((name, _)) => {
                let name: String = name.chars().take(80).collect();
                Err(Problem::invalid(format!("{name:?} is not a parameter here; there are {known}")))
            }
        }
    }

    /// What was not taken.
    pub fn rest(self) -> Vec<(String, String)> {
        self.0
    }
}

fn text_of(value: &RawValue) -> Result<Option<String>, Problem> {
    match value.get() {
        "null" => Ok(None),
        text if text.starts_with('"') => {
            let text = serde_json::from_str(text);
            Ok(Some(text.map_err(|error| Problem::invalid(format!("a string of the body is not valid: {error}")))?))
        }
        json => Ok(Some(json.to_owned())),
    }
}

/// A JSON object's members in their order, values as they stand.
struct Members(Vec<(String, Box<RawValue>)>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Members;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Object)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::function::Lane;

    #[test]
    fn names_match_whatever_their_case() {
        let mut fields = Fields::of_form(b"FunctionName=a&payLoadEncrypted=True&lane=dev&x=1&empty=").expect("parses");
        assert_eq!(fields.take("functionName").expect("once"), Some("a".into()));
        assert!(fields.flag("payloadEncrypted").expect("a flag"));
        assert_eq!(fields.require::<Lane>("lane").expect("a lane").as_str(), "dev");
        assert_eq!(fields.take("empty").expect("once"), None);
        assert!(fields.require::<Lane>("lane").is_err());
        assert_eq!(fields.rest(), [("x".to_owned(), "1".to_owned())]);
    }

    #[test]
    fn a_field_given_twice_is_refused() {
        assert!(Fields::of_form(b"lane=a&LANE=b").expect("parses").take("lane").is_err());
    }

    #[test]
    fn json_values_stand_for_their_text() {
        let body = br#"{"s":"a\"b","n":1.50,"o":{"k": [1]},"none":null,"Parameters":{"p":"v","q":2}}"#;
        let rest = Fields::of_json(body).expect("parses").rest();
        let pairs: Vec<_> = rest.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(pairs, [("s", "a\"b"), ("n", "1.50"), ("o", r#"{"k": [1]}"#), ("p", "v"), ("q", "2")]);
        for bad in ["[]", "1", "", "{", r#"{"a":}"#, "\u{1}"] {
            assert!(Fields::of_json(bad.as_bytes()).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn there_is_a_bound_on_fields() {
        assert!(Fields::of_form("a=1&".repeat(300).as_bytes()).is_err());
    }
}
