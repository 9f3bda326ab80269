//! What a folder of the host holds, for kinds that are spread over several files.
//!
//! Invariants: never more names than the limit, which is an error, not a part of the folder: the rest would be told as
//! removed. A name is one component and leads nowhere else.

use std::io;
use std::path::Path;

use trueline_drift::text;

use super::Root;
use crate::kernel::file::{EntryType, Pinned, entries};

/// Names within a folder with their types where the file system tells them, sorted; none where there is no such folder.
pub fn names(root: &Root, folder: &str, limit: usize) -> io::Result<Vec<(Vec<u8>, Option<EntryType>)>> {
    names_of(&root.path(folder), limit)
}

fn names_of(folder: &Path, limit: usize) -> io::Result<Vec<(Vec<u8>, Option<EntryType>)>> {
    let pinned = match Pinned::follow(folder) {
        Ok(pinned) if pinned.metadata.entry_type == EntryType::Folder => pinned,
        Ok(_) => return Ok(Vec::new()),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let contents = pinned.contents()?;
    let mut buffer = vec![0; 16 * 1024];
    let mut names = Vec::new();
    loop {
        let packed = contents.list(&mut buffer)?;
        if packed.is_empty() {
            names.sort_unstable_by(|a: &(Vec<u8>, _), b| a.0.cmp(&b.0));
            return Ok(names);
        }
        for (name, entry_type) in entries(packed) {
            if names.len() >= limit {
                return Err(io::Error::other(format!("it holds more than {limit} entries")));
            }
            names.push((name.to_bytes().to_vec(), entry_type));
        }
    }
}

/// The path of an entry, for [`Root::read`]. `None` for a name that is no text: none of ours is.
pub fn beneath(folder: &str, name: &[u8]) -> Option<String> {
    std::str::from_utf8(name).ok().filter(|name| !name.contains('/') && *name != "..").map(|name| format!("{folder}/{name}"))
}

/// A small file of /proc or /sys in its printable form, without the blanks around it; `None` where there is none or it is empty.
pub fn word(root: &Root, path: &str) -> io::Result<Option<String>> {
    const LIMIT: u64 = 64 * 1024;
    let Some(bytes) = root.read(path, LIMIT)? else { return Ok(None) };
    let word = text::printable(bytes.trim_ascii()).into_owned();
    Ok(Some(word).filter(|word| !word.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_of_too_many_entries_is_an_error_and_an_absent_one_is_empty() {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::at(folder.path());
        assert!(names(&root, "/etc/none", 1).unwrap().is_empty());
        std::fs::write(folder.path().join("b"), "").unwrap();
        std::fs::write(folder.path().join("a"), " x\n\n").unwrap();
        let listed: Vec<_> = names(&root, "/", 2).unwrap().into_iter().map(|(name, _)| name).collect();
        assert_eq!(listed, [b"a", b"b"]);
        assert!(names(&root, "/", 1).unwrap_err().to_string().contains("more than 1"));
        assert_eq!(word(&root, "/a").unwrap().as_deref(), Some("x"));
        assert_eq!(word(&root, "/b").unwrap(), None);
        assert_eq!(beneath("/sys", b"../etc"), None);
    }
}
