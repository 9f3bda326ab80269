//! A small file system of each kind, made for the test and taken away again.

use std::path::{Path, PathBuf};
use std::process::Command;

use nix::mount::{MntFlags, umount2};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Ext4,
    Xfs,
    BtrfsSubvolume,
    Tmpfs,
    Overlay,
    Bind,
}

pub struct Disk {
    /// The last mounted last.
    mounted: Vec<PathBuf>,
    path: PathBuf,
    _folder: tempfile::TempDir,
}

impl Disk {
    /// `None`, with the reason printed, where this machine cannot make one.
    pub fn make(kind: Kind) -> Option<Self> {
        if !nix::unistd::geteuid().is_root() {
            return skipped(kind, "needs root");
        }
        let program = match kind {
            Kind::Ext4 => Some("mkfs.ext4"),
            Kind::Xfs => Some("mkfs.xfs"),
            Kind::BtrfsSubvolume => Some("mkfs.btrfs"),
            Kind::Tmpfs | Kind::Overlay | Kind::Bind => None,
        };
        if let Some(program) = program
            && Command::new(program).arg("-V").output().is_err()
        {
            return skipped(kind, &format!("needs {program}: apt-get install e2fsprogs xfsprogs btrfs-progs"));
        }
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().canonicalize().unwrap();
        let make = |name: &str| {
            let path = place.join(name);
            std::fs::create_dir(&path).unwrap();
            path
        };
        let (top, image) = (make("top"), place.join("image"));
        let mut disk = Self { mounted: Vec::new(), path: top.clone(), _folder: folder };
        match kind {
            Kind::Ext4 | Kind::Xfs | Kind::BtrfsSubvolume => {
                std::fs::File::create(&image).unwrap().set_len(512 << 20).unwrap();
                run(Command::new(program.unwrap()).arg("-q").arg(&image));
                disk.mount(Command::new("mount").args(["-o", "loop"]).arg(&image), &top);
            }
            Kind::Tmpfs => disk.mount(Command::new("mount").args(["-t", "tmpfs", "none"]), &top),
            Kind::Overlay => {
                let beneath = make("beneath");
                disk.mount(Command::new("mount").args(["-t", "tmpfs", "none"]), &beneath);
                for name in ["lower", "upper", "work"] {
                    std::fs::create_dir(beneath.join(name)).unwrap();
                }
                let part = |name: &str| beneath.join(name).display().to_string();
                let options = format!("lowerdir={},upperdir={},workdir={}", part("lower"), part("upper"), part("work"));
                disk.mount(Command::new("mount").args(["-t", "overlay", "-o", &options, "none"]), &top);
            }
            Kind::Bind => {
                let beneath = make("beneath");
                disk.mount(Command::new("mount").args(["-t", "tmpfs", "none"]), &beneath);
                disk.mount(Command::new("mount").arg("--bind").arg(&beneath), &top);
            }
        }
        if kind == Kind::BtrfsSubvolume {
            disk.path = top.join("volume");
            run(Command::new("btrfs").args(["-q", "subvolume", "create"]).arg(&disk.path));
        }
        Some(disk)
    }

    fn mount(&mut self, command: &mut Command, at: &Path) {
        run(command.arg(at));
        self.mounted.push(at.to_owned());
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        for path in self.mounted.iter().rev() {
            // Lazily: an agent that is just being killed may still hold it.
            let _ = umount2(path, MntFlags::MNT_DETACH);
        }
    }
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn skipped(kind: Kind, reason: &str) -> Option<Disk> {
    assert!(std::env::var_os("TRUELINE_TEST_REQUIRE").is_none(), "{kind:?} cannot be made and must: {reason}");
    eprintln!("skipped: {kind:?}: {reason}");
    None
}
