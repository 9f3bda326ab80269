//! What packages ship, by their managers' own manifests: whether a change of a file is a part of a package's.
//!
//! Invariants: a file is held only against manifests that came or changed since [`MARGIN_SECONDS`] before it did, so that the
//! cost follows what was installed and not what is there; contents are compared, never times alone; what a manifest does not tell
//! of (with dpkg: modes, owners, link targets) counts only where the package manager itself wrote it, or is as plain as can be.
//! A file that is larger than [`LARGEST`] is not vouched for.

mod dpkg;
mod lock;
mod rpm;
#[cfg(test)]
mod tests;

use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use md5::Md5;
use sha2::{Digest, Sha256};
use trueline_drift::{Fields, Time, Value};

use super::Root;
use crate::kernel::file::{EntryType, Pinned};

pub use lock::{holder, is_at_work};

/// Between a file and the manifest that tells of it: packages with slow scripts are done with both within this.
const MARGIN_SECONDS: i64 = 120;
/// The most that is read again to be compared with a manifest.
const LARGEST: u64 = 64 * 1024 * 1024;

/// Folders that are links into /usr where it is merged, and by whose name older packages ship.
const MERGED: &[&str] = &["bin", "sbin", "lib", "lib32", "lib64", "libx32"];

/// A file that changed, as it was found.
#[derive(Debug)]
pub struct Part<'a> {
    pub path: &'a [u8],
    /// Absent once it is gone.
    pub fields: Option<&'a Fields>,
    /// It changed after this.
    pub since: Time,
    /// The package manager itself wrote it.
    pub by_manager: bool,
}

/// A package as its manager names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Package {
    pub name: Vec<u8>,
    /// Where its name alone would not tell.
    pub architecture: Option<Vec<u8>>,
}

impl Part<'_> {
    fn asked_from(&self) -> i64 {
        self.since.micros().saturating_sub(MARGIN_SECONDS * 1_000_000)
    }

    fn text(&self, field: &str) -> Option<&str> {
        match self.fields?.value(field)? {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    fn is_file(&self) -> bool {
        self.text("type") == Some(EntryType::File.name())
    }

    /// Nothing about it beside its contents could matter: root's, no special bits, nobody else may write, no further rights.
    fn is_plain(&self) -> bool {
        let Some(fields) = self.fields else { return false };
        let is_root = ["uid", "gid"].iter().all(|field| fields.value(field) == Some(&Value::Integer(0)));
        let mode = self.text("mode").and_then(|mode| u32::from_str_radix(mode, 8).ok());
        is_root && mode.is_some_and(|mode| mode & 0o7022 == 0) && !self.has_rights()
    }

    /// Rights, flags or attributes beside mode and owner.
    fn has_rights(&self) -> bool {
        self.fields.is_some_and(|fields| fields.iter().any(|(name, _)| Self::is_right(name.as_str())))
    }

    /// Whether a field is one of these.
    pub fn is_right(name: &str) -> bool {
        matches!(name, "acl" | "default_acl" | "capabilities" | "flags") || name.starts_with("xattr")
    }

    /// The digests of the file as it lies there, if it is still the one that was found.
    fn digests(&self) -> io::Result<Option<Digests>> {
        let pinned = Pinned::open(self.path)?;
        if pinned.metadata.entry_type != EntryType::File || pinned.metadata.size > LARGEST {
            return Ok(None);
        }
        let mut file = pinned.contents()?.into_file().take(LARGEST + 1);
        let (mut md5, mut sha256, mut buffer) = (Md5::new(), Sha256::new(), vec![0; 64 * 1024]);
        loop {
            let read = match file.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            md5.update(&buffer[..read]);
            sha256.update(&buffer[..read]);
        }
        let digests = Digests { md5: hex::encode(md5.finalize()), sha256: hex::encode(sha256.finalize()) };
        Ok((self.text("sha256") == Some(&digests.sha256)).then_some(digests))
    }
}

/// In lower-case hexadecimal digits.
struct Digests {
    md5: String,
    sha256: String,
}

/// For each part, the package whose it is.
pub fn shippers(root: &Root, parts: &[Part<'_>]) -> Vec<Option<Package>> {
    let mut found = vec![None; parts.len()];
    for (manager, result) in [("dpkg", dpkg::shippers(root, parts, &mut found)), ("rpm", rpm::shippers(root, parts, &mut found))] {
        if let Err(error) = result {
            // They are told as any other change.
            tracing::warn!(manager, %error, "cannot read what packages ship; changes of their files are not folded");
        }
    }
    found
}

/// Whose files these are by the manifests as they are now. Reads all of them: for files that are about to leave them.
pub fn owners(root: &Root, paths: &[&[u8]]) -> io::Result<Vec<Option<Package>>> {
    let mut owners = dpkg::owners(root, paths)?;
    let left: Vec<usize> = (0..paths.len()).filter(|at| owners[*at].is_none()).collect();
    let asked: Vec<&[u8]> = left.iter().map(|at| paths[*at]).collect();
    for (at, owner) in left.into_iter().zip(rpm::owners(root, &asked)?) {
        owners[at] = owner;
    }
    Ok(owners)
}

/// Which of these packages has each path by dpkg's manifests as they are now: reads theirs alone.
pub fn listed_by(root: &Root, packages: &[Package], paths: &[&[u8]]) -> io::Result<Vec<Option<Package>>> {
    dpkg::listed_by(root, packages, paths)
}

/// Whether the manifest that tells of each path is in place, now that a package manager has written it.
pub fn are_in_place(root: &Root, paths: &[(&[u8], Time)]) -> Vec<bool> {
    dpkg::are_in_place(root, paths).unwrap_or_else(|_| vec![false; paths.len()])
}

/// `/usr/bin/x` as a package from before the merge ships it.
fn before_merge(root: &Root, path: &[u8]) -> Option<Vec<u8>> {
    let rest = path.strip_prefix(b"/usr/")?;
    let first = rest.split(|byte| *byte == b'/').next()?;
    let folder = MERGED.iter().find(|folder| folder.as_bytes() == first)?;
    let is_link = fs::symlink_metadata(root.path(folder)).is_ok_and(|metadata| metadata.is_symlink());
    is_link.then(|| [b"/", rest].concat())
}

/// ctime, in microseconds: a manifest keeps the times it had in the archive, and cannot keep this.
pub fn changed_at(path: &Path) -> io::Result<Option<i64>> {
    match fs::symlink_metadata(path) {
        Ok(metadata) => Ok(Some(metadata.ctime().saturating_mul(1_000_000).saturating_add(metadata.ctime_nsec() / 1000))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
