//! Who holds a socket: found by looking at the descriptors of all processes.
//!
//! Only where a socket is new: what was found is held to be so as long as the descriptor says it. The agent's service asks a thread that
//! stays outside of its confinement, for inside nobody may look at another process (landlock(7)). That thread writes nothing.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;

use super::Root;
use crate::actor::placement::parse_placement;

/// Whose descriptor it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    pub pid: u32,
    descriptor: String,
    pub program: Option<String>,
    pub unit: Option<String>,
}

/// By a socket's inode, which the kernel numbers on and on.
pub type Known = HashMap<u64, Holder>;

pub struct Question {
    sockets: BTreeSet<u64>,
    answer: SyncSender<Known>,
}

/// To be asked.
#[derive(Debug)]
pub enum Holders {
    /// The calling thread looks.
    Here {
        root: Root,
        known: Mutex<Known>,
    },
    Outside {
        questions: Option<SyncSender<Question>>,
        thread: Option<JoinHandle<()>>,
    },
}

impl Holders {
    pub fn here(root: Root) -> Self {
        Self::Here { root, known: Mutex::default() }
    }

    /// A thread of its own looks: as little confined as the calling one.
    pub fn outside(root: Root) -> std::io::Result<Self> {
        let (questions, asked) = sync_channel::<Question>(1);
        let thread = std::thread::Builder::new().name("holders".to_owned()).spawn(move || {
            let mut known = Known::new();
            for Question { sockets, answer } in asked {
                known = found(&root, &sockets, known);
                // Whoever asked may be gone.
                let _ = answer.send(known.clone());
            }
        })?;
        Ok(Self::Outside { questions: Some(questions), thread: Some(thread) })
    }

    /// Of those of these sockets whose holder can be seen.
    pub fn of(&self, sockets: BTreeSet<u64>) -> Known {
        match self {
            Self::Here { root, known } => {
                let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
                *known = found(root, &sockets, std::mem::take(&mut *known));
                known.clone()
            }
            Self::Outside { questions, .. } => {
                let (answer, answered) = sync_channel(1);
                let asked = questions.as_ref().map(|questions| questions.send(Question { sockets, answer }));
                asked.and_then(|_| answered.recv().ok()).unwrap_or_default()
            }
        }
    }
}

impl Drop for Holders {
    fn drop(&mut self) {
        if let Self::Outside { questions, thread } = self {
            drop(questions.take());
            if thread.take().is_some_and(|thread| thread.join().is_err()) {
                tracing::warn!("the thread that looks for the holders of sockets broke off");
            }
        }
    }
}

/// Who holds each, by what is known where that still holds.
fn found(root: &Root, wanted: &BTreeSet<u64>, mut known: Known) -> Known {
    known.retain(|inode, holder| wanted.contains(inode) && holds(root, holder, *inode));
    let mut missing: BTreeSet<u64> = wanted.iter().copied().filter(|inode| !known.contains_key(inode)).collect();
    let mut pids: Vec<u32> = match std::fs::read_dir(root.path("/proc")) {
        Ok(entries) if !missing.is_empty() => entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect(),
        _ => return known,
    };
    pids.sort_unstable();
    for pid in pids {
        if missing.is_empty() {
            break;
        }
        let folder = root.path(&format!("/proc/{pid}"));
        // One that has ended, or may not be looked at, holds nothing that can be known.
        for descriptor in std::fs::read_dir(folder.join("fd")).into_iter().flatten().flatten() {
            let Some(inode) = std::fs::read_link(descriptor.path()).ok().as_deref().and_then(socket_inode) else { continue };
            if missing.remove(&inode) {
                let program = std::fs::read_link(folder.join("exe")).ok().map(|path| path.to_string_lossy().into_owned());
                let unit = std::fs::read(folder.join("cgroup")).ok().and_then(|cgroups| parse_placement(&cgroups).unit);
                let descriptor = descriptor.file_name().to_string_lossy().into_owned();
                known.insert(inode, Holder { pid, descriptor, program, unit });
            }
        }
    }
    known
}

fn holds(root: &Root, holder: &Holder, inode: u64) -> bool {
    let link = root.path(&format!("/proc/{}/fd/{}", holder.pid, holder.descriptor));
    std::fs::read_link(link).ok().as_deref().and_then(socket_inode) == Some(inode)
}

/// `socket:[12345]`.
fn socket_inode(link: &Path) -> Option<u64> {
    link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// Two processes that hold one socket.
    fn host() -> (tempfile::TempDir, Root) {
        let folder = tempfile::tempdir().unwrap();
        for pid in [700, 900] {
            let descriptors = folder.path().join(format!("proc/{pid}/fd"));
            std::fs::create_dir_all(&descriptors).unwrap();
            symlink("socket:[11]", descriptors.join("3")).unwrap();
        }
        let root = Root::at(folder.path());
        (folder, root)
    }

    /// A number that another socket has now is another's.
    #[test]
    fn a_holder_that_let_go_is_looked_for_anew() {
        let (folder, root) = host();
        for holders in [Holders::here(root.clone()), Holders::outside(root).unwrap()] {
            let link = folder.path().join("proc/700/fd/3");
            let _ = std::fs::remove_file(&link);
            symlink("socket:[11]", &link).unwrap();
            assert_eq!(holders.of([11].into())[&11].pid, 700);
            assert_eq!(holders.of([11].into())[&11].pid, 700);
            std::fs::remove_file(&link).unwrap();
            symlink("socket:[12]", &link).unwrap();
            assert_eq!(holders.of([11].into())[&11].pid, 900);
            assert!(holders.of(BTreeSet::new()).is_empty());
        }
    }
}
