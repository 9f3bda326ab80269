//! The inotify sensor, through the `notify` crate: for file systems and users that fanotify refuses.
//!
//! inotify does not name the process behind an event, and wants a watch for each folder: a new folder is
//! watched first and then reported as a tree, so that what was made in it meanwhile is read too. Each
//! folder is watched by itself, because the crate's own recursion ends at the first error.

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
        let worker = Worker {
            watcher,
            orders: Arc::clone(&orders),
            missed,
            outlet: outlet.clone(),
            coverage,
            view: None,
            scopes: Vec::new(),
            elsewhere: Vec::new(),
            watched: BTreeSet::new(),
            limited: false,
            unreadable: 0,
            caught_up: now(),
        };
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
    unreadable: usize,
    caught_up: Time,
}

impl Worker {
    fn run(mut self, waiting: &Receiver<Message>) {
        for message in waiting {
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
            Message::Look => {}
            Message::Event(Ok(event)) if event.need_rescan() => self.overflow(None)?,
            Message::Event(Ok(event)) => self.take_event(event)?,
            Message::Event(Err(error)) => {
                tracing::warn!(%error, "inotify events could not be read; what it watches will be read again");
                self.lose(GapReason::SensorLost, None)?;
            }
        }
        self.caught_up = now();
        Ok(())
    }

    fn follow(&mut self, order: Order) -> Result<(), Closed> {
        let first = self.view.is_none();
        let known = std::mem::replace(&mut self.scopes, order.scopes);
        self.view = Some(order.view);
        self.elsewhere = order.elsewhere;
        (self.limited, self.unreadable) = (false, 0);
        let before = std::mem::take(&mut self.watched);
        for scope in self.scopes.clone() {
            self.watch_tree(starting_point(&scope.path));
        }
        for gone in before.difference(&self.watched) {
            // A folder that was removed has lost its watch already.
            let _ = self.watcher.unwatch(gone);
        }
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

    /// Watches a folder and the folders beneath it that are in view or lead there.
    fn watch_tree(&mut self, top: &Path) {
        let mut found = vec![top.to_owned()];
        while let Some(folder) = found.pop() {
            if self.limited {
                return;
            }
            if !self.watched.contains(&folder) {
                match self.watcher.watch(&folder, RecursiveMode::NonRecursive) {
                    Ok(()) => {
                        self.watched.insert(folder.clone());
                    }
                    Err(error) => match error.kind {
                        ErrorKind::MaxFilesWatch => self.limited = true,
                        // It went away meanwhile, which is an event of the folder above it.
                        ErrorKind::PathNotFound => continue,
                        ErrorKind::Io(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                        _ => self.unreadable += 1,
                    },
                }
            }
            let Ok(entries) = std::fs::read_dir(&folder) else { continue };
            let folders = entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path());
            found.extend(folders.filter(|path| self.wants(path)));
        }
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
        if depth == Depth::Tree && is_gone {
            self.forget(&path);
        }
        let is_folder = depth == Depth::Tree && !is_gone && path.symlink_metadata().is_ok_and(|found| found.is_dir());
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
        let (was_limited, unreadable) = (self.limited, self.unreadable);
        self.watch_tree(folder);
        if self.limited != was_limited || self.unreadable != unreadable {
            self.publish();
        }
        if self.limited && !was_limited { self.lose(GapReason::WatchLimit, None) } else { Ok(()) }
    }

    /// The crate drops the watches of a folder that was removed or moved away, with those beneath it.
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
        self.outlet.send(Signal::Touched(Touch { target: Target::Path(path), at: now(), actor: None, depth, finished }))
    }

    fn overflow(&mut self, count: Option<u64>) -> Result<(), Closed> {
        self.outlet.counters.count(|counters| &counters.overflows);
        // Folders may have come unseen: watch them before their contents are read again.
        for scope in self.scopes.clone() {
            self.watched.retain(|folder| folder.is_dir());
            self.watch_tree(starting_point(&scope.path));
        }
        self.publish();
        self.lose(GapReason::QueueOverflow, count)
    }

    fn lose(&self, reason: GapReason, count: Option<u64>) -> Result<(), Closed> {
        for scope in &self.scopes {
            self.outlet.lose(file_scope(&scope.path), reason, self.caught_up, count)?;
        }
        Ok(())
    }

    fn publish(&self) {
        let rows = self.scopes.iter().map(|scope| {
            let mut reason = scope.reason.clone();
            if self.limited {
                reason = format!(
                    "the host's limit of inotify watches was reached at {} folders: raise fs.inotify.max_user_watches; {reason}",
                    self.watched.len()
                );
            } else if self.unreadable > 0 {
                reason = format!("{} folders could not be watched for lack of permission; {reason}", self.unreadable);
            }
            Coverage { name: "inotify", scope: file_scope(&scope.path), watching: !self.limited, reason: Some(reason) }
        });
        self.coverage.replace("inotify", rows.collect());
    }
}

/// The folder that holds a watched path, or the nearest one above: a path that comes, goes or is
/// replaced is an event of that folder.
fn starting_point(path: &Path) -> &Path {
    nearest_existing(path.parent().unwrap_or(path))
}
