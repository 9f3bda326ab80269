//! Kernel events as hints to look again. A sensor never reads a value, never decides what changed,
//! and reports every interval in which it may have missed something.

pub mod audit;
mod coverage;
mod directories;
mod fanotify;
mod hooks;
mod inotify;
pub mod mounts;
mod notices;
mod outlet;
mod resolve;
mod sensors;
mod sysctl;
mod view;

use std::sync::Arc;

use trueline_drift::{Actor, GapReason, ItemKind, Time};

use crate::actor::image::ProcessImage;

pub use audit::AuditUse;
pub use coverage::{Coverage, OPERATION, operations, unwatched};
/// After a change, until [`Signal::ToldUntil`] that time means that its event was told.
pub use fanotify::GRACE;
pub use outlet::SensorCounters;
pub use sensors::{Preference, SensorError, Sensors};
pub use view::View;

/// What a sensor tells the observer.
#[derive(Debug)]
pub enum Signal {
    /// Ahead of the touches of a process: which file it runs.
    Image(Box<ProcessImage>),
    Touched(Touch),
    Lost(Loss),
    /// All that happened before this was asked for has been told.
    CaughtUp(CatchUp),
    /// All that happened before these times has been told, to files and to what the kernel holds; by the clock of
    /// [`crate::clock::inode_now`].
    ToldUntil {
        files: Time,
        kernel: Time,
    },
}

/// Numbers the questions to the sensors whether they have caught up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CatchUp(u64);

impl CatchUp {
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// What was done to a name in its folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deed {
    /// Created, or renamed to.
    Made,
    /// Removed, or renamed away.
    Removed,
}

/// What became of a name in its folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Made, where both were done and the order is not told.
    pub last: Deed,
    pub was_made: bool,
    /// What it was may be elsewhere now.
    pub was_renamed_away: bool,
}

impl Entry {
    /// With what was done before.
    pub fn after(self, earlier: Option<Self>) -> Self {
        let Some(earlier) = earlier else { return self };
        let was_renamed_away = self.was_renamed_away || earlier.was_renamed_away;
        Self { last: self.last, was_made: self.was_made || earlier.was_made, was_renamed_away }
    }

    /// Of a name that is not there: whether something was there for a moment and then nowhere.
    pub fn was_transient(self) -> bool {
        self.was_made && !self.was_renamed_away
    }
}

/// Something may have happened to an item.
#[derive(Debug)]
pub struct Touch {
    pub target: Target,
    pub at: Time,
    /// Who did it, where the sensor could tell.
    pub actor: Option<Arc<Actor>>,
    pub depth: Depth,
    /// The operation changes what the path holds: a write, or an entry made, renamed or removed. What is written through memory
    /// makes no such event.
    pub wrote: bool,
    /// What was done to the path's own entry.
    pub entry: Option<Entry>,
    /// The writer is done: the file was closed, or the operation was atomic.
    pub finished: bool,
    /// Which version of all that is behind the target the touch made, where the kernel counts them.
    pub generation: Option<Generation>,
}

/// A count of the kernel's: of the packet filter's versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generation(pub u32);

#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Target {
    /// An absolute path, in the host's own bytes.
    Path(Vec<u8>),
    /// A kernel setting, as in `net.ipv4.ip_forward`.
    Sysctl(String),
    /// Something of this kind, which the kernel holds; it does not say what.
    Kind(ItemKind),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Depth {
    Item,
    /// A folder appeared or moved: what lies beneath it must be read too.
    Tree,
}

/// An interval in which events may have been missed; the scope must be read again.
#[derive(Debug, Clone)]
pub struct Loss {
    /// `file:/etc`, `file:*`, `sysctl:*`, or `*`.
    pub scope: String,
    pub reason: GapReason,
    pub began_at: Time,
    /// How many, where the kernel says.
    pub lost: Option<u64>,
}

#[cfg(test)]
mod tests;
