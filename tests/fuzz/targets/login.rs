//! logind's records of sessions, and what the journal says of logins.
#![no_main]

use libfuzzer_sys::fuzz_target;
use trueline_agent::actor::login::accepted::parse_accepted;
use trueline_agent::actor::login::journal::{Admission, parse_opening, pick_accepted};
use trueline_agent::actor::login::record::parse_record;
use trueline_drift::Time;
use trueline_fuzz::assert_shown;

fuzz_target!(|bytes: &[u8]| {
    if let Some(record) = parse_record(bytes) {
        for text in [record.user, record.remote_host, record.terminal].into_iter().flatten() {
            assert_shown(&text);
        }
    }
    if let Some(opening) = parse_opening(bytes) {
        assert_shown(&opening.user);
    }
    let admission = Admission { leader: 61, user: "alice".to_owned(), session_began: Time::from_micros(1_795_353_877_872_665) };
    let picked = pick_accepted(bytes, &admission);
    let said = std::str::from_utf8(bytes).ok().and_then(|text| parse_accepted(text, "alice"));
    for accepted in picked.into_iter().chain(said) {
        assert!(accepted.origin.port.is_some());
        if let Some(key) = accepted.key {
            assert_shown(&key);
            assert_eq!(key.len(), "SHA256:".len() + 43);
        }
    }
});
