//! Services that were active and are not, or the reverse: a restart is no change, nor what a host's start or a package manager comes to.
//!
//! Invariants: another state counts once it was read twice, [`AGAIN`] apart, and neither the host starts nor, for at most [`LIMIT`], a
//! package manager is at work; until then the service is known as it was. The units are read again for as long as anything is withheld.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use trueline_drift::{FieldName, ItemId, ItemKind, Time};

use super::{Observer, Sink};
use crate::clock;
use crate::collect::unit::ACTIVE;
use crate::collect::unit::activity::{is_starting, stirred_at};
use crate::collect::{Listing, manifest};

const AGAIN: Duration = Duration::from_secs(2);
const LIMIT: Duration = Duration::from_secs(600);
/// How often it is asked whether a service began or ended: one look at a folder.
const LOOK: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub(super) struct Activity {
    /// Since when each service has another state than it is known with. What counts is kept until it is known: it is read once more before it
    /// is told.
    others: HashMap<ItemId, Instant>,
    /// Services whose state was not told at all.
    is_untold: bool,
    looked_at: Option<Instant>,
    /// A service began or ended since the units were last read.
    is_stirred: bool,
    /// When one last did, before they were.
    read_of: Option<Time>,
}

impl Activity {
    /// What is to be read again, and how often.
    pub(super) fn polled(&self) -> Option<(ItemKind, Duration)> {
        (self.is_stirred || self.is_untold || !self.others.is_empty()).then_some((ItemKind::Unit, AGAIN))
    }
}

impl<S: Sink> Observer<S> {
    pub(super) fn look_at_activity(&mut self, now: Instant) {
        let is_due = self.activity.looked_at.is_none_or(|at| at + LOOK <= now);
        if !is_due || !self.is_inventoried || !self.parts.policy.watches_kind(ItemKind::Unit) {
            return;
        }
        self.activity.looked_at = Some(now);
        self.activity.is_stirred = stirred_at(self.parts.collectors.root()) != self.activity.read_of;
    }

    /// To be asked before the units are read.
    pub(super) fn stirred_at(&self) -> Option<Time> {
        // What follows within one step of the inodes' clock would bear the same time.
        stirred_at(self.parts.collectors.root()).filter(|at| *at < clock::now().plus_seconds(-1))
    }

    /// Puts what is known of services in the place of what they may be for a moment.
    pub(super) fn withhold_activity(&mut self, listing: &mut Listing, stirred_at: Option<Time>, now: Instant) {
        let root = self.parts.collectors.root();
        let (is_starting, is_at_work) = (is_starting(root, clock::now()), manifest::is_at_work(root));
        let mut others = std::mem::take(&mut self.activity.others);
        let mut is_untold = false;
        for (item, reading) in &mut listing.items {
            let Some(active) = reading.fields.value(ACTIVE) else {
                others.remove(item);
                continue;
            };
            let Ok(stored) = self.stored(item) else { continue };
            let known = stored.as_ref().and_then(|stored| stored.fields.value(ACTIVE));
            if known == Some(active) {
                others.remove(item);
                continue;
            }
            let Some(known) = known else {
                if is_starting {
                    reading.fields.remove(ACTIVE);
                    is_untold = true;
                }
                continue;
            };
            let since = *others.entry(item.clone()).or_insert(now);
            if is_starting || since + AGAIN > now || (is_at_work && since + LIMIT > now) {
                reading.fields.set(FieldName::known(ACTIVE), known.clone());
            }
        }
        let is_there = |item: &ItemId| listing.items.binary_search_by(|(listed, _)| listed.cmp(item)).is_ok();
        others.retain(|item, _| is_there(item));
        self.activity = Activity { others, is_untold, is_stirred: false, read_of: stirred_at, ..self.activity };
    }
}
