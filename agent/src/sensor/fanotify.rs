//! The fanotify sensor: one thread that marks every file system holding what is watched and turns the
//! kernel's events into touches with their actors.
//!
//! Invariants: an event out of view costs no look at its process; an event in view is passed on or the
//! loss is reported; marks follow the mounts. The thread runs at real-time priority where that is
//! permitted, because a process that has ended can no longer be read.

mod marks;

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use trueline_drift::watch::WatchPolicy;
use trueline_drift::{Actor, GapReason, Time};

use super::coverage::{Coverage, CoverageTable};
use super::directories::{Directories, Directory};
use super::inotify::Inotify;
use super::mounts::Mount;
use super::outlet::{Closed, Outlet, now};
use super::resolve::{Found, Place, find_path};
use super::sensors::SensorError;
use super::sysctl::{Sysctls, setting_of};
use super::view::{View, as_path, join};
use super::{Depth, Signal, Target, Touch};
use crate::actor::ActorReader;
use crate::kernel::fanotify::{Event, EventPidfd, Group, Report};
use crate::kernel::thread::run_real_time;

const ENTRY_MASK: u64 = libc::FAN_CREATE | libc::FAN_DELETE | libc::FAN_MOVED_FROM | libc::FAN_MOVED_TO;
const MASK: u64 = ENTRY_MASK | libc::FAN_MODIFY | libc::FAN_CLOSE_WRITE | libc::FAN_ATTRIB | libc::FAN_ONDIR;
/// Holds about 200 events, each of which may open a descriptor: well below the usual limit of 1,024.
const BUFFER: usize = 16 << 10;
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
    /// The policy that is to be followed next.
    orders: Arc<Mutex<Option<WatchPolicy>>>,
    outlet: Outlet,
}

impl Fanotify {
    /// On return the marks are in place.
    pub fn start(policy: &WatchPolicy, outlet: Outlet, coverage: Arc<CoverageTable>) -> Result<Self, SensorError> {
        let refused = |source| SensorError::Fanotify { source };
        let group = Group::open(Report::Names).map_err(refused)?;
        let (woken, wake) = io::pipe().map_err(refused)?;
        let orders = Arc::new(Mutex::new(None));
        let mut worker = Worker {
            orders: Arc::clone(&orders),
            sysctls: Sysctls::start(),
            mount_table: File::open("/proc/self/mountinfo").map_err(refused)?,
            group,
            view: View::new(policy),
            policy: policy.clone(),
            mounts: Vec::new(),
            places: HashMap::new(),
            marks: HashMap::new(),
            directories: Directories::default(),
            actors: ActorReader::new("fanotify"),
            outlet: outlet.clone(),
            coverage,
            rows: Vec::new(),
            fallback: None,
            ordinary_priority: false,
            is_stale: false,
            caught_up: now(),
        };
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
        *self.orders.lock().unwrap_or_else(PoisonError::into_inner) = Some(policy.clone());
        if let Some(mut wake) = self.wake.as_ref() {
            // If the thread has ended there is nothing to update.
            let _ = wake.write_all(b"!");
        }
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
    orders: Arc<Mutex<Option<WatchPolicy>>>,
    group: Group,
    sysctls: io::Result<Sysctls>,
    mount_table: File,
    policy: WatchPolicy,
    view: View,
    mounts: Vec<Mount>,
    places: HashMap<[u8; 8], Vec<Place>>,
    /// Marked file systems, and a path to unmark each by.
    marks: HashMap<[u8; 8], PathBuf>,
    directories: Directories,
    actors: ActorReader,
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

impl Worker {
    fn run(mut self, woken: &PipeReader) {
        self.ordinary_priority = run_real_time().is_err();
        self.publish();
        let mut buffer = vec![0; BUFFER];
        // It ends when the pipe is closed or nobody takes the signals.
        while self.turn(woken, &mut buffer).is_ok() {}
    }

    fn turn(&mut self, mut woken: &PipeReader, buffer: &mut [u8]) -> Result<(), Closed> {
        // Without the sysctl group the pipe stands in for it, so that the places stay the same.
        let sysctls = self.sysctls.as_ref().map_or(woken.as_fd(), |sysctls| sysctls.as_fd());
        let mut waiting = [
            PollFd::new(woken.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.mount_table.as_fd(), PollFlags::POLLPRI),
            PollFd::new(self.group.as_fd(), PollFlags::POLLIN),
            PollFd::new(sysctls, PollFlags::POLLIN),
        ];
        match poll(&mut waiting, PollTimeout::NONE) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(error) => return self.fail("waiting for events", &error.into()),
        }
        let [ordered, remounted, files, settings] = waiting.map(|fd| fd.revents().is_some_and(|events| !events.is_empty()));
        if ordered {
            if !matches!(woken.read(&mut [0]), Ok(1)) || self.outlet.is_stopping() {
                return Err(Closed);
            }
            if let Some(policy) = self.orders.lock().unwrap_or_else(PoisonError::into_inner).take() {
                self.policy = policy;
                self.is_stale = true;
            }
        }
        if files {
            self.take_files(buffer)?;
        }
        if settings {
            self.take_sysctls(buffer)?;
        }
        if std::mem::take(&mut self.is_stale) || remounted {
            self.refresh()?;
        }
        Ok(())
    }

    fn take_files(&mut self, buffer: &mut [u8]) -> Result<(), Closed> {
        for _ in 0..READS {
            let batch = match self.group.read(buffer) {
                Ok(batch) => batch,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.caught_up = now();
                    return Ok(());
                }
                Err(error) => return self.fail("reading file events", &error),
            };
            let emptied = batch.emptied(BUFFER);
            for event in batch {
                match event {
                    Ok(event) => self.take_file(&event)?,
                    Err(error) => self.lose("file:*", GapReason::SensorLost, &error)?,
                }
            }
            if emptied {
                self.caught_up = now();
                return Ok(());
            }
        }
        Ok(())
    }

    fn take_file(&mut self, event: &Event<'_>) -> Result<(), Closed> {
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
                let actor = self.actor(event);
                self.touch(Target::Path(super::view::into_bytes(root)), actor, Depth::Tree, true)?;
            }
        }
        if !self.view.contains(&path) {
            return Ok(());
        }
        let is_folder = record.mask & libc::FAN_ONDIR != 0;
        let depth = if directory.is_above || (is_folder && is_entry) { Depth::Tree } else { Depth::Item };
        let finished = record.mask & (ENTRY_MASK | libc::FAN_CLOSE_WRITE | libc::FAN_ATTRIB) != 0;
        let actor = self.actor(event);
        self.touch(Target::Path(path), actor, depth, finished)
    }

    fn take_sysctls(&mut self, buffer: &mut [u8]) -> Result<(), Closed> {
        for _ in 0..READS {
            let Ok(sysctls) = &self.sysctls else { return Ok(()) };
            let batch = match sysctls.read(buffer) {
                Ok(batch) => batch,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM)) => {
                    return self.lose("sysctl:*", GapReason::SensorLost, &error);
                }
                // The event's file belonged to a process that has ended: no setting does.
                Err(_) => continue,
            };
            for event in batch {
                self.outlet.counters.count(|counters| &counters.events);
                match event {
                    Ok(event) if event.record.overflowed() => self.overflow("sysctl:*")?,
                    Ok(event) => {
                        if let Some(name) = setting_of(&event).filter(|name| self.view.contains_sysctl(name)) {
                            let actor = self.actor(&event);
                            self.touch(Target::Sysctl(name), actor, Depth::Item, true)?;
                        }
                    }
                    Err(error) => self.lose("sysctl:*", GapReason::SensorLost, &error)?,
                }
            }
        }
        Ok(())
    }

    fn actor(&mut self, event: &Event<'_>) -> Option<Arc<Actor>> {
        let pid = u32::try_from(event.record.pid).unwrap_or(0);
        Some(match &event.pidfd {
            EventPidfd::Open(pidfd) => self.actors.read(pid, Some(pidfd)),
            EventPidfd::Ended => self.actors.read_ended(pid),
            EventPidfd::Absent => self.actors.read(pid, None),
        })
    }

    fn touch(&self, target: Target, actor: Option<Arc<Actor>>, depth: Depth, finished: bool) -> Result<(), Closed> {
        self.outlet.send(Signal::Touched(Touch { target, at: now(), actor, depth, finished }))
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
    fn fail(&mut self, doing: &str, error: &io::Error) -> Result<(), Closed> {
        tracing::error!(%error, "the fanotify sensor has stopped while {doing}; changes will be found by scans alone");
        for row in &mut self.rows {
            row.watching = false;
            row.reason = Some(format!("the sensor stopped while {doing}: {error}"));
        }
        self.coverage.replace("fanotify", std::mem::take(&mut self.rows));
        self.outlet.lose("*".to_owned(), GapReason::SensorLost, self.caught_up, None)?;
        Err(Closed)
    }
}
