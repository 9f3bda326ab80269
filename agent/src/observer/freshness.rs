//! Whether what was read for the event of one process may be what another has done since, of which nothing has been told yet.
//!
//! A file's ctime says when it last changed, and the sensors up to when all has been told: what is younger is put back and read again a
//! moment later, until all is told or [`Settled::limit`] has come. Then whoever is named is so with a doubt. What the kernel holds bears no
//! time: what was read of it is held until all is told of what came before the reading, or has a version, which its author's touch
//! tells. Invariant: only that of which all is told, or what no sensor names a process for, is compared without a doubt.

use std::time::Instant;

use trueline_drift::{Actor, Cause, Certainty, ItemId, ItemKind, Time};

use super::kinds::Telling;
use super::settle::{Held, HeldReading, Settled};
use super::unpacking::changed_ns;
use super::{Observer, Scope, Sink};
use crate::clock;
use crate::collect::{CollectError, Reading};
use crate::sensor::{Deed, GRACE, Target};
use crate::state::Scope as StateScope;

/// Writes that follow one another without end are told of with the process that was heard of last.
pub(super) const STILL_WRITTEN: &str =
    "it was still being changed when it was read, perhaps by another process of which nothing had been heard yet";

/// Of what was read for an event.
#[derive(Debug)]
pub(super) enum Look {
    /// All is told of it, or nobody is named anyway.
    Whole,
    Doubtful,
    /// It has been put back.
    TooSoon,
}

impl<S: Sink> Observer<S> {
    /// Before it is read: whether that would be in vain.
    pub(super) fn is_too_soon(&self, touched: &Settled) -> bool {
        touched.actor.as_ref().is_some_and(|actor| self.names(actor))
            && self.may_wait(touched, Instant::now())
            && self.is_untold(touched.touched_at)
    }

    /// After it was read.
    pub(super) fn look(
        &mut self,
        touched: &mut Option<Settled>,
        actor: &Actor,
        item: &ItemId,
        read: &Result<Option<Reading>, CollectError>,
    ) -> Look {
        let is_anothers = self.names(actor)
            && match read {
                Ok(Some(reading)) => self.may_be_anothers(item, reading),
                Ok(None) => self.stored(item).is_ok_and(|stored| stored.is_some()) && self.may_be_removed_since(touched.as_mut()),
                // What is read aside is looked at when that has been done; what cannot be read names nobody.
                Err(_) => false,
            };
        if !is_anothers {
            return Look::Whole;
        }
        let now = Instant::now();
        if touched.as_ref().is_some_and(|touched| self.may_wait(touched, now)) {
            self.put_back(touched, now);
            return Look::TooSoon;
        }
        Look::Doubtful
    }

    /// Whether the sensors name processes, and this one is named.
    pub(super) fn names(&self, actor: &Actor) -> bool {
        actor.certainty <= Certainty::Strong && self.parts.sensors.as_ref().is_some_and(|sensors| sensors.names_processes())
    }

    /// Whether something that happened then may not have been told yet; has the sensors tell, if so.
    pub(super) fn is_untold(&self, at: Time) -> bool {
        self.is_later(at, self.told_until)
    }

    /// As [`Self::is_untold`], of what the kernel holds.
    fn is_kernel_untold(&self, at: Time) -> bool {
        self.is_later(at, self.kernel_told_until)
    }

    fn is_later(&self, at: Time, told_until: Time) -> bool {
        let is_untold = told_until <= at.plus_micros(GRACE.as_micros() as i64);
        if is_untold && let Some(sensors) = &self.parts.sensors {
            sensors.tell_progress();
        }
        is_untold
    }

    fn may_wait(&self, touched: &Settled, now: Instant) -> bool {
        now < touched.limit && !self.is_leaving
    }

    fn put_back(&mut self, touched: &mut Option<Settled>, now: Instant) -> bool {
        touched.take().map(|touched| self.settle.put_back(touched, GRACE, now)).is_some()
    }

    /// A folder that is new is changed by what comes into it.
    pub(super) fn may_be_anothers(&self, item: &ItemId, reading: &Reading) -> bool {
        // One that was changed while it was read cannot be read in part.
        let is_partial = reading.fields.iter().any(|(_, value)| value.is_unreadable());
        (is_partial || reading.changed_at.is_none_or(|at| self.is_untold(at)))
            && self.differs(item, Some(reading))
            && (!super::compare::is_folder(&reading.fields) || self.stored(item).is_ok_and(|stored| stored.is_some()))
    }

    /// It was there when whoever is named touched it, perhaps. Who was told to remove it, and of no other making it again, did.
    fn may_be_removed_since(&self, touched: Option<&mut Settled>) -> bool {
        let Some(touched) = touched.filter(|touched| touched.entry.is_none_or(|entry| entry.last != Deed::Removed)) else { return false };
        let missed_at = *touched.missed_at.get_or_insert_with(clock::inode_now);
        self.is_untold(missed_at)
    }

    /// A kernel setting that was touched; whether it was told of.
    pub(super) fn examine_setting(&mut self, item: &ItemId, mut touched: Settled, actor: &Actor) -> Look {
        let known = self.stored(item).ok().flatten().map(|stored| stored.fields);
        let held = match touched.held.take() {
            Some(Held { read: HeldReading::Item { reading, known: then }, read_at }) if then == known => Ok((reading, read_at)),
            _ => self.parts.collectors.read_item(item, None).map(|reading| (reading, clock::inode_now())),
        };
        let (read, look) = match held {
            Err(error) => (Err(error), Look::Whole),
            Ok((reading, read_at)) if self.names(actor) && self.differs(item, reading.as_ref()) && self.is_kernel_untold(read_at) => {
                let now = Instant::now();
                if self.may_wait(&touched, now) {
                    let held = Some(Held { read: HeldReading::Item { reading, known }, read_at });
                    self.settle.put_back(Settled { held, ..touched }, GRACE, now);
                    return Look::TooSoon;
                }
                (Ok(reading), Look::Doubtful)
            }
            Ok((reading, _)) => (Ok(reading), Look::Whole),
        };
        let doubtful = matches!(look, Look::Doubtful).then(|| actor.but(STILL_WRITTEN));
        self.compare_read(item, read, Cause::Event, doubtful.as_ref().unwrap_or(actor));
        look
    }

    /// A kind that was touched as a whole.
    pub(super) fn examine_kind(&mut self, kind: ItemKind, mut touched: Settled, actor: &Actor) {
        let read = match touched.held.take() {
            Some(Held { read: HeldReading::Kind(listing), read_at }) => Ok((listing, read_at)),
            _ => self.list(kind).map(|listing| (listing, clock::inode_now())),
        };
        let (listing, read_at) = match read {
            Ok(read) => read,
            Err(fault) => return self.read_later(Scope::Kind(kind), &fault),
        };
        let is_anothers = self.names(actor)
            && self.differ(kind, &listing.items)
            && match listing.generation {
                Some(_) => listing.generation != touched.generation,
                None => self.is_kernel_untold(read_at),
            };
        let now = Instant::now();
        if is_anothers && self.may_wait(&touched, now) {
            // A version of which nothing was told yet is read again when it has been, and perhaps the next with it.
            let held = listing.generation.is_none().then_some(Held { read: HeldReading::Kind(listing), read_at });
            self.settle.put_back(Settled { held, ..touched }, GRACE, now);
            return;
        }
        let doubtful = is_anothers.then(|| actor.but(STILL_WRITTEN));
        let actor = doubtful.as_ref().unwrap_or(actor);
        if let Err(fault) = self.compare_listed(kind, listing.items, Cause::Event, actor, Telling::AtOnce, None) {
            self.read_later(Scope::Kind(kind), &fault);
        }
    }

    fn differ(&self, kind: ItemKind, listed: &[(ItemId, Reading)]) -> bool {
        let is_as_many = self.known_items(&StateScope::kind(kind)).is_ok_and(|known| known.len() == listed.len());
        !is_as_many || listed.iter().any(|(item, reading)| self.differs(item, Some(reading)))
    }

    /// After a kind was read for these files.
    pub(super) fn look_at_sources(&mut self, touched: Vec<Settled>, actor: &Actor) -> Look {
        let changed_at = |touched: &Settled| match &touched.target {
            Target::Path(path) => changed_ns(path).map(|ns| Time::from_micros(ns.div_euclid(1000))),
            Target::Sysctl(_) | Target::Kind(_) => None,
        };
        if !self.names(actor) || !touched.iter().filter_map(changed_at).any(|at| self.is_untold(at)) {
            return Look::Whole;
        }
        let now = Instant::now();
        if !touched.iter().all(|touched| self.may_wait(touched, now)) {
            return Look::Doubtful;
        }
        touched.into_iter().for_each(|touched| self.settle.put_back(touched, GRACE, now));
        Look::TooSoon
    }
}
