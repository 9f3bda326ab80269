//! Taking batches of many hosts into the log in one transaction.
//!
//! What costs computing (encoding, fingerprints) is done by [`prepare`], before the log is locked. The
//! log's lock is held from reading where the streams stand until the commit, so that positions grow in
//! commit order.

use std::collections::HashMap;

use prost::Message;
use trueline_drift::change::ChangeKind;
use trueline_drift::{Change, Epoch, HostId, ItemId, Observation, RecordBody, Sequence, Time};
use trueline_proto::v1;

use crate::encoding::{self, Numbered, host_bytes, host_from_bytes};
use crate::hosts;
use crate::items::Presence;
use crate::session::{Column, Lock, Session};
use crate::stream::{Decision, Offer, Stream};
use crate::{AppendOutcome, Batch, Result};

/// A batch, encoded as it will be stored. Encoding it needs no database and is the larger part of an append's
/// computing: it is done where many can do it at once, and once however often the append is tried.
#[derive(Debug, Clone)]
pub struct Prepared {
    host: HostId,
    offer: Offer,
    records: Vec<Entry>,
}

impl Prepared {
    pub fn host(&self) -> HostId {
        self.host
    }

    pub fn first(&self) -> Sequence {
        self.offer.first
    }

    pub fn records(&self) -> usize {
        self.records.len()
    }

    pub fn ends_inventory(&self) -> bool {
        self.records.iter().any(|entry| matches!(entry, Entry::InventoryComplete { .. }))
    }

    /// What it takes in memory.
    pub fn bytes(&self) -> usize {
        let held: usize = self.records.iter().map(Entry::held).sum();
        size_of::<Self>() + self.records.len() * size_of::<Entry>() + held
    }
}

#[derive(Debug, Clone)]
enum Entry {
    Observed(ItemState),
    Changed { state: ItemState, kind: ChangeKind, observed_at: i64, body: Vec<u8> },
    Gap(Vec<u8>),
    Unwatched(ItemState),
    InventoryComplete { observed_at: i64 },
}

impl Entry {
    /// What it takes in memory beside itself.
    fn held(&self) -> usize {
        match self {
            Self::Observed(state) | Self::Unwatched(state) => state.held(),
            Self::Changed { state, body, .. } => state.held() + body.capacity(),
            Self::Gap(body) => body.capacity(),
            Self::InventoryComplete { .. } => 0,
        }
    }
}

/// How an item is after a record.
#[derive(Debug, Clone)]
struct ItemState {
    fingerprint: [u8; 16],
    kind: i64,
    key: String,
    presence: Presence,
    /// Absent once the item is gone. Of an item that is no longer watched, what was last known stays.
    fields: Option<Vec<u8>>,
    observed_at: i64,
}

impl ItemState {
    fn held(&self) -> usize {
        self.key.capacity() + self.fields.as_ref().map_or(0, Vec::capacity)
    }
}

pub fn prepare(batch: Batch) -> Prepared {
    let offer =
        Offer { epoch: batch.epoch, first: batch.first, records: batch.records.len() as u64, previous: batch.previous, link: batch.link };
    let records = batch
        .records
        .into_iter()
        .map(|record| match record {
            RecordBody::Observed(observation) => Entry::Observed(observed(observation)),
            RecordBody::Changed(change) => changed(*change),
            RecordBody::Unwatched { item, observed_at } => Entry::Unwatched(state(item, Presence::Unwatched, None, observed_at)),
            RecordBody::Gap(gap) => Entry::Gap(v1::CoverageGap::from(gap).encode_to_vec()),
            RecordBody::InventoryComplete { observed_at, .. } => Entry::InventoryComplete { observed_at: observed_at.micros() },
        })
        .collect();
    Prepared { host: batch.host, offer, records }
}

fn state(item: ItemId, presence: Presence, fields: Option<Vec<u8>>, observed_at: Time) -> ItemState {
    ItemState {
        fingerprint: item.fingerprint().0,
        kind: item.kind.number(),
        key: item.key.as_str().to_owned(),
        presence,
        fields,
        observed_at: observed_at.micros(),
    }
}

fn observed(observation: Observation) -> ItemState {
    state(observation.item, Presence::There, Some(encoding::fields_bytes(observation.fields)), observation.observed_at)
}

fn changed(change: Change) -> Entry {
    let (kind, observed_at, item) = (change.kind, change.observed_at, change.item.clone());
    let mut wire = v1::Change::from(change);
    // The item has a row of its own.
    wire.item = None;
    let fields = (kind != ChangeKind::Removed).then(|| fields_after(&wire));
    let presence = if fields.is_some() { Presence::There } else { Presence::Gone };
    Entry::Changed {
        state: state(item, presence, fields, observed_at),
        kind,
        observed_at: observed_at.micros(),
        body: wire.encode_to_vec(),
    }
}

/// The encoding of [`Change::after`] as `v1::Fields`, without building it.
fn fields_after(change: &v1::Change) -> Vec<u8> {
    const FIELDS_TAG: u32 = 1;
    let mut bytes = Vec::new();
    for field in &change.unchanged {
        prost::encoding::message::encode(FIELDS_TAG, field, &mut bytes);
    }
    for field in change.fields.iter().filter(|field| field.after.is_some()) {
        let field = v1::Field { name: field.name.clone(), value: field.after.clone() };
        prost::encoding::message::encode(FIELDS_TAG, &field, &mut bytes);
    }
    bytes
}

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
        let mut row = ItemRow { host, epoch, state, fields: state.fields.as_deref(), may_come_or_go };
        if place == next {
            self.items.push(row);
        } else {
            let before = &mut self.items[place];
            row.may_come_or_go |= before.may_come_or_go;
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
            Entry::Changed { state, kind, observed_at, body } => {
                let item = self.item(host, epoch, state, *kind != ChangeKind::Modified);
                self.changes.push(ChangeRow { host, item, epoch, sequence: sequence.0, observed_at: *observed_at, body });
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

/// Returns the rows of the items, in their order.
async fn write_items(session: &mut Session, items: &[ItemRow<'_>]) -> Result<Vec<i64>> {
    let sql = "WITH given (host, fingerprint, kind, key, present, fields, observed_at, epoch) AS ({rows}) \
        INSERT INTO items (host, fingerprint, kind, key, present, fields, observed_at, epoch) \
        SELECT host, fingerprint, kind, key, present, fields, observed_at, epoch FROM given WHERE true \
        ON CONFLICT (host, fingerprint) DO UPDATE SET present = excluded.present, \
        fields = CASE WHEN excluded.present = 2 THEN COALESCE(excluded.fields, items.fields) ELSE excluded.fields END, \
        observed_at = excluded.observed_at, epoch = excluded.epoch RETURNING id, host, fingerprint";
    let columns = vec![
        Column::integers(items.iter().map(|row| row.host)),
        Column::blobs(items.iter().map(|row| row.state.fingerprint.to_vec())),
        Column::integers(items.iter().map(|row| row.state.kind)),
        Column::texts(items.iter().map(|row| row.state.key.clone())),
        Column::integers(items.iter().map(|row| row.state.presence.number())),
        Column::Blobs(items.iter().map(|row| row.fields.map(<[u8]>::to_vec)).collect()),
        Column::integers(items.iter().map(|row| row.state.observed_at)),
        Column::integers(items.iter().map(|row| row.epoch.0 as i64)),
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
    let sql = "UPDATE items SET present = 0, fields = NULL WHERE host = $1 AND epoch < $2 AND present = 1";
    session.execute(sql, vec![host.into(), epoch.into()]).await?;
    let sql = "UPDATE hosts SET inventory_at = $1, inventory_epoch = $2, generation = generation + 1, \
        items = (SELECT count(*) FROM items WHERE items.host = hosts.id AND items.present = 1) WHERE id = $3";
    session.execute(sql, vec![observed_at.into(), epoch.into(), host.into()]).await.map(drop)
}
