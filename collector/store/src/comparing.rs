//! A host's whole state beside its baseline, in pages by fingerprint.

use std::collections::BTreeMap;

use trueline_drift::baseline::Expectation;
use trueline_drift::item::ItemFingerprint;
use trueline_drift::judge::BaselineName;
use trueline_drift::{HostId, ItemId};

use crate::baselines;
use crate::encoding::{self, fields_from_bytes, fingerprint_from_bytes, host_bytes, host_from_bytes};
use crate::judging::{expectation, open_by_item};
use crate::session::{Cells, Column, Lock, Query, Row, Session};
use crate::{CompareRow, Compared, DriftWrite, HostToCompare, Result, drift_writing, hosts};

/// Holds of a host `h` whose changes are all judged: comparing it before would take away what they explain.
pub(crate) const JUDGED: &str = "NOT EXISTS (SELECT 1 FROM changes c WHERE c.host = h.id \
    AND c.position > (SELECT j.position FROM cursors j WHERE j.name = 'judged'))";

/// Of a host whose inventory is under way, what is not listed yet is not known to be missing.
pub(crate) async fn due(session: &mut Session, after: Option<HostId>, limit: u32) -> Result<Vec<HostToCompare>> {
    let mut query = Query::new(
        "SELECT h.uuid, h.generation, b.id, b.name, b.version FROM hosts h LEFT JOIN baselines b ON b.id = h.baseline \
        WHERE h.generation > h.compared_generation AND h.revoked_at IS NULL AND h.inventory_epoch = h.epoch AND ",
    );
    query.text(JUDGED).with_some(" AND h.uuid > ", after.map(host_bytes)).with(" ORDER BY h.uuid LIMIT ", limit);
    let rows = query.fetch(session).await?;
    rows.iter()
        .map(|row| {
            let mut cells = row.cells();
            let (host, generation) = (host_from_bytes(&cells.blob()?)?, cells.integer()?);
            let baseline = match cells.integer_or_none()? {
                Some(id) => Some((id, BaselineName { name: cells.text()?, version: cells.count()? })),
                None => None,
            };
            Ok(HostToCompare { host, baseline, generation })
        })
        .collect()
}

/// What is known of one fingerprint.
#[derive(Default)]
struct Side {
    item: Option<ItemId>,
    item_row: Option<i64>,
    fields: Option<trueline_drift::Fields>,
    expectation: Option<Expectation>,
}

/// Every open drift's item has a row among the host's items, so the items and the baseline's are the
/// whole union.
pub(crate) async fn page(
    session: &mut Session,
    host: &HostToCompare,
    after: Option<ItemFingerprint>,
    limit: u32,
) -> Result<Vec<CompareRow>> {
    let row = session.fetch_optional("SELECT id FROM hosts WHERE uuid = $1", vec![host_bytes(host.host).into()]).await?;
    let host_row = row.ok_or_else(|| hosts::unknown(host.host))?.cells().integer()?;
    let head = match &host.baseline {
        Some((id, _)) => baselines::heads(session, vec![*id]).await?.remove(id),
        None => None,
    };
    let after = after.map(|fingerprint| fingerprint.0.to_vec());
    let mut sides: BTreeMap<[u8; 16], Side> = BTreeMap::new();

    let mut query = Query::new("SELECT fingerprint, kind, key, id, present, fields FROM items");
    query.with(" WHERE host = ", host_row).with_some(" AND fingerprint > ", after.clone()).with(" ORDER BY fingerprint LIMIT ", limit);
    for row in query.fetch(session).await? {
        let mut cells = row.cells();
        let side = side(&mut sides, &mut cells)?;
        side.item_row = Some(cells.integer()?);
        let (present, fields) = (cells.integer()?, cells.blob_or_none()?);
        side.fields = fields.filter(|_| present == 1).map(|fields| fields_from_bytes(&fields)).transpose()?;
    }
    if let (Some((id, _)), Some(head)) = (&host.baseline, &head) {
        let mut query = Query::new("SELECT fingerprint, kind, key, absent, fields FROM baseline_items");
        query.with(" WHERE baseline = ", *id).with_some(" AND fingerprint > ", after).with(" ORDER BY fingerprint LIMIT ", limit);
        for row in query.fetch(session).await? {
            let mut cells = row.cells();
            let side = side(&mut sides, &mut cells)?;
            let item = side.item.clone().ok_or_else(|| encoding::corrupt("baseline item", "has no name"))?;
            side.expectation = Some(expectation(&mut cells, head, &item)?);
        }
    }
    // Each side is complete up to its own limit: the smaller half of the union is complete on both.
    let sides: Vec<_> = sides.into_iter().take(limit as usize).collect();
    let open = open_drifts(session, sides.iter().filter_map(|(_, side)| side.item_row).collect()).await?;
    let mut open = open_by_item(&open)?;
    sides
        .into_iter()
        .map(|(fingerprint, side)| {
            let item = side.item.ok_or_else(|| encoding::corrupt("item", "has no name"))?;
            let unlisted = || head.as_ref().map_or(Expectation::Free, |head| head.unlisted(&item));
            let expectation = side.expectation.unwrap_or_else(unlisted);
            let open = side.item_row.and_then(|row| open.remove(&row)).unwrap_or_default();
            Ok(CompareRow {
                fingerprint: ItemFingerprint(fingerprint),
                item,
                item_row: side.item_row,
                fields: side.fields,
                expectation,
                open,
            })
        })
        .collect()
}

/// From the cells `fingerprint, kind, key`.
fn side<'a>(sides: &'a mut BTreeMap<[u8; 16], Side>, cells: &mut Cells<'_>) -> Result<&'a mut Side> {
    let fingerprint = fingerprint_from_bytes(&cells.blob()?)?;
    let (kind, key) = (cells.integer()?, cells.text()?);
    let side = sides.entry(fingerprint.0).or_default();
    if side.item.is_none() {
        side.item = Some(encoding::item(kind, &key)?);
    }
    Ok(side)
}

async fn open_drifts(session: &mut Session, items: Vec<i64>) -> Result<Vec<Row>> {
    let sql = "WITH given (item) AS ({rows}) SELECT d.item, d.field, d.expected, d.actual, d.change \
        FROM given JOIN drift d ON d.item = given.item WHERE d.resolved_at IS NULL";
    session.bulk(sql, vec![Column::integers(items)]).await
}

/// One page, read and written under the locks of append and judge.
pub(crate) async fn compare(
    session: &mut Session,
    host: &HostToCompare,
    after: Option<ItemFingerprint>,
    limit: u32,
    decide: &(dyn Fn(Vec<CompareRow>) -> Vec<DriftWrite> + Send + Sync),
) -> Result<Compared> {
    session.lock(Lock::Log).await?;
    session.lock(Lock::Drift).await?;
    let mut query = Query::new("SELECT CASE WHEN ");
    query
        .text(JUDGED)
        .with(" THEN 1 ELSE 0 END FROM hosts h WHERE h.uuid = ", host_bytes(host.host))
        .with(" AND h.generation = ", host.generation)
        .text(" AND h.revoked_at IS NULL AND h.inventory_epoch = h.epoch");
    let standing = query.fetch(session).await?;
    let Some(standing) = standing.first() else { return Ok(Compared::Superseded) };
    if standing.cells().integer()? == 0 {
        return Ok(Compared::Unjudged);
    }
    let rows = page(session, host, after, limit).await?;
    let Some(last) = rows.last().map(|row| row.fingerprint) else { return Ok(Compared::End) };
    let writes = decide(rows);
    drift_writing::write(session, &writes).await?;
    Ok(Compared::UpTo(last))
}

pub(crate) async fn done(session: &mut Session, host: &HostToCompare) -> Result<()> {
    let sql = "UPDATE hosts SET compared_generation = $1 WHERE uuid = $2 AND compared_generation < $1";
    session.execute(sql, vec![host.generation.into(), host_bytes(host.host).into()]).await.map(drop)
}
