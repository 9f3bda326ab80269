//! The changes that are made to the canary: each operation in its several ways.
//!
//! Invariant: no two cases share a path where the first could leave events for the second, and what must be told of the operation
//! itself keeps its file open, so that no close is taken for it.

use std::ffi::{CStr, OsStr};
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use trueline_drift::Operation;

use crate::kernel::change;
use crate::sensor::Target;

const SETTING: &str = "kernel.panic_on_oops";

/// What a case is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Object {
    /// A name beneath the canary's folder.
    Entry(&'static [u8]),
    /// A kernel setting, written with the value that it has.
    Setting,
}

/// What is there when the sensors begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Before {
    Nothing,
    File,
    Folder,
}

/// By which process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// One that lives on.
    Lasting,
    /// One that has ended when its events are read, or soon after.
    Brief,
}

pub struct Case {
    pub operation: Operation,
    pub name: &'static str,
    pub object: Object,
    pub before: Before,
    pub by: By,
    act: fn(&Path) -> io::Result<()>,
}

impl Case {
    const fn new(
        operation: Operation,
        name: &'static str,
        target: &'static [u8],
        before: Before,
        act: fn(&Path) -> io::Result<()>,
    ) -> Self {
        Self { operation, name, object: Object::Entry(target), before, by: By::Lasting, act }
    }

    pub fn path(&self, canary: &Path) -> PathBuf {
        match self.object {
            Object::Entry(name) => canary.join(OsStr::from_bytes(name)),
            Object::Setting => PathBuf::from(format!("/proc/sys/{}", SETTING.replace('.', "/"))),
        }
    }

    pub fn target(&self, canary: &Path) -> Target {
        match self.object {
            Object::Entry(_) => Target::Path(self.path(canary).as_os_str().as_bytes().to_vec()),
            Object::Setting => Target::Sysctl(SETTING.to_owned()),
        }
    }

    /// Before the sensors begin.
    pub fn prepare(&self, canary: &Path) -> io::Result<()> {
        match self.before {
            Before::Nothing => Ok(()),
            Before::File => fs::write(self.path(canary), "first"),
            Before::Folder => fs::create_dir(self.path(canary)),
        }
    }

    pub fn act(&self, canary: &Path) -> io::Result<()> {
        (self.act)(&self.path(canary))
    }
}

pub const CASES: &[Case] = &[
    Case::new(Operation::Create, "create a file", b"created", Before::Nothing, |path| File::create(path).map(drop)),
    Case::new(Operation::Create, "make a folder", b"folder", Before::Nothing, |path| fs::create_dir(path)),
    Case::new(Operation::Create, "make a symbolic link", b"soft", Before::Nothing, |path| std::os::unix::fs::symlink("file", path)),
    Case::new(Operation::Create, "a name that is not UTF-8", b"name-\xff\n", Before::Nothing, |path| File::create(path).map(drop)),
    Case::new(Operation::Write, "write a file", b"written", Before::File, |path| fs::write(path, "changed")),
    Case::new(Operation::Write, "append to a file kept open", b"appended", Before::File, |path| {
        let mut file = OpenOptions::new().append(true).open(path)?;
        file.write_all(b"more").map(|()| keep(file))
    }),
    Case::new(Operation::Write, "write in place", b"in-place", Before::File, |path| {
        let mut file = OpenOptions::new().write(true).open(path)?;
        file.seek(SeekFrom::Start(1))?;
        file.write_all(b"X").map(|()| keep(file))
    }),
    Case::new(Operation::Write, "write in the new folder", b"folder/inner", Before::Nothing, |path| fs::write(path, "x")),
    Case {
        by: By::Brief,
        ..Case::new(Operation::Write, "write, and end at once", b"by-brief", Before::File, |path| fs::write(path, "changed"))
    },
    Case::new(Operation::Truncate, "truncate", b"truncated", Before::File, |path| {
        let file = OpenOptions::new().write(true).open(path)?;
        file.set_len(1).map(|()| keep(file))
    }),
    Case::new(Operation::Rename, "replace by rename", b"replaced", Before::File, |path| {
        let next = path.with_extension("next");
        fs::write(&next, "next")?;
        fs::rename(next, path)
    }),
    Case::new(Operation::Rename, "rename a folder", b"renamed", Before::Nothing, |path| fs::rename(path.with_file_name("folder"), path)),
    Case::new(Operation::Write, "write in the renamed folder", b"renamed/later", Before::Nothing, |path| fs::write(path, "x")),
    Case::new(Operation::Link, "make a hard link", b"hard", Before::Nothing, |path| fs::hard_link(path.with_file_name("created"), path)),
    Case::new(Operation::Unlink, "delete a file", b"deleted", Before::File, |path| fs::remove_file(path)),
    Case::new(Operation::Unlink, "delete a folder with its files", b"renamed", Before::Nothing, |path| fs::remove_dir_all(path)),
    Case::new(Operation::Chmod, "change the mode", b"mode", Before::File, |path| fs::set_permissions(path, Permissions::from_mode(0o640))),
    Case::new(Operation::Chmod, "set the modification time", b"time", Before::File, |path| {
        let file = OpenOptions::new().write(true).open(path)?;
        file.set_modified(std::time::SystemTime::UNIX_EPOCH).map(|()| keep(file))
    }),
    Case::new(Operation::Chown, "change the owner", b"owner", Before::File, |path| {
        std::os::unix::fs::chown(path, Some(nix::unistd::getuid().as_raw()), None)
    }),
    Case::new(Operation::Xattr, "set an extended attribute", b"attribute", Before::File, |path| set_xattr(path, c"user.canary", b"1")),
    // Version 2, nothing permitted (linux/capability.h).
    Case::new(Operation::Xattr, "set capabilities", b"capable", Before::File, |path| {
        set_xattr(path, c"security.capability", &[0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])
    }),
    Case::new(Operation::Acl, "set an ACL", b"acl", Before::File, |path| set_xattr(path, c"system.posix_acl_access", &acl())),
    Case::new(Operation::Flags, "set a flag (chattr)", b"flagged", Before::File, |path| change::toggle_flag(&File::open(path)?)),
    Case::new(Operation::Mount, "mount a file system", b"mounted", Before::Folder, |path| {
        let safe = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        mount(Some("trueline-canary"), path, Some("tmpfs"), safe, Some("size=64k")).map_err(Into::into)
    }),
    Case::new(Operation::Mount, "unmount it", b"mounted", Before::Nothing, |path| umount2(path, MntFlags::empty()).map_err(Into::into)),
    Case {
        object: Object::Setting,
        ..Case::new(Operation::SysctlWrite, "write a kernel setting", b"", Before::Nothing, |path| {
            let value = fs::read(path)?;
            OpenOptions::new().write(true).open(path)?.write_all(&value)
        })
    },
    Case::new(Operation::MmapWrite, "write through memory", b"mapped", Before::File, |path| {
        change::write_through_memory(OpenOptions::new().read(true).write(true).open(path)?)
    }),
];

/// Open for as long as its process lives, which is longer than anybody waits.
fn keep(file: File) {
    std::mem::forget(file);
}

fn set_xattr(path: &Path, name: &CStr, value: &[u8]) -> io::Result<()> {
    let file = OpenOptions::new().write(true).open(path)?;
    change::set_xattr(&file, name, value).map(|()| keep(file))
}

/// As the attribute holds it (linux/posix_acl_xattr.h), version 2: `user::rw-,user:0:r--,group::r--,mask::r--,other::r--`.
fn acl() -> Vec<u8> {
    const UNDEFINED: u32 = u32::MAX;
    let entries: [(u16, u16, u32); 5] = [(1, 6, UNDEFINED), (2, 4, 0), (4, 4, UNDEFINED), (0x10, 4, UNDEFINED), (0x20, 4, UNDEFINED)];
    let mut bytes = 2u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(permissions.to_le_bytes());
        bytes.extend(id.to_le_bytes());
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operation_is_tried() {
        for operation in Operation::ALL {
            assert!(CASES.iter().any(|case| case.operation == operation), "{operation}");
        }
    }
}
