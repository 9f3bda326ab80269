//! What a package manager is writing waits here until the package's manifest is in place: only then can it be told whether a
//! file is as its package ships it, and so a part of the package's change.
//!
//! Invariants: nothing waits longer than [`LIMIT`], nor once the package manager is done; the number that waits is bounded,
//! and what finds no room is read at once; a touch by anybody else ends the waiting. Nothing is dropped.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use tracing::warn;
use trueline_drift::change::ChangeKind;
use trueline_drift::{Actor, Cause, Certainty, Change, ItemId, ItemKey, ItemKind, RecordBody, Time, Value, text};

use super::settle::Settled;
use super::{BATCH, Observer, Sink};
use crate::collect::manifest::{self, Package, Part};
use crate::kernel::file::Pinned;
use crate::sensor::Target;

/// How long what a package manager wrote goes unreported.
const LIMIT: Duration = Duration::from_secs(60);
/// Between two looks at the manifests.
const LOOK: Duration = Duration::from_millis(250);
const CAPACITY: usize = 16_384;
/// The most that is read at the end.
const LAST: usize = 4 * BATCH;
/// How dpkg and rpm are known once they have let go of their locks; others, as dnf, by their lock alone.
pub(super) const PROGRAMS: &[&str] = &["/usr/bin/dpkg", "/usr/bin/rpm"];

#[derive(Debug)]
struct Held {
    settled: Settled,
    since: Instant,
    /// Whose the file was when it was seen to be gone.
    owner: Option<Package>,
}

/// What a package manager wrote, read and not yet told.
#[derive(Debug)]
struct Written {
    /// Of its last touch.
    touched_at: Time,
    owner: Option<Package>,
}

#[derive(Debug, Default)]
pub(super) struct Unpacking {
    held: HashMap<Vec<u8>, Held>,
    next_look: Option<Instant>,
    written: HashMap<ItemId, Written>,
}

impl Unpacking {
    /// When [`Observer::let_go`] next has something to do.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.next_look.filter(|_| !self.held.is_empty())
    }

    /// Who is known to have touched the paths that wait.
    pub(super) fn actors(&self) -> impl Iterator<Item = (&[u8], &Actor)> {
        self.held.iter().filter_map(|(path, held)| Some((path.as_slice(), held.settled.actor.as_deref()?)))
    }

    pub(super) fn holds(&self, item: &ItemId) -> bool {
        item.kind == ItemKind::File && !self.held.is_empty() && self.held.contains_key(&*item.key.bytes())
    }

    /// The files that wait: a scan is not to tell of them.
    pub(super) fn items(&self) -> impl Iterator<Item = ItemId> {
        self.held.keys().filter_map(|path| file(path))
    }
}

impl<S: Sink> Observer<S> {
    /// Sets aside what a package manager at work has written; the rest is to be read now.
    pub(super) fn hold_back(&mut self, settled: Vec<Settled>, now: Instant) -> Vec<Settled> {
        let has_process = settled.iter().any(|settled| process_of(settled).is_some());
        if !has_process && self.unpacking.held.is_empty() {
            return settled;
        }
        let holder = if has_process { manifest::holder(self.parts.collectors.root()) } else { None };
        let (mut read_now, mut gone) = (Vec::new(), Vec::new());
        for mut settled in settled {
            let Target::Path(path) = &settled.target else {
                read_now.push(settled);
                continue;
            };
            let path = path.clone();
            let (mut since, mut owner) = (now, None);
            if let Some(earlier) = self.unpacking.held.remove(&path) {
                let is_another = settled.actor.is_some() && process_of(&settled) != process_of(&earlier.settled);
                settled.shared |= earlier.settled.shared || is_another;
                settled.depth = settled.depth.max(earlier.settled.depth);
                settled.wrote |= earlier.settled.wrote;
                settled.entry = settled.entry.map(|entry| entry.after(earlier.settled.entry)).or(earlier.settled.entry);
                settled.before = settled.before.or(earlier.settled.before);
                settled.actor = settled.actor.or(earlier.settled.actor);
                (since, owner) = (earlier.since, earlier.owner);
            }
            let is_managers = holder.is_some() && process_of(&settled) == holder && !settled.shared;
            let is_watched = self.parts.policy.watches_path(&text::printable(&path));
            // One that is written without end is let go here, for it never rests.
            let is_late = since + LIMIT <= now;
            if !is_managers || !is_watched || is_late || self.unpacking.held.len() >= CAPACITY {
                if !settled.shared && owner.is_some() {
                    self.note_written(&path, settled.touched_at, owner);
                }
                read_now.push(settled);
                continue;
            }
            if let Some(item) = file(&path) {
                self.note_touched(&item);
                let is_known = self.stored(&item).ok().flatten().is_some();
                if is_known && owner.is_none() && changed_ns(&path).is_none() {
                    gone.push(path.clone());
                }
            }
            self.unpacking.held.insert(path, Held { settled, since, owner });
            self.unpacking.next_look.get_or_insert(now + LOOK);
        }
        let asked: Vec<&[u8]> = gone.iter().map(Vec::as_slice).collect();
        if !asked.is_empty() {
            match manifest::owners(self.parts.collectors.root(), &asked) {
                Ok(owners) => {
                    for (path, owner) in gone.iter().zip(owners) {
                        if let Some(held) = self.unpacking.held.get_mut(path) {
                            held.owner = owner;
                        }
                    }
                }
                Err(error) => warn!(%error, "cannot read whose files are going; their removal is not folded"),
            }
        }
        read_now
    }

    /// Lets go at most a batch of what need not wait any longer; a few of them where `is_last`, for the rest is found after
    /// the restart. What was touched again meanwhile is read with that touch.
    pub(super) fn let_go(&mut self, now: Instant, is_last: bool) -> Vec<Settled> {
        if self.unpacking.next_due().is_none_or(|due| now < due && !is_last) {
            return Vec::new();
        }
        let root = self.parts.collectors.root();
        let holder = manifest::holder(root);
        // One package manager follows another within moments: what the one before wrote is as it will be.
        let is_done = |held: &Held| holder.is_none() || process_of(&held.settled) != holder || held.since + LIMIT <= now;
        let candidates = self.unpacking.held.iter().filter(|(path, _)| !self.settle.holds(path));
        let (ready, waiting): (Vec<_>, Vec<_>) = candidates.partition(|(_, held)| is_last || is_done(held));
        let mut ready: Vec<Vec<u8>> = ready.into_iter().map(|(path, _)| path.clone()).collect();
        if !waiting.is_empty() {
            let waiting: Vec<(&[u8], Time)> = waiting.into_iter().map(|(path, held)| (path.as_slice(), held.settled.touched_at)).collect();
            let in_place = manifest::are_in_place(root, &waiting);
            ready.extend(waiting.iter().zip(in_place).filter(|(_, is_in_place)| *is_in_place).map(|((path, _), _)| path.to_vec()));
        }
        let most = if is_last { LAST } else { BATCH };
        self.unpacking.next_look = Some(if ready.len() > most { now } else { now + LOOK });
        let mut settled = Vec::with_capacity(ready.len().min(most));
        for path in ready.into_iter().take(most) {
            let Some(held) = self.unpacking.held.remove(&path) else { continue };
            self.note_written(&path, held.settled.touched_at, held.owner);
            settled.push(held.settled);
        }
        // As they came.
        settled.sort_by_key(|settled| settled.touched_at);
        settled
    }

    fn note_written(&mut self, path: &[u8], touched_at: Time, owner: Option<Package>) {
        if let Some(item) = file(path) {
            self.unpacking.written.insert(item, Written { touched_at, owner });
        }
    }

    /// Says of each change of a file that is about to be told whether it is a part of a package's.
    pub(super) fn name_shippers(&mut self) {
        let written = std::mem::take(&mut self.unpacking.written);
        let from = std::mem::replace(&mut self.offer.named, self.offer.records.len());
        let mut asked = Vec::new();
        for (at, record) in (from..).zip(&mut self.offer.records[from..]) {
            let RecordBody::Changed(change) = record else { continue };
            if change.item.kind != ItemKind::File {
                continue;
            }
            let written = written.get(&change.item);
            if let Some(written) = written
                && was_touched_since(change, written.touched_at)
            {
                change.actor = change.actor.but("it was touched again before it was read");
            }
            let by_manager = (written.is_some() || is_by_program(&change.actor)) && change.actor.certainty <= Certainty::Strong;
            if by_manager || (change.actor.process.is_none() && is_of_contents(change)) {
                asked.push((at, by_manager, written.filter(|_| by_manager).and_then(|written| written.owner.clone())));
            }
        }
        if asked.is_empty() {
            return;
        }
        for (at, package) in self.shippers(asked) {
            let item = self.package_item(&package);
            if let RecordBody::Changed(change) = &mut self.offer.records[at] {
                change.shipped_by = item;
                // Whoever ships it says what is in it.
                change.lines = None;
            }
        }
    }

    /// Of the changes at these places, which are parts of packages': written by a package manager or not, and whose file it
    /// was that is gone.
    fn shippers(&self, asked: Vec<(usize, bool, Option<Package>)>) -> Vec<(usize, Package)> {
        let root = self.parts.collectors.root();
        let change = |at: usize| match &self.offer.records[at] {
            RecordBody::Changed(change) => Some(&**change),
            _ => None,
        };
        let known: Vec<_> = asked
            .into_iter()
            .filter_map(|(at, by_manager, owner)| Some((at, by_manager, owner, change(at)?)))
            .map(|(at, by_manager, owner, change)| (at, by_manager, owner, change, change.item.key.bytes(), change.after()))
            .collect();
        let parts: Vec<Part<'_>> = known
            .iter()
            .map(|(_, by_manager, _, change, path, fields)| Part {
                path,
                fields: fields.as_ref(),
                since: if change.cause == Cause::Event { change.observed_at } else { change.observed_after },
                by_manager: *by_manager,
            })
            .collect();
        let shippers = manifest::shippers(root, &parts);
        let mut found: Vec<(usize, Package)> = known.iter().zip(shippers).filter_map(|((at, ..), package)| Some((*at, package?))).collect();
        // What is gone is a part of its package's change if the package no longer has it.
        let gone: Vec<(usize, &Package, &[u8])> = known
            .iter()
            .filter_map(|(at, _, owner, _, path, fields)| Some((*at, owner.as_ref().filter(|_| fields.is_none())?, &path[..])))
            .collect();
        let paths: Vec<&[u8]> = gone.iter().map(|(_, _, path)| *path).collect();
        if !paths.is_empty() {
            match manifest::owners(root, &paths) {
                Ok(owners) => found.extend(
                    gone.iter().zip(owners).filter(|(_, owner)| owner.is_none()).map(|((at, package, _), _)| (*at, (*package).clone())),
                ),
                Err(error) => warn!(%error, "cannot read whether packages still have files that are gone; their removal is not folded"),
            }
        }
        found
    }

    /// The package as the agent lists it: with its architecture where that is not the host's own.
    fn package_item(&self, package: &Package) -> Option<ItemId> {
        let item = |key: &[u8]| ItemKey::from_bytes(key).ok().map(|key| ItemId::new(ItemKind::Package, key));
        let foreign = package.architecture.as_ref().and_then(|arch| item(&[&package.name[..], b":", arch].concat()));
        foreign.filter(|foreign| self.stored(foreign).ok().flatten().is_some()).or_else(|| item(&package.name))
    }
}

fn file(path: &[u8]) -> Option<ItemId> {
    ItemKey::from_bytes(path).ok().map(|key| ItemId::new(ItemKind::File, key))
}

fn process_of(settled: &Settled) -> Option<u32> {
    settled.actor.as_ref()?.process.as_ref().map(|process| process.pid)
}

/// Whether dpkg or rpm itself is known to have done it.
fn is_by_program(actor: &Actor) -> bool {
    let exe = actor.process.as_ref().and_then(|process| process.exe.as_deref());
    actor.certainty <= Certainty::Strong && exe.is_some_and(|exe| PROGRAMS.contains(&exe))
}

/// Nothing that the manifest of dpkg says nothing about moved with the contents. A file that is new is looked at as a whole.
fn is_of_contents(change: &Change) -> bool {
    let moved = |name: &str| change.fields.iter().any(|field| field.name.as_str() == name);
    let is_of_rights = |name: &str| Part::is_right(name) || matches!(name, "mode" | "uid" | "gid" | "owner" | "group" | "type");
    match change.kind {
        ChangeKind::Created => true,
        ChangeKind::Modified => moved("sha256") && !change.fields.iter().any(|field| is_of_rights(field.name.as_str())),
        ChangeKind::Removed => false,
    }
}

/// Whether the file that was read is later than the touch that it was read for: a touch is noted after it happened. A folder
/// changes with each of its entries, and a file of several names with each of these.
fn was_touched_since(change: &Change, touched_at: Time) -> bool {
    let Some(fields) = change.after() else { return false };
    let is_alone = fields.value("type") == Some(&Value::text("file")) && fields.value("nlink") == Some(&Value::Integer(1));
    is_alone && changed_ns(&change.item.key.bytes()).is_some_and(|changed| changed.div_euclid(1000) > touched_at.micros())
}

/// ctime, in nanoseconds since the epoch, where there is something by that name.
pub(super) fn changed_ns(path: &[u8]) -> Option<i64> {
    Pinned::open(path).ok().map(|pinned| pinned.metadata.changed_ns)
}
