//! Landlock: threads that may write beneath the agent's own folders and nowhere else. Reading and executing stay free.
//!
//! Landlock also keeps a thread from looking at processes outside of it, and with that from reading which program
//! another process runs. So the sensors' threads, which name who did something and write nothing, stay outside, and so
//! does the thread that starts them, and the one that finds out who holds a socket; all others enter it before they do anything else. What a thread starts, thread
//! or program, is inside with it.

use std::path::Path;
use std::sync::Arc;

use landlock::{ABI, AccessFs, PathBeneath, PathFd, Ruleset, RulesetAttr, RulesetCreated, RulesetCreatedAttr, RulesetError, RulesetStatus};
use tracing::warn;

/// Where programs that are started have what they print thrown away.
const NOWHERE: &str = "/dev/null";

#[derive(Debug, thiserror::Error)]
pub enum ConfinementError {
    #[error("cannot open {path}: {source}")]
    Folder { path: String, source: landlock::PathFdError },
    #[error("landlock refuses: {0}")]
    Refused(#[from] RulesetError),
}

/// To be entered by each thread. Cloning is cheap.
#[derive(Debug, Clone, Default)]
pub struct Confinement(Option<Arc<RulesetCreated>>);

impl Confinement {
    /// To write beneath these folders alone, as far as this kernel can see to it.
    pub fn to(folders: &[&Path]) -> Result<Self, ConfinementError> {
        // By name, and not whatever a later kernel knows: ioctls on devices and sockets to services stay free.
        let writing = AccessFs::from_write(ABI::V3);
        let mut rules = Ruleset::default().handle_access(writing)?.create()?;
        for folder in folders {
            rules = rules.add_rule(PathBeneath::new(open(folder)?, writing))?;
        }
        rules = rules.add_rule(PathBeneath::new(open(Path::new(NOWHERE))?, AccessFs::WriteFile | AccessFs::Truncate))?;
        Ok(Self(Some(Arc::new(rules))))
    }

    /// Confines the calling thread and all that it starts, for good.
    pub fn enter(&self) {
        if let Err(error) = self.restrict() {
            warn!(%error, "a thread could not be confined to the agent's folders");
        }
    }

    /// What it amounts to on this kernel, for people. Tried on a thread of its own.
    pub fn describe(&self) -> String {
        let rules = self.clone();
        match std::thread::spawn(move || rules.restrict().map_err(|error| error.to_string())).join() {
            Ok(Ok(Some(RulesetStatus::FullyEnforced))) => "landlock: writes nowhere but beneath its own folders".to_owned(),
            Ok(Ok(Some(RulesetStatus::PartiallyEnforced))) => "landlock: as far as this kernel's older version of it goes".to_owned(),
            Ok(Ok(Some(RulesetStatus::NotEnforced))) => "none: this kernel has no landlock".to_owned(),
            Ok(Ok(None)) => "none".to_owned(),
            Ok(Err(error)) => format!("none: {error}"),
            Err(_) => "none: trying it failed".to_owned(),
        }
    }

    fn restrict(&self) -> Result<Option<RulesetStatus>, Box<dyn std::error::Error>> {
        let Some(rules) = &self.0 else { return Ok(None) };
        Ok(Some(rules.try_clone()?.restrict_self()?.ruleset))
    }
}

fn open(path: &Path) -> Result<PathFd, ConfinementError> {
    PathFd::new(path).map_err(|source| ConfinementError::Folder { path: path.display().to_string(), source })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::ErrorKind;
    use std::process::{Command, Stdio};

    use super::*;

    /// Whether the kernel enforces it; said by name where not.
    fn works(confinement: &Confinement) -> bool {
        let description = confinement.describe();
        let works = description.starts_with("landlock");
        assert!(works || std::env::var_os("TRUELINE_TEST_REQUIRE").is_none(), "{description}");
        if !works {
            eprintln!("skipped: {description}");
        }
        works
    }

    #[test]
    fn a_confined_thread_and_its_children_write_only_where_they_may() {
        let (own, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (inside, outside) = (own.path().to_owned(), other.path().to_owned());
        fs::write(outside.join("there"), "x").unwrap();
        let confinement = Confinement::to(&[own.path()]).unwrap();
        if !works(&confinement) {
            return;
        }
        std::thread::spawn(move || {
            confinement.enter();
            fs::create_dir(inside.join("folder")).unwrap();
            fs::write(inside.join("folder/file"), "x").unwrap();
            fs::rename(inside.join("folder/file"), inside.join("file")).unwrap();
            for refused in [
                fs::write(outside.join("new"), "x"),
                fs::write(outside.join("there"), "y"),
                fs::remove_file(outside.join("there")),
                fs::rename(outside.join("there"), inside.join("taken")),
                fs::create_dir(outside.join("folder")),
            ] {
                let kind = refused.unwrap_err().kind();
                assert!(matches!(kind, ErrorKind::PermissionDenied | ErrorKind::CrossesDevices), "{kind}");
            }
            assert_eq!(fs::read(outside.join("there")).unwrap(), b"x");
            assert!(fs::read("/proc/sys/kernel/ostype").is_ok() && fs::read("/proc/1/stat").is_ok());
            let shell = |script: &str| {
                let mut command = Command::new("/bin/sh");
                command.args(["-c", script]).current_dir(&outside).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
                command.status().unwrap().success()
            };
            assert!(!shell("echo x > by_a_child"));
            assert!(shell("cat there > /dev/null"));
        })
        .join()
        .unwrap();
        fs::write(other.path().join("by another thread"), "x").unwrap();
        assert!(!other.path().join("by_a_child").exists());
    }

    #[test]
    fn without_rules_nothing_changes() {
        Confinement::default().enter();
        assert_eq!(Confinement::default().describe(), "none");
        assert!(Confinement::to(&[Path::new("/not/there")]).is_err());
    }
}
