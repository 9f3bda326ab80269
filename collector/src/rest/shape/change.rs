//! The shape of a change.

use serde::Serialize;
use trueline_drift::change::ChangeKind;
use trueline_drift::format::lines::Lines;
use trueline_drift::{Actor, Candidates, Cause, FieldChange, ItemId, Time, Transaction, Value, Verdict};
use trueline_store::ChangeRow;
use utoipa::ToSchema;

use super::{ActorShape, CandidatesShape, LinesShape, TransactionShape, words};

/// A transition of one item.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Change)]
pub struct ChangeShape {
    pub id: i64,
    pub tenant: String,
    /// The host's identity.
    #[schema(format = Uuid)]
    pub host: String,
    pub host_name: String,
    pub epoch: u64,
    pub sequence: u64,
    #[schema(schema_with = words::item)]
    pub item: ItemId,
    #[schema(schema_with = words::change_kind)]
    pub kind: ChangeKind,
    /// What made the agent look.
    #[schema(schema_with = words::cause)]
    pub cause: Cause,
    pub fields: Vec<FieldShape>,
    /// The reading before: it happened after this.
    #[schema(schema_with = words::time)]
    pub observed_after: Time,
    #[schema(schema_with = words::time)]
    pub observed_at: Time,
    #[schema(schema_with = words::time)]
    pub received_at: Time,
    #[schema(value_type = ActorShape)]
    pub actor: Actor,
    /// The innermost run that made it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<TransactionShape>)]
    pub transaction: Option<Transaction>,
    /// The package that came or changed with this and whose manifest the item now equals, or no longer lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = words::package, required = false)]
    pub shipped_by: Option<ItemId>,
    /// Who may have made it, where the actor is unknown.
    #[serde(skip_serializing_if = "Candidates::is_empty")]
    #[schema(value_type = Option<CandidatesShape>)]
    pub candidates: Candidates,
    /// In which lines a file differs that is not told by its settings. Absent where what it held before is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<LinesShape>)]
    pub lines: Option<Lines>,
    /// Absent until it is judged.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = words::verdict, required = false)]
    pub verdict: Option<Verdict>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reasons: Option<Vec<String>>,
}

/// One field's transition.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = FieldChange)]
pub struct FieldShape {
    #[schema(example = "mode")]
    pub name: String,
    #[schema(schema_with = words::value_or_null, required)]
    pub before: Option<Value>,
    #[schema(schema_with = words::value_or_null, required)]
    pub after: Option<Value>,
}

impl From<FieldChange> for FieldShape {
    fn from(field: FieldChange) -> Self {
        Self { name: field.name.as_str().to_owned(), before: field.before, after: field.after }
    }
}

impl From<ChangeRow> for ChangeShape {
    fn from(row: ChangeRow) -> Self {
        let change = row.change;
        let (verdict, reasons) = match row.judgement {
            Some(judgement) => (Some(judgement.verdict), Some(judgement.reasons)),
            None => (None, None),
        };
        Self {
            id: row.position.0,
            tenant: row.tenant.0,
            host: row.host.to_string(),
            host_name: row.host_name,
            epoch: row.epoch.0,
            sequence: row.sequence.0,
            item: change.item,
            kind: change.kind,
            cause: change.cause,
            fields: change.fields.into_iter().map(FieldShape::from).collect(),
            observed_after: change.observed_after,
            observed_at: change.observed_at,
            received_at: row.received_at,
            actor: change.actor,
            transaction: change.transaction,
            shipped_by: change.shipped_by,
            candidates: change.candidates,
            lines: change.lines,
            verdict,
            reasons,
        }
    }
}
