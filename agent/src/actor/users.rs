//! Names of users, from /etc/passwd alone: asking the name service could hang on a directory server.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use trueline_drift::text::{bounded, printable};

/// Users remembered at once; beyond it the memory starts afresh.
const REMEMBERED: usize = 256;
const FILE_LIMIT: u64 = 16 << 20;
const NAME_LIMIT: usize = 64;

#[derive(Debug)]
pub struct UserNames {
    passwd: PathBuf,
    /// Device, inode, size and both times of the file that the names were read from.
    stamp: Option<[i64; 7]>,
    names: HashMap<u32, Option<String>>,
}

impl UserNames {
    pub fn new(passwd: &Path) -> Self {
        Self { passwd: passwd.to_owned(), stamp: None, names: HashMap::new() }
    }

    /// `None` for a user that the file does not have, or when there is no such file.
    pub fn name(&mut self, uid: u32) -> Option<String> {
        let stamp = std::fs::metadata(&self.passwd).ok().filter(std::fs::Metadata::is_file).map(|file| {
            [
                file.dev().cast_signed(),
                file.ino().cast_signed(),
                file.size().cast_signed(),
                file.mtime(),
                file.mtime_nsec(),
                file.ctime(),
                file.ctime_nsec(),
            ]
        })?;
        if self.stamp != Some(stamp) || self.names.len() >= REMEMBERED {
            self.stamp = Some(stamp);
            self.names.clear();
        }
        if let Some(name) = self.names.get(&uid) {
            return name.clone();
        }
        let name = File::open(&self.passwd).ok().and_then(|file| find_name(BufReader::new(file.take(FILE_LIMIT)), uid));
        self.names.insert(uid, name.clone());
        name
    }
}

fn find_name(lines: impl BufRead, uid: u32) -> Option<String> {
    lines.split(b'\n').map_while(Result::ok).find_map(|line| {
        let mut fields = line.split(|byte| *byte == b':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        let id = std::str::from_utf8(fields.nth(1)?).ok()?;
        (id.parse() == Ok(uid)).then(|| bounded(&printable(name), NAME_LIMIT).into_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_renamed_user_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let passwd = folder.path().join("passwd");
        std::fs::write(&passwd, "root:x:0:0::/root:/bin/sh\nbroken\n:x:7:\nal\x1bice:x:1000:1000::/:/bin/sh\n").unwrap();
        let mut names = UserNames::new(&passwd);
        assert_eq!(names.name(0).as_deref(), Some("root"));
        assert_eq!(names.name(1000).as_deref(), Some("al\\x1bice"));
        assert_eq!((names.name(7), names.name(1)), (None, None));
        std::fs::write(&passwd, "toor:x:0:0::/root:/bin/sh\n").unwrap();
        assert_eq!(names.name(0).as_deref(), Some("toor"));
        std::fs::remove_file(&passwd).unwrap();
        assert_eq!(names.name(0), None);
    }
}
