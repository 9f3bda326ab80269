//! Audit records, one a line: a call is told once, of one of our rules, and holds no more than its bound.
#![no_main]

use libfuzzer_sys::fuzz_target;
use trueline_agent::sensor::audit::event::Assembler;

/// The types of records that make up a call: SYSCALL, PATH, CWD, PROCTITLE, EOE, and one that does not.
const KINDS: [u16; 6] = [1300, 1302, 1307, 1327, 1320, 1309];
/// Most paths of one call.
const PATHS: usize = 8;

fuzz_target!(|bytes: &[u8]| {
    let mut assembler = Assembler::default();
    for line in bytes.split(|byte| *byte == b'\n') {
        let Some((kind, text)) = line.split_first() else { continue };
        let kind = KINDS[usize::from(*kind) % KINDS.len()];
        if let Some(call) = assembler.take(kind, text) {
            assert!(kind == 1320 && call.paths.len() <= PATHS);
            assert!(call.login_uid != Some(u32::MAX) && call.session != Some(u32::MAX));
            assert!(assembler.take(kind, text).is_none(), "a call has one end");
        }
    }
});
