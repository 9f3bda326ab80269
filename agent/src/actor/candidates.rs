//! What went on on this host besides what the sensors told: logins, su and sudo within them, and what the package manager wrote
//! into its log. Of these the domain chooses who may have made a change that nobody was seen to make.
//!
//! Owns what was last read of them. Invariants: the sources are read at most once within [`KEPT`]; at most [`ACTIVITIES`] are
//! kept, the latest; nothing here waits, but once for what there was at the agent's start.

mod package_log;
#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::time::{Duration, Instant};

use trueline_drift::actor::{Origin, Session, SessionKind, Sudo};
use trueline_drift::candidate::{Activity, Doing};
use trueline_drift::{Certainty, Fields, ItemKey, Time, Value};

use self::package_log::PackageLog;
use super::login::Sessions;
use crate::clock;
use crate::collect::Root;
use crate::collect::session::{HostSession, Means, login_of};

/// What was read counts for as long.
const KEPT: Duration = Duration::from_secs(1);
/// For the first reading of sessions and the journal.
const PATIENCE: Duration = Duration::from_secs(2);
const ACTIVITIES: usize = 8192;

#[derive(Debug)]
pub struct Activities {
    packages: PackageLog,
    known: Vec<Activity>,
    read_at: Option<Instant>,
}

impl Activities {
    pub fn beneath(root: &Root) -> Self {
        Self { packages: PackageLog::beneath(root), known: Vec::new(), read_at: None }
    }

    /// Whether what is known is too old.
    pub fn are_due(&self, now: Instant) -> bool {
        self.read_at.is_none_or(|at| now.saturating_duration_since(at) >= KEPT)
    }

    pub fn known(&self) -> &[Activity] {
        &self.known
    }

    /// Keeps of what was read only what may be told.
    pub fn retain(&mut self, may_be_told: impl Fn(&Doing) -> bool) {
        self.known.retain(|activity| may_be_told(&activity.what));
    }

    /// Reads all anew. `told` are sessions that were told of before, also such as nobody else here knows any more.
    pub fn read(&mut self, sessions: Option<&Sessions>, told: impl Iterator<Item = (ItemKey, Fields)>, now: Instant) {
        let patience = if self.read_at.is_none() { PATIENCE } else { Duration::ZERO };
        let book = sessions.map(|sessions| sessions.read_within(patience)).unwrap_or_default();
        let told = told.filter(|(key, _)| book.find(key).is_none()).filter_map(|(key, fields)| {
            let mut activity = of_fields(&key, &fields)?;
            if activity.ended_at.is_none() && book.is_read && !book.may_be_open(&key) {
                // It ended unseen, and is about to be told so.
                let end = book.end_of(&key).or_else(|| book.end_of(&login_of(&key)?));
                activity.ended_at = Some(end.unwrap_or_else(clock::now));
            }
            Some(activity)
        });
        self.known = book.sessions().filter_map(of_session).chain(told).collect();
        self.known.extend_from_slice(self.packages.entries());
        if self.known.len() > ACTIVITIES {
            self.known.sort_unstable_by_key(|activity| std::cmp::Reverse(activity.ended_at.unwrap_or(Time::from_micros(i64::MAX))));
            self.known.truncate(ACTIVITIES);
            self.known.reverse();
        }
        self.read_at = Some(now);
    }
}

fn of_session(session: &HostSession) -> Option<Activity> {
    let login = session.login.clone();
    let what = match &session.step {
        None => Doing::Login { session: login },
        Some(step) => {
            let said = Sudo {
                certainty: step.certainty.max(login.certainty),
                by: login.user.clone(),
                as_user: Some(step.as_user.clone()),
                command: step.command.clone(),
                terminal: step.terminal.clone(),
            };
            of_step(step.means, login, said)
        }
    };
    Some(Activity { what, began_at: session.began_at()?, ended_at: session.ended_at })
}

fn of_step(means: Means, session: Session, step: Sudo) -> Doing {
    match means {
        Means::Su => Doing::Su { session, su: step },
        Means::Sudo => Doing::Sudo { session, sudo: step },
    }
}

/// From the fields of its item.
fn of_fields(key: &ItemKey, fields: &Fields) -> Option<Activity> {
    let text = |name: &str| match fields.value(name) {
        Some(Value::Text(text)) => Some(text.clone()),
        _ => None,
    };
    let time = |name: &str| text(name).and_then(|text| text.parse::<Time>().ok());
    let kind = text("type")?;
    let certainty = text("certainty").and_then(|name| Certainty::ALL.into_iter().find(|certainty| certainty.name() == name))?;
    let within = login_of(key);
    let mut session = Session {
        certainty,
        kind: SessionKind::ALL.into_iter().find(|of| of.name() == kind).unwrap_or(SessionKind::Other),
        user: text("user"),
        origin: text("origin").and_then(|text| origin(&text)),
        terminal: text("terminal"),
        key: text("key"),
        began_at: time("began_at"),
        ..Session::bare(within.as_ref().unwrap_or(key).as_str().parse().ok()?)
    };
    let what = match within {
        None => {
            session.user = session.user.or_else(|| text("as_user"));
            Doing::Login { session }
        }
        Some(_) => {
            let means = [Means::Su, Means::Sudo].into_iter().find(|means| means.name() == kind)?;
            let step = Sudo {
                certainty,
                by: session.user.clone(),
                as_user: text("as_user"),
                command: text("command"),
                terminal: text("terminal"),
            };
            // Of the login itself its steps tell only whose it is and from where.
            let login = Session { kind: SessionKind::Other, terminal: None, key: None, began_at: None, ..session };
            of_step(means, login, step)
        }
    };
    Some(Activity { what, began_at: time("began_at")?, ended_at: time("ended_at") })
}

/// As an origin is written: `10.0.4.17 port 51022`.
fn origin(text: &str) -> Option<Origin> {
    let (address, port) = match text.split_once(" port ") {
        Some((address, port)) => (address, Some(port.parse().ok()?)),
        None => (text, None),
    };
    Some(Origin { address: address.parse::<IpAddr>().ok()?, port })
}
