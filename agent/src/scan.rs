//! Walks everything in view and reads each file, on a few threads.
//!
//! The list of files is never held: threads share a stack of folders, and what they read leaves in
//! batches through a bounded channel, so a slow receiver slows the walk. Symbolic links are never
//! followed, and folders are opened by their whole path when their turn comes, so that neither a
//! loop nor a deep tree costs more than it holds. File systems of other machines and of the kernel
//! are named, not entered.

mod queue;

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use trueline_drift::pattern::Pattern;
use trueline_drift::watch::{WatchPolicy, is_beneath};
use trueline_drift::{Fields, ItemId, ItemKey, ItemKind, text};

use crate::collect::file::{is_plain, reason, refused};
use crate::collect::filesystem::{FileSystem, classify};
use crate::collect::pace::Pace;
use crate::collect::{FileReader, Reading, Root, Stamp};
use crate::kernel::file::{Contents, EntryType, Metadata, Pinned, entries};
use queue::Queue;

/// Items in one batch.
const BATCH: usize = 256;

/// Room for entries of one call to getdents64; some 800 of them.
const LIST_BUFFER: usize = 32 * 1024;

/// Names of skipped file systems kept for the summary.
const SKIPPED_LIMIT: usize = 64;

pub type Batch = Vec<(ItemId, Reading)>;

#[derive(Debug, Clone)]
pub struct ScanOptions {
    pub threads: usize,
    pub mode: ScanMode,
    /// Bound on reading contents, over all threads; 0 means none.
    pub bytes_per_second: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScanMode {
    /// Reads all contents.
    Full,
    /// Takes the contents of a file whose stamp is known as unchanged.
    Quick,
}

/// How far a scan is, for whoever watches it, and a way to end it.
#[derive(Debug, Default)]
pub struct ScanProgress {
    pub folders: AtomicU64,
    pub files: AtomicU64,
    pub bytes: AtomicU64,
    /// Once set, the scan ends within the reading of one buffer.
    pub give_up: Arc<AtomicBool>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScanSummary {
    /// Items sent, folders among them.
    pub items: u64,
    /// Bytes of contents read.
    pub bytes: u64,
    /// Items of which something could not be read, and names too long to be items.
    pub failures: u64,
    /// Mount points not entered, printable, at most 64.
    pub skipped: Vec<String>,
    pub elapsed: Duration,
}

#[derive(Debug, thiserror::Error)]
pub enum ScanError {
    #[error("the scan was stopped: nobody takes its results any more")]
    Stopped,
    #[error("cannot scan `{path}` for want of the agent's own resources: {reason}; raise its limits (LimitNOFILE, TasksMax, MemoryMax)")]
    Resources { path: String, reason: String },
}

/// Reads every file that the policy has in view. Dropping the receiver stops the scan. `lookup`
/// answers in quick mode what is known of an item.
pub fn scan<L>(
    policy: &WatchPolicy,
    options: &ScanOptions,
    lookup: L,
    sink: SyncSender<Batch>,
    progress: &ScanProgress,
) -> Result<ScanSummary, ScanError>
where
    L: Fn(&ItemId) -> Option<(Stamp, Fields)> + Sync,
{
    let started = Instant::now();
    let roots: HashSet<Vec<u8>> = policy
        .paths
        .iter()
        .filter(|root| !policy.excludes_path(root))
        .map(|root| text::original(if root.len() > 1 { root.trim_end_matches('/') } else { root }).into_owned())
        .collect();
    let shared = Shared {
        policy,
        mode: options.mode,
        lookup: &lookup,
        pace: Pace::new(options.bytes_per_second).map(Arc::new),
        nested: nested(&roots),
        queue: Queue::new(roots.into_iter().map(Task::Root).collect()),
        progress,
        items: AtomicU64::new(0),
        failures: AtomicU64::new(0),
        skipped: Mutex::new(Vec::new()),
        failed: Mutex::new(None),
    };
    std::thread::scope(|scope| {
        for _ in 0..options.threads.clamp(1, 64) {
            let worker = Worker::new(&shared, sink.clone());
            let spawned = std::thread::Builder::new().name("scan".to_owned()).spawn_scoped(scope, || worker.run());
            if let Err(error) = spawned {
                shared.report(ScanError::Resources { path: "/".to_owned(), reason: reason(&error) });
                shared.queue.stop();
            }
        }
    });
    if let Some(error) = shared.failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
        return Err(error);
    }
    Ok(ScanSummary {
        items: shared.items.into_inner(),
        bytes: progress.bytes.load(Ordering::Relaxed),
        failures: shared.failures.into_inner(),
        skipped: shared.skipped.into_inner().unwrap_or_else(PoisonError::into_inner),
        elapsed: started.elapsed(),
    })
}

/// Roots that lie beneath another: their own task reads them, whatever lies between.
fn nested(roots: &HashSet<Vec<u8>>) -> HashSet<Vec<u8>> {
    let beneath = |path: &[u8], root: &[u8]| path != root && is_beneath(&text::printable(path), &text::printable(root));
    roots.iter().filter(|path| roots.iter().any(|root| beneath(path, root))).cloned().collect()
}

struct Shared<'a, L> {
    policy: &'a WatchPolicy,
    mode: ScanMode,
    lookup: &'a L,
    pace: Option<Arc<Pace>>,
    nested: HashSet<Vec<u8>>,
    queue: Queue<Task>,
    progress: &'a ScanProgress,
    items: AtomicU64,
    failures: AtomicU64,
    skipped: Mutex<Vec<String>>,
    failed: Mutex<Option<ScanError>>,
}

impl<L> Shared<'_, L> {
    /// The first error is the one that is told.
    fn report(&self, error: ScanError) {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
    }
}

enum Task {
    Root(Vec<u8>),
    /// A folder found in another. It is opened again by its whole path, so waiting costs no descriptor.
    Folder {
        parent: Arc<Place>,
        name: Box<[u8]>,
    },
    /// Part of a large folder's entries, given away because a thread had nothing to do.
    Entries {
        folder: Arc<Folder>,
        packed: Box<[u8]>,
    },
}

struct Place {
    /// Without the final slash: empty for `/`.
    path: Vec<u8>,
    device: u64,
}

struct Folder {
    place: Arc<Place>,
    contents: Contents,
    /// The policy's exclusions that can match an entry.
    excludes: Vec<Pattern>,
}

/// Why a worker ends early.
struct Stop;

struct Worker<'a, L> {
    shared: &'a Shared<'a, L>,
    reader: FileReader,
    sink: SyncSender<Batch>,
    batch: Batch,
    path: Vec<u8>,
    list: Vec<u8>,
    hashed: u64,
}

impl<'a, L: Fn(&ItemId) -> Option<(Stamp, Fields)> + Sync> Worker<'a, L> {
    fn new(shared: &'a Shared<'a, L>, sink: SyncSender<Batch>) -> Self {
        let reader = FileReader::new(&Root::host(), shared.pace.clone()).until(Arc::clone(&shared.progress.give_up));
        Self { shared, reader, sink, batch: Vec::with_capacity(BATCH), path: Vec::new(), list: vec![0; LIST_BUFFER], hashed: 0 }
    }

    fn run(mut self) {
        let queue = &self.shared.queue;
        let turn = queue.join();
        while let Some(task) = turn.next() {
            let done = match task {
                Task::Root(path) => self.read_root(path),
                Task::Folder { parent, name } => self.read_folder(&parent, &name),
                Task::Entries { folder, packed } => self.read_entries(&folder, &packed),
            };
            if done.is_err() {
                queue.stop();
                return;
            }
        }
        // A receiver that is gone has been told to the others already, or wants nothing any more.
        let _ = self.flush();
    }

    fn read_root(&mut self, path: Vec<u8>) -> Result<(), Stop> {
        if !is_plain(&path) {
            self.shared.failures.fetch_add(1, Ordering::Relaxed);
            return Ok(());
        }
        let path = if path == b"/" { Vec::new() } else { path };
        self.enter(path, None)
    }

    fn read_folder(&mut self, parent: &Place, name: &[u8]) -> Result<(), Stop> {
        let path = [&parent.path, b"/".as_slice(), name].concat();
        self.enter(path, Some(parent.device))
    }

    /// Reads a folder and what is in it; `parent` is the device of the folder above, if one was scanned.
    fn enter(&mut self, path: Vec<u8>, parent: Option<u64>) -> Result<(), Stop> {
        let full: &[u8] = if path.is_empty() { b"/" } else { &path };
        let Some(item) = self.item(full) else { return Ok(()) };
        let pinned = match Pinned::open(full) {
            Ok(pinned) => pinned,
            Err(error) => return self.take_refused(item, error),
        };
        // Replaced since it was listed, or a root that is a file or a link.
        if pinned.metadata.entry_type != EntryType::Folder {
            return self.read_item(item, &pinned);
        }
        if !self.may_enter(&pinned, parent) {
            self.skip(item.key.as_str());
            let reading = self.reader.outline(&pinned.metadata);
            return self.emit(item, reading, &pinned.metadata);
        }
        let excludes = self.excludes(item.key.as_str());
        self.read_item(item, &pinned)?;
        let contents = match pinned.contents() {
            Ok(contents) => contents,
            // What was read of the folder says why, and is counted.
            Err(error) => return refused(error).map_or_else(|error| self.fail(full, &error), |_| Ok(())),
        };
        let place = Arc::new(Place { path, device: pinned.metadata.device });
        self.list(Arc::new(Folder { place, contents, excludes }))
    }

    /// Another file system than that of the folder above is entered unless its files are no files
    /// of this host. A root is named by somebody: there only the kernel's own state is left out.
    fn may_enter(&self, pinned: &Pinned, parent: Option<u64>) -> bool {
        if parent == Some(pinned.metadata.device) {
            return true;
        }
        match pinned.file_system().map(classify) {
            Ok(FileSystem::Local) => true,
            Ok(FileSystem::Remote) => parent.is_none(),
            Ok(FileSystem::Pseudo) | Err(_) => false,
        }
    }

    fn skip(&self, path: &str) {
        let mut skipped = self.shared.skipped.lock().unwrap_or_else(PoisonError::into_inner);
        if skipped.len() < SKIPPED_LIMIT {
            skipped.push(text::bounded(path, 1024).into_owned());
        }
    }

    fn list(&mut self, folder: Arc<Folder>) -> Result<(), Stop> {
        let mut buffer = std::mem::take(&mut self.list);
        let mut is_first = true;
        let done = loop {
            match folder.contents.list(&mut buffer) {
                Ok([]) => break Ok(()),
                Ok(packed) if !is_first && self.shared.queue.is_anyone_idle() => {
                    let task = Task::Entries { folder: Arc::clone(&folder), packed: packed.into() };
                    self.shared.queue.push(std::iter::once(task));
                }
                Ok(packed) => {
                    if let Err(stop) = self.read_entries(&folder, packed) {
                        break Err(stop);
                    }
                }
                Err(error) => break self.take_failure(&folder.place.path, error),
            }
            is_first = false;
        };
        self.list = buffer;
        done
    }

    fn read_entries(&mut self, folder: &Folder, packed: &[u8]) -> Result<(), Stop> {
        let mut folders = Vec::new();
        for (name, entry_type) in entries(packed) {
            self.path.clear();
            self.path.extend_from_slice(&folder.place.path);
            self.path.push(b'/');
            self.path.extend_from_slice(name.to_bytes());
            if !self.shared.nested.is_empty() && self.shared.nested.contains(&self.path) {
                continue;
            }
            let path = std::mem::take(&mut self.path);
            let item = self.item(&path);
            self.path = path;
            let Some(item) = item else { continue };
            if folder.excludes.iter().any(|pattern| pattern.matches(item.key.as_str())) {
                continue;
            }
            let below = || Task::Folder { parent: Arc::clone(&folder.place), name: name.to_bytes().into() };
            if entry_type == Some(EntryType::Folder) {
                folders.push(below());
                continue;
            }
            match Pinned::at(folder.contents.folder(), name) {
                Ok(pinned) if pinned.metadata.entry_type == EntryType::Folder => folders.push(below()),
                Ok(pinned) => self.read_item(item, &pinned)?,
                Err(error) => self.take_refused(item, error)?,
            }
        }
        self.shared.queue.push(folders.into_iter().rev());
        Ok(())
    }

    /// `None` for a path too long to be an item, which is counted.
    fn item(&mut self, path: &[u8]) -> Option<ItemId> {
        match ItemKey::from_bytes(path) {
            Ok(key) => Some(ItemId::new(ItemKind::File, key)),
            Err(_) => {
                self.shared.failures.fetch_add(1, Ordering::Relaxed);
                None
            }
        }
    }

    fn excludes(&self, folder: &str) -> Vec<Pattern> {
        let folder = if folder == "/" { "/".to_owned() } else { format!("{folder}/") };
        let can_match = |pattern: &&Pattern| pattern.prefix().starts_with(&folder) || folder.starts_with(pattern.prefix());
        self.shared.policy.exclude.iter().filter(can_match).cloned().collect()
    }

    fn read_item(&mut self, item: ItemId, pinned: &Pinned) -> Result<(), Stop> {
        let known = if self.shared.mode == ScanMode::Quick { (self.shared.lookup)(&item) } else { None };
        match self.reader.read_pinned(pinned, known.as_ref().map(|(stamp, fields)| (stamp, fields))) {
            Ok(reading) => self.emit(item, reading, &pinned.metadata),
            Err(error) => self.fail(&item.key.bytes(), &error),
        }
    }

    fn take_refused(&mut self, item: ItemId, error: std::io::Error) -> Result<(), Stop> {
        match refused(error) {
            Ok(None) => Ok(()),
            Ok(Some(reading)) => self.push(item, reading),
            Err(error) => self.fail(&item.key.bytes(), &error),
        }
    }

    /// A folder that could not be listed to its end.
    fn take_failure(&mut self, path: &[u8], error: std::io::Error) -> Result<(), Stop> {
        match refused(error) {
            Ok(None) => Ok(()),
            Ok(Some(_)) => {
                self.shared.failures.fetch_add(1, Ordering::Relaxed);
                Ok(())
            }
            Err(error) => self.fail(path, &error),
        }
    }

    fn fail(&self, path: &[u8], error: &std::io::Error) -> Result<(), Stop> {
        let path = text::bounded(&text::printable(path), 400).into_owned();
        self.shared.report(ScanError::Resources { path, reason: reason(error) });
        Err(Stop)
    }

    fn emit(&mut self, item: ItemId, reading: Reading, metadata: &Metadata) -> Result<(), Stop> {
        let progress = self.shared.progress;
        let counter = if metadata.entry_type == EntryType::Folder { &progress.folders } else { &progress.files };
        counter.fetch_add(1, Ordering::Relaxed);
        self.push(item, reading)
    }

    fn push(&mut self, item: ItemId, reading: Reading) -> Result<(), Stop> {
        if reading.fields.iter().any(|(_, value)| value.is_unreadable()) {
            self.shared.failures.fetch_add(1, Ordering::Relaxed);
        }
        self.batch.push((item, reading));
        if self.batch.len() >= BATCH { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), Stop> {
        self.shared.progress.bytes.fetch_add(self.reader.hashed() - self.hashed, Ordering::Relaxed);
        self.hashed = self.reader.hashed();
        if self.batch.is_empty() {
            return Ok(());
        }
        let batch = std::mem::replace(&mut self.batch, Vec::with_capacity(BATCH));
        self.shared.items.fetch_add(batch.len() as u64, Ordering::Relaxed);
        self.sink.send(batch).map_err(|_| {
            self.shared.report(ScanError::Stopped);
            Stop
        })
    }
}

#[cfg(test)]
#[path = "scan_test.rs"]
mod tests;
