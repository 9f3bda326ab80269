//! What /proc says of a process whose owner chose its name, arguments and cgroup.
#![no_main]

use libfuzzer_sys::fuzz_target;
use trueline_agent::actor::placement::parse_placement;
use trueline_agent::actor::procfs::{parse_arguments, parse_audit_id, parse_stat, parse_users, terminal_name};
use trueline_fuzz::assert_shown;

fuzz_target!(|bytes: &[u8]| {
    if let Some(stat) = parse_stat(bytes) {
        assert_shown(&stat.name);
        if let Some(terminal) = terminal_name(stat.terminal) {
            assert_shown(&terminal);
        }
    }
    parse_users(bytes);
    assert_ne!(parse_audit_id(bytes), Some(u32::MAX));
    let arguments = parse_arguments(bytes);
    assert!(arguments.len() <= 65);
    for argument in &arguments {
        assert_shown(argument);
        assert!(argument.len() <= 512 + 48);
    }
    let placement = parse_placement(bytes);
    for name in [placement.unit, placement.container].into_iter().flatten() {
        assert_shown(&name);
        assert!(!name.is_empty() && name.len() <= 256 + 48 && !name.contains('/'), "{name:?}");
    }
});
