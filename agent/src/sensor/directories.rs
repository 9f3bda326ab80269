//! Remembers where folders are: from file system and handle to path.
//!
//! Bounded in entries and bytes: two generations, of which the older is forgotten when the younger is
//! full. A renamed folder takes every path at or beneath it out; a removed one may stay, because its
//! handle is never used again and late events about it can still be named.

use std::collections::HashMap;
use std::sync::Arc;

const ENTRIES: usize = 4096;
const BYTES: usize = 512 << 10;

#[derive(Debug, Clone)]
pub struct Directory {
    pub path: Arc<[u8]>,
    /// The path is that of the nearest folder above that can be named: the folder itself lies deeper than
    /// the longest path.
    pub is_above: bool,
    /// An entry of it can be in view.
    pub reaches_view: bool,
}

#[derive(Debug, Default)]
pub struct Directories {
    young: Generation,
    old: Generation,
}

#[derive(Debug, Default)]
struct Generation {
    entries: HashMap<Box<[u8]>, Directory>,
    bytes: usize,
}

impl Generation {
    fn is_full(&self) -> bool {
        self.entries.len() >= ENTRIES || self.bytes >= BYTES
    }

    fn insert(&mut self, key: Box<[u8]>, directory: Directory) {
        self.bytes += key.len() + directory.path.len();
        self.entries.insert(key, directory);
    }

    fn forget_beneath(&mut self, path: &[u8]) {
        let is_beneath = |candidate: &[u8]| candidate.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"));
        self.entries.retain(|_, directory| !is_beneath(&directory.path));
    }
}

impl Directories {
    /// `key` is the file system's id followed by the handle.
    pub fn find(&mut self, key: &[u8]) -> Option<&Directory> {
        if !self.young.entries.contains_key(key) {
            let (key, directory) = self.old.entries.remove_entry(key)?;
            self.insert_entry(key, directory);
        }
        self.young.entries.get(key)
    }

    pub fn insert(&mut self, key: &[u8], directory: Directory) {
        self.insert_entry(key.into(), directory);
    }

    fn insert_entry(&mut self, key: Box<[u8]>, directory: Directory) {
        if self.young.is_full() {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, directory);
    }

    pub fn forget_beneath(&mut self, path: &[u8]) {
        self.young.forget_beneath(path);
        self.old.forget_beneath(path);
    }

    pub fn clear(&mut self) {
        *self = Self::default();
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.young.entries.len() + self.old.entries.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(path: &str) -> Directory {
        Directory { path: path.as_bytes().into(), is_above: false, reaches_view: true }
    }

    #[test]
    fn a_rename_takes_out_the_folder_and_what_lies_beneath_it_alone() {
        let mut directories = Directories::default();
        for path in ["/a/b", "/a/b/c", "/a/bc", "/a"] {
            directories.insert(path.as_bytes(), at(path));
        }
        directories.forget_beneath(b"/a/b");
        let left: Vec<bool> = ["/a/b", "/a/b/c", "/a/bc", "/a"].iter().map(|path| directories.find(path.as_bytes()).is_some()).collect();
        assert_eq!(left, [false, false, true, true]);
    }

    #[test]
    fn entries_and_bytes_are_bounded_and_what_is_used_stays() {
        let mut directories = Directories::default();
        directories.insert(b"used", at("/used"));
        for number in 0..40_000u32 {
            directories.insert(&number.to_ne_bytes(), at("/x"));
            assert!(directories.find(b"used").is_some());
        }
        assert!(directories.len() <= 2 * ENTRIES);
        let long = "/x".repeat(2000);
        for number in 0..10_000u32 {
            directories.insert(&number.to_ne_bytes(), at(&long));
        }
        assert!(directories.young.bytes <= BYTES + long.len() + 4 && directories.old.bytes <= BYTES + long.len() + 4);
    }
}
