//! Names of users and groups by number, from /etc/passwd and /etc/group alone: a name service (NSS)
//! may ask the network and hang.

use std::collections::HashMap;
use std::path::Path;
use std::time::SystemTime;

use super::account::{number, records};
use super::root::{self, Root};

const DATABASE_LIMIT: u64 = 16 * 1024 * 1024;

#[derive(Debug)]
pub struct Names {
    users: Table,
    groups: Table,
}

impl Names {
    pub fn new(root: &Root) -> Self {
        let mut names = Self { users: Table::new(root, "/etc/passwd"), groups: Table::new(root, "/etc/group") };
        names.refresh();
        names
    }

    /// Reads again what has changed. A database that cannot be read names nobody.
    pub fn refresh(&mut self) {
        self.users.refresh();
        self.groups.refresh();
    }

    pub fn user(&self, uid: u32) -> Option<&str> {
        self.users.names.get(&uid).map(String::as_str)
    }

    pub fn group(&self, gid: u32) -> Option<&str> {
        self.groups.names.get(&gid).map(String::as_str)
    }
}

#[derive(Debug)]
struct Table {
    path: std::path::PathBuf,
    /// Time, size and inode of what was read.
    read: Option<(SystemTime, u64, u64)>,
    names: HashMap<u32, String>,
}

impl Table {
    fn new(root: &Root, path: &str) -> Self {
        Self { path: root.path(path), read: None, names: HashMap::new() }
    }

    fn refresh(&mut self) {
        let now = stamp(&self.path);
        if now.is_some() && now == self.read {
            return;
        }
        self.read = now;
        self.names = match root::read(&self.path, DATABASE_LIMIT) {
            Ok(Some(bytes)) => parse(&bytes),
            _ => HashMap::new(),
        };
    }
}

fn stamp(path: &Path) -> Option<(SystemTime, u64, u64)> {
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len(), std::os::unix::fs::MetadataExt::ino(&metadata)))
}

/// `name:password:number:…` lines; the first name of a number is its name, as in getpwuid(3). An empty one is none.
fn parse(bytes: &[u8]) -> HashMap<u32, String> {
    let mut names = HashMap::new();
    for record in records(bytes) {
        if let [name, _, number, ..] = record.as_slice()
            && !name.is_empty()
            && let Some(number) = self::number(number)
        {
            names.entry(number).or_insert_with(|| trueline_drift::text::printable(name).into_owned());
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_their_database() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("etc")).unwrap();
        std::fs::write(folder.path().join("etc/passwd"), "root:x:0:0::/root:/bin/sh\ntoor:x:0:0::/:/bin/sh\nbad line\n").unwrap();
        let mut names = Names::new(&Root::at(folder.path()));
        assert_eq!((names.user(0), names.user(1), names.group(0)), (Some("root"), None, None));
        std::fs::write(folder.path().join("etc/passwd"), "root:x:0:0::/root:/bin/sh\nalice:x:1:1::/:/bin/sh\n").unwrap();
        names.refresh();
        assert_eq!(names.user(1), Some("alice"));
    }

    #[test]
    fn an_empty_name_names_nobody() {
        let names = parse(b":x:7:7::/:\nbob:x:7:7::/:\n:x:8:8::/:\n");
        assert_eq!((names.get(&7).map(String::as_str), names.get(&8)), (Some("bob"), None));
    }
}
