//! /proc/self/mountinfo, in which others choose the mount points' names.
#![no_main]

use libfuzzer_sys::fuzz_target;
use trueline_agent::sensor::mounts::{mounts_of, parse_mounts};

fuzz_target!(|bytes: &[u8]| {
    let mounts = parse_mounts(bytes);
    assert!(mounts.len() <= bytes.split(|byte| *byte == b'\n').count());
    let found = mounts_of(&["/etc".into(), "/".into()], &mounts);
    for (at, mount) in found.iter().enumerate() {
        assert!(mounts.contains(mount));
        assert!(!found[..at].iter().any(|other| other.id == mount.id), "{mount:?} twice");
    }
});
