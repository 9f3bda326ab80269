//! What one record of agent/bpf/files.bpf.c says. Pure: bytes in, an operation out; it never panics, whatever the bytes.
//!
//! The layout is that of `struct operation` there. The names in it were chosen by whoever made the files.

use crate::kernel::file::Inode;
use crate::kernel::process_probe::record::{DecodeError, Record, number_of_device};
use crate::process::event::BootTime;

const EVENT: u32 = 1;
const FLAGS: u32 = 2;
const MAPPED: u32 = 3;
const MOUNT: u32 = 4;
const MODULE: u32 = 5;

/// The names go up to the top of the file system.
const WHOLE: u32 = 1;

/// Something that a process did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    pub kind: OperationKind,
    pub at: BootTime,
    pub pid: u32,
    /// When the process began.
    pub started: BootTime,
    pub uid: u32,
    pub euid: u32,
    pub mount_namespace: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OperationKind {
    /// The kernel tells all who watch files of these events, in fanotify's numbers.
    Event { events: u64, entry: Entry },
    /// Attributes as chattr(1) sets them.
    Flags(Entry),
    /// Made writable through memory.
    Mapped(Entry),
    /// A mount came, went or was moved; which one is not told.
    Mount,
    /// The module of this name was loaded or taken out.
    Module(Vec<u8>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub folder: Inode,
    /// 0 where the kernel did not say.
    pub inode: u64,
    pub name: Vec<u8>,
    /// From the top of its file system, where that is known.
    pub path: Option<Vec<u8>>,
}

pub fn decode(bytes: &[u8]) -> Result<Operation, DecodeError> {
    let mut record = Record { bytes, at: 0 };
    let [kind, pid] = record.u32s()?;
    let (at, started) = (BootTime::from_nanos(record.u64()?), BootTime::from_nanos(record.u64()?));
    let (folder, inode) = (record.u64()?, record.u64()?);
    let [device, events, uid, euid, mount_namespace, flags, text_bytes, _] = record.u32s()?;
    let text = record.take(text_bytes as usize)?;
    let names: Vec<&[u8]> = text.split(|byte| *byte == 0).filter(|name| !name.is_empty()).collect();
    let entry = Entry {
        folder: Inode { device: number_of_device(device), number: folder },
        inode,
        name: names.first().copied().unwrap_or_default().to_vec(),
        path: (flags & WHOLE != 0).then(|| names.iter().rev().flat_map(|name| [b"/", *name]).flatten().copied().collect()),
    };
    let kind = match kind {
        EVENT => OperationKind::Event { events: u64::from(events), entry },
        FLAGS => OperationKind::Flags(entry),
        MAPPED => OperationKind::Mapped(entry),
        MOUNT => OperationKind::Mount,
        MODULE => OperationKind::Module(entry.name),
        other => return Err(DecodeError::Kind(other)),
    };
    Ok(Operation { kind, at, pid, started, uid, euid, mount_namespace })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record(kind: u32, flags: u32, text: &[u8]) -> Vec<u8> {
        let mut bytes: Vec<u8> = [kind, 42].iter().flat_map(|number| number.to_ne_bytes()).collect();
        bytes.extend([9_000_u64, 8_000, 77, 78].iter().flat_map(|number| number.to_ne_bytes()));
        let numbers = [(8 << 20) | 1, 0x102, 1000, 0, 4_026_531_841, flags, text.len() as u32, 0];
        bytes.extend(numbers.iter().flat_map(|number: &u32| number.to_ne_bytes()));
        bytes.extend(text);
        bytes
    }

    #[test]
    fn an_operation_is_told_with_its_entry() {
        let folder = Inode { device: libc::makedev(8, 1), number: 77 };
        let entry = Entry { folder, inode: 78, name: b"a\nb".to_vec(), path: None };
        let told = decode(&record(EVENT, 0, b"a\nb\0")).unwrap();
        assert_eq!((told.at, told.started, told.pid), (BootTime::from_nanos(9_000), BootTime::from_nanos(8_000), 42));
        assert_eq!((told.uid, told.euid, told.mount_namespace), (1000, 0, 4_026_531_841));
        assert_eq!(told.kind, OperationKind::Event { events: 0x102, entry: entry.clone() });
        let whole = Entry { name: b"x".to_vec(), path: Some(b"/etc/x".to_vec()), ..entry };
        assert_eq!(decode(&record(FLAGS, WHOLE, b"x\0etc\0")).unwrap().kind, OperationKind::Flags(whole));
        assert_eq!(decode(&record(MOUNT, 0, b"")).unwrap().kind, OperationKind::Mount);
        assert_eq!(decode(&record(9, 0, b"")), Err(DecodeError::Kind(9)));
    }

    #[test]
    fn every_beginning_of_a_record_is_refused() {
        let whole = record(MAPPED, 0, b"shadow\0");
        for length in 0..whole.len() {
            assert!(matches!(decode(&whole[..length]), Err(DecodeError::Short { .. })), "{length}");
        }
        assert!(decode(&whole).is_ok());
    }

    proptest! {
        #[test]
        fn no_name_reaches_into_another_folder(kind in 0_u32..6, flags in 0_u32..3, text in proptest::collection::vec(any::<u8>(), 0..600)) {
            if let Ok(Operation { kind: OperationKind::Event { entry, .. } | OperationKind::Flags(entry), .. }) = decode(&record(kind, flags, &text)) {
                prop_assert!(!entry.name.contains(&0));
                prop_assert!(entry.path.is_none_or(|path| !path.contains(&0)));
            }
        }

        #[test]
        fn noise_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = decode(&bytes);
        }
    }
}
