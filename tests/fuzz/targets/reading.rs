//! Rows of the agent's state: an item and its last reading come back as they were written.
#![no_main]

use libfuzzer_sys::fuzz_target;
use trueline_agent::state::encoding::{decode, encode, item, key};
use trueline_fuzz::within;

const MEMORY: usize = 8 << 20;

fuzz_target!(|input: (&[u8], &[u8])| {
    let (place, body) = input;
    if let Some(item) = item(place) {
        assert_eq!(key(&item), place);
    }
    let _ = within(MEMORY, || decode(place, body));
    // The checksum keeps damage out; behind it the reading must stand by itself.
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(place);
    hasher.update(body);
    let row = [&[1], &hasher.finalize().to_le_bytes()[..], body].concat();
    if let Some(stored) = within(MEMORY, || decode(place, &row)) {
        let written = encode(place, &stored);
        assert_eq!(decode(place, &written), Some(stored));
    }
});
