//! What is read for what sensors told of: the file or the setting itself, and the kinds that are read from it.

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use trueline_drift::{Actor, Cause, Fields, ItemId, ItemKey, ItemKind, text};

use super::compare::{UNWRITTEN, is_folder};
use super::freshness::{Look, STILL_WRITTEN};
use super::kinds::{Telling, VALUE};
use super::plans::{Plan, Why};
use super::settle::{self, Settled};
use super::{Observer, RIPPLE, Scope, Sink};
use crate::collect::{CollectError, Known, ReadError, Reading};
use crate::sensor::{Depth, Entry, GRACE, Target};

/// What a kind is read for.
#[derive(Debug, Default)]
struct Source {
    actor: Option<Actor>,
    /// Those of its files that are watched themselves.
    touched: Vec<Settled>,
}

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
            if kind == ItemKind::Package {
                self.note_work(&actor);
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
}
