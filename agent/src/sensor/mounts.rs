//! Which mounts hold what is watched. Parses /proc/self/mountinfo; see proc_pid_mountinfo(5).

use std::path::{Path, PathBuf};

use super::view::{as_path, nearest_existing};

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
    mountinfo.split(|byte| *byte == b'\n').filter_map(parse_mount).collect()
}

fn parse_mount(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|byte| *byte == b' ');
    let id = std::str::from_utf8(fields.next()?).ok()?.parse().ok()?;
    let (major, minor) = std::str::from_utf8(fields.nth(1)?).ok()?.split_once(':')?;
    let device = nix::sys::stat::makedev(major.parse().ok()?, minor.parse().ok()?);
    let root = fields.next()?;
    let point = unescape(fields.next()?);
    let kind = fields.skip_while(|field| *field != b"-").nth(1)?;
    Some(Mount { id, point: as_path(&point).to_owned(), device, whole: root == b"/", kind: String::from_utf8_lossy(kind).into_owned() })
}

/// Blank, tab, newline and backslash are written as three octal digits.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, tail)) = rest.split_first() {
        let digits = tail.first_chunk::<3>().filter(|digits| *first == b'\\' && digits.iter().all(|digit| matches!(digit, b'0'..=b'7')));
        match digits {
            Some([a, b, c]) => {
                out.push((a - b'0').wrapping_mul(64) + (b - b'0') * 8 + (c - b'0'));
                rest = &tail[3..];
            }
            None => {
                out.push(*first);
                rest = tail;
            }
        }
    }
    out
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
    fn escapes_that_are_none_stay() {
        assert_eq!(unescape(b"a\\040b\\134c\\9\\01"), b"a b\\c\\9\\01");
        assert_eq!(unescape(b"\\777"), [255]);
    }

    #[test]
    fn this_machines_root_is_found() {
        let table = std::fs::read("/proc/self/mountinfo").unwrap();
        assert!(parse_mounts(&table).iter().any(|mount| mount.point == Path::new("/")));
    }
}
