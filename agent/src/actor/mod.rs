//! From a process id to the actor behind a change.
//!
//! What is said of a process was read while it held its pid; where that cannot be shown, the actor is
//! unknown and says why. What names the process (`known`, `reader`) runs on the sensors' threads and blocks on nothing but
//! /proc and /etc/passwd: no name service. What makes it a whole chain (`complete`: login, digests, sudo, transaction) runs on the
//! observer's, and what that may have to wait for, on threads of its own.

pub mod candidates;
mod chain;
pub mod complete;
pub mod digest;
pub(crate) mod folder;
pub mod genuine;
pub mod image;
mod known;
pub(crate) mod leader;
pub mod login;
pub mod placement;
pub mod procfs;
mod reader;
pub(crate) mod users;

pub use reader::ActorReader;
