//! Who may have made what nobody was seen to make: asked once of each such change, right before it is handed on.
//!
//! Invariants: candidates stand beside the actor, and never in its place; what they cost follows the changes that nobody is
//! named for, not the events.

use std::time::Instant;

use tracing::warn;
use trueline_drift::candidate::{Candidates, Doing, Question};
use trueline_drift::{Change, Fields, ItemKey, ItemKind, RecordBody, Time};

use super::unpacking::changed_ns;
use super::{Observer, Sink};
use crate::collect::manifest::{self, Package};
use crate::state::Scope as StateScope;

/// Packages whose manifests are looked through for one batch: those that the log names last.
const PACKAGES: usize = 256;

impl<S: Sink> Observer<S> {
    pub(super) fn offer_candidates(&mut self) {
        let from = std::mem::replace(&mut self.offer.asked, self.offer.records.len());
        let open: Vec<usize> = (from..self.offer.records.len()).filter(|at| self.change_at(*at).is_some_and(is_open)).collect();
        if open.is_empty() {
            return;
        }
        let now = Instant::now();
        if self.activities.are_due(now) {
            let told = self.told_sessions();
            let sessions = self.parts.completion.logins().map(|logins| logins.sessions());
            self.activities.read(sessions.as_ref(), told.into_iter(), now);
            let policy = &self.parts.policy;
            let [of_sessions, of_packages] = [ItemKind::Session, ItemKind::Package].map(|kind| policy.watches_kind(kind));
            self.activities.retain(|doing| if matches!(doing, Doing::Package { .. }) { of_packages } else { of_sessions });
        }
        if self.activities.known().is_empty() {
            return;
        }
        let owners = self.owners(&open);
        for (at, owner) in open.into_iter().zip(owners) {
            let RecordBody::Changed(change) = &mut self.offer.records[at] else { continue };
            let changed_at = (change.item.kind == ItemKind::File).then(|| changed_ns(&change.item.key.bytes())).flatten();
            let changed_at = changed_at.map(|ns| Time::from_micros(ns.div_euclid(1000)));
            // The state says when a value was read first; it was there still when all was read last.
            let observed_after = change.observed_after.max(self.complete_at).min(change.observed_at);
            let question = Question { observed_after, changed_at, owner: owner.as_deref(), ..asked(change) };
            change.candidates = Candidates::select(&question, self.activities.known());
        }
    }

    fn change_at(&self, at: usize) -> Option<&Change> {
        match self.offer.records.get(at)? {
            RecordBody::Changed(change) => Some(change),
            _ => None,
        }
    }

    /// Those that the state holds: also such as ended while no agent ran.
    fn told_sessions(&self) -> Vec<(ItemKey, Fields)> {
        let items = self.known_items(&StateScope::kind(ItemKind::Session)).unwrap_or_else(|error| {
            warn!(%error, "sessions that were told of cannot be read; they are no candidates");
            Vec::new()
        });
        items.into_iter().filter_map(|item| Some((item.key.clone(), self.stored(&item).ok()??.fields))).collect()
    }

    /// The package that each of these files is of, where the log tells of one within the time of these changes.
    fn owners(&self, open: &[usize]) -> Vec<Option<String>> {
        let changes: Vec<&Change> = open.iter().filter_map(|at| self.change_at(*at)).collect();
        let mut owners = vec![None; changes.len()];
        let (Some(after), Some(until)) =
            (changes.iter().map(|change| change.observed_after).min(), changes.iter().map(|change| change.observed_at).max())
        else {
            return owners;
        };
        let mut packages: Vec<Package> = Vec::new();
        for activity in self.activities.known().iter().rev().filter(|activity| activity.overlaps(after, until)) {
            let Doing::Package { entry } = &activity.what else { continue };
            let bytes = |text: &String| text.as_bytes().to_vec();
            let package = Package { name: bytes(&entry.name), architecture: entry.architecture.as_ref().map(bytes) };
            if packages.len() < PACKAGES && !packages.contains(&package) {
                packages.push(package);
            }
        }
        let files: Vec<(usize, Vec<u8>)> = changes
            .iter()
            .enumerate()
            .filter(|(_, change)| change.item.kind == ItemKind::File)
            .map(|(at, change)| (at, change.item.key.bytes().into_owned()))
            .collect();
        if packages.is_empty() || files.is_empty() {
            return owners;
        }
        let paths: Vec<&[u8]> = files.iter().map(|(_, path)| &path[..]).collect();
        match manifest::listed_by(self.parts.collectors.root(), &packages, &paths) {
            Ok(listed) => {
                for ((at, _), package) in files.iter().zip(listed) {
                    owners[*at] = package.and_then(|package| String::from_utf8(package.name).ok());
                }
            }
            Err(error) => warn!(%error, "cannot read whose files these are; candidates agree with them in time alone"),
        }
        owners
    }
}

fn is_open(change: &Change) -> bool {
    asked(change).is_open()
}

fn asked(change: &Change) -> Question<'_> {
    Question {
        item: &change.item,
        actor: &change.actor,
        observed_after: change.observed_after,
        observed_at: change.observed_at,
        changed_at: None,
        owner: None,
    }
}
