//! The control groups of the unified hierarchy: from a number to a path, and back.
//!
//! A group is asked for when a process is first told to be in it, and remembered: it may be gone when its process is asked for.
//! Bounded; beyond the bound the memory starts afresh.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use trueline_drift::text::printable;

use crate::kernel::handle::open_handle;

const REMEMBERED: usize = 4096;
/// Where the unified hierarchy lies: alone, or beside the older ones.
const PLACES: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];

#[derive(Debug)]
pub struct Cgroups {
    /// Its top, and the folder itself, through which handles are opened.
    root: Option<(PathBuf, File)>,
    paths: HashMap<u64, Option<Arc<str>>>,
}

impl Cgroups {
    pub fn find() -> Self {
        let is_unified = |place: &Path| {
            nix::sys::statfs::statfs(place).is_ok_and(|system| system.filesystem_type() == nix::sys::statfs::CGROUP2_SUPER_MAGIC)
        };
        let root = PLACES.iter().map(Path::new).find(|place| is_unified(place));
        Self { root: root.and_then(|place| Some((place.to_owned(), File::open(place).ok()?))), paths: HashMap::new() }
    }

    /// As /proc/PID/cgroup names it; `None` for one that was gone before it could be asked for.
    pub fn path(&mut self, id: u64) -> Option<Arc<str>> {
        if let Some(known) = self.paths.get(&id) {
            return known.clone();
        }
        let path = self.ask(id).ok();
        self.remember(id, path.clone());
        path
    }

    /// The number of a group that /proc/PID/cgroup names.
    pub fn id(&mut self, path: &[u8]) -> Option<u64> {
        let (root, _) = self.root.as_ref()?;
        let relative = std::ffi::OsStr::from_bytes(path.strip_prefix(b"/")?);
        let id = std::fs::symlink_metadata(root.join(relative)).ok()?.ino();
        if !matches!(self.paths.get(&id), Some(Some(_))) {
            self.remember(id, Some(Arc::from(printable(path).as_ref())));
        }
        Some(id)
    }

    fn remember(&mut self, id: u64, path: Option<Arc<str>>) {
        if self.paths.len() >= REMEMBERED {
            self.paths.clear();
        }
        self.paths.insert(id, path);
    }

    fn ask(&self, id: u64) -> io::Result<Arc<str>> {
        /// `FILEID_KERNFS` of linux/exportfs.h: the handle is the number.
        const KERNFS: u32 = 0xfe;
        let (root, folder) = self.root.as_ref().ok_or(io::ErrorKind::NotFound)?;
        let mut handle = [0; 16];
        handle[..4].copy_from_slice(&8u32.to_ne_bytes());
        handle[4..8].copy_from_slice(&KERNFS.to_ne_bytes());
        handle[8..].copy_from_slice(&id.to_ne_bytes());
        let group = open_handle(folder, &handle)?;
        let path = nix::fcntl::readlink(format!("/proc/self/fd/{}", group.as_raw_fd()).as_str())?;
        let beneath = Path::new(&path).strip_prefix(root).map_err(|_| io::ErrorKind::NotFound)?;
        Ok(Arc::from(format!("/{}", printable(beneath.as_os_str().as_bytes()))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_found_by_its_number_and_remembered_when_it_is_gone() {
        let test = "a_group_is_found_by_its_number_and_remembered_when_it_is_gone";
        let mut cgroups = Cgroups::find();
        let Some((root, _)) = &cgroups.root else { return crate::collect::skipped(test, "no unified hierarchy of control groups") };
        let name = format!("trueline-test-{}", std::process::id());
        let group = root.join(&name);
        if let Err(error) = std::fs::create_dir(&group) {
            return crate::collect::skipped(test, &format!("no control group can be made: {error}"));
        }
        let id = std::fs::metadata(&group).map_or(0, |group| group.ino());
        let found = cgroups.path(id);
        let same = cgroups.id(format!("/{name}").as_bytes());
        std::fs::remove_dir(&group).unwrap();
        assert_eq!(found.as_deref(), Some(format!("/{name}").as_str()));
        assert_eq!(same, Some(id));
        assert_eq!(cgroups.path(id).as_deref(), Some(format!("/{name}").as_str()));
        assert_eq!(Cgroups::find().path(id), None);
    }
}
