//! Hard links: what is done to a file through one of its names is told of each.
//!
//! An event names one name. Which others a file has that had several when it was read the state knows; those of one that had a single
//! name until then are looked for by a walk through all, in slices and a tenth of the time.
//!
//! Invariants: the other names are touched only where the one that was touched differs, so that they do not touch each other without
//! end. Of a file with names that are not watched nobody is sure who changed it: whoever did so through one of those is not told.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::warn;
use trueline_drift::{Actor, Fields, ItemId, Time, Value};

use super::settle::{self, Settled};
use super::{Observer, Sink};
use crate::collect::Reading;
use crate::kernel::file::Inode;
use crate::sensor::{Depth, Target, Touch};
use crate::state::Stored;

/// Rows that a slice of a walk looks at: about a millisecond.
const SLICE: usize = 4096;
/// A walk is followed by so many times as long without one.
const REST: u32 = 9;
/// Files that are looked for at once. Of more the names are found by the next scan.
const SOUGHT: usize = 4096;

const ELSEWHERE: &str = "the file has names that are not watched: another process may have changed it through one of them";

/// Names that are looked for.
#[derive(Default)]
pub(super) struct Links {
    /// Who touched each of these files last: the next walk's.
    sought: BTreeMap<Inode, Toucher>,
    walk: Option<Walk>,
    rest_until: Option<Instant>,
}

#[derive(Clone)]
struct Toucher {
    actor: Actor,
    at: Time,
    wrote: bool,
}

impl Toucher {
    fn touch(&self, path: Vec<u8>) -> Touch {
        let actor = self.actor.process.is_some().then(|| Arc::new(self.actor.clone()));
        let (at, wrote) = (self.at, self.wrote);
        Touch { target: Target::Path(path), at, actor, depth: Depth::Item, wrote, entry: None, finished: true, generation: None }
    }
}

struct Walk {
    sought: BTreeMap<Inode, Toucher>,
    after: Option<ItemId>,
    took: Duration,
}

impl Links {
    pub(super) fn next_due(&self, now: Instant) -> Option<Instant> {
        let is_due = self.walk.is_some() || !self.sought.is_empty();
        is_due.then(|| self.rest_until.filter(|_| self.walk.is_none()).unwrap_or(now))
    }

    fn seek(&mut self, inode: Inode, by: Toucher) {
        if self.sought.len() < SOUGHT || self.sought.contains_key(&inode) {
            self.note(inode, &by);
            self.sought.entry(inode).or_insert(by);
        }
    }

    /// Somebody else touched one that is looked for.
    fn note(&mut self, inode: Inode, by: &Toucher) {
        let walked = self.walk.as_mut().and_then(|walk| walk.sought.get_mut(&inode));
        for earlier in walked.into_iter().chain(self.sought.get_mut(&inode)) {
            let actor = settle::together(&earlier.actor, &by.actor);
            *earlier = Toucher { actor, wrote: earlier.wrote || by.wrote, ..by.clone() };
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Search {
    Needed,
    /// All are known, or those that are not were looked for before.
    Done,
}

/// Other names of what was touched.
#[derive(Default)]
struct OtherNames {
    names: Vec<ItemId>,
    /// What lies there now, and whether to look for names that are not known.
    present: Option<(Inode, Search)>,
    doubt: Option<&'static str>,
}

impl OtherNames {
    fn is_empty(&self) -> bool {
        self.names.is_empty() && self.present.is_none()
    }
}

impl<S: Sink> Observer<S> {
    /// Before the difference of a name that was touched is told: has the others read, of `due` those that are to be read anyway. Who
    /// made the difference, if also those did who touched the file by another name. `before` is what the state has.
    pub(super) fn tell_others(
        &mut self,
        item: &ItemId,
        before: Option<&Stored>,
        reading: Option<&Reading>,
        (at, wrote): (Time, bool),
        actor: &Actor,
        due: &mut VecDeque<Settled>,
    ) -> Actor {
        let others = self.other_names(item, before, reading);
        let actor = self.together_by(&others, actor, due);
        if !others.is_empty() && self.differs(item, reading) {
            self.touch_others(others, Toucher { actor: actor.clone(), at, wrote }, due);
        }
        actor
    }

    /// Of a name that was touched and read. Asked for before the difference is told, for afterwards it is not known what lay there.
    fn other_names(&self, item: &ItemId, before: Option<&Stored>, reading: Option<&Reading>) -> OtherNames {
        let mut others = OtherNames::default();
        let before = before.and_then(|stored| Some((stored.inode?, links(&stored.fields))));
        let now = reading.and_then(|reading| Some((reading.inode?, links(&reading.fields))));
        for (inode, _) in before.into_iter().chain(now).filter(|(_, links)| *links > 1) {
            others.names.extend(self.names_of(inode).into_iter().filter(|name| name != item));
        }
        others.names.sort_unstable();
        others.names.dedup();
        if let Some((inode, links)) = now.filter(|(_, links)| *links > 1) {
            let known = self.names_of(inode).iter().filter(|name| *name != item).count() as i64 + 1;
            let is_whole = known >= links;
            others.present = Some((inode, if is_whole || before == now { Search::Done } else { Search::Needed }));
            let is_same = before.is_some_and(|(before, _)| before == inode);
            others.doubt = (!is_whole && is_same).then_some(ELSEWHERE);
        }
        others
    }

    /// The watched items that bore this file when they were read.
    fn names_of(&self, inode: Inode) -> Vec<ItemId> {
        let mut names = self.parts.state.names_of(inode).unwrap_or_else(|error| {
            warn!(%error, "the other names of a file are not known; the next scan reads them");
            Vec::new()
        });
        let bears = |stored: &Option<Stored>| stored.as_ref().is_some_and(|stored| stored.inode == Some(inode));
        names.extend(self.offer.updates.iter().filter(|(_, stored)| bears(stored)).map(|(item, _)| item.clone()));
        names.sort_unstable();
        names.dedup();
        names.retain(|item| {
            let bears = self.stored(item).ok().flatten().is_some_and(|stored| stored.inode == Some(inode) && links(&stored.fields) > 1);
            bears && self.parts.policy.watches(item)
        });
        names
    }

    /// Who changed a file, if also those did who touched it by its other names: of `due`, and of those that wait.
    fn together_by(&self, others: &OtherNames, actor: &Actor, due: &VecDeque<Settled>) -> Actor {
        let mut actor = others.doubt.map_or_else(|| actor.clone(), |doubt| actor.but(doubt));
        for name in &others.names {
            let path = name.key.bytes();
            let waiting =
                self.settle.actor(&path).or_else(|| self.unpacking.actors().find(|(held, _)| **held == *path).map(|(_, actor)| actor));
            let about_to = due.iter().find(|settled| is_at(settled, &path)).and_then(|settled| settled.actor.as_deref());
            for other in waiting.into_iter().chain(about_to) {
                actor = settle::together(other, &actor);
            }
        }
        actor
    }

    /// Has the other names read, and those looked for that are not known. What differs was done by `actor`.
    fn touch_others(&mut self, others: OtherNames, by: Toucher, due: &mut VecDeque<Settled>) {
        let now = Instant::now();
        for name in others.names {
            let path = name.key.bytes().into_owned();
            if let Some(settled) = due.iter_mut().find(|settled| is_at(settled, &path)) {
                settled.share(&by.actor);
                continue;
            }
            self.settle.touch(by.touch(path), now);
        }
        if let Some((inode, search)) = others.present {
            match search {
                Search::Needed => self.links.seek(inode, by),
                Search::Done => self.links.note(inode, &by),
            }
        }
    }

    /// A slice of the walk, if one is due.
    pub(super) fn work_on_links(&mut self) {
        let begun = Instant::now();
        if self.links.next_due(begun).is_none_or(|due| due > begun) {
            return;
        }
        let sought = &mut self.links.sought;
        let walk = self.links.walk.get_or_insert_with(|| Walk { sought: std::mem::take(sought), after: None, took: Duration::ZERO });
        let found = match self.parts.state.bearers(&|inode| walk.sought.contains_key(&inode), walk.after.as_ref(), SLICE) {
            Ok(found) => found,
            Err(error) => {
                warn!(%error, "the other names of a file could not be looked for; the next scan reads them");
                self.links.walk = None;
                return;
            }
        };
        for (item, inode) in found.items {
            if let Some(by) = walk.sought.get(&inode)
                && self.parts.policy.watches(&item)
            {
                self.settle.touch(by.touch(item.key.bytes().into_owned()), Instant::now());
            }
        }
        walk.took += begun.elapsed();
        walk.after = found.last;
        if walk.after.is_none() {
            self.links.rest_until = Some(Instant::now() + walk.took * REST);
            self.links.walk = None;
        }
    }
}

fn is_at(settled: &Settled, path: &[u8]) -> bool {
    matches!(&settled.target, Target::Path(target) if *target == path)
}

fn links(fields: &Fields) -> i64 {
    match fields.value("nlink") {
        Some(Value::Integer(links)) => *links,
        _ => 1,
    }
}
