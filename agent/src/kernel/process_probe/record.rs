//! What one record of agent/bpf/process.bpf.c says. Pure: bytes in, an event out; it never panics, whatever the bytes.
//!
//! The layout is that of `struct head` and `struct program` there. All text in it was chosen by whoever started the process.

use std::sync::Arc;
use std::time::Duration;

use trueline_drift::text::{bounded, printable};

use crate::process::event::{Arguments, BootTime, Executable, ProcessEvent, ProcessEventKind, Program, Queued, Standing, Subject};

const FORK: u32 = 1;
const EXEC: u32 = 2;
const EXIT: u32 = 3;
/// What the kernel writes for a login or session that nobody set.
const UNSET: u32 = u32::MAX;

/// Flags of a path: see `PATH_CUT` and its siblings there.
const CUT: u32 = 1;
const ELSEWHERE: u32 = 2;
const NOWHERE: u32 = 4;
const REMOVED: u32 = 8;
const KNOWN: u32 = 16;

const NAME_BYTES: usize = 16;
const PATH_TEXT: usize = 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    #[error("a process record of {length} bytes ends before its field at byte {at}")]
    Short { at: usize, length: usize },
    #[error("a process record is of kind {0}, which this agent does not know")]
    Kind(u32),
}

pub fn decode(bytes: &[u8]) -> Result<ProcessEvent, DecodeError> {
    let mut record = Record { bytes, at: 0 };
    let kind = record.u32()?;
    let pid = record.u32()?;
    let at = BootTime::from_nanos(record.u64()?);
    let started = BootTime::from_nanos(record.u64()?);
    let cgroup = record.u64()?;
    let [uid, euid, login_uid, session, terminal, pid_namespace, mount_namespace, parent] = record.u32s()?;
    let parent_started = record.u64()?;
    let since = BootTime::from_nanos(record.u64()?);
    let [queued, first_number] = record.u32s()?;
    let queued = (queued != UNSET).then_some(Queued { events: queued, since });
    let known = |number: u32| (number != 0).then_some(number);
    let standing = Some(Standing {
        uid,
        euid,
        login_uid: Some(login_uid).filter(|uid| *uid != UNSET),
        session: Some(session).filter(|session| *session != UNSET),
        cgroup: (cgroup != 0).then_some(cgroup),
        terminal: known(terminal),
        pid_namespace: known(pid_namespace),
        mount_namespace: known(mount_namespace),
    });
    let kind = match kind {
        FORK => {
            let started = (parent_started != 0).then_some(BootTime::from_nanos(parent_started));
            ProcessEventKind::Fork { parent: Subject { pid: parent, started }, standing, queued }
        }
        EXEC => ProcessEventKind::Exec { program: Some(Box::new(program(&mut record)?)), standing, queued },
        EXIT => ProcessEventKind::Exit { standing },
        other => return Err(DecodeError::Kind(other)),
    };
    Ok(ProcessEvent { at, process: Subject { pid, started: Some(started) }, first_number: known(first_number), kind })
}

fn program(record: &mut Record<'_>) -> Result<Program, DecodeError> {
    let inode = record.u64()?;
    let seconds = record.u64()?.cast_signed();
    let [nanos, device] = record.u32s()?;
    let [path_bytes, cwd_bytes, script_bytes, argument_bytes, path_flags, cwd_flags] = record.u32s()?;
    let name = record.take(NAME_BYTES)?;
    let path = record.take(path_bytes as usize)?;
    let cwd = record.take(cwd_bytes as usize)?;
    let script = record.take(script_bytes as usize)?;
    let arguments = record.take(argument_bytes as usize)?;

    let shown = |bytes: &[u8]| Arc::from(&*bounded(&printable(until_zero(bytes)), PATH_TEXT));
    let executable = path_text(path, path_flags).map(|path| Executable {
        path,
        removed: path_flags & REMOVED != 0,
        device: (inode != 0).then(|| number_of_device(device)),
        inode: (inode != 0).then_some(inode),
        changed: u64::try_from(seconds).ok().filter(|_| inode != 0 && nanos < 1_000_000_000).map(|seconds| Duration::new(seconds, nanos)),
    });
    Ok(Program {
        name: printable(until_zero(name)).into_owned(),
        executable,
        script: (!until_zero(script).is_empty()).then(|| shown(script)),
        arguments: Arguments::new(arguments),
        cwd: path_text(cwd, cwd_flags),
    })
}

/// The kernel keeps 20 bits of minor number; stat(2) tells them otherwise.
pub(in crate::kernel) fn number_of_device(device: u32) -> u64 {
    libc::makedev(device >> 20, device & 0xf_ffff)
}

/// The names come from the last to the first, each ended by a zero byte. `None` where there is no path at all.
fn path_text(names: &[u8], flags: u32) -> Option<Arc<str>> {
    if flags & KNOWN == 0 {
        return None;
    }
    let names = names.strip_suffix(b"\0").unwrap_or(names);
    let mut text = String::with_capacity(names.len() + 4);
    let start = match flags {
        flags if flags & (CUT | ELSEWHERE) != 0 => "…/",
        // Such a name is the kernel's; one that looked like a path would be taken for one.
        flags if flags & NOWHERE != 0 => {
            if names.starts_with(b"/") {
                "…"
            } else {
                ""
            }
        }
        _ => "/",
    };
    text.push_str(start);
    if !names.is_empty() {
        for (at, name) in names.rsplit(|byte| *byte == 0).enumerate() {
            if at > 0 {
                text.push('/');
            }
            text.push_str(&printable(name));
        }
    }
    Some(Arc::from(&*bounded(&text, PATH_TEXT)))
}

fn until_zero(bytes: &[u8]) -> &[u8] {
    bytes.split(|byte| *byte == 0).next().unwrap_or_default()
}

pub(in crate::kernel) struct Record<'a> {
    pub bytes: &'a [u8],
    pub at: usize,
}

impl<'a> Record<'a> {
    pub fn take(&mut self, length: usize) -> Result<&'a [u8], DecodeError> {
        let end = self.at.checked_add(length);
        let taken = end.and_then(|end| self.bytes.get(self.at..end));
        let taken = taken.ok_or(DecodeError::Short { at: self.at, length: self.bytes.len() })?;
        self.at += length;
        Ok(taken)
    }

    pub fn u32(&mut self) -> Result<u32, DecodeError> {
        let mut bytes = [0; 4];
        bytes.copy_from_slice(self.take(4)?);
        Ok(u32::from_ne_bytes(bytes))
    }

    pub fn u32s<const N: usize>(&mut self) -> Result<[u32; N], DecodeError> {
        let mut numbers = [0; N];
        for number in &mut numbers {
            *number = self.u32()?;
        }
        Ok(numbers)
    }

    pub fn u64(&mut self) -> Result<u64, DecodeError> {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(self.take(8)?);
        Ok(u64::from_ne_bytes(bytes))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn head(kind: u32) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend([kind, 42].iter().flat_map(|number| number.to_ne_bytes()));
        bytes.extend([9_000_u64, 8_000, 77].iter().flat_map(|number| number.to_ne_bytes()));
        bytes.extend([1000, 0, 1000, UNSET, 0x8803, 4_026_531_836, 0, 7].iter().flat_map(|number: &u32| number.to_ne_bytes()));
        bytes.extend([6_000_u64, 8_999].iter().flat_map(|number| number.to_ne_bytes()));
        bytes.extend([3, 0].iter().flat_map(|number: &u32| number.to_ne_bytes()));
        bytes
    }

    fn exec(texts: [&[u8]; 4], flags: [u32; 2]) -> Vec<u8> {
        let mut bytes = head(EXEC);
        bytes.extend([5_u64, 1_700_000_000].iter().flat_map(|number| number.to_ne_bytes()));
        let lengths = texts.map(|text| text.len() as u32);
        bytes.extend([250, (8 << 20) | 1].iter().chain(&lengths).chain(&flags).flat_map(|number: &u32| number.to_ne_bytes()));
        bytes.extend(b"apt\nx\0\0\0\0\0\0\0\0\0\0\0");
        bytes.extend(texts.concat());
        bytes
    }

    fn executed(bytes: &[u8]) -> Program {
        match decode(bytes).unwrap().kind {
            ProcessEventKind::Exec { program: Some(program), .. } => *program,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_fork_and_an_end_are_told_whole() {
        let event = decode(&head(FORK)).unwrap();
        let started = Some(BootTime::from_nanos(8_000));
        assert_eq!((event.at, event.process), (BootTime::from_nanos(9_000), Subject { pid: 42, started }));
        let standing = Some(Standing {
            uid: 1000,
            euid: 0,
            login_uid: Some(1000),
            session: None,
            cgroup: Some(77),
            terminal: Some(0x8803),
            pid_namespace: Some(4_026_531_836),
            mount_namespace: None,
        });
        let parent = Subject { pid: 7, started: Some(BootTime::from_nanos(6_000)) };
        let queued = Some(Queued { events: 3, since: BootTime::from_nanos(8_999) });
        assert_eq!(event.kind, ProcessEventKind::Fork { parent, standing: standing.clone(), queued });
        assert_eq!(decode(&head(EXIT)).unwrap().kind, ProcessEventKind::Exit { standing });
        assert_eq!(decode(&head(9)), Err(DecodeError::Kind(9)));
    }

    #[test]
    fn a_program_is_told_with_its_script_and_harmless_text() {
        let texts: [&[u8]; 4] = [b"dash\0bin\0usr\0", b"", b"./run\x1b.sh\0", b"sh\0./run.sh\0--token=hunter2\0"];
        let program = executed(&exec(texts, [KNOWN | REMOVED, KNOWN]));
        let executable = program.executable.as_ref().unwrap();
        assert_eq!((&*executable.path, executable.removed), ("/usr/bin/dash", true));
        assert_eq!((executable.device, executable.inode), (Some(libc::makedev(8, 1)), Some(5)));
        assert_eq!(executable.changed, Some(Duration::new(1_700_000_000, 250)));
        assert_eq!(
            (program.name.as_str(), program.script.as_deref(), program.cwd.as_deref()),
            ("apt\\x0ax", Some("./run\\x1b.sh"), Some("/"))
        );
        assert_eq!(program.arguments.masked(), ["sh", "./run.sh", "--token=[redacted]"]);
        assert!(!format!("{program:?}").contains("hunter2"));
    }

    #[test]
    fn a_path_that_is_not_whole_is_never_taken_for_one_that_is() {
        let path = |names: &[u8], flags| path_text(names, flags);
        assert_eq!(path(b"apt\0bin\0usr\0", KNOWN).as_deref(), Some("/usr/bin/apt"));
        assert_eq!(path(b"apt\0bin\0usr\0", KNOWN | CUT).as_deref(), Some("…/usr/bin/apt"));
        assert_eq!(path(b"apt\0bin\0usr\0", KNOWN | ELSEWHERE).as_deref(), Some("…/usr/bin/apt"));
        assert_eq!(path(b"memfd:/usr/bin/apt\0", KNOWN | NOWHERE | REMOVED).as_deref(), Some("memfd:/usr/bin/apt"));
        assert_eq!(path(b"/usr/bin/apt\0", KNOWN | NOWHERE).as_deref(), Some("…/usr/bin/apt"));
        assert_eq!(path(b"", 0), None);
    }

    #[test]
    fn every_beginning_of_a_record_is_refused() {
        let whole = exec([b"a\0", b"b\0", b"c\0", b"d\0"], [KNOWN, KNOWN]);
        for length in 0..whole.len() {
            assert!(matches!(decode(&whole[..length]), Err(DecodeError::Short { .. })), "{length}");
        }
        assert!(decode(&whole).is_ok());
    }

    proptest! {
        #[test]
        fn any_bytes_become_an_event_of_bounded_printable_text_or_an_error(
            kind in 0_u32..5,
            flags in [0_u32..64, 0_u32..64],
            texts in [proptest::collection::vec(any::<u8>(), 0..300), proptest::collection::vec(any::<u8>(), 0..5000),
                proptest::collection::vec(any::<u8>(), 0..300), proptest::collection::vec(any::<u8>(), 0..5000)],
            cut in 0_usize..12_000,
        ) {
            let mut bytes = exec([&texts[0], &texts[1], &texts[2], &texts[3]], flags);
            bytes[..4].copy_from_slice(&kind.to_ne_bytes());
            bytes.truncate(cut);
            if let Ok(ProcessEvent { kind: ProcessEventKind::Exec { program: Some(program), .. }, .. }) = decode(&bytes) {
                let path = program.executable.as_ref().map(|executable| executable.path.clone());
                for text in [path, program.cwd, program.script].into_iter().flatten() {
                    prop_assert!(text.len() <= PATH_TEXT + 40);
                    prop_assert!(!text.chars().any(char::is_control));
                }
                prop_assert!(program.arguments.bytes() <= crate::actor::procfs::ARGUMENT_BYTES);
            }
        }

        #[test]
        fn noise_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = decode(&bytes);
        }
    }
}
