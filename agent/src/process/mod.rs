//! Which process had a pid when a file event came about, and what it was doing then.
//!
//! [`Processes`] belongs to the thread that reads file events, and to no other: it reads a batch, then takes all that the feed told
//! until then, so that whatever can have made an event of the batch is in the table, and only then asks. What the feed lost
//! makes the table's answers doubtful until all living processes have been looked at in /proc.
//!
//! It names processes and never judges; `actor/` makes actors of its answers.

pub mod cgroups;
pub mod event;
pub mod feed;
pub mod generation;
pub mod login;
mod numbers;
pub mod order;
pub(crate) mod survey;
pub mod table;

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use cgroups::Cgroups;
use event::{BootTime, Standing, Subject};
use feed::{Drain, Feed, FeedChoice, Found, News, Refusal};
use generation::Ancestor;
use login::{Login, SelfGiven};
use numbers::Numbers;
use order::{Fence, FileQueue, Sighting};
use table::{Answer, Table};

use crate::actor::folder::ProcessFolder;
use crate::kernel::connector::Connector;

/// Looking at all processes takes long, and a feed that loses much would have it done all the time.
const SURVEY_PAUSE: Duration = Duration::from_secs(5);
/// How often it is asked what the kernel left out of the feed, which takes reading files.
const MISSED_PAUSE: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub struct Processes {
    feed: Feed,
    /// Beside the eBPF feed, which does not hear of it, tells where a process becomes another user.
    users: Option<Connector>,
    own_namespace: Option<u32>,
    refusals: Vec<Refusal>,
    table: Table,
    numbers: Numbers,
    cgroups: Cgroups,
    /// Of the file events whose readings are noted here.
    pub files: FileQueue,
    self_given: SelfGiven,
    dropped: u64,
    missed: u64,
    asked_missed: BootTime,
    drained: BootTime,
    /// When all processes are to be looked at again.
    survey_at: Option<BootTime>,
    surveyed: BootTime,
}

impl Processes {
    /// On return every process that starts is told of, and those that live are known. `files` is the queue of file events
    /// whose readings will be noted.
    pub fn start(choice: FeedChoice, files: BorrowedFd<'_>) -> Self {
        let (feed, refusals) = Feed::start(choice, files);
        let users = match feed {
            Feed::Probe(_) => Connector::open_for_users().ok(),
            Feed::Connector(_) | Feed::Absent => None,
        };
        let mut processes = Self {
            users,
            own_namespace: survey::own_namespace(),
            self_given: SelfGiven::default(),
            dropped: feed.dropped(),
            missed: feed.missed(),
            asked_missed: BootTime::now(),
            feed,
            refusals,
            table: Table::default(),
            numbers: Numbers::default(),
            cgroups: Cgroups::find(),
            files: FileQueue::default(),
            drained: BootTime::now(),
            survey_at: None,
            surveyed: BootTime::default(),
        };
        if processes.feed.name().is_some() {
            processes.survey();
        }
        processes
    }

    /// `ebpf`, `connector`, or nothing.
    pub const fn feed(&self) -> Option<&'static str> {
        self.feed.name()
    }

    pub fn refusals(&self) -> &[Refusal] {
        &self.refusals
    }

    /// Processes and programs that there was no room for, since the agent began.
    pub fn refused(&self) -> u64 {
        self.table.refused()
    }

    /// Ready where news waits.
    pub fn descriptors(&self) -> [Option<BorrowedFd<'_>>; 2] {
        [self.feed.descriptor(), self.users.as_ref().map(AsFd::as_fd)]
    }

    /// Whether what it tells of has to be looked at before it is gone.
    pub const fn is_pressing(&self) -> bool {
        matches!(self.feed, Feed::Connector(_))
    }

    /// Whether nothing has to be looked at while it lives.
    pub const fn tells_all(&self) -> bool {
        matches!(self.feed, Feed::Probe(_)) && self.users.is_some()
    }

    /// Takes what the feed has told. `pending` asks how many file events wait, at most.
    pub fn drain(&mut self, pending: impl Fn() -> Option<u64>) {
        let began = BootTime::now();
        let Self { feed, users, table, numbers, cgroups, files, self_given, .. } = self;
        let mut groups = Vec::new();
        let mut take = |news: News| {
            groups.extend(news.cgroup().filter(|group| groups.last() != Some(group)));
            let fence = news.fence(files);
            let pid = news.event.process.pid;
            match (news.event.first_number.filter(|number| *number != pid), &news.event.kind) {
                (Some(number), event::ProcessEventKind::Exit { .. }) => numbers.end(number, news.event.at),
                (Some(number), _) => numbers.note(number, pid),
                (None, _) => {}
            }
            // As it stood before it became this user: who logs people in becomes them next.
            news.judge(table, self_given);
            table.apply(news.event, fence);
            if let Some(Found { program, standing, until, pending }) = news.found {
                let fence = pending.map_or(Fence::UNKNOWN, |pending| files.fence_now(pending));
                table.find(pid, until, fence, program, standing);
            }
            if let Some(Login { login_uid, session, .. }) = news.login {
                table.observe(pid, BootTime::now(), || fence, |standing| (standing.login_uid, standing.session) = (login_uid, session));
            }
        };
        // Read before the feed, so that it tells of all their processes, and applied in the order of time: who is made after
        // a change of user comes of that user.
        let mut changes = Vec::new();
        let changed = users.as_mut().map(|users| feed::drain_connector(users, cgroups, &pending, &mut |news| changes.push(news)));
        changes.sort_by_key(|news| news.event.at);
        let mut changes = changes.into_iter().peekable();
        let mut drained = feed.drain(cgroups, &pending, &mut |news: News| {
            while let Some(earlier) = changes.next_if(|change| change.event.at <= news.event.at) {
                take(earlier);
            }
            take(news);
        });
        changes.for_each(&mut take);
        if let Some(changed) = changed {
            drained = drained.and_then(|drained| changed.map(|changed| if changed == Drain::Whole { drained } else { changed }));
        }
        // While it still is there.
        for group in groups {
            cgroups.path(group);
        }
        let dropped = feed.dropped();
        let asked_before = self.asked_missed;
        let missed = if began.since(asked_before) >= MISSED_PAUSE {
            self.asked_missed = began;
            feed.missed()
        } else {
            self.missed
        };
        let is_whole = matches!(drained, Ok(Drain::Whole)) && (dropped, missed) == (self.dropped, self.missed);
        if let Err(error) = &drained
            && self.survey_at.is_none()
        {
            tracing::warn!(%error, "the feed of processes could not be read");
        }
        if !is_whole {
            let lost = dropped.saturating_add(missed).saturating_sub(self.dropped.saturating_add(self.missed));
            // One that loses much says so once for each time that all are looked at.
            if self.survey_at.is_none() {
                let lost = Some(lost).filter(|lost| *lost > 0);
                tracing::warn!(lost, "news of processes was lost; those that live are looked at again");
            }
            // What the kernel left out may have been told at any time since it was asked before.
            let since = if missed == self.missed { self.drained } else { self.drained.min(asked_before) };
            (self.dropped, self.missed) = (dropped, missed);
            self.lose(since);
        }
        self.drained = began;
        if self.survey_at.is_some_and(|at| at <= began) {
            self.survey_at = None;
            self.survey();
        }
        self.table.forget(self.files.last_emptied());
    }

    /// Logins that were written went untold: those that live are looked at again.
    pub fn look_at_all_soon(&mut self) {
        if self.feed.name().is_some() {
            self.lose(self.drained);
        }
    }

    /// The pid here of the process that has this one in the first pid namespace, where that is another.
    pub fn number_here(&self, first: u32) -> Option<u32> {
        self.numbers.here(first, BootTime::now())
    }

    fn lose(&mut self, since: BootTime) {
        self.numbers.clear();
        self.table.lose(since, BootTime::now());
        self.survey_at.get_or_insert(BootTime::from_nanos(self.surveyed.nanos() + SURVEY_PAUSE.as_nanos() as u64));
    }

    fn survey(&mut self) {
        survey::survey(&mut self.table, &mut self.cgroups, &mut self.self_given);
        self.surveyed = BootTime::now();
    }

    pub fn who(&self, pid: u32, sighting: &Sighting) -> Answer {
        self.table.who(pid, sighting)
    }

    pub fn makers(&mut self, pid: u32, started: BootTime) -> Option<Arc<Ancestor>> {
        self.table.makers(pid, started, BootTime::now())
    }

    pub fn cgroup_path(&mut self, id: u64) -> Option<Arc<str>> {
        self.cgroups.path(id)
    }

    /// What is seen now of the process that has this pid. `pending` asks how many file events wait, at most.
    pub fn observe(&mut self, pid: u32, pending: impl Fn() -> Option<u64>, change: impl FnOnce(&mut Standing)) {
        let Self { table, files, .. } = self;
        table.observe(pid, BootTime::now(), || pending().map_or(Fence::UNKNOWN, |pending| files.fence_now(pending)), change);
    }

    /// Whether it is told when a process becomes another user. Else users are true only when they have just been looked at.
    pub const fn hears_of_users(&self) -> bool {
        matches!(self.feed, Feed::Connector(_)) || self.users.is_some()
    }

    /// As [`Self::is_self_given`], of what was read from /proc alone: nothing has been told of its process.
    pub fn may_be_self_given(&mut self, pid: u32, session: u32) -> bool {
        if !self.self_given.is_given(Some(session)) && !self.self_given.contains(session) {
            let found = ProcessFolder::open(pid).and_then(|folder| survey::login(&folder)).filter(|login| login.session == Some(session));
            // Of one that is gone nothing more can be learnt.
            let Some(found) = found else { return true };
            self.self_given.judge_unknown(found, |login_uid, session| survey::is_vouched_for(pid, None, login_uid, session));
        }
        self.is_self_given(session)
    }

    /// A process without privilege wrote itself the login of this session: it says nothing of who that is.
    pub fn is_self_given(&self, session: u32) -> bool {
        self.self_given.contains(session)
    }

    /// Real and effective user of a living process, where nothing tells of them.
    pub(crate) fn look_at_users(&mut self, pid: u32, folder: &ProcessFolder, pending: impl Fn() -> Option<u64>) {
        let Some(process) = subject(pid, folder) else { return };
        // Not of another one that has the pid by now.
        if self.table.standing(process).is_none() {
            return;
        }
        let Some((uid, euid)) = survey::users(folder) else { return };
        self.observe(pid, pending, |standing| (standing.uid, standing.euid) = (uid, euid));
    }

    /// Its logins are written to another procfs than the one that is watched.
    pub fn lies_elsewhere(&self, pid: u32) -> bool {
        self.table.pid_namespace(pid).is_none_or(|namespace| Some(namespace) != self.own_namespace)
    }

    /// The process that has this pid was given a login.
    pub fn look_at_login(&mut self, pid: u32, pending: impl Fn() -> Option<u64>) {
        let Some(folder) = ProcessFolder::open(pid) else { return };
        let (Some(found), Some(process)) = (survey::login(&folder), subject(pid, &folder)) else { return };
        let Login { login_uid, session, .. } = found;
        if let Some(was) = self.table.standing(process) {
            // It was root when it wrote this if it is by all that was told until then. The connector does not tell who made it.
            let is_told = self.tells_all() && self.survey_at.is_none();
            let uid = if is_told { was.uid } else { found.uid };
            self.self_given
                .judge(was, Login { uid, ..found }, |login_uid, session| is_vouched_for(&self.table, process, login_uid, session));
        } else {
            self.self_given.judge_unknown(found, |login_uid, session| is_vouched_for(&self.table, process, login_uid, session));
        }
        self.observe(pid, pending, |standing| (standing.login_uid, standing.session) = (login_uid, session));
    }

    /// Looks at the living process that has this pid: whom it runs for can change without a word.
    pub(crate) fn look_at(&mut self, pid: u32, folder: &ProcessFolder, pending: impl Fn() -> Option<u64>) {
        let Some((stat, _)) = folder.stat() else { return };
        let process = Subject { pid, started: Some(survey::started(&stat)) };
        let Some(seen) = survey::standing(folder, &stat, &mut self.cgroups) else { return };
        if let Some(was) = self.table.standing(process) {
            self.self_given.judge(was, (&seen).into(), |login_uid, session| is_vouched_for(&self.table, process, login_uid, session));
        } else {
            self.self_given.judge_unknown((&seen).into(), |login_uid, session| is_vouched_for(&self.table, process, login_uid, session));
        }
        self.observe(pid, pending, |known| {
            // What one source cannot tell is no difference.
            *known = Standing {
                cgroup: seen.cgroup.or(known.cgroup),
                pid_namespace: seen.pid_namespace.or(known.pid_namespace),
                mount_namespace: seen.mount_namespace.or(known.mount_namespace),
                ..seen
            };
        });
    }
}

/// Whose folder it is.
fn subject(pid: u32, folder: &ProcessFolder) -> Option<Subject> {
    let (stat, _) = folder.stat()?;
    Some(Subject { pid, started: Some(survey::started(&stat)) })
}

fn is_vouched_for(table: &Table, process: Subject, login_uid: u32, session: u32) -> bool {
    survey::is_vouched_for(process.pid, table.parent_of(process), login_uid, session)
}

impl News {
    /// The login that it tells of, by how the process stood before.
    fn judge(&self, table: &Table, self_given: &mut SelfGiven) {
        use event::ProcessEventKind::{Exec, Exit, Fork, Users};
        let (before, standing) = match &self.event.kind {
            Fork { parent, standing, .. } => (*parent, standing.as_ref()),
            Exec { standing, .. } | Exit { standing } => (self.event.process, standing.as_ref()),
            Users { .. } => (self.event.process, None),
        };
        let was = table.standing(before);
        let found = self.found.as_ref().and_then(|found| found.standing.as_ref());
        for login in standing.or(found).map(Login::from).into_iter().chain(self.login) {
            let vouched = |process| move |login_uid, session| is_vouched_for(table, process, login_uid, session);
            match (was, &self.event.kind) {
                (Some(was), _) => self_given.judge(was, login, vouched(before)),
                // It is gone, and so is who would vouch for it.
                (None, Exit { .. }) => {}
                // A maker that nothing is known of may be gone by now: what it made may not.
                (None, _) => self_given.judge_unknown(login, vouched(self.event.process)),
            }
        }
    }

    fn cgroup(&self) -> Option<u64> {
        use event::ProcessEventKind::{Exec, Exit, Fork, Users};
        match &self.event.kind {
            Fork { standing, .. } | Exec { standing, .. } => standing.as_ref()?.cgroup,
            Exit { .. } | Users { .. } => None,
        }
    }

    fn fence(&self, files: &FileQueue) -> Fence {
        use event::ProcessEventKind::{Exec, Fork};
        match (&self.event.kind, self.pending) {
            (Fork { queued: Some(queued), .. } | Exec { queued: Some(queued), .. }, _) => files.fence(*queued, self.event.at),
            (_, Some(pending)) => files.fence_now(pending),
            _ => Fence::UNKNOWN,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::process::{Command, Stdio};

    use super::*;

    /// As on kernels before 6.6: no message says that a process put root away.
    #[test]
    fn where_nothing_tells_of_users_they_are_looked_at_and_no_login_after_root_is_believed() {
        let test = "where_nothing_tells_of_users_they_are_looked_at_and_no_login_after_root_is_believed";
        let queue = std::fs::File::open("/dev/null").unwrap();
        let mut processes = Processes::start(FeedChoice::Probe, queue.as_fd());
        let has_login = std::fs::read_to_string("/proc/self/loginuid").is_ok_and(|login| login.trim() != u32::MAX.to_string());
        if processes.feed().is_none() || has_login || !nix::unistd::geteuid().is_root() {
            return crate::collect::skipped(test, &format!("needs root, no login, and the eBPF feed: {:?}", processes.refusals()));
        }
        processes.users = None;
        let source = "import os; f = os.open('/proc/self/loginuid', os.O_WRONLY); os.setresuid(54321, 54321, 54321)
os.write(f, b'4321'); print(open('/proc/self/sessionid').read(), flush=True); input()";
        let Ok(mut child) = Command::new("python3").args(["-c", source]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn() else {
            return crate::collect::skipped(test, "there is no python3");
        };
        let mut session = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut session).unwrap();
        let pid = child.id();
        processes.drain(|| None);
        let standing = |processes: &Processes| processes.table.standing(Subject { pid, started: None }).cloned();
        let before = standing(&processes);
        let folder = ProcessFolder::open(pid).unwrap();
        processes.look_at_login(pid, || None);
        processes.look_at_users(pid, &folder, || None);
        drop(child.stdin.take());
        child.wait().unwrap();
        assert_eq!(before.map(|standing| (standing.uid, standing.login_uid)), Some((0, None)), "told at the exec");
        let after = standing(&processes).unwrap();
        assert_eq!((after.uid, after.euid, after.login_uid), (54_321, 54_321, Some(4321)));
        assert!(processes.is_self_given(session.trim().parse().unwrap()));
    }

    /// A busy machine: all of it was over before the first look.
    #[test]
    fn a_login_that_was_first_seen_after_root_was_put_away_is_the_makers_or_nobodys() {
        let test = "a_login_that_was_first_seen_after_root_was_put_away_is_the_makers_or_nobodys";
        let has_login = std::fs::read_to_string("/proc/self/loginuid").is_ok_and(|login| login.trim() != u32::MAX.to_string());
        if has_login || !nix::unistd::geteuid().is_root() {
            return crate::collect::skipped(test, "needs root, and no login");
        }
        let log_in = "open('/proc/self/loginuid', 'w').write('4321')";
        let put_away = "os.setresuid(54321, 54321, 54321)";
        let tell = "print(os.getpid(), open('/proc/self/sessionid').read(), flush=True); os.read(0, 1)";
        // The file is opened before: afterwards it would be root's.
        let own = format!(
            "import os; f = os.open('/proc/self/loginuid', os.O_WRONLY); os.seteuid(54321); os.seteuid(0); {put_away}; os.write(f, b'4321'); {tell}"
        );
        let makers = format!("import os; {log_in}\nif os.fork() == 0:\n {put_away}; {tell}; os._exit(0)\nos.wait()");
        // Of the same process, whose own login is another.
        let threads = format!(
            "import os, threading
opened, go = threading.Event(), threading.Event()
def work():
 f = os.open('/proc/thread-self/loginuid', os.O_WRONLY); opened.set(); go.wait(); os.write(f, b'0')
 if os.fork() == 0: {tell}; os._exit(0)
 os.wait()
f = os.open('/proc/self/loginuid', os.O_WRONLY)
thread = threading.Thread(target=work); thread.start(); opened.wait(); {put_away}; os.write(f, b'4321'); go.set(); thread.join()"
        );
        for choice in [FeedChoice::Probe, FeedChoice::Connector] {
            for (source, is_self_given) in [(&own, true), (&makers, false), (&threads, true)] {
                let queue = std::fs::File::open("/dev/null").unwrap();
                let mut processes = Processes::start(choice, queue.as_fd());
                if processes.feed().is_none() || !processes.hears_of_users() {
                    crate::collect::skipped(test, &format!("{choice:?}: {:?}", processes.refusals()));
                    continue;
                }
                processes.drain(|| None);
                let Ok(mut child) = Command::new("python3").args(["-c", source]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()
                else {
                    return crate::collect::skipped(test, "there is no python3");
                };
                let mut told = String::new();
                BufReader::new(child.stdout.take().unwrap()).read_line(&mut told).unwrap();
                let (pid, session) = told.trim().split_once(' ').unwrap();
                processes.drain(|| None);
                processes.look_at_login(pid.parse().unwrap(), || None);
                drop(child.stdin.take());
                child.wait().unwrap();
                assert_eq!(processes.is_self_given(session.parse().unwrap()), is_self_given, "{choice:?}: {source}");
            }
        }
    }

    /// The agent was started later, or had no room for the process.
    #[test]
    fn a_login_that_was_there_before_its_process_was_known_is_roots_or_nobodys() {
        let test = "a_login_that_was_there_before_its_process_was_known_is_roots_or_nobodys";
        let has_login = std::fs::read_to_string("/proc/self/loginuid").is_ok_and(|login| login.trim() != u32::MAX.to_string());
        if has_login || !nix::unistd::geteuid().is_root() {
            return crate::collect::skipped(test, "needs root, and no login");
        }
        let tell = "print(os.getpid(), open('/proc/self/sessionid').read(), flush=True); os.read(0, 1)";
        let own = format!(
            "import os; f = os.open('/proc/self/loginuid', os.O_WRONLY); os.setresuid(54321, 54321, 54321); os.write(f, b'4321'); {tell}"
        );
        let makers = format!(
            "import os; open('/proc/self/loginuid', 'w').write('4321')
if os.fork() == 0: os.setresuid(54321, 54321, 54321); {tell}; os._exit(0)
os.wait()"
        );
        // As pam_keyinit, which is the user for a moment by the real id alone.
        let keyring = format!("import os; open('/proc/self/loginuid', 'w').write('4321'); os.setresuid(54321, 0, 0); {tell}");
        // As what sudo runs: root, with the session of who called it.
        let beneath = format!(
            "import os; f = os.open('/proc/self/loginuid', os.O_WRONLY); os.setresuid(54321, 54321, 0); os.write(f, b'4321')
if os.fork() == 0: os.setresuid(0, 0, 0); {tell}; os._exit(0)
os.wait()"
        );
        // And whoever called it has ended.
        let left_behind = format!(
            "import os
if os.fork() == 0:
 f = os.open('/proc/self/loginuid', os.O_WRONLY); os.setresuid(54321, 54321, 0); os.write(f, b'4321'); gone, end = os.pipe()
 if os.fork() == 0: os.setresuid(0, 0, 0); os.close(end); os.read(gone, 1); {tell}; os._exit(0)
 os._exit(0)
os.wait(); os.read(0, 1)"
        );
        for (source, is_self_given) in [(&own, true), (&makers, false), (&keyring, false), (&beneath, true), (&left_behind, true)] {
            let Ok(mut child) = Command::new("python3").args(["-c", source]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn() else {
                return crate::collect::skipped(test, "there is no python3");
            };
            let mut told = String::new();
            BufReader::new(child.stdout.take().unwrap()).read_line(&mut told).unwrap();
            let (pid, session) = told.trim().split_once(' ').unwrap();
            let (pid, session) = (pid.parse().unwrap(), session.parse().unwrap());
            for choice in [FeedChoice::Probe, FeedChoice::Connector] {
                let queue = std::fs::File::open("/dev/null").unwrap();
                let mut processes = Processes::start(choice, queue.as_fd());
                if processes.feed().is_none() {
                    crate::collect::skipped(test, &format!("{choice:?}: {:?}", processes.refusals()));
                    continue;
                }
                assert_eq!(processes.is_self_given(session), is_self_given, "{choice:?} at its start: {source}");
                // As where there was no room for it.
                (processes.table, processes.self_given) = (Table::default(), SelfGiven::default());
                processes.look_at_login(pid, || None);
                assert_eq!(processes.is_self_given(session), is_self_given, "{choice:?} unknown: {source}");
            }
            drop(child.stdin.take());
            child.wait().unwrap();
        }
    }

    #[test]
    fn after_a_loss_of_logins_all_are_looked_at_again() {
        let queue = std::fs::File::open("/dev/null").unwrap();
        let mut processes = Processes::start(FeedChoice::Best, queue.as_fd());
        if processes.feed().is_none() {
            return crate::collect::skipped("after_a_loss_of_logins_all_are_looked_at_again", &format!("{:?}", processes.refusals()));
        }
        processes.drain(|| None);
        processes.surveyed = BootTime::default();
        processes.survey_at = None;
        processes.look_at_all_soon();
        processes.drain(|| None);
        assert!(processes.surveyed > BootTime::default() && processes.survey_at.is_none());
    }
}
