//! Names that others chose, made printable and turned back; items, fields and values made of them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use trueline_drift::item::ItemError;
use trueline_drift::text::{bounded, original, printable};
use trueline_drift::value::VALUE_LIMIT;
use trueline_drift::{FieldName, ItemId, ItemKey, Time, Value};
use trueline_fuzz::assert_shown;

fuzz_target!(|bytes: &[u8]| {
    let shown = printable(bytes);
    assert_shown(&shown);
    assert_eq!(original(&shown), bytes);
    match ItemKey::from_bytes(bytes) {
        Ok(key) => {
            assert_eq!(key.bytes(), bytes);
            assert_eq!(ItemKey::from_text(key.as_str()).expect("it was a key"), key);
        }
        Err(ItemError::TooLong { length }) => assert!(length > ItemKey::LIMIT),
        Err(error) => panic!("{error}"),
    }
    assert!(Value::bytes(bytes).to_string().len() <= VALUE_LIMIT * 4 + 64);
    assert_shown(&Value::bytes(bytes).to_string());
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    for limit in [0, 7, 40] {
        let cut = bounded(text, limit);
        assert!(text.len() <= limit || cut.len() <= limit + 48);
        assert!(text.starts_with(cut.split('…').next().unwrap_or_default()));
    }
    // The agent's state, the wire and the collector each make the name anew: it must stay the same.
    let name = FieldName::new(text);
    assert_shown(name.as_str());
    assert!(name.as_str().len() <= FieldName::LIMIT);
    assert_eq!(FieldName::new(name.as_str()), name);
    match text.parse::<ItemId>() {
        Ok(item) => {
            assert_shown(&item.to_string());
            assert_eq!(item.to_string().parse::<ItemId>().expect("it was an item"), item);
        }
        Err(error) => assert!(error.to_string().len() < 512),
    }
    if let Ok(time) = text.parse::<Time>() {
        assert_eq!(time.to_string().parse::<Time>().expect("it was a time"), time);
    }
});
