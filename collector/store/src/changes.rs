//! Changes as people read them, newest first, with their judgements.

use std::collections::{BTreeMap, HashMap};

use trueline_drift::{Epoch, Sequence, TenantId, Verdict};

use crate::cursor::{after, cursor, rows_wanted};
use crate::encoding::{self, Numbered, host_bytes, host_from_bytes};
use crate::grouping;
use crate::judgements::{Block, bit};
use crate::session::{Column, Query, Row, Session};
use crate::weight::{bytes, keep_within, small};
use crate::{ChangeFilter, ChangeRow, Listed, Page, Position, Result};

/// Judgements of this many runs are searched for one page of a verdict; then a page may be short, and
/// its cursor goes on from there.
const SEARCH_LIMIT: usize = 256;
const SEARCH_STEP: i64 = 16;
/// No row of judgements spans more changes than are judged at once, whichever collector did it.
const LONGEST_RUN: i64 = 100_000;

/// Of a page, as the changes are stored.
const PAGE_BYTES: usize = 4 * 1024 * 1024;
/// Collectors of one database may tell times that differ by this many microseconds, so that what was received later stands
/// first.
const CLOCKS: i64 = 60_000_000;

/// CROSS JOIN keeps SQLite from starting at the hosts and sorting all their changes; PostgreSQL plans as
/// it would for JOIN.
fn select(groups: &str) -> Query {
    Query::new(&format!(
        "SELECT c.position, {}, {}, NULL, {}, \
        (SELECT j.first FROM judgements j WHERE j.first <= c.position ORDER BY j.first DESC LIMIT 1), \
        h.tenant, h.uuid, h.name, c.epoch, c.sequence, c.received_at, i.kind \
        FROM {groups} changes c CROSS JOIN hosts h CROSS JOIN items i",
        small("i.key"),
        small("c.body"),
        bytes(&["i.key", "c.body"])
    ))
}

/// Where changes of a time of receipt stand.
#[derive(Default)]
struct Stretch {
    from: Option<i64>,
    to: Option<i64>,
}

/// Positions grow with the time of receipt, but for [`CLOCKS`]: found by halving, since an index would cost every append.
async fn stretch(session: &mut Session, filter: &ChangeFilter) -> Result<Stretch> {
    let mut stretch = Stretch::default();
    if let Some(since) = filter.since {
        stretch.from = Some(first_received(session, since.micros().saturating_sub(CLOCKS)).await?);
    }
    if let Some(until) = filter.until {
        stretch.to = Some(first_received(session, until.micros().saturating_add(CLOCKS)).await?);
    }
    Ok(stretch)
}

/// The first position of what was received at a time or later.
async fn first_received(session: &mut Session, at: i64) -> Result<i64> {
    let last = session.fetch_one("SELECT position FROM cursors WHERE name = 'changes'", Vec::new()).await?.cells().integer()?;
    let (mut low, mut high) = (1, last + 1);
    while low < high {
        let middle = low + (high - low) / 2;
        let sql = "SELECT position, received_at FROM changes WHERE position >= $1 ORDER BY position LIMIT 1";
        let Some(row) = session.fetch_optional(sql, vec![middle.into()]).await? else {
            high = middle;
            continue;
        };
        let mut cells = row.cells();
        let (position, received_at) = (cells.integer()?, cells.integer()?);
        if received_at < at {
            low = position + 1;
        } else {
            high = middle;
        }
    }
    Ok(low)
}

/// Changes as a filter finds them.
struct Filtered {
    query: Query,
    /// What they are gone through by: their own positions, or those of the smallest group that holds all of them.
    position: &'static str,
}

impl Filtered {
    fn from(mut self, position: Option<i64>) -> Self {
        self.query.with_some(&format!(" AND {} >= ", self.position), position);
        self
    }

    fn below(mut self, position: Option<i64>) -> Self {
        self.query.with_some(&format!(" AND {} < ", self.position), position);
        self
    }

    fn newest(mut self, limit: i64) -> Query {
        self.query.with(&format!(" ORDER BY {} DESC LIMIT ", self.position), limit);
        self.query
    }

    fn oldest(mut self, limit: i64) -> Query {
        self.query.with(&format!(" ORDER BY {} LIMIT ", self.position), limit);
        self.query
    }
}

fn filtered(tenant: &TenantId, filter: &ChangeFilter, stretch: &Stretch) -> Filtered {
    let transaction = filter.transaction.as_ref().map(grouping::of_transaction);
    let session = filter.session.as_ref().map(grouping::of_session);
    // A run is smaller than a session as a rule.
    let groups = [transaction, session].into_iter().flatten();
    let is_grouped = groups.clone().next().is_some();
    let (from, position) = if is_grouped { ("change_groups g CROSS JOIN", "g.position") } else { ("", "c.position") };
    let mut query = select(from);
    query.with(" WHERE h.id = c.host AND i.id = c.item AND h.tenant = ", tenant.0.as_str());
    for (at, group) in groups.enumerate() {
        if at == 0 {
            query.with(" AND c.position = g.position AND g.fingerprint = ", &group[..]);
        } else {
            query
                .with(" AND EXISTS (SELECT 1 FROM change_groups o WHERE o.position = g.position AND o.fingerprint = ", &group[..])
                .text(")");
        }
    }
    query
        .with_some(" AND c.host = (SELECT id FROM hosts WHERE uuid = ", filter.host.map(host_bytes))
        .text(if filter.host.is_some() { ")" } else { "" })
        .with_some(" AND i.kind = ", filter.kind.map(Numbered::number))
        .with_some(" AND c.received_at >= ", filter.since)
        .with_some(" AND c.received_at < ", filter.until);
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
    Filtered { query, position }.from(stretch.from).below(stretch.to)
}

/// Rows of changes, as many as may be read at once.
struct Loaded {
    rows: Vec<Row>,
    /// `position, key, body` of those with a part that is not small.
    whole: HashMap<i64, Row>,
    /// There were more than fit.
    is_cut: bool,
}

async fn load(session: &mut Session, query: Query, left: &mut usize) -> Result<Loaded> {
    let mut rows = query.fetch(session).await?;
    let fetched = rows.len();
    let large = keep_within(&mut rows, left)?;
    let sql = "WITH given (position) AS ({rows}) SELECT c.position, i.key, c.body \
        FROM given JOIN changes c ON c.position = given.position JOIN items i ON i.id = c.item";
    let mut whole = HashMap::with_capacity(large.len());
    for row in session.bulk(sql, vec![Column::integers(large)]).await? {
        whole.insert(row.cells().integer()?, row);
    }
    Ok(Loaded { is_cut: rows.len() < fetched, rows, whole })
}

/// Newest first. A page of large changes is short, and its cursor goes on from there.
pub(crate) async fn list(session: &mut Session, tenant: &TenantId, filter: &ChangeFilter, page: &Page) -> Result<Listed<ChangeRow>> {
    let below = after::<i64>(page, "changes")?;
    let stretch = stretch(session, filter).await?;
    if let Some(verdict) = filter.verdict {
        return list_by_verdict(session, tenant, filter, &stretch, verdict, page, below.unwrap_or(i64::MAX)).await;
    }
    let query = filtered(tenant, filter, &stretch).below(below).newest(rows_wanted(page));
    let loaded = load(session, query, &mut { PAGE_BYTES }).await?;
    let changes = judged(session, &loaded).await?;
    let mut listed = crate::cursor::listed(changes, page, "changes", |change: &ChangeRow| change.position.0);
    if loaded.is_cut && listed.next.is_none() {
        listed.next = listed.items.last().map(|last| cursor("changes", &last.position.0));
    }
    Ok(listed)
}

/// Goes through the runs of judgements that hold the verdict, newest first.
async fn list_by_verdict(
    session: &mut Session,
    tenant: &TenantId,
    filter: &ChangeFilter,
    stretch: &Stretch,
    verdict: Verdict,
    page: &Page,
    mut below: i64,
) -> Result<Listed<ChangeRow>> {
    let limit = rows_wanted(page) as usize - 1;
    let mut items = Vec::new();
    let mut left = PAGE_BYTES;
    let mut searched = 0;
    below = below.min(stretch.to.unwrap_or(i64::MAX));
    let lowest = stretch.from.unwrap_or(0);
    // A row's run is no longer than what is judged at once, which gives the planner a bound to stop at.
    let first = lowest.saturating_sub(LONGEST_RUN);
    loop {
        let sql = "SELECT first, last, body FROM judgements WHERE first < $1 AND first > $5 AND last >= $2 AND (verdicts & $3) <> 0 \
            ORDER BY first DESC LIMIT $4";
        let blocks = session.fetch(sql, vec![below.into(), lowest.into(), bit(verdict).into(), SEARCH_STEP.into(), first.into()]).await?;
        searched += blocks.len();
        let is_last = (blocks.len() as i64) < SEARCH_STEP;
        for row in &blocks {
            let block = block(row)?;
            for run in block.runs().filter(|run| run.verdict == verdict && run.first < below).collect::<Vec<_>>().into_iter().rev() {
                let last = run.last.min(below - 1);
                let of_run = filtered(tenant, filter, stretch).from(Some(run.first)).below(Some(last + 1));
                let query = of_run.newest((limit + 1 - items.len()) as i64);
                let loaded = load(session, query, &mut left).await?;
                for row in &loaded.rows {
                    items.push(change(row, &loaded.whole, Some(&block))?);
                }
                if items.len() > limit || loaded.is_cut || (left == 0 && !items.is_empty()) {
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
    let Filtered { mut query, .. } = filtered(tenant, &ChangeFilter::default(), &Stretch::default());
    query.with(" AND c.position = ", position.0);
    let loaded = load(session, query, &mut { PAGE_BYTES }).await?;
    Ok(judged(session, &loaded).await?.pop())
}

/// Changes that were judged after a position, oldest first, as many as may be read at once.
pub(crate) async fn judged_after(session: &mut Session, tenant: &TenantId, after: i64, limit: u32) -> Result<Vec<ChangeRow>> {
    let judged = session.fetch_one("SELECT position FROM cursors WHERE name = 'judged'", Vec::new()).await?.cells().integer()?;
    let all = filtered(tenant, &ChangeFilter::default(), &Stretch::default());
    let query = all.from(after.checked_add(1)).below(judged.checked_add(1)).oldest(limit.into());
    let loaded = load(session, query, &mut { PAGE_BYTES }).await?;
    self::judged(session, &loaded).await
}

/// The place of the judgement's run in a row of changes.
const RUN: usize = 5;

async fn judged(session: &mut Session, loaded: &Loaded) -> Result<Vec<ChangeRow>> {
    let mut firsts = Vec::new();
    for row in &loaded.rows {
        firsts.extend(row.cells().skip(RUN).integer_or_none()?);
    }
    firsts.sort_unstable();
    firsts.dedup();
    let sql = "WITH given (first) AS ({rows}) SELECT j.first, j.last, j.body FROM given JOIN judgements j ON j.first = given.first";
    let mut blocks = BTreeMap::new();
    for row in session.bulk(sql, vec![Column::integers(firsts)]).await? {
        let block = block(&row)?;
        blocks.insert(block.first, block);
    }
    let block_of = |row: &Row| Ok(row.cells().skip(RUN).integer_or_none()?.and_then(|first| blocks.get(&first)));
    loaded.rows.iter().map(|row| change(row, &loaded.whole, block_of(row)?)).collect()
}

fn block(row: &Row) -> Result<Block> {
    let mut cells = row.cells();
    let (first, last) = (cells.integer()?, cells.integer()?);
    Block::from_row(first, last, &cells.text()?)
}

fn change(row: &Row, whole: &HashMap<i64, Row>, block: Option<&Block>) -> Result<ChangeRow> {
    let position = row.cells().integer()?;
    let mut parts = whole.get(&position).unwrap_or(row).cells().skip(1);
    let (key, body) = (parts.text()?, parts.blob()?);
    let mut cells = row.cells().skip(RUN + 1);
    let (tenant, host, host_name) = (TenantId(cells.text()?), host_from_bytes(&cells.blob()?)?, cells.text()?);
    let (epoch, sequence, received_at) = (Epoch(cells.count()?), Sequence(cells.count()?), cells.time()?);
    Ok(ChangeRow {
        position: Position(position),
        tenant,
        host,
        host_name,
        epoch,
        sequence,
        received_at,
        change: encoding::change_from_bytes(encoding::item(cells.integer()?, &key)?, &body)?,
        judgement: block.and_then(|block| block.judgement(position)).cloned(),
    })
}
