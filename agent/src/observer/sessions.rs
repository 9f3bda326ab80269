//! Sessions are told: each as it begins and as it ends, and let go of a day later.
//!
//! Invariants: what was told of one stays as it was first known, but for its end; one that is known to have begun ends in any
//! case, at the latest when it is noticed to be gone; an ended one leaves the state, and the collector's view, without a change.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use trueline_drift::actor::User;
use trueline_drift::change::Cause;
use trueline_drift::{Actor, Certainty, Fields, ItemId, ItemKind, Time, Value};

use super::{Novelty, Observer, Sink};
use crate::actor::login::book::Book;
use crate::clock;
use crate::collect::Reading;
use crate::collect::session::{ENDED_AT, HostSession, login_of};
use crate::state::Scope as StateScope;

/// For what there was at the agent's start.
pub(super) const SESSIONS_PATIENCE: Duration = Duration::from_secs(5);
/// A login's terminal is known a moment after it.
const YOUNG_MICROS: i64 = 1_000_000;
/// Between two looks at those that are too young: each takes all of them.
const AGAIN: Duration = Duration::from_millis(250);
const KEPT_SECONDS: i64 = 24 * 3600;
/// Ended ones that are kept.
const KEPT: usize = 1000;

impl<S: Sink> Observer<S> {
    /// Where any began or ended since they were told.
    pub(super) fn tell_sessions(&mut self) {
        let now = Instant::now();
        if now < self.next_sessions {
            return;
        }
        let version = self.parts.completion.logins().map_or(0, |logins| logins.sessions().version());
        if version == self.sessions_told || self.offer_again.is_some() || !self.parts.policy.watches_kind(ItemKind::Session) {
            return;
        }
        match self.compare_sessions(Cause::Event, Duration::ZERO) {
            // Some are too young to be told.
            Ok(Told { is_all: false, .. }) => self.next_sessions = now + AGAIN,
            Ok(_) => self.sessions_told = version,
            Err(fault) => {
                self.sessions_told = version;
                self.read_later(super::Scope::Kind(ItemKind::Session), &fault);
            }
        }
    }

    /// All that are known, against what was told of them.
    pub(super) fn compare_sessions(&mut self, cause: Cause, patience: Duration) -> Result<Told, String> {
        let Some(sessions) = self.parts.completion.logins().map(|logins| logins.sessions()) else {
            return Ok(Told { count: 0, is_all: true });
        };
        let book = sessions.read_within(patience);
        let now = clock::now();
        let mut known: BTreeSet<ItemId> = self.known_items(&StateScope::kind(ItemKind::Session))?.into_iter().collect();
        let mut told = Told { count: 0, is_all: true };
        let mut over: Vec<(Time, ItemId)> = Vec::new();
        for session in book.sessions() {
            let item = session.item();
            told.count += 1;
            known.remove(&item);
            let stored = self.stored(&item).map_err(|error| error.to_string())?;
            let is_known = stored.is_some();
            let fields = match (stored, session.ended_at) {
                (Some(stored), Some(at)) if stored.fields.value("ended_at").is_none() => ended(stored.fields, at),
                (Some(stored), ended_at) => {
                    over.extend(ended_at.map(|at| (at, item.clone())));
                    stored.fields
                }
                (None, Some(at)) if is_old(at, now) || self.sessions_let_go.is_some_and(|let_go| at <= let_go) => continue,
                (None, None) if session.began_at().is_some_and(|at| (0..YOUNG_MICROS).contains(&now.micros_since(at))) => {
                    told.is_all = false;
                    continue;
                }
                (None, _) => session.fields(),
            };
            let actor = actor_of(session, is_known);
            self.compare_session(item, fields, cause, &actor, session.began_at());
        }
        if book.is_read && book.has_records {
            over.extend(self.end_sessions(known, &book, now)?);
            over.sort_unstable_by(|a, b| b.cmp(a));
            for (place, (at, item)) in over.into_iter().enumerate() {
                if place >= KEPT || is_old(at, now) {
                    self.sessions_let_go = self.sessions_let_go.max(Some(at));
                    self.unwatch(item);
                }
            }
        }
        Ok(told)
    }

    fn compare_session(&mut self, item: ItemId, fields: Fields, cause: Cause, actor: &Actor, began_at: Option<Time>) {
        let at_inventory = self.parts.state.inventory_complete().ok().flatten().map(|complete| complete.at);
        let is_older = at_inventory.is_none_or(|at| began_at.is_some_and(|began| began <= at));
        let novelty = if is_older { Novelty::FirstSight } else { self.novelty(&item) };
        // What a reading of all is about to find is found by that: its event came first, and was told of by none.
        let cause = if self.doubt(&item, true).is_some() { Cause::Rescan } else { cause };
        self.compare(item, Some(Reading::of(fields)), cause, actor, novelty);
    }

    /// Those that were told and are not known any more, if they have not ended yet; such as have are returned.
    fn end_sessions(&mut self, known: BTreeSet<ItemId>, book: &Book, now: Time) -> Result<Vec<(Time, ItemId)>, String> {
        let mut over = Vec::new();
        for item in known {
            let Some(stored) = self.stored(&item).map_err(|error| error.to_string())? else { continue };
            if let Some(Value::Text(at)) = stored.fields.value("ended_at") {
                over.push((at.parse().unwrap_or(stored.observed_at), item));
            } else if !book.may_be_open(&item.key) || book.end_of(&item.key).is_some() {
                let at = book.end_of(&item.key).or_else(|| book.end_of(&login_of(&item.key)?)).unwrap_or(now);
                let actor = Actor::unknown("it was found to have ended; who ended it, the host does not say");
                self.compare_session(item, ended(stored.fields, at), Cause::Rescan, &actor, None);
            }
        }
        Ok(over)
    }
}

fn is_old(ended_at: Time, now: Time) -> bool {
    now.micros_since(ended_at) > KEPT_SECONDS * 1_000_000
}

/// What came of a reading.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) count: u64,
    pub(super) is_all: bool,
}

fn ended(mut fields: Fields, at: Time) -> Fields {
    fields.set(ENDED_AT, Value::text(&at.to_string()));
    fields
}

/// Who logged in began it. Who ended it is mostly the same.
fn actor_of(session: &HostSession, is_known: bool) -> Actor {
    let HostSession { login, uid: Some(uid), step, .. } = session else {
        return Actor::unknown("who logged in is known by name alone");
    };
    let certainty = step.as_ref().map_or(login.certainty, |step| step.certainty.max(login.certainty));
    let user = User { uid: *uid, euid: None, login_uid: Some(*uid), name: login.user.clone(), login_name: login.user.clone() };
    let doubt = (certainty == Certainty::Correlated).then(|| "su and sudo speak with the uid of whoever started them".to_owned());
    let actor = Actor {
        certainty,
        via: vec![if step.is_some() { "journal" } else { "logind" }.to_owned()],
        user: Some(user),
        session: Some(login.clone()),
        reason: doubt,
        ..Actor::unknown("")
    };
    if is_known { actor.but("the host says that it ended, and not who ended it") } else { actor }
}
