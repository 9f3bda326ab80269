//! Drift.

use serde::{Deserialize, Serialize};
use trueline_drift::item::ItemFingerprint;
use trueline_drift::{Actor, DriftType, FieldName, HostId, ItemId, ItemKind, Severity, TenantId, Time, Transaction, Value, Verdict};

use super::Position;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DriftState {
    Open,
    Acknowledged,
    Resolved,
}

/// The change that opened a drift or last explained it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    pub position: Position,
    pub actor: Actor,
    pub transaction: Option<Transaction>,
}

#[derive(Debug, Clone, Default)]
pub struct DriftFilter {
    pub host: Option<HostId>,
    pub item: Option<ItemId>,
    pub kind: Option<ItemKind>,
    pub state: Option<DriftState>,
    /// Open or acknowledged.
    pub unresolved: bool,
    pub verdict: Option<Verdict>,
    pub severity: Option<Severity>,
    pub folded: Folded,
}

/// What a listing does with drift that is folded under its package's.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Folded {
    /// The package's drift stands for it.
    #[default]
    LeftOut,
    Listed,
    /// Nothing else is listed.
    Only,
    /// Nothing is listed but what is folded under this package.
    Under(ItemId),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DriftRow {
    pub id: i64,
    pub tenant: TenantId,
    pub host: HostId,
    pub host_name: String,
    pub item: ItemId,
    pub field: FieldName,
    pub expected: Option<Value>,
    pub actual: Option<Value>,
    pub verdict: Verdict,
    pub severity: Severity,
    pub drift_type: DriftType,
    pub state: DriftState,
    pub reasons: Vec<String>,
    pub opened_at: Time,
    pub updated_at: Time,
    pub resolved_at: Option<Time>,
    pub change: Option<Explanation>,
    /// The change that resolved it.
    pub resolved_by: Option<Position>,
    pub acknowledged: Option<Acknowledged>,
    /// The package that its item is a part of.
    pub part_of: Option<ItemFingerprint>,
    /// The package whose drift stands for it now: it is unresolved, its item is a part of that package, and the package has
    /// unresolved drift of its own.
    pub folded_under: Option<ItemId>,
    /// How many drifts are folded under this package now; each of its unresolved drifts has them all.
    pub folds: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acknowledged {
    pub at: Time,
    pub by: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}
