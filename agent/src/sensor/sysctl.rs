//! Writes to kernel settings, with the process that made them.
//!
//! procfs has no file handles, so this is a fanotify group of its own that gets open descriptors. It
//! sees every write anywhere in /proc; all but those beneath /proc/sys are dropped at once.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use trueline_drift::text::printable;

use crate::kernel::fanotify::{Batch, Event, Group, Reach, Report};

const FOLDER: &str = "/proc/sys";
/// One event for each write; a setting takes effect with it, so closing tells nothing new.
const MASK: u64 = libc::FAN_MODIFY;

#[derive(Debug)]
pub(super) struct Sysctls {
    group: Group,
}

impl Sysctls {
    pub fn start() -> io::Result<Self> {
        let group = Group::open(Report::Descriptors)?;
        // The whole procfs, so that writers in mount namespaces of their own (sandboxed services) are
        // seen too; failing that, the mount that we see.
        group.mark(Reach::Filesystem, MASK, Path::new(FOLDER)).or_else(|_| group.mark(Reach::Mount, MASK, Path::new(FOLDER)))?;
        Ok(Self { group })
    }

    pub fn read<'a>(&self, buffer: &'a mut [u8]) -> io::Result<Batch<'a>> {
        self.group.read(buffer)
    }
}

impl AsFd for Sysctls {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.group.as_fd()
    }
}

/// The setting that an event is about, if it is about one.
pub(super) fn setting_of(event: &Event<'_>) -> Option<String> {
    let file = event.file.as_ref()?;
    let path = nix::fcntl::readlink(format!("/proc/self/fd/{}", file.as_raw_fd()).as_str()).ok()?;
    setting_name(path.as_bytes())
}

/// `/proc/sys/net/ipv4/conf/eth0.100/forwarding` is `net.ipv4.conf.eth0/100.forwarding`, as sysctl(8)
/// writes it.
fn setting_name(path: &[u8]) -> Option<String> {
    let rest = path.strip_prefix(FOLDER.as_bytes())?.strip_prefix(b"/")?;
    let swapped: Vec<u8> = rest
        .iter()
        .map(|byte| match byte {
            b'/' => b'.',
            b'.' => b'/',
            other => *other,
        })
        .collect();
    (!swapped.is_empty()).then(|| printable(&swapped).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_become_names_and_dots_within_a_segment_survive() {
        assert_eq!(setting_name(b"/proc/sys/net/ipv4/ip_forward").as_deref(), Some("net.ipv4.ip_forward"));
        assert_eq!(setting_name(b"/proc/sys/net/ipv4/conf/eth0.100/forwarding").as_deref(), Some("net.ipv4.conf.eth0/100.forwarding"));
        for path in [&b"/proc/sysrq-trigger"[..], b"/proc/sys", b"/proc/sys/", b"/proc/1/oom_score_adj"] {
            assert_eq!(setting_name(path), None);
        }
    }
}
