//! A fleet of real hosts for tests: Debian with systemd as PID 1, an ext4 file system and a network of
//! its own each, with sshd, PAM, sudo, cron and dpkg.
//!
//! Invariants: hosts of several runs stand beside each other without knowing of it; nothing of a run
//! outlives it, however it ends (see [`keeper`]). Nothing here stands in for a part of a host.

pub mod ansible;
pub mod archive;
pub mod boot_slot;
pub mod cgroup;
pub mod claim;
pub mod collector;
pub mod fleet;
pub mod guest;
pub mod host;
pub mod image;
pub mod keeper;
pub mod needs;
pub mod network;
pub mod packages;
pub mod room;
pub mod root;
pub mod scene;
pub mod story;
pub mod teardown;
pub mod tool;
