//! The floor of an inventory: what reading every file once costs when nothing is kept of it. A walk,
//! then N threads over the list: open, stat, list of extended attributes, ACL, flags, SHA-256, close.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use rustix::fs::{CWD, Dir, FileType, Mode, OFlags, fgetxattr, flistxattr, fstat, ioctl_getflags, openat};
use sha2::{Digest, Sha256};

/// Files a thread takes at a time.
const CHUNK: usize = 32;
const BUFFER: usize = 128 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Floor {
    pub files: u64,
    pub bytes: u64,
    pub failures: u64,
    pub took: Duration,
}

/// Reads the tree with this many threads.
pub fn measure(root: &Path, threads: usize) -> anyhow::Result<Floor> {
    let start = Instant::now();
    let mut files = Vec::new();
    let folder = openat(CWD, root, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .with_context(|| format!("opening {}", root.display()))?;
    walk(folder, &root.to_string_lossy(), &mut files)?;
    let (next, bytes, failures) = (AtomicUsize::new(0), AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let mut buffer = vec![0_u8; BUFFER];
                loop {
                    let first = next.fetch_add(CHUNK, Ordering::Relaxed);
                    let Some(chunk) = files.get(first..files.len().min(first + CHUNK)).filter(|chunk| !chunk.is_empty()) else { break };
                    for path in chunk {
                        match read(path, &mut buffer) {
                            Ok(read) => bytes.fetch_add(read, Ordering::Relaxed),
                            Err(_) => failures.fetch_add(1, Ordering::Relaxed),
                        };
                    }
                }
            });
        }
    });
    Ok(Floor { files: files.len() as u64, bytes: bytes.into_inner(), failures: failures.into_inner(), took: start.elapsed() })
}

fn walk(folder: OwnedFd, path: &str, files: &mut Vec<String>) -> anyhow::Result<()> {
    let mut entries = Dir::read_from(&folder).with_context(|| format!("listing {path}"))?;
    while let Some(entry) = entries.read() {
        let entry = entry.with_context(|| format!("listing {path}"))?;
        let name = entry.file_name();
        if name.to_bytes() == b"." || name.to_bytes() == b".." {
            continue;
        }
        let beneath = format!("{path}/{}", name.to_string_lossy());
        match entry.file_type() {
            FileType::Directory => {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                if let Ok(inner) = openat(folder.as_fd(), name, flags, Mode::empty()) {
                    walk(inner, &beneath, files)?;
                }
            }
            FileType::RegularFile => files.push(beneath),
            _ => {}
        }
    }
    Ok(())
}

/// Bytes read.
fn read(path: &str, buffer: &mut [u8]) -> rustix::io::Result<u64> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = openat(CWD, path, flags, Mode::empty())?;
    let size = fstat(&file)?.st_size as u64;
    let mut attributes = [0_u8; 4096];
    // A file system without attributes, ACLs or flags says so: that answer is part of the cost.
    let _ = flistxattr(&file, &mut attributes);
    let _ = fgetxattr(&file, c"system.posix_acl_access", &mut attributes);
    let _ = ioctl_getflags(&file);
    let mut hasher = Sha256::new();
    let mut total = 0;
    loop {
        let read = rustix::io::read(&file, &mut *buffer)?;
        hasher.update(&buffer[..read]);
        total += read as u64;
        if read == 0 || total >= size {
            break;
        }
    }
    std::hint::black_box(hasher.finalize());
    Ok(total)
}
