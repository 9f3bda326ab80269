//! The fanotify sensor: one thread that marks every file system holding what is watched and turns the
//! kernel's events into touches with their actors.
//!
//! Invariants: an event out of view costs no look at its process; an event in view is passed on or the
//! loss is reported; marks follow the mounts. The thread runs at real-time priority where that is
//! permitted, because a process that has ended can no longer be read.

mod hooked;
mod marks;
mod noticed;
mod pace;
mod progress;
mod whose;

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use trueline_drift::watch::WatchPolicy;
use trueline_drift::{Actor, GapReason, ItemKind, Time};

use super::coverage::{Coverage, CoverageTable};
use super::directories::{Directories, Directory};
use super::hooks::{self, Hooks};
use super::inotify::Inotify;
use super::mounts::Mount;
use super::notices::{self, Notices};
use super::outlet::{Backlog, Closed, Outlet, now};
use super::resolve::{Found, Place, find_path};
use super::sensors::SensorError;
use super::sysctl::{Sysctls, Written, written};
use super::view::{View, as_path, join};
use super::{CatchUp, Deed, Depth, Entry, Signal, Target, Touch};
use crate::actor::ActorReader;
use crate::clock;
use crate::kernel::fanotify::{Event, Group, Report};
use crate::kernel::thread::run_real_time;
use crate::process::Processes;
use crate::process::event::BootTime;
use crate::process::feed::FeedChoice;
use crate::process::order::Sighting;
use pace::Pace;
pub use progress::GRACE;
use progress::Progress;

const ENTRY_MASK: u64 = libc::FAN_CREATE | libc::FAN_DELETE | libc::FAN_MOVED_FROM | libc::FAN_MOVED_TO;
const MASK: u64 = ENTRY_MASK | libc::FAN_MODIFY | libc::FAN_CLOSE_WRITE | libc::FAN_ATTRIB | libc::FAN_ONDIR;
/// Holds about 50 events, each of which may open a descriptor: well below the usual limit of 1,024. While a reading goes on nobody knows
/// how far it is, so what a process did meanwhile has no certain place among the events: short ones leave few in doubt.
const BUFFER: usize = 4 << 10;
/// Holds one event of the longest kind, and several of those about settings.
const SHORT_BUFFER: usize = 1 << 10;
/// Touches that may wait for the observer, besides those in the channel: four times the kernel's own queue, a few hundred bytes each.
const BACKLOG: usize = 65_536;
/// Between two looks at all that the kernel tells of what it holds, where nothing but a process that started asks for them.
const LOOK_AGAIN: Duration = Duration::from_micros(200);
/// Reads of one queue before the others are looked at.
const READS: usize = 64;
/// Id of the file system, then the longest handle.
const KEY: usize = 8 + 8 + crate::kernel::handle::HANDLE_LIMIT;
const UNNAMED: &str = "runs at ordinary priority: processes that end at once may not be named";

/// The thread, stopped and joined when dropped.
#[derive(Debug)]
pub(super) struct Fanotify {
    thread: Option<JoinHandle<()>>,
    /// Closing it ends the thread's waiting.
    wake: Option<PipeWriter>,
    orders: Arc<Mutex<Orders>>,
    outlet: Outlet,
}

/// What is asked of the thread and not yet done.
#[derive(Debug, Default, PartialEq, Eq)]
struct Orders {
    /// To be followed next.
    policy: Option<WatchPolicy>,
    catch_up: Option<CatchUp>,
    tell_progress: bool,
}

impl Fanotify {
    /// On return the marks are in place.
    pub fn start(policy: &WatchPolicy, outlet: Outlet, coverage: Arc<CoverageTable>, feed: FeedChoice) -> Result<Self, SensorError> {
        let refused = |source| SensorError::Fanotify { source };
        let group = Group::open(Report::Names).map_err(refused)?;
        // Before anything is marked: all that a process does from then on is done by one that is known.
        let processes = Processes::start(feed, group.as_fd());
        let (hooks, hook_rows) = Hooks::start(&processes);
        coverage.replace(hooks::NAME, hook_rows);
        let (woken, wake) = io::pipe().map_err(refused)?;
        let orders = Arc::new(Mutex::new(Orders::default()));
        let mut worker = Worker {
            orders: Arc::clone(&orders),
            catch_up: None,
            progress: Progress::new(clock::inode_tick()),
            pace: Pace::default(),
            sysctls: Sysctls::start(),
            notices: Notices::start(),
            mounters: Vec::new(),
            mount_table: File::open("/proc/self/mountinfo").map_err(refused)?,
            group,
            view: View::new(policy),
            policy: policy.clone(),
            mounts: Vec::new(),
            places: HashMap::new(),
            marks: HashMap::new(),
            directories: Directories::default(),
            actors: ActorReader::new("fanotify"),
            kernel_emptied: BootTime::now(),
            kernel_told: Time::default(),
            processes,
            hooks,
            is_informed: false,
            outlet: outlet.with_backlog(BACKLOG),
            coverage,
            rows: Vec::new(),
            fallback: None,
            ordinary_priority: false,
            is_stale: false,
            caught_up: now(),
        };
        worker.processes.files.emptied(worker.kernel_emptied);
        worker.coverage.replace("process", vec![worker.processes_covered()]);
        worker.coverage.replace(notices::NAME, worker.notices_covered());
        if let Some(in_place) = worker.mark_mounts().map_err(refused)? {
            // An error means that the fallback has stopped, which its coverage tells.
            let _ = in_place.recv();
        }
        let thread = std::thread::Builder::new()
            .name("fanotify".to_owned())
            .spawn(move || worker.run(&woken))
            .map_err(|source| SensorError::Thread { source })?;
        Ok(Self { thread: Some(thread), wake: Some(wake), orders, outlet })
    }

    pub fn update(&self, policy: &WatchPolicy) {
        // If the thread has ended there is nothing to update.
        self.order(|orders| orders.policy = Some(policy.clone()));
    }

    pub fn is_running(&self) -> bool {
        self.thread.as_ref().is_some_and(|thread| !thread.is_finished())
    }

    /// As [`super::Sensors::catch_up`].
    pub fn catch_up(&self, question: CatchUp) -> bool {
        self.is_running() && self.order(|orders| orders.catch_up = Some(question))
    }

    /// Asks for a [`Signal::ToldUntil`] later than the last.
    pub fn tell_progress(&self) {
        self.order(|orders| orders.tell_progress = true);
    }

    fn order(&self, change: impl FnOnce(&mut Orders)) -> bool {
        let is_awake = {
            let mut orders = self.orders.lock().unwrap_or_else(PoisonError::into_inner);
            // The thread takes the byte before the orders, so one is enough for all of them; more would fill the pipe while the thread
            // waits for whoever gives the orders.
            let is_awake = *orders != Orders::default();
            change(&mut orders);
            is_awake
        };
        // With the orders free: the thread runs at once, and would wait for this one, which anybody's processes keep from running.
        is_awake || self.wake.as_ref().is_some_and(|mut wake| wake.write_all(b"!").is_ok())
    }
}

impl Drop for Fanotify {
    fn drop(&mut self) {
        self.outlet.stop();
        self.wake = None;
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}

struct Worker {
    orders: Arc<Mutex<Orders>>,
    /// Answered once both queues were seen to be empty.
    catch_up: Option<CatchUp>,
    progress: Progress,
    pace: Pace,
    group: Group,
    sysctls: io::Result<Sysctls>,
    notices: Notices,
    /// Who mounted or unmounted since the table of mounts was last looked at.
    mounters: Vec<Arc<Actor>>,
    mount_table: File,
    policy: WatchPolicy,
    view: View,
    mounts: Vec<Mount>,
    places: HashMap<[u8; 8], Vec<Place>>,
    /// Marked file systems, and a path to unmark each by.
    marks: HashMap<[u8; 8], PathBuf>,
    directories: Directories,
    actors: ActorReader,
    processes: Processes,
    /// On the operations themselves, where the kernel has them.
    hooks: Option<Hooks>,
    /// What the feed of processes told until the last reading of events has been taken.
    is_informed: bool,
    /// Nothing that the kernel tells of what it holds waited at this time,
    kernel_emptied: BootTime,
    /// nor at this one, which is the same or shortly before.
    kernel_told: Time,
    outlet: Outlet,
    coverage: Arc<CoverageTable>,
    rows: Vec<Coverage>,
    /// For what fanotify refuses.
    fallback: Option<Inotify>,
    ordinary_priority: bool,
    /// A watched path, or one on the way to it, came or went: roots and marks must be found anew.
    is_stale: bool,
    /// Every event before this time has been taken from the kernel.
    caught_up: Time,
}

/// One moment by two clocks.
#[derive(Debug, Clone, Copy)]
struct Moment {
    at: BootTime,
    /// That which inodes are stamped with. Its steps are coarse: it says this moment or one before.
    stamped: Time,
}

impl Moment {
    fn now() -> Self {
        Self { stamped: clock::inode_now(), at: BootTime::now() }
    }
}

/// Of events that wait for the thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Queue {
    Empty,
    MayHoldMore,
}

impl Worker {
    fn run(mut self, woken: &PipeReader) {
        self.ordinary_priority = run_real_time().is_err();
        self.publish();
        let mut buffer = vec![0; BUFFER];
        // It ends when the pipe is closed or nobody takes the signals.
        if self.take_hooks().is_err() {
            return;
        }
        while self.turn(woken, &mut buffer).is_ok() {}
        // Where it fails, what is left is still told, and that it failed.
        self.outlet.empty();
    }

    fn turn(&mut self, mut woken: &PipeReader, buffer: &mut [u8]) -> Result<(), Closed> {
        self.tell_progress()?;
        // The pipe stands in for what there is not, so that the places stay the same.
        let [news, users] = self.processes.descriptors();
        let [host_mounts, mounters, modules, firewall, network] = self.notices.descriptors();
        let sysctls = self.sysctls.as_ref().map_or(woken.as_fd(), |sysctls| sysctls.as_fd());
        let began = Moment::now();
        let gathering = self.pace.wait(began.at).filter(|_| self.processes.tells_all());
        let of_files = if gathering.is_some() { PollFlags::empty() } else { PollFlags::POLLIN };
        let mut waiting = [
            PollFd::new(woken.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.mount_table.as_fd(), PollFlags::POLLPRI),
            PollFd::new(self.group.as_fd(), of_files),
            PollFd::new(sysctls, PollFlags::POLLIN),
            PollFd::new(news.unwrap_or(woken.as_fd()), PollFlags::POLLIN),
            PollFd::new(users.unwrap_or(woken.as_fd()), PollFlags::POLLIN),
            PollFd::new(self.hooks.as_ref().map_or(woken.as_fd(), Hooks::descriptor), PollFlags::POLLIN),
            PollFd::new(host_mounts.unwrap_or(woken.as_fd()), PollFlags::POLLPRI),
            PollFd::new(mounters.unwrap_or(woken.as_fd()), PollFlags::POLLIN),
            PollFd::new(modules.unwrap_or(woken.as_fd()), PollFlags::POLLIN),
            PollFd::new(firewall.unwrap_or(woken.as_fd()), PollFlags::POLLIN),
            PollFd::new(network.unwrap_or(woken.as_fd()), PollFlags::POLLIN),
        ];
        // What waits in the backlog is passed on as soon as somebody takes signals again.
        let timeout = match self.outlet.flush()? {
            Backlog::Waiting(wait) => Some(wait),
            // Until it can be told that nothing is to come of what happened.
            Backlog::Empty => self.progress.wait(clock::inode_now()),
        };
        let timeout = timeout.into_iter().chain(gathering).min();
        let timeout = timeout.map_or(PollTimeout::NONE, |wait| PollTimeout::try_from(wait).unwrap_or(PollTimeout::ZERO));
        match poll(&mut waiting, timeout) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(error) => return Err(self.fail("waiting for events", &error.into())),
        }
        let [ordered, remounted, files, settings, news, users, hooked, mounted, mounters, modules, firewall, network] =
            waiting.map(|fd| fd.revents().is_some_and(|events| !events.is_empty()));
        if ordered {
            if !matches!(woken.read(&mut [0]), Ok(1)) || self.outlet.is_stopping() {
                return Err(Closed);
            }
            let Orders { policy, catch_up, tell_progress } =
                std::mem::take(&mut *self.orders.lock().unwrap_or_else(PoisonError::into_inner));
            if let Some(policy) = policy {
                self.policy = policy;
                self.is_stale = true;
            }
            self.catch_up = catch_up.or(self.catch_up);
            if tell_progress {
                self.progress.touched(clock::inode_now());
            }
        }
        if !files && gathering.is_none() {
            self.processes.files.emptied(began.at);
        }
        if ![settings, hooked, mounters, modules, firewall, network].contains(&true) {
            self.kernel_was_quiet(began);
        }
        if news || users {
            self.take_processes();
            // Who has just started does nothing that is in doubt, once all from before has been taken.
            if BootTime::now().since(self.kernel_emptied) > LOOK_AGAIN {
                self.take_kernel(&mut [0; SHORT_BUFFER])?;
            }
        }
        if hooked {
            self.take_hooks()?;
        }
        if mounted {
            self.touch_kind(ItemKind::Mount, None, None)?;
        }
        // The order was given before these were found to be ready or not: what is not ready was empty then.
        let files = match () {
            () if files => self.take_files(buffer)?,
            () if gathering.is_some() => Queue::MayHoldMore,
            () => Queue::Empty,
        };
        let is_told = settings || mounters || modules || firewall || network;
        let settings = if is_told { self.take_kernel(buffer)? } else { Queue::Empty };
        if let (Queue::Empty, Queue::Empty, Some(question)) = (files, settings, self.catch_up) {
            self.catch_up = None;
            self.outlet.send(Signal::CaughtUp(question))?;
        }
        if std::mem::take(&mut self.is_stale) || remounted {
            self.refresh()?;
        }
        Ok(())
    }

    fn take_files(&mut self, buffer: &mut [u8]) -> Result<Queue, Closed> {
        for _ in 0..READS {
            let began = BootTime::now();
            let batch = match self.group.read(buffer) {
                Ok(batch) => batch,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.processes.files.emptied(began);
                    self.pace.emptied(began);
                    self.caught_up = now();
                    return Ok(Queue::Empty);
                }
                Err(error) => return Err(self.fail("reading file events", &error)),
            };
            let reading = self.processes.files.read(began, BootTime::now(), batch.events());
            self.pace.read(batch.events());
            self.is_informed = false;
            // Read on until nothing waits, though this reading may have been the last: that nothing did is known of a moment after it
            // only then, and settles what happened while it went on.
            // A login that was given before one of these events, and is told through the other queue.
            self.take_sysctls(&mut [0; SHORT_BUFFER])?;
            self.take_hooks()?;
            for (number, event) in batch.enumerate() {
                match event {
                    Ok(event) => self.take_file(&event, &reading.sighting(number))?,
                    Err(error) => self.lose("file:*", GapReason::SensorLost, &error)?,
                }
            }
        }
        Ok(Queue::MayHoldMore)
    }

    fn take_file(&mut self, event: &Event<'_>, sighting: &Sighting) -> Result<(), Closed> {
        self.outlet.counters.count(|counters| &counters.events);
        let record = &event.record;
        if record.overflowed() {
            return self.overflow("file:*");
        }
        let Some(entry) = &record.entry else { return Ok(()) };
        let Some(directory) = self.directory(entry.filesystem, entry.folder)? else { return Ok(()) };
        let moved_away = record.mask & (libc::FAN_ONDIR | libc::FAN_MOVED_FROM) == libc::FAN_ONDIR | libc::FAN_MOVED_FROM;
        if !directory.reaches_view && !moved_away {
            return Ok(());
        }
        let path = match entry.name {
            Some(name) if !directory.is_above => join(&directory.path, name),
            _ => directory.path.to_vec(),
        };
        if moved_away {
            self.directories.forget_beneath(&path);
        }
        let is_entry = record.mask & ENTRY_MASK != 0;
        if is_entry && self.view.leads_to_root(&path) {
            self.is_stale = true;
            let roots: Vec<PathBuf> = self.view.roots_beneath(as_path(&path)).cloned().collect();
            for root in roots {
                let actor = self.actor(event, sighting)?;
                self.touch(Target::Path(super::view::into_bytes(root)), actor, Depth::Tree, None, record.mask)?;
            }
        }
        if !self.view.contains(&path) {
            return Ok(());
        }
        let is_folder = record.mask & libc::FAN_ONDIR != 0;
        let depth = if directory.is_above || (is_folder && is_entry) { Depth::Tree } else { Depth::Item };
        let actor = self.actor(event, sighting)?;
        // Of a folder above the path it is another entry's.
        let done = done_to_entry(record.mask).filter(|_| !directory.is_above);
        self.touch(Target::Path(path), actor, depth, done, record.mask)
    }

    /// All that the kernel tells of what it holds.
    fn take_kernel(&mut self, buffer: &mut [u8]) -> Result<Queue, Closed> {
        let began = Moment::now();
        let queue = self.take_sysctls(buffer)?;
        self.take_hooks()?;
        self.take_notices(began)?;
        if queue == Queue::Empty {
            self.kernel_was_quiet(began);
        }
        Ok(queue)
    }

    fn take_sysctls(&mut self, buffer: &mut [u8]) -> Result<Queue, Closed> {
        for _ in 0..READS {
            let Ok(sysctls) = &self.sysctls else { return Ok(Queue::Empty) };
            let began = Moment::now();
            let batch = match sysctls.read(buffer) {
                Ok(batch) => batch,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Queue::Empty),
                Err(error) if matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM)) => {
                    return self.lose("sysctl:*", GapReason::SensorLost, &error).map(|()| Queue::MayHoldMore);
                }
                // The event's file belonged to a process that has ended: no setting does.
                Err(_) => continue,
            };
            let sighting = Sighting::unplaced(self.kernel_emptied, began.at, BootTime::now());
            self.is_informed = false;
            for event in batch {
                self.outlet.counters.count(|counters| &counters.events);
                match event {
                    Ok(event) if event.record.overflowed() => {
                        self.processes.look_at_all_soon();
                        self.overflow("sysctl:*")?;
                    }
                    Ok(event) => match written(&event) {
                        Some(Written::Setting(name)) if self.view.contains_sysctl(&name) => {
                            let actor = self.actor(&event, &sighting)?;
                            // It takes effect with the writing: closing would tell nothing more.
                            self.touch(Target::Sysctl(name), actor, Depth::Item, None, libc::FAN_MODIFY | libc::FAN_CLOSE_WRITE)?;
                        }
                        Some(Written::Login(pid)) => self.take_login(pid),
                        _ => {}
                    },
                    Err(error) => self.lose("sysctl:*", GapReason::SensorLost, &error)?,
                }
            }
        }
        Ok(Queue::MayHoldMore)
    }

    fn touch(&mut self, target: Target, actor: Option<Arc<Actor>>, depth: Depth, entry: Option<Entry>, mask: u64) -> Result<(), Closed> {
        let wrote = mask & (ENTRY_MASK | libc::FAN_MODIFY) != 0;
        let finished = mask & (ENTRY_MASK | libc::FAN_CLOSE_WRITE | libc::FAN_ATTRIB) != 0;
        self.progress.touched(clock::inode_now());
        self.outlet.send(Signal::Touched(Touch { target, at: now(), actor, depth, wrote, entry, finished, generation: None }))
    }

    fn tell_progress(&mut self) -> Result<(), Closed> {
        let group = &self.group;
        match self.progress.told(clock::inode_now(), self.processes.files.taken(), || group.pending()) {
            Some(files) => {
                // Else it would be as old as the last sleep, and a setting that was just read would wait for the next one.
                self.take_kernel(&mut [0; SHORT_BUFFER])?;
                self.outlet.send(Signal::ToldUntil { files, kernel: self.kernel_told })
            }
            None => Ok(()),
        }
    }

    /// `None` when the folder is gone: what happened above it tells of that.
    fn directory(&mut self, filesystem: [u8; 8], handle: &[u8]) -> Result<Option<Directory>, Closed> {
        let mut buffer = [0; KEY];
        let length = 8 + handle.len();
        let Some(key) = buffer.get_mut(..length) else { return Ok(None) };
        key[..8].copy_from_slice(&filesystem);
        key[8..].copy_from_slice(handle);
        if let Some(known) = self.directories.find(key) {
            return Ok(Some(known.clone()));
        }
        let Some(places) = self.places.get(&filesystem) else { return Ok(None) };
        let (path, is_above) = match find_path(places, handle, &self.view) {
            Ok(Found::Path(path)) => (path, false),
            Ok(Found::Above(path)) => (path, true),
            Ok(Found::Gone) => return Ok(None),
            Err(error) => return self.lose("file:*", GapReason::SensorLost, &error).map(|()| None),
        };
        let directory = Directory { reaches_view: self.view.reaches(&path), path: path.into(), is_above };
        self.directories.insert(key, directory.clone());
        Ok(Some(directory))
    }

    fn overflow(&mut self, scope: &str) -> Result<(), Closed> {
        self.outlet.counters.count(|counters| &counters.overflows);
        // A rename may be among the lost events, so no remembered path can be relied on.
        self.directories.clear();
        self.is_stale = true;
        self.outlet.lose(scope.to_owned(), GapReason::QueueOverflow, self.caught_up, None)
    }

    fn lose(&mut self, scope: &str, reason: GapReason, error: &dyn std::error::Error) -> Result<(), Closed> {
        tracing::warn!(scope, %error, "an event could not be read; its scope will be read again");
        self.outlet.lose(scope.to_owned(), reason, self.caught_up, None)
    }

    /// The sensor cannot go on: that is said before its thread ends.
    fn fail(&mut self, doing: &str, error: &io::Error) -> Closed {
        tracing::error!(%error, "the fanotify sensor has stopped while {doing}; changes will be found by scans alone");
        let scopes = self.rows.drain(..).map(|row| row.scope).chain(std::iter::once("sysctl:*".to_owned()));
        let reason = Some(format!("the sensor stopped while {doing}: {error}"));
        let lost = scopes.map(|scope| Coverage { name: "fanotify", scope, watching: false, reason: reason.clone() });
        let lost = lost.filter(|row| row.scope != "sysctl:*" || self.policy.watches_kind(ItemKind::Sysctl)).collect();
        self.coverage.replace("fanotify", lost);
        // Nobody listens any more where this fails: either way the thread ends.
        let _ = self.outlet.lose("*".to_owned(), GapReason::SensorLost, self.caught_up, None);
        Closed
    }
}

fn done_to_entry(mask: u64) -> Option<Entry> {
    let was_made = mask & (libc::FAN_CREATE | libc::FAN_MOVED_TO) != 0;
    let last = if was_made { Deed::Made } else { Deed::Removed };
    (mask & ENTRY_MASK != 0).then_some(Entry { last, was_made, was_renamed_away: mask & libc::FAN_MOVED_FROM != 0 })
}
