//! Hosts, their certificates, what their agents last said, and what is on them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use trueline_drift::judge::BaselineName;
use trueline_drift::{Epoch, Facts, Fields, HostId, ItemId, ItemKind, OperationCoverage, Sequence, TenantId, Time};
use trueline_proto::ChainLink;

use super::{Standing, Token, TokenDigest};

/// The SHA-256 of a host's public key, as its request and its certificates have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyDigest(pub [u8; 32]);

/// A host that asks to be let in, to the tenant of its join token.
#[derive(Debug, Clone)]
pub struct NewHost {
    /// What it is to be called, unless it was let in before.
    pub id: HostId,
    pub facts: Facts,
    pub enrolled_at: Time,
    pub token: TokenDigest,
    pub key: KeyDigest,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Enrolled {
    /// The token as it is now, and which host this is: one that was let in before, and has not connected since, where the
    /// same key comes with the same token.
    Host {
        id: HostId,
        token: Token,
    },
    /// There is no such join token.
    Unknown,
    Refused(Standing),
}

#[derive(Debug, Clone)]
pub struct NewCertificate {
    /// Hexadecimal, as in the certificate.
    pub serial: String,
    pub host: HostId,
    pub issued_at: Time,
    pub expires_at: Time,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credential {
    pub host: HostId,
    pub tenant: TenantId,
    pub revoked_at: Option<Time>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamPosition {
    /// The epoch asked for, or the greater one that the host has begun since: the one asked for is then over.
    pub epoch: Epoch,
    pub acknowledged: Sequence,
    pub link: ChainLink,
}

/// What an agent last said of itself.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct HostStatus {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sensors: Vec<SensorStatus>,
    /// What they tell of each operation; nothing of an agent that does not say.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub operations: Vec<OperationCoverage>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub counters: BTreeMap<String, u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spool: Option<SpoolStatus>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub troubles: Vec<String>,
    /// Of the watch policy in force; 0 where the host's own configuration counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy_version: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SensorStatus {
    pub name: String,
    pub scope: String,
    pub watching: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpoolStatus {
    pub bytes: u64,
    pub limit_bytes: u64,
    pub oldest_sequence: Sequence,
    pub newest_sequence: Sequence,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holding_since: Option<Time>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    pub id: HostId,
    pub tenant: TenantId,
    pub facts: Facts,
    pub agent_version: Option<String>,
    pub enrolled_at: Time,
    pub last_seen_at: Option<Time>,
    pub revoked_at: Option<Time>,
    pub certificate_expires_at: Option<Time>,
    pub epoch: Epoch,
    pub acknowledged: Sequence,
    pub inventory_completed_at: Option<Time>,
    pub items: u64,
    /// Unresolved drift that is not folded under its package's.
    pub open_drifts: u64,
    /// Unresolved drift that is: with the other it is all there is.
    pub folded_drifts: u64,
    pub baseline: Option<BaselineName>,
    /// Absent where there is no baseline to compare with.
    pub comparison: Option<Comparison>,
    pub status: HostStatus,
}

/// Whether the open drift of a host is all that its baseline and what was taken in from it amount to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    Current,
    /// Its inventory is under way, or its state is not compared yet, or changes are not judged yet.
    Pending,
}

#[derive(Debug, Clone, Default)]
pub struct ItemFilter {
    pub kind: Option<ItemKind>,
    /// Items whose key starts with this.
    pub prefix: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostItem {
    pub item: ItemId,
    pub fields: Fields,
    pub observed_at: Time,
}
