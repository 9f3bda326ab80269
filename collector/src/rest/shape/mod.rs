//! The JSON shapes of the API, the same in REST, events, the command line and `watch --json`.
//!
//! A value that is not known is left out, except `before` and `after` of a changed field, which are
//! null where the item did not have it. Times are RFC 3339, UTC, with microseconds.

mod actor;
mod baseline;
mod candidate;
mod change;
mod drift;
mod host;
mod lines;
mod words;

pub use actor::{ActorShape, TransactionShape};
pub use baseline::{BaselineItemShape, BaselineShape, ScopeShape, UnwatchedShape};
pub use candidate::CandidatesShape;
pub use change::{ChangeShape, FieldShape};
pub use drift::{AcknowledgedShape, DriftShape};
pub use host::{CoverageShape, FactsShape, HostCoverageShape, HostShape, HostState, ItemShape, SILENT_AFTER_SECONDS, state_of};
pub use lines::LinesShape;
pub use words::{standing_of, value};

use serde::Serialize;
use trueline_drift::Time;
use trueline_store::{Action, Listed, Role, Token, TokenKind};
use utoipa::ToSchema;

/// A page of a list.
#[derive(Debug, Serialize)]
pub struct List<T> {
    pub items: Vec<T>,
    /// Opaque: `after` of the next page. Absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

impl<T> List<T> {
    pub fn of<R>(listed: Listed<R>, shape: impl FnMut(R) -> T) -> Self {
        Self { items: listed.items.into_iter().map(shape).collect(), next: listed.next }
    }
}

pub const fn role(role: Role) -> &'static str {
    match role {
        Role::Viewer => "viewer",
        Role::Operator => "operator",
        Role::Admin => "admin",
    }
}

/// A token, without its text: that is shown once, when it is made.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Token)]
pub struct TokenShape {
    pub id: i64,
    pub tenant: String,
    #[schema(schema_with = words::token_kind)]
    pub kind: TokenKind,
    #[schema(schema_with = words::role)]
    pub role: Role,
    pub name: String,
    /// Whether it may be used: `good`, `expired`, `used_up`, `revoked`.
    #[schema(schema_with = words::standing)]
    pub standing: &'static str,
    #[schema(schema_with = words::time)]
    pub created_at: Time,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = words::time, required = false)]
    pub expires_at: Option<Time>,
    /// Absent where its uses are not counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uses_left: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = words::time, required = false)]
    pub revoked_at: Option<Time>,
    /// The token itself. Only in the answer that made it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
}

impl TokenShape {
    pub fn of(token: Token, now: Time) -> Self {
        Self {
            standing: standing_of(token.standing(now)),
            id: token.id,
            tenant: token.tenant.0,
            kind: token.kind,
            role: token.role,
            name: token.name,
            created_at: token.created_at,
            expires_at: token.expires_at,
            uses_left: token.uses_left,
            revoked_at: token.revoked_at,
            token: None,
        }
    }
}

/// Something the product or an operator did.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Action)]
pub struct ActionShape {
    pub id: i64,
    #[schema(schema_with = words::time)]
    pub at: Time,
    /// `token:NAME`, `session:NAME`, `collector`, `host:ID`.
    #[schema(example = "token:alice")]
    pub actor: String,
    #[schema(example = "baseline.capture")]
    pub action: String,
    pub subject: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

impl From<Action> for ActionShape {
    fn from(action: Action) -> Self {
        let Action { id, at, actor, action, subject, detail } = action;
        Self { id, at, actor, action, subject, detail }
    }
}

/// Something that is wrong with a part of the collector now.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Trouble)]
pub struct TroubleShape {
    #[schema(example = "database")]
    pub part: &'static str,
    #[schema(schema_with = words::time)]
    pub since: Time,
    pub reason: String,
}

/// Counts of the tenant's hosts, changes and drift.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Summary)]
pub struct SummaryShape {
    /// The counts of changes and gaps begin here.
    #[schema(schema_with = words::time)]
    pub since: Time,
    pub hosts: u64,
    /// Streams open to this collector now.
    pub connected: u64,
    /// Items watched on all hosts.
    pub items: u64,
    /// Changes received since, by verdict.
    pub expected: u64,
    pub out_of_scope: u64,
    pub notable: u64,
    pub critical: u64,
    /// Drift open or acknowledged that is not folded under its package's.
    pub open_drifts: u64,
    pub open_critical: u64,
    /// Drift open or acknowledged that is folded.
    pub folded_drifts: u64,
    pub gaps: u64,
    pub troubles: Vec<TroubleShape>,
}
