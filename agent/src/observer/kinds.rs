//! All items of a kind together, for kinds that have no scan of their own.
//!
//! Invariant: what nobody can tell at the moment is known as it was: see [`super::interim`] and [`super::activity`].

use std::collections::HashSet;
use std::time::Instant;

use trueline_drift::{Actor, Cause, FieldName, ItemId, ItemKind, firewall};

use super::compare::Novelty;
use super::findings::Finding;
use super::plans::Why;
use super::sessions::SESSIONS_PATIENCE;
use super::{Observer, Scope, Sink};
use crate::collect::package::ORIGIN;
use crate::collect::{CollectError, Listing, Reading};
use crate::state::{Scope as StateScope, Seen};

/// When what differs is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Telling {
    AtOnce,
    /// Once the sensors have told of all events before: see [`super::findings`].
    CaughtUp,
}

/// Of a kernel setting, what is in force.
pub(super) const VALUE: &str = "value";

const UNSAID: &str = "the kernel tells nobody of changes by iptables-legacy";

impl<S: Sink> Observer<S> {
    /// The items of a scope that the state holds.
    pub(super) fn known_items(&self, scope: &StateScope) -> Result<Vec<ItemId>, String> {
        let mut items: Vec<ItemId> = Vec::new();
        loop {
            let more = self.parts.state.unseen(scope, &mut Seen::new(), items.last(), super::BATCH).map_err(|error| error.to_string())?;
            if more.is_empty() {
                return Ok(items);
            }
            items.extend(more);
        }
    }

    /// Reads all items of a kind that has no scan of its own. Items new to the state are created
    /// unless `novelty` says otherwise.
    pub(super) fn compare_kind(
        &mut self,
        kind: ItemKind,
        cause: Cause,
        actor: &Actor,
        telling: Telling,
        novelty: Option<&dyn Fn(&ItemId) -> Novelty>,
    ) -> Result<u64, String> {
        if kind == ItemKind::Session {
            return self.compare_sessions(cause, SESSIONS_PATIENCE).map(|told| told.count);
        }
        if kind == ItemKind::Run {
            return self.compare_runs(cause);
        }
        let listed = self.list(kind)?.items;
        self.compare_listed(kind, listed, cause, actor, telling, novelty)
    }

    pub(super) fn list(&mut self, kind: ItemKind) -> Result<Listing, String> {
        self.read_kind(kind).map_err(|error| {
            self.note_failure(kind.name(), &error);
            error.to_string()
        })
    }

    /// All items of a kind as far as they can be told now; the rest of each is as it was.
    pub(super) fn read_kind(&mut self, kind: ItemKind) -> Result<Listing, CollectError> {
        let stirred_at = if kind == ItemKind::Unit { self.stirred_at() } else { None };
        let mut listing = self.parts.collectors.read_kind(kind)?;
        match kind {
            ItemKind::Package => {
                self.withhold_interim(&mut listing, Instant::now());
                self.keep_origins(&mut listing);
            }
            ItemKind::Unit => self.withhold_activity(&mut listing, stirred_at, Instant::now()),
            _ => {}
        }
        Ok(listing)
    }

    /// A version has the origin that it was first known with, whatever its repository has since.
    fn keep_origins(&self, listing: &mut Listing) {
        for (item, reading) in &mut listing.items {
            if let Ok(Some(stored)) = self.stored(item)
                && stored.fields.value("version") == reading.fields.value("version")
                && let Some(origin) = stored.fields.value(ORIGIN)
            {
                reading.fields.set(FieldName::known(ORIGIN), origin.clone());
            }
        }
    }

    /// Gives items the value of a field that they are known with.
    pub(super) fn keep(&self, name: &'static str, listed: &mut [(ItemId, Reading)]) {
        for (item, reading) in listed {
            if let Ok(Some(stored)) = self.stored(item)
                && let Some(value) = stored.fields.value(name)
            {
                reading.fields.set(FieldName::known(name), value.clone());
            }
        }
    }

    pub(super) fn compare_listed(
        &mut self,
        kind: ItemKind,
        listed: Vec<(ItemId, Reading)>,
        cause: Cause,
        actor: &Actor,
        telling: Telling,
        novelty: Option<&dyn Fn(&ItemId) -> Novelty>,
    ) -> Result<u64, String> {
        self.settle.let_go(kind);
        let mut missing: HashSet<ItemId> = self.known_items(&StateScope::kind(kind))?.into_iter().collect();
        let count = listed.len() as u64;
        let unsaid = Actor::unknown(UNSAID);
        let author = |item: &ItemId| if cause == Cause::Event && is_unsaid(item) { &unsaid } else { actor };
        for (item, reading) in listed {
            missing.remove(&item);
            let actor = author(&item);
            let novelty = novelty.map_or_else(|| self.novelty(&item), |novelty| novelty(&item));
            self.compare_in_time(item, Some(reading), cause, actor, novelty, telling);
        }
        for item in missing {
            if self.parts.policy.watches(&item) {
                let actor = author(&item);
                self.compare_in_time(item, None, cause, actor, Novelty::Created, telling);
            } else {
                self.unwatch(item);
            }
        }
        Ok(count)
    }

    fn compare_in_time(&mut self, item: ItemId, reading: Option<Reading>, cause: Cause, actor: &Actor, novelty: Novelty, telling: Telling) {
        if telling == Telling::CaughtUp && novelty == Novelty::Created && self.differs(&item, reading.as_ref()) {
            self.findings.add(Finding { item, reading, cause, actor: actor.clone(), novelty, found_at: Instant::now(), rounds: 0 });
        } else {
            self.compare(item, reading, cause, actor, novelty);
        }
    }

    /// Reads all of a kind, which takes milliseconds and so waits for no sweep.
    pub(super) fn poll_kind(&mut self, kind: ItemKind) {
        let ripple = if kind == ItemKind::Sysctl { self.ripple.take() } else { None };
        let actor = match ripple {
            Some(writer) => writer.but("it was found to have changed when this process wrote another setting"),
            None => Why::Schedule.actor(),
        };
        let first: &dyn Fn(&ItemId) -> Novelty = &|_| Novelty::FirstSight;
        let novelty = self.unread.contains(&kind).then_some(first);
        match self.compare_kind(kind, Cause::Rescan, &actor, Telling::CaughtUp, novelty) {
            Ok(_) => drop(self.unread.remove(&kind)),
            Err(fault) => self.read_later(Scope::Kind(kind), &fault),
        }
    }

    /// All items of a kind that is watched no longer.
    pub(super) fn unwatch_kind(&mut self, kind: ItemKind) -> Result<(), String> {
        let known = self.known_items(&StateScope::kind(kind))?;
        known.into_iter().for_each(|item| self.unwatch(item));
        Ok(())
    }
}

/// Told by nobody, and read with what somebody else has changed.
fn is_unsaid(item: &ItemId) -> bool {
    item.kind == ItemKind::Firewall && firewall::is_legacy(item.key.as_str())
}
