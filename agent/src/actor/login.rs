//! From the audit session id that the kernel keeps with a process to the login behind it: who, from where, with which key.
//!
//! Owns a thread that follows logind's records and asks the journal what sshd said, so that a login is mostly known before
//! its first command runs; and the table of what it learnt, which others look into.
//!
//! Invariants: only what root wrote counts. A record of logind's belongs to root and is taken whole; words of sshd's count
//! where the journal itself vouches for the sender (uid 0, sshd's program, the process that leads the session), and for the
//! user and address of that record alone. What a process carries in its environment is its owner's to forge and is not looked
//! at, nor is /var/log/auth.log, which anyone may have written to by syslog(3). Ids of sessions are never used again while the host is up.
//! [`Logins::find`] never waits; everything is bounded.
//!
//! Must not: run on a sensor's or the observer's thread, or write anywhere.

pub mod accepted;
pub mod book;
mod follower;
pub mod journal;
mod keeping;
pub mod record;
mod table;
#[cfg(test)]
mod tests;
pub mod words;

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use trueline_drift::actor::{Origin, Session, SessionId, SessionKind};
use trueline_drift::{Certainty, Time};

use self::book::Book;
use self::follower::{Follower, Message};
use self::journal::Journalctl;
use self::table::Table;
use crate::collect::Root;
use crate::sensor::Coverage;
use crate::service::Confinement;

/// Where logind keeps a file for each session.
const SESSIONS: &str = "/run/systemd/sessions";
/// Questions that wait for the thread.
const INBOX: usize = 256;

/// The number that the kernel gives each login; inherited by all that it starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AuditSession(pub u32);

/// What is known of a login besides its number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    pub certainty: Certainty,
    pub kind: SessionKind,
    pub uid: Option<u32>,
    pub user: Option<String>,
    pub origin: Option<Origin>,
    pub terminal: Option<String>,
    pub key: Option<String>,
    pub began_at: Time,
}

impl Login {
    pub fn session(&self, id: SessionId) -> Session {
        Session {
            id,
            certainty: self.certainty,
            kind: self.kind,
            user: self.user.clone(),
            origin: self.origin,
            terminal: self.terminal.clone(),
            key: self.key.clone(),
            began_at: Some(self.began_at),
        }
    }
}

/// What the thread and those who ask share.
#[derive(Debug, Default)]
struct Shared {
    table: Mutex<Table>,
    /// Rings whenever something became known, or known to be unknown.
    learnt: Condvar,
    book: Mutex<Book>,
    /// Rings once the book has taken up what there was at the start.
    read: Condvar,
    /// Why the journal says nothing, as long as it is so.
    trouble: Mutex<Option<String>>,
}

impl Shared {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The trouble before.
    fn set_trouble(&self, trouble: Option<String>) -> Option<String> {
        std::mem::replace(&mut *self.trouble.lock().unwrap_or_else(PoisonError::into_inner), trouble)
    }
}

/// What the logins come to as items, for whoever tells of them.
#[derive(Debug, Clone)]
pub struct Sessions(Arc<Shared>);

impl Sessions {
    /// Another one where something began or ended; 0 until all was taken up that there was at the start.
    pub fn version(&self) -> u64 {
        let book = self.0.book();
        if book.is_read { book.version() + 1 } else { 0 }
    }

    /// What is known by then, if not all before.
    pub fn read_within(&self, patience: Duration) -> Book {
        let waited = self.0.read.wait_timeout_while(self.0.book(), patience, |book| !book.is_read);
        let (book, _) = waited.unwrap_or_else(PoisonError::into_inner);
        book.clone()
    }

    /// Whether sessions are told on this host, and if not why.
    pub fn coverage(&self) -> Coverage {
        let book = self.0.book();
        let reason = match book.has_records {
            false => Some(format!("logind keeps no records here ({SESSIONS}): no sessions are told")),
            true => book.reason.clone(),
        };
        Coverage { name: "logind", scope: "session:*".to_owned(), watching: book.has_records, reason }
    }
}

/// The logins of this host. Dropping it ends its thread, within the few seconds that a question to the journal may take.
#[derive(Debug)]
pub struct Logins {
    shared: Arc<Shared>,
    inbox: SyncSender<Message>,
    stopping: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Logins {
    pub fn start(confinement: &Confinement) -> io::Result<Self> {
        const ROOT: u32 = 0;
        Self::follow(PathBuf::from(SESSIONS), ROOT, Journalctl::default(), confinement.clone())
    }

    /// Of the records beneath this root, and of the host's journal; `None` where there are no records.
    pub fn beneath(root: &Root) -> io::Result<Option<Self>> {
        let folder = root.path(SESSIONS);
        if !folder.is_dir() {
            return Ok(None);
        }
        Self::follow(folder, 0, Journalctl::default(), Confinement::default()).map(Some)
    }

    pub fn sessions(&self) -> Sessions {
        Sessions(Arc::clone(&self.shared))
    }

    /// `owner` is whose the records must be.
    fn follow(sessions: PathBuf, owner: u32, journal: impl journal::Journal, confinement: Confinement) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let stopping = Arc::new(AtomicBool::new(false));
        let (inbox, messages) = sync_channel(INBOX);
        let follower = Follower::new(sessions, owner, journal, Arc::clone(&shared), Arc::clone(&stopping));
        let own = inbox.clone();
        let thread = std::thread::Builder::new().name("logins".to_owned()).spawn(move || {
            confinement.enter();
            follower.run(&own, &messages);
        })?;
        Ok(Self { shared, inbox, stopping, thread: Some(thread) })
    }

    /// Of these records, belonging to whoever runs the test, and of a journal that knows nothing.
    #[cfg(test)]
    pub(crate) fn of_records(folder: &std::path::Path) -> Self {
        let owner = nix::unistd::geteuid().as_raw();
        Self::follow(folder.to_owned(), owner, tests::Pages::default(), Confinement::default()).expect("a thread for a test")
    }

    /// What is known now. Of a session that was not heard of yet, more may be known a moment later.
    pub fn find(&self, session: AuditSession) -> Option<Arc<Login>> {
        self.find_within(session, Duration::ZERO)
    }

    /// The same, and waits this long where the answer is being looked for. A session is looked for once.
    pub fn find_within(&self, session: AuditSession, patience: Duration) -> Option<Arc<Login>> {
        let mut table = self.shared.table();
        if table.is_settled(session) {
            return table.find(session);
        }
        // A full inbox: the thread has fallen behind, and the next who asks asks again.
        if table.want(session) && self.inbox.try_send(Message::Wanted(session)).is_err() {
            table.forget_wish(session);
        }
        if patience.is_zero() {
            return table.find(session);
        }
        let waited = self.shared.learnt.wait_timeout_while(table, patience, |table| !table.is_settled(session));
        let (table, _) = waited.unwrap_or_else(PoisonError::into_inner);
        table.find(session)
    }

    /// Whether nothing more will be learnt of it.
    pub fn is_settled(&self, session: AuditSession) -> bool {
        self.shared.table().is_settled(session)
    }

    /// What keeps keys and ports from being known.
    pub fn trouble(&self) -> Option<String> {
        self.shared.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Logins {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Release);
        // Where it is full, the thread is awake already.
        let _ = self.inbox.try_send(Message::Stop);
        if let Some(thread) = self.thread.take() {
            // A panic of it was reported where it happened.
            let _ = thread.join();
        }
    }
}
