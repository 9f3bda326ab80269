//! The shapes of a host, its items and its coverage gaps.

use std::collections::BTreeMap;

use serde::Serialize;
use trueline_drift::{Facts, Fields, GapReason, ItemId, OperationCoverage, Time};
use trueline_store::{GapRow, Host, HostItem, HostStatus, SensorStatus};
use utoipa::ToSchema;

use super::words;
use crate::hub::Hub;

/// A host that was heard of within three heartbeats counts as connected, wherever its stream ends.
pub const SILENT_AFTER_SECONDS: i64 = 30;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum HostState {
    Connected,
    Silent,
    Revoked,
}

impl HostState {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Connected => "connected",
            Self::Silent => "silent",
            Self::Revoked => "revoked",
        }
    }
}

pub fn state_of(host: &Host, hub: &Hub, now: Time) -> HostState {
    let heard = |at: Time| now.micros_since(at) < SILENT_AFTER_SECONDS * 1_000_000;
    if host.revoked_at.is_some() {
        HostState::Revoked
    } else if hub.streams.is_connected(host.id) || host.last_seen_at.is_some_and(heard) {
        HostState::Connected
    } else {
        HostState::Silent
    }
}

/// What one enrolled agent speaks for.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Host)]
pub struct HostShape {
    #[schema(format = Uuid)]
    pub id: String,
    pub tenant: String,
    pub name: String,
    #[schema(schema_with = words::host_state)]
    pub state: HostState,
    #[schema(value_type = FactsShape)]
    pub facts: Facts,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent_version: Option<String>,
    #[schema(schema_with = words::time)]
    pub enrolled_at: Time,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = words::time, required = false)]
    pub last_seen_at: Option<Time>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = words::time, required = false)]
    pub revoked_at: Option<Time>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = words::time, required = false)]
    pub certificate_expires_at: Option<Time>,
    pub epoch: u64,
    /// The last record taken in.
    pub acknowledged: u64,
    /// Absent until the first inventory is whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = words::time, required = false)]
    pub inventory_completed_at: Option<Time>,
    pub items: u64,
    /// Unresolved drift that is not folded under its package's.
    pub open_drifts: u64,
    /// Unresolved drift that is folded: together the two are all there is.
    pub folded_drifts: u64,
    /// The baseline that it is held against.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub baseline: Option<BaselineNameShape>,
    /// Whether the unresolved drift is all that the baseline and what was taken in from the host amount to: `pending` while its
    /// inventory is under way, its state is not compared yet or changes are not judged yet. Absent without a baseline.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = words::comparison, required = false)]
    pub comparison: Option<&'static str>,
    /// Another machine has lately tried to speak with this host's identity, and was turned away: which of the two this is of
    /// is not known.
    pub has_twin: bool,
    /// What the agent last said of itself.
    #[schema(value_type = StatusShape)]
    pub status: HostStatus,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = BaselineName)]
pub struct BaselineNameShape {
    pub name: String,
    pub version: u64,
}

impl HostShape {
    pub fn of(mut host: Host, hub: &Hub, now: Time) -> Self {
        let has_twin = hub.streams.has_twin(host.id, now);
        if has_twin {
            let twin = "another machine has this host's identity: enrol one of the two anew, `trueline-agent enroll --force`";
            host.status.troubles.push(twin.to_owned());
        }
        Self {
            state: state_of(&host, hub, now),
            id: host.id.to_string(),
            tenant: host.tenant.0,
            name: host.facts.hostname.clone(),
            facts: host.facts,
            agent_version: host.agent_version,
            enrolled_at: host.enrolled_at,
            last_seen_at: host.last_seen_at,
            revoked_at: host.revoked_at,
            certificate_expires_at: host.certificate_expires_at,
            epoch: host.epoch.0,
            acknowledged: host.acknowledged.0,
            inventory_completed_at: host.inventory_completed_at,
            items: host.items,
            open_drifts: host.open_drifts,
            folded_drifts: host.folded_drifts,
            comparison: host.comparison.map(words::comparison_of),
            baseline: host.baseline.map(|name| BaselineNameShape { name: name.name, version: name.version }),
            has_twin,
            status: host.status,
        }
    }
}

/// What a host says of itself at each connection.
#[derive(Debug, ToSchema)]
#[schema(as = Facts)]
#[expect(dead_code, reason = "describes the domain's facts; never made")]
pub struct FactsShape {
    hostname: String,
    os: Option<String>,
    kernel: Option<String>,
    architecture: Option<String>,
    machine_id: Option<String>,
    boot_id: Option<String>,
    cpus: Option<u32>,
    memory_bytes: Option<u64>,
    labels: Option<BTreeMap<String, String>>,
}

/// What an agent last said of itself.
#[derive(Debug, ToSchema)]
#[schema(as = HostStatus)]
#[expect(dead_code, reason = "describes the store's status; never made")]
pub struct StatusShape {
    sensors: Option<Vec<SensorShape>>,
    operations: Option<Vec<OperationCoverageShape>>,
    counters: Option<BTreeMap<String, u64>>,
    spool: Option<SpoolShape>,
    troubles: Option<Vec<String>>,
    /// Of the watch policy in force; 0 where the host's own configuration counts.
    policy_version: Option<u64>,
}

#[derive(Debug, ToSchema)]
#[schema(as = Sensor)]
#[expect(dead_code, reason = "describes the store's sensor; never made")]
struct SensorShape {
    name: String,
    scope: String,
    watching: bool,
    /// Why it does not watch, or not all.
    reason: Option<String>,
}

/// What the sensors tell of an operation, but for the exceptions that the reason names.
#[derive(Debug, ToSchema)]
#[schema(as = OperationCoverage)]
#[expect(dead_code, reason = "describes the domain's row; never made")]
struct OperationCoverageShape {
    #[schema(schema_with = words::operation)]
    operation: String,
    /// The surest that its actor can be. Absent: no event tells of it, and reading again alone finds what it changed.
    #[schema(schema_with = words::certainty, required = false)]
    actor: Option<String>,
    /// Why it is no surer.
    reason: Option<String>,
}

/// What a host is watched by, as its agent last said.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = HostCoverage)]
pub struct HostCoverageShape {
    /// When it last said anything.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = words::time, required = false)]
    pub last_seen_at: Option<Time>,
    #[schema(value_type = Vec<SensorShape>)]
    pub sensors: Vec<SensorStatus>,
    /// Each operation once; none of an agent that does not say.
    #[schema(value_type = Vec<OperationCoverageShape>)]
    pub operations: Vec<OperationCoverage>,
}

impl From<Host> for HostCoverageShape {
    fn from(host: Host) -> Self {
        Self { last_seen_at: host.last_seen_at, sensors: host.status.sensors, operations: host.status.operations }
    }
}

#[derive(Debug, ToSchema)]
#[schema(as = Spool)]
#[expect(dead_code, reason = "describes the store's spool; never made")]
struct SpoolShape {
    bytes: u64,
    limit_bytes: u64,
    oldest_sequence: u64,
    newest_sequence: u64,
    /// Since when changes are held back.
    #[schema(schema_with = words::time, required = false)]
    holding_since: Option<String>,
}

/// One thing on a host as it is now.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Item)]
pub struct ItemShape {
    #[schema(schema_with = words::item)]
    pub item: ItemId,
    #[schema(schema_with = words::fields)]
    pub fields: Fields,
    #[schema(schema_with = words::time)]
    pub observed_at: Time,
}

impl From<HostItem> for ItemShape {
    fn from(item: HostItem) -> Self {
        Self { item: item.item, fields: item.fields, observed_at: item.observed_at }
    }
}

/// An interval in which changes may have been missed, and what was done about it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = CoverageGap)]
pub struct CoverageShape {
    pub id: i64,
    #[schema(format = Uuid)]
    pub host: String,
    pub host_name: String,
    /// `file:/etc`, `sysctl:*`, or `*` for the whole host.
    pub scope: String,
    #[schema(schema_with = words::gap_reason)]
    pub reason: GapReason,
    /// The reason in a sentence.
    pub explanation: &'static str,
    #[schema(schema_with = words::time)]
    pub began_at: Time,
    /// When the scope had been read again; absent while the gap is open.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = words::time, required = false)]
    pub ended_at: Option<Time>,
    /// Events known to be lost; absent where the kernel does not say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lost: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
    #[schema(schema_with = words::time)]
    pub received_at: Time,
}

impl From<GapRow> for CoverageShape {
    fn from(row: GapRow) -> Self {
        let gap = row.gap;
        Self {
            id: row.id,
            host: row.host.to_string(),
            host_name: row.host_name,
            scope: gap.scope,
            explanation: gap.reason.explanation(),
            reason: gap.reason,
            began_at: gap.began_at,
            ended_at: gap.ended_at,
            lost: gap.lost,
            remedy: gap.remedy,
            received_at: row.received_at,
        }
    }
}
