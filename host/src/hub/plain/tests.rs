use std::sync::Arc;

use chrono::DateTime;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::function::{OutputLine, Stream};

fn asked(text: &str) -> (Option<String>, Result<Asked, Problem>) {
    let mut request_id = None;
    let asked = read(text, &mut request_id);
    (request_id, asked)
}

#[test]
fn calls_and_their_ends() {
    let (id, call) = asked(r#"{"functionName":"f","REQUESTID":"mine","payload":{"a":[1, 2]},"lane":"dev"}"#);
    let Ok(Asked::Call(fields, payload)) = call else { panic!("{call:?}") };
    assert_eq!((id.as_deref(), &*payload), (Some("mine"), r#"{"a":[1, 2]}"#));
    assert_eq!(fields.rest(), [("functionName".into(), "f".into()), ("lane".into(), "dev".to_owned())]);
    let id = "0190d3a4-0000-7000-8000-000000000001";
    let (_, cancel) = asked(&json!({ "cancel": id }).to_string());
    assert!(matches!(cancel, Ok(Asked::Cancel(asked)) if asked.to_string() == id));
    for refused in ["", "[]", "{", r#"{"cancel":"x"}"#, &json!({ "cancel": id, "lane": "dev" }).to_string()] {
        assert!(asked(refused).1.is_err(), "{refused}");
    }
    // Who gives a name is answered by it, whatever else is wrong; but not where that is what is wrong.
    assert_eq!(asked(r#"{"requestId":"mine","cancel":"x"}"#).0.as_deref(), Some("mine"));
    assert_eq!(asked(&json!({ "requestId": "x".repeat(129) }).to_string()).0, None);
}

/// Something like a message: JSON of the right names, with anything in them.
fn messages() -> impl Strategy<Value = String> {
    let value = prop_oneof![
        Just("null".to_owned()),
        any::<i64>().prop_map(|number| number.to_string()),
        any::<String>().prop_map(|text| Value::from(text).to_string()),
        Just("\"0190d3a4-0000-7000-8000-000000000001\"".to_owned()),
        "[0-9\\[\\]{}\":,a-z\\\\]{0,12}",
    ];
    let name = prop_oneof![
        Just("functionName"),
        Just("lane"),
        Just("payload"),
        Just("parameters"),
        Just("requestId"),
        Just("cancel"),
        Just("CANCEL"),
    ];
    prop::collection::vec((name, value), 0..6).prop_map(|members| {
        let members = members.into_iter().map(|(name, value)| format!("\"{name}\":{value}"));
        format!("{{{}}}", members.collect::<Vec<_>>().join(","))
    })
}

/// The messages in frames that are all of text.
fn texts(mut frames: &[u8]) -> Vec<Value> {
    let mut texts = Vec::new();
    while let [0x81, length, rest @ ..] = frames {
        let (length, rest) = match (*length, rest) {
            (126, [a, b, rest @ ..]) => (usize::from(u16::from_be_bytes([*a, *b])), rest),
            (length, rest) => (usize::from(length), rest),
        };
        texts.push(serde_json::from_slice(&rest[..length]).expect("JSON"));
        frames = &rest[length..];
    }
    assert!(frames.is_empty());
    texts
}

proptest! {
    #![proptest_config(ProptestConfig { cases: crate::hub::fuzzed(), ..ProptestConfig::default() })]

    #[test]
    fn nothing_that_comes_is_too_much(text in prop_oneof![any::<String>(), messages(), "\\{\"cancel\":.{0,20}"]) {
        let (request_id, asked) = asked(&text);
        prop_assert!(request_id.as_ref().is_none_or(|id| id.len() <= MAX_REQUEST_ID));
        match asked {
            Ok(Asked::Call(fields, payload)) => {
                let held: usize = fields.rest().iter().map(|(name, value)| name.len() + value.len()).sum();
                prop_assert!(held + payload.len() <= text.len());
            }
            Ok(Asked::Cancel(_)) => {}
            Err(problem) => {
                let refused = EventVoice { id: None, request_id: request_id.clone() }.refused(&problem);
                prop_assert!(refused.len() < 2000, "{refused}");
                let refused: Value = serde_json::from_str(&refused).expect("JSON");
                prop_assert_eq!((&refused["event"], refused["requestId"].as_str()), (&json!("failed"), request_id.as_deref()));
            }
        }
    }

    #[test]
    fn whatever_is_printed_arrives(
        lines in prop::collection::vec(any::<String>(), 0..5),
        request_id in prop::option::of(any::<String>()),
        skipped in 0..3_u64,
    ) {
        let at = DateTime::from_timestamp(1_700_000_000, 5000).expect("a time");
        let line = |line: &String| Arc::new(OutputLine { stream: Stream::Stderr, line: line.clone(), at });
        let batch = Batch { first: 7, skipped, lines: lines.iter().map(line).collect(), ended: false, all: true };
        let mut frames = Frames::default();
        EventVoice { id: Some(InvocationId(Uuid::now_v7())), request_id: request_id.clone() }.lines(&batch, &mut frames);
        let mut told = texts(&frames.take());
        for event in &told {
            prop_assert_eq!(event["requestId"].as_str(), request_id.as_deref());
        }
        if skipped > 0 {
            prop_assert_eq!(told.remove(0)["lines"].as_u64(), Some(skipped));
        }
        let heard: Vec<_> = told.iter().map(|event| (event["number"].as_u64(), event["line"].as_str())).collect();
        prop_assert_eq!(heard, (7..).map(Some).zip(lines.iter().map(|line| Some(line.as_str()))).collect::<Vec<_>>());
    }
}
