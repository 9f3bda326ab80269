//! dpkg's status file and what `rpm -qa` prints: every package is an item of its own, within bounds.
#![no_main]

use libfuzzer_sys::fuzz_target;
use trueline_agent::collect::package::{Package, named, parse};
use trueline_agent::collect::rpm;
use trueline_drift::ItemKind;
use trueline_fuzz::{assert_shown, within};

/// The longest line that is held, a few times, and what the packages need beside it.
const MEMORY: usize = 1 << 20;

fuzz_target!(|bytes: &[u8]| {
    let (packages, skipped) = within(MEMORY + 64 * bytes.len(), || parse(bytes)).expect("reading from memory");
    let stanzas = bytes.split(|byte| *byte == b'\n').count();
    assert!(packages.len() + skipped as usize <= stanzas);
    check(packages);
    let (packages, skipped) = within(MEMORY + 64 * bytes.len(), || rpm::parse(bytes));
    assert_eq!(packages.len() + skipped as usize, bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).count());
    check(packages);
});

fn check(packages: Vec<Package>) {
    let count = packages.len();
    let listing = named(packages);
    assert!(listing.items.len() <= count);
    assert!(listing.items.windows(2).all(|pair| pair[0].0 < pair[1].0), "sorted, none twice");
    for (item, reading) in &listing.items {
        assert!(item.kind == ItemKind::Package && !item.key.as_str().is_empty());
        reading.fields.iter().for_each(|(_, value)| assert_shown(&value.to_string()));
    }
}
