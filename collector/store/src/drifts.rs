//! Drift as people read it, and their having seen it.

use trueline_drift::{DriftType, FieldName, ItemKind, Severity, TenantId, Time, Verdict};

use crate::cursor::{after, listed, rows_wanted};
use crate::drift_writing::{self, LogEntry};
use crate::encoding::{self, Numbered, from_json, host_bytes, host_from_bytes, maker_from_bytes, value_from_bytes};
use crate::session::{Cells, Lock, Query, Session};
use crate::{Acknowledged, DriftEvent, DriftFilter, DriftRow, DriftState, Explanation, Folded, Listed, Page, Position, Result, folding};

/// Columns of a drift `d` as [`read`] reads them, and what belongs to it.
fn selected() -> String {
    format!("{COLUMNS}, i.shipped_by, {}, {} FROM", folding::package("key"), folding::folds())
}

const COLUMNS: &str = "d.id, d.tenant, h.uuid, h.name, i.kind, i.key, d.field, d.expected, d.actual, d.verdict, d.severity, d.drift_type, \
    d.reasons, d.opened_at, d.updated_at, d.resolved_at, d.change, c.body, d.resolved_by, d.acknowledged_at, d.acknowledged_by, \
    d.acknowledged_note";
const JOINS: &str = "JOIN hosts h ON h.id = d.host JOIN items i ON i.id = d.item LEFT JOIN changes c ON c.position = d.change";

fn read(cells: &mut Cells<'_>) -> Result<DriftRow> {
    let (id, tenant) = (cells.integer()?, TenantId(cells.text()?));
    let (host, host_name) = (host_from_bytes(&cells.blob()?)?, cells.text()?);
    let (kind, key) = (cells.integer()?, cells.text()?);
    let mut row = DriftRow {
        id,
        tenant,
        host,
        host_name,
        item: encoding::item(kind, &key)?,
        field: FieldName::new(&cells.text()?),
        expected: value_from_bytes(cells.blob_or_none()?)?,
        actual: value_from_bytes(cells.blob_or_none()?)?,
        verdict: Verdict::from_number(cells.integer()?)?,
        severity: Severity::from_number(cells.integer()?)?,
        drift_type: DriftType::from_number(cells.integer()?)?,
        state: DriftState::Open,
        reasons: from_json("reasons", &cells.text()?)?,
        opened_at: cells.time()?,
        updated_at: cells.time()?,
        resolved_at: cells.time_or_none()?,
        change: match (cells.integer_or_none()?, cells.blob_or_none()?) {
            (Some(position), Some(body)) => {
                let (actor, transaction) = maker_from_bytes(&body)?;
                Some(Explanation { position: Position(position), actor, transaction })
            }
            _ => None,
        },
        resolved_by: cells.integer_or_none()?.map(Position),
        acknowledged: match (cells.time_or_none()?, cells.text_or_none()?, cells.text_or_none()?) {
            (Some(at), Some(by), note) => Some(Acknowledged { at, by, note }),
            _ => None,
        },
        part_of: cells.blob_or_none()?.as_deref().map(encoding::fingerprint_from_bytes).transpose()?,
        folded_under: match cells.text_or_none()? {
            Some(key) => Some(encoding::item(ItemKind::Package.number(), &key)?),
            None => None,
        },
        folds: cells.count()?,
    };
    row.state = match (&row.resolved_at, &row.acknowledged) {
        (Some(_), _) => DriftState::Resolved,
        (None, Some(_)) => DriftState::Acknowledged,
        (None, None) => DriftState::Open,
    };
    Ok(row)
}

fn of_tenant(tenant: &TenantId) -> Query {
    let mut query = Query::new(&format!("SELECT {} drift d {JOINS}", selected()));
    query.with(" WHERE d.tenant = ", tenant.0.as_str());
    query
}

pub(crate) async fn list(session: &mut Session, tenant: &TenantId, filter: &DriftFilter, page: &Page) -> Result<Listed<DriftRow>> {
    let mut query = of_tenant(tenant);
    query
        .with_some(" AND d.host = (SELECT id FROM hosts WHERE uuid = ", filter.host.map(host_bytes))
        .text(if filter.host.is_some() { ")" } else { "" })
        .with_some(" AND i.fingerprint = ", filter.item.as_ref().map(|item| item.fingerprint().0.to_vec()))
        .with_some(" AND i.kind = ", filter.kind.map(Numbered::number))
        .with_some(" AND d.verdict = ", filter.verdict.map(Numbered::number))
        .with_some(" AND d.severity = ", filter.severity.map(Numbered::number))
        .text(match filter.state {
            Some(DriftState::Open) => " AND d.resolved_at IS NULL AND d.acknowledged_at IS NULL",
            Some(DriftState::Acknowledged) => " AND d.resolved_at IS NULL AND d.acknowledged_at IS NOT NULL",
            Some(DriftState::Resolved) => " AND d.resolved_at IS NOT NULL",
            None => "",
        })
        .text(if filter.unresolved { " AND d.resolved_at IS NULL" } else { "" });
    let is_folded = folding::is_folded();
    match &filter.folded {
        Folded::Listed => &mut query,
        // Nothing that is resolved is folded.
        Folded::LeftOut if filter.state == Some(DriftState::Resolved) => &mut query,
        Folded::LeftOut => query.text(" AND NOT ").text(&is_folded),
        Folded::Only => query.text(" AND ").text(&is_folded),
        Folded::Under(of) => query.with(" AND i.shipped_by = ", of.fingerprint().0.to_vec()).text(" AND ").text(&is_folded),
    }
    .with_some(" AND d.id < ", after::<i64>(page, "drift")?)
    .with(" ORDER BY d.id DESC LIMIT ", rows_wanted(page));
    let rows = query.fetch(session).await?;
    let drifts = rows.iter().map(|row| read(&mut row.cells())).collect::<Result<_>>()?;
    Ok(listed(drifts, page, "drift", |drift: &DriftRow| drift.id))
}

pub(crate) async fn one(session: &mut Session, tenant: &TenantId, id: i64) -> Result<Option<DriftRow>> {
    let mut query = of_tenant(tenant);
    query.with(" AND d.id = ", id);
    query.fetch(session).await?.first().map(|row| read(&mut row.cells())).transpose()
}

pub(crate) async fn acknowledge(
    session: &mut Session,
    tenant: &TenantId,
    id: i64,
    by: &str,
    note: Option<&str>,
    now: Time,
) -> Result<bool> {
    session.lock(Lock::Drift).await?;
    let sql = "UPDATE drift SET acknowledged_at = $1, acknowledged_by = $2, acknowledged_note = $3 \
        WHERE id = $4 AND tenant = $5 AND resolved_at IS NULL";
    let cells = vec![now.into(), by.into(), note.into(), id.into(), tenant.0.as_str().into()];
    if session.execute(sql, cells).await? == 0 {
        return Ok(false);
    }
    let entry = LogEntry { tenant: tenant.0.clone(), drift: id, event: DriftEvent::Acknowledged, at: now.micros() };
    drift_writing::log(session, vec![entry]).await?;
    Ok(true)
}

/// What the log says happened after a place, with the rows as they are now.
pub(crate) async fn logged_after(
    session: &mut Session,
    tenant: &TenantId,
    after: i64,
    limit: u32,
) -> Result<Vec<(i64, DriftEvent, DriftRow)>> {
    let mut query = Query::new(&format!("SELECT l.place, l.event, {} drift_log l JOIN drift d ON d.id = l.drift {JOINS}", selected()));
    query.with(" WHERE l.tenant = ", tenant.0.as_str()).with(" AND l.place > ", after).with(" ORDER BY l.place LIMIT ", limit);
    let rows = query.fetch(session).await?;
    rows.iter()
        .map(|row| {
            let mut cells = row.cells();
            let (place, event) = (cells.integer()?, DriftEvent::from_number(cells.integer()?)?);
            Ok((place, event, read(&mut cells)?))
        })
        .collect()
}
