//! What judging and comparing read and write.

use trueline_drift::baseline::Expectation;
use trueline_drift::item::ItemFingerprint;
use trueline_drift::judge::{BaselineName, Judgement};
use trueline_drift::reconcile::OpenDrift;
use trueline_drift::{Change, Fields, HostId, ItemId, Time};

use super::Position;

/// What judging rests on, as it was read: it counts only if neither moved meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct JudgeCursor {
    pub position: Position,
    /// Grows whenever a host is held against another baseline.
    pub assignments: i64,
}

#[derive(Debug, Clone)]
pub struct JudgeInput {
    /// The cursor as read: hand it back in [`JudgeOutput`].
    pub from: JudgeCursor,
    pub changes: Vec<UnjudgedChange>,
}

#[derive(Debug, Clone)]
pub struct UnjudgedChange {
    pub position: Position,
    pub host: HostId,
    pub item_row: i64,
    pub change: Change,
    pub received_at: Time,
    /// The host's baseline and what it says of the item; absent where the host has none.
    pub baseline: Option<(BaselineName, Expectation)>,
    /// Drifts open for the item when it was read, at the first change of the item in the input: the judge keeps account of
    /// what its changes do to them.
    pub open: Vec<OpenDrift>,
}

impl UnjudgedChange {
    /// When it came about, as far as the collector can answer for it: a host's clock may be ahead, and nothing is received
    /// before it happens.
    pub fn happened_at(&self) -> Time {
        self.change.observed_at.min(self.received_at)
    }
}

#[derive(Debug, Clone)]
pub struct JudgeOutput {
    pub from: JudgeCursor,
    pub to: Position,
    pub judgements: Vec<(Position, Judgement)>,
    pub drift: Vec<DriftWrite>,
}

/// One step of one drift, in the order in which it must be written.
#[derive(Debug, Clone)]
pub struct DriftWrite {
    pub host: HostId,
    pub item: ItemId,
    /// Where known; otherwise the item is found or made by its fingerprint.
    pub item_row: Option<i64>,
    pub at: Time,
    /// The change that made this step, where one did.
    pub change: Option<Position>,
    pub step: trueline_drift::reconcile::Step,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostToCompare {
    pub host: HostId,
    pub baseline: Option<(i64, BaselineName)>,
    pub generation: i64,
}

/// What comparing a page came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compared {
    /// More items follow after this one.
    UpTo(ItemFingerprint),
    End,
    /// The host is held against something else by now, or its inventory began anew: it is due again.
    Superseded,
    /// The host has changes that are not judged: the same page, once they are.
    Unjudged,
}

#[derive(Debug, Clone)]
pub struct CompareRow {
    pub fingerprint: ItemFingerprint,
    pub item: ItemId,
    pub item_row: Option<i64>,
    pub state: KnownState,
    pub expectation: Expectation,
    pub open: Vec<OpenDrift>,
}

/// What is known of an item as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KnownState {
    There(Fields),
    /// It is not on the host.
    Missing,
    /// It is in view no longer: it may be as it was, or not.
    Unwatched,
}
