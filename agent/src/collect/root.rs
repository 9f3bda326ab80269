//! Where the host's own databases are read from: `/`, or a folder that stands for it in a test.

use std::io;
use std::path::{Path, PathBuf};

use crate::kernel::file::{EntryType, Pinned};

#[derive(Debug, Clone)]
pub struct Root(PathBuf);

impl Root {
    pub fn host() -> Self {
        Self(PathBuf::from("/"))
    }

    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    pub fn is_host(&self) -> bool {
        self.0 == Path::new("/")
    }

    /// The place of an absolute path of the host.
    pub fn path(&self, path: &str) -> PathBuf {
        self.0.join(path.trim_start_matches('/'))
    }

    /// The path of the host that stands at `place`.
    pub fn host_path(&self, place: &Path) -> PathBuf {
        place.strip_prefix(&self.0).map_or_else(|_| place.to_owned(), |rest| Path::new("/").join(rest))
    }

    /// A whole database, at most `limit` bytes. `None` where there is no such file.
    pub fn read(&self, path: &str, limit: u64) -> io::Result<Option<Vec<u8>>> {
        read(&self.path(path), limit)
    }
}

/// A whole regular file that belongs to the system, following its symbolic links; more than `limit`
/// bytes is an error, not a part of the file.
pub fn read(path: &Path, limit: u64) -> io::Result<Option<Vec<u8>>> {
    let pinned = match Pinned::follow(path) {
        Ok(pinned) => pinned,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => return Ok(None),
        Err(error) => return Err(error),
    };
    if pinned.metadata.entry_type != EntryType::File {
        return Err(io::Error::other(format!("it is a {}, not a regular file", pinned.metadata.entry_type.name())));
    }
    let mut bytes = Vec::with_capacity(pinned.metadata.size.min(limit) as usize);
    io::Read::read_to_end(&mut io::Read::take(pinned.contents()?.into_file(), limit + 1), &mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(io::Error::other(format!("it is larger than {limit} bytes")));
    }
    Ok(Some(bytes))
}
