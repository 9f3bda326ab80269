//! Logins that a process without privilege gave itself. Pure.
//!
//! The kernel lets every process that no login started write any user to its loginuid, once. Whoever logs people in is root when he
//! does. Every writing makes an audit session of its own, whose number all inherit who come of it and nobody else is ever given: one look at
//! who wrote it tells what the login is worth, for all of them and as long as the host is up.
//!
//! Who was root before and is not any more by the time of the look may have written it before or after: that counts only where the
//! topmost of those that it comes of and that have the session is root and was made by another who is, for nobody gives a session to his
//! maker; or where the service manager has put it among that user's. The same goes for a session that is met on a process of which
//! nothing is known.

use std::collections::BTreeSet;

use super::event::Standing;

/// Sessions remembered. Beyond it the oldest count as self-given, whoever gave them: better no login than a false one.
const SESSIONS: usize = 1 << 14;

/// A process's login, and its real user once that was read or later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Login {
    pub login_uid: Option<u32>,
    pub session: Option<u32>,
    pub uid: u32,
}

impl From<&Standing> for Login {
    fn from(standing: &Standing) -> Self {
        Self { login_uid: standing.login_uid, session: standing.session, uid: standing.uid }
    }
}

#[derive(Debug, Default)]
pub struct SelfGiven {
    sessions: BTreeSet<u32>,
    /// All up to this number.
    oldest: Option<u32>,
    /// Root gave these; the oldest of them are forgotten, and asked about again.
    given: BTreeSet<u32>,
}

impl SelfGiven {
    /// A process, or its maker, stood like this, and later was found with a login. Whether root gave it is asked of the real user: that of
    /// a set-user-ID program is whoever started it. `is_vouched_for` asks what else tells of root, of this user's login by its session.
    pub fn judge(&mut self, was: &Standing, found: Login, is_vouched_for: impl FnOnce(u32, u32) -> bool) {
        // Every thread has a login of its own to write, beside the one that is known of its process.
        let Some(login_uid) = found.login_uid.filter(|_| found.session != was.session || was.login_uid.is_none()) else { return };
        let is_given = was.uid == 0 && (found.uid == 0 || found.session.is_some_and(|session| is_vouched_for(login_uid, session)));
        if is_given { self.trust(found.session) } else { self.distrust(found.session) }
    }

    /// As [`Self::judge`], of a process of which nothing was known. Of several that have one session the first that is vouched for settles
    /// it, so whoever has all of them asks with `trust_if` first.
    pub fn judge_unknown(&mut self, found: Login, is_vouched_for: impl FnOnce(u32, u32) -> bool) {
        if !self.trust_if(found, is_vouched_for) {
            self.distrust(found.session);
        }
    }

    /// Whether it is settled what the login is worth.
    pub fn trust_if(&mut self, found: Login, is_vouched_for: impl FnOnce(u32, u32) -> bool) -> bool {
        let Some((login_uid, session)) = found.login_uid.zip(found.session) else { return true };
        // That it is root says nothing yet: who runs a set-user-ID program is.
        if self.contains(session) || self.is_given(found.session) {
            return true;
        }
        let is_given = is_vouched_for(login_uid, session);
        if is_given {
            self.trust(found.session);
        }
        is_given
    }

    pub fn is_given(&self, session: Option<u32>) -> bool {
        session.is_some_and(|session| self.given.contains(&session))
    }

    fn trust(&mut self, session: Option<u32>) {
        self.given.extend(session);
        if self.given.len() > SESSIONS {
            self.given.pop_first();
        }
    }

    pub fn distrust(&mut self, session: Option<u32>) {
        let Some(session) = session.filter(|session| !self.contains(*session)) else { return };
        self.sessions.insert(session);
        if self.sessions.len() > SESSIONS {
            self.oldest = self.sessions.pop_first();
        }
    }

    pub fn contains(&self, session: u32) -> bool {
        self.sessions.contains(&session) || (self.oldest.is_some_and(|oldest| session <= oldest) && !self.given.contains(&session))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beyond_the_bound_the_oldest_sessions_are_trusted_no_more() {
        let mut given = SelfGiven::default();
        (10..10 + SESSIONS as u32).for_each(|session| given.distrust(Some(session)));
        assert!(given.contains(10) && !given.contains(9));
        given.distrust(Some(u32::MAX - 1));
        assert!(given.contains(10) && given.contains(9) && given.contains(11) && !given.contains(u32::MAX - 2));
        assert!(given.sessions.len() <= SESSIONS);
    }

    /// Whoever forks without end would else take everybody's login away.
    #[test]
    fn what_root_was_seen_to_give_outlasts_any_number_of_self_given_ones() {
        let mut given = SelfGiven::default();
        given.trust_if(Login { login_uid: Some(1000), session: Some(5), uid: 1000 }, |_, _| true);
        (10..20 + SESSIONS as u32).for_each(|session| given.distrust(Some(session)));
        assert!(!given.contains(5) && given.contains(6));
    }

    fn standing(uid: u32, euid: u32, login_uid: Option<u32>) -> Standing {
        let (session, cgroup, terminal) = (None, None, None);
        Standing { uid, euid, login_uid, session, cgroup, terminal, pid_namespace: None, mount_namespace: None }
    }

    #[test]
    fn only_who_was_root_gives_logins() {
        let mut given = SelfGiven::default();
        let found = |uid, login_uid, session| Login { login_uid, session: Some(session), uid };
        given.judge(&standing(0, 0, None), found(0, Some(1000), 1), |_, _| false);
        let in_session = |session| Standing { session: Some(session), ..standing(1000, 1000, Some(1000)) };
        given.judge(&in_session(2), found(1000, Some(1000), 2), |_, _| false);
        given.judge(&standing(33, 33, None), found(33, None, 3), |_, _| false);
        assert!((1..=3).all(|session| !given.contains(session)));
        given.judge(&standing(33, 33, None), found(33, Some(1000), 4), |_, _| true);
        given.judge(&standing(33, 0, None), found(33, Some(1000), 5), |_, _| true);
        given.judge(&standing(33, 0, None), found(0, Some(1000), 6), |_, _| true);
        assert!((4..=6).all(|session| given.contains(session)), "a set-user-ID program is run by anyone");
        given.judge(&in_session(2), found(1000, Some(0), 7), |_, _| true);
        assert!(given.contains(7) && !given.contains(2), "another of its threads wrote it");
    }

    #[test]
    fn a_session_of_a_process_that_nothing_is_known_of_is_roots_or_vouched_for_or_not_believed() {
        let mut given = SelfGiven::default();
        let found = |uid, session| Login { login_uid: Some(1000), session: Some(session), uid };
        given.judge_unknown(found(0, 1), |_, _| true);
        given.judge_unknown(found(1000, 1), |_, _| panic!("it is settled"));
        given.judge_unknown(found(1000, 2), |login, session| (login, session) == (1000, 2));
        given.judge_unknown(found(1000, 3), |_, _| false);
        given.judge_unknown(found(0, 3), |_, _| panic!("it is settled"));
        given.judge_unknown(Login { login_uid: None, session: None, uid: 33 }, |_, _| panic!("there is none"));
        assert_eq!([1, 2, 3].map(|session| given.contains(session)), [false, false, true]);
        (10..20 + SESSIONS as u32).for_each(|session| given.judge_unknown(found(0, session), |_, _| true));
        assert!(given.given.len() <= SESSIONS);
    }

    #[test]
    fn who_has_put_root_away_by_the_time_of_the_look_is_vouched_for_or_not_believed() {
        let mut given = SelfGiven::default();
        let found = |session| Login { login_uid: Some(1000), session: Some(session), uid: 33 };
        given.judge(&standing(0, 0, None), found(1), |login, session| (login, session) == (1000, 1));
        given.judge(&standing(0, 0, None), found(2), |_, _| false);
        assert!(!given.contains(1) && given.contains(2));
    }
}
