//! A file system of a test's own, mounted for as long as the value lives.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};
use nix::mount::{MntFlags, MsFlags, mount, umount2};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Ext4,
    Xfs,
    /// With a subvolume within the scope.
    Btrfs,
    Tmpfs,
    /// The upper layer on ext4.
    Overlay,
    /// Of a folder of ext4.
    Bind,
}

/// `scope`, which an agent watches, and `out` beside it on the same file system, which it does not.
#[derive(Debug)]
pub struct Volume {
    /// In the order of mounting.
    mounted: Vec<PathBuf>,
    top: PathBuf,
    kind: Kind,
    _folder: tempfile::TempDir,
}

impl Volume {
    /// The outer error: the test's; the inner: why this machine has no such file system.
    pub fn mount(kind: Kind) -> anyhow::Result<Result<Self, String>> {
        let folder = tempfile::Builder::new().prefix("trueline-truth-").tempdir()?;
        let at = |name: &str| -> anyhow::Result<PathBuf> {
            let path = folder.path().canonicalize()?.join(name);
            std::fs::create_dir_all(&path)?;
            Ok(path)
        };
        let (top, mut mounted) = (at("top")?, Vec::new());
        let on_disk = |make: &[&str], path: &Path| -> anyhow::Result<Result<(), String>> {
            let image = folder.path().join("image");
            std::fs::File::create(&image)?.set_len(512 << 20)?;
            let Ok(made) = Command::new(make[0]).args(&make[1..]).arg(&image).output() else {
                return Ok(Err(format!("{} is not installed", make[0])));
            };
            if !made.status.success() {
                bail!("{make:?} failed: {}", String::from_utf8_lossy(&made.stderr));
            }
            let done = Command::new("mount").args(["-o", "loop"]).arg(&image).arg(path).output().context("running mount")?;
            Ok(if done.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&done.stderr).into_owned()) })
        };
        let ext4 = ["mkfs.ext4", "-q", "-F"];
        let done = match kind {
            Kind::Ext4 => on_disk(&ext4, &top)?,
            Kind::Xfs => on_disk(&["mkfs.xfs", "-q", "-f"], &top)?,
            Kind::Btrfs => on_disk(&["mkfs.btrfs", "-q", "-f"], &top)?,
            Kind::Tmpfs => mount(Some("tmpfs"), &top, Some("tmpfs"), MsFlags::empty(), Some("size=64m")).map_err(|error| error.to_string()),
            Kind::Overlay | Kind::Bind => {
                let disk = at("disk")?;
                match on_disk(&ext4, &disk)? {
                    Err(reason) => Err(reason),
                    Ok(()) => {
                        mounted.push(disk.clone());
                        for name in ["lower/scope/a", "lower/out", "upper", "work"] {
                            std::fs::create_dir_all(disk.join(name))?;
                        }
                        std::fs::write(disk.join("lower/scope/f0"), "of the lower layer\n")?;
                        std::fs::write(disk.join("lower/scope/a/f1"), "of the lower layer\n")?;
                        let disk = disk.display();
                        let layers = format!("lowerdir={disk}/lower,upperdir={disk}/upper,workdir={disk}/work");
                        let upper = PathBuf::from(format!("{disk}/upper"));
                        let done = if kind == Kind::Overlay {
                            mount(Some("overlay"), &top, Some("overlay"), MsFlags::empty(), Some(layers.as_str()))
                        } else {
                            mount(Some(&upper), &top, None::<&str>, MsFlags::MS_BIND, None::<&str>)
                        };
                        done.map_err(|error| error.to_string())
                    }
                }
            }
        };
        let mut volume = Self { mounted, top, kind, _folder: folder };
        if let Err(reason) = done {
            return Ok(Err(format!("no {kind:?}: {reason}")));
        }
        volume.mounted.push(volume.top.clone());
        std::fs::create_dir_all(volume.out())?;
        std::fs::create_dir_all(volume.scope())?;
        Ok(Ok(volume))
    }

    /// A folder of the file system's own kind: a subvolume where it has such.
    pub fn make_folder(&self, path: &Path) -> io::Result<()> {
        if self.kind != Kind::Btrfs {
            return std::fs::create_dir(path);
        }
        let made = Command::new("btrfs").args(["-q", "subvolume", "create"]).arg(path).output()?;
        if made.status.success() { Ok(()) } else { Err(io::Error::other(String::from_utf8_lossy(&made.stderr).into_owned())) }
    }

    pub fn scope(&self) -> PathBuf {
        self.top.join("scope")
    }

    pub fn out(&self) -> PathBuf {
        self.top.join("out")
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        for path in self.mounted.iter().rev() {
            // Lazily: an agent that a failing test left behind may still hold a file open.
            let _ = umount2(path, MntFlags::MNT_DETACH);
        }
    }
}
