//! The only room with `unsafe`: safe types over the system calls that no well-kept crate wraps.
//!
//! Every block states why it is sound. Nothing here decides anything; it asks the kernel and
//! returns what it said.
#![allow(unsafe_code)]

pub mod capability;
pub mod change;
pub mod connector;
pub mod environment;
pub mod fanotify;
pub mod file;
pub mod file_probe;
pub mod handle;
pub mod memory;
pub mod netfilter;
mod netlink;
pub mod pidfd;
pub mod process_probe;
pub mod rtnetlink;
pub mod thread;
pub mod xtables;
