//! Coverage gaps as people read them.

use trueline_drift::TenantId;

use crate::cursor::{after, listed, rows_wanted};
use crate::encoding::{gap_from_bytes, host_bytes, host_from_bytes};
use crate::session::{Query, Row, Session};
use crate::{GapFilter, GapRow, Listed, Page, Result};

fn of_tenant(tenant: &TenantId) -> Query {
    let mut query = Query::new("SELECT g.id, h.uuid, h.name, g.received_at, g.body FROM gaps g CROSS JOIN hosts h");
    query.with(" WHERE h.id = g.host AND h.tenant = ", tenant.0.as_str());
    query
}

fn read(row: &Row) -> Result<GapRow> {
    let mut cells = row.cells();
    Ok(GapRow {
        id: cells.integer()?,
        host: host_from_bytes(&cells.blob()?)?,
        host_name: cells.text()?,
        received_at: cells.time()?,
        gap: gap_from_bytes(&cells.blob()?)?,
    })
}

pub(crate) async fn list(session: &mut Session, tenant: &TenantId, filter: &GapFilter, page: &Page) -> Result<Listed<GapRow>> {
    let mut query = of_tenant(tenant);
    query
        .with_some(" AND h.uuid = ", filter.host.map(host_bytes))
        .with_some(" AND g.id < ", after::<i64>(page, "gaps")?)
        .with(" ORDER BY g.id DESC LIMIT ", rows_wanted(page));
    let gaps = query.fetch(session).await?.iter().map(read).collect::<Result<_>>()?;
    Ok(listed(gaps, page, "gaps", |gap: &GapRow| gap.id))
}

/// Oldest first.
pub(crate) async fn received_after(session: &mut Session, tenant: &TenantId, after: i64, limit: u32) -> Result<Vec<GapRow>> {
    let mut query = of_tenant(tenant);
    query.with(" AND g.id > ", after).with(" ORDER BY g.id LIMIT ", limit);
    query.fetch(session).await?.iter().map(read).collect()
}
