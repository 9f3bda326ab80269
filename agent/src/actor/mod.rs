//! From a process id to the actor behind a change.
//!
//! What is said of a process was read while it held its pid; where that cannot be shown, the actor is
//! unknown and says why. Nothing here blocks on anything but /proc and /etc/passwd: no name service.

pub mod placement;
pub mod procfs;
mod reader;
mod users;

pub use reader::ActorReader;
