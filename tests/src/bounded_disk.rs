//! A file system of a few MiB that a test may fill: a tmpfs, mounted for as long as the value lives.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

#[derive(Debug)]
pub struct BoundedDisk {
    folder: tempfile::TempDir,
}

impl BoundedDisk {
    /// Needs CAP_SYS_ADMIN: see [`crate::needs::mount`].
    pub fn mount(mebibytes: u32) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir().context("making a mount point")?;
        let options = format!("size={mebibytes}m,mode=0700");
        mount(Some("tmpfs"), folder.path(), Some("tmpfs"), MsFlags::MS_NOSUID | MsFlags::MS_NODEV, Some(options.as_str()))
            .with_context(|| format!("mounting a tmpfs of {mebibytes} MiB on {}", folder.path().display()))?;
        Ok(Self { folder })
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Takes all the space there is, and leaves none for others until the answer is dropped.
    pub fn fill(&self) -> anyhow::Result<Filling> {
        let path = self.path().join("filling");
        let mut filling = Filling { path, file: OpenOptions::new().create(true).append(true).open(self.path().join("filling"))? };
        filling.top_up()?;
        Ok(filling)
    }
}

impl Drop for BoundedDisk {
    fn drop(&mut self) {
        // Lazily: a daemon that a failing test left behind may still hold a file open.
        let _ = umount2(self.folder.path(), MntFlags::MNT_DETACH);
    }
}

/// The file that takes the space.
#[derive(Debug)]
pub struct Filling {
    path: PathBuf,
    file: File,
}

impl Filling {
    /// Takes what has become free since.
    pub fn top_up(&mut self) -> anyhow::Result<()> {
        let mut block = &[0_u8; 4096][..];
        loop {
            match self.file.write(block) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::StorageFull && block.len() > 1 => block = &block[..block.len() / 2],
                Err(error) if error.kind() == ErrorKind::StorageFull => return Ok(()),
                Err(error) => return Err(error).with_context(|| format!("filling {}", self.path.display())),
            }
        }
    }
}

impl Drop for Filling {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}
