//! What the kernel tells of what it holds besides settings, passed on as touches of whole kinds.

use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use trueline_drift::{Actor, ItemKind};

use super::{Moment, Worker};
use crate::clock;
use crate::kernel::fanotify::EventPidfd;
use crate::process::event::BootTime;
use crate::process::order::Sighting;
use crate::sensor::coverage::Coverage;
use crate::sensor::hooks::Hooks;
use crate::sensor::notices::{self, Author, Notice, OTHER_NUMBERS};
use crate::sensor::outlet::{Closed, now};
use crate::sensor::{Depth, Generation, Signal, Target, Touch};

const MOUNTED: &str = "the process mounted or unmounted something right before; which one it was is not told";
/// For a process that mounts to be told of. One that mounted elsewhere, whose mount came here, may never be.
const PATIENCE: Duration = Duration::from_millis(20);

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
            if kind == ItemKind::Mount {
                // One of those that were lost may have been another's.
                self.mounters.clear();
            }
            self.outlet.counters.count(|counters| &counters.overflows);
            self.outlet.lose(format!("{kind}:*"), reason, self.caught_up, None)?;
        }
        if noticed.notices.iter().any(|notice| notice.kind == ItemKind::KernelModule) {
            // With it something else may be heard of.
            self.coverage.replace(notices::NAME, self.notices_covered());
        }
        for Notice { kind, author, generation } in noticed.notices {
            self.outlet.counters.count(|counters| &counters.events);
            if !self.policy.watches_kind(kind) && kind != ItemKind::Mount {
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
            if let Some(actor) = &actor {
                self.note_mounter(kind, actor);
            }
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

    pub(super) fn note_mounter(&mut self, kind: ItemKind, actor: &Arc<Actor>) {
        if kind == ItemKind::Mount {
            self.mounters.push(Arc::new(actor.but(MOUNTED)));
        }
    }

    /// Who mounted or unmounted since this was last asked, where it was one process alone. Where something in view did change it is
    /// waited for: the table of mounts may tell of it before the one who did it is told.
    pub(super) fn take_mounter(&mut self, is_awaited: bool) -> Result<Option<Arc<Actor>>, Closed> {
        let end = Instant::now() + PATIENCE;
        loop {
            self.take_hooks()?;
            self.take_notices(Moment::now())?;
            let left = end.saturating_duration_since(Instant::now());
            let hooks = self.hooks.as_ref().map(Hooks::descriptor);
            let [_, mounters, ..] = self.notices.descriptors();
            let mut waiting: Vec<PollFd<'_>> = hooks.into_iter().chain(mounters).map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
            if !is_awaited || waiting.is_empty() || !self.mounters.is_empty() || left.is_zero() {
                break;
            }
            // Failing, or ended early, it is asked again.
            let _ = poll(&mut waiting, PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO));
        }
        if let Some(hooks) = &mut self.hooks {
            // With it folders came and went.
            hooks.expire();
        }
        let mounters = std::mem::take(&mut self.mounters);
        let process = |actor: &Actor| actor.process.as_ref().map(|process| (process.pid, process.started_at));
        let Some(first) = mounters.first() else { return Ok(None) };
        Ok(mounters.iter().all(|actor| process(actor) == process(first)).then(|| Arc::clone(first)))
    }

    pub(super) fn notices_covered(&self) -> Vec<Coverage> {
        let mut rows = self.notices.covered();
        // Who mounts is told of files too.
        let kind = |row: &Coverage| row.scope.strip_suffix(":*")?.parse::<ItemKind>().ok();
        rows.retain(|row| kind(row).is_none_or(|kind| self.policy.watches_kind(kind)));
        rows
    }
}
