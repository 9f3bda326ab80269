//! Baselines: captured, written, assigned, read.
//!
//! A captured baseline keeps the items as they were, byte for byte; which of their fields count is
//! decided when the expectation is read. A version, once made, never changes.

use std::collections::HashMap;

use trueline_drift::baseline::{self, AbsentWord, BaselineDocument, ClosedScope, Expectation, ExpectedItem};
use trueline_drift::judge::BaselineName;
use trueline_drift::pattern::Pattern;
use trueline_drift::{HostId, ItemId, ItemKind, TenantId, Time};

use crate::append::advance;
use crate::cursor::{after, cursor, listed, rows_wanted};
use crate::encoding::{self, Numbered, fields_bytes, fields_from_bytes, from_json, host_bytes, json};
use crate::session::{Column, Lock, Query, Row, Session};
use crate::{Baseline, BaselineItem, BaselineOrigin, Listed, NewCapture, Page, Result, StoreError, hosts};

/// A baseline without its items: what is needed to read an expectation.
#[derive(Debug, Clone)]
pub(crate) struct BaselineHead {
    pub name: BaselineName,
    origin: BaselineOrigin,
    whole: bool,
    closed: Vec<ClosedScope>,
}

impl BaselineHead {
    pub fn listed(&self, fields: &[u8]) -> Result<Expectation> {
        let fields = fields_from_bytes(fields)?;
        let fields = match self.origin {
            BaselineOrigin::Captured => baseline::captured(&fields),
            BaselineOrigin::Written => fields,
        };
        Ok(if self.whole { Expectation::Whole(fields) } else { Expectation::Fields(fields) })
    }

    pub fn unlisted(&self, item: &ItemId) -> Expectation {
        baseline::unlisted(&self.closed, item)
    }
}

pub(crate) async fn heads(session: &mut Session, ids: Vec<i64>) -> Result<HashMap<i64, BaselineHead>> {
    let sql = "WITH given (id) AS ({rows}) SELECT b.id, b.name, b.version, b.origin, b.whole, b.closed FROM given JOIN baselines b ON b.id = given.id";
    let rows = session.bulk(sql, vec![Column::integers(ids)]).await?;
    rows.iter()
        .map(|row| {
            let mut cells = row.cells();
            let id = cells.integer()?;
            let name = BaselineName { name: cells.text()?, version: cells.count()? };
            let origin = BaselineOrigin::from_number(cells.integer()?)?;
            let whole = cells.integer()? == 1;
            Ok((id, BaselineHead { name, origin, whole, closed: from_json("closed scopes", &cells.text()?)? }))
        })
        .collect()
}

const SELECT: &str = "SELECT b.id, b.name, b.version, b.origin, b.whole, b.items, b.closed, b.created_at, b.created_by, \
    (SELECT count(*) FROM hosts h WHERE h.baseline = b.id AND h.revoked_at IS NULL) FROM baselines b";

fn read(row: &Row) -> Result<Baseline> {
    let mut cells = row.cells();
    Ok(Baseline {
        id: cells.integer()?,
        name: BaselineName { name: cells.text()?, version: cells.count()? },
        origin: BaselineOrigin::from_number(cells.integer()?)?,
        whole: cells.integer()? == 1,
        items: cells.count()?,
        closed: from_json("closed scopes", &cells.text()?)?,
        created_at: cells.time()?,
        created_by: cells.text()?,
        hosts: cells.count()?,
    })
}

async fn by_id(session: &mut Session, id: i64) -> Result<Baseline> {
    let mut query = Query::new(SELECT);
    query.with(" WHERE b.id = ", id);
    read(&query.fetch_one(session).await?)
}

struct NewVersion<'a> {
    tenant: &'a TenantId,
    name: &'a str,
    origin: BaselineOrigin,
    whole: bool,
    closed: &'a [ClosedScope],
    by: &'a str,
    at: Time,
}

/// The next version of a baseline, still empty.
async fn next_version(session: &mut Session, new: NewVersion<'_>) -> Result<i64> {
    session.lock(Lock::Baselines).await?;
    let sql = "SELECT coalesce(max(version), 0) FROM baselines WHERE tenant = $1 AND name = $2";
    let row = session.fetch_one(sql, vec![new.tenant.0.as_str().into(), new.name.into()]).await?;
    let version = row.cells().integer()? + 1;
    let mut query =
        Query::new("INSERT INTO baselines (tenant, name, version, origin, whole, closed, items, created_at, created_by) VALUES (");
    query
        .with("", new.tenant.0.as_str())
        .with(", ", new.name)
        .with(", ", version)
        .with(", ", new.origin.number())
        .with(", ", i64::from(new.whole))
        .with(", ", json(new.closed))
        .with(", ", 0i64)
        .with(", ", new.at)
        .with(", ", new.by)
        .text(") RETURNING id");
    query.fetch_one(session).await?.cells().integer()
}

async fn count_items(session: &mut Session, id: i64) -> Result<()> {
    let sql = "UPDATE baselines SET items = (SELECT count(*) FROM baseline_items bi WHERE bi.baseline = baselines.id) WHERE id = $1";
    session.execute(sql, vec![id.into()]).await.map(drop)
}

pub(crate) async fn capture(session: &mut Session, new: NewCapture) -> Result<Baseline> {
    let sql = "SELECT id, CASE WHEN inventory_epoch = epoch THEN 1 ELSE 0 END FROM hosts WHERE tenant = $1 AND uuid = $2";
    let cells = vec![new.tenant.0.as_str().into(), host_bytes(new.host).into()];
    let row = session.fetch_optional(sql, cells).await?.ok_or_else(|| hosts::unknown(new.host))?;
    let mut cells = row.cells();
    let (host, is_complete) = (cells.integer()?, cells.integer()? == 1);
    if !is_complete {
        let reason = "the host's inventory is still under way, and what is not listed yet would be called drift: wait for it".to_owned();
        return Err(StoreError::Invalid { subject: "capture", reason });
    }
    let settings = || ItemKind::ALL.into_iter().filter(|kind| kind.is_setting());
    let everything = || settings().map(|kind| ClosedScope { kind, keys: Pattern::new("**") }).collect();
    let closed: Vec<ClosedScope> = if new.scopes.is_empty() { everything() } else { new.scopes.clone() };
    let version = NewVersion {
        tenant: &new.tenant,
        name: &new.name,
        origin: BaselineOrigin::Captured,
        whole: true,
        closed: &closed,
        by: &new.by,
        at: new.at,
    };
    let id = next_version(session, version).await?;
    if new.scopes.is_empty() {
        let sql = "INSERT INTO baseline_items (baseline, fingerprint, kind, key, absent, fields) \
            SELECT $1, fingerprint, kind, key, 0, fields FROM items WHERE host = $2 AND present = 1 AND kind NOT IN ($3, $4) ORDER BY fingerprint";
        let [sessions, runs] = [ItemKind::Session, ItemKind::Run].map(ItemKind::number);
        session.execute(sql, vec![id.into(), host.into(), sessions.into(), runs.into()]).await?;
    } else {
        copy_scopes(session, id, host, &new.scopes).await?;
    }
    count_items(session, id).await?;
    if new.assign {
        let is_assigned = assign(session, &new.tenant, new.host, id).await?;
        if !is_assigned {
            let reason = "the host was revoked, and is held against nothing any more: capture without assigning".to_owned();
            return Err(StoreError::Invalid { subject: "capture", reason });
        }
    }
    by_id(session, id).await
}

/// Patterns are matched here, not in SQL: there is one definition of what they mean.
async fn copy_scopes(session: &mut Session, baseline: i64, host: i64, scopes: &[ClosedScope]) -> Result<()> {
    let mut copied = std::collections::BTreeSet::new();
    for scope in scopes {
        let mut query = Query::new("SELECT id, kind, key FROM items");
        query.with(" WHERE host = ", host).with(" AND present = 1 AND kind = ", scope.kind.number());
        starts_with(&mut query, "key", scope.keys.prefix());
        for row in query.fetch(session).await? {
            let mut cells = row.cells();
            let (id, kind, key) = (cells.integer()?, cells.integer()?, cells.text()?);
            if scope.contains(&encoding::item(kind, &key)?) {
                copied.insert(id);
            }
        }
    }
    let sql = "WITH given (baseline, item) AS ({rows}) INSERT INTO baseline_items (baseline, fingerprint, kind, key, absent, fields) \
        SELECT given.baseline, i.fingerprint, i.kind, i.key, 0, i.fields FROM given JOIN items i ON i.id = given.item WHERE i.present = 1";
    let columns = vec![Column::integers(copied.iter().map(|_| baseline)), Column::integers(copied.iter().copied())];
    session.bulk(sql, columns).await.map(drop)
}

/// Adds the condition that a text begins with a prefix, which may hold any character.
pub(crate) fn starts_with(query: &mut Query, column: &str, prefix: &str) {
    if !prefix.is_empty() {
        query.with(&format!(" AND substr({column}, 1, {}) = ", prefix.chars().count()), prefix);
    }
}

pub(crate) async fn write(session: &mut Session, tenant: &TenantId, document: &BaselineDocument, by: &str, at: Time) -> Result<Baseline> {
    let (origin, whole) = (BaselineOrigin::Written, document.whole);
    let id = next_version(session, NewVersion { tenant, name: &document.name, origin, whole, closed: &document.closed, by, at }).await?;
    let sql = "WITH given (baseline, fingerprint, kind, key, absent, fields) AS ({rows}) \
        INSERT INTO baseline_items (baseline, fingerprint, kind, key, absent, fields) \
        SELECT baseline, fingerprint, kind, key, absent, fields FROM given";
    let items = || document.items.iter();
    let columns = vec![
        Column::integers(items().map(|_| id)),
        Column::blobs(items().map(|(item, _)| item.fingerprint().0.to_vec())),
        Column::integers(items().map(|(item, _)| item.kind.number())),
        Column::texts(items().map(|(item, _)| item.key.as_str().to_owned())),
        Column::integers(items().map(|(_, expected)| i64::from(matches!(expected, ExpectedItem::Absent(_))))),
        Column::Blobs(
            items()
                .map(|(_, expected)| match expected {
                    ExpectedItem::Absent(_) => None,
                    ExpectedItem::Fields(fields) => Some(fields_bytes(fields.clone())),
                })
                .collect(),
        ),
    ];
    session.bulk(sql, columns).await?;
    count_items(session, id).await?;
    by_id(session, id).await
}

pub(crate) async fn assign(session: &mut Session, tenant: &TenantId, host: HostId, baseline: i64) -> Result<bool> {
    let sql = "UPDATE hosts SET baseline = $1, generation = generation + 1 WHERE tenant = $2 AND uuid = $3 AND revoked_at IS NULL \
        AND EXISTS (SELECT 1 FROM baselines b WHERE b.id = $1 AND b.tenant = $2)";
    let cells = vec![baseline.into(), tenant.0.as_str().into(), host_bytes(host).into()];
    let is_assigned = session.execute(sql, cells).await? == 1;
    if is_assigned {
        // What was read to be judged under the baseline before must be read again.
        advance(session, "assignments", 1).await?;
    }
    Ok(is_assigned)
}

pub(crate) async fn list(session: &mut Session, tenant: &TenantId, page: &Page) -> Result<Listed<Baseline>> {
    let mut query = Query::new(SELECT);
    query
        .with(" WHERE b.tenant = ", tenant.0.as_str())
        .with_some(" AND b.id < ", after::<i64>(page, "baselines")?)
        .with(" ORDER BY b.id DESC LIMIT ", rows_wanted(page));
    let baselines = query.fetch(session).await?.iter().map(read).collect::<Result<_>>()?;
    Ok(listed(baselines, page, "baselines", |baseline: &Baseline| baseline.id))
}

/// By fingerprint: keys are too long to be kept in order.
pub(crate) async fn items(session: &mut Session, tenant: &TenantId, baseline: i64, page: &Page) -> Result<Listed<BaselineItem>> {
    let after: Option<String> = after(page, "baseline items")?;
    let after = after.map(|fingerprint| hex::decode(fingerprint).unwrap_or_default());
    let mut query = Query::new(
        "SELECT bi.fingerprint, bi.kind, bi.key, bi.absent, bi.fields, b.origin FROM baseline_items bi JOIN baselines b ON b.id = bi.baseline",
    );
    query
        .with(" WHERE bi.baseline = ", baseline)
        .with(" AND b.tenant = ", tenant.0.as_str())
        .with_some(" AND bi.fingerprint > ", after)
        .with(" ORDER BY bi.fingerprint LIMIT ", rows_wanted(page));
    let mut rows = query.fetch(session).await?;
    let limit = rows_wanted(page) as usize - 1;
    let more = rows.len() > limit;
    rows.truncate(limit);
    let next = match rows.last().filter(|_| more) {
        Some(last) => Some(cursor("baseline items", &hex::encode(last.cells().blob()?))),
        None => None,
    };
    Ok(Listed { items: rows.iter().map(listed_item).collect::<Result<_>>()?, next })
}

fn listed_item(row: &Row) -> Result<BaselineItem> {
    let mut cells = row.cells();
    cells.blob()?;
    let (kind, key) = (cells.integer()?, cells.text()?);
    let (absent, fields) = (cells.integer()? == 1, cells.blob_or_none()?);
    let origin = BaselineOrigin::from_number(cells.integer()?)?;
    let expected = match fields.filter(|_| !absent) {
        None => ExpectedItem::Absent(AbsentWord::Absent),
        Some(fields) => {
            let fields = fields_from_bytes(&fields)?;
            ExpectedItem::Fields(match origin {
                BaselineOrigin::Captured => baseline::captured(&fields).into_iter().filter(|(_, value)| !value.is_unreadable()).collect(),
                BaselineOrigin::Written => fields,
            })
        }
    };
    Ok(BaselineItem { item: encoding::item(kind, &key)?, expected })
}
