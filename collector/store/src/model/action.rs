//! What the product and its operators did.

use serde::Serialize;
use trueline_drift::{TenantId, Time};

/// Something the product or an operator did, to whom it belongs and what it touched.
#[derive(Debug, Clone)]
pub struct NewAction {
    pub tenant: TenantId,
    pub at: Time,
    /// `token:NAME`, `collector`, `host:ID`.
    pub actor: String,
    /// `token.create`, `host.revoke`, `baseline.capture`.
    pub action: String,
    pub subject: String,
    pub detail: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Action {
    pub id: i64,
    pub at: Time,
    pub actor: String,
    pub action: String,
    pub subject: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}
