//! What is done to a file system: single operations on few names, so that they meet.
//!
//! An operation that the disk refuses (a folder where a file was, nothing there) is done as far as it went, as with people.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, UNIX_EPOCH};

use proptest::prelude::*;
use rustix::fs::{FallocateFlags, IFlags, XattrFlags};

use super::volume::Volume;

/// `cap_net_raw=ep`, as setcap(8) writes it: revision 2 of struct vfs_cap_data.
pub const CAPABILITIES: [u8; 20] = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
/// `u::rw-,u:1000:r--,g::r--,m::r--,o::---`, as setfacl(1) writes it.
const ACL: [(u8, u8, u32); 5] = [(1, 6, u32::MAX), (2, 4, 1000), (4, 4, u32::MAX), (0x10, 4, u32::MAX), (0x20, 0, u32::MAX)];

const FOLDERS: [&str; 6] = ["scope", "scope/a", "scope/a/b", "scope/a/b/c", "scope/d", "out"];
const NAMES: [&str; 3] = ["f0", "f1", "f2"];
/// What may be moved as a whole.
const TREES: [&str; 5] = ["scope/a", "scope/a/b", "scope/d", "scope/d/t", "out/t"];

/// A place beneath a volume.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Place(&'static str, &'static str);

impl Place {
    fn on(self, volume: &Volume) -> PathBuf {
        let top = volume.out().parent().map(Path::to_owned).unwrap_or_default();
        if self.1.is_empty() { top.join(self.0) } else { top.join(self.0).join(self.1) }
    }
}

impl std::fmt::Debug for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.0, self.1)
    }
}

#[derive(Debug, Clone)]
pub enum Operation {
    Create(Place),
    Write(Place, u8),
    Append(Place, u8),
    Truncate(Place, u16),
    Allocate(Place, u16),
    Rename(Place, Place),
    MakeFolder(Place),
    MakePathAndFile(Place),
    Link(Place, Place),
    Symlink(Place, u8),
    Fifo(Place),
    Unlink(Place),
    RemoveTree(Place),
    Mode(Place, u32),
    Owner(Place, u32),
    Attribute(Place, u8),
    NoAttribute(Place),
    Acl(Place),
    Capabilities(Place),
    /// chattr +d or -d, which no event tells of, and then something that one tells of.
    Flag(Place, bool),
    /// chattr +i, a write that fails, chattr -i.
    Immutable(Place),
    ThroughMemory(Place),
    /// By a descriptor from before the agent's start.
    ThroughOldDescriptor(u8),
    CopyRange(Place, Place),
    Reflink(Place, Place),
    SaveAsVim(Place, u8),
    SaveAsNano(Place, u8),
    SaveAsSed(Place, u8),
    SaveAsCode(Place, u8),
    Times(Place, u32),
    Transient(Place),
    /// Waits until the agent has told all: what follows stands for itself.
    Rest,
}

/// A second name for a file out of view, and a write through it.
pub fn through_an_unwatched_name() -> [Operation; 2] {
    let (known, outside) = (Place("scope/a", "f0"), Place("out", "f2"));
    [Operation::Link(known, outside), Operation::Write(outside, 7)]
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Names {
    /// Files have one name each, which may lead out of view.
    Single,
    /// Files have several, all in view: see [`through_an_unwatched_name`].
    Several,
}

pub fn any(names: Names) -> impl Strategy<Value = Operation> {
    use Operation::*;
    let (folders, trees) = match names {
        Names::Single => (&FOLDERS[..], &TREES[..]),
        Names::Several => (&FOLDERS[..FOLDERS.len() - 1], &TREES[..TREES.len() - 1]),
    };
    let file = move || (prop::sample::select(folders), prop::sample::select(&NAMES[..])).prop_map(|(folder, name)| Place(folder, name));
    let tree = move || prop::sample::select(trees).prop_map(|path| Place(path, ""));
    let several = u32::from(names == Names::Several) * 8;
    let either = move || prop_oneof![4 => file(), 1 => tree()];
    let byte = proptest::prelude::any::<u8>;
    let contents = prop_oneof![
        file().prop_map(Create),
        (file(), byte()).prop_map(|(at, byte)| Write(at, byte)),
        (file(), byte()).prop_map(|(at, byte)| Append(at, byte)),
        (file(), 0..9000_u16).prop_map(|(at, size)| Truncate(at, size)),
        (file(), 1..9000_u16).prop_map(|(at, size)| Allocate(at, size)),
        byte().prop_map(ThroughOldDescriptor),
        (file(), file()).prop_map(|(from, to)| CopyRange(from, to)),
        (file(), file()).prop_map(|(from, to)| Reflink(from, to)),
        (file(), byte()).prop_map(|(at, byte)| SaveAsVim(at, byte)),
        (file(), byte()).prop_map(|(at, byte)| SaveAsNano(at, byte)),
        (file(), byte()).prop_map(|(at, byte)| SaveAsSed(at, byte)),
        (file(), byte()).prop_map(|(at, byte)| SaveAsCode(at, byte)),
    ];
    let names = prop_oneof![
        3 => (file(), file()).prop_map(|(from, to)| Rename(from, to)),
        3 => (tree(), tree()).prop_map(|(from, to)| Rename(from, to)),
        1 => tree().prop_map(MakeFolder),
        3 => file().prop_map(MakePathAndFile),
        1 => (file(), 0..3_u8).prop_map(|(at, to)| Symlink(at, to)),
        1 => file().prop_map(Fifo),
        1 => file().prop_map(Unlink),
        1 => tree().prop_map(RemoveTree),
        1 => file().prop_map(Transient),
    ];
    let attributes = prop_oneof![
        (either(), prop::sample::select(&[0o600_u32, 0o644, 0o755, 0o4755, 0o777][..])).prop_map(|(at, mode)| Mode(at, mode)),
        (either(), prop::sample::select(&[0_u32, 1, 12345][..])).prop_map(|(at, id)| Owner(at, id)),
        (either(), byte()).prop_map(|(at, byte)| Attribute(at, byte)),
        either().prop_map(NoAttribute),
        either().prop_map(Acl),
        file().prop_map(Capabilities),
        (either(), proptest::prelude::any::<bool>()).prop_map(|(at, set)| Flag(at, set)),
        file().prop_map(Immutable),
        (either(), 0..2_000_000_000_u32).prop_map(|(at, seconds)| Times(at, seconds)),
    ];
    let links = (file(), file()).prop_map(|(from, to)| Link(from, to));
    prop_oneof![several => links, 12 => contents, 10 => names, 8 => attributes, 1 => file().prop_map(ThroughMemory), 4 => Just(Rest)]
}

/// Every editor's way to save, on a file that [`lay_out`] made.
pub fn saves() -> [Operation; 4] {
    let at = Place("scope/a", "f0");
    [Operation::SaveAsVim(at, 1), Operation::SaveAsNano(at, 2), Operation::SaveAsSed(at, 3), Operation::SaveAsCode(at, 4)]
}

impl Operation {
    pub fn perform(&self, volume: &Volume, old: &File) -> io::Result<()> {
        use Operation::*;
        match self {
            Create(at) => OpenOptions::new().write(true).create_new(true).open(plain(at.on(volume))?).map(drop),
            Write(at, byte) => fs::write(plain(at.on(volume))?, contents(*byte)),
            Append(at, byte) => OpenOptions::new().append(true).open(plain(at.on(volume))?)?.write_all(&contents(*byte)),
            Truncate(at, size) => OpenOptions::new().write(true).open(plain(at.on(volume))?)?.set_len(u64::from(*size)),
            Allocate(at, size) => {
                let file = OpenOptions::new().write(true).open(plain(at.on(volume))?)?;
                Ok(rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, u64::from(*size))?)
            }
            Rename(from, to) => fs::rename(from.on(volume), to.on(volume)),
            MakeFolder(at) => fs::create_dir(at.on(volume)),
            MakePathAndFile(at) => {
                let path = at.on(volume);
                fs::create_dir_all(path.parent().unwrap_or(&path))?;
                fs::write(plain(path)?, "made with its folders\n")
            }
            Link(from, to) => fs::hard_link(from.on(volume), to.on(volume)),
            Symlink(at, to) => symlink(["f0", "/nowhere", "a/b"][usize::from(*to)], at.on(volume)),
            Fifo(at) => Ok(rustix::fs::mknodat(rustix::fs::CWD, at.on(volume), rustix::fs::FileType::Fifo, 0o600.into(), 0)?),
            Unlink(at) => fs::remove_file(at.on(volume)),
            RemoveTree(at) => fs::remove_dir_all(at.on(volume)),
            Mode(at, mode) => fs::set_permissions(no_link(at.on(volume))?, fs::Permissions::from_mode(*mode)),
            Owner(at, id) => lchown(at.on(volume), Some(*id), Some(*id)),
            Attribute(at, byte) => {
                Ok(rustix::fs::lsetxattr(at.on(volume), "user.truth", format!("{byte}").as_bytes(), XattrFlags::empty())?)
            }
            NoAttribute(at) => Ok(rustix::fs::lremovexattr(at.on(volume), "user.truth")?),
            Acl(at) => {
                let mut bytes = 2_u32.to_le_bytes().to_vec();
                for (tag, permissions, id) in ACL {
                    bytes.extend([tag, 0, permissions, 0]);
                    bytes.extend(id.to_le_bytes());
                }
                Ok(rustix::fs::lsetxattr(at.on(volume), "system.posix_acl_access", &bytes, XattrFlags::empty())?)
            }
            Capabilities(at) => {
                Ok(rustix::fs::lsetxattr(plain(at.on(volume))?, "security.capability", &CAPABILITIES, XattrFlags::empty())?)
            }
            Flag(at, set) => {
                let path = at.on(volume);
                let metadata = path.symlink_metadata()?;
                if !metadata.is_dir() && !metadata.is_file() {
                    return Ok(());
                }
                flag(&path, IFlags::NODUMP, *set)?;
                fs::set_permissions(&path, metadata.permissions())
            }
            Immutable(at) => {
                let path = plain(at.on(volume))?;
                flag(&path, IFlags::IMMUTABLE, true)?;
                let refused = fs::write(&path, "never\n");
                flag(&path, IFlags::IMMUTABLE, false)?;
                refused
            }
            ThroughMemory(at) => through_memory(&plain(at.on(volume))?),
            ThroughOldDescriptor(byte) => old.write_all_at(&[*byte], u64::from(byte % 7)),
            CopyRange(from, to) => {
                let from = File::open(plain(from.on(volume))?)?;
                let to = OpenOptions::new().write(true).create(true).truncate(false).open(plain(to.on(volume))?)?;
                Ok(rustix::fs::copy_file_range(&from, None, &to, None, 4096).map(drop)?)
            }
            Reflink(from, to) => {
                let from = File::open(plain(from.on(volume))?)?;
                let to = OpenOptions::new().write(true).create(true).truncate(false).open(plain(to.on(volume))?)?;
                Ok(rustix::fs::ioctl_ficlone(&to, &from)?)
            }
            SaveAsVim(at, byte) => save_as_vim(&plain(at.on(volume))?, *byte),
            SaveAsNano(at, byte) => {
                let mut file = OpenOptions::new().write(true).create(true).truncate(true).open(plain(at.on(volume))?)?;
                file.write_all(&contents(*byte))?;
                file.sync_all()
            }
            SaveAsSed(at, byte) => replace(&plain(at.on(volume))?, "sedA1b2C3", *byte, false),
            SaveAsCode(at, byte) => replace(&plain(at.on(volume))?, "f.vsctmp", *byte, true),
            Times(at, seconds) => File::open(no_link(at.on(volume))?)?.set_modified(UNIX_EPOCH + Duration::from_secs(u64::from(*seconds))),
            Transient(at) => {
                let path = at.on(volume).with_extension("transient");
                fs::write(&path, "gone at once\n")?;
                fs::remove_file(path)
            }
            Rest => Ok(()),
        }
    }
}

/// Renamed away, written anew, the old one removed: `backupcopy=no`.
fn save_as_vim(path: &Path, byte: u8) -> io::Result<()> {
    let backup = path.with_extension("~");
    fs::rename(path, &backup)?;
    let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
    file.write_all(&contents(byte))?;
    file.sync_all()?;
    fs::remove_file(backup)
}

/// Written beside it and renamed over it.
fn replace(path: &Path, beside: &str, byte: u8, sync: bool) -> io::Result<()> {
    let permissions = path.metadata()?.permissions();
    let new = path.with_file_name(beside);
    let mut file = OpenOptions::new().write(true).create_new(true).open(&new)?;
    file.write_all(&contents(byte))?;
    file.set_permissions(permissions)?;
    if sync {
        file.sync_all()?;
    }
    drop(file);
    fs::rename(new, path)
}

/// A process maps the file, writes to the memory and ends.
fn through_memory(path: &Path) -> io::Result<()> {
    if path.metadata()?.len() < 16 {
        return Ok(());
    }
    let done = Command::new("xfs_io").args(["-c", "mmap -rw 0 16", "-c", "mwrite -S 0x4d 2 8", "-c", "munmap"]).arg(path).output()?;
    if done.status.success() { Ok(()) } else { Err(io::Error::other(String::from_utf8_lossy(&done.stderr).into_owned())) }
}

fn flag(path: &Path, flag: IFlags, set: bool) -> io::Result<()> {
    let file = File::open(path)?;
    let mut flags = rustix::fs::ioctl_getflags(&file)?;
    flags.set(flag, set);
    Ok(rustix::fs::ioctl_setflags(&file, flags)?)
}

/// A path that does not lead elsewhere, and where an `open` does not wait for a reader: nothing, or a file.
fn plain(path: PathBuf) -> io::Result<PathBuf> {
    match path.symlink_metadata() {
        Ok(metadata) if !metadata.is_file() => Err(io::Error::other("not a file")),
        _ => Ok(path),
    }
}

fn no_link(path: PathBuf) -> io::Result<PathBuf> {
    let kind = path.symlink_metadata()?.file_type();
    if kind.is_file() || kind.is_dir() { Ok(path) } else { Err(io::Error::other("neither file nor folder")) }
}

fn contents(byte: u8) -> Vec<u8> {
    format!("{byte:>20}\n").repeat(1 + usize::from(byte)).into_bytes()
}

/// The file that is written through a descriptor from before the agent's start.
pub fn old_descriptor(scope: &Path) -> io::Result<File> {
    let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(scope.join("old"))?;
    file.seek(SeekFrom::Start(0))?;
    file.write_all(b"opened before the agent")?;
    Ok(file)
}

/// Takes away all that operations may have made, and lays out folders and files for the next to meet.
/// `scope/d` is a subvolume where there are such.
pub fn lay_out(volume: &Volume) -> io::Result<()> {
    for top in [volume.scope(), volume.out()] {
        clear(&top)?;
    }
    for folder in FOLDERS {
        let path = Place(folder, "").on(volume);
        if folder == "scope/d" {
            volume.make_folder(&path)?;
        } else {
            fs::create_dir_all(&path)?;
        }
        for name in &NAMES[..2] {
            fs::write(path.join(name), format!("{name} as it was laid out\n"))?;
        }
    }
    Ok(())
}

fn clear(top: &Path) -> io::Result<()> {
    for entry in fs::read_dir(top)? {
        let entry = entry?;
        if ["old", "canary"].iter().any(|kept| entry.file_name() == *kept) {
            continue;
        }
        if entry.file_type()?.is_dir() {
            fs::remove_dir_all(entry.path())?;
        } else {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}
