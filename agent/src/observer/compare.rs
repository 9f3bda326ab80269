//! Reading what was touched or found, and noting the difference: the only place where a record of an item is made.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::atomic::Ordering;
use std::time::Instant;

use tracing::warn;
use trueline_drift::change::ChangeKind;
use trueline_drift::diff::{Difference, diff};
use trueline_drift::firewall;
use trueline_drift::{
    Actor, Cause, Change, FieldName, Fields, GapReason, ItemId, ItemKey, ItemKind, Observation, Operation, RecordBody, Transaction, text,
};

use super::aside::{Crowded, Request};
use super::findings::Finding;
use super::freshness::{Look, STILL_WRITTEN};
use super::plans::{Plan, Why};
use super::sessions::SESSIONS_PATIENCE;
use super::settle::{self, Settled};
use super::{Observer, RIPPLE, Scope, Sink, learnt};
use crate::clock;
use crate::collect::{CollectError, Known, Listing, ReadError, Reading};
use crate::sensor::{Coverage, Depth, Entry, GRACE, Loss, OPERATION, Target};
use crate::state::{Scope as StateScope, Seen, StateError, Stored};

/// What an item that the state does not know is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Novelty {
    /// New to the agent: it was not watched before.
    FirstSight,
    /// New on the host.
    Created,
}

/// When what differs is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Telling {
    AtOnce,
    /// Once the sensors have told of all events before: see [`super::findings`].
    CaughtUp,
}

/// Who is behind what differs.
#[derive(Debug, Clone, Copy)]
pub(super) enum By<'a> {
    /// Whom a sensor named: the chain is yet to be completed.
    Touched(&'a Actor),
    /// The whole chain, with the run.
    Known(&'a Actor, Option<&'a Transaction>),
}

/// What a kind is read for.
#[derive(Debug, Default)]
struct Source {
    actor: Option<Actor>,
    /// Those of its files that are watched themselves.
    touched: Vec<Settled>,
}

/// What a file holds can change without a write: through memory, by whoever has mapped it. No event tells of that.
const UNWRITTEN: &str = "no write was told: it was written through memory, perhaps by another process";
const CONTENTS: &str = "sha256";

/// Of a kernel setting, what is in force.
const VALUE: &str = "value";

/// What a remount changes of a mount: fanotify tells of mounts that come and go alone.
const REMOUNTED: [&str; 2] = ["options", "propagation"];
/// Of the packet filter's chains and flow tables at interfaces.
const DEVICES: &str = "devices";

const UNSAID: &str = "the kernel tells nobody of changes by iptables-legacy";

/// The field that changes without any event (ioctl_iflags(2)): it shows when something else has the file read.
const UNTOLD: &str = "flags";

impl<S: Sink> Observer<S> {
    /// Reads what has settled and notes what changed.
    pub(super) fn examine(&mut self, settled: Vec<Settled>) {
        let mut kinds: BTreeMap<ItemKind, Source> = BTreeMap::new();
        let mut due = VecDeque::from(settled);
        while let Some(touched) = due.pop_front() {
            // Before all that costs: many are looked at more than once.
            if let Target::Path(path) = &touched.target
                && self.parts.policy.watches_path(&text::printable(path))
                && self.is_too_soon(&touched)
            {
                self.settle.put_back(touched, GRACE, Instant::now());
                continue;
            }
            let actor = settle::actor_of(&touched);
            match touched.target.clone() {
                Target::Sysctl(name) => {
                    if self.parts.policy.watches_sysctl(&name)
                        && let Ok(key) = ItemKey::from_text(&name)
                    {
                        if matches!(self.examine_setting(&ItemId::new(ItemKind::Sysctl, key), touched, &actor), Look::TooSoon) {
                            continue;
                        }
                        self.ripple = Some(self.ripple.as_ref().map_or_else(|| actor.clone(), |earlier| settle::together(earlier, &actor)));
                        self.polls.soon(ItemKind::Sysctl, Instant::now() + RIPPLE);
                    }
                }
                Target::Kind(kind) => {
                    if self.parts.policy.watches_kind(kind) {
                        self.examine_kind(kind, touched, &actor);
                    }
                }
                Target::Path(path) => {
                    let wrote = touched.wrote;
                    self.unwritten = !wrote;
                    let mut touched = Some(touched);
                    let looked = self.examine_path(&path, &mut touched, &actor, &mut due);
                    self.unwritten = false;
                    let doubt = match looked {
                        Look::TooSoon => continue,
                        Look::Doubtful => Some(STILL_WRITTEN),
                        Look::Whole => (!wrote).then_some(UNWRITTEN),
                    };
                    let kinds_actor = doubt.map_or_else(|| actor.clone(), |doubt| actor.but(doubt));
                    for kind in self.parts.collectors.kinds_behind(&path) {
                        let source = kinds.entry(kind).or_default();
                        source.actor = Some(match &source.actor {
                            Some(earlier) => settle::together(earlier, &kinds_actor),
                            None => kinds_actor.clone(),
                        });
                        source.touched.extend(touched.clone());
                    }
                }
            }
        }
        for (kind, Source { actor, touched }) in kinds {
            let Some(mut actor) = actor else { continue };
            let mut listed = match self.list(kind) {
                Ok(listing) => listing.items,
                Err(fault) => {
                    self.read_later(Scope::Kind(kind), &fault);
                    continue;
                }
            };
            // Who touches a file that sets kernel settings at the next start sets none now: of those that did meanwhile others are told.
            if kind == ItemKind::Sysctl {
                self.keep(VALUE, &mut listed);
            }
            // One reading of a kind also shows what those did whose touch has not settled yet.
            for (path, waiting) in self.settle.actors().chain(self.unpacking.actors()) {
                if self.parts.collectors.kinds_behind(path).contains(&kind) {
                    actor = settle::together(waiting, &actor);
                }
            }
            match self.look_at_sources(touched, &actor) {
                Look::TooSoon => continue,
                Look::Doubtful => actor = actor.but(STILL_WRITTEN),
                Look::Whole => {}
            }
            if let Err(fault) = self.compare_listed(kind, listed, Cause::Event, &actor, Telling::AtOnce, None) {
                self.read_later(Scope::Kind(kind), &fault);
            }
        }
    }

    fn examine_path(&mut self, path: &[u8], touched: &mut Option<Settled>, actor: &Actor, due: &mut VecDeque<Settled>) -> Look {
        let printable = text::printable(path);
        let depth = touched.as_ref().map_or(Depth::Item, |touched| touched.depth);
        // A package manager writes its database on and on, each of its processes for itself: what waits would be the next one's.
        if !self.parts.policy.watches_path(&printable) {
            *touched = None;
            return Look::Whole;
        }
        let item = match ItemKey::from_bytes(path) {
            Ok(key) => ItemId::new(ItemKind::File, key),
            Err(error) => {
                self.note_failure(&text::bounded(&printable, 80), &error);
                return Look::Whole;
            }
        };
        let read = self.parts.collectors.read_item(&item, None);
        let look = self.look(touched, actor, &item, &read);
        let actor = match look {
            Look::TooSoon => return look,
            Look::Doubtful => &actor.but(STILL_WRITTEN),
            Look::Whole => actor,
        };
        let stored = self.stored(&item);
        let before = stored.as_ref().ok().and_then(Option::as_ref);
        let actor = match (&read, &*touched) {
            (Ok(reading), Some(touched)) => {
                &self.tell_others(&item, before, reading.as_ref(), (touched.touched_at, touched.wrote), actor, due)
            }
            _ => actor,
        };
        let is_gone = matches!(read, Ok(None)) && touched.as_ref().and_then(|touched| touched.entry).is_some_and(Entry::was_transient);
        if is_gone && matches!(stored, Ok(None)) {
            self.note_transient(&item, actor);
            return look;
        }
        let was_folder = before.is_some_and(|stored| is_folder(&stored.fields));
        let now_folder = self.compare_read(&item, read, Cause::Event, actor).is_some_and(|fields| is_folder(&fields));
        // What lies in a folder comes and goes with it, by the same hand.
        if (was_folder && !now_folder) || (now_folder && depth == Depth::Tree) {
            self.plan(Plan { scope: Scope::Path(printable.into_owned()), why: Why::Tree { actor: Box::new(actor.clone()) } });
        }
        look
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
        let read = self.parts.collectors.read_item(item, known);
        self.compare_read(item, read, cause, actor)
    }

    pub(super) fn compare_read(
        &mut self,
        item: &ItemId,
        read: Result<Option<Reading>, CollectError>,
        cause: Cause,
        actor: &Actor,
    ) -> Option<Fields> {
        match read {
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

    pub(super) fn read_aside(&mut self, item: &ItemId, cause: Cause, actor: &Actor) {
        // Whatever of it has changed by then, its contents may be among it.
        let actor = if self.unwritten { actor.but(UNWRITTEN) } else { actor.clone() };
        let request = Request { item: item.clone(), cause, actor, asked_at: Instant::now() };
        if let Err(Crowded) = self.aside.ask(request) {
            self.read_later(Scope::of(item), &"too many large files wait to be read");
        }
    }

    /// Takes what was read aside, and has the next large file read.
    pub(super) fn work_aside(&mut self) {
        let Some((request, read)) = self.aside.take(self.parts.policy.scan_bytes_per_second, Instant::now()) else { return };
        if !self.parts.policy.watches(&request.item) {
            // Another watch list came meanwhile.
            return;
        }
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
            Ok(reading) => {
                // Who touched it meanwhile may have changed what was read.
                let may_be_anothers = self.settle.holds(&request.item.key.bytes())
                    || reading.as_ref().is_some_and(|reading| self.may_be_anothers(&request.item, reading));
                let is_doubtful = request.cause == Cause::Event && self.names(&request.actor) && may_be_anothers;
                let mut actor = if is_doubtful { request.actor.but(STILL_WRITTEN) } else { request.actor };
                if request.cause == Cause::Event {
                    let before = self.stored(&request.item).ok().flatten();
                    let done = (clock::now(), true);
                    actor = self.tell_others(&request.item, before.as_ref(), reading.as_ref(), done, &actor, &mut VecDeque::new());
                }
                self.compare(request.item.clone(), reading, request.cause, &actor, self.novelty(&request.item));
            }
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
            ItemKind::Package => self.withhold_interim(&mut listing, Instant::now()),
            ItemKind::Unit => self.withhold_activity(&mut listing, stirred_at, Instant::now()),
            _ => {}
        }
        Ok(listing)
    }

    /// Gives items the value of a field that they are known with.
    fn keep(&self, name: &'static str, listed: &mut [(ItemId, Reading)]) {
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

    /// By whoever touched the item.
    pub(super) fn compare(&mut self, item: ItemId, reading: Option<Reading>, cause: Cause, actor: &Actor, novelty: Novelty) {
        self.compare_by(item, reading, cause, By::Touched(actor), novelty);
    }

    /// The heart: what was known, what is now, and a record of the difference.
    pub(super) fn compare_by(&mut self, item: ItemId, reading: Option<Reading>, cause: Cause, by: By<'_>, novelty: Novelty) {
        // An earlier event of it, which a sweep at work has noted, ended the doubt.
        let is_first = self.sweep.as_ref().is_none_or(|sweep| !sweep.has_touched(&item));
        if cause == Cause::Event {
            self.note_touched(&item);
        }
        let now = clock::now();
        let stored = match self.stored(&item) {
            Ok(stored) => stored,
            // Compared with nothing it would be called new.
            Err(error) => return self.read_later(Scope::of(&item), &error),
        };
        let (fields, stamp, inode, lines) = match reading {
            Some(reading) => (Some(reading.fields.bounded()), reading.stamp, reading.inode, reading.lines),
            None => (None, None, None, None),
        };
        let lines = lines.or_else(|| self.pending_lines(&item, fields.as_ref()?));
        let update = fields.clone().map(|fields| Stored { fields, observed_at: now, stamp, inode, lines: lines.clone() });
        let (before, observed_after, known) = match stored {
            Some(stored) => (Some(stored.fields), stored.observed_at, Some((stored.stamp, stored.inode))),
            None => (None, self.complete_at, None),
        };
        if before.is_none() && novelty == Novelty::FirstSight {
            if let Some(fields) = fields {
                self.offer.records.push(RecordBody::Observed(Observation { item: item.clone(), fields, observed_at: now }));
                self.offer.updates.insert(item, update);
            }
            return;
        }
        let learnt = before.as_ref().zip(fields.as_ref());
        let learnt = learnt.and_then(|(before, after)| {
            let masked = if self.masks_anew { learnt::with_masks(before, after) } else { None };
            learnt::with_learnt(item.kind, self.vocabulary, masked.as_ref().unwrap_or(before), after).or(masked)
        });
        let is_retelling = !self.is_inventoried || learnt.is_some();
        let before = learnt.or(before);
        let lines = self.differing_lines(&item, before.as_ref(), fields.as_ref(), lines.as_deref());
        let Some(difference) = diff(before, fields.clone()) else {
            if let Some(fields) = fields.filter(|_| is_retelling) {
                // Known here from an epoch before, or better than before: the collector has yet to hear of it.
                self.offer.records.push(RecordBody::Observed(Observation { item: item.clone(), fields, observed_at: now }));
                self.offer.updates.insert(item, update);
                return;
            }
            // The same to everybody but the next quick scan.
            let is_masked = self.masks_anew && update.as_ref().is_some_and(|update| update.lines.is_some());
            if is_masked || known.is_some_and(|known| known != (stamp, inode)) {
                self.offer.updates.insert(item, update);
            }
            return;
        };
        self.parts.status.changes.fetch_add(1, Ordering::Relaxed);
        let (actor, transaction) = match by {
            By::Known(actor, transaction) => (actor.clone(), transaction.cloned()),
            By::Touched(actor) => {
                let doubt = self.doubt_of(&item, &difference, cause, is_first);
                let actor = doubt.map_or_else(|| actor.clone(), |doubt| actor.but(doubt));
                let (actor, transaction) = self.parts.completion.complete(&actor, &self.parts.state);
                self.note_runs(&actor, transaction.as_ref());
                (actor, transaction)
            }
        };
        // A text that no collector takes would hold up all that comes after it.
        let actor = actor.bounded();
        let change = Change {
            item: item.clone(),
            kind: difference.kind,
            fields: difference.fields,
            unchanged: difference.unchanged,
            observed_after,
            observed_at: now,
            cause,
            actor,
            transaction,
            shipped_by: None,
            candidates: trueline_drift::Candidates::default(),
            lines,
        };
        self.offer.records.push(RecordBody::Changed(Box::new(change)));
        self.offer.updates.insert(item, update);
    }

    /// Why whoever touched the item may not have made this difference.
    fn doubt_of(&self, item: &ItemId, difference: &Difference, cause: Cause, is_first: bool) -> Option<&'static str> {
        let is_changed = |name: &str| difference.fields.iter().any(|field| field.name.as_str() == name);
        let is_modified = cause == Cause::Event && difference.kind == ChangeKind::Modified;
        match () {
            () if is_modified && is_changed(UNTOLD) && !self.hears_of(Operation::Flags) => {
                Some("no event tells of a change of flags: another process may have made it")
            }
            () if is_modified && self.unwritten && is_changed(CONTENTS) => Some(UNWRITTEN),
            // mount_setattr(2) is told of by nothing.
            () if is_modified && item.kind == ItemKind::Mount && REMOUNTED.iter().any(|name| is_changed(name)) => {
                Some("not every remount is told of: another process may have made it")
            }
            // An interface that goes takes away what was attached to it, and the kernel tells nobody.
            () if cause == Cause::Event && item.kind == ItemKind::Firewall && is_changed(DEVICES) => {
                Some("the kernel does so too where an interface goes, and tells nobody")
            }
            () if cause == Cause::Event => self.doubt(item, is_first),
            () => None,
        }
    }

    /// Whether a hook tells of each such operation, as of a write.
    fn hears_of(&self, operation: Operation) -> bool {
        let tells = |row: &Coverage| row.watching && row.scope.strip_prefix(OPERATION) == Some(operation.name());
        self.parts.sensors.as_ref().is_some_and(|sensors| sensors.coverage().iter().any(tells))
    }

    /// Why who touched the item may not be who changed it.
    pub(super) fn doubt(&self, item: &ItemId, is_first: bool) -> Option<&'static str> {
        let at_work = self.sweep.iter().filter(|_| is_first).find_map(|sweep| sweep.doubt(item));
        at_work.or_else(|| self.plans.all().find_map(|plan| plan.doubt(item)))
    }

    /// What a scan at work reads of it counts no more.
    pub(super) fn note_touched(&mut self, item: &ItemId) {
        for sweep in self.sweep.iter_mut().chain(&mut self.put_off) {
            sweep.note_touched(item.clone());
        }
        self.findings.note_touched(item);
    }

    /// Whether an item that the state does not know can be called new.
    pub(super) fn novelty(&self, item: &ItemId) -> Novelty {
        let plans = self.sweep.iter().map(|sweep| &sweep.plan).chain(self.plans.all());
        let is_new_in_view = plans.filter_map(|plan| plan.why.policy_before()).any(|before| !before.watches(item));
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

/// Told by nobody, and read with what somebody else has changed.
fn is_unsaid(item: &ItemId) -> bool {
    item.kind == ItemKind::Firewall && firewall::is_legacy(item.key.as_str())
}

pub(super) fn is_folder(fields: &Fields) -> bool {
    fields.value("type") == Some(&trueline_drift::Value::text("folder"))
}
