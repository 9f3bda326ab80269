//! Files that are read for what they say and not as items of their own: one, or all of a folder.
//!
//! Invariants: nothing but a regular file is opened, none is held beyond its limit, and of a folder no more than
//! [`FILES_LIMIT`] are read and no more than [`TOGETHER_LIMIT`] bytes held. Where a user may put files, no link is followed.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;

use trueline_drift::text;

use super::{Root, refusal};
use crate::kernel::file::{EntryType, Metadata, Pinned, entries};

pub const FILES_LIMIT: usize = 10_000;

/// Bytes of all files of a folder together: users may leave many large ones, as for at(1).
const TOGETHER_LIMIT: u64 = 16 * 1024 * 1024;

/// Whether links on the way and at the end are followed: only where every folder belongs to root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Links {
    Followed,
    Refused,
}

/// A file of a folder.
#[derive(Debug)]
pub struct Entry {
    /// Printable, as the path.
    pub name: String,
    pub path: String,
    pub metadata: Metadata,
    /// Or why it was not read.
    pub text: Result<Vec<u8>, String>,
}

/// What a package manager or an editor leaves beside a file, which programs that read a folder pass over.
pub fn is_leftover(name: &str) -> bool {
    let suffixes =
        ["~", ".bak", ".swp", ".rpmsave", ".rpmorig", ".rpmnew", ".dpkg-old", ".dpkg-dist", ".dpkg-new", ".dpkg-tmp", ".cfsaved"];
    name.starts_with('.') || suffixes.iter().any(|suffix| name.ends_with(suffix))
}

/// The files of a folder, sorted by name as bytes, without leftovers, folders and links to nothing. None where there is no such folder.
pub fn files(root: &Root, folder: &str, links: Links, limit: u64) -> io::Result<Vec<Entry>> {
    let top = match pinned(root, folder.as_bytes(), links) {
        Ok(Some(top)) if top.metadata.entry_type == EntryType::Folder => top,
        Ok(_) => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let contents = top.contents()?;
    let mut names = Vec::new();
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let packed = contents.list(&mut buffer)?;
        if packed.is_empty() {
            break;
        }
        names.extend(entries(packed).map(|(name, _)| name.to_bytes().to_vec()));
        if names.len() > FILES_LIMIT {
            return Err(io::Error::other(format!("it holds more than {FILES_LIMIT} files")));
        }
    }
    names.sort_unstable();
    let mut found = Vec::new();
    let mut room = TOGETHER_LIMIT;
    for name in names {
        let shown = text::printable(&name).into_owned();
        let path = [folder.as_bytes(), b"/", &name].concat();
        if is_leftover(&shown) {
            continue;
        }
        let Some(pinned) = pinned(root, &path, links)? else { continue };
        if pinned.metadata.entry_type != EntryType::Folder {
            let path = text::printable(&path).into_owned();
            let text = match contents_of(&pinned, limit.min(room)) {
                Ok(text) => Ok(text),
                Err(_) if room < limit && pinned.metadata.size > room => Err("with it the folder holds more than is read".to_owned()),
                Err(error) => Err(refusal::reason(&error)),
            };
            room -= text.as_ref().map_or(0, |text| text.len() as u64);
            found.push(Entry { name: shown, path, metadata: pinned.metadata, text });
        }
    }
    Ok(found)
}

/// A file in full; `None` where there is none.
pub fn read(root: &Root, path: &[u8], links: Links, limit: u64) -> io::Result<Option<Vec<u8>>> {
    pinned(root, path, links)?.map(|pinned| contents_of(&pinned, limit)).transpose()
}

fn pinned(root: &Root, path: &[u8], links: Links) -> io::Result<Option<Pinned>> {
    let relative = path.strip_prefix(b"/").unwrap_or(path);
    let place = root.path("/").join(OsStr::from_bytes(relative));
    let pinned = match links {
        Links::Followed => Pinned::follow(&place),
        Links::Refused => Pinned::open(place.as_os_str().as_bytes()),
    };
    match pinned {
        Ok(pinned) => Ok(Some(pinned)),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(error),
    }
}

fn contents_of(pinned: &Pinned, limit: u64) -> io::Result<Vec<u8>> {
    if pinned.metadata.entry_type != EntryType::File {
        return Err(io::Error::other(format!("it is a {}, not a regular file", pinned.metadata.entry_type.name())));
    }
    let mut bytes = Vec::with_capacity(pinned.metadata.size.min(limit) as usize);
    io::Read::read_to_end(&mut io::Read::take(pinned.contents()?.into_file(), limit + 1), &mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(io::Error::other(format!("it is larger than {limit} bytes")));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_refused_where_a_user_may_put_one_and_leftovers_are_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("spool");
        std::fs::create_dir(&place).unwrap();
        std::fs::write(place.join("alice"), "a").unwrap();
        std::fs::write(place.join("alice.dpkg-old"), "b").unwrap();
        std::fs::write(place.join("huge"), [b'x'; 20]).unwrap();
        std::os::unix::fs::symlink("/etc/shadow", place.join("mallory")).unwrap();
        std::fs::create_dir(place.join("within")).unwrap();
        let found = files(&Root::at(folder.path()), "/spool", Links::Refused, 10).unwrap();
        let shown: Vec<_> = found.iter().map(|entry| (entry.name.as_str(), entry.text.is_ok())).collect();
        assert_eq!(shown, [("alice", true), ("huge", false), ("mallory", false)]);
        assert!(files(&Root::at(folder.path()), "/absent", Links::Followed, 10).unwrap().is_empty());
    }

    #[test]
    fn many_large_files_are_not_held_together() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("spool");
        std::fs::create_dir(&place).unwrap();
        let large = TOGETHER_LIMIT / 4;
        for name in ["a", "b", "c", "d", "e"] {
            std::fs::write(place.join(name), vec![b'x'; large as usize]).unwrap();
        }
        std::fs::write(place.join("f"), "").unwrap();
        let found = files(&Root::at(folder.path()), "/spool", Links::Refused, large).unwrap();
        let read: String = found.iter().filter(|entry| entry.text.is_ok()).map(|entry| entry.name.as_str()).collect();
        assert_eq!(read, "abcdf");
        assert!(found.iter().any(|entry| entry.text.as_ref().is_err_and(|reason| reason.contains("more than is read"))));
    }
}
