//! Handing on: records to the sink, then the same readings to the state.
//!
//! Invariants: the state never takes what the sink has not; an offer that is not taken is offered again unchanged, and
//! while it waits nothing is read.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tracing::{info, warn};
use trueline_drift::document::to_yaml;
use trueline_drift::{CoverageGap, GapReason, ItemId, ItemKind, RecordBody, Sequence, Time};

use super::sink::{Sink, SinkError};
use super::sweep::Sweep;
use super::{OFFER_AGAIN, Observer};
use crate::clock;
use crate::state::Stored;

/// Items of a scan that are handed on together.
const GATHERED: usize = 2048;
/// How long they may wait for each other.
const GATHERING: Duration = Duration::from_millis(200);

/// Records and the readings they came from, on their way to the sink and then the state.
#[derive(Default)]
pub(super) struct Offer {
    pub(super) records: Vec<RecordBody>,
    pub(super) updates: HashMap<ItemId, Option<Stored>>,
    /// Of how many records it is said whether they are parts of packages' changes.
    pub(super) named: usize,
    /// Of how many it was asked who may have made them.
    pub(super) asked: usize,
    /// Set once the sink took the records.
    taken: Option<Sequence>,
}

/// Changes are held back since then; of [`Settle::joined`], what was counted before.
///
/// [`Settle::joined`]: super::Settle::joined
pub(super) struct Hold {
    since: Time,
    joined: u64,
}

impl Offer {
    fn is_empty(&self) -> bool {
        self.records.is_empty() && self.updates.is_empty()
    }
}

impl<S: Sink> Observer<S> {
    /// Whether the offer should still grow: large commits of sorted rows are what makes an inventory
    /// cheap. Only what a scan found waits; what an event showed is handed on at once.
    pub(super) fn is_gathering(&self) -> bool {
        let is_scanning = self.sweep.as_ref().is_some_and(Sweep::is_scanning);
        let is_young = self.handed_on.elapsed() < GATHERING;
        is_scanning && is_young && self.offer_again.is_none() && self.offer.updates.len() < GATHERED
    }

    /// Hands the offer to the sink and then to the state. `true` when nothing is left of it.
    pub(super) fn hand_on(&mut self) -> bool {
        if self.offer_again.is_some_and(|again| Instant::now() < again) {
            return false;
        }
        if self.parts.state.is_closed()
            && let Err(error) = self.parts.sink.restore(&self.parts.state)
        {
            self.hold(&SinkError::Full(error.to_string()));
            return false;
        }
        self.name_shippers();
        self.offer_candidates();
        if self.offer.is_empty() {
            self.release();
            return true;
        }
        if self.offer.taken.is_none() && !self.offer.records.is_empty() {
            match self.parts.sink.put(&self.offer.records) {
                Ok(last) => self.offer.taken = Some(last),
                Err(error) => {
                    self.hold(&error);
                    return false;
                }
            }
        }
        let mut updates: Vec<(ItemId, Option<Stored>)> =
            self.offer.updates.iter().map(|(item, update)| (item.clone(), update.clone())).collect();
        updates.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        let spooled = self.offer.taken.map(|sequence| (self.parts.sink.epoch(), sequence));
        if let Err(error) = self.parts.state.apply(&updates, spooled) {
            // What the sink has, it can tell again.
            if let Err(again) = self.parts.sink.restore(&self.parts.state) {
                self.hold(&SinkError::Full(format!("{error}; {again}")));
                return false;
            }
        }
        self.offer = Offer::default();
        self.handed_on = Instant::now();
        if let Some(complete) = self.inventory_to_note.take()
            && let Err(error) = self.parts.state.set_inventory_complete(complete)
        {
            warn!(%error, "the end of the inventory could not be kept; it is taken again at the next start");
        }
        if std::mem::take(&mut self.covers_anew)
            && let Err(error) = self.parts.state.set_covered(&to_yaml(&*self.parts.policy))
        {
            warn!(%error, "the watch list of this inventory could not be kept; what it added is read again at the next start");
        }
        if let Some(vocabulary) = self.vocabulary_to_note.take()
            && let Err(error) = self.parts.state.set_vocabulary(vocabulary)
        {
            warn!(%error, "what all items were told in could not be kept; the next start takes new fields for known ones once more");
        }
        if std::mem::take(&mut self.masked_anew)
            && let Err(error) = self.parts.state.set_redaction(&self.parts.collectors.key().fingerprint())
        {
            warn!(%error, "what all items are redacted by could not be kept; the next start reads all of them once more");
        }
        self.parts.sink.applied(self.parts.state.durable_spooled());
        self.note_counts();
        self.release();
        true
    }

    /// For those who ask how the agent is: they must not wait for the state's disk.
    pub(super) fn note_counts(&self) {
        let (state, status) = (&self.parts.state, &self.parts.status);
        if let (Ok(items), Ok(files)) = (state.len(), state.count(ItemKind::File)) {
            status.items.store(items, Ordering::Relaxed);
            status.files.store(files, Ordering::Relaxed);
        }
    }

    /// Notes that nothing can be handed on now.
    pub(super) fn hold(&mut self, error: &SinkError) {
        self.offer_again = Some(Instant::now() + OFFER_AGAIN);
        if self.holding.is_none() {
            let since = clock::now();
            warn!(%error, "holding changes back until there is room");
            self.holding = Some(Hold { since, joined: self.settle.joined() });
            self.parts.status.hold_since(Some(since));
        }
        self.parts.status.held.store((self.offer.records.len() + self.settle.len()) as u64, Ordering::Relaxed);
        self.parts.status.trouble("spool", Some(format!("changes are held back: {error}")));
        self.is_closed = matches!(error, SinkError::Closed);
    }

    /// After a hold: says that readings came late, for changes in between were merged.
    fn release(&mut self) {
        self.offer_again = None;
        let Some(Hold { since, joined }) = self.holding.take() else { return };
        info!("there is room again; what was held is handed on");
        self.parts.status.hold_since(None);
        self.parts.status.trouble("spool", None);
        self.offer.records.push(RecordBody::Gap(CoverageGap {
            scope: "*".to_owned(),
            reason: GapReason::SpoolFull,
            began_at: since,
            ended_at: Some(clock::now()),
            lost: None,
            remedy: Some(format!(
                "nothing was dropped; {} items waited to be read, and {} further touches of them became part of one change each",
                self.settle.len(),
                self.settle.joined() - joined
            )),
        }));
    }
}
