use proptest::prelude::*;

use super::*;

const ONE: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
const TWO: &str = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE";

fn keys() -> Keys {
    Keys::new([("one", ONE), ("two", TWO)]).expect("keys")
}

/// With another protected header under the same key.
fn with_header(header: &str) -> String {
    let header = URL_SAFE_NO_PAD.encode(header);
    let key = aead(&[0; KEY]).expect("a key");
    let mut sealed = b"{}".to_vec();
    let nonce = Nonce::assume_unique_for_key([7; NONCE_LEN]);
    let tag = key.seal_in_place_separate_tag(nonce, Aad::from(header.as_bytes()), &mut sealed).expect("sealed");
    let [nonce, sealed, tag] = [&[7; NONCE_LEN][..], &sealed, tag.as_ref()].map(|part| URL_SAFE_NO_PAD.encode(part));
    format!("{header}..{nonce}.{sealed}.{tag}")
}

#[test]
fn what_was_sealed_is_opened_under_its_key() {
    let keys = keys();
    let claims = Claims { exp: Some(17e8), jti: Some("x".into()), sub: Some("dev/f".into()) };
    for text in ["", "{\"a\": 1}", "ü".repeat(100_000).as_str()] {
        let sealed = keys.seal("two", &claims, text).expect("sealed");
        let opened = keys.open(&sealed).expect("opened");
        assert_eq!((opened.text.as_str(), opened.kid.as_str(), &opened.claims), (text, "two", &claims));
        assert_ne!(keys.seal("two", &claims, text), Some(sealed), "each has a nonce of its own");
    }
    assert_eq!(keys.seal("three", &claims, ""), None);
}

#[test]
fn everything_else_is_refused() {
    let keys = keys();
    let good = r#"{"alg":"dir","enc":"A256GCM","kid":"one"}"#;
    assert_eq!(keys.open(&with_header(good)).expect("opened").text, "{}");
    for bad in [
        r#"{"alg":"dir","enc":"A256GCM","kid":"two"}"#,
        r#"{"alg":"dir","enc":"A256GCM","kid":"three"}"#,
        r#"{"alg":"dir","enc":"A256GCM"}"#,
        r#"{"alg":"none","enc":"A256GCM","kid":"one"}"#,
        r#"{"alg":"A256KW","enc":"A256GCM","kid":"one"}"#,
        r#"{"alg":"dir","enc":"A128GCM","kid":"one"}"#,
        r#"{"alg":"dir","enc":"A256CBC-HS512","kid":"one"}"#,
        r#"{"alg":"dir","enc":"A256GCM","kid":"one","zip":"DEF"}"#,
        r#"{"alg":"dir","enc":"A256GCM","kid":"one","crit":["exp"]}"#,
        r#"{"alg":"dir","alg":"dir","enc":"A256GCM","kid":"one"}"#,
        r#"{"alg":"dir","enc":"A256GCM","kid":"one","exp":"tomorrow"}"#,
        r#"["dir"]"#,
        "",
    ] {
        assert!(keys.open(&with_header(bad)).is_err(), "{bad}");
    }
    let other = Keys::new([("one", TWO)]).expect("keys");
    assert!(other.open(&with_header(good)).is_err(), "another key of that name");
}

#[test]
fn keys_are_32_bytes_with_an_id() {
    assert!(Keys::new([("a", "AAAA")]).is_err());
    assert!(Keys::new([("", ONE)]).is_err());
    assert!(Keys::new([("a", ONE), ("a", TWO)]).is_err());
    assert!(Keys::new([("a", &*format!("{ONE}=\n"))]).is_ok());
    assert!(!format!("{:?}", keys()).contains("AAA"));
}

proptest! {
    #[test]
    fn no_changed_text_is_opened(at in 0usize..200, to in "[A-Za-z0-9_.=-]") {
        let sealed = keys().seal("one", &Claims::default(), "something to be kept").expect("sealed");
        let mut changed = sealed.clone();
        let at = at % changed.len();
        changed.replace_range(at..=at, &to);
        prop_assert!(changed == sealed || keys().open(&changed).is_err(), "{changed}");
        prop_assert!(keys().open(&sealed[..at]).is_err());
    }

    #[test]
    fn nothing_that_comes_makes_it_panic(text in "\\PC{0,200}", parts in proptest::collection::vec("[A-Za-z0-9_-]{0,40}", 0..7)) {
        let _ = keys().open(&text);
        let _ = keys().open(&parts.join("."));
    }
}
