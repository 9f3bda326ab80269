//! Taking batches of many hosts into the log in one transaction.
//!
//! What costs computing (encoding, fingerprints) is done before (`prepared.rs`). The log's lock is held from
//! reading where the streams stand until the commit, so that positions grow in commit order.

use std::collections::HashMap;

use trueline_drift::change::ChangeKind;
use trueline_drift::{Epoch, HostId, Sequence, Time};

use crate::encoding::{self, host_bytes, host_from_bytes};
use crate::grouping::Group;
use crate::hosts;
use crate::items::Presence;
use crate::prepared::{Entry, ItemState, Package, Prepared};
use crate::session::{Column, Lock, Patience, Session};
use crate::stream::{Decision, Stream};
use crate::{AppendOutcome, Result};

/// A host within one append.
struct Standing {
    row: i64,
    stream: Stream,
    moved: bool,
    /// An inventory that ended in this append: of which epoch, and when.
    inventory: Option<(Epoch, i64)>,
}

/// Rows that the accepted batches make.
#[derive(Default)]
struct Rows<'a> {
    items: Vec<ItemRow<'a>>,
    /// Where in `items` an item of a host is: of several states in one append only the last is written.
    places: HashMap<(i64, [u8; 16]), usize>,
    changes: Vec<ChangeRow<'a>>,
    gaps: Vec<GapRow<'a>>,
}

struct ItemRow<'a> {
    host: i64,
    epoch: Epoch,
    state: &'a ItemState,
    fields: Option<&'a [u8]>,
    package: Package,
    /// It may have been there or not before: another thing than a change of what is there was said of it.
    may_come_or_go: bool,
}

struct ChangeRow<'a> {
    host: i64,
    /// Place in [`Rows::items`].
    item: usize,
    epoch: Epoch,
    sequence: u64,
    observed_at: i64,
    body: &'a [u8],
    groups: &'a [Group],
}

struct GapRow<'a> {
    host: i64,
    epoch: Epoch,
    sequence: u64,
    body: &'a [u8],
}

impl<'a> Rows<'a> {
    fn item(&mut self, host: i64, epoch: Epoch, state: &'a ItemState, may_come_or_go: bool) -> usize {
        let next = self.items.len();
        let place = *self.places.entry((host, state.fingerprint)).or_insert(next);
        let mut row = ItemRow { host, epoch, state, fields: state.fields.as_deref(), package: state.package, may_come_or_go };
        if place == next {
            self.items.push(row);
        } else {
            let before = &mut self.items[place];
            row.may_come_or_go |= before.may_come_or_go;
            row.package = state.package.after(before.package, before.fields == row.fields);
            if state.presence == Presence::Unwatched {
                row.fields = before.fields;
            }
            *before = row;
        }
        place
    }

    fn record(&mut self, standing: &mut Standing, epoch: Epoch, sequence: Sequence, entry: &'a Entry) {
        let host = standing.row;
        match entry {
            Entry::Observed(state) | Entry::Unwatched(state) => {
                self.item(host, epoch, state, true);
            }
            Entry::Changed { state, kind, observed_at, body, groups } => {
                let item = self.item(host, epoch, state, *kind != ChangeKind::Modified);
                self.changes.push(ChangeRow { host, item, epoch, sequence: sequence.0, observed_at: *observed_at, body, groups });
            }
            Entry::Gap(body) => self.gaps.push(GapRow { host, epoch, sequence: sequence.0, body }),
            Entry::InventoryComplete { observed_at } => standing.inventory = Some((epoch, *observed_at)),
        }
    }
}

pub(crate) async fn append(session: &mut Session, batches: &[Prepared], received_at: Time) -> Result<Vec<AppendOutcome>> {
    session.lock(Lock::Log).await?;
    let mut standings = standings(session, batches).await?;
    let mut rows = Rows::default();
    let mut outcomes = Vec::with_capacity(batches.len());
    for batch in batches {
        let Some(standing) = standings.get_mut(&batch.host) else {
            outcomes.push(AppendOutcome::UnknownHost);
            continue;
        };
        let skip = match standing.stream.offer(&batch.offer) {
            Decision::Refuse(outcome) => {
                outcomes.push(outcome);
                continue;
            }
            Decision::Take { skip } => skip,
        };
        let before = rows.changes.len();
        standing.moved |= skip < batch.offer.records;
        for (at, entry) in (0..).zip(&batch.records).skip(skip as usize) {
            rows.record(standing, batch.offer.epoch, batch.offer.first.plus(at), entry);
        }
        let acknowledged = standing.stream.position(batch.offer.epoch).acknowledged;
        outcomes.push(AppendOutcome::Accepted { acknowledged, changes: (rows.changes.len() - before) as u64 });
    }
    let came = items_that_came(session, &rows.items).await?;
    let items = write_items(session, &rows.items).await?;
    write_changes(session, rows.changes, &items, received_at).await?;
    write_gaps(session, rows.gaps, received_at).await?;
    let moved: Vec<&Standing> = standings.values().filter(|standing| standing.moved).collect();
    move_hosts(session, &moved, &came, received_at).await?;
    for standing in moved {
        if let Some((epoch, observed_at)) = standing.inventory {
            session.be_patient(Patience::Long).await?;
            complete_inventory(session, standing.row, epoch, observed_at).await?;
        }
    }
    Ok(outcomes)
}

async fn standings(session: &mut Session, batches: &[Prepared]) -> Result<HashMap<HostId, Standing>> {
    let mut hosts: Vec<HostId> = batches.iter().map(|batch| batch.host).collect();
    hosts.sort_unstable();
    hosts.dedup();
    let sql = "WITH given (uuid) AS ({rows}) SELECT h.id, h.uuid, h.revoked_at, h.epoch, h.acknowledged, h.link \
        FROM given JOIN hosts h ON h.uuid = given.uuid";
    let found = session.bulk(sql, vec![Column::blobs(hosts.into_iter().map(host_bytes))]).await?;
    found
        .iter()
        .map(|row| {
            let mut cells = row.cells();
            let (row, host) = (cells.integer()?, host_from_bytes(&cells.blob()?)?);
            let stream = hosts::stream(&mut cells)?;
            Ok((host, Standing { row, stream, moved: false, inventory: None }))
        })
        .collect()
}

/// How many items more, or fewer, each host has than before these rows.
async fn items_that_came(session: &mut Session, items: &[ItemRow<'_>]) -> Result<HashMap<i64, i64>> {
    let moving = || items.iter().filter(|row| row.may_come_or_go);
    let mut came: HashMap<i64, i64> = HashMap::new();
    for row in moving().filter(|row| row.state.presence == Presence::There) {
        *came.entry(row.host).or_default() += 1;
    }
    // CROSS JOIN keeps SQLite from going through all items for each part of these rows; PostgreSQL plans as it would for JOIN.
    let sql = "WITH given (host, fingerprint) AS ({rows}) SELECT i.host FROM given CROSS JOIN items i \
        WHERE i.host = given.host AND i.fingerprint = given.fingerprint AND i.present = 1";
    let columns = vec![Column::integers(moving().map(|row| row.host)), Column::blobs(moving().map(|row| row.state.fingerprint.to_vec()))];
    for row in session.bulk(sql, columns).await? {
        *came.entry(row.cells().integer()?).or_default() -= 1;
    }
    Ok(came)
}

fn said(package: Package) -> Option<[u8; 16]> {
    if let Package::Said(fingerprint) = package { fingerprint } else { None }
}

/// Returns the rows of the items, in their order.
async fn write_items(session: &mut Session, items: &[ItemRow<'_>]) -> Result<Vec<i64>> {
    let sql = "WITH given (host, fingerprint, kind, key, present, fields, observed_at, epoch, is_package_said, shipped_by) AS ({rows}) \
        INSERT INTO items (host, fingerprint, kind, key, present, fields, observed_at, epoch, shipped_by) \
        SELECT host, fingerprint, kind, key, present, fields, observed_at, epoch, \
        CASE WHEN is_package_said = 1 THEN shipped_by ELSE (SELECT i.shipped_by FROM items i \
        WHERE i.host = given.host AND i.fingerprint = given.fingerprint AND i.shipped_by IS NOT NULL \
        AND (given.fields IS NULL OR i.fields = given.fields)) END FROM given WHERE true \
        ON CONFLICT (host, fingerprint) DO UPDATE SET present = excluded.present, \
        fields = CASE WHEN excluded.present = 2 THEN COALESCE(excluded.fields, items.fields) ELSE excluded.fields END, \
        observed_at = excluded.observed_at, epoch = excluded.epoch, shipped_by = excluded.shipped_by RETURNING id, host, fingerprint";
    let columns = vec![
        Column::integers(items.iter().map(|row| row.host)),
        Column::blobs(items.iter().map(|row| row.state.fingerprint.to_vec())),
        Column::integers(items.iter().map(|row| row.state.kind)),
        Column::texts(items.iter().map(|row| row.state.key.clone())),
        Column::integers(items.iter().map(|row| row.state.presence.number())),
        Column::Blobs(items.iter().map(|row| row.fields.map(<[u8]>::to_vec)).collect()),
        Column::integers(items.iter().map(|row| row.state.observed_at)),
        Column::integers(items.iter().map(|row| row.epoch.0 as i64)),
        Column::integers(items.iter().map(|row| i64::from(matches!(row.package, Package::Said(_))))),
        Column::Blobs(items.iter().map(|row| said(row.package).map(|fingerprint| fingerprint.to_vec())).collect()),
    ];
    let mut written = HashMap::with_capacity(items.len());
    for row in session.bulk(sql, columns).await? {
        let mut cells = row.cells();
        let (id, host) = (cells.integer()?, cells.integer()?);
        written.insert((host, encoding::fingerprint_from_bytes(&cells.blob()?)?.0), id);
    }
    items
        .iter()
        .map(|row| {
            let id = written.get(&(row.host, row.state.fingerprint)).copied();
            id.ok_or_else(|| encoding::corrupt("item", "was written and not returned"))
        })
        .collect()
}

async fn write_changes(session: &mut Session, changes: Vec<ChangeRow<'_>>, items: &[i64], received_at: Time) -> Result<()> {
    if changes.is_empty() {
        return Ok(());
    }
    let first = advance(session, "changes", changes.len()).await?;
    let count = changes.len();
    let sql = "WITH given (position, host, item, epoch, sequence, observed_at, received_at, body) AS ({rows}) \
        INSERT INTO changes (position, host, item, epoch, sequence, observed_at, received_at, body) \
        SELECT position, host, item, epoch, sequence, observed_at, received_at, body FROM given";
    let columns = vec![
        Column::integers((first..).take(count)),
        Column::integers(changes.iter().map(|change| change.host)),
        Column::integers(changes.iter().map(|change| items[change.item])),
        Column::integers(changes.iter().map(|change| change.epoch.0 as i64)),
        Column::integers(changes.iter().map(|change| change.sequence as i64)),
        Column::integers(changes.iter().map(|change| change.observed_at)),
        Column::integers(std::iter::repeat_n(received_at.micros(), count)),
        Column::blobs(changes.iter().map(|change| change.body.to_vec())),
    ];
    session.bulk(sql, columns).await?;
    let grouped = || (first..).zip(&changes).flat_map(|(position, change)| change.groups.iter().map(move |group| (*group, position)));
    let sql = "WITH given (fingerprint, position) AS ({rows}) \
        INSERT INTO change_groups (fingerprint, position) SELECT fingerprint, position FROM given";
    let columns =
        vec![Column::blobs(grouped().map(|(group, _)| group.to_vec())), Column::integers(grouped().map(|(_, position)| position))];
    session.bulk(sql, columns).await.map(drop)
}

async fn write_gaps(session: &mut Session, gaps: Vec<GapRow<'_>>, received_at: Time) -> Result<()> {
    if gaps.is_empty() {
        return Ok(());
    }
    let first = advance(session, "gaps", gaps.len()).await?;
    let count = gaps.len();
    let sql = "WITH given (id, host, epoch, sequence, received_at, body) AS ({rows}) \
        INSERT INTO gaps (id, host, epoch, sequence, received_at, body) \
        SELECT id, host, epoch, sequence, received_at, body FROM given";
    let columns = vec![
        Column::integers((first..).take(count)),
        Column::integers(gaps.iter().map(|gap| gap.host)),
        Column::integers(gaps.iter().map(|gap| gap.epoch.0 as i64)),
        Column::integers(gaps.iter().map(|gap| gap.sequence as i64)),
        Column::integers(std::iter::repeat_n(received_at.micros(), count)),
        Column::blobs(gaps.iter().map(|gap| gap.body.to_vec())),
    ];
    session.bulk(sql, columns).await.map(drop)
}

/// Takes the next numbers of a log, whose lock is held; returns the first.
pub(crate) async fn advance(session: &mut Session, log: &str, count: usize) -> Result<i64> {
    let count = i64::try_from(count).unwrap_or(i64::MAX);
    let sql = "UPDATE cursors SET position = position + $1 WHERE name = $2 RETURNING position";
    let row = session.fetch_one(sql, vec![count.into(), log.into()]).await?;
    Ok(row.cells().integer()? - count + 1)
}

async fn move_hosts(session: &mut Session, moved: &[&Standing], came: &HashMap<i64, i64>, received_at: Time) -> Result<()> {
    let sql = "WITH given (id, epoch, acknowledged, link, seen_at, items) AS ({rows}) \
        UPDATE hosts SET epoch = given.epoch, acknowledged = given.acknowledged, link = given.link, last_seen_at = given.seen_at, \
        items = CASE WHEN hosts.items + given.items < 0 THEN 0 ELSE hosts.items + given.items END \
        FROM given WHERE hosts.id = given.id";
    let columns = vec![
        Column::integers(moved.iter().map(|standing| standing.row)),
        Column::integers(moved.iter().map(|standing| standing.stream.epoch.0 as i64)),
        Column::integers(moved.iter().map(|standing| standing.stream.acknowledged.0 as i64)),
        Column::blobs(moved.iter().map(|standing| standing.stream.link.0.to_vec())),
        Column::integers(moved.iter().map(|_| received_at.micros())),
        Column::integers(moved.iter().map(|standing| came.get(&standing.row).copied().unwrap_or(0))),
    ];
    session.bulk(sql, columns).await.map(drop)
}

/// Every item has been observed in this epoch: what only older epochs spoke of is gone.
async fn complete_inventory(session: &mut Session, host: i64, epoch: Epoch, observed_at: i64) -> Result<()> {
    let epoch = epoch.0 as i64;
    let sql = "UPDATE items SET present = 0, fields = NULL, shipped_by = NULL WHERE host = $1 AND epoch < $2 AND present = 1";
    session.execute(sql, vec![host.into(), epoch.into()]).await?;
    let sql = "UPDATE hosts SET inventory_at = $1, inventory_epoch = $2, generation = generation + 1, \
        items = (SELECT count(*) FROM items WHERE items.host = hosts.id AND items.present = 1) WHERE id = $3";
    session.execute(sql, vec![observed_at.into(), epoch.into(), host.into()]).await.map(drop)
}
