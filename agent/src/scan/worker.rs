//! One thread of a scan: takes folders and parts of folders, reads their entries, sends batches.

use std::ffi::CStr;
use std::sync::atomic::Ordering;
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, PoisonError};

use trueline_drift::format::Format;
use trueline_drift::pattern::Pattern;
use trueline_drift::{ItemId, ItemKey, ItemKind, text};

use super::{Batch, Met, ScanError, ScanMode, Shared};
use crate::collect::file::is_plain;
use crate::collect::filesystem::{FileSystem, classify};
use crate::collect::refusal::{reason, refused};
use crate::collect::{FileReader, Reading, Root};
use crate::kernel::file::{Contents, EntryType, Metadata, Pinned, entries, listed};

/// Items in one batch.
const BATCH: usize = 256;

/// Bytes of a file that takes long enough for others not to wait for it.
pub(super) const LARGE: u64 = 16 * 1024 * 1024;

/// Room for entries of one call to getdents64; some 800 of them.
const LIST_BUFFER: usize = 32 * 1024;

/// Names of skipped file systems kept for the summary.
const SKIPPED_LIMIT: usize = 64;

pub(super) enum Task {
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

pub(super) struct Place {
    /// Without the final slash: empty for `/`.
    path: Vec<u8>,
    device: u64,
}

pub(super) struct Folder {
    place: Arc<Place>,
    contents: Contents,
    /// The policy's exclusions that can match an entry.
    excludes: Vec<Pattern>,
}

/// Why a worker ends early.
struct Stop;

pub(super) struct Worker<'a> {
    shared: &'a Shared<'a>,
    reader: FileReader,
    sink: SyncSender<Batch>,
    batch: Batch,
    path: Vec<u8>,
    list: Vec<u8>,
    hashed: u64,
}

impl<'a> Worker<'a> {
    pub(super) fn new(shared: &'a Shared<'a>, sink: SyncSender<Batch>) -> Self {
        let reader = FileReader::new(&Root::host(), shared.key.clone(), shared.pace.clone()).until(Arc::clone(&shared.progress.give_up));
        Self { shared, reader, sink, batch: Vec::with_capacity(BATCH), path: Vec::new(), list: vec![0; LIST_BUFFER], hashed: 0 }
    }

    pub(super) fn run(mut self) {
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
        let (mut folders, mut listed_files) = (Vec::new(), Vec::new());
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
            match entry_type {
                Some(EntryType::Folder) => {
                    folders.push(below());
                    continue;
                }
                Some(EntryType::File) if self.shared.mode == ScanMode::Full => {
                    if let Some((contents, metadata)) = Contents::of_listed(folder.contents.folder(), name) {
                        self.read_opened(item, &contents, metadata)?;
                        continue;
                    }
                }
                Some(EntryType::File) => {
                    listed_files.push((item, name));
                    continue;
                }
                _ => {}
            }
            folders.extend(self.read_entry(folder, item, name)?);
        }
        folders.extend(self.read_unknown(folder, listed_files)?);
        self.shared.queue.push(folders.into_iter().rev());
        Ok(())
    }

    /// A folder is for later.
    fn read_entry(&mut self, folder: &Folder, item: ItemId, name: &CStr) -> Result<Option<Task>, Stop> {
        match Pinned::at(folder.contents.folder(), name) {
            Ok(pinned) if pinned.metadata.entry_type == EntryType::Folder => {
                return Ok(Some(Task::Folder { parent: Arc::clone(&folder.place), name: name.to_bytes().into() }));
            }
            Ok(pinned) => self.read_item(item, &pinned)?,
            Err(error) => self.take_refused(item, error)?,
        }
        Ok(None)
    }

    /// Of what a quick scan found listed as files, those that are not as they are known. What is known of all of them is asked for
    /// at once, and none of them is opened for it.
    fn read_unknown(&mut self, folder: &Folder, files: Vec<(ItemId, &CStr)>) -> Result<Vec<Task>, Stop> {
        let (mut glances, mut names, mut unknown) = (Vec::with_capacity(files.len()), Vec::with_capacity(files.len()), Vec::new());
        for (item, name) in files {
            match listed(folder.contents.folder(), name) {
                Ok(metadata) if metadata.entry_type == EntryType::File => {
                    let format = Format::of(item.key.as_str());
                    glances.push((item, self.reader.glance(&metadata, format)));
                    names.push(name);
                }
                _ => unknown.push((item, name)),
            }
        }
        let held = self.shared.memory.hold(&glances);
        let items: Vec<ItemId> = glances.into_iter().map(|(item, _)| item).collect();
        for ((item, name), is_held) in items.into_iter().zip(names).zip(held) {
            if is_held {
                self.shared.progress.files.fetch_add(1, Ordering::Relaxed);
                self.push(Met::Known(item))?;
            } else {
                unknown.push((item, name));
            }
        }
        let mut folders = Vec::new();
        for (item, name) in unknown {
            folders.extend(self.read_entry(folder, item, name)?);
        }
        Ok(folders)
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
        let known = if self.shared.mode == ScanMode::Quick { self.shared.memory.lookup(&item) } else { None };
        if pinned.metadata.size > LARGE {
            // What was read before need not wait for it.
            self.flush()?;
        }
        let format = Format::of(item.key.as_str());
        match self.reader.read_pinned(pinned, format, known.as_ref().map(|(stamp, fields)| (stamp, fields))) {
            // It may be of a part.
            Ok(_) if self.shared.progress.give_up.load(Ordering::Relaxed) => self.stop(),
            Ok(reading) => self.emit(item, reading, &pinned.metadata),
            Err(error) => self.fail(&item.key.bytes(), &error),
        }
    }

    fn read_opened(&mut self, item: ItemId, contents: &Contents, metadata: Metadata) -> Result<(), Stop> {
        if metadata.size > LARGE {
            self.flush()?;
        }
        let format = Format::of(item.key.as_str());
        match self.reader.read_opened(contents, metadata, format) {
            Ok(_) if self.shared.progress.give_up.load(Ordering::Relaxed) => self.stop(),
            Ok(reading) => self.emit(item, reading, &metadata),
            Err(error) => self.fail(&item.key.bytes(), &error),
        }
    }

    fn take_refused(&mut self, item: ItemId, error: std::io::Error) -> Result<(), Stop> {
        match refused(error) {
            Ok(None) => Ok(()),
            Ok(Some(reading)) => self.push_read(item, reading),
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
        self.push_read(item, reading)
    }

    fn push_read(&mut self, item: ItemId, reading: Reading) -> Result<(), Stop> {
        if reading.fields.iter().any(|(_, value)| value.is_unreadable()) {
            self.shared.failures.fetch_add(1, Ordering::Relaxed);
        }
        self.push(Met::Read(item, reading))
    }

    fn push(&mut self, met: Met) -> Result<(), Stop> {
        self.batch.push(met);
        self.reader.keep_pace(0);
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
        self.sink.send(batch).or_else(|_| self.stop())
    }

    fn stop(&self) -> Result<(), Stop> {
        self.shared.report(ScanError::Stopped);
        Err(Stop)
    }
}
