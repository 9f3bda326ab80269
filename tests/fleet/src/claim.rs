//! The number of a run, from which every name of its hosts follows: bridge, links, namespaces, control
//! groups, addresses.
//!
//! Invariants: two runs of this machine never have one number; a number belongs to a living process
//! exactly while that holds the lock of its file, so that what a dead run left can be told from what is
//! in use, whoever asks.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

/// Also of what else runs of this machine share.
pub const FOLDER: &str = "/run/trueline-fleet";

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RunNumber(u8);

impl RunNumber {
    fn all() -> impl Iterator<Item = Self> {
        (1..=250).map(Self)
    }

    pub fn parse(text: &str) -> anyhow::Result<Self> {
        let number: u8 = text.parse().with_context(|| format!("`{text}` is not the number of a run"))?;
        Self::all().find(|known| known.0 == number).with_context(|| format!("{number} is not the number of a run"))
    }

    pub const fn as_u8(self) -> u8 {
        self.0
    }

    /// Whether a run has it, living or dead.
    pub fn is_known(self) -> bool {
        self.file().exists()
    }

    /// The process of the run that has it.
    pub fn owner(self) -> anyhow::Result<i32> {
        let text = std::fs::read_to_string(self.file()).with_context(|| format!("reading {}", self.file().display()))?;
        let line = text.lines().next().context("the run has not said whose it is")?;
        line.parse().with_context(|| format!("`{line}` is no process"))
    }

    /// Where the run keeps its images, and how much it has reserved for them; nothing where it has not come so far.
    pub fn reservation(self) -> Option<(PathBuf, u64)> {
        let text = std::fs::read_to_string(self.file()).ok()?;
        let mut lines = text.lines().skip(1);
        Some((PathBuf::from(lines.next()?), lines.next()?.parse().ok()?))
    }

    fn file(self) -> PathBuf {
        Path::new(FOLDER).join(self.0.to_string())
    }
}

impl std::fmt::Display for RunNumber {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A number that is this process's. Dropped, it is anybody's.
#[derive(Debug)]
pub struct Claim {
    pub number: RunNumber,
    file: File,
}

impl Claim {
    /// A number that nothing is left of: of what a dead run left, `remove` is told first.
    pub fn take(remove: impl Fn(RunNumber, Option<&Path>) -> anyhow::Result<()>) -> anyhow::Result<Self> {
        std::fs::create_dir_all(FOLDER).with_context(|| format!("making {FOLDER}"))?;
        for number in RunNumber::all() {
            let Some(claim) = Self::of(number, true)? else { continue };
            let used = claim.file.metadata()?.len() > 0;
            if let Err(error) = remove(number, claim.folder()?.as_deref()) {
                eprintln!("run {number} is dead and cannot be removed, another number is taken: {error:#}");
                continue;
            }
            if !used {
                return Ok(claim);
            }
            // Who still waits for the dead run's lock must not come to hold that of a living one: a file of its own.
            claim.forget()?;
            if let Some(claim) = Self::of(number, true)?
                && claim.file.metadata()?.len() == 0
            {
                return Ok(claim);
            }
        }
        bail!("all numbers of runs are taken: see {FOLDER}")
    }

    /// Every number that somebody used and nobody holds.
    pub fn abandoned() -> anyhow::Result<Vec<Self>> {
        let held = RunNumber::all().filter(|number| number.is_known()).map(|number| Self::of(number, false));
        held.filter_map(Result::transpose).collect()
    }

    /// The numbers that somebody holds.
    pub fn held() -> anyhow::Result<Vec<RunNumber>> {
        let mut held = Vec::new();
        for number in RunNumber::all().filter(|number| number.is_known()) {
            if Self::of(number, false)?.is_none() && number.is_known() {
                held.push(number);
            }
        }
        Ok(held)
    }

    fn of(number: RunNumber, create: bool) -> anyhow::Result<Option<Self>> {
        let path = number.file();
        let file = match OpenOptions::new().read(true).write(true).create(create).truncate(false).open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("opening {}", path.display())),
        };
        match file.try_lock() {
            Ok(()) => Ok(Self { number, file }.if_current()),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error).with_context(|| format!("locking {}", path.display())),
        }
    }

    /// Waits for the holder to let go; nothing where somebody else has removed the run meanwhile.
    pub fn inherit(number: RunNumber) -> anyhow::Result<Option<Self>> {
        let path = number.file();
        let file = match OpenOptions::new().read(true).write(true).open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("opening {}", path.display())),
        };
        file.lock().with_context(|| format!("locking {}", path.display()))?;
        Ok(Self { number, file }.if_current())
    }

    /// The lock of a file that is no longer the one by this name says nothing.
    fn if_current(self) -> Option<Self> {
        let is_current = match (self.file.metadata(), self.number.file().metadata()) {
            (Ok(locked), Ok(named)) => (locked.dev(), locked.ino()) == (named.dev(), named.ino()),
            _ => false,
        };
        is_current.then_some(self)
    }

    /// Where the run keeps its images, and how many bytes they may come to take; whoever removes the run removes this folder.
    pub fn keeps(&mut self, folder: &Path, reserved: u64) -> anyhow::Result<()> {
        self.file.set_len(0)?;
        writeln!(self.file, "{}\n{}\n{reserved}", std::process::id(), folder.display()).context("noting the run's folder")
    }

    pub fn folder(&self) -> anyhow::Result<Option<PathBuf>> {
        let mut text = String::new();
        (&self.file).read_to_string(&mut text).context("reading the run's folder")?;
        Ok(text.lines().nth(1).map(PathBuf::from))
    }

    /// Nothing is left of the run: the number is as if it had never been used.
    pub fn forget(self) -> anyhow::Result<()> {
        std::fs::remove_file(self.number.file()).context("removing the run's lock")
    }
}
