//! What the thread enters into the book: logins that are known in full, what su and sudo begin within them, and their ends.
//!
//! Invariants: the journal is asked for words only while a login is open or has just ended; what it said before a login was
//! known is asked for once more, and taken once.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use trueline_drift::{ItemKey, Time};

use super::follower::Follower;
use super::journal::{Journal, booted};
use super::words::{Place, Word};
use crate::clock;
use crate::collect::session::{HostSession, key_of, step_key};

/// While a login is open.
const HEAR_AGAIN: Duration = Duration::from_secs(15);
/// After one has begun or ended.
const HEAR_SOON: Duration = Duration::from_secs(2);
/// Words are asked for again for as long: a login may take a while to be known.
const OVERLAP_SECONDS: i64 = 60;
/// How far back the first look goes; further for a login that is still open.
const BACK_SECONDS: i64 = 24 * 3600;

/// When the journal is asked for words.
#[derive(Debug)]
pub struct Hearing {
    due: Option<Instant>,
    since: Option<Time>,
}

impl Hearing {
    pub fn new(now: Instant) -> Self {
        Self { due: Some(now), since: None }
    }

    pub fn due(&self) -> Option<Instant> {
        self.due
    }

    pub fn soon(&mut self) {
        let due = Instant::now() + HEAR_SOON;
        self.due = Some(self.due.map_or(due, |earlier| earlier.min(due)));
    }
}

impl<J: Journal> Follower<J> {
    /// Logins that became known in full, and such as ended.
    pub(super) fn keep_book(&mut self) {
        let Some(boot) = self.boot else { return };
        let (news, living) = {
            let mut table = self.shared.table();
            (table.news(), table.living())
        };
        if news.is_empty() {
            return;
        }
        let now = clock::now();
        let mut book = self.shared.book();
        book.set_living(living.into_iter().filter_map(|session| key_of(boot, session)).collect::<BTreeSet<_>>());
        for news in news.into_iter().filter(|news| news.is_settled) {
            let Some(session) = HostSession::of_login(boot, news.session, &news.login) else { continue };
            let key = session.key.clone();
            let told = book.end_of(&key);
            book.begin(session);
            if !news.is_living {
                book.end(key, told.or(news.ended_at).unwrap_or(now));
            }
        }
        drop(book);
        self.hearing.soon();
    }

    /// Asks for words if it is time, and says once that all is known that there was at the start.
    pub(super) fn hear(&mut self) {
        let now = Instant::now();
        let is_first = self.hearing.since.is_none();
        // Of logins that are not known yet no words could be taken.
        if self.hearing.due.is_none_or(|due| now < due) || (is_first && !self.pending.is_empty()) {
            return;
        }
        let (at, since) = (clock::now(), self.hearing.since.unwrap_or_else(|| self.first_since()));
        let heard = self.journal.words(since);
        self.hearing.since = Some(at.plus_seconds(-OVERLAP_SECONDS));
        let mut book = self.shared.book();
        match heard {
            Ok(words) => {
                book.reason = None;
                if let Some(boot) = self.boot {
                    take_words(&mut book, words, |session| key_of(boot, session));
                }
            }
            Err(error) => book.reason = Some(format!("what su and sudo begin is not told, for the journal cannot be read: {error}")),
        }
        book.close(at);
        book.is_read = true;
        self.hearing.due = book.has_open().then(|| now + HEAR_AGAIN);
        drop(book);
        self.shared.read.notify_all();
    }

    fn first_since(&self) -> Time {
        let oldest = self.shared.table().oldest_living();
        let back = clock::now().plus_seconds(-BACK_SECONDS);
        let since = oldest.map_or(back, |oldest| oldest.min(back));
        booted().map_or(since, |booted| since.max(booted))
    }
}

fn take_words(book: &mut super::book::Book, words: Vec<Word>, key_of: impl Fn(super::AuditSession) -> Option<ItemKey>) {
    // Also of what is not in the book: it may be known from before.
    let mut keys: HashMap<Place, ItemKey> = HashMap::new();
    for word in words {
        match word {
            Word::Removed { session, at } => {
                if let Some(key) = key_of(session) {
                    book.end(key, at);
                }
            }
            Word::Opened { place, step } => {
                let Some(login) = key_of(place.session) else { continue };
                let Some(key) = step_key(&login, place.means, place.pid, step.began_at) else { continue };
                keys.insert(place, key);
                if let Some(session) = book.find(&login).and_then(|login| login.with_step(place.pid, step)) {
                    book.begin(session);
                }
            }
            Word::Closed { place, at } => {
                let opened = || {
                    let login = key_of(place.session)?;
                    book.open_within(&format!("{login}/{}-{}-", place.means.name(), place.pid))
                };
                if let Some(key) = keys.remove(&place).or_else(opened) {
                    book.end(key, at);
                }
            }
        }
    }
}
