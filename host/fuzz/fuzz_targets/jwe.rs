//! An encrypted payload: whatever comes is refused or opened, and what is sealed is opened as it was.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use sharpfaas_fuzz::security::jwe::{Claims, Keys};

static KEYS: LazyLock<Keys> =
    LazyLock::new(|| Keys::new([("one", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")]).expect("a key"));

fuzz_target!(|text: &str| {
    let keys = &*KEYS;
    if let Ok(opened) = keys.open(text) {
        assert_eq!(opened.kid, "one");
    }
    let claims = Claims { jti: Some(text.to_owned()), ..Claims::default() };
    let sealed = keys.seal("one", &claims, text).expect("sealed");
    match keys.open(&sealed) {
        Ok(opened) => assert_eq!((opened.text.as_str(), opened.claims.jti.as_deref()), (text, Some(text))),
        // Its header is too long.
        Err(_) => assert!(text.len() > 256),
    }
    let mut changed = sealed.into_bytes();
    let at = text.len() % changed.len();
    changed[at] ^= 1;
    if let Ok(changed) = String::from_utf8(changed) {
        assert!(keys.open(&changed).is_err(), "{changed}");
    }
});
