//! The shape of a drift.

use serde::Serialize;
use trueline_drift::{Actor, DriftType, ItemId, Severity, Time, Transaction, Value, Verdict};
use trueline_store::{Acknowledged, DriftEvent, DriftRow, DriftState};
use utoipa::ToSchema;

use super::{ActorShape, TransactionShape, words};

/// An item's field that departs from its baseline.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Drift)]
pub struct DriftShape {
    pub id: i64,
    pub tenant: String,
    /// The host's identity.
    #[schema(format = Uuid)]
    pub host: String,
    pub host_name: String,
    #[schema(schema_with = words::item)]
    pub item: ItemId,
    /// `exists` stands for the item's being there at all.
    #[schema(example = "mode")]
    pub field: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = words::value, required = false)]
    pub expected: Option<Value>,
    /// Absent where the item does not have the field.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = words::value, required = false)]
    pub actual: Option<Value>,
    #[schema(schema_with = words::verdict)]
    pub verdict: Verdict,
    #[schema(schema_with = words::severity)]
    pub severity: Severity,
    #[serde(rename = "type")]
    #[schema(schema_with = words::drift_type)]
    pub drift_type: DriftType,
    #[schema(schema_with = words::drift_state)]
    pub state: DriftState,
    #[schema(schema_with = words::time)]
    pub opened_at: Time,
    #[schema(schema_with = words::time)]
    pub updated_at: Time,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = words::time, required = false)]
    pub resolved_at: Option<Time>,
    /// The change that opened or last explained it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub change: Option<i64>,
    /// Of that change.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<ActorShape>)]
    pub actor: Option<Actor>,
    /// Of that change: the innermost run that made it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<TransactionShape>)]
    pub transaction: Option<Transaction>,
    /// The change that resolved it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resolved_by: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub acknowledged: Option<AcknowledgedShape>,
    /// The package whose drift stands for this one now: the item is a part of it and equals its manifest. Absent where the drift
    /// stands for itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = words::package, required = false)]
    pub folded_under: Option<ItemId>,
    /// How many drifts are folded under this package now; each of its unresolved drifts says the same. Absent where it is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub folds: Option<u64>,
    /// What authorised it, by strength. Nothing is joined to drift yet: always empty.
    #[schema(value_type = Vec<Object>)]
    pub authorised_by: [(); 0],
    pub reasons: Vec<String>,
    /// In the event stream: what happened to it (`opened`, `updated`, `acknowledged`, `resolved`).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub event: Option<DriftEvent>,
}

/// That a person has seen it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Acknowledged)]
pub struct AcknowledgedShape {
    #[schema(schema_with = words::time)]
    pub at: Time,
    pub by: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

impl From<Acknowledged> for AcknowledgedShape {
    fn from(acknowledged: Acknowledged) -> Self {
        Self { at: acknowledged.at, by: acknowledged.by, note: acknowledged.note }
    }
}

impl From<DriftRow> for DriftShape {
    fn from(row: DriftRow) -> Self {
        let (change, actor, transaction) = match row.change {
            Some(change) => (Some(change.position.0), Some(change.actor), change.transaction),
            None => (None, None, None),
        };
        Self {
            id: row.id,
            tenant: row.tenant.0,
            host: row.host.to_string(),
            host_name: row.host_name,
            item: row.item,
            field: row.field.as_str().to_owned(),
            expected: row.expected,
            actual: row.actual,
            verdict: row.verdict,
            severity: row.severity,
            drift_type: row.drift_type,
            state: row.state,
            opened_at: row.opened_at,
            updated_at: row.updated_at,
            resolved_at: row.resolved_at,
            change,
            actor,
            transaction,
            resolved_by: row.resolved_by.map(|position| position.0),
            acknowledged: row.acknowledged.map(AcknowledgedShape::from),
            folded_under: row.folded_under,
            folds: Some(row.folds).filter(|folds| *folds > 0),
            authorised_by: [],
            reasons: row.reasons,
            event: None,
        }
    }
}
