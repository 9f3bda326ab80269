//! The sessions of this host that are open, or ended a while ago, as items are made of them. Pure, and bounded.
//!
//! Invariants: one that began is told as it was first known, and ends once; the version grows with each that began or ended.

use std::collections::{BTreeMap, BTreeSet};

use trueline_drift::{ItemKey, Time};

use crate::collect::session::{HostSession, login_of};

/// Open and ended together.
const SESSIONS: usize = 4096;
/// Ends of such as were never told here: of what began before this agent did.
const ENDS: usize = 1024;
/// An ended one has been taken up by then, and is told no more.
const KEPT_SECONDS: i64 = 25 * 3600;

#[derive(Debug, Clone, Default)]
pub struct Book {
    sessions: BTreeMap<ItemKey, HostSession>,
    ends: BTreeMap<ItemKey, Time>,
    /// Logins that have a record, also those of which more is still being asked.
    living: BTreeSet<ItemKey>,
    version: u64,
    /// All was taken up that there was at the start.
    pub is_read: bool,
    /// Whether logind keeps records here.
    pub has_records: bool,
    /// What keeps sessions from being told.
    pub reason: Option<String>,
}

impl Book {
    pub fn version(&self) -> u64 {
        self.version
    }

    pub fn sessions(&self) -> impl Iterator<Item = &HostSession> {
        self.sessions.values()
    }

    pub fn has_open(&self) -> bool {
        self.sessions.values().any(|session| session.ended_at.is_none())
    }

    pub fn find(&self, key: &ItemKey) -> Option<&HostSession> {
        self.sessions.get(key)
    }

    pub fn end_of(&self, key: &ItemKey) -> Option<Time> {
        self.ends.get(key).copied()
    }

    /// Whether it goes on, as far as is known here: a login that has a record, or something within one.
    pub fn may_be_open(&self, key: &ItemKey) -> bool {
        self.living.contains(key) || login_of(key).is_some_and(|login| self.living.contains(&login))
    }

    pub fn set_living(&mut self, living: BTreeSet<ItemKey>) {
        self.living = living;
    }

    pub fn begin(&mut self, session: HostSession) {
        if self.sessions.contains_key(&session.key) {
            return;
        }
        if self.sessions.len() >= SESSIONS {
            let ended = self.sessions.values().filter_map(|session| Some((session.ended_at?, &session.key)));
            let Some(oldest) = ended.min().map(|(_, key)| key.clone()) else { return };
            self.let_go(&oldest);
        }
        self.version += 1;
        self.sessions.insert(session.key.clone(), session);
    }

    pub fn end(&mut self, key: ItemKey, at: Time) {
        match self.sessions.get_mut(&key) {
            Some(session) if session.ended_at.is_none() => {
                session.ended_at = Some(at);
                self.version += 1;
            }
            Some(_) => {}
            None => self.note_end(key, at),
        }
    }

    fn note_end(&mut self, key: ItemKey, at: Time) {
        if self.ends.len() >= ENDS
            && let Some(oldest) = self.ends.iter().min_by_key(|(_, at)| **at).map(|(key, _)| key.clone())
        {
            self.ends.remove(&oldest);
        }
        self.ends.insert(key, at);
    }

    fn let_go(&mut self, key: &ItemKey) {
        if let Some(HostSession { key, ended_at: Some(at), .. }) = self.sessions.remove(key) {
            self.note_end(key, at);
        }
    }

    /// The one open within this login by this prefix of its key that began last.
    pub fn open_within(&self, prefix: &str) -> Option<ItemKey> {
        let open = self.sessions.values().filter(|session| session.ended_at.is_none() && session.key.as_str().starts_with(prefix));
        open.max_by_key(|session| session.began_at()).map(|session| session.key.clone())
    }

    /// What is still open within a login ends with it, and what ended long ago goes.
    pub fn close(&mut self, now: Time) {
        let ends: Vec<(ItemKey, Time)> = self
            .sessions
            .values()
            .filter(|session| session.ended_at.is_none())
            .filter_map(|session| Some((session.key.clone(), self.sessions.get(&login_of(&session.key)?)?.ended_at?)))
            .collect();
        ends.into_iter().for_each(|(key, at)| self.end(key, at));
        let is_old = |session: &&HostSession| session.ended_at.is_some_and(|at| now.micros_since(at) >= KEPT_SECONDS * 1_000_000);
        let old: Vec<ItemKey> = self.sessions.values().filter(is_old).map(|session| session.key.clone()).collect();
        old.iter().for_each(|key| self.let_go(key));
    }
}

#[cfg(test)]
mod tests {
    use trueline_drift::actor::Session;

    use super::*;

    fn login(number: usize) -> HostSession {
        let id = format!("aaa-{number}");
        let (key, id) = (ItemKey::from_text(&id).unwrap(), id.parse().unwrap());
        HostSession { key, login: Session::bare(id), uid: None, step: None, ended_at: None }
    }

    #[test]
    fn it_is_bounded_and_what_ended_first_makes_room_with_its_end_kept() {
        let mut book = Book::default();
        for number in 0..SESSIONS {
            book.begin(login(number));
        }
        // None has ended: there is no room for another.
        book.begin(login(SESSIONS));
        assert_eq!((book.sessions.len(), book.find(&login(SESSIONS).key)), (SESSIONS, None));
        book.end(login(5).key, Time::from_seconds(9));
        book.end(login(6).key, Time::from_seconds(8));
        book.begin(login(SESSIONS));
        assert!(book.find(&login(6).key).is_none() && book.find(&login(5).key).is_some() && book.find(&login(SESSIONS).key).is_some());
        assert_eq!(book.end_of(&login(6).key), Some(Time::from_seconds(8)));
        (0..2 * ENDS).for_each(|number| book.end(login(SESSIONS + 1 + number).key, Time::from_seconds(number as i64)));
        assert_eq!(book.ends.len(), ENDS);
    }

    #[test]
    fn one_ends_once_and_the_version_tells_of_it() {
        let mut book = Book::default();
        book.begin(login(1));
        book.end(login(1).key, Time::from_seconds(5));
        let version = book.version();
        book.end(login(1).key, Time::from_seconds(6));
        book.begin(login(1));
        assert_eq!((book.find(&login(1).key).unwrap().ended_at, book.version()), (Some(Time::from_seconds(5)), version));
        book.close(Time::from_seconds(5 + KEPT_SECONDS));
        assert_eq!((book.find(&login(1).key), book.end_of(&login(1).key)), (None, Some(Time::from_seconds(5))));
    }
}
