//! Stands for the process feed in an agent that was built without it.

use std::convert::Infallible;
use std::os::fd::{AsFd, BorrowedFd};

use super::{Drained, Hook, ProbeError};
use crate::process::event::ProcessEvent;

/// There is none.
#[derive(Debug)]
pub struct ProcessProbe(Infallible);

impl ProcessProbe {
    pub fn start() -> Result<Self, ProbeError> {
        Err(ProbeError::NotBuilt(env!("TRUELINE_PROCESS_PROBE_ABSENT")))
    }

    pub fn show_queue(&mut self, _: BorrowedFd<'_>) {
        match self.0 {}
    }

    pub fn hooks(&self) -> &[Hook] {
        match self.0 {}
    }

    pub fn drain(&mut self, _: impl FnMut(ProcessEvent)) -> Drained {
        match self.0 {}
    }

    pub fn dropped(&self) -> u64 {
        match self.0 {}
    }

    pub fn missed(&self) -> u64 {
        match self.0 {}
    }
}

impl AsFd for ProcessProbe {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self.0 {}
    }
}
