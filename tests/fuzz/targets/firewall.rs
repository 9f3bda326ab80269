//! Netlink messages of nf_tables, in which whoever may change the filter chooses names, values and lengths.
#![no_main]

use libfuzzer_sys::fuzz_target;
use trueline_drift::firewall::{LegacyFamily, LegacyHooks, Ruleset};
use trueline_drift::netlink::messages;

fuzz_target!(|bytes: &[u8]| {
    let mut ruleset = Ruleset::default();
    let mut taken = 0;
    for message in messages(bytes) {
        let Some((header, attributes)) = message.body.split_at_checked(4) else { continue };
        taken += usize::from(ruleset.take(message.kind as u8, header[0], attributes).is_some());
    }
    assert!(ruleset.sets_to_ask().len() <= taken);
    let items = ruleset.into_items();
    assert!(items.len() <= taken);
    let mut older = Ruleset::default();
    for family in [LegacyFamily::Ip, LegacyFamily::Ip6] {
        let _ = older.take_legacy(family, b"filter", &LegacyHooks { valid: 1, entry: [0; 5] }, bytes);
    }
    for (key, fields) in items.into_iter().chain(older.into_items()) {
        assert!(!key.is_empty());
        for (name, value) in fields {
            assert!(!value.to_string().chars().any(char::is_control), "{name}");
        }
    }
});
