//! What goes into the store and comes out of it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use trueline_drift::baseline::{ClosedScope, Expectation};
use trueline_drift::item::ItemFingerprint;
use trueline_drift::judge::{BaselineName, Judgement};
use trueline_drift::reconcile::OpenDrift;
use trueline_drift::{
    Change, CoverageGap, DriftType, Epoch, Facts, FieldName, Fields, HostId, ItemId, ItemKind, RecordBody, Sequence, Severity, TenantId,
    Time, Value, Verdict,
};
use trueline_proto::ChainLink;

/// The place of a change in the collector's one log; also the change's id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Position(pub i64);

/// Keyset pagination: at most `limit` rows that come after the cursor in the listing's own order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    pub limit: u32,
    /// From [`Listed::next`] of the page before.
    pub after: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed<T> {
    pub items: Vec<T>,
    /// Opaque; absent on the last page.
    pub next: Option<String>,
}

/// SHA-256 of a token: the token itself is never stored.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TokenDigest(pub [u8; 32]);

impl std::fmt::Debug for TokenDigest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TokenDigest(..)")
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TokenKind {
    /// Lets hosts enrol.
    Join,
    /// Speaks to the REST API.
    Api,
    /// Opens the console once: exchanged for a session.
    Login,
    /// A browser's session.
    Session,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    Viewer,
    Operator,
    Admin,
}

#[derive(Debug, Clone)]
pub struct NewToken {
    pub tenant: TenantId,
    pub kind: TokenKind,
    pub role: Role,
    pub name: String,
    pub digest: TokenDigest,
    pub created_at: Time,
    pub expires_at: Option<Time>,
    pub uses: Option<u32>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Token {
    pub id: i64,
    pub tenant: TenantId,
    pub kind: TokenKind,
    pub role: Role,
    pub name: String,
    pub created_at: Time,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Time>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uses_left: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revoked_at: Option<Time>,
}

/// Whether a token may be used, and if not, why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    Good,
    Expired,
    UsedUp,
    Revoked,
}

impl Token {
    pub fn standing(&self, now: Time) -> Standing {
        if self.revoked_at.is_some() {
            Standing::Revoked
        } else if self.expires_at.is_some_and(|expiry| expiry <= now) {
            Standing::Expired
        } else if self.uses_left == Some(0) {
            Standing::UsedUp
        } else {
            Standing::Good
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Spent {
    Token(Token),
    Unknown,
    Refused(Standing),
}

#[derive(Debug, Clone)]
pub struct NewHost {
    pub id: HostId,
    pub tenant: TenantId,
    pub facts: Facts,
    pub enrolled_at: Time,
    /// The join token that let it in.
    pub token: i64,
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
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub counters: BTreeMap<String, u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spool: Option<SpoolStatus>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub troubles: Vec<String>,
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
    pub open_drifts: u64,
    pub baseline: Option<BaselineName>,
    pub status: HostStatus,
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

/// A run of one host's records, decoded and within the frame's limits.
#[derive(Debug, Clone)]
pub struct Batch {
    pub host: HostId,
    pub epoch: Epoch,
    pub first: Sequence,
    pub records: Vec<RecordBody>,
    /// The chain before and after; a batch that continues the host's stream must continue its chain.
    pub previous: ChainLink,
    pub link: ChainLink,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AppendOutcome {
    /// Durable up to here. `changes` of them were new changes.
    Accepted {
        acknowledged: Sequence,
        changes: u64,
    },
    /// The stream of this host stands elsewhere.
    SequenceGap {
        expected: Sequence,
        got: Sequence,
    },
    /// The numbers continue but the hash chain does not: the spool is not the one seen before.
    BrokenChain {
        at: Sequence,
    },
    UnknownHost,
    /// The host is known, and revoked.
    Revoked,
    /// The epoch is older than the one the host uses now.
    StaleEpoch {
        current: Epoch,
    },
}

/// What judging rests on, as it was read: it counts only if neither moved meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct JudgeCursor {
    pub position: Position,
    /// Grows whenever a host is held against another baseline.
    pub assignments: i64,
}

#[derive(Debug, Clone)]
pub struct JudgeInput {
    /// The cursor as read: hand it back in [`JudgeOutput`].
    pub from: JudgeCursor,
    pub changes: Vec<UnjudgedChange>,
}

#[derive(Debug, Clone)]
pub struct UnjudgedChange {
    pub position: Position,
    pub host: HostId,
    pub item_row: i64,
    pub change: Change,
    /// The host's baseline and what it says of the item; absent where the host has none.
    pub baseline: Option<(BaselineName, Expectation)>,
    /// Drifts open for the item when it was read. Earlier changes of the same input may have moved
    /// them: the judge keeps account.
    pub open: Vec<OpenDrift>,
}

#[derive(Debug, Clone)]
pub struct JudgeOutput {
    pub from: JudgeCursor,
    pub to: Position,
    pub judgements: Vec<(Position, Judgement)>,
    pub drift: Vec<DriftWrite>,
}

/// One step of one drift, in the order in which it must be written.
#[derive(Debug, Clone)]
pub struct DriftWrite {
    pub host: HostId,
    pub item: ItemId,
    /// Where known; otherwise the item is found or made by its fingerprint.
    pub item_row: Option<i64>,
    pub at: Time,
    /// The change that made this step, where one did.
    pub change: Option<Position>,
    pub step: trueline_drift::reconcile::Step,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostToCompare {
    pub host: HostId,
    pub baseline: Option<(i64, BaselineName)>,
    pub generation: i64,
}

/// What comparing a page came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compared {
    /// More items follow after this one.
    UpTo(ItemFingerprint),
    End,
    /// The host is held against something else by now, or its inventory began anew: it is due again.
    Superseded,
    /// The host has changes that are not judged: the same page, once they are.
    Unjudged,
}

#[derive(Debug, Clone)]
pub struct CompareRow {
    pub fingerprint: ItemFingerprint,
    pub item: ItemId,
    pub item_row: Option<i64>,
    /// Absent where the item is not on the host.
    pub fields: Option<Fields>,
    pub expectation: Expectation,
    pub open: Vec<OpenDrift>,
}

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
    pub items: u64,
    pub closed: Vec<ClosedScope>,
    pub created_at: Time,
    pub created_by: String,
    pub hosts: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BaselineOrigin {
    /// Copied from a host; [`trueline_drift::baseline::captured`] says which fields count.
    Captured,
    Written,
}

#[derive(Debug, Clone, Default)]
pub struct ChangeFilter {
    pub host: Option<HostId>,
    pub item: Option<ItemId>,
    pub kind: Option<ItemKind>,
    pub verdict: Option<Verdict>,
    pub since: Option<Time>,
    pub until: Option<Time>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangeRow {
    pub position: Position,
    pub tenant: TenantId,
    pub host: HostId,
    pub host_name: String,
    pub epoch: Epoch,
    pub sequence: Sequence,
    pub received_at: Time,
    pub change: Change,
    /// Absent until judged.
    pub judgement: Option<Judgement>,
}

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
    pub change: Option<(Position, trueline_drift::Actor)>,
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

#[derive(Debug, Clone, Default)]
pub struct GapFilter {
    pub host: Option<HostId>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GapRow {
    pub id: i64,
    pub host: HostId,
    pub host_name: String,
    pub received_at: Time,
    pub gap: CoverageGap,
}

/// Changes judged and drift open, for the head of the console.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Summary {
    pub hosts: u64,
    /// Items watched on all hosts.
    pub items: u64,
    /// Of changes received since the given time, by verdict.
    pub expected: u64,
    pub out_of_scope: u64,
    pub notable: u64,
    pub critical: u64,
    pub open_drifts: u64,
    pub open_critical: u64,
    pub gaps: u64,
}

/// A place in each of the logs that the event stream joins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct EventPosition {
    pub changes: i64,
    pub drift: i64,
    pub gaps: i64,
}

#[derive(Debug, Clone, Default)]
pub struct Events {
    pub changes: Vec<ChangeRow>,
    /// Each with its place in the drift log and what happened; the row is as it is now.
    pub drift: Vec<(i64, DriftEvent, DriftRow)>,
    pub gaps: Vec<GapRow>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DriftEvent {
    Opened,
    Updated,
    Acknowledged,
    Resolved,
}

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
