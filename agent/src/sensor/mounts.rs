//! Which mounts hold what is watched. From /proc/self/mountinfo.

use std::path::{Path, PathBuf};

use super::view::{as_path, nearest_existing};
use crate::mount_table::{Entry, entries};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    pub id: u64,
    pub point: PathBuf,
    /// The file system's device number, as makedev(3) packs it. What stat(2) says of its files may be another (btrfs).
    pub device: u64,
    /// The whole file system is mounted, not a part of it.
    pub whole: bool,
    /// `ext4`, `overlay`.
    pub kind: String,
}

/// File systems that hold no files of anybody's: their contents are the kernel's own.
const KERNEL_KINDS: [&str; 16] = [
    "proc",
    "sysfs",
    "cgroup",
    "cgroup2",
    "devpts",
    "devtmpfs",
    "debugfs",
    "tracefs",
    "securityfs",
    "pstore",
    "bpf",
    "configfs",
    "mqueue",
    "hugetlbfs",
    "binfmt_misc",
    "autofs",
];

/// Lines that cannot be read are left out.
pub fn parse_mounts(mountinfo: &[u8]) -> Vec<Mount> {
    let mount = |entry: Entry<'_>| Mount {
        id: entry.id,
        point: as_path(&entry.point).to_owned(),
        device: nix::sys::stat::makedev(entry.major.into(), entry.minor.into()),
        whole: entry.root == b"/",
        kind: String::from_utf8_lossy(entry.kind).into_owned(),
    };
    entries(mountinfo).flatten().map(mount).collect()
}

/// The mounts that hold the roots, and those beneath them; each once, none hidden by a later mount on
/// the same point.
pub fn mounts_of(roots: &[PathBuf], mounts: &[Mount]) -> Vec<Mount> {
    let mut found: Vec<Mount> = Vec::new();
    let mut add = |mount: &Mount| {
        if !found.iter().any(|known| known.id == mount.id) {
            found.push(mount.clone());
        }
    };
    let topmost = |point: &Path| mounts.iter().rev().find(|mount| mount.point == point);
    for root in roots {
        if let Some(holder) = nearest_existing(root).ancestors().find_map(topmost) {
            add(holder);
        }
        for beneath in mounts.iter().filter(|mount| mount.point.starts_with(root)) {
            let is_kernels = KERNEL_KINDS.contains(&beneath.kind.as_str());
            if !is_kernels && topmost(&beneath.point).is_some_and(|top| top.id == beneath.id) {
                add(beneath);
            }
        }
    }
    found
}

/// The roots whose files lie on this mount, and this mount itself where it lies beneath a root.
pub fn watched_on(mount: &Mount, roots: &[PathBuf], mounts: &[Mount]) -> Vec<PathBuf> {
    let holds = |root: &&PathBuf| {
        let topmost = |point: &Path| mounts.iter().rev().find(|mount| mount.point == point);
        nearest_existing(root).ancestors().find_map(topmost).is_some_and(|holder| holder.id == mount.id)
    };
    let mut watched: Vec<PathBuf> = roots.iter().filter(holds).cloned().collect();
    let is_beneath = |root: &PathBuf| mount.point.starts_with(root) && mount.point != *root;
    if roots.iter().any(is_beneath) {
        watched.push(mount.point.clone());
    }
    watched
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &[u8] = b"27 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n\
        22 27 0:21 / /nowhere/etc/proc rw - proc proc rw\n\
        30 27 0:30 /part /nowhere/etc/a\\040b rw shared:1 master:2 - tmpfs tmpfs rw\n\
        31 27 0:31 / /nowhere/etc/over rw - tmpfs tmpfs rw\n\
        32 31 0:32 / /nowhere/etc/over rw - overlay overlay rw\n\
        33 27 0:33 / /nowhere/other rw - xfs /dev/b rw\n\
        broken line\n\n";

    #[test]
    fn mounts_beneath_a_root_are_found_and_hidden_ones_are_not() {
        let mounts = parse_mounts(TABLE);
        assert_eq!(mounts.len(), 6);
        assert_eq!((mounts[2].point.as_path(), mounts[2].device), (Path::new("/nowhere/etc/a b"), nix::sys::stat::makedev(0, 30)));
        assert!(!mounts[2].whole && mounts[3].whole);
        let roots = [PathBuf::from("/nowhere/etc")];
        let ids: Vec<u64> = mounts_of(&roots, &mounts).iter().map(|mount| mount.id).collect();
        assert_eq!(ids, [27, 30, 32]);
        assert_eq!(watched_on(&mounts[0], &roots, &mounts), roots);
        assert_eq!(watched_on(&mounts[2], &roots, &mounts), [PathBuf::from("/nowhere/etc/a b")]);
        assert!(watched_on(&mounts[5], &roots, &mounts).is_empty());
    }

    #[test]
    fn this_machines_root_is_found() {
        let table = std::fs::read("/proc/self/mountinfo").unwrap();
        assert!(parse_mounts(&table).iter().any(|mount| mount.point == Path::new("/")));
    }
}
