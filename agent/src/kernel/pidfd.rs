//! Process descriptors: names of processes that are never used again. See pidfd_open(2).

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// What the kernel tells of a process through its descriptor (6.13 and newer), whatever became of
/// its folder in /proc.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProcessInfo {
    pub parent: u32,
    pub uid: u32,
    pub euid: u32,
    /// The cgroup's id in the unified hierarchy: its inode number.
    pub cgroup: Option<u64>,
}

/// ESRCH when there is no such process; ENOSYS before Linux 5.3.
pub fn open(pid: u32) -> io::Result<OwnedFd> {
    let pid = i32::try_from(pid).map_err(|_| io::Error::from_raw_os_error(libc::ESRCH))?;
    // SAFETY: the call takes two integers and touches no memory of ours.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let Ok(fd @ 0..) = i32::try_from(fd) else { return Err(io::Error::last_os_error()) };
    // SAFETY: the kernel has just made this descriptor for us and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Whether the process still holds its pid: it runs, or has ended and was not reaped yet. While this
/// is true, /proc/PID is that of this process.
pub fn holds_pid(pidfd: BorrowedFd<'_>) -> bool {
    // SAFETY: signal 0 sends nothing; the null pointer stands for default signal information.
    let result = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), 0, std::ptr::null::<libc::siginfo_t>(), 0) };
    result == 0 || io::Error::last_os_error().raw_os_error() != Some(libc::ESRCH)
}

/// PIDFD_GET_INFO; ESRCH when the process was reaped, ENOTTY on older kernels.
pub fn information(pidfd: BorrowedFd<'_>) -> io::Result<ProcessInfo> {
    // SAFETY: all fields are integers, for which zero bytes are valid.
    let mut info: libc::pidfd_info = unsafe { std::mem::zeroed() };
    info.mask = u64::from(libc::PIDFD_INFO_PID | libc::PIDFD_INFO_CREDS | libc::PIDFD_INFO_CGROUPID);
    // SAFETY: the request's number carries the size of this very struct, which outlives the call.
    if unsafe { libc::ioctl(pidfd.as_raw_fd(), libc::PIDFD_GET_INFO, std::ptr::from_mut(&mut info)) } != 0 {
        return Err(io::Error::last_os_error());
    }
    if info.mask & u64::from(libc::PIDFD_INFO_CREDS) == 0 {
        return Err(io::Error::from_raw_os_error(libc::ESRCH));
    }
    let cgroup = (info.mask & u64::from(libc::PIDFD_INFO_CGROUPID) != 0).then_some(info.cgroupid);
    Ok(ProcessInfo { parent: info.ppid, uid: info.ruid, euid: info.euid, cgroup })
}

/// A number that no two processes share while the host is up (6.9 and newer): equal numbers mean the
/// same process even after it has ended.
pub fn identity(pidfd: BorrowedFd<'_>) -> Option<u64> {
    /// `PID_FS_MAGIC`: before pidfs all descriptors shared one anonymous inode.
    const PIDFS: i64 = 0x5049_4446;
    let owner = pidfd.as_fd();
    let system = nix::sys::statfs::fstatfs(owner).ok()?;
    if system.filesystem_type().0 as i64 != PIDFS {
        return None;
    }
    nix::sys::stat::fstat(owner).ok().map(|stat| stat.st_ino)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reaped_process_no_longer_holds_its_pid() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let pidfd = open(child.id()).expect("Linux 5.3 or newer");
        assert!(holds_pid(pidfd.as_fd()));
        if let Ok(info) = information(pidfd.as_fd()) {
            assert_eq!(info.parent, std::process::id());
        }
        let before = identity(pidfd.as_fd());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!holds_pid(pidfd.as_fd()));
        assert_eq!(identity(pidfd.as_fd()), before);
        assert!(information(pidfd.as_fd()).is_err());
    }
}
