//! Hooks on the operations on files themselves: the programs of agent/bpf/files.bpf.c in the kernel, and the ring in which they
//! tell which process did what, at the moment when it did it.
//!
//! Each hook is attached by itself, and what it is refused for is kept: one that is missing takes nothing from the others. They
//! tell of what succeeded, of entries of the folders that were named to them, and of what makes no file event everywhere. A record
//! that was lost is counted by [`FileProbe::dropped`]. Nothing here judges; [`record::decode`] is pure and takes any bytes.
//!
//! Needs what the process feed needs, and a kernel that lets programs be attached to its functions (fentry: Linux 5.5 on x86-64,
//! 6.4 on arm64).

use std::io;

use super::process_probe::{Hook, refusals};

#[cfg(not(process_probe))]
mod absent;
#[cfg(process_probe)]
mod attached;
pub mod record;
#[cfg(test)]
#[cfg(process_probe)]
mod tests;

#[cfg(not(process_probe))]
pub use absent::FileProbe;
#[cfg(process_probe)]
pub use attached::FileProbe;

/// Folders whose entries can be told of.
pub const FOLDERS: usize = 1024;

#[derive(Debug, thiserror::Error)]
pub enum FileProbeError {
    #[error("this agent has no eBPF hooks on files: {0}")]
    NotBuilt(&'static str),
    #[error("reading the kernel's own types (/sys/kernel/btf/vmlinux): {0}")]
    Types(String),
    #[error("reading the agent's pid namespace: {0}")]
    Namespace(io::Error),
    #[error("starting the thread that loads the hooks on files: {0}")]
    Thread(io::Error),
    #[error("loading the hooks on files: {0}")]
    Load(String),
    #[error("mapping the ring of the hooks on files: {0}")]
    Ring(io::Error),
    #[error("attaching hooks on files: {}", refusals(.0))]
    Attach(Vec<Hook>),
}
