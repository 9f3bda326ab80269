//! Kernel events as hints to look again. A sensor never reads a value, never decides what changed,
//! and reports every interval in which it may have missed something.

mod coverage;
mod directories;
mod fanotify;
mod inotify;
pub mod mounts;
mod outlet;
mod resolve;
mod sensors;
mod sysctl;
mod view;

use std::sync::Arc;

use trueline_drift::{Actor, GapReason, Time};

pub use coverage::Coverage;
pub use outlet::SensorCounters;
pub use sensors::{Preference, SensorError, Sensors};
pub use view::View;

/// What a sensor tells the observer.
#[derive(Debug)]
pub enum Signal {
    Touched(Touch),
    Lost(Loss),
}

/// Something may have happened to an item.
#[derive(Debug)]
pub struct Touch {
    pub target: Target,
    pub at: Time,
    /// Who did it, where the sensor could tell.
    pub actor: Option<Arc<Actor>>,
    pub depth: Depth,
    /// The writer is done: the file was closed, or the operation was atomic.
    pub finished: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Target {
    /// An absolute path, in the host's own bytes.
    Path(Vec<u8>),
    /// A kernel setting, as in `net.ipv4.ip_forward`.
    Sysctl(String),
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
