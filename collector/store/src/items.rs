//! The present items of a host, as people list them.

use trueline_drift::{HostId, TenantId};

use crate::baselines::starts_with;
use crate::cursor::{after, cursor, rows_wanted};
use crate::encoding::{self, Numbered, fields_from_bytes, host_bytes};
use crate::session::{Query, Row, Session};
use crate::{HostItem, ItemFilter, Listed, Page, Result};

/// Listed by fingerprint: keys are too long to be kept in order.
pub(crate) async fn list(
    session: &mut Session,
    tenant: &TenantId,
    host: HostId,
    filter: &ItemFilter,
    page: &Page,
) -> Result<Listed<HostItem>> {
    let after: Option<String> = after(page, "items")?;
    let after = after.map(|fingerprint| hex::decode(fingerprint).unwrap_or_default());
    let mut query = Query::new("SELECT i.fingerprint, i.kind, i.key, i.fields, i.observed_at FROM items i");
    query
        .with(" WHERE i.host = (SELECT h.id FROM hosts h WHERE h.tenant = ", tenant.0.as_str())
        .with(" AND h.uuid = ", host_bytes(host))
        .text(") AND i.present = 1")
        .with_some(" AND i.kind = ", filter.kind.map(Numbered::number))
        .with_some(" AND i.fingerprint > ", after);
    starts_with(&mut query, "i.key", filter.prefix.as_deref().unwrap_or(""));
    query.with(" ORDER BY i.fingerprint LIMIT ", rows_wanted(page));
    let mut rows = query.fetch(session).await?;
    let limit = rows_wanted(page) as usize - 1;
    let more = rows.len() > limit;
    rows.truncate(limit);
    let next = match rows.last().filter(|_| more) {
        Some(last) => Some(cursor("items", &hex::encode(last.cells().blob()?))),
        None => None,
    };
    Ok(Listed { items: rows.iter().map(item).collect::<Result<_>>()?, next })
}

fn item(row: &Row) -> Result<HostItem> {
    let mut cells = row.cells();
    cells.blob()?;
    let (kind, key) = (cells.integer()?, cells.text()?);
    Ok(HostItem {
        item: encoding::item(kind, &key)?,
        fields: fields_from_bytes(&cells.blob_or_none()?.unwrap_or_default())?,
        observed_at: cells.time()?,
    })
}
