//! What a feed tells of processes: one was made, one runs another program, one has ended.
//!
//! Only whole processes are told of, never their threads; pids are those of the agent's own pid namespace. Order is
//! the kernel's: that a process was made comes before anything that it did, and what it did to itself before what it
//! did afterwards. Names, paths and arguments were chosen by whoever started the process: text that leaves this module
//! is printable and bounded, arguments have their secrets masked. A feed that cannot tell a thing leaves it out.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::actor::procfs;

/// Nanoseconds since the host was started, with the time asleep: CLOCK_BOOTTIME, the clock of process start times.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct BootTime(u64);

impl BootTime {
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    pub const fn nanos(self) -> u64 {
        self.0
    }

    pub fn now() -> Self {
        let up = nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME).map_or(Duration::ZERO, Duration::from);
        Self(u64::try_from(up.as_nanos()).unwrap_or(u64::MAX))
    }

    /// Zero where `earlier` is not earlier.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// One process of all that this boot has seen: a pid is used again, a start time with it is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProcessId {
    pub pid: u32,
    pub started: BootTime,
}

/// The process that a feed speaks of: the process connector gives a pid alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subject {
    pub pid: u32,
    pub started: Option<BootTime>,
}

impl Subject {
    pub fn id(self) -> Option<ProcessId> {
        self.started.map(|started| ProcessId { pid: self.pid, started })
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessEvent {
    pub at: BootTime,
    pub process: Subject,
    /// Its pid in the first pid namespace, where the feed tells it.
    pub first_number: Option<u32>,
    pub kind: ProcessEventKind,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProcessEventKind {
    /// It was made and has not run yet. What it runs is a copy of what its maker runs.
    Fork {
        /// Who made it, whichever parent it was given: CLONE_PARENT names another one. Where the maker lies outside the
        /// agent's pid namespace its pid is 0.
        parent: Subject,
        /// The child's, and therefore at this moment its maker's too.
        standing: Option<Standing>,
        /// In the queue of file events that the feed was shown.
        queued: Option<Queued>,
    },
    /// It runs another program from here on; pid and start time stay, also where another thread than the first did it.
    Exec {
        program: Option<Box<Program>>,
        standing: Option<Standing>,
        /// As of a [`Self::Fork`].
        queued: Option<Queued>,
    },
    /// Real and effective user changed without a new program.
    Users { uid: u32, euid: u32 },
    /// Its last thread ends. None of its code runs any more, but the kernel closes its files after this: file events
    /// of it may be younger. Its pid is free for another once it has been reaped, which is later still.
    ///
    /// The standing is the last it had: where it differs from what was told before, it changed somewhere between.
    Exit { standing: Option<Standing> },
}

/// So many file events waited at some moment between `since` and the time of the news that this belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Queued {
    pub events: u32,
    pub since: BootTime,
}

/// On whose behalf a process runs, as the kernel keeps it. A fork inherits all of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    pub uid: u32,
    pub euid: u32,
    /// Absent for a process that nobody's login started.
    pub login_uid: Option<u32>,
    /// The audit session of that login.
    pub session: Option<u32>,
    /// Of the unified hierarchy: the inode number of the group's folder under /sys/fs/cgroup.
    pub cgroup: Option<u64>,
    /// Device number of the controlling terminal, as /proc/PID/stat has it.
    pub terminal: Option<u32>,
    pub pid_namespace: Option<u32>,
    pub mount_namespace: Option<u32>,
}

/// What a process runs since its last exec.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// Short name that the exec gave it; a process can call itself anything later.
    pub name: String,
    pub executable: Option<Executable>,
    /// What was to be executed, where the kernel started an interpreter for it instead: as named by whoever did, so
    /// possibly relative to `cwd`.
    pub script: Option<Arc<str>>,
    pub arguments: Arguments,
    /// Read as [`Executable::path`] is.
    pub cwd: Option<Arc<str>>,
}

/// The file that is executed: a script's interpreter, never the script.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Executable {
    /// From the root of the process's mount namespace, whatever its root folder is. Begins with `…/` where only its end
    /// is known, and with no slash for a file that lies in no folder (`memfd:x`).
    pub path: Arc<str>,
    /// It had been removed, or never had a name, when it was executed.
    pub removed: bool,
    /// As the kernel keeps them. What stat(2) says differs on file systems that invent numbers: overlayfs, btrfs.
    pub device: Option<u64>,
    pub inode: Option<u64>,
    /// Since 1970. With device and inode it tells whether a file read later still is the one that was executed.
    pub changed: Option<Duration>,
}

/// A command line as /proc/PID/cmdline has it. Secrets may stand in it: it shows itself masked alone.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Arguments(Box<[u8]>);

impl Arguments {
    /// Keeps the first [`procfs::ARGUMENT_BYTES`].
    pub fn new(cmdline: &[u8]) -> Self {
        Self(cmdline[..cmdline.len().min(procfs::ARGUMENT_BYTES)].into())
    }

    /// Printable, bounded, with secrets masked. Costs more than keeping them: for a process that did something.
    pub fn masked(&self) -> Vec<String> {
        procfs::parse_arguments(&self.0)
    }

    /// Memory held.
    pub fn bytes(&self) -> usize {
        self.0.len()
    }
}

impl fmt::Debug for Arguments {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.masked()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_among_arguments_is_never_shown() {
        let arguments = Arguments::new(b"tool\0--password=hunter2\0");
        assert_eq!(arguments.masked(), ["tool", "--password=[redacted]"]);
        assert!(!format!("{arguments:?}").contains("hunter2"));
        assert_eq!(Arguments::new(&vec![b'x'; 2 * procfs::ARGUMENT_BYTES]).bytes(), procfs::ARGUMENT_BYTES);
    }

    #[test]
    fn boot_time_is_the_clock_of_start_times() {
        let stat = procfs::parse_stat(&std::fs::read("/proc/self/stat").unwrap()).unwrap();
        let now = BootTime::now();
        let started = BootTime::from_nanos(stat.started * 10_000_000);
        assert!(started < now && now.since(started) > Duration::ZERO && started.since(now) == Duration::ZERO);
    }
}
