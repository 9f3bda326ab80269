//! The present items of a host, as people list them.

use trueline_drift::{HostId, ItemId, TenantId};

use crate::baselines::starts_with;
use crate::cursor::{after, cursor, rows_wanted};
use crate::encoding::{self, Numbered, fields_from_bytes, host_bytes};
use crate::session::{Column, Query, Row, Session};
use crate::{HostItem, ItemFilter, Listed, Page, Result};

/// The column `present` of an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Presence {
    Gone,
    There,
    /// In view no longer: its fields are the last that were known.
    Unwatched,
}

impl Presence {
    pub const fn number(self) -> i64 {
        match self {
            Self::Gone => 0,
            Self::There => 1,
            Self::Unwatched => 2,
        }
    }

    pub fn from_number(number: i64) -> Result<Self> {
        match number {
            0 => Ok(Self::Gone),
            1 => Ok(Self::There),
            2 => Ok(Self::Unwatched),
            other => Err(encoding::corrupt("item", format!("has the presence {other}"))),
        }
    }
}

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

/// Those of the items that the host has now.
pub(crate) async fn present(session: &mut Session, tenant: &TenantId, host: HostId, items: &[ItemId]) -> Result<Vec<ItemId>> {
    let sql = "SELECT id FROM hosts WHERE tenant = $1 AND uuid = $2";
    let row = session.fetch_optional(sql, vec![tenant.0.as_str().into(), host_bytes(host).into()]).await?;
    let Some(row) = row else { return Ok(Vec::new()) };
    let host = row.cells().integer()?;
    let sql = "WITH given (host, fingerprint) AS ({rows}) SELECT i.kind, i.key FROM given \
        JOIN items i ON i.host = given.host AND i.fingerprint = given.fingerprint WHERE i.present = 1";
    let columns = vec![Column::integers(items.iter().map(|_| host)), Column::blobs(items.iter().map(|item| item.fingerprint().0.to_vec()))];
    let rows = session.bulk(sql, columns).await?;
    rows.iter()
        .map(|row| {
            let mut cells = row.cells();
            let (kind, key) = (cells.integer()?, cells.text()?);
            encoding::item(kind, &key)
        })
        .collect()
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
