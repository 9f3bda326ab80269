//! The audit sensor: for a few paths of high value the kernel itself says with each system call who made it, also of a
//! process that has ended long before anybody could look at it.
//!
//! It adds to what the other sensors see and replaces none of them: a call that it misses is a touch without it. Invariants: rules
//! have a key of our own, are removed at the end, and so are those that a killed run left; auditing is turned on only where the
//! configuration says so, and off again at the end; nobody ever waits for this daemon; a path counts as
//! touched by a process only if the entry there is the very one that the call named.

pub mod event;
mod netlink;
#[cfg(test)]
mod tests;

use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::{major, minor};
use serde::Deserialize;
use trueline_drift::actor::{Process, User};
use trueline_drift::text::{bounded, printable};
use trueline_drift::watch::WatchPolicy;
use trueline_drift::{Actor, Certainty};

use super::coverage::{ACTORS, Coverage, CoverageTable};
use super::outlet::{Closed, Outlet};
use super::view::{as_path, into_bytes, join};
use super::{Depth, Signal, Target, Touch};
use crate::actor::users::UserNames;
use crate::process::event::Arguments;
use event::{Assembler, Call, Named, Role};
pub(super) use netlink::Reach;
use netlink::{OnFailure, Rule, Socket, Status};

const NAME: &str = "audit";
const OFF: &str = "auditing is off on this host; `audit = \"alone\"` in agent.toml turns it on";
/// What is worth a record of each system call: who may log in and act as whom, what runs by itself, what the host trusts.
pub(super) const VALUED: &[(&str, Reach)] = &[
    ("/etc/passwd", Reach::Entry),
    ("/etc/shadow", Reach::Entry),
    ("/etc/group", Reach::Entry),
    ("/etc/gshadow", Reach::Entry),
    ("/etc/sudoers", Reach::Entry),
    ("/etc/sudoers.d", Reach::Folder),
    ("/etc/ssh", Reach::Folder),
    ("/root/.ssh", Reach::Folder),
    ("/etc/pam.d", Reach::Folder),
    ("/etc/security", Reach::Folder),
    ("/etc/crontab", Reach::Entry),
    ("/etc/cron.d", Reach::Folder),
    ("/etc/cron.hourly", Reach::Folder),
    ("/etc/cron.daily", Reach::Folder),
    ("/etc/cron.weekly", Reach::Folder),
    ("/etc/cron.monthly", Reach::Folder),
    ("/var/spool/cron", Reach::Folder),
    ("/etc/systemd/system", Reach::Folder),
    ("/etc/ld.so.preload", Reach::Entry),
    ("/etc/nsswitch.conf", Reach::Entry),
    ("/etc/hosts", Reach::Entry),
    ("/etc/resolv.conf", Reach::Entry),
    ("/etc/apt/sources.list.d", Reach::Folder),
    ("/etc/apt/trusted.gpg.d", Reach::Folder),
    ("/etc/yum.repos.d", Reach::Folder),
];
/// `AUDIT_REPLACE`: somebody wants to be the audit daemon.
const REPLACE: u16 = 1329;
/// Between two looks whether auditing is still on.
const LOOK: Duration = Duration::from_secs(60);
const PATH_TEXT: usize = 1024;

/// Whether the kernel's audit records are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AuditUse {
    Off,
    /// Where auditing is on already. With it every system call on the host costs a little more, which is not ours to decide.
    #[default]
    Beside,
    /// Also where it is off: it is turned on, and the agent is the audit daemon where there is none.
    Alone,
}

/// The thread, stopped and joined when dropped.
#[derive(Debug)]
pub(super) struct Audit {
    thread: Option<JoinHandle<()>>,
    wake: Option<PipeWriter>,
    orders: Arc<Mutex<Option<WatchPolicy>>>,
}

impl Audit {
    /// What cannot be had is told by its row of the coverage.
    pub fn start(use_: AuditUse, policy: &WatchPolicy, outlet: Outlet, coverage: Arc<CoverageTable>) -> io::Result<Self> {
        let valued = VALUED.iter().map(|(path, reach)| (PathBuf::from(path), *reach)).collect();
        Self::start_on(valued, use_, policy, outlet, coverage)
    }

    fn start_on(
        valued: Vec<(PathBuf, Reach)>,
        use_: AuditUse,
        policy: &WatchPolicy,
        outlet: Outlet,
        coverage: Arc<CoverageTable>,
    ) -> io::Result<Self> {
        let (woken, wake) = io::pipe()?;
        let orders = Arc::new(Mutex::new(Some(policy.clone())));
        let asked = Arc::clone(&orders);
        let run = move || {
            let told = Arc::clone(&coverage);
            match Worker::start(valued, use_, outlet, coverage).and_then(|mut worker| worker.run(&woken, &asked)) {
                // Nobody asked for it to be on.
                Err(reason) if use_ == AuditUse::Beside && reason == OFF => told.replace(NAME, Vec::new()),
                Err(reason) => told.replace(NAME, vec![row(Some(reason))]),
                Ok(()) => {}
            }
        };
        let thread = std::thread::Builder::new().name(NAME.to_owned()).spawn(run)?;
        Ok(Self { thread: Some(thread), wake: Some(wake), orders })
    }

    pub fn update(&self, policy: &WatchPolicy) {
        *self.orders.lock().unwrap_or_else(PoisonError::into_inner) = Some(policy.clone());
        if let Some(mut wake) = self.wake.as_ref() {
            // If the thread has ended there is nothing to update.
            let _ = wake.write_all(b"!");
        }
    }
}

impl Drop for Audit {
    fn drop(&mut self) {
        self.wake = None;
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}

/// Removes what a run left that could not do so itself.
fn remove_left(control: &mut Socket) -> io::Result<()> {
    control.rules()?.iter().try_for_each(|rule| control.remove(rule))
}

/// As [`remove_left`], where the kernel's audit records are not to be used: where it is refused there can be none.
pub(super) fn clear() {
    if let Err(error) = Socket::control().and_then(|mut control| remove_left(&mut control)) {
        tracing::debug!(%error, "the rules of auditing were not looked at");
    }
}

fn row(refusal: Option<String>) -> Coverage {
    Coverage { name: NAME, scope: format!("{ACTORS}*"), watching: refusal.is_none(), reason: refusal }
}

/// The kernel's side, where it may be asked for records as this says.
fn permitted(use_: AuditUse) -> Result<(Socket, Status), String> {
    let mut control = Socket::control().map_err(refused("opening the kernel's audit interface"))?;
    let status = control.status().map_err(refused("asking for the state of auditing"))?;
    if status.is_locked {
        return Err("the rules of auditing are locked until the next boot".to_owned());
    }
    if status.on_failure == OnFailure::Panics {
        return Err("this host is set to stop where an audit record is lost: the agent makes no rules there".to_owned());
    }
    let is_to_begin = use_ == AuditUse::Alone && status.daemon.is_none();
    if !is_to_begin && !status.is_enabled {
        return Err(OFF.to_owned());
    }
    Ok((control, status))
}

fn refused(doing: &str) -> impl FnOnce(io::Error) -> String {
    move |error| format!("{doing}: {error}; it needs CAP_AUDIT_CONTROL and CAP_AUDIT_READ, and the host's own namespaces")
}

/// Why the agent would not be told of audit records as this host is; nothing is changed.
pub fn refusal() -> Option<String> {
    let listened = permitted(AuditUse::Beside).and_then(|_| Socket::listen().map_err(refused("listening to audit records")));
    listened.err()
}

struct Worker {
    /// What is worth a rule where it is watched.
    valued: Vec<(PathBuf, Reach)>,
    control: Socket,
    records: Socket,
    rules: Vec<(PathBuf, Rule)>,
    /// How it was before this process became the audit daemon; `None` where it is not.
    before: Option<Status>,
    policy: Option<WatchPolicy>,
    calls: Assembler,
    users: UserNames,
    outlet: Outlet,
    coverage: Arc<CoverageTable>,
    lost: u64,
}

impl Worker {
    fn start(valued: Vec<(PathBuf, Reach)>, use_: AuditUse, outlet: Outlet, coverage: Arc<CoverageTable>) -> Result<Self, String> {
        let (mut control, status) = permitted(use_)?;
        let is_to_begin = use_ == AuditUse::Alone && status.daemon.is_none();
        let records = Socket::listen().map_err(refused("listening to audit records"))?;
        remove_left(&mut control).map_err(refused("removing rules that an earlier run left"))?;
        // Last: from here on there is something to take back.
        let mut before = None;
        if is_to_begin {
            control.become_daemon().map_err(refused("becoming the audit daemon"))?;
            before = Some(status);
        }
        Ok(Self {
            valued,
            control,
            records,
            rules: Vec::new(),
            before,
            policy: None,
            calls: Assembler::default(),
            users: UserNames::new(Path::new("/etc/passwd")),
            outlet,
            coverage,
            lost: 0,
        })
    }

    fn run(&mut self, mut woken: &PipeReader, orders: &Mutex<Option<WatchPolicy>>) -> Result<(), String> {
        let mut next_look = Instant::now() + LOOK;
        loop {
            if let Some(policy) = orders.lock().unwrap_or_else(PoisonError::into_inner).take() {
                self.follow(policy);
            }
            let mut waiting = [
                PollFd::new(woken.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.records.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.control.as_fd(), PollFlags::POLLIN),
            ];
            let timeout = PollTimeout::try_from(next_look.saturating_duration_since(Instant::now())).unwrap_or(PollTimeout::MAX);
            match poll(&mut waiting, timeout) {
                Ok(_) | Err(nix::errno::Errno::EINTR) => {}
                Err(error) => return Err(format!("waiting for audit records: {error}")),
            }
            let [ordered, recorded, sent] = waiting.map(|fd| fd.revents().is_some_and(|events| !events.is_empty()));
            // Closed, or stopped: the end. A byte: another policy.
            if ordered && (!matches!(woken.read(&mut [0]), Ok(1)) || self.outlet.is_stopping()) {
                return Ok(());
            }
            if recorded && self.take_records()?.is_err() {
                return Ok(());
            }
            if sent {
                self.take_sent();
            }
            if Instant::now() >= next_look {
                next_look = Instant::now() + LOOK;
                self.publish();
            }
        }
    }

    /// Has a rule for every path of value that is watched and there.
    fn follow(&mut self, policy: WatchPolicy) {
        let is_watched = |path: &Path| policy.watches_path(&printable(path.as_os_str().as_encoded_bytes()));
        let valued = self.valued.iter().filter(|(path, _)| is_watched(path));
        let wanted: Vec<(PathBuf, Rule)> = valued.map(|(path, reach)| (path.clone(), Rule::changes_to(path, *reach))).collect();
        let left: Vec<(PathBuf, Rule)> = self.rules.extract_if(.., |rule| !wanted.contains(rule)).collect();
        for (path, rule) in left {
            self.remove(&path, &rule);
        }
        for (path, rule) in wanted {
            if self.rules.iter().any(|(known, _)| *known == path) {
                continue;
            }
            match self.control.add(&rule) {
                Ok(()) => self.rules.push((path, rule)),
                // Not there: who makes it is told by the other sensors alone.
                Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR | libc::EINVAL)) => {}
                Err(error) => {
                    tracing::warn!(path = %path.display(), %error, "no audit rule could be made; who changes it is told by the other sensors")
                }
            }
        }
        self.policy = Some(policy);
        self.publish();
    }

    fn remove(&mut self, path: &Path, rule: &Rule) {
        if let Err(error) = self.control.remove(rule)
            && error.raw_os_error() != Some(libc::ENOENT)
        {
            tracing::warn!(path = %path.display(), %error, "an audit rule could not be removed: `auditctl -D -k trueline` does");
        }
    }

    fn publish(&mut self) {
        let refusal = match self.control.status() {
            Ok(status) if !status.is_enabled => Some(OFF.to_owned()),
            Ok(_) if self.lost > 0 => Some(format!("{} times records came faster than they could be read", self.lost)),
            Ok(_) => None,
            Err(error) => Some(format!("asking for the state of auditing: {error}")),
        };
        let watching = refusal.is_none() || self.lost > 0;
        self.coverage.replace(NAME, vec![Coverage { watching, ..row(refusal) }]);
    }

    /// What the kernel sends to its daemon: the same records as everybody hears, and the question whether it may be another.
    fn take_sent(&mut self) {
        let mut buffer = Socket::buffer();
        loop {
            match self.control.receive(&mut buffer) {
                Ok(Some(record)) if record.kind == REPLACE => {
                    if let Some(before) = self.before.take() {
                        tracing::info!("another audit daemon has come: the agent listens beside it");
                        if let Err(error) = self.control.leave_to_another(&before) {
                            tracing::warn!(%error, "the agent could not give up being the audit daemon");
                        }
                    }
                }
                Ok(Some(_)) => {}
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {}
                Ok(None) | Err(_) => return,
            }
        }
    }

    fn take_records(&mut self) -> Result<Result<(), Closed>, String> {
        let mut buffer = Socket::buffer();
        loop {
            let call = match self.records.receive(&mut buffer) {
                Ok(Some(record)) => self.calls.take(record.kind, record.text),
                Ok(None) => return Ok(Ok(())),
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                    self.lost += 1;
                    None
                }
                Err(error) => return Err(format!("reading audit records: {error}")),
            };
            if let Some(call) = call
                && call.pid != std::process::id()
                && self.tell(&call).is_err()
            {
                return Ok(Err(Closed));
            }
        }
    }

    fn tell(&mut self, call: &Call) -> Result<(), Closed> {
        let paths: Vec<Vec<u8>> = touched(call).collect();
        if paths.is_empty() {
            return Ok(());
        }
        let actor = Arc::new(self.actor(call));
        for path in paths {
            if self.policy.as_ref().is_some_and(|policy| policy.watches_path(&printable(&path))) {
                let (target, actor) = (Target::Path(path), Some(Arc::clone(&actor)));
                // That a file was opened to be written says nothing of a write.
                let touch =
                    Touch { target, at: call.at, actor, depth: Depth::Item, wrote: false, entry: None, finished: true, generation: None };
                self.outlet.send(Signal::Touched(touch))?;
            }
        }
        Ok(())
    }

    fn actor(&mut self, call: &Call) -> Actor {
        let text = |bytes: &[u8]| bounded(&printable(bytes), PATH_TEXT).into_owned();
        let process = Process {
            exe: call.exe.as_deref().map(text),
            argv: Arguments::new(&call.title).masked(),
            cwd: call.cwd.as_deref().map(text),
            ..Process::bare(call.pid)
        };
        Actor {
            certainty: Certainty::Exact,
            via: vec![NAME.to_owned()],
            process: Some(process),
            parents: vec![Process::bare(call.parent)],
            user: Some(User {
                uid: call.uid,
                euid: Some(call.euid),
                // A process may have written itself any login: whose it is tells who watched it (`process/login.rs`).
                login_uid: None,
                name: self.users.name(call.uid),
                login_name: None,
            }),
            reason: None,
            ..Actor::unknown("")
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        for (path, rule) in std::mem::take(&mut self.rules) {
            self.remove(&path, &rule);
        }
        if let Some(before) = self.before.take()
            && let Err(error) = self.control.resign(&before)
        {
            tracing::warn!(%error, "the agent could not give up being the audit daemon: `auditctl -e 0` turns auditing off");
        }
    }
}

/// The paths that the call touched, by their real folders.
fn touched(call: &Call) -> impl Iterator<Item = Vec<u8>> {
    let folders: Vec<&Named> = call.paths.iter().filter(|path| path.role == Role::Folder).collect();
    call.paths.iter().filter(|path| path.role != Role::Folder).filter_map(move |named| {
        let path = match (named.name.first()?, &call.cwd) {
            (b'/', _) => named.name.clone(),
            (_, Some(cwd)) => join(cwd, &named.name),
            (_, None) => return None,
        };
        let path = as_path(&path);
        let folder = path.parent()?.canonicalize().ok()?;
        let real = folder.join(path.file_name()?);
        let is_it = |path: &Path, named: &Named| path.symlink_metadata().is_ok_and(|there| is_same(&there, named));
        // A name means another file in another root folder or mount namespace, and by now perhaps here too.
        let holds = match named.role {
            Role::Removed => folders.iter().any(|named| is_it(&folder, named)),
            _ => is_it(&real, named) || folders.iter().any(|named| is_it(&folder, named)),
        };
        holds.then(|| into_bytes(real))
    })
}

fn is_same(there: &std::fs::Metadata, named: &Named) -> bool {
    there.ino() == named.inode && (major(there.dev()), minor(there.dev())) == (u64::from(named.device.0), u64::from(named.device.1))
}
