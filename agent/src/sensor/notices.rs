//! What the kernel tells of what it holds besides files and settings: mounts, modules, the packet filter and the network.
//!
//! It belongs to the fanotify sensor's thread. Each source is opened by itself; one that is refused takes nothing from the others, and its
//! coverage says so. A notice is of a kind and not of an item: all of the kind is read again.

mod uevents;

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use trueline_drift::{GapReason, ItemKind};

use super::Generation;
use super::coverage::{ACTORS, Coverage, POLL};
use crate::collect::{Root, firewall, mount};
use crate::kernel::connector::is_first_pid_namespace;
use crate::kernel::fanotify::{EventPidfd, Group, MOUNTED, Reach, Report};
use crate::kernel::netfilter::{Commit, FirewallNews};
use crate::kernel::rtnetlink::NetworkNews;
use uevents::{Uevent, Uevents};

pub(super) const NAME: &str = "notices";
/// The host's own mount namespace, which may not be open to a look, and the agent's, where files are watched.
const MOUNT_NAMESPACES: [&str; 2] = ["/proc/1/ns/mnt", "/proc/self/ns/mnt"];
/// Holds several events of mounts.
const BUFFER: usize = 1 << 10;
pub(super) const OTHER_NUMBERS: &str = "the process lies outside of the agent's pid namespace, or had started before the agent did";

#[derive(Debug)]
pub(super) struct Notices {
    /// Who mounts; not what.
    mounters: io::Result<Group>,
    /// The table that can be waited for; the first process's where it may be read.
    mounts: io::Result<File>,
    modules: io::Result<Uevents>,
    /// To hear of it would load it: it is not asked before it is there.
    firewall: io::Result<FirewallNews>,
    /// What, not who.
    network: io::Result<NetworkNews>,
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
        let (modules, firewall, network) = (Uevents::open(), hear_of_firewall(), NetworkNews::open());
        Self { mounters, mounts, modules, firewall, network, is_first_namespace: is_first_pid_namespace() }
    }

    /// What to wait for: the table of mounts as an exception, the others for reading.
    pub fn descriptors(&self) -> [Option<BorrowedFd<'_>>; 5] {
        [
            self.mounts.as_ref().ok().map(AsFd::as_fd),
            self.mounters.as_ref().ok().map(AsFd::as_fd),
            self.modules.as_ref().ok().map(AsFd::as_fd),
            self.firewall.as_ref().ok().map(AsFd::as_fd),
            self.network.as_ref().ok().map(AsFd::as_fd),
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
                Ok(Uevent::Module) => {
                    noticed.notices.push(unsaid(ItemKind::KernelModule));
                    if self.firewall.is_err() {
                        self.firewall = hear_of_firewall();
                        // What was done before it could be heard.
                        noticed.notices.extend(self.firewall.is_ok().then(|| unsaid(ItemKind::Firewall)));
                    }
                }
                Ok(Uevent::Other) => {}
                Ok(Uevent::Overflow) => noticed.lost.push((ItemKind::KernelModule, GapReason::QueueOverflow)),
                Ok(Uevent::None) => break,
                Err(error) => self.modules = Err(error),
            }
        }
        if let Ok(firewall) = &self.firewall {
            match firewall.read(&mut [0; FirewallNews::BUFFER]) {
                Ok(news) => {
                    if news.is_incomplete {
                        noticed.lost.push((ItemKind::Firewall, GapReason::QueueOverflow));
                    }
                    let notices: Vec<Notice> = news.commits.iter().map(|commit| self.of(commit)).collect();
                    noticed.notices.extend(notices);
                }
                Err(error) => self.firewall = Err(error),
            }
        }
        if let Ok(network) = &self.network {
            match network.read(&mut [0; NetworkNews::BUFFER]) {
                Ok(news) => {
                    for (kind, is_touched) in [(ItemKind::Interface, news.touched.interfaces), (ItemKind::Route, news.touched.routes)] {
                        noticed.notices.extend(is_touched.then(|| unsaid(kind)));
                        noticed.lost.extend(news.is_incomplete.then_some((kind, GapReason::QueueOverflow)));
                    }
                }
                Err(error) => self.network = Err(error),
            }
        }
        noticed
    }

    fn of(&self, commit: &Commit) -> Notice {
        let author = match process_of(commit) {
            Some(pid) if self.is_first_namespace => Author::Process(pid, EventPidfd::Absent),
            Some(number) => Author::First(number),
            // By the kernel itself, as when a network namespace or an interface goes.
            None => Author::Unsaid,
        };
        Notice { kind: ItemKind::Firewall, author, generation: Some(Generation(commit.generation)) }
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
            match &self.firewall {
                // Nothing to be told of, until a module's coming is.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    Coverage { name: POLL, scope: "firewall:*".to_owned(), watching: false, reason: Some(error.to_string()) }
                }
                firewall => row("netlink", ItemKind::Firewall, firewall.as_ref().err()),
            },
            row("netlink", ItemKind::Interface, self.network.as_ref().err()),
            row("netlink", ItemKind::Route, self.network.as_ref().err()),
        ]
    }
}

fn hear_of_firewall() -> io::Result<FirewallNews> {
    if !firewall::is_present(&Root::host())? {
        return Err(io::Error::new(io::ErrorKind::NotFound, "the kernel has not loaded nf_tables"));
    }
    FirewallNews::open()
}

/// Whose thread made it. One that is still there says so itself; of one that is gone the number is its process's, or names nobody.
fn process_of(commit: &Commit) -> Option<u32> {
    let thread = commit.pid;
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
