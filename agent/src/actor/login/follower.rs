//! The thread that follows logind's records and has the journal asked.
//!
//! Invariants: records are read in full again whenever their folder has changed, and now and then; the journal is asked about
//! a session a few times at most, and not more often than [`COST`] allows, whoever logs in how often; what is not
//! answered by then is settled as it is.

use std::collections::{HashMap, HashSet, VecDeque};
use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::time::{Duration, Instant};

use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tracing::{debug, warn};
use trueline_drift::actor::{Origin, SessionKind};
use trueline_drift::{BootId, Certainty};

use super::accepted::Accepted;
use super::journal::{Admission, Journal};
use super::keeping::Hearing;
use super::record::{Record, parse_record};
use super::{AuditSession, Login, Shared};
use crate::clock;

/// Where no event told of a change.
const LOOK_AGAIN: Duration = Duration::from_secs(60);
/// After these waits the journal is asked again: what was said is there a moment later.
const ASK_AGAIN: [Duration; 2] = [Duration::from_millis(150), Duration::from_secs(1)];
/// Questions to the journal: ten a second, twenty at once.
const COST: Duration = Duration::from_millis(100);
const CREDIT: Duration = Duration::from_secs(2);
const PENDING: usize = 1024;
const RECORDS: usize = 4096;
const RECORD_LIMIT: u64 = 16 * 1024;

#[derive(Debug)]
pub enum Message {
    /// Something in the folder of records changed.
    Touched,
    Wanted(AuditSession),
    Stop,
}

/// What is asked of the journal.
#[derive(Debug)]
enum Question {
    /// What did sshd say about this login?
    Accepted(Admission),
    /// Who opened a session that has no record any more?
    Opening,
}

#[derive(Debug)]
pub(super) struct Pending {
    session: AuditSession,
    question: Question,
    asked: usize,
    due: Instant,
}

/// Inode and time of a record: logind replaces it whole.
type Stamp = (u64, i64, i64);

pub struct Follower<J> {
    sessions: PathBuf,
    owner: u32,
    pub(super) journal: J,
    pub(super) shared: Arc<Shared>,
    stopping: Arc<AtomicBool>,
    read: HashMap<OsString, (Stamp, Option<AuditSession>)>,
    pub(super) pending: VecDeque<Pending>,
    pub(super) hearing: Hearing,
    pub(super) boot: Option<BootId>,
    /// When the questions asked so far will all have been paid for.
    paid_at: Instant,
}

impl<J: Journal> Follower<J> {
    pub fn new(sessions: PathBuf, owner: u32, journal: J, shared: Arc<Shared>, stopping: Arc<AtomicBool>) -> Self {
        let (read, pending) = (HashMap::new(), VecDeque::new());
        let (now, boot) = (Instant::now(), crate::facts::boot_id());
        Self { sessions, owner, journal, shared, stopping, read, pending, hearing: Hearing::new(now), boot, paid_at: now }
    }

    /// Until it is stopped. `own` is where the folder's watcher rings.
    pub fn run(mut self, own: &SyncSender<Message>, messages: &Receiver<Message>) {
        let touched = Arc::new(AtomicBool::new(true));
        let mut watcher = None;
        let mut look_again = Instant::now();
        while !self.stopping.load(Ordering::Acquire) {
            let now = Instant::now();
            if now >= look_again {
                look_again = now + LOOK_AGAIN;
                watcher = watcher.or_else(|| watch(&self.sessions, own, &touched));
                touched.store(true, Ordering::Release);
            }
            if touched.swap(false, Ordering::AcqRel) {
                self.read_records();
            }
            self.ask_due();
            self.keep_book();
            self.hear();
            let questions = self.pending.iter().map(|pending| pending.due.max(self.paid_at));
            let next = questions.chain(self.hearing.due()).fold(look_again, Instant::min);
            match messages.recv_timeout(next.saturating_duration_since(Instant::now())) {
                Ok(Message::Touched) | Err(RecvTimeoutError::Timeout) => {}
                Ok(Message::Wanted(session)) => self.look_for(session),
                Ok(Message::Stop) | Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn read_records(&mut self) {
        let mut living = HashSet::new();
        let mut present = HashSet::new();
        let entries = match std::fs::read_dir(&self.sessions) {
            Ok(entries) => entries,
            Err(error) => {
                // A host without logind.
                debug!(folder = %self.sessions.display(), %error, "no records of sessions");
                self.shared.book().has_records = false;
                return;
            }
        };
        for entry in entries.flatten().take(RECORDS) {
            let name = entry.file_name();
            let read = self.read_record(&name);
            // One that cannot be read at the moment has not ended.
            let known = || self.read.get(&name).and_then(|(_, session)| *session);
            living.extend(read.or_else(known));
            present.insert(name);
        }
        self.read.retain(|name, _| present.contains(name));
        self.shared.table().end_all_but(&living, clock::now());
        self.shared.book().has_records = true;
    }

    /// The session whose record this is.
    fn read_record(&mut self, name: &OsString) -> Option<AuditSession> {
        let (file, stamp) = open_record(&self.sessions.join(name), self.owner).ok()??;
        if let Some((known, session)) = self.read.get(name)
            && *known == stamp
        {
            return *session;
        }
        let mut bytes = Vec::new();
        file.take(RECORD_LIMIT).read_to_end(&mut bytes).ok()?;
        let record = parse_record(&bytes);
        let session = record.as_ref().map(|record| record.session);
        self.read.insert(name.clone(), (stamp, session));
        self.take_in(record?);
        session
    }

    fn take_in(&mut self, record: Record) {
        let session = record.session;
        let before = self.shared.table().find(session);
        let (key, told) = before.map_or((None, None), |before| (before.key.clone(), before.origin));
        let address = record.remote_host.as_deref().and_then(|host| host.split('%').next()?.parse::<std::net::IpAddr>().ok());
        let origin = told.or_else(|| address.map(|address| Origin { address: address.to_canonical(), port: None }));
        let admission = match (record.kind, record.leader, &record.user) {
            (SessionKind::Ssh, Some(leader), Some(user)) => Some(Admission { leader, user: user.clone(), session_began: record.began_at }),
            _ => None,
        };
        let login = Login {
            certainty: Certainty::Strong,
            kind: record.kind,
            uid: record.uid,
            user: record.user,
            origin,
            terminal: record.terminal,
            key,
            began_at: record.began_at,
        };
        // Its record is here after all.
        self.pending.retain(|pending| pending.session != session || matches!(pending.question, Question::Accepted(_)));
        self.note(session, login, true, admission.is_none());
        if let Some(admission) = admission {
            self.put_off(session, Question::Accepted(admission));
        }
    }

    fn look_for(&mut self, session: AuditSession) {
        self.read_records();
        if self.shared.table().find(session).is_none() {
            self.put_off(session, Question::Opening);
        }
    }

    fn note(&self, session: AuditSession, login: Login, is_living: bool, is_settled: bool) {
        self.shared.table().note(session, login, is_living, is_settled);
        self.shared.learnt.notify_all();
    }

    fn settle(&self, session: AuditSession) {
        self.shared.table().settle(session);
        self.shared.learnt.notify_all();
    }

    /// To be asked as soon as may be.
    fn put_off(&mut self, session: AuditSession, question: Question) {
        if self.shared.table().is_settled(session) || self.pending.iter().any(|pending| pending.session == session) {
            return;
        }
        if self.pending.len() >= PENDING {
            // More than can be asked about: it stays as it is known.
            return self.settle(session);
        }
        self.pending.push_back(Pending { session, question, asked: 0, due: Instant::now() });
    }

    fn ask_due(&mut self) {
        for _ in 0..self.pending.len() {
            let now = Instant::now();
            let Some(pending) = self.pending.pop_front() else { return };
            if pending.due > now || self.stopping.load(Ordering::Acquire) || !self.may_ask(now) {
                self.pending.push_back(pending);
                continue;
            }
            self.ask(pending);
        }
    }

    fn may_ask(&mut self, now: Instant) -> bool {
        if self.paid_at > now {
            return false;
        }
        self.paid_at = self.paid_at.max(now.checked_sub(CREDIT).unwrap_or(now)) + COST;
        true
    }

    fn ask(&mut self, pending: Pending) {
        let Pending { session, question, asked, .. } = pending;
        let answered = match &question {
            Question::Accepted(admission) => {
                self.journal.accepted(admission).map(|accepted| accepted.map(|accepted| self.admit(session, accepted)))
            }
            Question::Opening => self.ask_opening(session),
        };
        let is_answered = match answered {
            Ok(answer) => {
                self.shared.set_trouble(None);
                answer.is_some()
            }
            // A host without a journal.
            Err(error) if error.kind() == io::ErrorKind::NotFound => false,
            Err(error) => {
                let trouble = format!(
                    "the journal cannot be asked who logged in with which key (is the agent in the group systemd-journal?): {error}"
                );
                if self.shared.set_trouble(Some(trouble.clone())).is_none() {
                    warn!("{trouble}");
                }
                false
            }
        };
        match ASK_AGAIN.get(asked) {
            Some(wait) if !is_answered => {
                self.pending.push_back(Pending { session, question, asked: asked + 1, due: Instant::now() + *wait });
            }
            _ => self.settle(session),
        }
    }

    /// What sshd said joins what logind keeps, unless they speak of different addresses.
    fn admit(&self, session: AuditSession, accepted: Accepted) {
        let Some(login) = self.shared.table().find(session) else { return };
        if login.origin.is_some_and(|origin| origin.address != accepted.origin.address) {
            return;
        }
        let login = Login { origin: Some(accepted.origin), key: accepted.key, ..Login::clone(&login) };
        self.note(session, login, true, true);
    }

    fn ask_opening(&mut self, session: AuditSession) -> io::Result<Option<()>> {
        let Some(opening) = self.journal.opening(session)? else { return Ok(None) };
        let admission = Admission { leader: opening.leader, user: opening.user.clone(), session_began: opening.at };
        let accepted = self.journal.accepted(&admission)?;
        let login = Login {
            certainty: Certainty::Strong,
            kind: if accepted.is_some() { SessionKind::Ssh } else { SessionKind::Other },
            uid: None,
            user: Some(opening.user),
            origin: accepted.as_ref().map(|accepted| accepted.origin),
            terminal: None,
            key: accepted.and_then(|accepted| accepted.key),
            began_at: opening.at,
        };
        self.note(session, login, false, true);
        Ok(Some(()))
    }
}

/// Rings for whatever changes in the folder, and not for its being read. `None` where there is no such folder.
fn watch(folder: &Path, own: &SyncSender<Message>, touched: &Arc<AtomicBool>) -> Option<RecommendedWatcher> {
    let (own, touched) = (own.clone(), Arc::clone(touched));
    let ring = move |event: notify::Result<notify::Event>| {
        if event.is_ok_and(|event| matches!(event.kind, EventKind::Access(_))) {
            return;
        }
        touched.store(true, Ordering::Release);
        // Where it is full, the thread is awake.
        let _ = own.try_send(Message::Touched);
    };
    let mut watcher = notify::recommended_watcher(ring).ok()?;
    watcher.watch(folder, RecursiveMode::NonRecursive).ok()?;
    Some(watcher)
}

/// A record, if it is its owner's alone to write; with what tells it from the next.
fn open_record(path: &Path, owner: u32) -> io::Result<Option<(File, Stamp)>> {
    // Beside the records lie FIFOs.
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY;
    if !path.symlink_metadata()?.is_file() {
        return Ok(None);
    }
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    let metadata = file.metadata()?;
    let is_sound = metadata.is_file() && metadata.uid() == owner && metadata.mode() & 0o022 == 0 && metadata.size() <= RECORD_LIMIT;
    Ok(is_sound.then(|| (file, (metadata.ino(), metadata.mtime(), metadata.mtime_nsec()))))
}
