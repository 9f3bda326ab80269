//! What a scan found to differ waits here until the sensors have told of all that happened before it was read: the event of
//! that change may still be on its way, and says better than any scan who made it.
//!
//! Invariants: a finding is told only if it still holds once the sensors have caught up and no event of the item came
//! meanwhile; one that holds no longer, or only in another way, begins anew, but not more than [`ROUNDS`] times; no scan goes
//! on beyond [`ROOM`] of them, nor ends before its own are told; sensors that do not answer are waited for no longer than
//! [`PATIENCE`]. Where no sensor names processes nothing waits.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use trueline_drift::{Actor, Cause, Fields, ItemId, ItemKind};

use super::{Novelty, Observer, Scope, Sink};
use crate::collect::{CollectError, ReadError, Reading};
use crate::sensor::CatchUp;

/// For the answer of the sensors.
const PATIENCE: Duration = Duration::from_secs(5);
/// Between finding and asking: a change is there to be seen before the kernel tells of it, and who makes it may have to wait for
/// a processor in between.
const GRACE: Duration = Duration::from_millis(250);
/// What is changed on and on without an event, as through memory, is told all the same.
const ROUNDS: u8 = 3;
/// Findings that may wait; a scan may bring one batch or one kind more.
const ROOM: usize = 4096;

/// An item that differs from what is known of it.
pub(super) struct Finding {
    pub item: ItemId,
    /// `None`: it is gone.
    pub reading: Option<Reading>,
    pub cause: Cause,
    pub actor: Actor,
    pub novelty: Novelty,
    pub found_at: Instant,
    /// How often it has been found to be otherwise since.
    pub rounds: u8,
}

pub(super) struct Findings {
    waiting: Vec<Finding>,
    /// Of the last question to the sensors.
    asked: CatchUp,
    asked_at: Option<Instant>,
    /// When an answer to it is waited for no longer.
    until: Instant,
    /// When an event has last shown an item while findings waited.
    touched: HashMap<ItemId, Instant>,
}

impl Default for Findings {
    fn default() -> Self {
        Self { waiting: Vec::new(), asked: CatchUp::default(), asked_at: None, until: Instant::now(), touched: HashMap::new() }
    }
}

impl Findings {
    pub(super) fn add(&mut self, finding: Finding) {
        self.waiting.push(finding);
    }

    pub(super) fn has_room(&self) -> bool {
        self.waiting.len() < ROOM
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// An event has shown what the item is now.
    pub(super) fn note_touched(&mut self, item: &ItemId) {
        if !self.waiting.is_empty() {
            self.touched.insert(item.clone(), Instant::now());
        }
    }

    pub(super) fn note_caught_up(&mut self, answer: CatchUp, now: Instant) {
        if answer == self.asked {
            self.until = now;
        }
    }

    /// When [`Observer::tell_found`] has something to do.
    pub(super) fn due(&self, now: Instant) -> Option<Instant> {
        let oldest = self.waiting.first()?;
        Some(self.asked_at.map_or(oldest.found_at + GRACE, |_| self.until).max(now))
    }

    /// What was found early enough before this time and no event has shown meanwhile.
    fn take(&mut self, before: Instant) -> Vec<Finding> {
        self.asked_at = None;
        let due = self.waiting.partition_point(|finding| finding.found_at + GRACE <= before);
        let mut found: Vec<Finding> = self.waiting.drain(..due).collect();
        found.retain(|finding| self.touched.get(&finding.item).is_none_or(|touched| *touched < finding.found_at));
        if self.waiting.is_empty() {
            self.touched.clear();
        }
        found
    }
}

impl<S: Sink> Observer<S> {
    /// Tells what was found, where the sensors have caught up with it; asks them where that has not been done.
    pub(super) fn tell_found(&mut self, now: Instant) {
        if self.findings.is_empty() {
            return;
        }
        let names_processes = self.parts.sensors.as_ref().is_some_and(|sensors| sensors.names_processes());
        if names_processes && self.findings.due(now).is_some_and(|due| now < due) {
            return;
        }
        let before = match self.findings.asked_at {
            Some(asked_at) => asked_at,
            None if names_processes => {
                self.findings.asked = self.findings.asked.next();
                self.findings.asked_at = Some(now);
                let asked = self.parts.sensors.as_ref().is_some_and(|sensors| sensors.catch_up(self.findings.asked));
                // Sensors that have just stopped are not waited for.
                self.findings.until = if asked { now + PATIENCE } else { now };
                return;
            }
            None => now + GRACE,
        };
        let mut listings: BTreeMap<ItemKind, HashMap<ItemId, Reading>> = BTreeMap::new();
        let kinds = self.awaited_kinds();
        for finding in self.findings.take(before) {
            // Its own event is here: it is read with that.
            if !self.is_awaited(&finding.item, &kinds) {
                self.confirm(finding, &mut listings);
            }
        }
    }

    /// Whether an event of the item has come and was not followed by a reading yet.
    fn is_awaited(&self, item: &ItemId, kinds: &BTreeSet<ItemKind>) -> bool {
        match item.kind {
            ItemKind::File => self.settle.holds(&item.key.bytes()) || self.unpacking.holds(item),
            ItemKind::Sysctl => self.settle.holds_setting(item.key.as_str()),
            kind => kinds.contains(&kind) || self.settle.holds_kind(kind),
        }
    }

    /// The kinds that are read anew with the paths that wait.
    fn awaited_kinds(&self) -> BTreeSet<ItemKind> {
        self.settle.paths().flat_map(|path| self.parts.collectors.kinds_behind(path)).collect()
    }

    /// Reads the item once more: what was found is told if it still is so.
    fn confirm(&mut self, finding: Finding, listings: &mut BTreeMap<ItemKind, HashMap<ItemId, Reading>>) {
        let Finding { item, reading, cause, actor, novelty, rounds, found_at: _ } = finding;
        if !self.parts.policy.watches(&item) {
            return;
        }
        let present = match item.kind {
            ItemKind::File | ItemKind::Sysctl => {
                let known = reading.as_ref().and_then(|reading| Some((reading.stamp.as_ref()?, &reading.fields)));
                self.parts.collectors.read_item(&item, known)
            }
            kind => self.listed(kind, listings).map(|listing| listing.remove(&item)),
        };
        match present {
            Ok(present) if rounds >= ROUNDS || fields(present.as_ref()) == fields(reading.as_ref()) => {
                self.compare(item, present, cause, &actor, novelty);
            }
            Ok(reading) if self.differs(&item, reading.as_ref()) => {
                let (found_at, rounds) = (Instant::now(), rounds + 1);
                self.findings.add(Finding { item, reading, cause, actor, novelty, found_at, rounds });
            }
            Ok(_) => {}
            Err(CollectError::File(ReadError::Large { .. })) => self.read_aside(&item, cause, &actor),
            Err(error) => {
                self.note_failure(item.key.as_str(), &error);
                if cause == Cause::Event {
                    self.read_later(Scope::of(&item), &error);
                }
            }
        }
    }

    fn listed<'a>(
        &mut self,
        kind: ItemKind,
        listings: &'a mut BTreeMap<ItemKind, HashMap<ItemId, Reading>>,
    ) -> Result<&'a mut HashMap<ItemId, Reading>, CollectError> {
        use std::collections::btree_map::Entry;
        match listings.entry(kind) {
            Entry::Occupied(listing) => Ok(listing.into_mut()),
            Entry::Vacant(place) => Ok(place.insert(self.read_kind(kind)?.items.into_iter().collect())),
        }
    }

    /// Whether the reading departs from what is known; where that cannot be told it does.
    pub(super) fn differs(&self, item: &ItemId, reading: Option<&Reading>) -> bool {
        match self.stored(item) {
            Ok(stored) => stored.map(|stored| stored.fields) != reading.map(|reading| reading.fields.clone().bounded()),
            Err(_) => true,
        }
    }
}

fn fields(reading: Option<&Reading>) -> Option<&Fields> {
    reading.map(|reading| &reading.fields)
}
