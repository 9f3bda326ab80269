//! Every file that a kind of item is read from, each through its collector. The first byte chooses the file.
//!
//! With TRUELINE_FUZZ_GROWTH it fuzzes nothing, and fails where a longer text takes more work than its length is worth.
#![no_main]

use libfuzzer_sys::fuzz_target;
use trueline_fuzz::host::{Host, SOURCES};
use trueline_fuzz::{assert_shown, growth, within};

thread_local! {
    static HOST: Host = Host::new();
}

/// Room for lists of folders and what a kind begins with, and what an input may become.
const MEMORY: usize = 8 << 20;
const TIMES: usize = 1024;

fuzz_target!(
    init: {
        if std::env::var_os("TRUELINE_FUZZ_GROWTH").is_some() {
            growth::check();
            std::process::exit(0);
        }
    },
    |bytes: &[u8]| {
        let Some((first, bytes)) = bytes.split_first() else { return };
        let source = &SOURCES[usize::from(first.wrapping_sub(b'0')) % SOURCES.len()];
        let told = HOST.with(|host| host.with(source, bytes, |read| within(MEMORY + TIMES * bytes.len(), read)));
        let Ok(listing) = told else { return };
        assert!(listing.items.windows(2).all(|pair| pair[0].0 < pair[1].0), "sorted, none twice");
        for (item, reading) in &listing.items {
            assert_eq!(item.kind, source.0);
            assert!(!item.key.as_str().is_empty());
            assert_shown(item.key.as_str());
            for (name, value) in reading.fields.iter() {
                assert_shown(name.as_str());
                assert_shown(&value.to_string());
            }
        }
    }
);
