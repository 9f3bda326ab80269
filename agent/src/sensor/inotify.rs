//! The inotify sensor, through the `notify` crate: for file systems and users that fanotify refuses.
//!
//! inotify does not name the process behind an event, and wants a watch for each folder: a new folder is
//! watched first and then reported as a tree, so that what was made in it meanwhile is read too. Each
//! folder is watched by itself, because the crate's own recursion ends at the first error. The folders
//! above a watched path are watched too: each of them can be moved away with all that it leads to.
//!
//! A watch belongs to the folder, not to its name: a name that is still there says nothing about its
//! watch. So whatever may have changed hands is watched anew: by name after each event of a folder, and
//! all of it after a loss. Watching a folder that has its watch changes nothing.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use notify::event::{AccessKind, AccessMode, CreateKind, ModifyKind, RemoveKind, RenameMode};
use notify::{ErrorKind, EventKind, INotifyWatcher, RecursiveMode, Watcher};
use trueline_drift::{GapReason, Time};

use super::coverage::{Coverage, CoverageTable};
use super::outlet::{Closed, Outlet, now};
use super::sensors::SensorError;
use super::view::{View, file_scope, into_bytes, nearest_existing};
use super::{Depth, Signal, Target, Touch};

/// Events on their way from the crate's thread to ours, which can be held back.
const WAITING: usize = 4096;

/// A path to watch with all beneath it, and why fanotify does not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Scope {
    pub path: PathBuf,
    pub reason: String,
}

/// The thread, stopped and joined when dropped.
#[derive(Debug)]
pub(super) struct Inotify {
    thread: Option<JoinHandle<()>>,
    messages: SyncSender<Message>,
    orders: Arc<Mutex<Option<Order>>>,
    outlet: Outlet,
}

/// What to watch from now on.
#[derive(Debug)]
struct Order {
    view: View,
    scopes: Vec<Scope>,
    /// Beneath a scope, but watched by another sensor.
    elsewhere: Vec<PathBuf>,
    done: SyncSender<()>,
}

#[derive(Debug)]
enum Message {
    Event(notify::Result<notify::Event>),
    /// There is a new order, or it is time to stop.
    Look,
}

/// Set by the crate's thread when it could not pass an event on.
#[derive(Debug, Default)]
struct Missed {
    any: AtomicBool,
    count: AtomicU64,
}

impl Inotify {
    pub fn start(outlet: Outlet, coverage: Arc<CoverageTable>) -> Result<Self, SensorError> {
        let (messages, waiting) = sync_channel(WAITING);
        let orders = Arc::new(Mutex::new(None));
        let missed = Arc::new(Missed::default());
        let watcher = watcher(&messages, &missed, &outlet)?;
        let worker = Worker::new(watcher, Arc::clone(&orders), missed, outlet.clone(), coverage);
        let thread = std::thread::Builder::new()
            .name("inotify".to_owned())
            .spawn(move || worker.run(&waiting))
            .map_err(|source| SensorError::Thread { source })?;
        Ok(Self { thread: Some(thread), messages, orders, outlet })
    }

    /// Replaces what is watched. The answer comes when the watches are in place; one who takes the
    /// signals must not wait for it. Scopes after the first order are reported as trees once watched.
    pub fn watch(&self, view: View, scopes: Vec<Scope>, elsewhere: Vec<PathBuf>) -> Receiver<()> {
        let (done, answer) = sync_channel(1);
        *self.orders.lock().unwrap_or_else(PoisonError::into_inner) = Some(Order { view, scopes, elsewhere, done });
        // A full channel has messages that will make the thread look as well.
        let _ = self.messages.try_send(Message::Look);
        answer
    }
}

impl Drop for Inotify {
    fn drop(&mut self) {
        self.outlet.stop();
        let _ = self.messages.try_send(Message::Look);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}

/// Its thread never waits for ours, because ours waits for it when it adds a watch.
fn watcher(messages: &SyncSender<Message>, missed: &Arc<Missed>, outlet: &Outlet) -> Result<INotifyWatcher, SensorError> {
    let (messages, missed, counters) = (messages.clone(), Arc::clone(missed), Arc::clone(&outlet.counters));
    let handler = move |event: notify::Result<notify::Event>| {
        counters.count(|counters| &counters.events);
        let is_reading =
            matches!(&event, Ok(event) if matches!(event.kind, EventKind::Access(kind) if kind != AccessKind::Close(AccessMode::Write)));
        if is_reading {
            return;
        }
        if let Err(TrySendError::Full(_)) = messages.try_send(Message::Event(event)) {
            counters.count(|counters| &counters.dropped);
            missed.count.fetch_add(1, Ordering::Relaxed);
            missed.any.store(true, Ordering::Release);
        }
    };
    INotifyWatcher::new(handler, notify::Config::default().with_follow_symlinks(false)).map_err(|source| SensorError::Inotify { source })
}

/// Folders kept by name for the coverage report.
const UNREADABLE: usize = 10_000;

struct Worker {
    watcher: INotifyWatcher,
    orders: Arc<Mutex<Option<Order>>>,
    missed: Arc<Missed>,
    outlet: Outlet,
    coverage: Arc<CoverageTable>,
    /// None before the first order.
    view: Option<View>,
    scopes: Vec<Scope>,
    elsewhere: Vec<PathBuf>,
    watched: BTreeSet<PathBuf>,
    /// The host's limit of watches was reached: folders found from then on are not watched.
    limited: bool,
    /// Folders that the agent may not watch; the first of them.
    unreadable: BTreeSet<PathBuf>,
    /// Every event that was passed on before this time has been taken.
    caught_up: Time,
}

impl Worker {
    /// One that watches nothing yet.
    fn new(
        watcher: INotifyWatcher,
        orders: Arc<Mutex<Option<Order>>>,
        missed: Arc<Missed>,
        outlet: Outlet,
        coverage: Arc<CoverageTable>,
    ) -> Self {
        Self {
            watcher,
            orders,
            missed,
            outlet,
            coverage,
            view: None,
            scopes: Vec::new(),
            elsewhere: Vec::new(),
            watched: BTreeSet::new(),
            limited: false,
            unreadable: BTreeSet::new(),
            caught_up: now(),
        }
    }

    fn run(mut self, waiting: &Receiver<Message>) {
        loop {
            let message = waiting.try_recv().or_else(|_| {
                self.caught_up = now();
                waiting.recv()
            });
            let Ok(message) = message else { return };
            if self.outlet.is_stopping() || self.take(message).is_err() {
                return;
            }
        }
    }

    fn take(&mut self, message: Message) -> Result<(), Closed> {
        let order = self.orders.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(order) = order {
            self.follow(order)?;
        }
        if self.missed.any.swap(false, Ordering::AcqRel) {
            let count = self.missed.count.swap(0, Ordering::Relaxed);
            self.overflow(Some(count))?;
        }
        match message {
            Message::Look => Ok(()),
            Message::Event(Ok(event)) if event.need_rescan() => self.overflow(None),
            Message::Event(Ok(event)) => self.take_event(event),
            Message::Event(Err(error)) => {
                tracing::warn!(%error, "inotify events could not be read; what it watches will be read again");
                self.recover(GapReason::SensorLost, None)
            }
        }
    }

    fn follow(&mut self, order: Order) -> Result<(), Closed> {
        let first = self.view.is_none();
        let known = std::mem::replace(&mut self.scopes, order.scopes);
        self.view = Some(order.view);
        self.elsewhere = order.elsewhere;
        self.watch_all();
        self.publish();
        // Whoever waits may be the one who takes the signals: answer before any is sent.
        let _ = order.done.try_send(());
        if self.limited {
            self.lose(GapReason::WatchLimit, None)?;
        }
        let new: Vec<PathBuf> =
            self.scopes.iter().map(|scope| scope.path.clone()).filter(|path| !known.iter().any(|known| known.path == *path)).collect();
        for path in new.into_iter().filter(|_| !first) {
            self.touch(path, Depth::Tree, true)?;
        }
        Ok(())
    }

    /// Watches all that is to be watched, whatever was before.
    fn watch_all(&mut self) {
        self.limited = false;
        self.unreadable.clear();
        let before = std::mem::take(&mut self.watched);
        let (known, gone): (BTreeSet<_>, BTreeSet<_>) =
            before.into_iter().partition(|folder| is_folder(folder) && self.has_use_for(folder));
        // Before anything is watched: a folder that was moved kept its watch, and to unwatch its old name
        // takes that watch away. One that was removed has lost it already.
        for folder in gone {
            let _ = self.watcher.unwatch(&folder);
        }
        let starts: Vec<PathBuf> = self.scopes.iter().map(|scope| starting_point(&scope.path).to_owned()).collect();
        for start in &starts {
            self.watch_tree(start, &known);
        }
        for above in starts.iter().flat_map(|start| start.ancestors()) {
            if !self.watched.contains(above) {
                self.watch_folder(above, &known);
            }
        }
        for folder in known.difference(&self.watched) {
            let _ = self.watcher.unwatch(folder);
        }
    }

    /// Watches a folder and the folders beneath it that are in view or lead there, but for those that it has
    /// been through since `watched` was emptied of them. Those known from before need no room within the limit.
    fn watch_tree(&mut self, top: &Path, known: &BTreeSet<PathBuf>) {
        let mut found = vec![top.to_owned()];
        while let Some(folder) = found.pop() {
            if self.watched.contains(&folder) || !self.watch_folder(&folder, known) {
                continue;
            }
            let Ok(entries) = std::fs::read_dir(&folder) else { continue };
            let folders = entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path());
            found.extend(folders.filter(|path| self.wants(path)));
        }
    }

    /// Whether there is reason to look into it.
    fn watch_folder(&mut self, folder: &Path, known: &BTreeSet<PathBuf>) -> bool {
        if self.limited && !known.contains(folder) {
            return false;
        }
        match self.watcher.watch(folder, RecursiveMode::NonRecursive) {
            Ok(()) => {
                self.watched.insert(folder.to_owned());
                true
            }
            Err(error) => match error.kind {
                ErrorKind::MaxFilesWatch => {
                    self.limited = true;
                    false
                }
                // It went away meanwhile, which is an event of the folder above it.
                ErrorKind::PathNotFound => false,
                ErrorKind::Io(error) if error.kind() == std::io::ErrorKind::NotFound => false,
                _ => {
                    if self.unreadable.len() < UNREADABLE {
                        self.unreadable.insert(folder.to_owned());
                    }
                    true
                }
            },
        }
    }

    /// Whether a folder that is watched should be, or leads to what should.
    fn has_use_for(&self, folder: &Path) -> bool {
        self.wants(folder) || self.scopes.iter().any(|scope| scope.path.starts_with(folder))
    }

    fn wants(&self, folder: &Path) -> bool {
        let bytes = std::os::unix::ffi::OsStrExt::as_bytes(folder.as_os_str());
        self.view.as_ref().is_some_and(|view| view.reaches(bytes))
            && self.scopes.iter().any(|scope| folder.starts_with(&scope.path) || scope.path.starts_with(folder))
            && !self.elsewhere.iter().any(|path| path == folder)
    }

    fn take_event(&mut self, event: notify::Event) -> Result<(), Closed> {
        let (depth, finished) = match event.kind {
            EventKind::Create(CreateKind::Folder) | EventKind::Remove(RemoveKind::Folder) => (Depth::Tree, true),
            EventKind::Modify(ModifyKind::Name(RenameMode::From | RenameMode::To)) => (Depth::Tree, true),
            // The two halves of a rename have come by themselves.
            EventKind::Modify(ModifyKind::Name(_)) => return Ok(()),
            EventKind::Modify(ModifyKind::Data(_)) => (Depth::Item, false),
            _ => (Depth::Item, true),
        };
        let Some(path) = event.paths.into_iter().next() else { return Ok(()) };
        let is_gone = matches!(event.kind, EventKind::Remove(_) | EventKind::Modify(ModifyKind::Name(RenameMode::From)));
        // Also when one is gone: the crate takes the watch from whatever has that name by now.
        let is_folder = depth == Depth::Tree && is_folder(&path);
        if depth == Depth::Tree {
            self.forget(&path);
        }
        if is_folder && self.wants(&path) {
            self.watch_new(&path)?;
        }
        if depth == Depth::Tree {
            // What leads to watched paths came or went with all of them.
            let roots: Vec<PathBuf> = self.view.iter().flat_map(|view| view.roots_beneath(&path)).cloned().collect();
            for root in roots {
                self.touch(root, Depth::Tree, true)?;
            }
        }
        // A file that was renamed has nothing beneath it.
        let depth = if depth == Depth::Tree && !is_gone && !is_folder { Depth::Item } else { depth };
        self.touch(path, depth, finished)
    }

    fn watch_new(&mut self, folder: &Path) -> Result<(), Closed> {
        let (was_limited, unreadable) = (self.limited, self.unreadable.len());
        self.watch_tree(folder, &BTreeSet::new());
        if self.limited != was_limited || self.unreadable.len() != unreadable {
            self.publish();
        }
        if self.limited && !was_limited { self.lose(GapReason::WatchLimit, None) } else { Ok(()) }
    }

    /// The crate drops the watches of a name whose folder was removed or moved away, with those beneath it.
    fn forget(&mut self, path: &Path) {
        let beneath = self.watched.range(path.to_owned()..).take_while(|folder| folder.starts_with(path));
        let gone: Vec<PathBuf> = beneath.cloned().collect();
        for folder in gone {
            self.watched.remove(&folder);
        }
    }

    fn touch(&self, path: PathBuf, depth: Depth, finished: bool) -> Result<(), Closed> {
        let path = into_bytes(path);
        if !self.view.as_ref().is_some_and(|view| view.contains(&path)) {
            return Ok(());
        }
        self.outlet.send(Signal::Touched(Touch {
            target: Target::Path(path),
            at: now(),
            actor: None,
            depth,
            wrote: true,
            entry: None,
            finished,
            generation: None,
        }))
    }

    fn overflow(&mut self, count: Option<u64>) -> Result<(), Closed> {
        self.outlet.counters.count(|counters| &counters.overflows);
        self.recover(GapReason::QueueOverflow, count)
    }

    /// Folders may have come, gone and been replaced unseen: all is watched before it is read again.
    fn recover(&mut self, reason: GapReason, count: Option<u64>) -> Result<(), Closed> {
        let was_limited = self.limited;
        self.watch_all();
        self.publish();
        self.lose(reason, count)?;
        if self.limited && !was_limited { self.lose(GapReason::WatchLimit, None) } else { Ok(()) }
    }

    fn lose(&self, reason: GapReason, count: Option<u64>) -> Result<(), Closed> {
        for scope in &self.scopes {
            self.outlet.lose(file_scope(&scope.path), reason, self.caught_up, count)?;
        }
        Ok(())
    }

    fn publish(&self) {
        let rows = self.scopes.iter().map(|scope| {
            let (mut reason, mut watching) = (scope.reason.clone(), !self.limited);
            let beneath = self.unreadable.range(scope.path.clone()..).take_while(|folder| folder.starts_with(&scope.path));
            let start = starting_point(&scope.path);
            if self.limited {
                reason = format!(
                    "the host's limit of inotify watches was reached at {} folders: raise fs.inotify.max_user_watches; {reason}",
                    self.watched.len()
                );
            } else if self.unreadable.contains(start) && !self.watched.contains(&scope.path) {
                watching = false;
                reason = format!("{} could not be watched for lack of permission; {reason}", file_scope(start));
            } else if let (count @ 1.., Some(first)) = (beneath.clone().count(), beneath.clone().next()) {
                reason = format!("{count} folders could not be watched for lack of permission, {} the first; {reason}", file_scope(first));
            }
            Coverage { name: "inotify", scope: file_scope(&scope.path), watching, reason: Some(reason) }
        });
        self.coverage.replace("inotify", rows.collect());
    }
}

/// The folder that holds a watched path, or the nearest one above: a path that comes, goes or is
/// replaced is an event of that folder.
fn starting_point(path: &Path) -> &Path {
    nearest_existing(path.parent().unwrap_or(path))
}

/// A link to a folder is none.
fn is_folder(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|found| found.is_dir())
}

#[cfg(test)]
mod tests;
