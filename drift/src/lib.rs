//! The domain of Trueline: what an item, a change, an actor, a baseline and a drift are, and how
//! one is decided from another.
//!
//! Everything here is a function from values to values. There is no clock, no file, no network and
//! no database: time, randomness and identity arrive as arguments, so that every decision can be
//! replayed from a text file. Reading hosts is the agent's work, keeping state the collector's.

pub mod actor;
pub mod baseline;
pub mod candidate;
pub mod change;
pub mod coverage;
pub mod diff;
pub mod document;
pub mod firewall;
pub mod format;
pub mod host;
pub mod item;
pub mod judge;
pub mod kind;
pub mod netlink;
pub mod network;
pub mod operation;
pub mod pattern;
pub mod permissions;
pub mod reconcile;
pub mod redact;
pub mod sensitivity;
pub mod text;
pub mod time;
pub mod transaction;
pub mod value;
pub mod watch;

pub use actor::{Actor, Certainty};
pub use candidate::Candidates;
pub use change::{Cause, Change, Epoch, FieldChange, Observation, Record, RecordBody, Sequence};
pub use coverage::{CoverageGap, GapReason};
pub use host::{BootId, Facts, HostId, TenantId};
pub use item::{ItemId, ItemKey};
pub use judge::{Judgement, Verdict};
pub use kind::ItemKind;
pub use operation::{Operation, OperationCoverage};
pub use sensitivity::{DriftType, Severity};
pub use time::Time;
pub use transaction::Transaction;
pub use value::{FieldName, Fields, Value};
