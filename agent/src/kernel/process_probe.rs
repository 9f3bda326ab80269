//! The exact process feed: the programs of agent/bpf/ in the kernel, and the ring in which they tell of processes.
//!
//! What they tell was taken in the kernel before the process could do anything more, in the kernel's order. Nobody is woken for it: who
//! needs to know drains the ring. A record for which there was no room is counted by [`ProcessProbe::dropped`] and is not
//! told again. Nothing here judges; [`record::decode`] is pure and takes any bytes.
//!
//! Needs CAP_BPF and CAP_PERFMON, or CAP_SYS_ADMIN, in the first user namespace; the kernel's description of its own types
//! (`/sys/kernel/btf/vmlinux`); Linux 5.8; before 5.11 a sufficient RLIMIT_MEMLOCK; and a build with clang.

use std::io;

#[cfg(not(process_probe))]
mod absent;
#[cfg(process_probe)]
pub(in crate::kernel) mod attached;
pub mod record;
#[cfg(process_probe)]
pub(in crate::kernel) mod ring;
#[cfg(test)]
#[cfg(process_probe)]
mod tests;

#[cfg(not(process_probe))]
pub use absent::ProcessProbe;
#[cfg(process_probe)]
pub use attached::ProcessProbe;

#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    #[error("this agent has no eBPF process feed: {0}")]
    NotBuilt(&'static str),
    #[error("reading the kernel's own types (/sys/kernel/btf/vmlinux): {0}")]
    Types(String),
    #[error("reading the agent's pid namespace: {0}")]
    Namespace(io::Error),
    #[error("starting the thread that loads the eBPF process feed: {0}")]
    Thread(io::Error),
    #[error("loading the eBPF process feed: {0}")]
    Load(String),
    #[error("mapping the ring of the eBPF process feed: {0}")]
    Ring(io::Error),
    /// All three are needed: a table that misses forks, programs or ends is worse than none.
    #[error("attaching the eBPF process feed: {}", refusals(.0))]
    Attach(Vec<Hook>),
}

/// One place in the kernel that tells of processes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hook {
    pub name: &'static str,
    /// Why it tells nothing.
    pub refused: Option<String>,
}

pub(in crate::kernel) fn refusals(hooks: &[Hook]) -> String {
    let told = hooks.iter().filter_map(|hook| hook.refused.as_ref().map(|reason| format!("{}: {reason}", hook.name)));
    told.collect::<Vec<_>>().join("; ")
}

/// How far [`ProcessProbe::drain`] came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Drained {
    /// All that was told before the call.
    All,
    /// A record told before the call is still being written, and what came after it waits behind it.
    Partly,
}
