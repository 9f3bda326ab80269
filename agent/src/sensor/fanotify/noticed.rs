//! What the kernel tells of what it holds besides settings, passed on as touches of whole kinds.

use std::sync::Arc;

use trueline_drift::{Actor, ItemKind};

use super::{Moment, Worker};
use crate::clock;
use crate::kernel::fanotify::EventPidfd;
use crate::process::event::BootTime;
use crate::process::order::Sighting;
use crate::sensor::coverage::Coverage;
use crate::sensor::notices::{Author, Notice, OTHER_NUMBERS};
use crate::sensor::outlet::{Closed, now};
use crate::sensor::{Depth, Generation, Signal, Target, Touch};

impl Worker {
    /// `began`: before the first of the queues was looked at.
    pub(super) fn take_notices(&mut self, began: Moment) -> Result<(), Closed> {
        let noticed = self.notices.take();
        if noticed.notices.is_empty() && noticed.lost.is_empty() {
            return Ok(());
        }
        let sighting = Sighting::unplaced(self.kernel_emptied, began.at, BootTime::now());
        self.is_informed = false;
        for (kind, reason) in noticed.lost {
            self.outlet.counters.count(|counters| &counters.overflows);
            self.outlet.lose(format!("{kind}:*"), reason, self.caught_up, None)?;
        }
        for Notice { kind, author, generation } in noticed.notices {
            self.outlet.counters.count(|counters| &counters.events);
            if !self.policy.watches_kind(kind) {
                continue;
            }
            let actor = match author {
                Author::Process(pid, pidfd) => self.actor_of(pid, &pidfd, &sighting)?,
                Author::First(number) => {
                    self.take_processes();
                    match self.processes.number_here(number) {
                        Some(pid) => self.actor_of(pid, &EventPidfd::Absent, &sighting)?,
                        None => Some(Arc::new(Actor::unknown(OTHER_NUMBERS))),
                    }
                }
                Author::Elsewhere => Some(Arc::new(Actor::unknown(OTHER_NUMBERS))),
                Author::Unsaid => None,
            };
            self.touch_kind(kind, actor, generation)?;
        }
        Ok(())
    }

    /// Without an actor it waits a while for another notice of the same that has one.
    pub(super) fn touch_kind(&mut self, kind: ItemKind, actor: Option<Arc<Actor>>, generation: Option<Generation>) -> Result<(), Closed> {
        if !self.policy.watches_kind(kind) {
            return Ok(());
        }
        let (target, finished) = (Target::Kind(kind), actor.is_some() || generation.is_some());
        self.progress.touched(clock::inode_now());
        let touch = Touch { target, at: now(), actor, depth: Depth::Item, wrote: true, entry: None, finished, generation };
        self.outlet.send(Signal::Touched(touch))
    }

    pub(super) fn notices_covered(&self) -> Vec<Coverage> {
        let mut rows = self.notices.covered();
        rows.retain(|row| {
            let kind = row.scope.rsplit(':').find_map(|part| part.parse().ok()).or_else(|| row.scope.split(':').next()?.parse().ok());
            kind.is_none_or(|kind: ItemKind| self.policy.watches_kind(kind))
        });
        rows
    }
}
