//! The logs that the event stream joins.

use serde::{Deserialize, Serialize};

use super::{ChangeRow, DriftRow, GapRow};

/// A place in each of the logs that the event stream joins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct EventPosition {
    pub changes: i64,
    pub drift: i64,
    pub gaps: i64,
}

#[derive(Debug, Clone, Default)]
pub struct Events {
    pub changes: Vec<ChangeRow>,
    /// Each with its place in the drift log and what happened; the row is as it is now.
    pub drift: Vec<(i64, DriftEvent, DriftRow)>,
    pub gaps: Vec<GapRow>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DriftEvent {
    Opened,
    Updated,
    Acknowledged,
    Resolved,
}
