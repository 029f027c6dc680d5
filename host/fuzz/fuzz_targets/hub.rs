//! What a client of the hub sends, in frames of any size: records, and what they ask for.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sharpfaas_fuzz::hub::{
    END,
    messages::{self, Asked},
    records::Records,
};

/// The longest record.
const MAX: usize = 4096;

fuzz_target!(|input: (Vec<u8>, &str)| {
    let (cuts, text) = input;
    let mut records = Records::new(MAX);
    let (mut rest, mut found, mut cuts) = (text, Vec::new(), cuts.iter().cycle());
    while !rest.is_empty() {
        let cut = cuts.next().map_or(rest.len(), |cut| usize::from(*cut).clamp(1, rest.len()));
        let cut = (cut..=rest.len()).find(|at| rest.is_char_boundary(*at)).unwrap_or(rest.len());
        let (frame, after) = rest.split_at(cut);
        rest = after;
        records.push(frame);
        loop {
            match records.next() {
                Ok(Some(record)) => found.push(record),
                Ok(None) => break,
                Err(_) => return,
            }
        }
    }
    // However it was cut, the same records come of it.
    let whole: Vec<&str> = text.split_inclusive(END).filter_map(|record| record.strip_suffix(END)).collect();
    assert_eq!(found, whole);
    for record in found {
        assert!(record.len() <= MAX);
        let _ = messages::agree(&record);
        if let Asked::Stream(id, mut fields) = messages::read(&record) {
            assert!(id.len() <= 128);
            let _ = fields.take_any("payload");
            let _ = fields.flag("payloadEncrypted");
            let mut written = Vec::new();
            messages::StreamItems::of(&id).write(&record, &mut written);
            let line = String::from_utf8(written).expect("text");
            assert_eq!(line.matches(END).count(), 1, "{line}");
        }
    }
});
