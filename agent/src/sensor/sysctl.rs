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
/// The same in the first process's view, where it may be looked at.
const HOSTS_FOLDER: &str = "/proc/1/root/proc/sys";
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
        let mark = |folder: &str| {
            let folder = Path::new(folder);
            group.mark(Reach::Filesystem, MASK, folder).or_else(|_| group.mark(Reach::Mount, MASK, folder))
        };
        // The service manager mounts a procfs for a service that it protects the kernel's settings from: the host's is another.
        let hosts = mark(HOSTS_FOLDER);
        mark(FOLDER).or(hosts)?;
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

/// What was written to in /proc, of all that matters here.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Written {
    Setting(String),
    /// The process with this pid was given a login: the kernel tells of it in no other way.
    Login(u32),
}

pub(super) fn written(event: &Event<'_>) -> Option<Written> {
    let file = event.file.as_ref()?;
    let path = nix::fcntl::readlink(format!("/proc/self/fd/{}", file.as_raw_fd()).as_str()).ok()?;
    let path = path.as_bytes();
    setting_name(path).map(Written::Setting).or_else(|| login_pid(path).map(Written::Login))
}

/// `/proc/812/loginuid`, or `/proc/812/task/812/loginuid`.
fn login_pid(path: &[u8]) -> Option<u32> {
    let rest = path.strip_prefix(b"/proc/")?.strip_suffix(b"/loginuid")?;
    let pid = rest.split(|byte| *byte == b'/').next()?;
    std::str::from_utf8(pid).ok()?.parse().ok()
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
    fn a_login_is_told_from_other_writes() {
        assert_eq!((login_pid(b"/proc/812/loginuid"), login_pid(b"/proc/812/task/812/loginuid")), (Some(812), Some(812)));
        for path in [&b"/proc/812/oom_score_adj"[..], b"/proc/self/loginuid", b"/proc//loginuid", b"/proc/loginuid", b"/tmp/812/loginuid"] {
            assert_eq!(login_pid(path), None);
        }
    }

    #[test]
    fn paths_become_names_and_dots_within_a_segment_survive() {
        assert_eq!(setting_name(b"/proc/sys/net/ipv4/ip_forward").as_deref(), Some("net.ipv4.ip_forward"));
        assert_eq!(setting_name(b"/proc/sys/net/ipv4/conf/eth0.100/forwarding").as_deref(), Some("net.ipv4.conf.eth0/100.forwarding"));
        for path in [&b"/proc/sysrq-trigger"[..], b"/proc/sys", b"/proc/sys/", b"/proc/1/oom_score_adj"] {
            assert_eq!(setting_name(path), None);
        }
    }
}
