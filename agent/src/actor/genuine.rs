//! Whether what a process runs is the host's own program, and not one that was made to look like it.
//!
//! A program is genuine where the very file that the kernel executes is the one that the host has at that path, belongs to root,
//! and lies where only root can have put it: root alone may write to it and to every folder above. A name is never enough: in a
//! mount namespace of one's own anything can lie at /usr/bin/apt.
//!
//! Invariants: nothing is opened for reading, no link is followed, and file systems that another machine or a process answers for
//! are not entered. Once found genuine a file stays so, also after an upgrade has taken its place. What was doubted is looked at
//! again a moment later.

use std::collections::HashMap;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, Instant};

use trueline_drift::text;
use trueline_drift::transaction::is_script;

use super::image::{FileIdentity, ProcessImage};
use crate::collect::Stamp;
use crate::collect::file::is_plain;
use crate::kernel::file::{EntryType, Metadata, Pinned};
use crate::sensor::mounts::{Mount, parse_mounts};

/// Programs remembered.
const REMEMBERED: usize = 2048;
const DOUBTED: usize = 256;
/// How long a program that was not found genuine is not looked at again: many processes may run it at once.
const REST: Duration = Duration::from_secs(1);
const DEPTH: usize = 32;

/// Why a program is not taken for the host's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doubt {
    /// Which file was executed is not known.
    Untold,
    /// It lies on a file system that another machine or a process answers for.
    Remote,
    /// At its path there is nothing now, or not a file.
    Gone,
    /// At its path there is another file now: it was replaced, or the process sees other files than the host.
    Another,
    /// Others than root can write to it or to a folder above.
    Unprotected,
}

impl Doubt {
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Untold => "which file was executed is not known",
            Self::Remote => "it lies on another machine's file system, or on that of a process",
            Self::Gone => "it is no longer where it was executed",
            Self::Another => "another file is at its path now",
            Self::Unprotected => "others than root can write to it or above it",
        }
    }
}

/// The file of a running program, found again at its path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    pub path: Vec<u8>,
    pub stamp: Stamp,
}

/// What became of looking for a program's file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Where the very file was found, be it genuine or not.
    pub found: Option<Found>,
    pub doubt: Option<Doubt>,
}

impl Answer {
    pub fn is_genuine(&self) -> bool {
        self.doubt.is_none()
    }

    const fn doubted(doubt: Doubt) -> Self {
        Self { found: None, doubt: Some(doubt) }
    }
}

/// One per thread that asks.
#[derive(Debug, Default)]
pub struct Programs {
    genuine: HashMap<(String, FileIdentity), Found>,
    doubted: HashMap<(String, FileIdentity), (Instant, Answer)>,
    /// Of the few that lead runs: whether the script is such that only root can have put it there, and until when that counts.
    scripts: HashMap<String, (Instant, bool)>,
}

impl Programs {
    pub fn judge(&mut self, image: &ProcessImage) -> Answer {
        self.judge_at(image, Instant::now())
    }

    fn judge_at(&mut self, image: &ProcessImage, now: Instant) -> Answer {
        let Some(file) = image.file else { return Answer::doubted(Doubt::Untold) };
        let key = (image.exe.clone(), file);
        if let Some(found) = self.genuine.get(&key) {
            return Answer { found: Some(found.clone()), doubt: None };
        }
        if let Some((until, answer)) = self.doubted.get(&key)
            && now < *until
        {
            return answer.clone();
        }
        let answer = look(&image.exe, Some(file));
        if answer.doubt.is_some() {
            if self.doubted.len() >= DOUBTED {
                self.doubted.clear();
            }
            self.doubted.insert(key.clone(), (now + REST, answer.clone()));
        }
        if let Answer { found: Some(found), doubt: None } = &answer {
            if self.genuine.len() >= REMEMBERED {
                self.genuine.clear();
            }
            self.genuine.insert(key, found.clone());
        }
        answer
    }

    /// Whether this is a script that leads runs, and what lies there is such that only root can have put it there: of scripts the
    /// kernel tells the path alone. No other script is looked for.
    pub fn is_genuine_script(&mut self, path: &str) -> bool {
        self.is_genuine_script_at(path, Instant::now())
    }

    fn is_genuine_script_at(&mut self, path: &str, now: Instant) -> bool {
        if !is_script(path) {
            return false;
        }
        if let Some((until, is_genuine)) = self.scripts.get(path)
            && now < *until
        {
            return *is_genuine;
        }
        let is_genuine = look(path, None).is_genuine();
        if self.scripts.len() >= DOUBTED {
            self.scripts.clear();
        }
        self.scripts.insert(path.to_owned(), (now + REST, is_genuine));
        is_genuine
    }
}

fn look(exe: &str, file: Option<FileIdentity>) -> Answer {
    let mounts = std::fs::read("/proc/self/mountinfo").map(|table| parse_mounts(&table)).unwrap_or_default();
    look_among(exe, file, &mounts, 0)
}

/// `owner` is whom files must belong to: root.
fn look_among(exe: &str, file: Option<FileIdentity>, mounts: &[Mount], owner: u32) -> Answer {
    // The kernel's own words about a file without a name, or of which it knew only the end, are no path.
    let Some(path) = path_of(exe) else { return Answer::doubted(Doubt::Gone) };
    let Some(mount) = mount_of(&path, mounts) else { return Answer::doubted(Doubt::Remote) };
    if is_remote(&mount.kind) {
        return Answer::doubted(Doubt::Remote);
    }
    let Ok(pinned) = Pinned::open(&path) else { return Answer::doubted(Doubt::Gone) };
    let metadata = pinned.metadata;
    if metadata.entry_type != EntryType::File {
        return Answer::doubted(Doubt::Gone);
    }
    let is_it = |file: FileIdentity| {
        let is_same_device = file.device == metadata.device || file.device == mount.device;
        let is_unchanged = file.changed.is_none_or(|changed| changed == since_epoch(metadata.changed_ns));
        file.inode == metadata.inode && is_same_device && is_unchanged
    };
    if !file.is_none_or(is_it) {
        return Answer::doubted(Doubt::Another);
    }
    let is_protected = is_only_of(&metadata, owner)
        && folders_above(&path).all(|folder| {
            Pinned::open(folder).is_ok_and(|folder| folder.metadata.entry_type == EntryType::Folder && is_only_of(&folder.metadata, owner))
        });
    let found = Found { stamp: Stamp::of(&metadata), path };
    Answer { found: Some(found), doubt: (!is_protected).then_some(Doubt::Unprotected) }
}

/// The bytes of a path that was made printable.
fn path_of(exe: &str) -> Option<Vec<u8>> {
    let path = text::original(exe).into_owned();
    (is_plain(&path) && path.iter().filter(|byte| **byte == b'/').count() <= DEPTH).then_some(path)
}

/// Nobody but its owner can write to it. What an access list grants shows in the group's bits: they are its upper bound.
fn is_only_of(metadata: &Metadata, owner: u32) -> bool {
    metadata.uid == owner && metadata.mode & 0o022 == 0
}

/// `/`, `/usr`, `/usr/bin` for `/usr/bin/apt`.
fn folders_above(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    let slashes = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
    slashes.map(|at| if at == 0 { &path[..1] } else { &path[..at] })
}

fn mount_of<'a>(path: &[u8], mounts: &'a [Mount]) -> Option<&'a Mount> {
    let path = Path::new(std::ffi::OsStr::from_bytes(path));
    // Of mounts on one point the last lies on top.
    path.ancestors().find_map(|folder| mounts.iter().rev().find(|mount| mount.point == folder))
}

/// File systems whose files may keep a reader waiting, or be whatever an ordinary user says.
fn is_remote(kind: &str) -> bool {
    const KINDS: [&str; 17] = [
        "nfs",
        "nfs4",
        "cifs",
        "smb3",
        "smbfs",
        "9p",
        "afs",
        "ceph",
        "lustre",
        "gfs2",
        "ocfs2",
        "orangefs",
        "coda",
        "gpfs",
        "vboxsf",
        "autofs",
        "glusterfs",
    ];
    KINDS.contains(&kind) || kind == "fuse" || kind.starts_with("fuse.") || kind == "fuseblk"
}

fn since_epoch(nanos: i64) -> Duration {
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    use std::path::PathBuf;

    use super::*;

    fn identity(path: &Path) -> FileIdentity {
        let metadata = std::fs::symlink_metadata(path).unwrap();
        let changed = Duration::new(metadata.ctime() as u64, metadata.ctime_nsec() as u32);
        FileIdentity { device: metadata.dev(), inode: metadata.ino(), changed: Some(changed) }
    }

    fn image(path: &Path, file: FileIdentity) -> ProcessImage {
        ProcessImage { pid: 1, started_at: None, exe: path.to_str().unwrap().to_owned(), file: Some(file), uid: None, is_apart: false }
    }

    fn judged(path: &Path) -> Answer {
        Programs::default().judge(&image(path, identity(path)))
    }

    fn shell() -> PathBuf {
        Path::new("/bin/sh").canonicalize().unwrap()
    }

    #[test]
    fn the_hosts_own_shell_is_genuine_and_any_other_file_under_its_name_is_not() {
        let own = identity(&shell());
        assert!(judged(&shell()).is_genuine(), "{:?}", judged(&shell()));
        for file in [
            FileIdentity { inode: own.inode + 1, ..own },
            FileIdentity { device: own.device + 1, ..own },
            FileIdentity { changed: own.changed.map(|changed| changed + Duration::from_nanos(1)), ..own },
        ] {
            let answer = Programs::default().judge(&image(&shell(), file));
            assert_eq!((answer.doubt, answer.found), (Some(Doubt::Another), None), "{file:?}");
        }
        let untold = ProcessImage { file: None, ..image(&shell(), own) };
        assert_eq!(Programs::default().judge(&untold).doubt, Some(Doubt::Untold));
    }

    #[test]
    fn what_others_can_write_is_not_the_hosts_own() {
        let folder = tempfile::tempdir().unwrap();
        let copy = folder.path().canonicalize().unwrap().join("sudo");
        std::fs::copy(shell(), &copy).unwrap();
        // /tmp is everybody's.
        let answer = judged(&copy);
        assert_eq!(answer.doubt, Some(Doubt::Unprotected));
        assert!(answer.found.is_some(), "its digest can be taken all the same");
        std::fs::set_permissions(&copy, PermissionsExt::from_mode(0o775)).unwrap();
        assert_eq!(judged(&copy).doubt, Some(Doubt::Unprotected));
        let link = copy.with_file_name("link");
        std::os::unix::fs::symlink(shell(), &link).unwrap();
        assert_eq!(judged(&link).doubt, Some(Doubt::Gone));
    }

    #[test]
    fn what_was_genuine_stays_so_when_an_upgrade_takes_its_place() {
        let mut programs = Programs::default();
        let image = image(&shell(), identity(&shell()));
        assert!(programs.judge(&image).is_genuine());
        // As after the file was replaced: the memory alone answers.
        let moved = FileIdentity { inode: 0, ..image.file.unwrap() };
        let found = programs.genuine.remove(&(image.exe.clone(), image.file.unwrap())).unwrap();
        programs.genuine.insert((image.exe.clone(), moved), found);
        assert!(programs.judge(&ProcessImage { file: Some(moved), ..image }).is_genuine());
    }

    #[test]
    fn files_of_other_machines_and_of_users_are_not_touched() {
        let mount = |point: &str, kind: &str| Mount { id: 1, point: PathBuf::from(point), device: 1, whole: true, kind: kind.to_owned() };
        let mounts = [mount("/", "ext4"), mount("/bin", "nfs4"), mount("/opt", "ext4"), mount("/opt", "fuse.sshfs")];
        let file = FileIdentity { device: 1, inode: 1, changed: None };
        for path in ["/bin/sh", "/opt/tool"] {
            assert_eq!(look_among(path, Some(file), &mounts, 0).doubt, Some(Doubt::Remote), "{path}");
        }
        for path in ["memfd:x", "…/bin/sh", "/usr/../bin/sh", "", "/a/../b"] {
            assert_eq!(look_among(path, Some(file), &mounts, 0).doubt, Some(Doubt::Gone), "{path}");
        }
    }

    #[test]
    fn what_was_doubted_is_looked_at_again_a_moment_later() {
        let (mut programs, own) = (Programs::default(), identity(&shell()));
        let other = image(&shell(), FileIdentity { inode: own.inode + 1, ..own });
        let now = Instant::now();
        assert!(!programs.judge_at(&other, now).is_genuine());
        // As if it had become genuine meanwhile.
        let key = (other.exe.clone(), other.file.unwrap());
        programs.doubted.get_mut(&key).unwrap().1 = Answer { found: None, doubt: None };
        assert!(programs.judge_at(&other, now).is_genuine(), "the memory answers");
        assert!(!programs.judge_at(&other, now + REST).is_genuine(), "the file does");
    }

    #[test]
    fn scripts_that_lead_no_run_are_not_looked_for_and_the_others_once_in_a_while() {
        let (mut programs, now, script) = (Programs::default(), Instant::now(), "/usr/bin/cloud-init");
        assert!(look("/etc/passwd", None).is_genuine() && !programs.is_genuine_script_at("/etc/passwd", now));
        assert!(programs.scripts.is_empty());
        let told = programs.is_genuine_script_at(script, now);
        assert_eq!(told, look(script, None).is_genuine());
        // As if it had been replaced meanwhile.
        programs.scripts.get_mut(script).unwrap().1 = !told;
        assert_eq!(programs.is_genuine_script_at(script, now), !told, "the memory answers");
        assert_eq!(programs.is_genuine_script_at(script, now + REST), told, "the file does");
    }

    #[test]
    fn all_folders_above_count() {
        let above: Vec<&[u8]> = folders_above(b"/usr/bin/apt").collect();
        assert_eq!(above, [&b"/"[..], b"/usr", b"/usr/bin"]);
    }
}
