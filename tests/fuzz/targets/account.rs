//! /etc/passwd, /etc/shadow, /etc/group and /etc/gshadow: no password hash comes out, and nobody appears twice.
#![no_main]

use libfuzzer_sys::fuzz_target;
use trueline_agent::collect::{Listing, group, user};
use trueline_drift::redact::RedactionKey;
use trueline_fuzz::assert_shown;

/// Stands where the input has the byte 1.
const HASH: &[u8] = b"$6$salt$Uq9zKc0Rt5Zw";

fuzz_target!(|input: (&[u8], &[u8])| {
    let (passwd, shadow) = input;
    let shadow = shadow.iter().flat_map(|byte| if *byte == 1 { HASH.to_vec() } else { vec![*byte] }).collect::<Vec<u8>>();
    let key = RedactionKey::new([7; 32]);
    let listing = user::parse(passwd, Ok(&shadow), &key);
    // Whether the accounts can be told does not hang on their passwords.
    let names = |listing: &Listing| listing.items.iter().map(|(item, _)| item.clone()).collect::<Vec<_>>();
    let unreadable = user::parse(passwd, Err("permission denied".to_owned()), &key);
    assert_eq!(unreadable.ok().as_ref().map(names), listing.as_ref().ok().map(names));
    let groups = group::parse(passwd, Ok(&shadow), &key);
    for listing in [&listing, &groups].into_iter().flatten() {
        check(listing, passwd);
    }
    if !contains(passwd, HASH) {
        let shown = format!("{listing:?} {groups:?}");
        assert!(!contains(shown.as_bytes(), b"Uq9zKc0Rt5Zw"), "{shown}");
    }
});

fn check(listing: &Listing, database: &[u8]) {
    let lines = database.split(|byte| *byte == b'\n').filter(|line| !line.is_empty() && line[0] != b'#').count();
    assert_eq!(listing.items.len() + listing.skipped as usize, lines, "every line is an item or counted as left out");
    assert!(listing.items.windows(2).all(|pair| pair[0].0 < pair[1].0), "sorted, none twice");
    for (item, reading) in &listing.items {
        assert_shown(item.key.as_str());
        reading.fields.iter().for_each(|(_, value)| assert_shown(&value.to_string()));
    }
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}
