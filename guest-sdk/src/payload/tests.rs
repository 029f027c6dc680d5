//! What payloads decode to, and what is said of those that do not fit.

use std::{collections::BTreeMap, io};

use serde::{Deserialize, Serialize};

use super::*;
use crate::__private::{Returned, ViaDisplay as _, ViaError as _, ViaValue as _, decode};

#[derive(Debug, PartialEq, Deserialize, Serialize)]
struct Order {
    lines: Vec<Line>,
}

#[derive(Debug, PartialEq, Deserialize, Serialize)]
struct Line {
    price: f64,
}

/// Finishes a handler's result as the attribute does.
macro_rules! finish {
    ($returned:expr) => {{
        let returned = $returned;
        let kind = Returned::of(&returned);
        (&&&kind).kind().finish(returned)
    }};
}

#[test]
fn a_payload_that_does_not_fit_names_path_and_line() {
    let error = decode::<Order>("{\"lines\": [\n  {\"price\": 1},\n  {\"price\": \"x\"}\n]}").unwrap_err();
    assert_eq!(
        error,
        "the payload does not fit at lines[1].price: invalid type: string \"x\", expected f64 at line 3 column 15"
    );
    let error = decode::<Order>("{\"lines\": [}").unwrap_err();
    assert!(error.contains("line 1 column 12"), "{error}");
    let error = decode::<Order>("not json").unwrap_err();
    assert!(error.starts_with("the payload is not JSON: ") && error.contains("line 1"), "{error}");
    let error = decode::<Order>("{\"lines\": []} x").unwrap_err();
    assert!(error.contains("trailing characters"), "{error}");
    let error = decode::<Order>("7").unwrap_err();
    assert!(error.starts_with("the payload does not fit: invalid type: integer `7`"), "{error}");
}

#[test]
fn an_empty_payload_is_null() {
    assert_eq!(decode::<Option<Order>>(" \n"), Ok(None));
    assert_eq!(decode::<()>(""), Ok(()));
    assert_eq!(decode::<Order>("").unwrap_err(), "the payload is empty: this function takes JSON");
}

#[test]
fn strings_are_decoded_and_text_is_not() {
    assert_eq!(decode::<String>("\"a\\nb\""), Ok("a\nb".into()));
    assert_eq!(decode::<Text>("\"a\\nb\""), Ok(Text("\"a\\nb\"".into())));
    assert_eq!(decode::<Text>(""), Ok(Text::default()));
}

#[test]
fn results_are_encoded_whatever_their_kind() {
    type Alias = Result<Line, crate::Error>;

    assert_eq!(finish!(Line { price: 1.5 }), Ok("{\"price\":1.5}".into()));
    assert_eq!(finish!(()), Ok("null".into()));
    assert_eq!(finish!(Text("as is".into())), Ok("as is".into()));
    assert_eq!(finish!(Ok::<_, String>(Text("as is".into()))), Ok("as is".into()));
    // A `Result` of a type that could be serialised too is still a `Result`.
    assert_eq!(finish!(Ok::<_, String>(1)), Ok("1".into()));
    assert_eq!(finish!(Err::<(), _>("sold out")), Err("sold out".into()));
    assert_eq!(finish!(Err::<(), _>(io::Error::other("no"))), Err("no".into()));
    assert_eq!(finish!(Alias::Err(crate::Error::new("refused"))), Err("refused".into()));
    let no_json = BTreeMap::from([(vec![1], 2)]);
    assert!(finish!(no_json).unwrap_err().starts_with("the result cannot be written as JSON: "));
}

#[test]
fn an_error_tells_its_causes() {
    #[derive(Debug)]
    struct Outer(io::Error);

    impl fmt::Display for Outer {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("no stock")
        }
    }

    impl std::error::Error for Outer {
        fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
            Some(&self.0)
        }
    }

    assert_eq!(finish!(Err::<(), _>(Outer(io::Error::other("closed")))), Err("no stock: closed".into()));
}
