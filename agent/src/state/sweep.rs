//! After a scan: which stored items the scan did not meet.
//!
//! A scan notes eight bytes for each item it met, and no rows are written for items that are as they were. The sweep walks a
//! scope of the stored keys in order, in bounded batches. What it yields is only suspected to be gone: the caller
//! looks at each before it reports a removal, because an item may have come between scan and sweep.
//! Hashes are keyed per process, so nobody can craft a name that hides the removal of another.

use std::hash::{BuildHasher, RandomState};
use std::ops::Bound;

use redb::ReadableTableMetadata;
use trueline_drift::{Fields, ItemId, ItemKind};

use super::encoding;
use super::{State, StateError, Stored};
use crate::collect::{Glance, Stamp};
use crate::scan::Memory;

/// A kind of item, or a path and what lies beneath it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    kind: ItemKind,
    beneath: Option<Vec<u8>>,
}

impl Scope {
    pub fn kind(kind: ItemKind) -> Self {
        Self { kind, beneath: None }
    }

    /// The file at the absolute `path` (the host's bytes) and all beneath it.
    pub fn beneath(path: &[u8]) -> Self {
        let path = path.strip_suffix(b"/").unwrap_or(path);
        Self { kind: ItemKind::File, beneath: (!path.is_empty()).then(|| path.to_vec()) }
    }

    fn bounds(&self) -> (Vec<u8>, Vec<u8>) {
        match &self.beneath {
            None => (vec![encoding::kind_byte(self.kind)], vec![encoding::kind_byte(self.kind) + 1]),
            Some(path) => {
                let low = encoding::key_of(self.kind, path);
                let mut high = low.clone();
                // The character after `/`.
                high.push(b'0');
                (low, high)
            }
        }
    }

    /// Of a key within the bounds: `/etc-old` sorts between `/etc` and `/etc/hosts`.
    fn holds(&self, key: &[u8]) -> bool {
        self.beneath.as_ref().is_none_or(|path| key.get(1 + path.len()).is_none_or(|next| *next == b'/'))
    }
}

/// The items that a scan met, eight bytes each.
#[derive(Debug, Default)]
pub struct Seen {
    hasher: RandomState,
    hashes: Vec<u64>,
    sorted: bool,
}

impl Seen {
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty set for another scanning thread, to be joined by [`Self::absorb`].
    pub fn fork(&self) -> Self {
        Self { hasher: self.hasher.clone(), hashes: Vec::new(), sorted: false }
    }

    pub fn absorb(&mut self, other: Self) {
        self.hashes.extend(other.hashes);
        self.sorted = false;
    }

    pub fn insert(&mut self, item: &ItemId) {
        self.insert_key(&encoding::key(item));
    }

    /// As [`Self::insert`], from the key's bytes as the host knows them.
    pub fn insert_bytes(&mut self, kind: ItemKind, bytes: &[u8]) {
        self.insert_key(&encoding::key_of(kind, bytes));
    }

    fn insert_key(&mut self, key: &[u8]) {
        self.hashes.push(self.hasher.hash_one(key));
        self.sorted = false;
    }

    fn sort(&mut self) {
        if !self.sorted {
            self.hashes.sort_unstable();
            self.hashes.dedup();
            self.sorted = true;
        }
    }

    /// How many different ones were met.
    pub fn count(&mut self) -> u64 {
        self.sort();
        self.hashes.len() as u64
    }

    /// Whether it was met so far.
    pub fn holds(&self, item: &ItemId) -> bool {
        let hash = self.hasher.hash_one(&encoding::key(item)[..]);
        if self.sorted { self.hashes.binary_search(&hash).is_ok() } else { self.hashes.contains(&hash) }
    }

    fn contains(&self, key: &[u8]) -> bool {
        self.hashes.binary_search(&self.hasher.hash_one(key)).is_ok()
    }
}

impl State {
    /// The next at most `limit` items of the scope after `after`, in key order; empty at the end.
    pub fn items(&self, scope: &Scope, after: Option<&ItemId>, limit: usize) -> Result<Vec<(ItemId, Stored)>, StateError> {
        let mut found = Vec::new();
        self.walk(scope, after, |key, row| {
            found.push(encoding::item(key).zip(encoding::decode(key, row)));
            found.len() < limit
        })?;
        found.into_iter().map(|entry| entry.ok_or_else(|| self.damaged())).collect()
    }

    /// As [`Self::items`], of those that `seen` lacks, without their readings.
    pub fn unseen(&self, scope: &Scope, seen: &mut Seen, after: Option<&ItemId>, limit: usize) -> Result<Vec<ItemId>, StateError> {
        seen.sort();
        let mut found = Vec::new();
        self.walk(scope, after, |key, _| {
            if !seen.contains(key) {
                found.push(encoding::item(key));
            }
            found.len() < limit
        })?;
        found.into_iter().map(|entry| entry.ok_or_else(|| self.damaged())).collect()
    }

    /// All items of all kinds.
    pub fn len(&self) -> Result<u64, StateError> {
        self.read(|items| Ok(items.len()?))
    }

    pub fn is_empty(&self) -> Result<bool, StateError> {
        Ok(self.len()? == 0)
    }

    /// Calls `take` with each key and row until it says no. The snapshot lives for this call alone: a long one would keep
    /// the file from reusing its pages.
    pub(super) fn walk(&self, scope: &Scope, after: Option<&ItemId>, mut take: impl FnMut(&[u8], &[u8]) -> bool) -> Result<(), StateError> {
        let (low, high) = scope.bounds();
        let after = after.map(encoding::key).filter(|after| *after >= low);
        let start = after.as_deref().map_or(Bound::Included(low.as_slice()), Bound::Excluded);
        if after.as_ref().is_some_and(|after| *after >= high) {
            return Ok(());
        }
        self.read(|items| {
            for entry in items.range::<&[u8]>((start, Bound::Excluded(high.as_slice())))? {
                let (key, row) = entry?;
                if scope.holds(key.value()) && !take(key.value(), row.value()) {
                    break;
                }
            }
            Ok(())
        })
    }
}

impl Memory for State {
    fn hold(&self, files: &[(ItemId, Glance<'_>)]) -> Vec<bool> {
        Self::hold(self, files)
    }

    fn lookup(&self, item: &ItemId) -> Option<(Stamp, Fields)> {
        let stored = Self::lookup(self, item).ok().flatten()?;
        Some((stored.stamp?, stored.fields))
    }
}
