//! What the kernel tells of what it holds besides files and settings: mounts, modules and the packet filter.
//!
//! It belongs to the fanotify sensor's thread. Each source is opened by itself; one that is refused takes nothing from the others, and its
//! coverage says so. A notice is of a kind and not of an item: all of the kind is read again.

mod firewall;
mod uevents;

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use trueline_drift::{GapReason, ItemKind};

use super::Generation;
use super::coverage::{ACTORS, Coverage};
use crate::collect::mount;
use crate::kernel::fanotify::{EventPidfd, Group, MOUNTED, Reach, Report};
use firewall::{Commit, FirewallNews, News};
use uevents::{Uevent, Uevents};

pub(super) const NAME: &str = "notices";
/// The host's own mount namespace, which may not be open to a look, and the agent's, where files are watched.
const MOUNT_NAMESPACES: [&str; 2] = ["/proc/1/ns/mnt", "/proc/self/ns/mnt"];
/// Holds several events of mounts.
const BUFFER: usize = 1 << 10;
/// `PROC_PID_INIT_INO`: inode of the host's first pid namespace.
const FIRST_PIDS: u64 = 0xEFFF_FFFC;
pub(super) const OTHER_NUMBERS: &str = "the process lies outside of the agent's pid namespace, or had started before the agent did";

#[derive(Debug)]
pub(super) struct Notices {
    /// Who mounts; not what.
    mounters: io::Result<Group>,
    /// The table that can be waited for; the first process's where it may be read.
    mounts: io::Result<File>,
    modules: io::Result<Uevents>,
    firewall: io::Result<FirewallNews>,
    is_first_namespace: bool,
}

/// Something of a kind has changed.
#[derive(Debug)]
pub(super) struct Notice {
    pub kind: ItemKind,
    pub author: Author,
    pub generation: Option<Generation>,
}

#[derive(Debug)]
pub(super) enum Author {
    /// Another notice may name it.
    Unsaid,
    Process(u32, EventPidfd),
    /// By its number in the first pid namespace, which is not the agent's.
    First(u32),
    /// It has no number here.
    Elsewhere,
}

/// What one look at all sources brought.
#[derive(Debug, Default)]
pub(super) struct Noticed {
    pub notices: Vec<Notice>,
    /// Scopes of which notices were lost.
    pub lost: Vec<(ItemKind, GapReason)>,
}

impl Notices {
    pub fn start() -> Self {
        let mounters = Group::open(Report::Mounts).and_then(|group| {
            let marked = MOUNT_NAMESPACES.map(|namespace| group.mark(Reach::Namespace, MOUNTED, Path::new(namespace)));
            marked.into_iter().reduce(io::Result::or).unwrap_or(Ok(()))?;
            Ok(group)
        });
        let table = |path: &&str| File::open(path);
        let mounts = mount::TABLES.iter().find_map(|path| table(path).ok()).map_or_else(|| table(&mount::TABLES[1]), Ok);
        let pids = std::fs::metadata("/proc/self/ns/pid").map_or(0, |namespace| namespace.ino());
        Self { mounters, mounts, modules: Uevents::open(), firewall: FirewallNews::open(), is_first_namespace: pids == FIRST_PIDS }
    }

    /// What to wait for: the table of mounts as an exception, the others for reading.
    pub fn descriptors(&self) -> [Option<BorrowedFd<'_>>; 4] {
        [
            self.mounts.as_ref().ok().map(AsFd::as_fd),
            self.mounters.as_ref().ok().map(AsFd::as_fd),
            self.modules.as_ref().ok().map(AsFd::as_fd),
            self.firewall.as_ref().ok().map(AsFd::as_fd),
        ]
    }

    /// All that waits. The table of mounts says only when it is waited for that it has changed.
    pub fn take(&mut self) -> Noticed {
        let mut noticed = Noticed::default();
        let unsaid = |kind| Notice { kind, author: Author::Unsaid, generation: None };
        if let Ok(mounters) = &self.mounters {
            let mut buffer = [0; BUFFER];
            while let Ok(batch) = mounters.read(&mut buffer) {
                for event in batch {
                    match event {
                        Ok(event) if event.record.overflowed() => noticed.lost.push((ItemKind::Mount, GapReason::QueueOverflow)),
                        Ok(event) => {
                            let author = u32::try_from(event.record.pid).ok().filter(|pid| *pid > 0);
                            let author = author.map_or(Author::Elsewhere, |pid| Author::Process(pid, event.pidfd));
                            noticed.notices.push(Notice { kind: ItemKind::Mount, author, generation: None });
                        }
                        Err(_) => noticed.lost.push((ItemKind::Mount, GapReason::SensorLost)),
                    }
                }
            }
        }
        while let Ok(modules) = &self.modules {
            match modules.read() {
                Ok(Uevent::Module) => noticed.notices.push(unsaid(ItemKind::KernelModule)),
                Ok(Uevent::Other) => {}
                Ok(Uevent::Overflow) => noticed.lost.push((ItemKind::KernelModule, GapReason::QueueOverflow)),
                Ok(Uevent::None) => break,
                Err(error) => self.modules = Err(error),
            }
        }
        while let Ok(firewall) = &mut self.firewall {
            match firewall.read() {
                Ok(News::Commits(commits)) => noticed.notices.extend(commits.into_iter().map(|commit| self.of(commit))),
                Ok(News::Overflow) => noticed.lost.push((ItemKind::Firewall, GapReason::QueueOverflow)),
                Ok(News::None) => break,
                Err(error) => self.firewall = Err(error),
            }
        }
        noticed
    }

    fn of(&self, commit: Commit) -> Notice {
        let author = match process_of(&commit) {
            Some(pid) if self.is_first_namespace => Author::Process(pid, EventPidfd::Absent),
            Some(number) => Author::First(number),
            // By the kernel itself, as when a network namespace or an interface goes.
            None => Author::Unsaid,
        };
        Notice { kind: ItemKind::Firewall, author, generation: Some(commit.generation) }
    }

    pub fn covered(&self) -> Vec<Coverage> {
        let row = |name, kind: ItemKind, refused: Option<&io::Error>| Coverage {
            name,
            scope: format!("{kind}:*"),
            watching: refused.is_none(),
            reason: refused.map(|error| format!("the kernel refuses to tell of it: {error}")),
        };
        let mounters = match &self.mounters {
            Ok(_) => Coverage { name: "fanotify", scope: format!("{ACTORS}mount"), watching: true, reason: None },
            Err(error) => {
                let reason = format!("who mounts is told by fanotify since Linux 6.14 alone: {error}");
                Coverage { name: "fanotify", scope: format!("{ACTORS}mount"), watching: false, reason: Some(reason) }
            }
        };
        vec![
            row("mountinfo", ItemKind::Mount, self.mounts.as_ref().err()),
            mounters,
            row("uevent", ItemKind::KernelModule, self.modules.as_ref().err()),
            row("netlink", ItemKind::Firewall, self.firewall.as_ref().err()),
        ]
    }
}

/// Whose thread made it. One that is still there says so itself; of one that is gone the number is its process's, or names nobody.
fn process_of(commit: &Commit) -> Option<u32> {
    let thread = commit.thread;
    let of_thread = |what: &str| std::fs::read(format!("/proc/{thread}/{what}")).ok();
    let is_it = of_thread("comm").is_some_and(|name| name.trim_ascii_end() == commit.name);
    let leader = || of_thread("status").and_then(|status| number_in(&status, b"Tgid:"));
    let process = if is_it { leader() } else { None };
    process.or(Some(thread)).filter(|pid| *pid > 0)
}

fn number_in(status: &[u8], name: &[u8]) -> Option<u32> {
    let line = status.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(name))?;
    std::str::from_utf8(line.trim_ascii()).ok()?.parse().ok()
}
