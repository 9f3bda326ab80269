//! What hooks in the kernel tell of operations at the moment when they happen: who did what no file event tells of, and, for a few
//! paths of high value, what is in doubt while a file event waits.
//!
//! It belongs to the fanotify sensor's thread and to no other. It adds to what that thread sees and replaces none of it: what a hook misses is a
//! touch without it. Invariants: a record is joined with the table of processes only once all was taken that the feed had told when the
//! record was read, so the program that ran at its time is known; a name is believed only while it leads to the very file that was
//! told; where records were lost, nobody is named for sure by those that came with the loss.

use std::collections::{HashMap, HashSet};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use trueline_drift::{Actor, ItemKind};

use super::audit::{Reach, VALUED};
use super::coverage::Coverage;
use super::mounts::Mount;
use super::view::{View, as_path, into_bytes, join};
use crate::actor::ActorReader;
use crate::actor::image::ProcessImage;
use crate::kernel::fanotify::EventPidfd;
use crate::kernel::file::Inode;
use crate::kernel::file_probe::record::{Entry, Operation, OperationKind};
use crate::kernel::file_probe::{FOLDERS, FileProbe, FileProbeError};
use crate::kernel::process_probe::{Drained, Hook};
use crate::process::Processes;
use crate::process::order::{Holder, Sighting};

pub(super) const NAME: &str = "fentry";
const NOT_FED: &str = "without the eBPF feed of processes there is nothing to join what it tells with";
const MAPPED: &str =
    "the process mapped the file so that it can write to it through memory: the kernel does not tell of what it writes there";
const LOST: &str = "others may have done the same: what hooks told then was not all taken";
/// Folders beneath one of the paths of value.
const BENEATH: usize = 128;

/// What the functions of the kernel are hooked for. Where several stand for one operation, the rest of it is told of without one of them.
const OPERATIONS: [(&str, &str); 10] = [
    ("fsnotify", "operation:event"),
    ("__fsnotify_parent", "operation:event"),
    ("vfs_fileattr_set", "operation:flags"),
    ("security_mmap_file", "operation:mmap_write"),
    ("security_file_mprotect", "operation:mmap_write"),
    ("path_mount", "operation:mount"),
    ("path_umount", "operation:mount"),
    ("security_move_mount", "operation:mount"),
    ("module_load", "actor:kernel_module"),
    ("module_free", "actor:kernel_module"),
];

#[derive(Debug)]
pub(super) struct Hooks {
    probe: FileProbe,
    actors: ActorReader,
    /// Those whose entries are told of.
    folders: HashMap<Inode, PathBuf>,
    /// Of the agent and of the host, whose mounts come to the agent too.
    mount_namespaces: [u32; 2],
    /// Who changed something of these kinds since this was last asked.
    authors: Vec<(ItemKind, Arc<Actor>)>,
    dropped: u64,
    is_stale: bool,
}

/// What was done to a path, in view or not.
#[derive(Debug)]
pub(super) struct Hooked {
    pub path: Vec<u8>,
    pub actor: Arc<Actor>,
    /// In fanotify's numbers; none for what makes no event.
    pub events: u64,
}

impl Hooks {
    /// With a row for each hook. What cannot be had takes nothing from the rest.
    pub fn start(processes: &Processes) -> (Option<Self>, Vec<Coverage>) {
        if processes.feed() != Some("ebpf") {
            return (None, rows(|_| Some(Some(NOT_FED.to_owned()))));
        }
        let probe = match FileProbe::start() {
            Ok(probe) => probe,
            Err(FileProbeError::Attach(hooks)) => return (None, rows(|place| refusal(&hooks, place))),
            Err(error) => return (None, rows(|_| Some(Some(error.to_string())))),
        };
        let rows = rows(|place| refusal(probe.hooks(), place));
        let namespace = |of: &str| std::fs::metadata(format!("/proc/{of}/ns/mnt")).map_or(0, |namespace| namespace.ino());
        let hooks = Self {
            dropped: probe.dropped(),
            probe,
            actors: ActorReader::new(NAME),
            folders: HashMap::new(),
            mount_namespaces: ["self", "1"].map(|of| u32::try_from(namespace(of)).unwrap_or(0)),
            authors: Vec::new(),
            is_stale: true,
        };
        (Some(hooks), rows)
    }

    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.probe.as_fd()
    }

    /// Other folders may be the ones of value.
    pub fn expire(&mut self) {
        self.is_stale = true;
    }

    /// What was told until now, with who did it; first is which files their processes run.
    pub fn take(&mut self, processes: &mut Processes, view: &View, mounts: &[Mount], pending: impl Fn() -> Option<u64>) -> Vec<Hooked> {
        if std::mem::take(&mut self.is_stale) {
            self.follow(view);
        }
        let mut told = Vec::new();
        let drained = self.probe.drain(&mut |operation| told.push(operation));
        let dropped = self.probe.dropped();
        let is_whole = drained == Drained::All && dropped == self.dropped;
        self.dropped = dropped;
        if told.is_empty() {
            return Vec::new();
        }
        processes.drain(&pending);
        let mut hooked = Vec::new();
        for operation in told {
            let (path, events) = match &operation.kind {
                OperationKind::Event { events, entry } => (self.path_of(entry), *events),
                OperationKind::Flags(entry) => (path_on(entry, mounts), libc::FAN_ATTRIB),
                OperationKind::Mapped(entry) => (self.path_of(entry), 0),
                OperationKind::Mount => {
                    if self.mount_namespaces.contains(&operation.mount_namespace) {
                        let actor = self.actor(processes, &operation, &pending);
                        self.note_author(ItemKind::Mount, actor, is_whole);
                    }
                    continue;
                }
                OperationKind::Module(_) => {
                    let actor = self.actor(processes, &operation, &pending);
                    self.note_author(ItemKind::KernelModule, actor, is_whole);
                    continue;
                }
            };
            let Some(path) = path.filter(|path| view.contains(path)) else { continue };
            if events & (libc::FAN_CREATE | libc::FAN_MOVED_TO) != 0 && as_path(&path).is_dir() {
                self.is_stale = true;
            }
            let mut actor = match &operation.kind {
                // The file event is there all the same.
                OperationKind::Event { .. } if !is_whole => continue,
                _ => self.actor(processes, &operation, &pending),
            };
            if events == 0 {
                actor = Arc::new(actor.but(MAPPED));
            } else if !is_whole {
                actor = Arc::new(actor.but(LOST));
            }
            hooked.push(Hooked { path, actor, events });
        }
        hooked
    }

    /// Which files the processes run that were named last.
    pub fn take_images(&mut self) -> Vec<ProcessImage> {
        self.actors.take_images()
    }

    fn note_author(&mut self, kind: ItemKind, actor: Arc<Actor>, is_whole: bool) {
        let actor = if is_whole { actor } else { Arc::new(actor.but(LOST)) };
        self.authors.push((kind, actor));
    }

    /// Who changed something that the kernel holds, each once for each change, in order.
    pub fn take_authors(&mut self) -> Vec<(ItemKind, Arc<Actor>)> {
        std::mem::take(&mut self.authors)
    }

    fn actor(&mut self, processes: &mut Processes, operation: &Operation, pending: impl Fn() -> Option<u64>) -> Arc<Actor> {
        // Its moment is known, so that nothing is in doubt that the process did before or after.
        let at = operation.at;
        let sighting = Sighting { emptied: at, began: at, ended: at, place: None, holder: Holder::Unsaid };
        let actor = self.actors.attribute(processes, operation.pid, &EventPidfd::Absent, sighting, pending);
        let told = (operation.uid, operation.euid);
        match &actor.user {
            Some(user) if (user.uid, user.euid.unwrap_or(told.1)) != told => {
                let reason = format!("the process ran as uid {} at the time, which is known of no login", told.0);
                Arc::new(Actor { user: None, session: None, sudo: None, ..actor.but(&reason) })
            }
            _ => actor,
        }
    }

    fn path_of(&self, entry: &Entry) -> Option<Vec<u8>> {
        let folder = self.folders.get(&entry.folder)?;
        let is_it = inode_of(folder).is_some_and(|there| there == entry.folder);
        (is_it && !entry.name.is_empty()).then(|| join(folder.as_os_str().as_encoded_bytes(), &entry.name))
    }

    fn follow(&mut self, view: &View) {
        let mut folders = HashMap::new();
        for (path, reach) in VALUED {
            let path = Path::new(path);
            if !view.contains(path.as_os_str().as_encoded_bytes()) {
                continue;
            }
            let top = if *reach == Reach::Folder { Some(path) } else { path.parent() };
            let Some(top) = top.and_then(|top| top.canonicalize().ok()) else { continue };
            let most = if *reach == Reach::Folder { BENEATH } else { 1 };
            for folder in folders_beneath(top, most) {
                if let Some(inode) = inode_of(&folder)
                    && folders.len() < FOLDERS
                {
                    folders.insert(inode, folder);
                }
            }
        }
        let inodes: Vec<Inode> = folders.keys().copied().collect();
        if let Err(reason) = self.probe.follow(&inodes) {
            tracing::debug!(%reason, "some folders of value have no hook");
        }
        self.folders = folders;
    }
}

/// `refusal` says of a hook why it is not attached; nothing where there is no need of it.
fn rows(refusal: impl Fn(&str) -> Option<Option<String>>) -> Vec<Coverage> {
    let row = |(place, scope): &(&str, &str)| {
        let refusal = refusal(place)?;
        let watching = refusal.is_none();
        let reason = refusal.map_or_else(|| (*place).to_owned(), |reason| format!("{place}: {reason}"));
        Some(Coverage { name: NAME, scope: (*scope).to_owned(), watching, reason: Some(reason) })
    };
    OPERATIONS.iter().filter_map(row).collect()
}

fn refusal(hooks: &[Hook], place: &str) -> Option<Option<String>> {
    hooks.iter().find(|hook| hook.name == place).map(|hook| hook.refused.clone())
}

fn inode_of(path: &Path) -> Option<Inode> {
    let there = path.symlink_metadata().ok()?;
    Some(Inode { device: there.dev(), number: there.ino() })
}

/// The folder itself and those beneath it, so many at most.
fn folders_beneath(top: PathBuf, most: usize) -> Vec<PathBuf> {
    let mut folders = vec![top];
    let (mut at, mut seen) = (0, HashSet::new());
    while at < folders.len() && folders.len() < most {
        let entries = std::fs::read_dir(&folders[at]).into_iter().flatten().flatten();
        let beneath = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path());
        folders.extend(beneath.filter(|path| seen.insert(path.clone())).take(most - folders.len()));
        at += 1;
    }
    folders
}

/// Of a file told by its path on its file system.
fn path_on(entry: &Entry, mounts: &[Mount]) -> Option<Vec<u8>> {
    let path = entry.path.as_ref()?;
    let is_of = |mount: &&Mount| mount.whole && mount.device == entry.folder.device;
    let mut places = mounts.iter().filter(is_of).map(|mount| {
        let point = into_bytes(mount.point.clone());
        match path.strip_prefix(b"/") {
            Some(rest) if !rest.is_empty() => join(&point, rest),
            _ => point,
        }
    });
    let is_it = |place: &Vec<u8>| as_path(place).symlink_metadata().is_ok_and(|there| there.ino() == entry.inode);
    places.find(is_it)
}
