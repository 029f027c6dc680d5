//! The fields of a request, as a form and as JSON, and the names in them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sharpfaas_fuzz::{
    api::{Fields, Problem},
    function::{CallerId, EntryName, FunctionName, FunctionType, Lane, Selector, TokenName},
};

fn names(mut fields: Fields) -> Result<(), Problem> {
    let name = fields.parse::<FunctionName>("functionName")?;
    let lane = fields.parse::<Lane>("lane")?;
    for part in [name.as_ref().map(FunctionName::as_str), lane.as_ref().map(Lane::as_str)].into_iter().flatten() {
        assert!(!part.contains(['/', '\\', '\0', '\r', '\n']) && part != "." && part != "..", "{part:?}");
    }
    if let Some(entry) = fields.parse::<EntryName>("entryFileName")? {
        assert!(!entry.as_str().split('/').any(|part| part == ".." || part.is_empty()), "{entry:?}");
    }
    fields.parse::<CallerId>("callerId")?;
    if let Some(version) = fields.parse::<Selector>("version")? {
        assert_eq!(version.to_string().parse::<Selector>().ok(), Some(version), "it reads as it is written");
    }
    fields.parse::<FunctionType>("type")?;
    fields.parse::<TokenName>("token")?;
    fields.flag("payloadEncrypted")?;
    fields.number("deadlineMs", 1, 86_400_000)?;
    fields.take_any("payload")?;
    assert!(fields.rest().len() <= 256);
    Ok(())
}

fuzz_target!(|bytes: &[u8]| {
    let _ = Fields::of_form(bytes).and_then(names);
    let _ = Fields::of_json(bytes).and_then(names);
});
