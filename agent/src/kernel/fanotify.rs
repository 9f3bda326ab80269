//! A fanotify group: marks, reading, and the parsing of what was read. See fanotify(7).
//!
//! [`parse`] is a pure function over bytes and never panics. [`Batch`] owns every descriptor that
//! came with the events: one that is not taken is closed, so none leaks.
//!
//! The queue keeps the kernel's limit (16,384 events by default) instead of FAN_UNLIMITED_QUEUE:
//! memory stays bounded, and a reader that is too slow is told so by [`Record::overflowed`].

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// What a group is told of each event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Report {
    /// The folder's handle and the entry's name: every operation, on file systems that have handles.
    Names,
    /// An open descriptor of the file: works on procfs, but only for reading and writing.
    Descriptors,
    /// Nothing but that something was mounted or unmounted (Linux 6.14).
    Mounts,
}

/// `FAN_REPORT_MNT`, which libc does not know yet.
const REPORT_MOUNTS: libc::c_uint = 0x4000;
/// `FAN_MARK_MNTNS`.
const MARK_NAMESPACE: libc::c_uint = 0x110;
/// `FAN_MNT_ATTACH` and `FAN_MNT_DETACH`: a mount came to the namespace, or went.
pub const MOUNTED: u64 = 0x0100_0000 | 0x0200_0000;

/// How far a mark reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// The whole file system, through whichever mount it is used.
    Filesystem,
    Mount,
    /// A mount namespace, by a path such as `/proc/1/ns/mnt`; with [`Report::Mounts`] alone.
    Namespace,
}

#[derive(Debug)]
pub struct Group {
    fd: OwnedFd,
    names_process: bool,
}

impl Group {
    /// EPERM without CAP_SYS_ADMIN. Where the kernel is too old for pidfds (before 5.15), events carry
    /// a pid alone.
    pub fn open(report: Report) -> io::Result<Self> {
        let flags = libc::FAN_CLASS_NOTIF
            | libc::FAN_CLOEXEC
            | libc::FAN_NONBLOCK
            | match report {
                Report::Names => libc::FAN_REPORT_DFID_NAME,
                Report::Descriptors => 0,
                Report::Mounts => REPORT_MOUNTS,
            };
        let event_flags = (libc::O_RDONLY | libc::O_CLOEXEC | libc::O_NONBLOCK | libc::O_LARGEFILE) as libc::c_uint;
        for (flags, names_process) in [(flags | libc::FAN_REPORT_PIDFD, true), (flags, false)] {
            // SAFETY: the call takes two integers and touches no memory of ours.
            let fd = unsafe { libc::fanotify_init(flags, event_flags) };
            if fd >= 0 {
                // SAFETY: the kernel has just made this descriptor for us and nobody else knows it.
                return Ok(Self { fd: unsafe { OwnedFd::from_raw_fd(fd) }, names_process });
            }
            let error = io::Error::last_os_error();
            if error.raw_os_error() != Some(libc::EINVAL) {
                return Err(error);
            }
        }
        Err(io::Error::from_raw_os_error(libc::EINVAL))
    }

    /// Whether events come with a pidfd.
    pub fn names_process(&self) -> bool {
        self.names_process
    }

    /// EOPNOTSUPP or ENODEV where the file system has no handles, EXDEV on a btrfs subvolume.
    pub fn mark(&self, reach: Reach, mask: u64, path: &Path) -> io::Result<()> {
        self.change_mark(libc::FAN_MARK_ADD, reach, mask, path)
    }

    pub fn unmark(&self, reach: Reach, mask: u64, path: &Path) -> io::Result<()> {
        self.change_mark(libc::FAN_MARK_REMOVE, reach, mask, path)
    }

    fn change_mark(&self, action: libc::c_uint, reach: Reach, mask: u64, path: &Path) -> io::Result<()> {
        let path = CString::new(path.as_os_str().as_bytes())?;
        let reach = match reach {
            Reach::Filesystem => libc::FAN_MARK_FILESYSTEM,
            Reach::Mount => libc::FAN_MARK_MOUNT,
            Reach::Namespace => MARK_NAMESPACE,
        };
        // SAFETY: `path` is a NUL-terminated string that outlives the call; the rest are integers.
        let result = unsafe { libc::fanotify_mark(self.fd.as_raw_fd(), action | reach, mask, libc::AT_FDCWD, path.as_ptr()) };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// The events that wait, as many as the buffer holds; WouldBlock when there are none.
    ///
    /// Each event may open a descriptor in this process, so the buffer's size also bounds those.
    pub fn read<'a>(&self, buffer: &'a mut [u8]) -> io::Result<Batch<'a>> {
        // SAFETY: the kernel writes at most `buffer.len()` bytes into `buffer`, which is ours to write.
        let count = unsafe { libc::read(self.fd.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len()) };
        match usize::try_from(count) {
            Ok(count) => Ok(Batch { parser: parse(&buffer[..count]), names_process: self.names_process }),
            Err(_) => Err(io::Error::last_os_error()),
        }
    }
}

impl Group {
    /// So many events wait, at most. The kernel counts them one by one, each as long as an event without its records.
    pub fn pending(&self) -> Option<u64> {
        let mut bytes: libc::c_int = 0;
        // SAFETY: the request writes one int into `bytes`, which outlives the call.
        let result = unsafe { libc::ioctl(self.fd.as_raw_fd(), libc::FIONREAD, &raw mut bytes) };
        u64::try_from(bytes).ok().filter(|_| result == 0).map(|bytes| bytes.div_ceil(METADATA as u64))
    }
}

impl AsFd for Group {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// The process of an event.
#[derive(Debug)]
pub enum EventPidfd {
    Open(OwnedFd),
    /// The process had been reaped before the event was read: its pid may name another by now.
    Ended,
    /// The kernel does not say, or could not open one.
    Absent,
}

#[derive(Debug)]
pub struct Event<'a> {
    pub record: Record<'a>,
    /// With [`Report::Descriptors`].
    pub file: Option<OwnedFd>,
    pub pidfd: EventPidfd,
}

/// Events of one read. Dropping it closes the descriptors of those not taken.
#[derive(Debug)]
pub struct Batch<'a> {
    parser: Parser<'a>,
    names_process: bool,
}

impl Batch<'_> {
    /// Longest event with its records: the prefix, a handle, a name of 255 bytes, a pidfd.
    const LONGEST: usize = 512;

    /// Events, damaged ones among them, that were not taken yet.
    pub fn events(&self) -> usize {
        Parser { ..self.parser }.count()
    }

    /// There was room for one more event, so none was waiting. The read to come would say WouldBlock.
    pub fn emptied(&self, buffer_length: usize) -> bool {
        self.parser.bytes.len() + Self::LONGEST <= buffer_length
    }
}

impl<'a> Iterator for Batch<'a> {
    type Item = Result<Event<'a>, ParseError>;

    fn next(&mut self) -> Option<Self::Item> {
        let record = match self.parser.next()? {
            Ok(record) => record,
            Err(error) => return Some(Err(error)),
        };
        let own = |fd: RawFd| {
            // SAFETY: the kernel opened this descriptor for this very event when it was read; a batch is
            // made only from bytes just read, is not Clone, and passes each event once.
            (fd >= 0).then(|| unsafe { OwnedFd::from_raw_fd(fd) })
        };
        let file = own(record.file);
        let pidfd = match (own(record.pidfd), record.pidfd) {
            (Some(fd), _) => EventPidfd::Open(fd),
            (None, libc::FAN_NOPIDFD) if self.names_process => EventPidfd::Ended,
            (None, _) => EventPidfd::Absent,
        };
        Some(Ok(Event { record, file, pidfd }))
    }
}

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        self.for_each(drop);
    }
}

/// One event as it lies in the buffer. The descriptors are mere numbers here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    /// FAN_* bits; several operations of one process on one entry may be merged.
    pub mask: u64,
    /// 0 for a process outside our pid namespace.
    pub pid: i32,
    pub file: RawFd,
    pub pidfd: RawFd,
    pub entry: Option<Entry<'a>>,
}

impl Record<'_> {
    /// Events were lost before this one.
    pub fn overflowed(&self) -> bool {
        self.mask & libc::FAN_Q_OVERFLOW != 0
    }
}

/// A name in a folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry<'a> {
    /// `statfs` f_fsid of the file system.
    pub filesystem: [u8; 8],
    /// The folder's `struct file_handle`: length, type and bytes, as open_by_handle_at(2) takes it.
    pub folder: &'a [u8],
    /// Absent when the event is about the folder itself.
    pub name: Option<&'a [u8]>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    #[error("fanotify event at byte {at}: its length {length} does not fit the {rest} bytes read; the rest of this read was skipped")]
    Length { at: usize, length: usize, rest: usize },
    #[error("fanotify event at byte {at}: layout version {version} is not the version 3 this agent knows")]
    Version { at: usize, version: u8 },
    #[error("fanotify event at byte {at}: a damaged information record was skipped")]
    Information { at: usize },
}

/// The records in bytes read from a group. It ends after the first damaged length, because nothing
/// after it can be trusted.
pub fn parse(bytes: &[u8]) -> Parser<'_> {
    Parser { bytes, at: 0 }
}

#[derive(Debug)]
pub struct Parser<'a> {
    bytes: &'a [u8],
    at: usize,
}

/// `struct fanotify_event_metadata`.
const METADATA: usize = 24;
/// `struct fanotify_event_info_header`.
const HEADER: usize = 4;
const LAYOUT_VERSION: u8 = 3;

impl<'a> Iterator for Parser<'a> {
    type Item = Result<Record<'a>, ParseError>;

    fn next(&mut self) -> Option<Self::Item> {
        let at = self.at;
        let rest = self.bytes.get(at..).filter(|rest| !rest.is_empty())?;
        let length = take::<4>(rest, 0).map_or(0, |bytes| u32::from_ne_bytes(bytes) as usize);
        let information = take::<2>(rest, 6).map_or(0, |bytes| usize::from(u16::from_ne_bytes(bytes)));
        if length < METADATA || length > rest.len() || information < METADATA || information > length {
            self.at = self.bytes.len();
            return Some(Err(ParseError::Length { at, length, rest: rest.len() }));
        }
        self.at += length;
        Some(record(&rest[..length], information, at))
    }
}

fn record(bytes: &[u8], information: usize, at: usize) -> Result<Record<'_>, ParseError> {
    let damaged = ParseError::Information { at };
    if bytes[4] != LAYOUT_VERSION {
        return Err(ParseError::Version { at, version: bytes[4] });
    }
    let mut record = Record {
        mask: take(bytes, 8).map(u64::from_ne_bytes).ok_or(damaged)?,
        file: take(bytes, 16).map(i32::from_ne_bytes).ok_or(damaged)?,
        pid: take(bytes, 20).map(i32::from_ne_bytes).ok_or(damaged)?,
        pidfd: libc::FAN_EPIDFD,
        entry: None,
    };
    let mut rest = &bytes[information..];
    while !rest.is_empty() {
        let length = take::<2>(rest, 2).map_or(0, |bytes| usize::from(u16::from_ne_bytes(bytes)));
        // A damaged entry loses the name, never the descriptor that may have come before it.
        let Some(body) = rest.get(HEADER..length) else { return Ok(record) };
        match rest[0] {
            libc::FAN_EVENT_INFO_TYPE_DFID_NAME | libc::FAN_EVENT_INFO_TYPE_DFID => record.entry = entry(body).or(record.entry),
            libc::FAN_EVENT_INFO_TYPE_PIDFD => {
                if let Some(fd) = take(body, 0) {
                    record.pidfd = i32::from_ne_bytes(fd);
                }
            }
            _ => {}
        }
        rest = &rest[length..];
    }
    Ok(record)
}

fn entry(body: &[u8]) -> Option<Entry<'_>> {
    let filesystem = take::<8>(body, 0)?;
    let handle_bytes = u32::from_ne_bytes(take(body, 8)?) as usize;
    let end = handle_bytes.checked_add(16)?;
    let folder = body.get(8..end)?;
    let name = body[end..].split(|byte| *byte == 0).next().unwrap_or_default();
    let name = (!name.is_empty() && name != b".").then_some(name);
    Some(Entry { filesystem, folder, name })
}

fn take<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk::<N>().copied()
}

#[cfg(test)]
#[path = "fanotify_tests.rs"]
mod tests;
