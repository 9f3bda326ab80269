//! The log of changes.

use serde::{Deserialize, Serialize};
use trueline_drift::actor::SessionId;
use trueline_drift::judge::Judgement;
use trueline_drift::transaction::TransactionId;
use trueline_drift::{Change, Epoch, HostId, ItemId, ItemKind, Sequence, TenantId, Time, Verdict};

/// The place of a change in the collector's one log; also the change's id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Position(pub i64);

#[derive(Debug, Clone, Default)]
pub struct ChangeFilter {
    pub host: Option<HostId>,
    pub item: Option<ItemId>,
    pub kind: Option<ItemKind>,
    pub verdict: Option<Verdict>,
    /// By a process of this login.
    pub session: Option<SessionId>,
    /// Made in this run, or in a run within it.
    pub transaction: Option<TransactionId>,
    /// Received then or later.
    pub since: Option<Time>,
    /// Received before.
    pub until: Option<Time>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangeRow {
    pub position: Position,
    pub tenant: TenantId,
    pub host: HostId,
    pub host_name: String,
    pub epoch: Epoch,
    pub sequence: Sequence,
    pub received_at: Time,
    pub change: Change,
    /// Absent until judged.
    pub judgement: Option<Judgement>,
}
