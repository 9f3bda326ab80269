//! Baselines.

use serde::{Deserialize, Serialize};
use trueline_drift::baseline::{ClosedScope, ExpectedItem};
use trueline_drift::judge::BaselineName;
use trueline_drift::{HostId, ItemId, TenantId, Time};

#[derive(Debug, Clone)]
pub struct NewCapture {
    pub tenant: TenantId,
    pub host: HostId,
    pub name: String,
    /// Empty means everything the host reports: every kind is closed.
    pub scopes: Vec<ClosedScope>,
    pub by: String,
    pub at: Time,
    /// Hold the host against it at once.
    pub assign: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Baseline {
    pub id: i64,
    pub name: BaselineName,
    pub origin: BaselineOrigin,
    /// Listed items should have no optional field that is not listed.
    pub whole: bool,
    pub items: u64,
    pub closed: Vec<ClosedScope>,
    pub created_at: Time,
    pub created_by: String,
    pub hosts: u64,
}

/// What a baseline says of one item that it lists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaselineItem {
    pub item: ItemId,
    pub expected: ExpectedItem,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BaselineOrigin {
    /// Copied from a host; [`trueline_drift::baseline::captured`] says which fields count.
    Captured,
    Written,
}
