//! The agent: watches one host and streams its changes, each with its actor.
//!
//! sensors -> settle -> collect and redact -> diff -> spool -> link. An event is only a hint to look
//! again; the value always comes from reading the item.

pub mod actor;
pub mod alone;
pub mod arguments;
pub mod clock;
pub mod collect;
pub mod config;
pub mod enrol;
pub mod facts;
pub mod identity;
pub mod kernel;
pub mod link;
pub mod mount_table;
pub mod observer;
pub mod process;
pub mod run;
pub mod scan;
pub mod sensor;
pub mod service;
pub mod spool;
pub mod state;
pub mod status;
#[cfg(test)]
mod testing;
