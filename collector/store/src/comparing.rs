//! A host's whole state beside its baseline, in pages by fingerprint.

use std::collections::BTreeMap;

use trueline_drift::baseline::Expectation;
use trueline_drift::item::ItemFingerprint;
use trueline_drift::judge::BaselineName;
use trueline_drift::{HostId, ItemId};

use crate::baselines;
use crate::encoding::{self, fields_from_bytes, fingerprint_from_bytes, host_bytes, host_from_bytes};
use crate::items::Presence;
use crate::judging::{expectation, open_by_item};
use crate::session::{Cells, Column, Lock, Query, Row, Session};
use crate::{CompareRow, Compared, DriftWrite, HostToCompare, KnownState, Result, drift_writing, hosts};

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

/// A page ends with the item or the expectation that brings its side to so many bytes.
const PAGE_BYTES: u64 = 8 * 1024 * 1024;
/// Of an item with the drift that is open for it.
const ITEM_BYTES: &str = "octet_length(key) + COALESCE(octet_length(fields), 0) + COALESCE((SELECT \
    sum(COALESCE(octet_length(d.expected), 0) + COALESCE(octet_length(d.actual), 0)) \
    FROM drift d WHERE d.item = items.id AND d.resolved_at IS NULL), 0)";
const EXPECTED_BYTES: &str = "octet_length(key) + COALESCE(octet_length(fields), 0)";

/// What is known of one fingerprint.
#[derive(Default)]
struct Side {
    item: Option<ItemId>,
    item_row: Option<i64>,
    state: Option<KnownState>,
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

    let mut scope = Query::new(" FROM items WHERE host = ");
    scope.value(host_row).with_some(" AND fingerprint > ", after.clone());
    if host.baseline.is_none() {
        // Against nothing, all there is to do is to resolve what is open.
        scope.with(" AND id IN (SELECT d.item FROM drift d WHERE d.resolved_at IS NULL AND d.host = ", host_row).text(")");
    }
    let last_item = last_within(session, &scope, ITEM_BYTES, limit).await?;
    let mut query = Query::new("SELECT fingerprint, kind, key, id, present, fields");
    query.append(&scope).with_some(" AND fingerprint <= ", last_item.clone()).with(" ORDER BY fingerprint LIMIT ", limit);
    for row in query.fetch(session).await? {
        let mut cells = row.cells();
        let side = side(&mut sides, &mut cells)?;
        side.item_row = Some(cells.integer()?);
        let (presence, fields) = (Presence::from_number(cells.integer()?)?, cells.blob_or_none()?);
        side.state = match presence {
            Presence::There => Some(KnownState::There(fields_from_bytes(&fields.unwrap_or_default())?)),
            Presence::Gone => None,
            Presence::Unwatched => Some(KnownState::Unwatched),
        };
    }
    let mut last_expected = None;
    if let (Some((id, _)), Some(head)) = (&host.baseline, &head) {
        let mut scope = Query::new(" FROM baseline_items WHERE baseline = ");
        scope.value(*id).with_some(" AND fingerprint > ", after);
        last_expected = last_within(session, &scope, EXPECTED_BYTES, limit).await?;
        let mut query = Query::new("SELECT fingerprint, kind, key, absent, fields");
        query.append(&scope).with_some(" AND fingerprint <= ", last_expected.clone()).with(" ORDER BY fingerprint LIMIT ", limit);
        for row in query.fetch(session).await? {
            let mut cells = row.cells();
            let side = side(&mut sides, &mut cells)?;
            let item = side.item.clone().ok_or_else(|| encoding::corrupt("baseline item", "has no name"))?;
            side.expectation = Some(expectation(cells.integer_or_none()?, cells.blob_or_none()?, head, &item)?);
        }
    }
    // Each side is complete up to its own limit, or to where it was cut for its size: below the lesser of these and within
    // the smaller half of the union both are complete.
    let whole = last_item.into_iter().chain(last_expected).min();
    let sides: Vec<_> = sides
        .into_iter()
        .take_while(|(fingerprint, _)| whole.as_ref().is_none_or(|last| fingerprint.as_slice() <= last.as_slice()))
        .take(limit as usize)
        .collect();
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
                state: side.state.unwrap_or(KnownState::Missing),
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

/// The fingerprint at which rows `scope` speaks of, in order, have come to [`PAGE_BYTES`]; none where all that a page may
/// have is less.
async fn last_within(session: &mut Session, scope: &Query, size: &str, limit: u32) -> Result<Option<Vec<u8>>> {
    let mut query = Query::new("SELECT fingerprint, ");
    query.text(size).append(scope).with(" ORDER BY fingerprint LIMIT ", limit);
    let mut total = 0u64;
    for row in query.fetch(session).await? {
        let mut cells = row.cells();
        let fingerprint = cells.blob()?;
        total = total.saturating_add(cells.count()?);
        if total >= PAGE_BYTES {
            return Ok(Some(fingerprint));
        }
    }
    Ok(None)
}

async fn open_drifts(session: &mut Session, items: Vec<i64>) -> Result<Vec<Row>> {
    let sql = "WITH given (item) AS ({rows}) SELECT d.id, d.expected, d.actual, NULL, 0, d.item, d.field, d.change \
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
