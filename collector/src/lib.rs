//! The collector: takes in the changes of a fleet, judges them against baselines, keeps what
//! follows, and shows it.
//!
//! ingest -> store -> judge -> dispatch -> deliver; beside them the CA, enrolment, REST and console.
//! Everything that a request needs hangs on one [`hub::Hub`]; background work is a set of idempotent
//! tasks that run on a bell and on a timer, so that a lost bell heals itself.

pub mod allowance;
pub mod arguments;
pub mod ca;
pub mod compare;
pub mod config;
pub mod console;
pub mod enrolment;
pub mod http;
pub mod hub;
pub mod ingest;
pub mod judge;
pub mod link;
pub mod pulse;
pub mod rest;
pub mod running;
pub mod serve;
pub mod service;
pub mod tasks;
pub mod tls;
pub mod token;
