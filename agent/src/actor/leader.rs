//! Whether the process that leads a run is still there.
//!
//! Invariant: a process that was given the same pid since is never taken for it.

use trueline_drift::Time;

use super::folder::ProcessFolder;
use super::reader::booted_at;

/// The clock may have been set since the time was told; within this no pid is used again.
const CLOCKS: i64 = 2_000_000;

/// A process that was found alive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Leader {
    pid: u32,
    /// Clock ticks after the boot.
    started: u64,
}

impl Leader {
    /// `None` where it has ended.
    pub fn find(pid: u32, started_at: Time) -> Option<Self> {
        let started = started(pid)?;
        let per_second = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK).ok().flatten().unwrap_or(100).max(1);
        let after_boot = i64::try_from(u128::from(started) * 1_000_000 / u128::from(per_second.unsigned_abs())).ok()?;
        let apart = booted_at().plus_micros(after_boot).micros_since(started_at);
        (apart.abs() <= CLOCKS).then_some(Self { pid, started })
    }

    pub fn is_alive(self) -> bool {
        started(self.pid) == Some(self.started)
    }
}

fn started(pid: u32) -> Option<u64> {
    ProcessFolder::open(pid)?.stat().filter(|(stat, _)| !stat.is_ended).map(|(stat, _)| stat.started)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;
    use std::process::Command;

    #[test]
    fn a_leader_is_alive_until_it_has_ended_and_another_of_its_pid_is_not_it() {
        let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
        let now = clock::now();
        let leader = Leader::find(child.id(), now).unwrap();
        assert!(leader.is_alive());
        assert_eq!(Leader::find(child.id(), now.plus_seconds(-3600)), None);
        assert!(!Leader { started: leader.started + 1, ..leader }.is_alive());
        child.kill().unwrap();
        // Nobody has asked how it ended.
        let is_over = || ProcessFolder::open(child.id()).unwrap().stat().unwrap().0.is_ended;
        while !is_over() {
            std::thread::yield_now();
        }
        assert!(!leader.is_alive());
        child.wait().unwrap();
        assert!(!leader.is_alive());
        assert_eq!(Leader::find(child.id(), now), None);
    }
}
