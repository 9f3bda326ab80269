//! Reading what was touched or found, and noting the difference: the only place where a record of an item is made.

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::Ordering;
use std::time::Instant;

use tracing::warn;
use trueline_drift::change::ChangeKind;
use trueline_drift::diff::diff;
use trueline_drift::{Actor, Cause, Change, Fields, GapReason, ItemId, ItemKey, ItemKind, Observation, RecordBody, text};

use super::aside::{Crowded, Request};
use super::plans::{Plan, Why};
use super::settle::{self, Settled};
use super::{Observer, RIPPLE, Scope, Sink};
use crate::clock;
use crate::collect::{CollectError, Known, ReadError, Reading};
use crate::sensor::{Depth, Loss, Target};
use crate::state::{Scope as StateScope, Seen, StateError, Stored};

/// What an item that the state does not know is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Novelty {
    /// New to the agent: it was not watched before.
    FirstSight,
    /// New on the host.
    Created,
}

/// The field that changes without any event (ioctl_iflags(2)): it shows when something else has the file read.
const UNTOLD: &str = "flags";

impl<S: Sink> Observer<S> {
    /// Reads what has settled and notes what changed.
    pub(super) fn examine(&mut self, settled: Vec<Settled>) {
        let mut kinds: BTreeMap<ItemKind, Actor> = BTreeMap::new();
        for touched in settled {
            let actor = settle::actor_of(&touched);
            match &touched.target {
                Target::Sysctl(name) => {
                    if self.parts.policy.watches_sysctl(name)
                        && let Ok(key) = ItemKey::from_text(name)
                    {
                        self.read_and_compare(&ItemId::new(ItemKind::Sysctl, key), None, Cause::Event, &actor);
                        self.ripple = Some(self.ripple.as_ref().map_or_else(|| actor.clone(), |earlier| settle::together(earlier, &actor)));
                        self.next_poll = self.next_poll.min(Instant::now() + RIPPLE);
                    }
                }
                Target::Path(path) => {
                    for kind in self.parts.collectors.kinds_behind(path) {
                        let actor = kinds.get(&kind).map_or_else(|| actor.clone(), |earlier| settle::together(earlier, &actor));
                        kinds.insert(kind, actor);
                    }
                    self.examine_path(path, touched.depth, &actor);
                }
            }
        }
        for (kind, mut actor) in kinds {
            // One reading of a kind also shows what those did whose touch has not settled yet.
            for (path, waiting) in self.settle.actors() {
                if self.parts.collectors.kinds_behind(path).contains(&kind) {
                    actor = settle::together(waiting, &actor);
                }
            }
            if let Err(fault) = self.compare_kind(kind, Cause::Event, &actor, None) {
                self.read_later(Scope::Kind(kind), &fault);
            }
        }
    }

    fn examine_path(&mut self, path: &[u8], depth: Depth, actor: &Actor) {
        let printable = text::printable(path);
        if !self.parts.policy.watches_path(&printable) {
            return;
        }
        let item = match ItemKey::from_bytes(path) {
            Ok(key) => ItemId::new(ItemKind::File, key),
            Err(error) => return self.note_failure(&text::bounded(&printable, 80), &error),
        };
        let was_folder = self.stored(&item).ok().flatten().is_some_and(|stored| is_folder(&stored.fields));
        let now_folder = self.read_and_compare(&item, None, Cause::Event, actor).is_some_and(|fields| is_folder(&fields));
        // What lies in a folder comes and goes with it, by the same hand.
        if (was_folder && !now_folder) || (now_folder && depth == Depth::Tree) {
            self.plan(Plan { scope: Scope::Path(printable.into_owned()), why: Why::Tree { actor: Box::new(actor.clone()) } });
        }
    }

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

    /// Reads an item and notes what changed; its fields, if it is there. `known` spares the contents of a file whose stamp
    /// still holds.
    pub(super) fn read_and_compare(&mut self, item: &ItemId, known: Known<'_>, cause: Cause, actor: &Actor) -> Option<Fields> {
        match self.parts.collectors.read_item(item, known) {
            Ok(reading) => {
                let fields = reading.as_ref().map(|reading| reading.fields.clone());
                self.compare(item.clone(), reading, cause, actor, self.novelty(item));
                fields
            }
            Err(CollectError::File(ReadError::Large { .. })) => {
                self.read_aside(item, cause, actor);
                None
            }
            Err(error) => {
                self.note_failure(item.key.as_str(), &error);
                if cause == Cause::Event {
                    self.read_later(Scope::of(item), &error);
                }
                None
            }
        }
    }

    fn read_aside(&mut self, item: &ItemId, cause: Cause, actor: &Actor) {
        let request = Request { item: item.clone(), cause, actor: actor.clone(), asked_at: Instant::now() };
        if let Err(Crowded) = self.aside.ask(request) {
            self.read_later(Scope::of(item), &"too many large files wait to be read");
        }
    }

    /// Takes what was read aside, and has the next large file read.
    pub(super) fn work_aside(&mut self) {
        let Some((request, read)) = self.aside.take(self.parts.policy.scan_bytes_per_second, Instant::now()) else { return };
        let present = match read {
            // Since it was opened it may have gone, or another may have come in its place: what was read counts if it still holds.
            Ok(Some(reading)) => {
                let known = reading.stamp.as_ref().map(|stamp| (stamp, &reading.fields));
                match self.parts.collectors.read_item(&request.item, known) {
                    // It has changed again and is as large: an event tells of that, and this is what is known until then.
                    Err(CollectError::File(ReadError::Large { .. })) => Ok(Some(reading)),
                    present => present,
                }
            }
            read => read.map_err(CollectError::from),
        };
        match present {
            Ok(reading) => self.compare(request.item.clone(), reading, request.cause, &request.actor, self.novelty(&request.item)),
            Err(error) => {
                self.note_failure(request.item.key.as_str(), &error);
                self.read_later(Scope::of(&request.item), &error);
            }
        }
    }

    /// An event that could not be followed by a reading is a loss like any other.
    pub(super) fn read_later(&mut self, scope: Scope, reason: &dyn std::fmt::Display) {
        warn!(%scope, %reason, "it will be read again");
        let loss = Loss { scope: scope.to_string(), reason: GapReason::SensorLost, began_at: clock::now(), lost: None };
        self.plan(Plan { scope, why: Why::Lost(loss) });
    }

    /// Reads all items of a kind that has no scan of its own. Items new to the state are created
    /// unless `novelty` says otherwise.
    pub(super) fn compare_kind(
        &mut self,
        kind: ItemKind,
        cause: Cause,
        actor: &Actor,
        novelty: Option<&dyn Fn(&ItemId) -> Novelty>,
    ) -> Result<u64, String> {
        let listed = self.parts.collectors.read_kind(kind).map_err(|error| {
            self.note_failure(kind.name(), &error);
            error.to_string()
        })?;
        let mut missing: HashSet<ItemId> = self.known_items(&StateScope::kind(kind))?.into_iter().collect();
        let count = listed.len() as u64;
        for (item, reading) in listed {
            missing.remove(&item);
            let novelty = novelty.map_or_else(|| self.novelty(&item), |novelty| novelty(&item));
            self.compare(item, Some(reading), cause, actor, novelty);
        }
        for item in missing {
            if self.parts.policy.watches(&item) {
                self.compare(item, None, cause, actor, Novelty::Created);
            } else {
                self.unwatch(item);
            }
        }
        Ok(count)
    }

    /// The item is in view no longer: what it is now is not known.
    pub(super) fn unwatch(&mut self, item: ItemId) {
        self.offer.records.push(RecordBody::Unwatched { item: item.clone(), observed_at: clock::now() });
        self.offer.updates.insert(item, None);
    }

    /// All items of a kind that is watched no longer.
    pub(super) fn unwatch_kind(&mut self, kind: ItemKind) -> Result<(), String> {
        let known = self.known_items(&StateScope::kind(kind))?;
        known.into_iter().for_each(|item| self.unwatch(item));
        Ok(())
    }

    /// The heart: what was known, what is now, and a record of the difference.
    pub(super) fn compare(&mut self, item: ItemId, reading: Option<Reading>, cause: Cause, actor: &Actor, novelty: Novelty) {
        if cause == Cause::Event
            && let Some(sweep) = &mut self.sweep
        {
            sweep.note_touched(item.clone());
        }
        let now = clock::now();
        let stored = match self.stored(&item) {
            Ok(stored) => stored,
            // Compared with nothing it would be called new.
            Err(error) => return self.read_later(Scope::of(&item), &error),
        };
        let (fields, stamp) = match reading {
            Some(reading) => (Some(reading.fields.bounded()), reading.stamp),
            None => (None, None),
        };
        let update = fields.clone().map(|fields| Stored { fields, observed_at: now, stamp });
        let (before, observed_after, known_stamp) = match stored {
            Some(stored) => (Some(stored.fields), stored.observed_at, Some(stored.stamp)),
            None => (None, self.complete_at, None),
        };
        if before.is_none() && novelty == Novelty::FirstSight {
            if let Some(fields) = fields {
                self.offer.records.push(RecordBody::Observed(Observation { item: item.clone(), fields, observed_at: now }));
                self.offer.updates.insert(item, update);
            }
            return;
        }
        let is_retelling = !self.is_inventoried;
        let Some(difference) = diff(before, fields.clone()) else {
            if let Some(fields) = fields.filter(|_| is_retelling) {
                // Known here from an epoch before: the collector has yet to hear of it in this one.
                self.offer.records.push(RecordBody::Observed(Observation { item: item.clone(), fields, observed_at: now }));
                self.offer.updates.insert(item, update);
                return;
            }
            // The same to everybody but the next quick scan.
            if known_stamp.is_some_and(|known| known != stamp) {
                self.offer.updates.insert(item, update);
            }
            return;
        };
        self.parts.status.changes.fetch_add(1, Ordering::Relaxed);
        let has_untold = cause == Cause::Event
            && difference.kind == ChangeKind::Modified
            && difference.fields.iter().any(|field| field.name.as_str() == UNTOLD);
        let actor =
            if has_untold { actor.but("no event tells of a change of flags: another process may have made it") } else { actor.clone() };
        let change = Change {
            item: item.clone(),
            kind: difference.kind,
            fields: difference.fields,
            unchanged: difference.unchanged,
            observed_after,
            observed_at: now,
            cause,
            actor,
            transaction: None,
        };
        self.offer.records.push(RecordBody::Changed(Box::new(change)));
        self.offer.updates.insert(item, update);
    }

    /// Whether an item that the state does not know can be called new.
    pub(super) fn novelty(&self, item: &ItemId) -> Novelty {
        let reasons = self.sweep.iter().map(|sweep| &sweep.plan.why).chain(self.plans.reasons());
        let is_new_in_view = reasons.filter_map(Why::policy_before).any(|before| !before.watches(item));
        if self.is_inventoried && !is_new_in_view { Novelty::Created } else { Novelty::FirstSight }
    }

    pub(super) fn stored(&self, item: &ItemId) -> Result<Option<Stored>, StateError> {
        match self.offer.updates.get(item) {
            Some(update) => Ok(update.clone()),
            None => self.parts.state.lookup(item),
        }
    }

    pub(super) fn note_failure(&self, subject: &str, error: &dyn std::fmt::Display) {
        self.parts.status.read_failures.fetch_add(1, Ordering::Relaxed);
        warn!(subject, %error, "an item could not be read");
    }
}

fn is_folder(fields: &Fields) -> bool {
    fields.value("type") == Some(&trueline_drift::Value::text("folder"))
}
