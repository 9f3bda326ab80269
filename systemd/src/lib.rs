//! What it takes to be a service under systemd, for the agent and the collector alike.
//!
//! Plain blocking I/O on datagram sockets, each call bounded in time: no runtime, no threads. Elsewhere (a
//! terminal, a container, a test) every part of it does nothing or falls back, so that callers need not ask.

pub mod journal;
pub mod notify;
pub mod owner;
pub mod watchdog;
