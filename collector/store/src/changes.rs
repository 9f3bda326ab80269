//! Changes as people read them, newest first, with their judgements.

use std::collections::BTreeMap;

use trueline_drift::{Epoch, Sequence, TenantId, Verdict};

use crate::cursor::{after, cursor, rows_wanted};
use crate::encoding::{self, Numbered, host_bytes, host_from_bytes};
use crate::judgements::{Block, bit};
use crate::session::{Column, Query, Row, Session};
use crate::{ChangeFilter, ChangeRow, Listed, Page, Position, Result};

/// Judgements of this many runs are searched for one page of a verdict; then a page may be short, and
/// its cursor goes on from there.
const SEARCH_LIMIT: usize = 256;
const SEARCH_STEP: i64 = 16;

/// CROSS JOIN keeps SQLite from starting at the hosts and sorting all their changes; PostgreSQL plans as
/// it would for JOIN.
const SELECT: &str = "SELECT c.position, \
    (SELECT j.first FROM judgements j WHERE j.first <= c.position ORDER BY j.first DESC LIMIT 1), \
    h.tenant, h.uuid, h.name, c.epoch, c.sequence, c.received_at, i.kind, i.key, c.body \
    FROM changes c CROSS JOIN hosts h CROSS JOIN items i";

fn filtered(tenant: &TenantId, filter: &ChangeFilter) -> Query {
    let mut query = Query::new(SELECT);
    query
        .with(" WHERE h.id = c.host AND i.id = c.item AND h.tenant = ", tenant.0.as_str())
        .with_some(" AND c.host = (SELECT id FROM hosts WHERE uuid = ", filter.host.map(host_bytes))
        .text(if filter.host.is_some() { ")" } else { "" })
        .with_some(" AND i.kind = ", filter.kind.map(Numbered::number))
        .with_some(" AND c.observed_at >= ", filter.since)
        .with_some(" AND c.observed_at < ", filter.until);
    if let Some(item) = &filter.item {
        let fingerprint = item.fingerprint().0.to_vec();
        match filter.host {
            // One item: its own index.
            Some(host) => query
                .with(" AND c.item = (SELECT items.id FROM items JOIN hosts ON hosts.id = items.host WHERE hosts.uuid = ", host_bytes(host))
                .with(" AND items.fingerprint = ", fingerprint)
                .text(")"),
            None => query
                .with(
                    " AND c.item IN (SELECT items.id FROM hosts JOIN items ON items.host = hosts.id WHERE hosts.tenant = ",
                    tenant.0.as_str(),
                )
                .with(" AND items.fingerprint = ", fingerprint)
                .text(")"),
        };
    }
    query
}

pub(crate) async fn list(session: &mut Session, tenant: &TenantId, filter: &ChangeFilter, page: &Page) -> Result<Listed<ChangeRow>> {
    let below = after::<i64>(page, "changes")?;
    if let Some(verdict) = filter.verdict {
        return list_by_verdict(session, tenant, filter, verdict, page, below.unwrap_or(i64::MAX)).await;
    }
    let mut query = filtered(tenant, filter);
    query.with_some(" AND c.position < ", below).with(" ORDER BY c.position DESC LIMIT ", rows_wanted(page));
    let rows = query.fetch(session).await?;
    let changes = judged(session, &rows).await?;
    Ok(crate::cursor::listed(changes, page, "changes", |change: &ChangeRow| change.position.0))
}

/// Goes through the runs of judgements that hold the verdict, newest first.
async fn list_by_verdict(
    session: &mut Session,
    tenant: &TenantId,
    filter: &ChangeFilter,
    verdict: Verdict,
    page: &Page,
    mut below: i64,
) -> Result<Listed<ChangeRow>> {
    let limit = rows_wanted(page) as usize - 1;
    let mut items = Vec::new();
    let mut searched = 0;
    loop {
        let sql = "SELECT first, last, body FROM judgements WHERE first < $1 AND (verdicts & $2) <> 0 ORDER BY first DESC LIMIT $3";
        let blocks = session.fetch(sql, vec![below.into(), bit(verdict).into(), SEARCH_STEP.into()]).await?;
        searched += blocks.len();
        let is_last = (blocks.len() as i64) < SEARCH_STEP;
        for row in &blocks {
            let block = block(row)?;
            for run in block.runs().filter(|run| run.verdict == verdict && run.first < below).collect::<Vec<_>>().into_iter().rev() {
                let last = run.last.min(below - 1);
                let mut query = filtered(tenant, filter);
                query
                    .with(" AND c.position BETWEEN ", run.first)
                    .with(" AND ", last)
                    .with(" ORDER BY c.position DESC LIMIT ", (limit + 1 - items.len()) as i64);
                for row in query.fetch(session).await? {
                    items.push(change(&row, Some(&block))?);
                }
                if items.len() > limit {
                    items.truncate(limit);
                    let next = items.last().map(|last: &ChangeRow| cursor("changes", &last.position.0));
                    return Ok(Listed { items, next });
                }
            }
            below = block.first;
        }
        if is_last {
            return Ok(Listed { items, next: None });
        }
        if searched >= SEARCH_LIMIT {
            return Ok(Listed { items, next: Some(cursor("changes", &below)) });
        }
    }
}

pub(crate) async fn one(session: &mut Session, tenant: &TenantId, position: Position) -> Result<Option<ChangeRow>> {
    let mut query = filtered(tenant, &ChangeFilter::default());
    query.with(" AND c.position = ", position.0);
    let rows = query.fetch(session).await?;
    Ok(judged(session, &rows).await?.pop())
}

/// Changes that were judged after a position, oldest first.
pub(crate) async fn judged_after(session: &mut Session, tenant: &TenantId, after: i64, limit: u32) -> Result<Vec<ChangeRow>> {
    let judged = session.fetch_one("SELECT position FROM cursors WHERE name = 'judged'", Vec::new()).await?.cells().integer()?;
    let mut query = filtered(tenant, &ChangeFilter::default());
    query.with(" AND c.position > ", after).with(" AND c.position <= ", judged).with(" ORDER BY c.position LIMIT ", limit);
    let rows = query.fetch(session).await?;
    self::judged(session, &rows).await
}

async fn judged(session: &mut Session, rows: &[Row]) -> Result<Vec<ChangeRow>> {
    let mut firsts = Vec::new();
    for row in rows {
        let mut cells = row.cells();
        cells.integer()?;
        firsts.extend(cells.integer_or_none()?);
    }
    firsts.sort_unstable();
    firsts.dedup();
    let sql = "WITH given (first) AS ({rows}) SELECT j.first, j.last, j.body FROM given JOIN judgements j ON j.first = given.first";
    let mut blocks = BTreeMap::new();
    for row in session.bulk(sql, vec![Column::integers(firsts)]).await? {
        let block = block(&row)?;
        blocks.insert(block.first, block);
    }
    rows.iter()
        .map(|row| {
            let mut cells = row.cells();
            cells.integer()?;
            let first = cells.integer_or_none()?;
            change(row, first.and_then(|first| blocks.get(&first)))
        })
        .collect()
}

fn block(row: &Row) -> Result<Block> {
    let mut cells = row.cells();
    let (first, last) = (cells.integer()?, cells.integer()?);
    Block::from_row(first, last, &cells.text()?)
}

fn change(row: &Row, block: Option<&Block>) -> Result<ChangeRow> {
    let mut cells = row.cells();
    let position = cells.integer()?;
    cells.integer_or_none()?;
    let (tenant, host, host_name) = (TenantId(cells.text()?), host_from_bytes(&cells.blob()?)?, cells.text()?);
    let (epoch, sequence, received_at) = (Epoch(cells.count()?), Sequence(cells.count()?), cells.time()?);
    let (kind, key) = (cells.integer()?, cells.text()?);
    Ok(ChangeRow {
        position: Position(position),
        tenant,
        host,
        host_name,
        epoch,
        sequence,
        received_at,
        change: encoding::change_from_bytes(encoding::item(kind, &key)?, &cells.blob()?)?,
        judgement: block.and_then(|block| block.judgement(position)).cloned(),
    })
}
