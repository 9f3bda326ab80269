//! Files by descriptor: a name is first pinned with `O_PATH`, which opens nothing, then looked at,
//! and only a regular file or a folder is opened. What its folder lists as a regular file may be opened at once and looked at then.
//!
//! Invariants: nothing here blocks; no symbolic link is followed, neither the last component nor one before it; what is read
//! is the very inode that was looked at, whatever happens to its name meanwhile; a device, FIFO or socket is never opened but one
//! that took the name of a listed file in that moment, and then it is closed unread: root alone can make a device do so.

use std::ffi::{CStr, CString, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::OnceLock;

use nix::errno::Errno;
use nix::fcntl::{self, OFlag, OpenHow, ResolveFlag};
use nix::sys::stat::Mode;

/// Longest part of a path given to the kernel at once; PATH_MAX is 4096 with the final NUL.
const PATH_CHUNK: usize = 4000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryType {
    File,
    Folder,
    Symlink,
    Fifo,
    Socket,
    Block,
    Char,
}

impl EntryType {
    pub const fn name(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Folder => "folder",
            Self::Symlink => "symlink",
            Self::Fifo => "fifo",
            Self::Socket => "socket",
            Self::Block => "block",
            Self::Char => "char",
        }
    }

    fn from_mode(mode: u32) -> io::Result<Self> {
        Ok(match mode & libc::S_IFMT {
            libc::S_IFREG => Self::File,
            libc::S_IFDIR => Self::Folder,
            libc::S_IFLNK => Self::Symlink,
            libc::S_IFIFO => Self::Fifo,
            libc::S_IFSOCK => Self::Socket,
            libc::S_IFBLK => Self::Block,
            libc::S_IFCHR => Self::Char,
            other => return Err(io::Error::other(format!("the kernel reports an unknown type of file, {other:#o}"))),
        })
    }

    /// `DT_*` of getdents64(2); `None` where the file system leaves it to stat.
    const fn from_entry(d_type: u8) -> Option<Self> {
        match d_type {
            libc::DT_REG => Some(Self::File),
            libc::DT_DIR => Some(Self::Folder),
            libc::DT_LNK => Some(Self::Symlink),
            libc::DT_FIFO => Some(Self::Fifo),
            libc::DT_SOCK => Some(Self::Socket),
            libc::DT_BLK => Some(Self::Block),
            libc::DT_CHR => Some(Self::Char),
            _ => None,
        }
    }
}

/// A file or folder, whatever its names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Inode {
    /// As stat(2) packs it. On btrfs that is the subvolume's, which the kernel's own hooks do not know.
    pub device: u64,
    pub number: u64,
}

/// statx(2), without asking a remote server anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metadata {
    pub entry_type: EntryType,
    /// Permission bits with set-uid, set-gid and sticky, at most 0o7777.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub size: u64,
    pub nlink: u32,
    pub device: u64,
    pub inode: u64,
    /// Major and minor number of the device that a block or character node stands for.
    pub node: (u32, u32),
    /// Nanoseconds since the epoch.
    pub modified_ns: i64,
    /// ctime, nanoseconds since the epoch.
    pub changed_ns: i64,
}

/// Of the entry of an open folder, itself even if it is a symbolic link. Nothing is opened.
pub fn listed(folder: BorrowedFd<'_>, name: &CStr) -> io::Result<Metadata> {
    statx(folder, name, libc::AT_SYMLINK_NOFOLLOW)
}

fn metadata(fd: BorrowedFd<'_>) -> io::Result<Metadata> {
    statx(fd, c"", libc::AT_EMPTY_PATH)
}

/// Of what a name in an open folder leads to: for the links of /proc, which lead to files without a walk along their paths.
pub(crate) fn followed(folder: BorrowedFd<'_>, name: &CStr) -> io::Result<Metadata> {
    statx(folder, name, 0)
}

fn statx(fd: BorrowedFd<'_>, name: &CStr, flags: libc::c_int) -> io::Result<Metadata> {
    let mut raw = std::mem::MaybeUninit::<libc::statx>::zeroed();
    let flags = flags | libc::AT_STATX_DONT_SYNC | libc::AT_NO_AUTOMOUNT;
    // SAFETY: the descriptor is open for the whole call, the path is NUL-terminated and lives as long, and
    // `raw` is valid for writes of one statx.
    let result = unsafe { libc::statx(fd.as_raw_fd(), name.as_ptr(), flags, libc::STATX_BASIC_STATS, raw.as_mut_ptr()) };
    Errno::result(result)?;
    // SAFETY: all-zero is a valid statx, and the kernel has filled it on success.
    let raw = unsafe { raw.assume_init() };
    let nanoseconds = |time: libc::statx_timestamp| time.tv_sec.saturating_mul(1_000_000_000).saturating_add(i64::from(time.tv_nsec));
    let mode = u32::from(raw.stx_mode);
    Ok(Metadata {
        entry_type: EntryType::from_mode(mode)?,
        mode: mode & 0o7777,
        uid: raw.stx_uid,
        gid: raw.stx_gid,
        size: raw.stx_size,
        nlink: raw.stx_nlink,
        device: libc::makedev(raw.stx_dev_major, raw.stx_dev_minor),
        inode: raw.stx_ino,
        node: (raw.stx_rdev_major, raw.stx_rdev_minor),
        modified_ns: nanoseconds(raw.stx_mtime),
        changed_ns: nanoseconds(raw.stx_ctime),
    })
}

/// A name held in place by an `O_PATH` descriptor. Nothing has been opened.
#[derive(Debug)]
pub struct Pinned {
    fd: OwnedFd,
    pub metadata: Metadata,
}

impl Pinned {
    /// The entry `name` of an open folder, itself even if it is a symbolic link.
    pub fn at(folder: BorrowedFd<'_>, name: &CStr) -> io::Result<Self> {
        Self::of(fcntl::openat(folder, name, OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty())?)
    }

    /// An absolute path of any length, without following a symbolic link in any component: one on
    /// the way answers ELOOP or ENOTDIR.
    pub fn open(path: &[u8]) -> io::Result<Self> {
        if path.first() != Some(&b'/') {
            return Err(Errno::EINVAL.into());
        }
        let mut rest = path;
        let mut folder = None::<OwnedFd>;
        loop {
            let (chunk, after) = next_chunk(rest);
            let chunk = CString::new(chunk).map_err(|_| Errno::EINVAL)?;
            let last = after.is_empty();
            let flags = if last { OFlag::empty() } else { OFlag::O_DIRECTORY };
            let from = folder.as_ref().map_or(fcntl::AT_FDCWD, |folder| folder.as_fd());
            let opened = open_beneath(from, &chunk, flags)?;
            if last {
                return Self::of(opened);
            }
            folder = Some(opened);
            rest = after;
        }
    }

    /// As the host's own programs would open it, following symbolic links: only for databases whose
    /// every folder belongs to root, such as /etc/passwd.
    pub fn follow(path: &Path) -> io::Result<Self> {
        Self::of(fcntl::open(path, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())?)
    }

    fn of(fd: OwnedFd) -> io::Result<Self> {
        let metadata = metadata(fd.as_fd())?;
        Ok(Self { fd, metadata })
    }

    /// Opens what is pinned for reading. Anything but a regular file or a folder is refused.
    pub fn contents(&self) -> io::Result<Contents> {
        let kind = match self.metadata.entry_type {
            EntryType::File => OFlag::empty(),
            EntryType::Folder => OFlag::O_DIRECTORY,
            _ => return Err(Errno::EINVAL.into()),
        };
        let mut number = [0; 16];
        let name = decimal(self.fd.as_raw_fd(), &mut number);
        Ok(Contents { file: File::from(open_to_read(descriptors()?, name, kind)?) })
    }

    /// Where the pinned symbolic link points.
    pub fn link_target(&self) -> io::Result<Vec<u8>> {
        let target: OsString = fcntl::readlinkat(&self.fd, c"")?;
        Ok(target.into_vec())
    }

    /// The magic number of the file system, as in statfs(2).
    pub fn file_system(&self) -> io::Result<i64> {
        // The type of the field differs between C libraries.
        #[allow(clippy::unnecessary_cast)]
        Ok(nix::sys::statfs::fstatfs(&self.fd)?.filesystem_type().0 as i64)
    }

    /// Names of extended attributes, NUL-terminated one after the other, into `buffer`.
    pub fn list_xattrs<'a>(&self, buffer: &'a mut [u8]) -> io::Result<&'a [u8]> {
        let path = descriptor_path(&self.fd)?;
        // SAFETY: the path is NUL-terminated and the kernel writes at most `buffer.len()` bytes.
        // The magic link leads to the pinned inode itself, also if that is a symbolic link.
        let length = unsafe { libc::listxattr(path.as_ptr(), buffer.as_mut_ptr().cast(), buffer.len()) };
        filled(length, buffer)
    }

    pub fn xattr<'a>(&self, name: &CStr, buffer: &'a mut [u8]) -> io::Result<&'a [u8]> {
        let path = descriptor_path(&self.fd)?;
        // SAFETY: as above, and the name is NUL-terminated.
        let length = unsafe { libc::getxattr(path.as_ptr(), name.as_ptr(), buffer.as_mut_ptr().cast(), buffer.len()) };
        filled(length, buffer)
    }
}

/// A regular file or folder, open for reading.
#[derive(Debug)]
pub struct Contents {
    file: File,
}

impl Contents {
    /// The entry of an open folder that was listed as a regular file. `None` where it cannot be opened or is something else
    /// by now: [`Pinned`] says what.
    pub fn of_listed(folder: BorrowedFd<'_>, name: &CStr) -> Option<(Self, Metadata)> {
        let contents = Self { file: File::from(open_to_read(folder, name, OFlag::O_NOFOLLOW).ok()?) };
        let metadata = contents.metadata().ok()?;
        (metadata.entry_type == EntryType::File).then_some((contents, metadata))
    }

    pub fn metadata(&self) -> io::Result<Metadata> {
        metadata(self.file.as_fd())
    }

    /// pread(2).
    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(buffer, offset)
    }

    pub fn into_file(self) -> File {
        self.file
    }

    pub fn folder(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// The next entries of a folder, in the kernel's packing; none at the end. See [`entries`].
    pub fn list<'a>(&self, buffer: &'a mut [u8]) -> io::Result<&'a [u8]> {
        // SAFETY: the kernel writes at most `buffer.len()` bytes, and the records are read back as bytes only.
        let length = unsafe { libc::syscall(libc::SYS_getdents64, self.file.as_raw_fd(), buffer.as_mut_ptr(), buffer.len()) };
        filled(length as isize, buffer)
    }

    pub fn list_xattrs<'a>(&self, buffer: &'a mut [u8]) -> io::Result<&'a [u8]> {
        // SAFETY: the descriptor is open and the kernel writes at most `buffer.len()` bytes.
        let length = unsafe { libc::flistxattr(self.file.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len()) };
        filled(length, buffer)
    }

    pub fn xattr<'a>(&self, name: &CStr, buffer: &'a mut [u8]) -> io::Result<&'a [u8]> {
        // SAFETY: as above, and the name is NUL-terminated.
        let length = unsafe { libc::fgetxattr(self.file.as_raw_fd(), name.as_ptr(), buffer.as_mut_ptr().cast(), buffer.len()) };
        filled(length, buffer)
    }

    /// Inode flags, as lsattr(1) shows them; 0 where the file system has none.
    pub fn flags(&self) -> io::Result<u32> {
        // The kernel writes an int whatever the macro's type says; the rest of the word stays 0.
        let mut flags: libc::c_long = 0;
        // SAFETY: the request writes no more than a long, and `flags` is one.
        let result = unsafe { libc::ioctl(self.file.as_raw_fd(), libc::FS_IOC_GETFLAGS as _, &mut flags) };
        match Errno::result(result) {
            Ok(_) => {
                let bytes = flags.to_ne_bytes();
                Ok(u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
            }
            Err(Errno::ENOTTY | Errno::EOPNOTSUPP | Errno::ENOSYS | Errno::EINVAL) => Ok(0),
            Err(error) => Err(error.into()),
        }
    }
}

/// Name and type of each entry in what [`Contents::list`] gave, without `.` and `..`.
pub fn entries(packed: &[u8]) -> impl Iterator<Item = (&CStr, Option<EntryType>)> {
    // struct linux_dirent64: u64 inode, i64 offset, u16 length, u8 type, name.
    let mut rest = packed;
    std::iter::from_fn(move || {
        loop {
            let length = usize::from(u16::from_ne_bytes([*rest.get(16)?, *rest.get(17)?]));
            let record = rest.get(..length)?;
            rest = &rest[length..];
            let name = CStr::from_bytes_until_nul(record.get(19..)?).ok()?;
            if name != c"." && name != c".." {
                return Some((name, EntryType::from_entry(record[18])));
            }
        }
    })
}

fn filled(length: isize, buffer: &[u8]) -> io::Result<&[u8]> {
    let length = Errno::result(length)?;
    Ok(&buffer[..length.unsigned_abs()])
}

/// Without waiting, and with the access time left alone.
fn open_to_read(folder: BorrowedFd<'_>, name: &CStr, flags: OFlag) -> nix::Result<OwnedFd> {
    let flags = flags | OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    // Only the owner and CAP_FOWNER may do the latter.
    match fcntl::openat(folder, name, flags | OFlag::O_NOATIME, Mode::empty()) {
        Err(Errno::EPERM) => fcntl::openat(folder, name, flags, Mode::empty()),
        other => other,
    }
}

/// One `O_PATH` step that follows no symbolic link.
fn open_beneath(from: BorrowedFd<'_>, path: &CStr, flags: OFlag) -> io::Result<OwnedFd> {
    let flags = flags | OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let how = OpenHow::new().flags(flags).resolve(ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    match fcntl::openat2(from, path, how) {
        // Kernels before 5.6, and sandboxes that know no openat2.
        Err(Errno::ENOSYS | Errno::EPERM) => open_stepwise(from, path, flags),
        other => Ok(other?),
    }
}

/// The same by single components: a pinned symbolic link is no folder to go on from.
fn open_stepwise(from: BorrowedFd<'_>, path: &CStr, flags: OFlag) -> io::Result<OwnedFd> {
    let step = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let bytes = path.to_bytes();
    let start = if bytes.first() == Some(&b'/') { c"/" } else { c"." };
    let mut at = fcntl::openat(from, start, step, Mode::empty())?;
    let mut components = bytes.split(|byte| *byte == b'/').filter(|component| !component.is_empty()).peekable();
    while let Some(component) = components.next() {
        let name = CString::new(component).map_err(|_| Errno::EINVAL)?;
        let flags = if components.peek().is_some() { step | OFlag::O_DIRECTORY } else { flags };
        at = fcntl::openat(&at, name.as_c_str(), flags, Mode::empty())?;
    }
    Ok(at)
}

/// Cuts off as much of a path as the kernel takes at once, at a slash, and returns the rest as a
/// relative path. A component longer than any chunk stays whole, for the kernel to refuse.
fn next_chunk(path: &[u8]) -> (&[u8], &[u8]) {
    if path.len() <= PATH_CHUNK {
        return (path, &[]);
    }
    let cut = path[1..=PATH_CHUNK].iter().rposition(|byte| *byte == b'/').map(|at| at + 1);
    let cut = cut.or_else(|| path[1..].iter().position(|byte| *byte == b'/').map(|at| at + 1));
    match cut {
        Some(cut) => (&path[..cut], path[cut..].strip_prefix(b"/").unwrap_or(&[])),
        None => (path, &[]),
    }
}

/// /proc/self/fd, held open: through it an `O_PATH` descriptor can be opened in earnest.
fn descriptors() -> io::Result<BorrowedFd<'static>> {
    static DESCRIPTORS: OnceLock<Result<OwnedFd, Errno>> = OnceLock::new();
    let opened = DESCRIPTORS.get_or_init(|| {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let folder = fcntl::open(c"/proc/self/fd", flags, Mode::empty())?;
        // Anything else mounted there could lead us anywhere.
        let file_system = nix::sys::statfs::fstatfs(&folder)?.filesystem_type();
        if file_system == nix::sys::statfs::PROC_SUPER_MAGIC { Ok(folder) } else { Err(Errno::ENOSYS) }
    });
    match opened {
        Ok(folder) => Ok(folder.as_fd()),
        Err(error) => Err(io::Error::other(format!("/proc/self/fd is needed to open files safely: {error}"))),
    }
}

fn descriptor_path(fd: &OwnedFd) -> io::Result<CString> {
    descriptors()?;
    Ok(CString::new(format!("/proc/self/fd/{}", fd.as_raw_fd())).expect("a number holds no NUL"))
}

/// A descriptor's number as a C string, without allocating.
fn decimal(number: i32, buffer: &mut [u8; 16]) -> &CStr {
    let mut at = buffer.len() - 1;
    let mut rest = number.unsigned_abs();
    loop {
        at -= 1;
        buffer[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    CStr::from_bytes_until_nul(&buffer[at..]).expect("the last byte is never written")
}

#[cfg(test)]
#[path = "file_test.rs"]
mod tests;
