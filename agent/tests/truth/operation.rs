//! What programs do to files. One that cannot be done, as there is nothing to do it to, is no matter.

use std::cell::Cell;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Seek, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use rustix::fs::{CWD, FallocateFlags, RenameFlags, XattrFlags};
use trueline_agent::kernel::change::write_through_memory;

pub const ATTRIBUTE: &str = "user.trueline";

/// A place beneath the watched folder: few names, so that operations meet.
pub type Place = Vec<u8>;

#[derive(Debug, Clone)]
pub enum Operation {
    Write(Place, u16),
    Append(Place, u16),
    Truncate(Place, u16),
    Allocate(Place, u16),
    ThroughMemory(Place),
    /// By a descriptor from before the agent was started.
    ByOldDescriptor(bool, u16),
    Copy(Place, Place),
    /// `mkdir -p` and a file at once.
    DeepFile(Place),
    Folder(Place),
    Link(Place, Place),
    LinkFromOutside(Place),
    Symlink(Place, Place),
    Rename(Place, Place),
    Exchange(Place, Place),
    MoveOut(Place),
    MoveIn(Place),
    Remove(Place),
    RemoveTree(Place),
    Mode(Place, u16),
    Owner(Place, u8),
    Attribute(Place, u8),
    NoAttribute(Place),
    Touch(Place, u32),
    /// As vim does: the old one aside, the new one in its place, the old one removed.
    SaveAsVim(Place, u16),
    /// As `sed -i` and VS Code do: a new one renamed over the old one.
    SaveByRename(Place, u16),
    Transient(Place),
}

fn place() -> impl Strategy<Value = Place> {
    prop::collection::vec(0..4_u8, 1..4)
}

pub fn operation() -> impl Strategy<Value = Operation> {
    use Operation::*;
    let size = || 0..9000_u16;
    prop_oneof![
        4 => (place(), size()).prop_map(|(place, size)| Write(place, size)),
        2 => (place(), size()).prop_map(|(place, size)| Append(place, size)),
        1 => (place(), size()).prop_map(|(place, size)| Truncate(place, size)),
        1 => (place(), size()).prop_map(|(place, size)| Allocate(place, size)),
        1 => place().prop_map(ThroughMemory),
        1 => (any::<bool>(), size()).prop_map(|(which, size)| ByOldDescriptor(which, size)),
        1 => (place(), place()).prop_map(|(from, to)| Copy(from, to)),
        2 => place().prop_map(DeepFile),
        2 => place().prop_map(Folder),
        2 => (place(), place()).prop_map(|(from, to)| Link(from, to)),
        1 => place().prop_map(LinkFromOutside),
        1 => (place(), place()).prop_map(|(from, to)| Symlink(from, to)),
        4 => (place(), place()).prop_map(|(from, to)| Rename(from, to)),
        1 => (place(), place()).prop_map(|(from, to)| Exchange(from, to)),
        1 => place().prop_map(MoveOut),
        1 => place().prop_map(MoveIn),
        2 => place().prop_map(Remove),
        1 => place().prop_map(RemoveTree),
        1 => (place(), 0..0o10000_u16).prop_map(|(place, mode)| Mode(place, mode)),
        1 => (place(), any::<u8>()).prop_map(|(place, owner)| Owner(place, owner)),
        1 => (place(), any::<u8>()).prop_map(|(place, value)| Attribute(place, value)),
        1 => place().prop_map(NoAttribute),
        1 => (place(), any::<u32>()).prop_map(|(place, time)| Touch(place, time)),
        2 => (place(), size()).prop_map(|(place, size)| SaveAsVim(place, size)),
        2 => (place(), size()).prop_map(|(place, size)| SaveByRename(place, size)),
        1 => place().prop_map(Transient),
    ]
}

/// Who carries them out.
pub struct Hands {
    inside: PathBuf,
    outside: PathBuf,
    old: [File; 2],
    count: Cell<usize>,
}

impl Hands {
    pub fn over(inside: &Path, outside: &Path) -> Self {
        let open = |name: &str| OpenOptions::new().create(true).truncate(false).read(true).write(true).open(inside.join(name)).unwrap();
        Self { inside: inside.to_owned(), outside: outside.to_owned(), old: [open("old-0"), open("old-1")], count: Cell::new(0) }
    }

    pub fn carried_out(&self) -> usize {
        self.count.get()
    }

    pub fn carry_out(&self, operation: &Operation) {
        self.count.set(self.count.get() + 1);
        // What cannot be done is part of the game.
        let _ = self.attempt(operation);
    }

    /// All but the files that are open goes, so that the next sequence begins with nothing.
    pub fn tidy(&self) {
        for entry in fs::read_dir(&self.inside).unwrap().chain(fs::read_dir(&self.outside).unwrap()) {
            let path = entry.unwrap().path();
            if !path.file_name().unwrap().as_bytes().starts_with(b"old-") {
                let _ = remove(&path);
            }
        }
    }

    fn at(&self, place: &Place) -> PathBuf {
        place.iter().fold(self.inside.clone(), |path, name| path.join(char::from(b'a' + name).to_string()))
    }

    fn attempt(&self, operation: &Operation) -> io::Result<()> {
        use Operation::*;
        match operation {
            Write(place, size) => fs::write(self.at(place), contents(*size)),
            Append(place, size) => OpenOptions::new().append(true).open(self.at(place))?.write_all(&contents(*size)),
            Truncate(place, size) => OpenOptions::new().write(true).open(self.at(place))?.set_len(u64::from(*size)),
            Allocate(place, size) => {
                let file = OpenOptions::new().write(true).open(self.at(place))?;
                Ok(rustix::fs::fallocate(file, FallocateFlags::empty(), 0, u64::from(*size).max(1))?)
            }
            ThroughMemory(place) => write_through_memory(OpenOptions::new().read(true).write(true).open(self.at(place))?),
            ByOldDescriptor(which, size) => {
                let mut file = &self.old[usize::from(*which)];
                file.rewind()?;
                file.write_all(&contents(*size))
            }
            Copy(from, to) => fs::copy(self.at(from), self.at(to)).map(drop),
            DeepFile(place) => {
                let folder = self.at(place);
                fs::create_dir_all(&folder)?;
                fs::write(folder.join("f"), "deep")
            }
            Folder(place) => fs::create_dir(self.at(place)),
            Link(from, to) => fs::hard_link(self.at(from), self.at(to)),
            LinkFromOutside(to) => {
                let outside = self.outside.join("linked");
                fs::write(&outside, "from outside")?;
                fs::hard_link(outside, self.at(to))
            }
            Symlink(from, to) => symlink(self.at(from), self.at(to)),
            Rename(from, to) => fs::rename(self.at(from), self.at(to)),
            Exchange(from, to) => Ok(rustix::fs::renameat_with(CWD, self.at(from), CWD, self.at(to), RenameFlags::EXCHANGE)?),
            MoveOut(place) => fs::rename(self.at(place), self.outside.join(self.count.get().to_string())),
            MoveIn(place) => {
                let first = fs::read_dir(&self.outside)?.next().ok_or(io::ErrorKind::NotFound)??;
                fs::rename(first.path(), self.at(place))
            }
            Remove(place) => remove_one(&self.at(place)),
            RemoveTree(place) => remove(&self.at(place)),
            Mode(place, mode) => fs::set_permissions(self.at(place), Permissions::from_mode(u32::from(*mode))),
            Owner(place, owner) => chown(self.at(place), Some(u32::from(*owner)), Some(u32::from(*owner) / 2)),
            Attribute(place, value) => set_attribute(&self.at(place), Some(*value)),
            NoAttribute(place) => set_attribute(&self.at(place), None),
            Touch(place, time) => {
                let file = File::open(self.at(place))?;
                file.set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(u64::from(*time)))
            }
            SaveAsVim(place, size) => {
                let path = self.at(place);
                let aside = with_suffix(&path, "~");
                fs::rename(&path, &aside)?;
                fs::write(&path, contents(*size))?;
                fs::remove_file(aside)
            }
            SaveByRename(place, size) => {
                let path = self.at(place);
                let new = with_suffix(&path, ".new");
                fs::write(&new, contents(*size))?;
                fs::rename(new, path)
            }
            Transient(place) => {
                let path = with_suffix(&self.at(place), ".tmp");
                fs::write(&path, "x")?;
                fs::remove_file(path)
            }
        }
    }
}

fn contents(size: u16) -> Vec<u8> {
    (0..size).map(|at| (at ^ size) as u8).collect()
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

fn remove_one(path: &Path) -> io::Result<()> {
    if path.symlink_metadata()?.is_dir() { fs::remove_dir(path) } else { fs::remove_file(path) }
}

fn remove(path: &Path) -> io::Result<()> {
    if path.symlink_metadata()?.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }
}

fn set_attribute(path: &Path, value: Option<u8>) -> io::Result<()> {
    match value {
        Some(value) => Ok(rustix::fs::lsetxattr(path, ATTRIBUTE, &[value], XattrFlags::empty())?),
        None => Ok(rustix::fs::lremovexattr(path, ATTRIBUTE)?),
    }
}
