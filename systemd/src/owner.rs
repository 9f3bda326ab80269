//! Whose files these are: a service's folder belongs to the user that the service runs as, also when root
//! runs one of its commands by hand.
//!
//! Invariant: what becomes another user becomes it for good, with that user's folder's group and no other.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::unistd::{Gid, Uid, geteuid, setgid, setgroups, setuid};

#[derive(Debug, thiserror::Error)]
pub enum OwnerError {
    #[error("cannot look at {}: {source}", path.display())]
    Look { path: PathBuf, source: io::Error },
    #[error("{} belongs to user {owner}, as whom this must run, and {step} failed: {source}", path.display())]
    Become { path: PathBuf, owner: Uid, step: &'static str, source: nix::Error },
}

/// The user that the folder belongs to where that is another than ours; `None` also where it is not there yet.
pub fn other_owner(folder: &Path) -> Result<Option<Uid>, OwnerError> {
    Ok(look(folder)?.map(|(owner, _)| owner).filter(|owner| *owner != geteuid()))
}

/// Where this is root and the folder belongs to another user: becomes that user, who is returned. To be called
/// before anything is made in the folder; root's rights are gone afterwards.
pub fn become_owner(folder: &Path) -> Result<Option<Uid>, OwnerError> {
    let Some((owner, group)) = look(folder)?.filter(|(owner, _)| geteuid().is_root() && !owner.is_root()) else { return Ok(None) };
    let failed = |step| move |source| OwnerError::Become { path: folder.to_owned(), owner, step, source };
    // In this order: the groups can only be set while root.
    setgroups(&[group]).map_err(failed("setting its groups"))?;
    setgid(group).map_err(failed("setting its group"))?;
    setuid(owner).map_err(failed("setting the user"))?;
    Ok(Some(owner))
}

fn look(folder: &Path) -> Result<Option<(Uid, Gid)>, OwnerError> {
    match std::fs::metadata(folder) {
        Ok(metadata) => Ok(Some((Uid::from_raw(metadata.uid()), Gid::from_raw(metadata.gid())))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(OwnerError::Look { path: folder.to_owned(), source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_of_ones_own_or_none_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let before = geteuid();
        assert_eq!(become_owner(folder.path()).unwrap(), None);
        assert_eq!(become_owner(&folder.path().join("not/there")).unwrap(), None);
        assert_eq!(other_owner(folder.path()).unwrap(), None);
        assert_eq!(geteuid(), before);
    }

    #[test]
    fn what_cannot_be_looked_at_is_an_error() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = become_owner(&file.path().join("beneath a file")).unwrap_err();
        assert!(error.to_string().starts_with("cannot look at "), "{error}");
    }
}
