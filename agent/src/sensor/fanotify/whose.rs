//! Whose events they are: what a feed tells of processes, joined with the events that were read.
//!
//! Invariant: what the feed told is taken after a batch was read and before the first of its events is asked about, so that
//! whatever can have made it is known.

use std::sync::Arc;

use trueline_drift::Actor;

use super::{Moment, Worker};
use crate::kernel::fanotify::{Event, EventPidfd};
use crate::process::order::Sighting;
use crate::sensor::Signal;
use crate::sensor::coverage::Coverage;
use crate::sensor::outlet::Closed;

const SCOPE: &str = "process:*";
/// Shown from then on: what was refused once leaves processes unknown for as long as they live.
const CROWDED: &str = "more processes lived at once than there was room for, and some of them cannot be named";

impl Worker {
    /// The actor of an event; first told is which file its process runs.
    pub(super) fn actor(&mut self, event: &Event<'_>, sighting: &Sighting) -> Result<Option<Arc<Actor>>, Closed> {
        self.actor_of(u32::try_from(event.record.pid).unwrap_or(0), &event.pidfd, sighting)
    }

    pub(super) fn actor_of(&mut self, pid: u32, pidfd: &EventPidfd, sighting: &Sighting) -> Result<Option<Arc<Actor>>, Closed> {
        if !self.is_informed || self.processes.is_pressing() {
            self.take_processes();
        }
        let group = &self.group;
        let actor = self.actors.attribute(&mut self.processes, pid, pidfd, *sighting, || group.pending());
        for image in self.actors.take_images() {
            self.outlet.send(Signal::Image(Box::new(image)))?;
        }
        Ok(Some(actor))
    }

    pub(super) fn take_processes(&mut self) {
        let group = &self.group;
        let had_room = self.processes.refused() == 0;
        self.processes.drain(|| group.pending());
        self.is_informed = true;
        if had_room && self.processes.refused() > 0 {
            self.coverage.replace("process", vec![self.processes_covered()]);
        }
    }

    /// A process was given a login, after which all that it does and starts belongs to that.
    pub(super) fn take_login(&mut self, pid: u32) {
        if self.processes.feed().is_some() {
            self.take_processes();
            let group = &self.group;
            self.processes.look_at_login(pid, || group.pending());
        }
    }

    /// Nothing waited then of what the kernel tells of what it holds.
    pub(super) fn kernel_was_quiet(&mut self, then: Moment) {
        (self.kernel_emptied, self.kernel_told) = (then.at, then.stamped);
    }

    pub(super) fn processes_covered(&self) -> Coverage {
        let crowded = (self.processes.refused() > 0).then(|| CROWDED.to_owned());
        let refused = self.processes.refusals().iter().map(|refusal| format!("{}: {}", refusal.feed, refusal.reason));
        let why = crowded.into_iter().chain(refused).collect::<Vec<_>>().join("; ");
        let (name, reason) = match self.processes.feed() {
            Some(name) => (name, (!why.is_empty()).then_some(why)),
            None => {
                let without = "processes are looked at when their events are read, and those that end at once may not be named";
                ("procfs", Some(if why.is_empty() { without.to_owned() } else { format!("{without} ({why})") }))
            }
        };
        Coverage { name, scope: SCOPE.to_owned(), watching: true, reason }
    }
}
