//! The control groups of a run's hosts: each process of a host is in its host's group, so that a host can
//! be frozen, listed and killed as a whole, whatever it has started.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use anyhow::Context;

use crate::claim::RunNumber;

/// Where the unified hierarchy is mounted (cgroups(7)): alone, or beside those of version 1.
fn mounted() -> Option<&'static Path> {
    ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"].map(Path::new).into_iter().find(|path| path.join("cgroup.controllers").exists())
}

/// The hierarchy by which systemd names what it runs, where that is one of version 1.
const NAMED: &str = "/sys/fs/cgroup/systemd";

/// Whether groups can be made here that can be frozen and killed.
pub fn is_usable() -> bool {
    // Asked once: tests that ask beside each other would find the other's probe.
    static USABLE: LazyLock<bool> = LazyLock::new(probe);
    *USABLE
}

fn probe() -> bool {
    let Some(mounted) = mounted() else { return false };
    // Only a group that is not the root's has the files.
    let probe = mounted.join(format!("trueline-fleet-probe-{}", std::process::id()));
    let usable = std::fs::create_dir(&probe).is_ok() && probe.join("cgroup.kill").exists() && probe.join("cgroup.freeze").exists();
    let _ = std::fs::remove_dir(&probe);
    usable
}

#[derive(Debug, Clone)]
pub struct Cgroup {
    unified: PathBuf,
    named: PathBuf,
}

impl Cgroup {
    /// That of a run, which holds those of its hosts.
    pub fn of_run(run: RunNumber) -> anyhow::Result<Self> {
        let mounted = mounted().context("no unified hierarchy of control groups is mounted")?;
        let name = format!("trueline-fleet-{run}");
        Ok(Self { unified: mounted.join(&name), named: Path::new(NAMED).join(name) })
    }

    pub fn of_host(run: RunNumber, host: &str) -> anyhow::Result<Self> {
        let run = Self::of_run(run)?;
        Ok(Self { unified: run.unified.join(host), named: run.named.join(host) })
    }

    pub fn exists(&self) -> bool {
        self.unified.exists()
    }

    pub fn make(&self) -> anyhow::Result<()> {
        std::fs::create_dir_all(&self.unified).with_context(|| format!("making {}", self.unified.display()))
    }

    /// A process that writes its number there is in the group, with all that it starts.
    pub fn door(&self) -> PathBuf {
        self.unified.join("cgroup.procs")
    }

    fn write(&self, file: &str, text: &str) -> anyhow::Result<()> {
        let path = self.unified.join(file);
        std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))
    }

    pub fn freeze(&self) -> anyhow::Result<()> {
        self.write("cgroup.freeze", "1")
    }

    pub fn thaw(&self) -> anyhow::Result<()> {
        self.write("cgroup.freeze", "0")
    }

    pub fn is_frozen(&self) -> bool {
        self.has_event("frozen 1")
    }

    /// SIGKILL to every process.
    pub fn kill(&self) -> anyhow::Result<()> {
        self.write("cgroup.kill", "1")
    }

    pub fn is_populated(&self) -> bool {
        self.has_event("populated 1")
    }

    fn has_event(&self, line: &str) -> bool {
        std::fs::read_to_string(self.unified.join("cgroup.events")).is_ok_and(|events| events.lines().any(|event| event == line))
    }

    /// Every process in it and in the groups beneath.
    pub fn processes(&self) -> Vec<u32> {
        let mut found = Vec::new();
        collect(&self.unified, &mut found);
        found
    }

    /// Once it is empty, and with it what its host made in the other hierarchy.
    pub fn remove(&self) -> anyhow::Result<()> {
        for path in [&self.unified, &self.named] {
            remove(path).with_context(|| format!("removing {}", path.display()))?;
        }
        Ok(())
    }
}

fn folders(path: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path()).collect()
}

fn collect(path: &Path, found: &mut Vec<u32>) {
    let text = std::fs::read_to_string(path.join("cgroup.procs")).unwrap_or_default();
    found.extend(text.lines().filter_map(|line| line.parse::<u32>().ok()));
    folders(path).iter().for_each(|folder| collect(folder, found));
}

fn remove(path: &Path) -> std::io::Result<()> {
    for folder in folders(path) {
        remove(&folder)?;
    }
    match std::fs::remove_dir(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
