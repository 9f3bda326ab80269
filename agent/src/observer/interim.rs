//! Packages that their manager is still at work on: what they are meanwhile is not told, but what they come to.
//!
//! Invariants: nothing is withheld for longer than [`LIMIT`], nor once no package manager is at work; while something is, all packages are
//! read again every [`AGAIN`], for a manager that is killed writes nothing any more.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use trueline_drift::{Fields, ItemId, ItemKind, Value};

use super::{Observer, Sink};
use crate::collect::{Listing, manifest};

/// How long a package in between is known as it was before.
const LIMIT: Duration = Duration::from_secs(60);
const AGAIN: Duration = Duration::from_secs(2);

/// Those of dpkg in which a package is on its way to another (dpkg(1)). What is left of a run that failed is told once that has ended.
const PASSING: [&str; 5] = ["half-configured", "half-installed", "triggers-awaited", "triggers-pending", "unpacked"];

/// Since when each package that is in between is withheld.
#[derive(Debug, Default)]
pub(super) struct Interim(HashMap<ItemId, Instant>);

impl Interim {
    /// What is to be read again, and how often.
    pub(super) fn polled(&self) -> Option<(ItemKind, Duration)> {
        (!self.0.is_empty()).then_some((ItemKind::Package, AGAIN))
    }
}

impl<S: Sink> Observer<S> {
    /// Puts what is known of packages in the place of those in between; those that are not known yet are left out.
    pub(super) fn withhold_interim(&mut self, listing: &mut Listing, now: Instant) {
        let is_any = listing.items.iter().any(|(_, reading)| is_passing(&reading.fields));
        // What is seen for the first time is known as it is: left out it would be new on the host later.
        if !is_any || !self.is_inventoried || !manifest::is_at_work(self.parts.collectors.root()) {
            self.interim.0.clear();
            return;
        }
        let mut since = std::mem::take(&mut self.interim.0);
        listing.items.retain_mut(|(item, reading)| {
            if !is_passing(&reading.fields) {
                since.remove(item);
                return true;
            }
            if *since.entry(item.clone()).or_insert(now) + LIMIT <= now {
                return true;
            }
            match self.stored(item) {
                Ok(Some(known)) => reading.fields = known.fields,
                Ok(None) => return false,
                // What cannot be compared is not told in either way.
                Err(_) => {}
            }
            true
        });
        self.interim.0 = since;
    }
}

fn is_passing(fields: &Fields) -> bool {
    matches!(fields.value("status"), Some(Value::Text(status)) if status.rsplit(' ').next().is_some_and(|last| PASSING.contains(&last)))
}
