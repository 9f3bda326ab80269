//! Unit files: what counts is the [Install] section alone, line by line.
#![no_main]

use libfuzzer_sys::fuzz_target;
use trueline_agent::collect::unit::{Install, install};

fuzz_target!(|bytes: &[u8]| {
    let found = install(bytes);
    // What stands before and after in other sections changes nothing.
    let around = [b"[Unit]\nWantedBy=x\n".as_slice(), b"[Install]\n", bytes, b"\n[Service]\nWantedBy=x\nAlso=x\n"].concat();
    let inside = install(&around);
    assert!(inside.wanted_by >= found.wanted_by && inside.also >= found.also);
    let outside = [b"[Unit]\n".as_slice(), &bytes.iter().copied().filter(|byte| *byte != b'[').collect::<Vec<u8>>()].concat();
    assert_eq!(install(&outside), Install::default());
});
