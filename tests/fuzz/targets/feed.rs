//! What the kernel tells of processes whose owners chose their names, paths and arguments, and of the files that they touch.
#![no_main]

use libfuzzer_sys::fuzz_target;
use trueline_agent::kernel::connector::parse;
use trueline_agent::kernel::file_probe::record::{self, OperationKind};
use trueline_agent::kernel::process_probe::record::decode;
use trueline_agent::process::event::ProcessEventKind;
use trueline_fuzz::assert_shown;

/// A path's text, and what escaping the last character may add.
const PATH: usize = 1024 + 48;

fuzz_target!(|bytes: &[u8]| {
    if let Some(message) = parse(bytes) {
        assert_ne!(message.pid, 0);
    }
    if let Ok(operation) = record::decode(bytes)
        && let OperationKind::Event { entry, .. } | OperationKind::Flags(entry) | OperationKind::Mapped(entry) = operation.kind
    {
        assert!(!entry.name.contains(&0));
        assert!(entry.path.is_none_or(|path| !path.contains(&0) && path.len() <= bytes.len()));
    }
    let Ok(event) = decode(bytes) else { return };
    let ProcessEventKind::Exec { program: Some(program), .. } = event.kind else { return };
    assert_shown(&program.name);
    let path = program.executable.map(|executable| executable.path);
    for text in [path, program.cwd, program.script].into_iter().flatten() {
        assert_shown(&text);
        assert!(text.len() <= PATH, "{text:?}");
    }
    program.arguments.masked().iter().for_each(|argument| assert_shown(argument));
});
