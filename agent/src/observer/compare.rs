//! Noting how what was read differs from what is known: the only place where a record of an item is made.

use std::sync::atomic::Ordering;

use tracing::warn;
use trueline_drift::change::ChangeKind;
use trueline_drift::diff::{Difference, diff};
use trueline_drift::{Actor, Cause, Change, Fields, GapReason, ItemId, ItemKind, Observation, Operation, RecordBody, Transaction};

use super::plans::{Plan, Why};
use super::{Observer, Scope, Sink, learnt};
use crate::clock;
use crate::collect::Reading;
use crate::sensor::{Coverage, Loss, OPERATION};
use crate::state::{StateError, Stored};

/// What an item that the state does not know is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Novelty {
    /// New to the agent: it was not watched before.
    FirstSight,
    /// New on the host.
    Created,
}

/// Who is behind what differs.
#[derive(Debug, Clone, Copy)]
pub(super) enum By<'a> {
    /// Whom a sensor named: the chain is yet to be completed.
    Touched(&'a Actor),
    /// The whole chain, with the run.
    Known(&'a Actor, Option<&'a Transaction>),
}

/// What a file holds can change without a write: through memory, by whoever has mapped it. No event tells of that.
pub(super) const UNWRITTEN: &str = "no write was told: it was written through memory, perhaps by another process";
const CONTENTS: &str = "sha256";

/// What a remount changes of a mount: fanotify tells of mounts that come and go alone.
const REMOUNTED: [&str; 2] = ["options", "propagation"];
/// Of the packet filter's chains and flow tables at interfaces.
const DEVICES: &str = "devices";

/// The field that changes without any event (ioctl_iflags(2)): it shows when something else has the file read.
const UNTOLD: &str = "flags";

impl<S: Sink> Observer<S> {
    /// An event that could not be followed by a reading is a loss like any other.
    pub(super) fn read_later(&mut self, scope: Scope, reason: &dyn std::fmt::Display) {
        warn!(%scope, %reason, "it will be read again");
        let loss = Loss { scope: scope.to_string(), reason: GapReason::SensorLost, began_at: clock::now(), lost: None };
        self.plan(Plan { scope, why: Why::Lost(loss) });
    }

    /// The item is in view no longer: what it is now is not known.
    pub(super) fn unwatch(&mut self, item: ItemId) {
        self.offer.records.push(RecordBody::Unwatched { item: item.clone(), observed_at: clock::now() });
        self.offer.updates.insert(item, None);
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

pub(super) fn is_folder(fields: &Fields) -> bool {
    fields.value("type") == Some(&trueline_drift::Value::text("folder"))
}
