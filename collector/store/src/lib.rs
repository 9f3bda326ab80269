//! The collector's store: one trait, a SQLite and a PostgreSQL backend, plain SQL side by side, one
//! test story run against both.
//!
//! Invariants the backends keep:
//! - **Append, then acknowledge.** [`Store::append_prepared`] returns only after the commit is durable.
//! - **Exactly one effect.** A host's records are taken in order of (epoch, sequence); what was taken
//!   before is dropped, a hole is refused.
//! - **One order.** Every change has a [`Position`]; positions grow in commit order, so a reader that
//!   has seen position N never later finds a smaller one. (PostgreSQL: appends hold one advisory
//!   lock until they commit.)
//! - **The database arbitrates.** Judging is compare-and-set on a cursor: two collectors that judge
//!   the same changes have the effect of one.
//! - **Nothing crosses a tenant.** Every read for a person takes the tenant.
//!
//! Nothing here decides a verdict or reads a clock: both arrive as arguments.

mod actions;
mod append;
mod baselines;
mod changes;
mod comparing;
mod cursor;
mod drift_writing;
mod drifts;
mod encoding;
mod enrolment;
mod error;
mod events;
mod folding;
mod gaps;
mod grouping;
mod hosts;
mod items;
mod judgements;
mod judging;
mod keeping;
mod measures;
mod migrations;
mod model;
mod postgres;
mod prepared;
mod session;
mod sqlite;
mod store;
mod stream;
mod summary;
#[cfg(feature = "testing")]
pub mod testing;
mod tokens;
mod weight;

use std::sync::Arc;

use async_trait::async_trait;
use trueline_drift::baseline::BaselineDocument;
use trueline_drift::{Facts, HostId, ItemId, TenantId, Time};

pub use error::StoreError;
pub use model::*;
pub use prepared::{Prepared, prepare};
pub use sqlite::file as sqlite_file;
pub use store::SqlStore;

pub type Result<T, E = StoreError> = std::result::Result<T, E>;

/// Opens the store that a URI names: `sqlite:PATH` or `postgres://…`, and brings its schema up to date.
pub async fn open(uri: &str) -> Result<Arc<dyn Store>> {
    open_telling(uri, &|_| {}).await
}

/// As [`open`]; each step of the schema is told before it is taken, since with much data it may take long.
pub async fn open_telling(uri: &str, tell: &(dyn Fn(SchemaStep) + Send + Sync)) -> Result<Arc<dyn Store>> {
    let store = SqlStore::connect(uri).await?;
    store.migrate(tell).await?;
    Ok(Arc::new(store))
}

/// One step on the way to the present schema, counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SchemaStep {
    pub number: usize,
    pub of: usize,
}

#[async_trait]
pub trait Store: Send + Sync + std::fmt::Debug {
    /// Brings the schema up to date. Safe to run from several collectors at once.
    async fn migrate(&self, tell: &(dyn Fn(SchemaStep) + Send + Sync)) -> Result<()>;

    /// Proves that the database answers and can write (a row of its own, committed).
    async fn probe(&self, now: Time) -> Result<()>;

    // Tokens: of people and programs, for joining, and for one login.

    async fn add_token(&self, token: NewToken) -> Result<Token>;
    async fn tokens(&self, tenant: &TenantId, page: Page) -> Result<Listed<Token>>;
    /// The token with this SHA-256, whatever its state; the caller judges [`Token::standing`].
    async fn token_by_digest(&self, digest: &TokenDigest) -> Result<Option<Token>>;
    /// Takes one use of a token of this kind, atomically. Says why where there is none to take.
    async fn spend_token(&self, digest: &TokenDigest, kind: TokenKind, now: Time) -> Result<Spent>;
    /// `false` where the tenant has no such live token.
    async fn revoke_token(&self, tenant: &TenantId, id: i64, now: Time) -> Result<bool>;

    // Hosts and their certificates.

    /// Lets a host in and takes one use of its token, both or neither. The same key with the same token is the same
    /// enrolment until the host has connected or is revoked: the same host, and no further use.
    async fn enrol_host(&self, host: NewHost) -> Result<Enrolled>;
    async fn add_certificate(&self, certificate: NewCertificate) -> Result<()>;
    /// Who a certificate speaks for, and whether it may still.
    async fn credential(&self, serial: &str) -> Result<Option<Credential>>;
    /// Revokes the host with all its certificates. `false` where the tenant has no such live host.
    async fn revoke_host(&self, tenant: &TenantId, host: HostId, now: Time) -> Result<bool>;
    /// Hosts revoked at or after a time: how every collector learns of it.
    async fn hosts_revoked_since(&self, since: Time) -> Result<Vec<HostId>>;
    /// By identity, or by host name where that is unambiguous.
    async fn host(&self, tenant: &TenantId, id_or_name: &str) -> Result<Option<Host>>;
    async fn hosts(&self, tenant: &TenantId, page: Page) -> Result<Listed<Host>>;
    /// Notes a new connection; returns where the host's stream stands for this epoch (a new epoch
    /// begins at 0).
    async fn host_connected(
        &self,
        host: HostId,
        facts: &Facts,
        agent_version: &str,
        epoch: trueline_drift::Epoch,
        now: Time,
    ) -> Result<StreamPosition>;
    async fn host_status(&self, host: HostId, status: &HostStatus, now: Time) -> Result<()>;
    async fn host_items(&self, tenant: &TenantId, host: HostId, filter: &ItemFilter, page: Page) -> Result<Listed<HostItem>>;

    // Ingest.

    /// One durable transaction for batches of many hosts. The outcomes are in the order of the
    /// batches; a refused batch does not harm the others.
    async fn append_prepared(&self, batches: &[Prepared], received_at: Time) -> Result<Vec<AppendOutcome>>;

    /// [`Store::append_prepared`] of batches that were not encoded before.
    async fn append(&self, batches: Vec<Batch>, received_at: Time) -> Result<Vec<AppendOutcome>> {
        let prepared: Vec<Prepared> = batches.into_iter().map(prepare).collect();
        self.append_prepared(&prepared, received_at).await
    }

    // Judging.

    /// The next changes to judge, in order, with what is needed to judge them.
    async fn unjudged(&self, limit: u32) -> Result<JudgeInput>;
    /// Writes judgements and drift if the cursor still stands where [`Store::unjudged`] read it; `false`
    /// where another collector was faster, and nothing is written.
    async fn record_judgements(&self, output: JudgeOutput) -> Result<bool>;
    /// Hosts whose whole state must be compared with their baseline again, by identity, after the given one. Those whose
    /// inventory is not complete in the present epoch, or whose changes are not all judged, are not due yet.
    async fn hosts_to_compare(&self, after: Option<HostId>, limit: u32) -> Result<Vec<HostToCompare>>;
    /// The union of a host's items, its baseline's and those with open drift, by fingerprint, after
    /// the given one.
    async fn compare_page(
        &self,
        host: &HostToCompare,
        after: Option<trueline_drift::item::ItemFingerprint>,
        limit: u32,
    ) -> Result<Vec<CompareRow>>;
    /// Compares the next page and writes what `decide` makes of it, in one transaction that no append and
    /// no judgement can come between: what is written is true of the state it was read from.
    async fn compare(
        &self,
        host: &HostToCompare,
        after: Option<trueline_drift::item::ItemFingerprint>,
        limit: u32,
        decide: &(dyn Fn(Vec<CompareRow>) -> Vec<DriftWrite> + Send + Sync),
    ) -> Result<Compared>;
    /// Marks the comparison done, unless another was asked for meanwhile.
    async fn comparison_done(&self, host: &HostToCompare) -> Result<()>;

    // Baselines.

    /// A new version of the named baseline, from a host's present state, in the given scope.
    async fn capture_baseline(&self, capture: NewCapture) -> Result<Baseline>;
    async fn write_baseline(&self, tenant: &TenantId, document: &BaselineDocument, by: &str, now: Time) -> Result<Baseline>;
    /// Holds a host against a baseline version; its state is compared anew.
    async fn assign_baseline(&self, tenant: &TenantId, host: HostId, baseline: i64) -> Result<bool>;
    async fn baselines(&self, tenant: &TenantId, page: Page) -> Result<Listed<Baseline>>;
    /// What a baseline says of each item that it lists, by fingerprint.
    async fn baseline_items(&self, tenant: &TenantId, baseline: i64, page: Page) -> Result<Listed<BaselineItem>>;
    /// Those of the items that the host has now.
    async fn present_items(&self, tenant: &TenantId, host: HostId, items: &[ItemId]) -> Result<Vec<ItemId>>;

    // What people read.

    async fn changes(&self, tenant: &TenantId, filter: &ChangeFilter, page: Page) -> Result<Listed<ChangeRow>>;
    async fn change(&self, tenant: &TenantId, position: Position) -> Result<Option<ChangeRow>>;
    async fn drifts(&self, tenant: &TenantId, filter: &DriftFilter, page: Page) -> Result<Listed<DriftRow>>;
    async fn drift(&self, tenant: &TenantId, id: i64) -> Result<Option<DriftRow>>;
    /// Notes that a person has seen it. `false` where the tenant has no such open drift.
    async fn acknowledge_drift(&self, tenant: &TenantId, id: i64, by: &str, note: Option<&str>, now: Time) -> Result<bool>;
    async fn gaps(&self, tenant: &TenantId, filter: &GapFilter, page: Page) -> Result<Listed<GapRow>>;
    /// Counts for the head of the console.
    async fn summary(&self, tenant: &TenantId, since: Time) -> Result<Summary>;
    /// Counts for an operator's monitoring; a host not heard of since `heard_since` is told by its identity.
    async fn measure(&self, tenant: &TenantId, heard_since: Time) -> Result<Measures>;

    // The event stream.

    /// Where the logs end now.
    async fn event_position(&self) -> Result<EventPosition>;
    /// What was judged, opened, updated, resolved or missed after a place in the logs, oldest first
    /// within each log, at most `limit` of each.
    async fn events_after(&self, tenant: &TenantId, after: EventPosition, limit: u32) -> Result<Events>;

    // What the product and its operators did.

    async fn note_action(&self, action: NewAction) -> Result<()>;
    async fn actions(&self, tenant: &TenantId, page: Page) -> Result<Listed<Action>>;

    /// Named secrets and state of the collector itself that every instance shares (the CA's certificate
    /// and wrapped key, the session key). Returns the value that is there: the first writer wins.
    async fn keep(&self, name: &str, value: &[u8]) -> Result<Vec<u8>>;
    async fn kept(&self, name: &str) -> Result<Option<Vec<u8>>>;
}
