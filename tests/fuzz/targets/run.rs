//! What runs say of themselves: apt's history, Puppet's summary; and time zones.
#![no_main]

use libfuzzer_sys::fuzz_target;
use trueline_drift::Time;
use trueline_drift::transaction::{Zone, entries, of_run, summary};
use trueline_fuzz::assert_shown;

fuzz_target!(|bytes: &[u8]| {
    let zone = Zone::from_tzif(bytes).unwrap_or(Zone::UTC);
    for log in [bytes, b"Start-Date: 2026-02-12  10:30:01\nCommandline: apt upgrade\n"] {
        let entries = entries(log, &zone);
        assert!(entries.len() <= 256);
        for entry in &entries {
            let texts = entry.packages.iter().chain(&entry.command).chain(&entry.requested_by).chain(&entry.error);
            texts.for_each(|text| assert_shown(text));
            // A run has the entry that has its own command and time.
            let Some(command) = entry.command.as_deref().filter(|command| !command.contains('…')) else { continue };
            let told = of_run(&entries, command, entry.began_at, entry.began_at);
            assert!(command.split(' ').next().is_none_or(|program| program.is_empty() || program.ends_with('/')) || told.is_some());
        }
        assert_eq!(of_run(&entries, "", Time::from_micros(i64::MIN), Time::from_micros(i64::MAX)), None);
    }
    if let Some(summary) = summary(bytes) {
        summary.catalogue_version.iter().for_each(|version| assert_shown(version));
    }
});
