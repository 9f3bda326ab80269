//! From a folder's handle to its path, through the mounts on which it is watched.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat, readlink};
use nix::sys::stat::{Mode, fstat, lstat};

use super::mounts::Mount;
use super::view::{View, into_bytes};
use crate::kernel::handle::open_handle;

/// At opening a handle that the kernel has no memory for, as it says.
const ATTEMPTS: usize = 4;

/// A mount through which handles of its file system are turned into paths.
#[derive(Debug)]
pub(super) struct Place {
    point: PathBuf,
    whole: bool,
    /// Held open for `/` alone: an open descriptor would keep any other mount from being unmounted.
    held: Option<File>,
}

#[derive(Debug)]
pub(super) enum Found {
    Path(Vec<u8>),
    /// The folder lies deeper than the longest path; this is the nearest one above it that does not.
    Above(Vec<u8>),
    /// It is gone, or not to be seen through any of the places. Then an entry above it was removed or
    /// moved away, which is an event of its own.
    Gone,
}

impl Place {
    pub fn new(mount: &Mount) -> Self {
        let held = (mount.point == Path::new("/")).then(|| open_point(&mount.point).ok()).flatten();
        Self { point: mount.point.clone(), whole: mount.whole, held }
    }

    pub fn open(&self, handle: &[u8]) -> io::Result<OwnedFd> {
        let open = || match &self.held {
            Some(held) => open_handle(held, handle),
            None => open_handle(open_point(&self.point)?, handle),
        };
        let is_short_of_memory = |error: &io::Error| error.raw_os_error() == Some(libc::ENOMEM);
        // Seen now and then of a folder that was being moved or removed, with memory to spare: gone at the next look, unless it is true.
        let opened = (1..ATTEMPTS).map(|_| open()).find(|opened| !opened.as_ref().is_err_and(is_short_of_memory));
        opened.unwrap_or_else(open)
    }
}

fn open_point(point: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(point)
}

/// Where one folder is seen through several places, the path that is in view is taken.
pub(super) fn find_path(places: &[Place], handle: &[u8], view: &View) -> io::Result<Found> {
    let mut best = Found::Gone;
    let mut failure = None;
    for place in places {
        let found = match place.open(handle) {
            Ok(folder) => path_of(folder, place.whole),
            Err(error) => Err(error),
        };
        match found {
            Ok(Found::Gone) => {}
            Ok(found @ (Found::Path(_) | Found::Above(_))) => {
                let reaches = matches!(&found, Found::Path(path) | Found::Above(path) if view.reaches(path));
                if reaches {
                    return Ok(found);
                }
                best = found;
            }
            Err(error) if matches!(error.raw_os_error(), Some(libc::ESTALE | libc::ENOENT | libc::ENOTDIR)) => {}
            Err(error) => failure = Some(error),
        }
    }
    match (best, failure) {
        (Found::Gone, Some(error)) => Err(error),
        (found, _) => Ok(found),
    }
}

/// `whole` mounts show every folder of their file system; through others the kernel may name a folder
/// outside of them by a path that is not its own, so that path is looked at again.
fn path_of(folder: OwnedFd, whole: bool) -> io::Result<Found> {
    /// Each step up shortens the path by a name of at least one byte and mostly many more.
    const STEPS: usize = 4096;
    let mut folder = folder;
    for step in 0..STEPS {
        let link = format!("/proc/self/fd/{}", folder.as_raw_fd());
        match readlink(link.as_str()) {
            Ok(path) => {
                let stat = fstat(folder.as_fd())?;
                let removed = path.as_bytes().ends_with(b" (deleted)") && stat.st_nlink == 0;
                let elsewhere = || !lstat(path.as_os_str()).is_ok_and(|seen| (seen.st_dev, seen.st_ino) == (stat.st_dev, stat.st_ino));
                if removed || !path.as_bytes().starts_with(b"/") || (!whole && elsewhere()) {
                    return Ok(Found::Gone);
                }
                let path = into_bytes(PathBuf::from(path));
                return Ok(if step == 0 { Found::Path(path) } else { Found::Above(path) });
            }
            Err(Errno::ENAMETOOLONG) => {
                folder = openat(&folder, "..", OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())?;
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(Found::Gone)
}
