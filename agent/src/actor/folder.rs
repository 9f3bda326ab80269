//! /proc/PID, held open: everything is read through one descriptor, so that no two processes are mixed.
//!
//! Invariant: it stays that process's even when the pid is used again. Names and arguments come out printable and bounded.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use nix::fcntl::{OFlag, openat, readlinkat};
use nix::sys::stat::{Mode, fstat};
use trueline_drift::text::{bounded, printable};

use super::image::FileIdentity;
use super::procfs::{self, Stat};
use crate::kernel::file;

const PATH_TEXT: usize = 1024;

pub(crate) struct ProcessFolder(OwnedFd);

/// What a process runs.
pub(super) struct Program {
    pub exe: Option<String>,
    pub argv: Vec<String>,
    pub cwd: Option<String>,
}

/// What stays the same while a process is the same process, runs the same program and has the same
/// owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mark {
    pub started: u64,
    pub arguments_at: u64,
    pub owner: u32,
}

impl ProcessFolder {
    pub fn open(pid: u32) -> Option<Self> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        nix::fcntl::open(format!("/proc/{pid}").as_str(), flags, Mode::empty()).ok().map(Self)
    }

    fn file(&self, name: &str) -> Option<File> {
        openat(&self.0, name, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty()).ok().map(File::from)
    }

    pub fn bytes(&self, name: &str, limit: usize) -> Option<Vec<u8>> {
        let mut bytes = Vec::with_capacity(limit.min(1024));
        self.file(name)?.take(limit as u64).read_to_end(&mut bytes).ok()?;
        Some(bytes)
    }

    pub fn stat(&self) -> Option<(Stat, Mark)> {
        let mut file = self.file("stat")?;
        let owner = fstat(&file).ok()?.st_uid;
        let mut buffer = [0; 1024];
        let length = file.read(&mut buffer).ok()?;
        let stat = procfs::parse_stat(&buffer[..length])?;
        let mark = Mark { started: stat.started, arguments_at: stat.arguments_at, owner };
        Some((stat, mark))
    }

    /// The program's name and arguments vanish first when a process ends, so they are asked first; if the
    /// process ran another program meanwhile, all is asked once more.
    pub(super) fn program(&self) -> Option<(Stat, Mark, Program)> {
        let ask = || {
            let program = Program { exe: self.link("exe"), argv: self.arguments(), cwd: self.link("cwd") };
            self.stat().map(|(stat, mark)| (stat, mark, program))
        };
        let first = ask()?;
        let Program { exe, argv, .. } = &first.2;
        let replaced = self.link("exe").is_some_and(|now| exe.as_ref() != Some(&now) || argv.is_empty());
        if replaced { ask() } else { Some(first) }
    }

    pub fn link(&self, name: &str) -> Option<String> {
        let target = readlinkat(&self.0, name).ok()?;
        Some(bounded(&printable(target.as_bytes()), PATH_TEXT).into_owned())
    }

    /// The file that the process executes, by what stat(2) says of it. A remote server is not asked: it may never answer.
    pub fn executable(&self) -> Option<FileIdentity> {
        let file = file::followed(self.0.as_fd(), c"exe").ok()?;
        let changed = Duration::from_nanos(u64::try_from(file.changed_ns).ok()?);
        Some(FileIdentity { device: file.device, inode: file.inode, changed: Some(changed) })
    }

    /// Whether it executes a program that becomes root, whoever runs it.
    pub fn is_set_user_id(&self) -> Option<bool> {
        file::followed(self.0.as_fd(), c"exe").ok().map(|file| file.mode & 0o4000 != 0)
    }

    pub fn arguments(&self) -> Vec<String> {
        self.bytes("cmdline", procfs::ARGUMENT_BYTES).map(|bytes| procfs::parse_arguments(&bytes)).unwrap_or_default()
    }
}
