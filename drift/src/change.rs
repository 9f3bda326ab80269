//! What an agent reports: observations, changes, and the numbered records that carry them.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::format::lines::Lines;
use crate::transaction::Transaction;
use crate::{Actor, Candidates, CoverageGap, FieldName, Fields, ItemId, Time, Value};

/// Numbers an agent's records from 1 without holes within one epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Sequence(pub u64);

impl Sequence {
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }

    pub const fn plus(self, count: u64) -> Self {
        Self(self.0 + count)
    }
}

impl fmt::Display for Sequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// The life of one spool. A spool made anew (first enrolment, lost disk) has a greater epoch, so
/// that its numbers cannot be taken for those of the old one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Epoch(pub u64);

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// An item's fields as read at a time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observation {
    pub item: ItemId,
    pub fields: Fields,
    pub observed_at: Time,
}

/// One field's transition. `before` absent: the item did not have it. `after` absent: it is gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FieldChange {
    pub name: FieldName,
    pub before: Option<Value>,
    pub after: Option<Value>,
}

/// What made the agent look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// A sensor reported the item.
    Event,
    /// A scan found it: after a restart, an overflow, a request, or on schedule.
    Rescan,
}

/// A transition of one item, between two readings of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    pub item: ItemId,
    pub kind: ChangeKind,
    /// Never empty, sorted by name.
    pub fields: Vec<FieldChange>,
    /// The fields that stayed as they were. Together with every `after` this is the whole item, so
    /// that a collector that missed something is right again at the item's next change.
    #[serde(skip)]
    pub unchanged: Fields,
    /// The reading before: the change happened after this.
    pub observed_after: Time,
    pub observed_at: Time,
    pub cause: Cause,
    pub actor: Actor,
    /// The innermost run (of a package manager, a configuration manager, a job) that made this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transaction: Option<Transaction>,
    /// The package that came or changed with this and whose own manifest the item now equals, or no longer lists: the
    /// change is a part of that package's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shipped_by: Option<ItemId>,
    /// Who may have made it, where nobody was seen to. Never the actor.
    #[serde(default, skip_serializing_if = "Candidates::is_empty")]
    pub candidates: Candidates,
    /// In which lines the text of a file differs whose contents are not told as settings. Absent where what it held before is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lines: Option<Lines>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChangeKind {
    Created,
    Modified,
    Removed,
}

impl ChangeKind {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Modified => "modified",
            Self::Removed => "removed",
        }
    }
}

impl Change {
    /// The whole item after the change; `None` once it is gone.
    pub fn after(&self) -> Option<Fields> {
        if self.kind == ChangeKind::Removed {
            return None;
        }
        let mut fields = self.unchanged.clone();
        for field in &self.fields {
            if let Some(after) = &field.after {
                fields.set(field.name.clone(), after.clone());
            }
        }
        Some(fields)
    }
}

/// One entry of an agent's spool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    pub sequence: Sequence,
    pub body: RecordBody,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecordBody {
    /// First sight of an item: state, not a change.
    Observed(Observation),
    Changed(Box<Change>),
    Gap(CoverageGap),
    /// The item is in view no longer: what it is from here on is not known, which is not to say that it is gone.
    Unwatched {
        item: ItemId,
        observed_at: Time,
    },
    /// Every item of the watch list has been observed: from here on what is missing is absent.
    InventoryComplete {
        items: u64,
        observed_at: Time,
    },
}
