//! Counts.

use serde::{Deserialize, Serialize};

/// Changes judged and drift open, for the head of the console.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Summary {
    pub hosts: u64,
    /// Items watched on all hosts.
    pub items: u64,
    /// Of changes received since the given time, by verdict.
    pub expected: u64,
    pub out_of_scope: u64,
    pub notable: u64,
    pub critical: u64,
    /// Unresolved drift that is not folded under its package's.
    pub open_drifts: u64,
    pub open_critical: u64,
    /// Unresolved drift that is: with the other it is all there is.
    pub folded_drifts: u64,
    pub gaps: u64,
}
