//! What an agent says of a file system beside what is really there, while both are put under stress.
//!
//! Invariant: nothing here asks the agent's code what the disk holds.

pub mod disk;
pub mod operation;
pub mod volume;
pub mod watching;
