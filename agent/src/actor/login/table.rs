//! Logins that are known, living and ended, and sessions of which nothing can be learnt. Pure, and bounded.
//!
//! A login stays after its end for as long as there is room: what it started may outlive it.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use trueline_drift::Time;

use super::{AuditSession, Login};

const LOGINS: usize = 4096;
const FRUITLESS: usize = 4096;
const WISHES: usize = 256;

#[derive(Debug)]
struct Entry {
    login: Arc<Login>,
    is_living: bool,
    /// All was asked that can be.
    is_settled: bool,
    /// When it was noticed not to live any more.
    ended_at: Option<Time>,
    /// What [`Table::news`] has told: whether it was settled, and living.
    told: Option<(bool, bool)>,
    noted: u64,
}

/// A login that is new, or of which more is known.
#[derive(Debug)]
pub struct News {
    pub session: AuditSession,
    pub login: Arc<Login>,
    pub is_living: bool,
    pub is_settled: bool,
    pub ended_at: Option<Time>,
}

#[derive(Debug, Default)]
pub struct Table {
    logins: HashMap<AuditSession, Entry>,
    /// Asked for in vain, oldest first.
    fruitless: VecDeque<AuditSession>,
    /// Asked for, and not looked for yet.
    wishes: HashSet<AuditSession>,
    notes: u64,
}

impl Table {
    pub fn find(&self, session: AuditSession) -> Option<Arc<Login>> {
        self.logins.get(&session).map(|entry| Arc::clone(&entry.login))
    }

    /// Whether nothing more will be learnt of it.
    pub fn is_settled(&self, session: AuditSession) -> bool {
        self.logins.get(&session).is_some_and(|entry| entry.is_settled) || self.fruitless.contains(&session)
    }

    /// Whether the thread must be told: it is looked for by nobody yet.
    pub fn want(&mut self, session: AuditSession) -> bool {
        !self.logins.contains_key(&session) && self.wishes.len() < WISHES && self.wishes.insert(session)
    }

    pub fn forget_wish(&mut self, session: AuditSession) {
        self.wishes.remove(&session);
    }

    /// A login as it is known so far. What was settled stays so.
    pub fn note(&mut self, session: AuditSession, login: Login, is_living: bool, is_settled: bool) {
        self.forget_wish(session);
        self.fruitless.retain(|fruitless| *fruitless != session);
        self.notes += 1;
        let noted = self.notes;
        if let Some(entry) = self.logins.get_mut(&session) {
            let is_settled = is_settled || entry.is_settled;
            // What is learnt of one that ended does not make it live again.
            let (ended_at, told) = (entry.ended_at, entry.told);
            *entry = Entry { login: Arc::new(login), is_living: is_living && ended_at.is_none(), is_settled, ended_at, told, noted };
            return;
        }
        if self.logins.len() >= LOGINS
            && let Some(oldest) = self.logins.iter().min_by_key(|(_, entry)| (entry.is_living, entry.noted)).map(|(session, _)| *session)
        {
            self.logins.remove(&oldest);
        }
        self.logins.insert(session, Entry { login: Arc::new(login), is_living, is_settled, ended_at: None, told: None, noted });
    }

    /// Nothing more can be asked about it, or nothing at all was found.
    pub fn settle(&mut self, session: AuditSession) {
        self.forget_wish(session);
        if let Some(entry) = self.logins.get_mut(&session) {
            entry.is_settled = true;
        } else if !self.fruitless.contains(&session) {
            if self.fruitless.len() >= FRUITLESS {
                self.fruitless.pop_front();
            }
            self.fruitless.push_back(session);
        }
    }

    /// All that live, but those given, have ended.
    pub fn end_all_but(&mut self, living: &HashSet<AuditSession>, now: Time) {
        for (session, entry) in &mut self.logins {
            if entry.is_living && !living.contains(session) {
                (entry.is_living, entry.ended_at) = (false, Some(now));
            }
        }
    }

    /// What has changed since this was last asked.
    pub fn news(&mut self) -> Vec<News> {
        let mut news = Vec::new();
        for (session, Entry { login, is_living, is_settled, ended_at, told, .. }) in &mut self.logins {
            if told.replace((*is_settled, *is_living)) != Some((*is_settled, *is_living)) {
                let (session, login, ended_at) = (*session, Arc::clone(login), *ended_at);
                news.push(News { session, login, is_living: *is_living, is_settled: *is_settled, ended_at });
            }
        }
        news
    }

    pub fn living(&self) -> Vec<AuditSession> {
        self.logins.iter().filter(|(_, entry)| entry.is_living).map(|(session, _)| *session).collect()
    }

    pub fn oldest_living(&self) -> Option<Time> {
        self.logins.values().filter(|entry| entry.is_living).map(|entry| entry.login.began_at).min()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use trueline_drift::Certainty;
    use trueline_drift::actor::SessionKind;

    use super::*;

    fn login(uid: u32) -> Login {
        Login {
            certainty: Certainty::Strong,
            kind: SessionKind::Ssh,
            uid: Some(uid),
            user: None,
            origin: None,
            terminal: None,
            key: None,
            began_at: Time::from_seconds(1),
        }
    }

    #[test]
    fn ended_logins_make_room_before_living_ones() {
        let mut table = Table::default();
        for number in 0..LOGINS as u32 {
            table.note(AuditSession(number), login(number), true, true);
        }
        let living: HashSet<_> = (0..LOGINS as u32).filter(|number| *number != 7).map(AuditSession).collect();
        table.end_all_but(&living, Time::from_seconds(2));
        table.note(AuditSession(u32::MAX), login(1), true, false);
        assert!(table.find(AuditSession(7)).is_none() && table.find(AuditSession(0)).is_some());
        table.note(AuditSession(u32::MAX - 1), login(1), true, false);
        assert!(table.find(AuditSession(0)).is_none());
        assert_eq!(table.logins.len(), LOGINS);
    }

    #[test]
    fn a_session_is_wanted_once_and_what_was_sought_in_vain_may_still_come() {
        let (mut table, session) = (Table::default(), AuditSession(3));
        assert!(table.want(session) && !table.want(session));
        table.settle(session);
        assert!(table.is_settled(session) && table.find(session).is_none());
        table.note(session, login(1), true, false);
        assert!(!table.is_settled(session) && table.find(session).is_some());
    }

    proptest! {
        #[test]
        fn it_stays_within_bounds(steps: Vec<(u8, u32)>) {
            let mut table = Table::default();
            for (what, number) in steps {
                let session = AuditSession(number);
                match what % 4 {
                    0 => drop(table.want(session)),
                    1 => table.settle(session),
                    2 => table.note(session, login(number), true, false),
                    _ => table.end_all_but(&HashSet::from([session]), Time::from_seconds(2)),
                }
                prop_assert!(table.find(session).is_none_or(|found| found.uid == Some(number)), "another's login");
            }
            prop_assert!(table.wishes.len() <= WISHES && table.fruitless.len() <= FRUITLESS && table.logins.len() <= LOGINS);
        }
    }
}
