//! What hooks in the kernel told, passed on beside the file events.
//!
//! Invariant: a batch of file events is passed on only after what hooks told until it was read: who did it is then known for sure
//! where an event alone would leave a doubt.

use super::Worker;
use crate::sensor::hooks::Hooked;
use crate::sensor::outlet::Closed;
use crate::sensor::{Depth, Signal, Target};

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
            self.note_mounter(kind, &actor);
            self.touch_kind(kind, Some(actor), None)?;
        }
        Ok(())
    }
}
