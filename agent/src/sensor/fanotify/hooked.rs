//! What hooks in the kernel told, passed on beside the file events.
//!
//! Invariant: a batch of file events is passed on only after what hooks told until it was read: who did it is then known for sure
//! where an event alone would leave a doubt.

use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use trueline_drift::Actor;

use super::Worker;
use crate::sensor::hooks::Hooked;
use crate::sensor::outlet::Closed;
use crate::sensor::{Depth, Signal, Target};

/// For a process that mounts to come to the hook behind it. One that mounted elsewhere, whose mount came here, never does.
const PATIENCE: Duration = Duration::from_millis(20);

impl Worker {
    pub(super) fn take_hooks(&mut self) -> Result<(), Closed> {
        let Self { hooks: Some(hooks), processes, group, view, mounts, .. } = self else { return Ok(()) };
        let hooked = hooks.take(processes, view, mounts, || group.pending());
        let authors = hooks.take_authors();
        for image in hooks.take_images() {
            self.outlet.send(Signal::Image(Box::new(image)))?;
        }
        for Hooked { path, actor, events } in hooked {
            self.touch(Target::Path(path), Some(actor), Depth::Item, None, events)?;
        }
        for (kind, actor) in authors {
            self.touch_kind(kind, Some(actor), None)?;
        }
        Ok(())
    }

    /// Who mounted or unmounted since this was last asked. Where something in view did change it is waited for: the table of mounts may tell
    /// of it before the hook does.
    pub(super) fn take_mounter(&mut self, is_awaited: bool) -> Result<Option<Arc<Actor>>, Closed> {
        let end = Instant::now() + PATIENCE;
        loop {
            self.take_hooks()?;
            let Some(hooks) = &mut self.hooks else { return Ok(None) };
            let left = end.saturating_duration_since(Instant::now());
            if !is_awaited || hooks.knows_mounter() || left.is_zero() {
                // With it folders came and went.
                hooks.expire();
                return Ok(hooks.take_mounter());
            }
            let mut waiting = [PollFd::new(hooks.descriptor(), PollFlags::POLLIN)];
            // Failing, or ended early, it is asked again.
            let _ = poll(&mut waiting, PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO));
        }
    }
}
