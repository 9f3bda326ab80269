//! SHA-256 of the executables of actors.
//!
//! Owns a thread that reads behind everybody else, at a bounded pace, and the memory of what it read.
//!
//! Invariants: a digest belongs to a file by its stamp, before and after it was read: what is said of a process is what its
//! executable held when it ran. A file is read once. [`Digests::find`] never waits; where the answer is not there yet, the
//! digest is absent. Larger files than [`LARGEST`], and what changes while it is read, have none.

use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sha2::{Digest, Sha256};
use tracing::debug;
use trueline_drift::actor::Sha256Digest;

use super::genuine::Found;
use crate::collect::Stamp;
use crate::collect::pace::{Meter, Pace};
use crate::kernel::file::{EntryType, Pinned};
use crate::kernel::thread::read_behind_others;
use crate::service::Confinement;

const LARGEST: u64 = 256 << 20;
/// Bytes a second: a browser in a few seconds, and never a whole disk's worth.
const PACE: u64 = 64 << 20;
const REMEMBERED: usize = 4096;
const WAITING: usize = 64;
const BUFFER: usize = 128 * 1024;
/// A change within a tick of the kernel's clock leaves the times as they are.
const YOUNG: Duration = Duration::from_millis(20);

#[derive(Debug, Default)]
struct Known {
    /// `None`: it cannot be told.
    digests: HashMap<Stamp, Option<Sha256Digest>>,
    asked: HashSet<Stamp>,
}

#[derive(Debug, Default)]
struct Shared {
    known: Mutex<Known>,
    learnt: Condvar,
}

impl Shared {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn learn(&self, stamp: Stamp, digest: Option<Sha256Digest>) {
        let mut known = self.known();
        known.asked.remove(&stamp);
        if known.digests.len() >= REMEMBERED {
            known.digests.clear();
        }
        known.digests.insert(stamp, digest);
        drop(known);
        self.learnt.notify_all();
    }
}

/// Dropping it ends its thread.
#[derive(Debug)]
pub struct Digests {
    shared: Arc<Shared>,
    requests: Option<SyncSender<Found>>,
    stopping: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Digests {
    pub fn start(confinement: &Confinement) -> io::Result<Self> {
        let (shared, stopping) = (Arc::new(Shared::default()), Arc::new(AtomicBool::new(false)));
        let (requests, waiting) = sync_channel(WAITING);
        let reader = Reader { shared: Arc::clone(&shared), stopping: Arc::clone(&stopping), pace: Pace::new(PACE, 0) };
        let confinement = confinement.clone();
        let thread = std::thread::Builder::new().name("digests".to_owned()).spawn(move || {
            confinement.enter();
            // Where the kernel refuses, it only competes with others.
            let _ = read_behind_others();
            reader.run(&waiting);
        })?;
        Ok(Self { shared, requests: Some(requests), stopping, thread: Some(thread) })
    }

    /// Of what is known already, as from the agent's own state.
    pub fn note(&self, stamp: Stamp, digest: Sha256Digest) {
        self.shared.learn(stamp, Some(digest));
    }

    pub fn is_known(&self, stamp: &Stamp) -> bool {
        self.shared.known().digests.contains_key(stamp)
    }

    /// What is known now; has the file read where nothing is.
    pub fn find(&self, file: &Found) -> Option<Sha256Digest> {
        self.find_within(file, Duration::ZERO)
    }

    /// The same, and waits this long for a reading that is under way.
    pub fn find_within(&self, file: &Found, patience: Duration) -> Option<Sha256Digest> {
        let stamp = file.stamp;
        let mut known = self.shared.known();
        if let Some(digest) = known.digests.get(&stamp) {
            return *digest;
        }
        if known.asked.insert(stamp) && self.requests.as_ref().is_none_or(|requests| requests.try_send(file.clone()).is_err()) {
            // Too many wait: the next who asks asks again.
            known.asked.remove(&stamp);
            return None;
        }
        let waited = self.shared.learnt.wait_timeout_while(known, patience, |known| !known.digests.contains_key(&stamp));
        let (known, _) = waited.unwrap_or_else(PoisonError::into_inner);
        known.digests.get(&stamp).copied().flatten()
    }
}

impl Drop for Digests {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Release);
        self.requests = None;
        if let Some(thread) = self.thread.take() {
            // A panic of it was reported where it happened.
            let _ = thread.join();
        }
    }
}

struct Reader {
    shared: Arc<Shared>,
    stopping: Arc<AtomicBool>,
    pace: Option<Pace>,
}

impl Reader {
    fn run(&self, waiting: &Receiver<Found>) {
        let mut buffer = vec![0; BUFFER];
        while let Ok(file) = waiting.recv() {
            if self.is_stopping() {
                return;
            }
            let digest = self.read(&file, &mut buffer).unwrap_or_else(|error| {
                debug!(path = %String::from_utf8_lossy(&file.path), %error, "an executable has no digest");
                None
            });
            self.shared.learn(file.stamp, digest);
        }
    }

    /// `None` where it is too large, or is not what it was.
    fn read(&self, file: &Found, buffer: &mut [u8]) -> io::Result<Option<Sha256Digest>> {
        let pinned = Pinned::open(&file.path)?;
        let is_it = pinned.metadata.entry_type == EntryType::File && Stamp::of(&pinned.metadata) == file.stamp;
        if !is_it || file.stamp.size > LARGEST {
            return Ok(None);
        }
        // What is read once the last change is older than a tick cannot change again and look the same.
        if is_young(&file.stamp) {
            std::thread::sleep(YOUNG);
        }
        if is_young(&file.stamp) {
            return Ok(None);
        }
        let contents = pinned.contents()?;
        let mut hasher = Sha256::new();
        let mut offset = 0;
        while offset < file.stamp.size && !self.is_stopping() {
            let read = match contents.read_at(buffer, offset) {
                Ok(0) => break,
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            hasher.update(&buffer[..read]);
            offset += read as u64;
            if let Some(pace) = &self.pace {
                pace.wait(read as u64, &mut Meter::default(), || self.is_stopping());
            }
        }
        let is_same = Stamp::of(&contents.metadata()?) == file.stamp;
        let is_whole = offset == file.stamp.size && is_same;
        Ok(is_whole.then(|| Sha256Digest(hasher.finalize().into())))
    }

    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }
}

fn is_young(stamp: &Stamp) -> bool {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let changed = Duration::from_nanos(u64::try_from(stamp.changed_ns).unwrap_or(0));
    now < changed.saturating_add(YOUNG)
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt;
    use std::path::Path;

    use super::*;
    use crate::testing::until;

    fn found(path: &Path) -> Found {
        let path = path.canonicalize().unwrap();
        let bytes = path.as_os_str().as_bytes().to_vec();
        Found { stamp: Stamp::of(&Pinned::open(&bytes).unwrap().metadata), path: bytes }
    }

    fn digests() -> Digests {
        Digests::start(&Confinement::default()).unwrap()
    }

    #[test]
    fn an_executable_is_read_once_and_known_from_then_on() {
        let (digests, shell) = (digests(), found(Path::new("/bin/sh")));
        let expected = Sha256Digest(Sha256::digest(std::fs::read("/bin/sh").unwrap()).into());
        until("the digest", || digests.find(&shell) == Some(expected));
        // Of the memory alone: at that path there is nothing.
        let elsewhere = Found { path: b"/not/there".to_vec(), ..shell };
        assert_eq!(digests.find(&elsewhere), Some(expected));
    }

    #[test]
    fn another_file_than_the_one_that_ran_has_no_digest() {
        let (digests, shell) = (digests(), found(Path::new("/bin/sh")));
        for stamp in [Stamp { inode: shell.stamp.inode + 1, ..shell.stamp }, Stamp { size: LARGEST + 1, ..shell.stamp }] {
            let file = Found { stamp, ..shell.clone() };
            assert_eq!(digests.find_within(&file, Duration::from_secs(60)), None);
            assert!(digests.is_known(&stamp), "it is not asked again");
        }
    }

    #[test]
    fn what_was_written_a_moment_ago_is_read_once_its_times_can_be_relied_on() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tool");
        std::fs::write(&path, "#!/bin/sh\n").unwrap();
        let file = found(&path);
        let expected = Sha256Digest(Sha256::digest("#!/bin/sh\n").into());
        assert_eq!(digests().find_within(&file, Duration::from_secs(60)), Some(expected));
        assert!(is_young(&Stamp { changed_ns: i64::MAX, ..file.stamp }) && !is_young(&Stamp { changed_ns: 0, ..file.stamp }));
    }
}
