//! The store over either database: each method one transaction.
//!
//! What costs computing runs on the blocking pool, before the transaction begins or after it ended.

use async_trait::async_trait;
use trueline_drift::baseline::BaselineDocument;
use trueline_drift::item::ItemFingerprint;
use trueline_drift::{Epoch, Facts, HostId, ItemId, TenantId, Time};

use crate::model::*;
use crate::postgres::Postgres;
use crate::prepared::Prepared;
use crate::session::{Patience, Session};
use crate::sqlite::Sqlite;
use crate::{
    Result, SchemaStep, Store, StoreError, actions, append, baselines, changes, comparing, drifts, enrolment, events, gaps, hosts, items,
    judging, keeping, measures, migrations, summary, tokens,
};

pub struct SqlStore {
    database: Database,
}

enum Database {
    Sqlite(Sqlite),
    Postgres(Postgres),
}

/// Says which database, not how to reach it: an address may hold a password.
impl std::fmt::Debug for SqlStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self.database {
            Database::Sqlite(_) => "SqlStore(SQLite)",
            Database::Postgres(_) => "SqlStore(PostgreSQL)",
        })
    }
}

impl SqlStore {
    /// Connects; the schema is [`Store::migrate`]'s matter.
    pub async fn connect(uri: &str) -> Result<Self> {
        let database = if uri.starts_with("postgres://") || uri.starts_with("postgresql://") {
            Database::Postgres(Postgres::connect(uri)?)
        } else {
            Database::Sqlite(Sqlite::open(uri).await?)
        };
        Ok(Self { database })
    }

    #[cfg(test)]
    pub(crate) fn on(postgres: Postgres) -> Self {
        Self { database: Database::Postgres(postgres) }
    }

    async fn read(&self, operation: &'static str) -> Result<Session> {
        match &self.database {
            Database::Sqlite(sqlite) => sqlite.read(operation).await,
            Database::Postgres(postgres) => postgres.read(operation).await,
        }
    }

    async fn write(&self, operation: &'static str) -> Result<Session> {
        match &self.database {
            Database::Sqlite(sqlite) => sqlite.write(operation).await,
            Database::Postgres(postgres) => postgres.write(operation).await,
        }
    }
}

/// Runs what would hold up the runtime's thread.
async fn compute<T: Send + 'static>(operation: &'static str, work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|error| StoreError::Unavailable { operation, reason: error.to_string() })
}

/// `reading!(self, "listing hosts", |session| hosts::list(session, …))`: one snapshot.
macro_rules! reading {
    ($self:ident, $operation:literal, |$session:ident| $body:expr) => {{
        let mut owned = $self.read($operation).await?;
        let $session = &mut owned;
        $body.await
    }};
}

/// As `reading!`, committed unless it failed.
macro_rules! writing {
    ($self:ident, $operation:literal, |$session:ident| $body:expr) => {{
        let mut owned = $self.write($operation).await?;
        let done = {
            let $session = &mut owned;
            $body.await?
        };
        owned.commit().await?;
        Ok(done)
    }};
    ($self:ident, $operation:literal, $patience:expr, |$session:ident| $body:expr) => {
        writing!($self, $operation, |$session| async {
            $session.be_patient($patience).await?;
            $body.await
        })
    };
}

#[async_trait]
impl Store for SqlStore {
    async fn migrate(&self, tell: &(dyn Fn(SchemaStep) + Send + Sync)) -> Result<()> {
        writing!(self, "migrating the schema", Patience::Endless, |session| migrations::migrate(session, tell))
    }

    async fn probe(&self, now: Time) -> Result<()> {
        let sql = "UPDATE cursors SET position = $1 WHERE name = 'probe'";
        writing!(self, "probing", |session| session.execute(sql, vec![now.into()])).map(|_touched| ())
    }

    async fn add_token(&self, token: NewToken) -> Result<Token> {
        writing!(self, "adding a token", |session| tokens::add(session, token))
    }

    async fn tokens(&self, tenant: &TenantId, page: Page) -> Result<Listed<Token>> {
        reading!(self, "listing tokens", |session| tokens::list(session, tenant, &page))
    }

    async fn token_by_digest(&self, digest: &TokenDigest) -> Result<Option<Token>> {
        reading!(self, "finding a token", |session| tokens::by_digest(session, digest))
    }

    async fn spend_token(&self, digest: &TokenDigest, kind: TokenKind, now: Time) -> Result<Spent> {
        writing!(self, "spending a token", |session| tokens::spend(session, digest, kind, now))
    }

    async fn revoke_token(&self, tenant: &TenantId, id: i64, now: Time) -> Result<bool> {
        writing!(self, "revoking a token", |session| tokens::revoke(session, tenant, id, now))
    }

    async fn enrol_host(&self, host: NewHost) -> Result<Enrolled> {
        writing!(self, "enrolling a host", |session| enrolment::enrol(session, host))
    }

    async fn add_certificate(&self, certificate: NewCertificate) -> Result<()> {
        writing!(self, "noting a certificate", |session| hosts::add_certificate(session, certificate))
    }

    async fn credential(&self, serial: &str) -> Result<Option<Credential>> {
        reading!(self, "finding a certificate", |session| hosts::credential(session, serial))
    }

    async fn revoke_host(&self, tenant: &TenantId, host: HostId, now: Time) -> Result<bool> {
        writing!(self, "revoking a host", |session| hosts::revoke(session, tenant, host, now))
    }

    async fn hosts_revoked_since(&self, since: Time) -> Result<Vec<HostId>> {
        reading!(self, "listing revoked hosts", |session| hosts::revoked_since(session, since))
    }

    async fn host(&self, tenant: &TenantId, id_or_name: &str) -> Result<Option<Host>> {
        reading!(self, "finding a host", |session| hosts::one(session, tenant, id_or_name))
    }

    async fn hosts(&self, tenant: &TenantId, page: Page) -> Result<Listed<Host>> {
        reading!(self, "listing hosts", |session| hosts::list(session, tenant, &page))
    }

    async fn host_connected(&self, host: HostId, facts: &Facts, agent_version: &str, epoch: Epoch, now: Time) -> Result<StreamPosition> {
        writing!(self, "noting a connection", |session| hosts::connected(session, host, facts, agent_version, epoch, now))
    }

    async fn host_status(&self, host: HostId, status: &HostStatus, now: Time) -> Result<()> {
        writing!(self, "noting a host's status", |session| hosts::note_status(session, host, status, now))
    }

    async fn host_items(&self, tenant: &TenantId, host: HostId, filter: &ItemFilter, page: Page) -> Result<Listed<HostItem>> {
        reading!(self, "listing items", |session| items::list(session, tenant, host, filter, &page))
    }

    async fn append_prepared(&self, batches: &[Prepared], received_at: Time) -> Result<Vec<AppendOutcome>> {
        writing!(self, "appending", |session| append::append(session, batches, received_at))
    }

    async fn unjudged(&self, limit: u32) -> Result<JudgeInput> {
        let read = reading!(self, "reading changes to judge", |session| judging::read(session, limit))?;
        compute("reading changes to judge", || judging::decode(read)).await?
    }

    async fn record_judgements(&self, output: JudgeOutput) -> Result<bool> {
        let mut session = self.write("recording judgements").await?;
        let is_ours = judging::record(&mut session, &output).await?;
        if is_ours {
            session.commit().await?;
        }
        Ok(is_ours)
    }

    async fn hosts_to_compare(&self, after: Option<HostId>, limit: u32) -> Result<Vec<HostToCompare>> {
        reading!(self, "listing hosts to compare", |session| comparing::due(session, after, limit))
    }

    async fn compare_page(&self, host: &HostToCompare, after: Option<ItemFingerprint>, limit: u32) -> Result<Vec<CompareRow>> {
        reading!(self, "reading items to compare", |session| comparing::page(session, host, after, limit))
    }

    async fn compare(
        &self,
        host: &HostToCompare,
        after: Option<ItemFingerprint>,
        limit: u32,
        decide: &(dyn Fn(Vec<CompareRow>) -> Vec<DriftWrite> + Send + Sync),
    ) -> Result<Compared> {
        writing!(self, "comparing a host", |session| comparing::compare(session, host, after, limit, decide))
    }

    async fn comparison_done(&self, host: &HostToCompare) -> Result<()> {
        writing!(self, "ending a comparison", |session| comparing::done(session, host))
    }

    async fn capture_baseline(&self, capture: NewCapture) -> Result<Baseline> {
        writing!(self, "capturing a baseline", Patience::Long, |session| baselines::capture(session, capture))
    }

    async fn write_baseline(&self, tenant: &TenantId, document: &BaselineDocument, by: &str, now: Time) -> Result<Baseline> {
        writing!(self, "writing a baseline", Patience::Long, |session| baselines::write(session, tenant, document, by, now))
    }

    async fn assign_baseline(&self, tenant: &TenantId, host: HostId, baseline: i64) -> Result<bool> {
        writing!(self, "assigning a baseline", |session| baselines::assign(session, tenant, host, baseline))
    }

    async fn baselines(&self, tenant: &TenantId, page: Page) -> Result<Listed<Baseline>> {
        reading!(self, "listing baselines", |session| baselines::list(session, tenant, &page))
    }

    async fn baseline_items(&self, tenant: &TenantId, baseline: i64, page: Page) -> Result<Listed<BaselineItem>> {
        reading!(self, "reading a baseline", |session| baselines::items(session, tenant, baseline, &page))
    }

    async fn present_items(&self, tenant: &TenantId, host: HostId, items: &[ItemId]) -> Result<Vec<ItemId>> {
        reading!(self, "looking for items", |session| crate::items::present(session, tenant, host, items))
    }

    async fn changes(&self, tenant: &TenantId, filter: &ChangeFilter, page: Page) -> Result<Listed<ChangeRow>> {
        reading!(self, "listing changes", |session| changes::list(session, tenant, filter, &page))
    }

    async fn change(&self, tenant: &TenantId, position: Position) -> Result<Option<ChangeRow>> {
        reading!(self, "finding a change", |session| changes::one(session, tenant, position))
    }

    async fn drifts(&self, tenant: &TenantId, filter: &DriftFilter, page: Page) -> Result<Listed<DriftRow>> {
        reading!(self, "listing drift", |session| drifts::list(session, tenant, filter, &page))
    }

    async fn drift(&self, tenant: &TenantId, id: i64) -> Result<Option<DriftRow>> {
        reading!(self, "finding a drift", |session| drifts::one(session, tenant, id))
    }

    async fn acknowledge_drift(&self, tenant: &TenantId, id: i64, by: &str, note: Option<&str>, now: Time) -> Result<bool> {
        writing!(self, "acknowledging a drift", |session| drifts::acknowledge(session, tenant, id, by, note, now))
    }

    async fn gaps(&self, tenant: &TenantId, filter: &GapFilter, page: Page) -> Result<Listed<GapRow>> {
        reading!(self, "listing coverage gaps", |session| gaps::list(session, tenant, filter, &page))
    }

    async fn summary(&self, tenant: &TenantId, since: Time) -> Result<Summary> {
        reading!(self, "summing up", |session| summary::summary(session, tenant, since))
    }

    async fn measure(&self, tenant: &TenantId, heard_since: Time) -> Result<Measures> {
        reading!(self, "measuring", |session| measures::measure(session, tenant, heard_since))
    }

    async fn event_position(&self) -> Result<EventPosition> {
        reading!(self, "finding the end of the logs", |session| events::position(session))
    }

    async fn events_after(&self, tenant: &TenantId, after: EventPosition, limit: u32) -> Result<Events> {
        reading!(self, "reading events", |session| events::after(session, tenant, after, limit))
    }

    async fn note_action(&self, action: NewAction) -> Result<()> {
        writing!(self, "noting an action", |session| actions::note(session, action))
    }

    async fn actions(&self, tenant: &TenantId, page: Page) -> Result<Listed<Action>> {
        reading!(self, "listing actions", |session| actions::list(session, tenant, &page))
    }

    async fn keep(&self, name: &str, value: &[u8]) -> Result<Vec<u8>> {
        writing!(self, "keeping a value", |session| keeping::keep(session, name, value))
    }

    async fn kept(&self, name: &str) -> Result<Option<Vec<u8>>> {
        reading!(self, "reading a kept value", |session| keeping::kept(session, name))
    }
}
