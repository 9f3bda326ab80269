//! What the sensors of a host tell of each operation that changes it, and how sure they are of who did it.
//!
//! Invariant: it never says more than the sensors keep. The agent's `check-coverage` tries each operation, and a test holds what came of
//! it against what is said here.

use serde::{Deserialize, Serialize};

use crate::Certainty;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    Create,
    Write,
    Truncate,
    Rename,
    Link,
    Unlink,
    /// And what else of a file's own record is set: its times.
    Chmod,
    Chown,
    Xattr,
    Acl,
    /// chattr(1).
    Flags,
    /// And unmount.
    Mount,
    SysctlWrite,
    /// Through memory that the file is mapped to.
    MmapWrite,
}

impl Operation {
    pub const ALL: [Self; 14] = [
        Self::Create,
        Self::Write,
        Self::Truncate,
        Self::Rename,
        Self::Link,
        Self::Unlink,
        Self::Chmod,
        Self::Chown,
        Self::Xattr,
        Self::Acl,
        Self::Flags,
        Self::Mount,
        Self::SysctlWrite,
        Self::MmapWrite,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Write => "write",
            Self::Truncate => "truncate",
            Self::Rename => "rename",
            Self::Link => "link",
            Self::Unlink => "unlink",
            Self::Chmod => "chmod",
            Self::Chown => "chown",
            Self::Xattr => "xattr",
            Self::Acl => "acl",
            Self::Flags => "flags",
            Self::Mount => "mount",
            Self::SysctlWrite => "sysctl_write",
            Self::MmapWrite => "mmap_write",
        }
    }
}

impl std::fmt::Display for Operation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

/// What is told of one operation wherever the host is watched, but for the exceptions that `reason` names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperationCoverage {
    pub operation: Operation,
    /// The surest that its actor can be, `unknown` where an event names nobody. Absent: no event tells of it, and reading again
    /// alone finds what it changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actor: Option<Certainty>,
    /// Why it is no surer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// What tells of files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    Fanotify,
    Inotify,
}

/// What tells of processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProcessFeed {
    Ebpf,
    Connector,
    /// Nothing: they are read from /proc when their events are.
    Procfs,
}

/// What a host is watched by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Means {
    /// Or why nothing tells of files.
    pub files: Result<Engine, String>,
    /// What is told of less than the rest, or why all is.
    pub files_less: Option<String>,
    pub processes: ProcessFeed,
    /// Why no better feed is used.
    pub processes_less: Option<String>,
    /// Why writes to kernel settings are not told.
    pub settings: Result<(), String>,
    /// Audit names who changes a few paths of high value.
    pub audit: bool,
    /// Operations that hooks in the kernel tell of themselves, and how sure the process then is.
    pub hooks: Vec<(Operation, Certainty)>,
}

const UNNAMED: &str = "inotify names no process";
const NO_EVENT: &str = "the kernel makes no event of it (ioctl_iflags(2))";
const MOUNTED: &str = "the table of mounts says which one came or went, and not who did it";
const MOUNTED_UNSEEN: &str = "inotify tells nothing of mounts";
const MAPPED: &str = "told once the file is mapped no longer, and another may have written meanwhile";
const HOOKED: &str = "that somebody did it is told apart from what came of it";
const VALUED: &str = "of a few paths of high value audit names it exactly";

impl Means {
    /// Of each operation, in the order of [`Operation::ALL`].
    pub fn coverage(&self) -> Vec<OperationCoverage> {
        let surest = |operation| {
            let row = self.told(operation);
            let hooked = self.hooks.iter().filter(|(hooked, _)| *hooked == operation).map(|(_, actor)| *actor).min();
            match hooked {
                Some(hooked) if row.actor.is_none_or(|actor| hooked < actor) => {
                    OperationCoverage { actor: Some(hooked), reason: (hooked > Certainty::Exact).then(|| HOOKED.to_owned()), operation }
                }
                _ => row,
            }
        };
        Operation::ALL.map(surest).into()
    }

    fn told(&self, operation: Operation) -> OperationCoverage {
        let told = |actor, reasons: &[Option<&str>]| {
            let reasons: Vec<&str> = reasons.iter().copied().flatten().collect();
            OperationCoverage { operation, actor, reason: (!reasons.is_empty()).then(|| reasons.join("; ")) }
        };
        if operation == Operation::SysctlWrite {
            return match &self.settings {
                Ok(()) => told(Some(self.named()), &[self.fed()]),
                Err(reason) => told(None, &[Some(reason)]),
            };
        }
        let engine = match &self.files {
            Ok(engine) => *engine,
            Err(reason) => return told(None, &[Some(reason)]),
        };
        let less = self.files_less.as_deref();
        match (operation, engine) {
            (Operation::Flags, _) => told(None, &[Some(NO_EVENT)]),
            (Operation::Mount, Engine::Fanotify) => told(Some(Certainty::Unknown), &[Some(MOUNTED)]),
            (Operation::Mount, Engine::Inotify) => told(None, &[Some(MOUNTED_UNSEEN)]),
            (Operation::MmapWrite, Engine::Fanotify) => told(Some(Certainty::Correlated), &[Some(MAPPED), less]),
            (Operation::MmapWrite, Engine::Inotify) => told(Some(Certainty::Unknown), &[Some(MAPPED), Some(UNNAMED), less]),
            (_, Engine::Fanotify) => {
                let actor = self.named();
                let valued = (self.audit && actor > Certainty::Exact).then_some(VALUED);
                told(Some(actor), &[self.fed(), valued, less])
            }
            (_, Engine::Inotify) => told(Some(Certainty::Unknown), &[Some(UNNAMED), self.audit.then_some(VALUED), less]),
        }
    }

    /// Whom fanotify's number of a process turns out to be.
    const fn named(&self) -> Certainty {
        match self.processes {
            ProcessFeed::Ebpf => Certainty::Exact,
            ProcessFeed::Connector | ProcessFeed::Procfs => Certainty::Strong,
        }
    }

    fn fed(&self) -> Option<&str> {
        let without = match self.processes {
            ProcessFeed::Ebpf => return None,
            ProcessFeed::Connector => "what a process runs is read when it begins, and of one that ends at once it may not be known",
            ProcessFeed::Procfs => "processes are read when their events are, and one that ends at once may not be known",
        };
        Some(self.processes_less.as_deref().unwrap_or(without))
    }
}

/// Operations of which the same is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alike {
    pub operations: Vec<Operation>,
    pub actor: Option<Certainty>,
    pub reason: Option<String>,
}

impl Alike {
    /// `create, write, rename`.
    pub fn names(&self) -> String {
        self.operations.iter().map(|operation| operation.name()).collect::<Vec<_>>().join(", ")
    }
}

/// For a table that can be taken in: each thing that is told once, in the order in which it first comes.
pub fn alike(rows: &[OperationCoverage]) -> Vec<Alike> {
    let mut groups: Vec<Alike> = Vec::new();
    for row in rows {
        match groups.iter_mut().find(|group| (group.actor, &group.reason) == (row.actor, &row.reason)) {
            Some(group) => group.operations.push(row.operation),
            None => groups.push(Alike { operations: vec![row.operation], actor: row.actor, reason: row.reason.clone() }),
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    fn means(files: Engine, processes: ProcessFeed) -> Means {
        let settings = if files == Engine::Fanotify { Ok(()) } else { Err("read every 30 seconds".to_owned()) };
        Means { files: Ok(files), files_less: None, processes, processes_less: None, settings, audit: false, hooks: Vec::new() }
    }

    fn told(means: &Means) -> String {
        let line = |group: Alike| {
            let actor = group.actor.map_or("untold", Certainty::name);
            format!("{}: {actor}{}", group.names(), group.reason.map(|reason| format!(" ({reason})")).unwrap_or_default())
        };
        alike(&means.coverage()).into_iter().map(line).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn with_ebpf_all_is_exact_but_what_no_event_tells_of_or_names() {
        insta::assert_snapshot!(told(&means(Engine::Fanotify, ProcessFeed::Ebpf)), @r"
        create, write, truncate, rename, link, unlink, chmod, chown, xattr, acl, sysctl_write: exact
        flags: untold (the kernel makes no event of it (ioctl_iflags(2)))
        mount: unknown (the table of mounts says which one came or went, and not who did it)
        mmap_write: correlated (told once the file is mapped no longer, and another may have written meanwhile)
        ");
    }

    #[test]
    fn with_less_it_is_strong_at_best_and_says_why() {
        let less = Means {
            processes_less: Some("ebpf: not permitted".to_owned()),
            files_less: Some("file:/a by inotify alone".to_owned()),
            audit: true,
            ..means(Engine::Fanotify, ProcessFeed::Connector)
        };
        insta::assert_snapshot!(told(&less), @r"
        create, write, truncate, rename, link, unlink, chmod, chown, xattr, acl: strong (ebpf: not permitted; of a few paths of high value audit names it exactly; file:/a by inotify alone)
        flags: untold (the kernel makes no event of it (ioctl_iflags(2)))
        mount: unknown (the table of mounts says which one came or went, and not who did it)
        sysctl_write: strong (ebpf: not permitted)
        mmap_write: correlated (told once the file is mapped no longer, and another may have written meanwhile; file:/a by inotify alone)
        ");
        let strong = means(Engine::Fanotify, ProcessFeed::Procfs).coverage();
        assert!(strong.iter().all(|row| row.actor != Some(Certainty::Exact)), "{strong:?}");
        assert!(strong.iter().all(|row| row.reason.is_some()), "whatever is not exact says why: {strong:?}");
    }

    #[test]
    fn inotify_names_nobody() {
        insta::assert_snapshot!(told(&means(Engine::Inotify, ProcessFeed::Procfs)), @r"
        create, write, truncate, rename, link, unlink, chmod, chown, xattr, acl: unknown (inotify names no process)
        flags: untold (the kernel makes no event of it (ioctl_iflags(2)))
        mount: untold (inotify tells nothing of mounts)
        sysctl_write: untold (read every 30 seconds)
        mmap_write: unknown (told once the file is mapped no longer, and another may have written meanwhile; inotify names no process)
        ");
    }

    #[test]
    fn where_nothing_watches_files_settings_may_still_be_told() {
        let blind = Means { files: Err("the sensor stopped".to_owned()), ..means(Engine::Fanotify, ProcessFeed::Ebpf) };
        for row in blind.coverage() {
            assert_eq!(row.actor, (row.operation == Operation::SysctlWrite).then_some(Certainty::Exact), "{row:?}");
        }
    }

    #[test]
    fn hooks_count_where_they_are_surer() {
        let hooks = [Operation::Write, Operation::Mount].map(|operation| (operation, Certainty::Correlated));
        let hooks = [&hooks[..], &[(Operation::Flags, Certainty::Exact)]].concat();
        let hooked = Means { hooks, ..means(Engine::Fanotify, ProcessFeed::Connector) }.coverage();
        let of = |operation| hooked.iter().find(|row| row.operation == operation).unwrap();
        assert_eq!((of(Operation::Flags).actor, of(Operation::Flags).reason.clone()), (Some(Certainty::Exact), None));
        assert_eq!(of(Operation::Write).actor, Some(Certainty::Strong));
        assert_eq!((of(Operation::Mount).actor, of(Operation::Mount).reason.as_deref()), (Some(Certainty::Correlated), Some(HOOKED)));
    }

    #[test]
    fn names_are_those_of_serde() {
        for operation in Operation::ALL {
            assert_eq!(serde_json::to_value(operation).unwrap(), operation.name());
        }
    }
}
