//! What tests and benchmarks need that spans crates: the real daemons as processes, a simulated
//! fleet over real mutual TLS, databases, file trees, and the reading of /proc.
//!
//! Nothing here stands in for our own code: a daemon is always the built binary, a simulated agent
//! always speaks the real protocol. What a machine lacks is reported by [`needs`], never passed over.

pub mod agent;
pub mod aide;
pub mod binaries;
pub mod bounded_disk;
pub mod cluster;
pub mod collector;
pub mod content;
pub mod daemon;
pub mod database;
pub mod database_floor;
pub mod disk_floor;
pub mod docs;
pub mod figures;
pub mod fleet;
pub mod needs;
pub mod numbered;
pub mod process;
pub mod processor_share;
pub mod rest;
pub mod scene;
pub mod state;
pub mod tls;
pub mod tree;
pub mod truth;
pub mod wait;
