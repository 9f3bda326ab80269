//! Whether what was read for the event of one process may be what another has done since, of which nothing has been told yet.
//!
//! A file's ctime says when it last changed, and the sensors up to when all has been told: what is younger is put back and read again a
//! moment later, until all is told or [`Settled::limit`] has come. Then whoever is named is so with a doubt. A kernel setting bears no time:
//! what was read of it is held until all is told of what came before the reading. Invariant: only a file or a setting of which all is
//! told, or what no sensor names a process for, is compared without a doubt.

use std::time::Instant;

use trueline_drift::{Actor, Cause, Certainty, ItemId, Time};

use super::settle::{Held, Settled};
use super::unpacking::changed_ns;
use super::{Observer, Sink};
use crate::clock;
use crate::collect::{CollectError, Reading};
use crate::sensor::{Entry, GRACE, Target};

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

    /// As [`Self::is_untold`], of a kernel setting.
    fn is_setting_untold(&self, at: Time) -> bool {
        self.is_later(at, self.settings_told_until)
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
        let Some(touched) = touched.filter(|touched| touched.entry != Some(Entry::Removed)) else { return false };
        let missed_at = *touched.missed_at.get_or_insert_with(clock::inode_now);
        self.is_untold(missed_at)
    }

    /// A kernel setting that was touched; whether it was told of.
    pub(super) fn examine_setting(&mut self, item: &ItemId, mut touched: Settled, actor: &Actor) -> Look {
        let known = self.stored(item).ok().flatten().map(|stored| stored.fields);
        let held = match touched.held.take().filter(|held| held.known == known) {
            Some(held) => Ok(held),
            None => {
                let read = self.parts.collectors.read_item(item, None);
                read.map(|reading| Held { reading, known, read_at: clock::inode_now() })
            }
        };
        let (read, look) = match held {
            Err(error) => (Err(error), Look::Whole),
            Ok(held) if self.names(actor) && self.differs(item, held.reading.as_ref()) && self.is_setting_untold(held.read_at) => {
                let now = Instant::now();
                if self.may_wait(&touched, now) {
                    self.settle.put_back(Settled { held: Some(held), ..touched }, GRACE, now);
                    return Look::TooSoon;
                }
                (Ok(held.reading), Look::Doubtful)
            }
            Ok(held) => (Ok(held.reading), Look::Whole),
        };
        let doubtful = matches!(look, Look::Doubtful).then(|| actor.but(STILL_WRITTEN));
        self.compare_read(item, read, Cause::Event, doubtful.as_ref().unwrap_or(actor));
        look
    }

    /// After a kind was read for these files.
    pub(super) fn look_at_sources(&mut self, touched: Vec<Settled>, actor: &Actor) -> Look {
        let changed_at = |touched: &Settled| match &touched.target {
            Target::Path(path) => changed_ns(path).map(|ns| Time::from_micros(ns.div_euclid(1000))),
            Target::Sysctl(_) => None,
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
