//! The folder that a quickstart keeps everything in: made private, held by one process at a time.
//!
//! ```text
//! context.toml   whom `trueline` asks from here, and with what token
//! watch.toml     the paths given with --watch at the first run
//! collector/     database and CA
//! agent/         identity, spool and last readings
//! quickstart.log what collector and agent have to say, of the last run
//! lock           held while a quickstart runs; its presence says that the folder is ours
//! ```
//!
//! Invariants: mode 0700 and owned by this user, every file in it 0600; an existing folder that is not ours is never
//! touched; what is watched does not change from run to run, for the baseline was captured of it.

use std::fs::{DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use trueline_drift::document::parse_toml;
use trueline_drift::pattern::Pattern;
use trueline_drift::text::printable;
use trueline_drift::watch::{WatchPolicy, is_beneath};

/// Longest file of ours read back, in bytes.
const FILE_LIMIT: u64 = 1024 * 1024;

#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    #[error("cannot {operation} {path}: {source}")]
    Io { operation: &'static str, path: String, source: std::io::Error },
    #[error("{path} is not a folder of quickstart's: name a new one with --dir")]
    Foreign { path: String },
    #[error("{path} belongs to another user (uid {owner}): run as that user, or name another folder with --dir")]
    Stranger { path: String, owner: u32 },
    #[error("another quickstart (pid {pid}) runs in {path}: stop it first, or name another folder with --dir")]
    Busy { path: String, pid: String },
    #[error("--watch {path}: {fault}")]
    Watch { path: String, fault: String },
    #[error(
        "{folder} watches {kept} since its first run, and its baseline was captured of that: to watch {given}, name another folder with --dir"
    )]
    OtherWatch { folder: String, kept: String, given: String },
    #[error(transparent)]
    Document(#[from] trueline_drift::document::DocumentError),
}

#[derive(Debug)]
pub struct Folder {
    /// Absolute.
    pub path: PathBuf,
    /// As the user would write it.
    pub shown: String,
    _lock: File,
}

/// What the agent is to watch.
#[derive(Debug, Clone)]
pub struct WatchList {
    pub policy: WatchPolicy,
    /// The folder lies beneath a watched path and was left out.
    pub leaves_itself_out: bool,
    /// Given with --watch, now or at the first run.
    pub chosen: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    paths: Vec<String>,
}

impl Folder {
    pub fn open(path: &Path) -> Result<Self, FolderError> {
        let shown = shown(path);
        let fail = |operation| {
            let path = shown.clone();
            move |source| FolderError::Io { operation, path, source }
        };
        match DirBuilder::new().mode(0o700).create(path) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => claim(path, &shown)?,
            Err(error) => return Err(fail("make")(error)),
        }
        let lock_path = path.join("lock");
        let mut lock =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&lock_path).map_err(fail("lock"))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut pid = String::new();
                let _ = (&lock).take(16).read_to_string(&mut pid);
                return Err(FolderError::Busy { path: shown, pid: printable(pid.trim().as_bytes()).into_owned() });
            }
            Err(TryLockError::Error(error)) => return Err(fail("lock")(error)),
        }
        lock.set_len(0).and_then(|()| lock.rewind()).and_then(|()| writeln!(lock, "{}", std::process::id())).map_err(fail("lock"))?;
        let absolute = path.canonicalize().map_err(fail("find"))?;
        // Tokens and keys: nothing of it belongs into anybody's repository.
        write_private(&absolute.join(".gitignore"), "*\n").map_err(fail("write into"))?;
        Ok(Self { path: absolute, shown, _lock: lock })
    }

    pub fn context_path(&self) -> PathBuf {
        self.path.join("context.toml")
    }

    pub fn collector_path(&self) -> PathBuf {
        self.path.join("collector")
    }

    pub fn agent_path(&self) -> PathBuf {
        self.path.join("agent")
    }

    /// How to type a command that asks this folder's collector.
    pub fn command(&self, words: &str) -> String {
        let context = if self.is_default() { String::new() } else { format!(" --context {}/context.toml", self.shown) };
        format!("{}{context} {words}", program())
    }

    /// How to type the command that goes on from here.
    pub fn resume_command(&self) -> String {
        let dir = if self.is_default() { String::new() } else { format!(" --dir {}", self.shown) };
        format!("{} quickstart{dir}", program())
    }

    /// Where commands look by themselves.
    fn is_default(&self) -> bool {
        matches!(self.shown.trim_end_matches('/'), "./.trueline" | ".trueline")
    }

    /// The log of this run; that of the run before is gone.
    pub fn log_file(&self) -> Result<File, FolderError> {
        let path = self.path.join("quickstart.log");
        create_private(&path).map_err(|source| FolderError::Io { operation: "write", path: self::shown(&path), source })
    }

    /// The watch list of this folder: as given at its first run, else the default one.
    pub fn watch_list(&self, given: &[PathBuf]) -> Result<WatchList, FolderError> {
        let given = given.iter().map(|path| watched_path(path)).collect::<Result<Vec<_>, _>>()?;
        let path = self.path.join("watch.toml");
        let fail = |operation| {
            let path = self::shown(&path);
            move |source| FolderError::Io { operation, path, source }
        };
        let kept = match File::open(&path) {
            Ok(file) => {
                let mut text = String::new();
                file.take(FILE_LIMIT).read_to_string(&mut text).map_err(fail("read"))?;
                Some(parse_toml::<Kept>(&self::shown(&path), &text)?.paths)
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => return Err(fail("read")(error)),
        };
        let paths = match kept {
            Some(kept) if given.is_empty() || given == kept => kept,
            Some(kept) => {
                let list = |paths: &[String]| if paths.is_empty() { "the default list".to_owned() } else { paths.join(", ") };
                return Err(FolderError::OtherWatch { folder: self.shown.clone(), kept: list(&kept), given: list(&given) });
            }
            None => {
                // A JSON list of strings is a TOML one too.
                let list = serde_json::Value::from(given.clone()).to_string();
                write_private(&path, &format!("# What this quickstart watches; empty means the default list.\npaths = {list}\n"))
                    .map_err(fail("write"))?;
                given
            }
        };
        let chosen = !paths.is_empty();
        let mut policy = if chosen { WatchPolicy::only_paths(paths) } else { WatchPolicy::default() };
        let own = self::shown(&self.path);
        let leaves_itself_out = policy.paths.iter().any(|root| is_beneath(&own, root));
        if leaves_itself_out {
            policy.exclude.push(Pattern::new(&own));
        }
        Ok(WatchList { policy, leaves_itself_out, chosen })
    }
}

/// This program as it was called: `trueline`, or a path where it is not on the PATH.
fn program() -> String {
    std::env::args_os().next().map_or_else(|| "trueline".to_owned(), |program| shown(Path::new(&program)))
}

/// Takes an existing folder over, if it is empty or ours.
fn claim(path: &Path, shown: &str) -> Result<(), FolderError> {
    let fail = |operation| move |source| FolderError::Io { operation, path: shown.to_owned(), source };
    let metadata = std::fs::symlink_metadata(path).map_err(fail("look at"))?;
    if !metadata.is_dir() {
        return Err(FolderError::Foreign { path: shown.to_owned() });
    }
    let me = std::fs::metadata("/proc/self").map_err(fail("learn the owner of"))?.uid();
    if metadata.uid() != me {
        return Err(FolderError::Stranger { path: shown.to_owned(), owner: metadata.uid() });
    }
    let ours = path.join("lock").is_file();
    if !ours && std::fs::read_dir(path).map_err(fail("read"))?.next().is_some() {
        return Err(FolderError::Foreign { path: shown.to_owned() });
    }
    std::fs::set_permissions(path, Permissions::from_mode(0o700)).map_err(fail("protect"))
}

/// An empty file for this user alone, whatever the umask.
fn create_private(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)
}

fn write_private(path: &Path, text: &str) -> std::io::Result<()> {
    create_private(path)?.write_all(text.as_bytes())
}

fn watched_path(path: &Path) -> Result<String, FolderError> {
    let fault = |fault: &str| FolderError::Watch { path: shown(path), fault: fault.to_owned() };
    let absolute = path.canonicalize().map_err(|error| fault(&error.to_string()))?;
    let text = shown(&absolute);
    if text.contains('*') { Err(fault("a path with `*` in it cannot be watched by name; watch the folder above it")) } else { Ok(text) }
}

fn shown(path: &Path) -> String {
    use std::os::unix::ffi::OsStrExt;
    printable(path.as_os_str().as_bytes()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_is_not_ours_is_left_alone() {
        let home = tempfile::tempdir().unwrap();
        let other = home.path().join("photos");
        std::fs::create_dir(&other).unwrap();
        std::fs::write(other.join("cat.jpg"), "x").unwrap();
        std::fs::set_permissions(&other, Permissions::from_mode(0o755)).unwrap();
        assert!(matches!(Folder::open(&other), Err(FolderError::Foreign { .. })));
        assert_eq!(std::fs::metadata(&other).unwrap().mode() & 0o777, 0o755);
        let link = home.path().join("link");
        std::os::unix::fs::symlink("/tmp", &link).unwrap();
        assert!(matches!(Folder::open(&link), Err(FolderError::Foreign { .. })));
    }

    #[test]
    fn one_process_at_a_time_and_nobody_else_may_look() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("t");
        let folder = Folder::open(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o700);
        let error = Folder::open(&path).unwrap_err().to_string();
        assert!(error.contains(&format!("pid {}", std::process::id())), "{error}");
        drop(folder);
        Folder::open(&path).unwrap();
    }

    #[test]
    fn what_is_watched_stays_as_it_was_at_the_first_run_and_never_includes_the_folder_itself() {
        let home = tempfile::tempdir().unwrap();
        let watched = home.path().join("watched");
        std::fs::create_dir(&watched).unwrap();
        let folder = Folder::open(&watched.join("t")).unwrap();
        let first = folder.watch_list(std::slice::from_ref(&watched)).unwrap();
        assert!(first.leaves_itself_out && first.chosen);
        assert!(!first.policy.watches_path(&shown(&folder.path.join("agent/state.redb"))));
        assert_eq!(folder.watch_list(&[]).unwrap().policy, first.policy);
        assert!(matches!(folder.watch_list(&[home.path().to_owned()]), Err(FolderError::OtherWatch { .. })));
    }
}
