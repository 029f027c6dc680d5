use proptest::prelude::*;

use super::*;

fn refusal(record: &str) -> String {
    match read(record) {
        Asked::Refuse(_, error) | Asked::Broken(error) => error,
        other => panic!("{other:?}"),
    }
}

#[test]
fn handshakes() {
    assert_eq!(agree(r#"{"protocol":"json","version":1}"#), Ok(()));
    for (record, says) in [
        (r#"{"protocol":"messagepack","version":1}"#, "use 'json'"),
        (r#"{"protocol":"json","version":2}"#, "use 1"),
        (r#"{"type":6}"#, "must be"),
        ("", "must be"),
    ] {
        assert!(agree(record).is_err_and(|error| error.contains(says)), "{record}");
    }
    assert_eq!(agreed(None), "{}\u{1e}");
    assert_eq!(agreed(Some("no")), "{\"error\":\"no\"}\u{1e}");
}

#[test]
fn arguments_by_their_place() {
    let call = |arguments: &str| {
        read(&format!(
            r#"{{"type":4,"invocationId":"7","target":"functionhandler","arguments":{arguments},"streamIds":[]}}"#
        ))
    };
    let Asked::Stream(id, mut fields) = call(r#"["f","dev","1.2",{"a":[1, 2]},false,"dll"]"#) else { panic!() };
    let mut take = |name: &str| fields.take_any(name).expect("once");
    assert_eq!(id, "7");
    assert_eq!(take("functionName").as_deref(), Some("f"));
    assert_eq!(take("lane").as_deref(), Some("dev"));
    assert_eq!(take("version").as_deref(), Some("1.2"));
    assert_eq!(take("payload").as_deref(), Some(r#"{"a":[1, 2]}"#));
    assert_eq!(take("payloadEncrypted").as_deref(), Some("false"));
    assert_eq!(take("type").as_deref(), Some("dll"));
    let Asked::Stream(_, mut fields) = call(r#"["f","dev",null,"text"]"#) else { panic!() };
    assert_eq!(fields.take_any("version").expect("once"), None);
    assert_eq!(fields.take_any("payload").expect("once").as_deref(), Some("text"));
    for few in ["[]", r#"["f"]"#, r#"["f","dev","","",false,"dll",true,1]"#] {
        let Asked::Refuse(id, error) = call(few) else { panic!("{few}") };
        assert!(id == "7" && error.contains("2 to 7 arguments"), "{error}");
    }
}

#[test]
fn what_is_not_there_is_refused_and_what_is_broken_closes() {
    assert!(refusal(r#"{"type":4,"invocationId":"1","target":"Other","arguments":[]}"#).contains("Unknown hub method"));
    assert!(refusal(r#"{"type":1,"invocationId":"1","target":"FunctionHandler","arguments":[]}"#).contains("stream"));
    assert!(refusal(r#"{"type":77,"invocationId":"1"}"#).contains("type 77"));
    assert!(matches!(read(r#"{"type":5,"invocationId":"1"}"#), Asked::Cancel(id) if id == "1"));
    assert!(matches!(read(r#"{"type":7}"#), Asked::Close));
    for nothing in [r#"{"type":6}"#, r#"{"type":1,"target":"x","arguments":[]}"#, r#"{"type":77}"#, r#"{"type":8}"#] {
        assert!(matches!(read(nothing), Asked::Nothing), "{nothing}");
    }
    let long = format!(r#"{{"type":4,"invocationId":"{}"}}"#, "x".repeat(200));
    for broken in ["", "null", "[]", r#"{"target":"x"}"#, r#"{"type":"4"}"#, r#"{"type":4}"#, &long, "{\"type\":6}x"] {
        assert!(matches!(read(broken), Asked::Broken(_)), "{broken}");
    }
}

#[test]
fn what_is_written() {
    assert_eq!(ping(), "{\"type\":6}\u{1e}");
    assert_eq!(completion("1", None), "{\"type\":3,\"invocationId\":\"1\"}\u{1e}");
    assert_eq!(close("bye", true), "{\"type\":7,\"error\":\"bye\",\"allowReconnect\":true}\u{1e}");
    // What a function prints can't end a record.
    let mut item = Vec::new();
    StreamItems::of("\"1").write("a\u{1e}b", &mut item);
    let item = String::from_utf8(item).expect("text");
    assert_eq!(item, "{\"type\":2,\"invocationId\":\"\\\"1\",\"item\":\"a\\u001eb\"}\u{1e}");
}

/// Something like a message: valid JSON of the right names, with anything in them.
fn messages() -> impl Strategy<Value = String> {
    let value = prop_oneof![
        Just("null".to_owned()),
        any::<i64>().prop_map(|number| number.to_string()),
        any::<String>().prop_map(|text| serde_json::Value::from(text).to_string()),
        Just("[\"f\",\"dev\"]".to_owned()),
        Just("\"FunctionHandler\"".to_owned()),
        prop::collection::vec("[0-9\\[\\]{}\":,a-z\\\\]{0,6}", 0..4).prop_map(|parts| format!("[{}]", parts.join(","))),
    ];
    let name = prop_oneof![
        Just("type"),
        Just("invocationId"),
        Just("target"),
        Just("arguments"),
        Just("error"),
        Just("streamIds"),
    ];
    let kind = (0..12_u64).prop_map(|kind| ("type", kind.to_string()));
    (kind, prop::collection::vec((name, value), 0..6)).prop_map(|(kind, members)| {
        let members = std::iter::once(kind).chain(members).map(|(name, value)| format!("\"{name}\":{value}"));
        format!("{{{}}}", members.collect::<Vec<_>>().join(","))
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: crate::hub::fuzzed(), ..ProptestConfig::default() })]

    #[test]
    fn nothing_that_comes_is_too_much(record in prop_oneof![any::<String>(), messages(), ".{0,3}\\{\"type\":.{0,20}"]) {
        let _ = agree(&record);
        match read(&record) {
            Asked::Refuse(_, error) | Asked::Broken(error) => prop_assert!(error.len() < 1000, "{error}"),
            Asked::Stream(id, _) | Asked::Cancel(id) => prop_assert!(id.len() <= MAX_ID),
            Asked::Close | Asked::Nothing => {}
        }
    }
}
