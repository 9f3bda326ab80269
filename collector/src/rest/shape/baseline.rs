//! The shape of a baseline.

use serde::{Deserialize, Serialize};
use trueline_drift::baseline::{ClosedScope, ExpectedItem};
use trueline_drift::pattern::Pattern;
use trueline_drift::{ItemId, ItemKind, Time};
use trueline_store::{Baseline, BaselineItem, BaselineOrigin};
use utoipa::ToSchema;

use super::words;

/// One version of a baseline.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Baseline)]
pub struct BaselineShape {
    pub id: i64,
    pub name: String,
    pub version: u64,
    #[schema(schema_with = words::baseline_origin)]
    pub origin: BaselineOrigin,
    /// Of a listed item, no optional field (an ACL, capabilities, members) should be there that is not listed.
    pub whole: bool,
    /// Items it speaks of.
    pub items: u64,
    pub closed: Vec<ScopeShape>,
    #[schema(schema_with = words::time)]
    pub created_at: Time,
    pub created_by: String,
    /// Hosts held against it.
    pub hosts: u64,
}

/// A part of a host in which everything that should exist is listed.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ClosedScope)]
pub struct ScopeShape {
    #[schema(schema_with = words::item_kind)]
    pub kind: ItemKind,
    /// A pattern over item keys: `*` within a path segment, `**` over segments.
    #[schema(value_type = String, example = "/etc/**")]
    pub keys: Pattern,
}

impl From<ClosedScope> for ScopeShape {
    fn from(scope: ClosedScope) -> Self {
        Self { kind: scope.kind, keys: scope.keys }
    }
}

impl From<ScopeShape> for ClosedScope {
    fn from(scope: ScopeShape) -> Self {
        Self { kind: scope.kind, keys: scope.keys }
    }
}

impl From<Baseline> for BaselineShape {
    fn from(baseline: Baseline) -> Self {
        Self {
            id: baseline.id,
            name: baseline.name.name,
            version: baseline.name.version,
            origin: baseline.origin,
            whole: baseline.whole,
            items: baseline.items,
            closed: baseline.closed.into_iter().map(ScopeShape::from).collect(),
            created_at: baseline.created_at,
            created_by: baseline.created_by,
            hosts: baseline.hosts,
        }
    }
}

/// What a baseline says of one item.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = BaselineItem)]
pub struct BaselineItemShape {
    #[schema(schema_with = words::item)]
    pub item: ItemId,
    /// `absent`, or the fields that are expected.
    #[schema(value_type = Object)]
    pub expected: ExpectedItem,
}

impl From<BaselineItem> for BaselineItemShape {
    fn from(item: BaselineItem) -> Self {
        Self { item: item.item, expected: item.expected }
    }
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = UnwatchedItem)]
pub struct UnwatchedShape {
    #[schema(schema_with = words::item)]
    pub item: ItemId,
}
