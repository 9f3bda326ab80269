//! Whether a package manager is at work: dpkg and rpm hold a lock on a file of their database as long as they may write
//! (fcntl(2), advisory record locks).

use std::fs::File;

use nix::fcntl::{FcntlArg, fcntl};
use nix::libc::{self, flock};

use crate::collect::Root;

/// Taken for writing by dpkg and rpm, and by apt between its runs of dpkg. Who may only read such a file can lock it for reading
/// alone, which is not asked for.
const LOCKS: &[&str] = &["/var/lib/dpkg/lock", "/var/lib/rpm/.rpm.lock", "/usr/lib/sysimage/rpm/.rpm.lock"];

/// Taken by apt for all of a run: between two runs of dpkg nobody may hold the lock of the database.
const FRONTEND: &str = "/var/lib/dpkg/lock-frontend";

/// The process that holds a package database; 0 where it is one that cannot be seen from here.
pub fn holder(root: &Root) -> Option<u32> {
    LOCKS.iter().find_map(|path| holder_of(root, path))
}

/// Whether a package database may not be as it is going to be.
pub fn is_at_work(root: &Root) -> bool {
    holder(root).or_else(|| holder_of(root, FRONTEND)).is_some()
}

fn holder_of(root: &Root, path: &str) -> Option<u32> {
    let file = File::open(root.path(path)).ok()?;
    let mut asked = flock { l_type: libc::F_RDLCK as i16, l_whence: libc::SEEK_SET as i16, l_start: 0, l_len: 0, l_pid: 0 };
    fcntl(&file, FcntlArg::F_GETLK(&mut asked)).ok()?;
    (i32::from(asked.l_type) != libc::F_UNLCK).then(|| u32::try_from(asked.l_pid).unwrap_or(0))
}
