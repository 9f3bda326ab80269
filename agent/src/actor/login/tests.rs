//! The thread over a folder of records and a journal by hand.

use std::collections::HashMap;
use std::os::unix::fs::PermissionsExt;

use super::accepted::parse_accepted;
use super::journal::{Admission, Journal, Opening};
use super::words::Word;
use super::*;
use crate::collect::session::{HostSession, Means, Step};
use crate::testing::until;

const KEY: &str = "SHA256:N+GuxVoGPIh0OfsixHT6ehMxUujikazXnHRk06f0qkY";

/// What the journal holds, by leader and by session.
#[derive(Default, Clone)]
pub struct Pages {
    accepted: Arc<Mutex<HashMap<u32, String>>>,
    opened: Arc<Mutex<HashMap<u32, Opening>>>,
    said: Arc<Mutex<Vec<Word>>>,
    questions: Arc<Mutex<u32>>,
    is_shut: bool,
}

impl Journal for Pages {
    fn opening(&mut self, session: AuditSession) -> io::Result<Option<Opening>> {
        *self.questions.lock().unwrap() += 1;
        Ok(self.opened.lock().unwrap().get(&session.0).cloned())
    }

    fn words(&mut self, _since: Time) -> io::Result<Vec<Word>> {
        if self.is_shut { Err(io::Error::other("no access")) } else { Ok(self.said.lock().unwrap().clone()) }
    }

    fn accepted(&mut self, admission: &Admission) -> io::Result<Option<accepted::Accepted>> {
        *self.questions.lock().unwrap() += 1;
        if self.is_shut {
            return Err(io::Error::other("no access"));
        }
        let said = self.accepted.lock().unwrap().get(&admission.leader).cloned();
        Ok(said.and_then(|said| parse_accepted(&said, &admission.user)))
    }
}

struct Scene {
    folder: tempfile::TempDir,
    pages: Pages,
}

impl Scene {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), pages: Pages::default() }
    }

    /// As logind does: aside, then renamed.
    fn record(&self, id: u32, more: &str) {
        let text = format!("UID=1000\nUSER=alice\nAUDIT={id}\nREALTIME=5000000\nLEADER={}\n{more}\n", id + 10);
        let aside = self.folder.path().join(".new");
        std::fs::write(&aside, text).unwrap();
        std::fs::set_permissions(&aside, PermissionsExt::from_mode(0o644)).unwrap();
        std::fs::rename(aside, self.folder.path().join(id.to_string())).unwrap();
    }

    fn say(&self, leader: u32, address: &str) {
        let said = format!("Accepted publickey for alice from {address} port 55448 ssh2: ED25519 {KEY}");
        self.pages.accepted.lock().unwrap().insert(leader, said);
    }

    fn start(&self) -> Logins {
        let owner = nix::unistd::geteuid().as_raw();
        Logins::follow(self.folder.path().to_owned(), owner, self.pages.clone(), Confinement::default()).unwrap()
    }
}

#[test]
fn a_login_is_known_with_its_key_before_anybody_asks() {
    let scene = Scene::new();
    scene.say(13, "10.79.1.1");
    scene.record(3, "SERVICE=sshd\nREMOTE_HOST=10.79.1.1");
    let logins = scene.start();
    until("the session that was there", || logins.shared.table().is_settled(AuditSession(3)));
    let login = logins.find(AuditSession(3)).unwrap();
    assert_eq!((login.kind, login.user.as_deref(), login.key.as_deref()), (SessionKind::Ssh, Some("alice"), Some(KEY)));
    assert_eq!(login.origin.unwrap().to_string(), "10.79.1.1 port 55448");
    scene.say(14, "10.79.1.9");
    scene.record(4, "SERVICE=sshd\nREMOTE_HOST=10.79.1.9");
    scene.record(5, "SERVICE=login\nTTY=tty1");
    until("sessions that came", || [4, 5].iter().all(|id| logins.shared.table().is_settled(AuditSession(*id))));
    assert_eq!(logins.find(AuditSession(4)).unwrap().origin.unwrap().port, Some(55448));
    assert_eq!(logins.find(AuditSession(5)).unwrap().terminal.as_deref(), Some("tty1"));
    // Rewritten, as when logind learns of its terminal, and then gone.
    scene.record(4, "SERVICE=sshd\nREMOTE_HOST=10.79.1.9\nTTY=pts/7");
    until("the terminal", || logins.find(AuditSession(4)).is_some_and(|login| login.terminal.is_some()));
    std::fs::remove_file(scene.folder.path().join("4")).unwrap();
    let login = logins.find(AuditSession(4)).unwrap();
    assert_eq!((login.key.as_deref(), login.terminal.as_deref()), (Some(KEY), Some("pts/7")));
}

#[test]
fn words_about_another_address_are_not_this_logins() {
    let scene = Scene::new();
    scene.say(13, "10.0.0.66");
    scene.record(3, "SERVICE=sshd\nREMOTE_HOST=10.79.1.1");
    let login = scene.start().find_within(AuditSession(3), Duration::from_secs(60)).unwrap();
    assert_eq!((login.origin.unwrap().to_string().as_str(), login.key.as_deref()), ("10.79.1.1", None));
}

#[test]
fn a_session_that_is_over_is_looked_for_in_the_journal_and_once() {
    let scene = Scene::new();
    let opening = Opening { user: "alice".to_owned(), leader: 70, at: Time::from_seconds(5) };
    scene.pages.opened.lock().unwrap().insert(9, opening);
    scene.say(70, "10.79.1.1");
    let logins = scene.start();
    let login = logins.find_within(AuditSession(9), Duration::from_secs(60)).unwrap();
    assert_eq!((login.kind, login.key.as_deref(), login.uid), (SessionKind::Ssh, Some(KEY), None));
    assert_eq!(logins.find_within(AuditSession(10), Duration::from_secs(60)), None);
    let asked = *scene.pages.questions.lock().unwrap();
    assert_eq!((logins.find_within(AuditSession(10), Duration::from_secs(60)), *scene.pages.questions.lock().unwrap()), (None, asked));
}

#[test]
fn what_another_could_have_written_is_no_record() {
    let scene = Scene::new();
    scene.record(3, "SERVICE=login");
    let by_others = scene.folder.path().join("3");
    std::fs::set_permissions(&by_others, PermissionsExt::from_mode(0o666)).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", scene.folder.path().join("6")).unwrap();
    nix::unistd::mkfifo(&scene.folder.path().join("7.ref"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let logins = scene.start();
    assert_eq!(logins.find_within(AuditSession(3), Duration::from_secs(60)), None);
}

#[test]
fn a_journal_that_cannot_be_read_costs_the_key_alone_and_is_told() {
    let scene = Scene { pages: Pages { is_shut: true, ..Pages::default() }, ..Scene::new() };
    scene.record(3, "SERVICE=sshd\nREMOTE_HOST=10.79.1.1");
    let logins = scene.start();
    let login = logins.find_within(AuditSession(3), Duration::from_secs(60)).unwrap();
    assert_eq!((login.user.as_deref(), login.key.as_deref()), (Some("alice"), None));
    assert!(logins.trouble().is_some_and(|trouble| trouble.contains("no access")));
}

#[test]
fn a_host_without_logind_has_no_logins_and_nobody_waits_for_ever() {
    let scene = Scene::new();
    let owner = nix::unistd::geteuid().as_raw();
    let nowhere = scene.folder.path().join("nowhere");
    let logins = Logins::follow(nowhere, owner, scene.pages.clone(), Confinement::default()).unwrap();
    assert_eq!(logins.find(AuditSession(3)), None);
    assert_eq!(logins.find_within(AuditSession(3), Duration::from_secs(60)), None);
}

fn step(session: u32, pid: u32, began_at: Time) -> Word {
    let place = words::Place { session: AuditSession(session), means: Means::Sudo, pid };
    let (certainty, as_user) = (Certainty::Correlated, "root".to_owned());
    let step = Step { means: Means::Sudo, certainty, as_user, command: None, terminal: None, began_at };
    Word::Opened { place, step }
}

fn shown(logins: &Logins) -> Vec<(String, Option<Time>)> {
    let book = logins.sessions().read_within(Duration::from_secs(60));
    // Without the boot.
    let key = |session: &HostSession| session.key.as_str().split_once('-').unwrap().1.to_owned();
    book.sessions().map(|session| (key(session), session.ended_at)).collect()
}

#[test]
fn what_was_open_at_the_start_is_in_the_book_with_what_began_and_ended_within_it() {
    let scene = Scene::new();
    scene.record(3, "SERVICE=sshd\nREMOTE_HOST=10.79.1.1");
    scene.record(5, "SERVICE=crond");
    let closed = words::Place { session: AuditSession(3), means: Means::Sudo, pid: 80 };
    // Of another login, that is gone: of what was told before the agent began.
    let gone = words::Place { session: AuditSession(2), means: Means::Sudo, pid: 70 };
    // What ended long ago is let go of.
    let now = Time::from_seconds(crate::clock::now().micros() / 1_000_000);
    let ago = |seconds: i64| now.plus_seconds(-seconds);
    let (end, gone_end) = (ago(4), ago(7));
    *scene.pages.said.lock().unwrap() = vec![
        step(2, 70, ago(8)),
        Word::Closed { place: gone, at: gone_end },
        Word::Removed { session: AuditSession(2), at: ago(6) },
        step(3, 80, ago(5)),
        Word::Closed { place: closed, at: end },
        // The same pid again.
        step(3, 80, ago(3)),
        step(5, 81, ago(3)),
    ];
    let logins = scene.start();
    let sudo = |seconds: i64| format!("3/sudo-80-{}", ago(seconds).micros() / 1_000_000);
    let expected = [("3".to_owned(), None), (sudo(5), Some(end)), (sudo(3), None)];
    assert_eq!(shown(&logins), expected);
    let book = logins.sessions().read_within(Duration::ZERO);
    let gone_key = format!("2/sudo-70-{}", ago(8).micros() / 1_000_000);
    let key = |key: &str| format!("{}-{key}", crate::facts::boot_id().unwrap().short());
    let key = |text: &str| trueline_drift::ItemKey::from_text(&key(text)).unwrap();
    assert_eq!((book.end_of(&key(&gone_key)), book.end_of(&key("2"))), (Some(gone_end), Some(ago(6))));
    assert!(book.may_be_open(&key(&sudo(3))) && !book.may_be_open(&key("2")));
}

#[test]
fn a_login_that_ends_is_told_and_ends_what_is_within_it() {
    let scene = Scene::new();
    scene.record(3, "SERVICE=login\nTTY=tty1");
    *scene.pages.said.lock().unwrap() = vec![step(3, 80, crate::clock::now())];
    let logins = scene.start();
    assert_eq!(shown(&logins).len(), 2);
    let before = logins.sessions().version();
    std::fs::remove_file(scene.folder.path().join("3")).unwrap();
    until("both ends", || shown(&logins).iter().all(|(_, end)| end.is_some()));
    assert!(logins.sessions().version() > before);
    assert!(logins.sessions().coverage().watching);
}

#[test]
fn a_host_without_records_or_journal_says_so_and_tells_no_sessions() {
    let scene = Scene { pages: Pages { is_shut: true, ..Pages::default() }, ..Scene::new() };
    let logins = scene.start();
    assert_eq!(shown(&logins), []);
    let row = logins.sessions().coverage();
    assert!(row.watching && row.reason.is_some_and(|reason| reason.contains("no access")));
    let owner = nix::unistd::geteuid().as_raw();
    let logins = Logins::follow(scene.folder.path().join("nowhere"), owner, scene.pages.clone(), Confinement::default()).unwrap();
    assert_eq!(shown(&logins), []);
    assert!(!logins.sessions().coverage().watching);
}
