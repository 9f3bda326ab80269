//! The binary as its users run it: as a process, on its output and exit code.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its fixtures too")]

mod check;
mod command_line;
mod quickstart;
mod running;
mod transactions;
