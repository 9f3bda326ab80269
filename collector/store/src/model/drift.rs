//! Drift.

use serde::{Deserialize, Serialize};
use trueline_drift::{Actor, DriftType, FieldName, HostId, ItemId, ItemKind, Severity, TenantId, Time, Value, Verdict};

use super::Position;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DriftState {
    Open,
    Acknowledged,
    Resolved,
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
    /// The change that opened or last explained it, with its actor.
    pub change: Option<(Position, Actor)>,
    /// The change that resolved it.
    pub resolved_by: Option<Position>,
    pub acknowledged: Option<Acknowledged>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acknowledged {
    pub at: Time,
    pub by: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}
