//! Stands for the hooks in an agent that was built without them.

use std::convert::Infallible;
use std::os::fd::{AsFd, BorrowedFd};

use super::FileProbeError;
use super::record::Operation;
use crate::kernel::file::Inode;
use crate::kernel::process_probe::{Drained, Hook};

/// There are none.
#[derive(Debug)]
pub struct FileProbe(Infallible);

impl FileProbe {
    pub fn start() -> Result<Self, FileProbeError> {
        Err(FileProbeError::NotBuilt(env!("TRUELINE_PROCESS_PROBE_ABSENT")))
    }

    pub fn hooks(&self) -> &[Hook] {
        match self.0 {}
    }

    pub fn follow(&mut self, _: &[Inode]) -> Result<(), String> {
        match self.0 {}
    }

    pub fn drain(&mut self, _: &mut dyn FnMut(Operation)) -> Drained {
        match self.0 {}
    }

    pub fn dropped(&self) -> u64 {
        match self.0 {}
    }
}

impl AsFd for FileProbe {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self.0 {}
    }
}
