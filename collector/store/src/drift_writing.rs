//! Writing drift: many steps folded in memory, then written as sets.
//!
//! Steps are taken in order on what is open, so a drift that opens, moves and resolves within one call
//! ends right and is written once. Each step is idempotent against what is stored: opening what is open
//! updates it, resolving what is not open does nothing. [`Lock::Drift`] is held from reading what is
//! open until the commit.

use std::collections::HashMap;

use trueline_drift::item::ItemFingerprint;
use trueline_drift::judge::Finding;
use trueline_drift::reconcile::Step;
use trueline_drift::{HostId, Time};

use crate::append::advance;
use crate::encoding::{Numbered, fingerprint_from_bytes, host_bytes, host_from_bytes, json, value_bytes};
use crate::session::{Column, Lock, Session};
use crate::{DriftEvent, DriftWrite, Position, Result, hosts};

/// A drift's row as it will be written.
#[derive(Debug)]
struct Kept {
    id: i64,
    host: usize,
    item: i64,
    field: String,
    expected: Option<Vec<u8>>,
    actual: Option<Vec<u8>>,
    verdict: i64,
    severity: i64,
    drift_type: i64,
    reasons: String,
    opened_at: i64,
    updated_at: i64,
    resolved_at: Option<i64>,
    change: Option<i64>,
    resolved_by: Option<i64>,
    /// It departs in another way than what a person has seen.
    forget_acknowledgement: bool,
    is_new: bool,
    is_touched: bool,
}

struct Owner {
    row: i64,
    tenant: String,
}

#[derive(Default)]
struct Fold {
    kept: Vec<Kept>,
    open: HashMap<(i64, String), usize>,
    /// (place in `kept`, event, time)
    log: Vec<(usize, DriftEvent, i64)>,
}

impl Fold {
    fn find(&mut self, host: usize, item: i64, finding: &Finding, change: Option<Position>, at: Time) {
        let departure = &finding.departure;
        let key = (item, departure.field.as_str().to_owned());
        let expected = departure.expected.as_ref().map(value_bytes);
        let actual = departure.actual.as_ref().map(value_bytes);
        let (place, event) = match self.open.get(&key) {
            Some(place) => (*place, DriftEvent::Updated),
            None => {
                self.kept.push(Kept {
                    id: 0,
                    host,
                    item,
                    field: key.1.clone(),
                    expected: None,
                    actual: actual.clone(),
                    verdict: 0,
                    severity: 0,
                    drift_type: 0,
                    reasons: String::new(),
                    opened_at: at.micros(),
                    updated_at: 0,
                    resolved_at: None,
                    change: None,
                    resolved_by: None,
                    forget_acknowledgement: false,
                    is_new: true,
                    is_touched: true,
                });
                self.open.insert(key, self.kept.len() - 1);
                (self.kept.len() - 1, DriftEvent::Opened)
            }
        };
        let kept = &mut self.kept[place];
        kept.forget_acknowledgement |= kept.actual != actual;
        kept.expected = expected;
        kept.actual = actual;
        kept.verdict = finding.verdict.number();
        kept.severity = finding.severity.number();
        kept.drift_type = finding.drift_type.number();
        kept.reasons = json(&finding.reasons);
        kept.updated_at = at.micros();
        kept.change = change.map(|position| position.0).or(kept.change);
        kept.is_touched = true;
        self.log.push((place, event, at.micros()));
    }

    fn resolve(&mut self, item: i64, field: &str, change: Option<Position>, at: Time) {
        if let Some(place) = self.open.remove(&(item, field.to_owned())) {
            let kept = &mut self.kept[place];
            kept.resolved_at = Some(at.micros());
            kept.updated_at = at.micros();
            kept.resolved_by = change.map(|position| position.0);
            kept.is_touched = true;
            self.log.push((place, DriftEvent::Resolved, at.micros()));
        }
    }
}

pub(crate) async fn write(session: &mut Session, writes: &[DriftWrite]) -> Result<()> {
    if writes.is_empty() {
        return Ok(());
    }
    session.lock(Lock::Drift).await?;
    let (owners, places) = owners(session, writes).await?;
    let items = items(session, writes, &owners, &places).await?;
    let mut fold = Fold::default();
    let hosts_of_items = writes.iter().zip(&items).map(|(write, item)| (*item, places[&write.host])).collect();
    read_open(session, hosts_of_items, &mut fold).await?;
    for (write, item) in writes.iter().zip(items) {
        match &write.step {
            Step::Open(finding) | Step::Update(finding) => fold.find(places[&write.host], item, finding, write.change, write.at),
            Step::Resolve(field) => fold.resolve(item, field.as_str(), write.change, write.at),
        }
    }
    let new = fold.kept.iter().filter(|kept| kept.is_new).count();
    if new > 0 {
        let first = advance(session, "drift", new).await?;
        for (id, kept) in (first..).zip(fold.kept.iter_mut().filter(|kept| kept.is_new)) {
            kept.id = id;
        }
    }
    update(session, &fold).await?;
    insert(session, &fold, &owners).await?;
    let entries = fold.log.iter().map(|(place, event, at)| {
        let kept = &fold.kept[*place];
        LogEntry { tenant: owners[kept.host].tenant.clone(), drift: kept.id, event: *event, at: *at }
    });
    log(session, entries.collect()).await
}

/// The hosts of the writes, and where each stands among them.
async fn owners(session: &mut Session, writes: &[DriftWrite]) -> Result<(Vec<Owner>, HashMap<HostId, usize>)> {
    let mut ids: Vec<HostId> = writes.iter().map(|write| write.host).collect();
    ids.sort_unstable();
    ids.dedup();
    let sql = "WITH given (uuid) AS ({rows}) SELECT h.id, h.uuid, h.tenant FROM given JOIN hosts h ON h.uuid = given.uuid";
    let rows = session.bulk(sql, vec![Column::blobs(ids.iter().copied().map(host_bytes))]).await?;
    let mut owners = Vec::with_capacity(rows.len());
    let mut places = HashMap::with_capacity(rows.len());
    for row in rows {
        let mut cells = row.cells();
        let row = cells.integer()?;
        places.insert(host_from_bytes(&cells.blob()?)?, owners.len());
        owners.push(Owner { row, tenant: cells.text()? });
    }
    match ids.into_iter().find(|host| !places.contains_key(host)) {
        Some(stranger) => Err(hosts::unknown(stranger)),
        None => Ok((owners, places)),
    }
}

/// The item row of each write. An item that no agent ever reported (a baseline asks for it) gets one.
async fn items(session: &mut Session, writes: &[DriftWrite], owners: &[Owner], places: &HashMap<HostId, usize>) -> Result<Vec<i64>> {
    let mut wanted: HashMap<(i64, [u8; 16]), &DriftWrite> = HashMap::new();
    let key = |write: &DriftWrite| (owners[places[&write.host]].row, write.item.fingerprint().0);
    for write in writes.iter().filter(|write| write.item_row.is_none()) {
        wanted.insert(key(write), write);
    }
    let mut found = HashMap::with_capacity(wanted.len());
    if !wanted.is_empty() {
        let wanted: Vec<_> = wanted.into_iter().collect();
        let columns = || {
            vec![
                Column::integers(wanted.iter().map(|((host, _), _)| *host)),
                Column::blobs(wanted.iter().map(|((_, fingerprint), _)| fingerprint.to_vec())),
                Column::integers(wanted.iter().map(|(_, write)| write.item.kind.number())),
                Column::texts(wanted.iter().map(|(_, write)| write.item.key.as_str().to_owned())),
            ]
        };
        let sql = "WITH given (host, fingerprint, kind, key) AS ({rows}) \
            INSERT INTO items (host, fingerprint, kind, key, present, observed_at, epoch) \
            SELECT host, fingerprint, kind, key, 0, 0, 0 FROM given WHERE true ON CONFLICT (host, fingerprint) DO NOTHING";
        session.bulk(sql, columns()).await?;
        let sql = "WITH given (host, fingerprint, kind, key) AS ({rows}) SELECT i.id, i.host, i.fingerprint \
            FROM given JOIN items i ON i.host = given.host AND i.fingerprint = given.fingerprint";
        for row in session.bulk(sql, columns()).await? {
            let mut cells = row.cells();
            let (id, host) = (cells.integer()?, cells.integer()?);
            found.insert((host, fingerprint_from_bytes(&cells.blob()?)?), id);
        }
    }
    writes
        .iter()
        .map(|write| match write.item_row {
            Some(row) => Ok(row),
            None => {
                let (host, fingerprint) = key(write);
                let row = found.get(&(host, ItemFingerprint(fingerprint))).copied();
                row.ok_or_else(|| crate::encoding::corrupt("item", "was written and is not there"))
            }
        })
        .collect()
}

/// The drifts that are open for these items.
async fn read_open(session: &mut Session, hosts_of_items: HashMap<i64, usize>, fold: &mut Fold) -> Result<()> {
    let sql = "WITH given (item) AS ({rows}) SELECT d.id, d.item, d.field, d.expected, d.actual, d.verdict, d.severity, \
        d.drift_type, d.reasons, d.opened_at, d.updated_at, d.change FROM given JOIN drift d ON d.item = given.item \
        WHERE d.resolved_at IS NULL";
    for row in session.bulk(sql, vec![Column::integers(hosts_of_items.keys().copied())]).await? {
        let mut cells = row.cells();
        let (id, item) = (cells.integer()?, cells.integer()?);
        let kept = Kept {
            id,
            host: hosts_of_items[&item],
            item,
            field: cells.text()?,
            expected: cells.blob_or_none()?,
            actual: cells.blob_or_none()?,
            verdict: cells.integer()?,
            severity: cells.integer()?,
            drift_type: cells.integer()?,
            reasons: cells.text()?,
            opened_at: cells.integer()?,
            updated_at: cells.integer()?,
            resolved_at: None,
            change: cells.integer_or_none()?,
            resolved_by: None,
            forget_acknowledgement: false,
            is_new: false,
            is_touched: false,
        };
        fold.open.insert((item, kept.field.clone()), fold.kept.len());
        fold.kept.push(kept);
    }
    Ok(())
}

async fn update(session: &mut Session, fold: &Fold) -> Result<()> {
    let kept = || fold.kept.iter().filter(|kept| !kept.is_new && kept.is_touched);
    let sql = "WITH given (id, expected, actual, verdict, severity, drift_type, reasons, updated_at, resolved_at, change, resolved_by, forget) \
        AS ({rows}) UPDATE drift SET expected = given.expected, actual = given.actual, verdict = given.verdict, \
        severity = given.severity, drift_type = given.drift_type, reasons = given.reasons, updated_at = given.updated_at, \
        resolved_at = given.resolved_at, change = given.change, resolved_by = given.resolved_by, \
        acknowledged_at = CASE WHEN given.forget = 1 THEN NULL ELSE drift.acknowledged_at END, \
        acknowledged_by = CASE WHEN given.forget = 1 THEN NULL ELSE drift.acknowledged_by END, \
        acknowledged_note = CASE WHEN given.forget = 1 THEN NULL ELSE drift.acknowledged_note END \
        FROM given WHERE drift.id = given.id";
    let mut columns = vec![Column::integers(kept().map(|kept| kept.id))];
    columns.extend(standing(kept));
    columns.push(Column::integers(kept().map(|kept| i64::from(kept.forget_acknowledgement))));
    session.bulk(sql, columns).await.map(drop)
}

async fn insert(session: &mut Session, fold: &Fold, owners: &[Owner]) -> Result<()> {
    let kept = || fold.kept.iter().filter(|kept| kept.is_new);
    let sql = "WITH given (id, tenant, host, item, field, opened_at, expected, actual, verdict, severity, drift_type, reasons, \
        updated_at, resolved_at, change, resolved_by) AS ({rows}) \
        INSERT INTO drift (id, tenant, host, item, field, opened_at, expected, actual, verdict, severity, drift_type, reasons, \
        updated_at, resolved_at, change, resolved_by) SELECT * FROM given";
    let mut columns = vec![
        Column::integers(kept().map(|kept| kept.id)),
        Column::texts(kept().map(|kept| owners[kept.host].tenant.clone())),
        Column::integers(kept().map(|kept| owners[kept.host].row)),
        Column::integers(kept().map(|kept| kept.item)),
        Column::texts(kept().map(|kept| kept.field.clone())),
        Column::integers(kept().map(|kept| kept.opened_at)),
    ];
    columns.extend(standing(kept));
    session.bulk(sql, columns).await.map(drop)
}

/// What moves of a drift: `expected, actual, verdict, severity, drift_type, reasons, updated_at, resolved_at, change, resolved_by`.
fn standing<'a, I: Iterator<Item = &'a Kept>>(kept: impl Fn() -> I) -> [Column; 10] {
    [
        Column::Blobs(kept().map(|kept| kept.expected.clone()).collect()),
        Column::Blobs(kept().map(|kept| kept.actual.clone()).collect()),
        Column::integers(kept().map(|kept| kept.verdict)),
        Column::integers(kept().map(|kept| kept.severity)),
        Column::integers(kept().map(|kept| kept.drift_type)),
        Column::texts(kept().map(|kept| kept.reasons.clone())),
        Column::integers(kept().map(|kept| kept.updated_at)),
        Column::Integers(kept().map(|kept| kept.resolved_at).collect()),
        Column::Integers(kept().map(|kept| kept.change).collect()),
        Column::Integers(kept().map(|kept| kept.resolved_by).collect()),
    ]
}

pub(crate) struct LogEntry {
    pub tenant: String,
    pub drift: i64,
    pub event: DriftEvent,
    pub at: i64,
}

/// Appends to the drift log; [`Lock::Drift`] is held.
pub(crate) async fn log(session: &mut Session, entries: Vec<LogEntry>) -> Result<()> {
    if entries.is_empty() {
        return Ok(());
    }
    let first = advance(session, "drift_log", entries.len()).await?;
    let sql = "WITH given (place, tenant, drift, event, at) AS ({rows}) \
        INSERT INTO drift_log (place, tenant, drift, event, at) SELECT place, tenant, drift, event, at FROM given";
    let columns = vec![
        Column::integers((first..).take(entries.len())),
        Column::texts(entries.iter().map(|entry| entry.tenant.clone())),
        Column::integers(entries.iter().map(|entry| entry.drift)),
        Column::integers(entries.iter().map(|entry| entry.event.number())),
        Column::integers(entries.iter().map(|entry| entry.at)),
    ];
    session.bulk(sql, columns).await.map(drop)
}
