//! Events as fanotify writes them: reading ends, stays within the buffer, and never makes up a name.
#![no_main]

use libfuzzer_sys::fuzz_target;
use trueline_agent::kernel::fanotify::{ParseError, parse};

/// `struct fanotify_event_metadata`: no event is shorter.
const SHORTEST: usize = 24;

fuzz_target!(|bytes: &[u8]| {
    let mut events = 0;
    let mut is_over = false;
    for event in parse(bytes) {
        assert!(!is_over, "nothing after a damaged length can be trusted");
        events += 1;
        match event {
            Ok(record) => {
                let Some(entry) = record.entry else { continue };
                for part in [Some(entry.folder), entry.name].into_iter().flatten() {
                    let range = bytes.as_ptr_range();
                    assert!(range.start <= part.as_ptr() && part.as_ptr_range().end <= range.end);
                }
                assert!(entry.folder.len() >= 8, "a handle begins with its length and type");
                assert!(entry.name.is_none_or(|name| !name.is_empty() && name != b"." && !name.contains(&0)));
            }
            Err(ParseError::Length { at, length, rest }) => {
                assert_eq!(at + rest, bytes.len());
                assert!(length < SHORTEST || length > rest || rest >= SHORTEST);
                is_over = true;
            }
            Err(ParseError::Version { at, .. } | ParseError::Information { at }) => assert!(at < bytes.len()),
        }
    }
    assert!(events <= bytes.len() / SHORTEST + 1);
});
