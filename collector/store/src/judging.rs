//! What the judge reads and writes: the changes after the cursor with what is needed to judge them,
//! and their judgements with the drift that follows.

use std::collections::HashMap;

use sqlx::AssertSqlSafe;
use trueline_drift::FieldName;
use trueline_drift::baseline::Expectation;
use trueline_drift::reconcile::OpenDrift;

use crate::baselines::{self, BaselineHead};
use crate::encoding::{self, Numbered, host_from_bytes, value_from_bytes};
use crate::judgements::Block;
use crate::session::{Column, Lock, Row, Session};
use crate::weight::{bytes, keep_within, small};
use crate::{JudgeCursor, JudgeInput, JudgeOutput, Position, Result, StoreError, UnjudgedChange, drift_writing};

/// Most bytes read for one run of changes: of the changes, of what their baselines say of their items, and again of the
/// drift that is open for them. One change is always read.
const RUN_BYTES: usize = 8 * 1024 * 1024;

/// What [`decode`] makes a [`JudgeInput`] of.
pub(crate) struct Read {
    from: JudgeCursor,
    changes: Vec<Row>,
    /// `position, key, body, fields` of changes with a part that is not small.
    whole: HashMap<i64, Row>,
    open: Vec<Row>,
    baselines: HashMap<i64, BaselineHead>,
}

/// What belongs to a change `c`.
const JOINS: &str = "JOIN hosts h ON h.id = c.host JOIN items i ON i.id = c.item \
    LEFT JOIN baseline_items bi ON bi.baseline = h.baseline AND bi.fingerprint = i.fingerprint";

/// One moment: the session is a snapshot.
pub(crate) async fn read(session: &mut Session, limit: u32) -> Result<Read> {
    let sql = "SELECT j.position, a.position FROM cursors j, cursors a WHERE j.name = 'judged' AND a.name = 'assignments'";
    let row = session.fetch_one(sql, Vec::new()).await?;
    let mut cells = row.cells();
    let (from, assignments) = (cells.integer()?, cells.integer()?);
    let cursor = JudgeCursor { position: Position(from), assignments };
    // Positions have no holes, so a bound is a limit; a bound tells the planner how few rows these are.
    let to = from.saturating_add(i64::from(limit));
    let sql = format!(
        "SELECT c.position, {}, {}, {}, {}, c.item, h.uuid, c.received_at, i.kind, h.baseline, bi.absent FROM changes c {JOINS} \
        WHERE c.position > $1 AND c.position <= $2 ORDER BY c.position",
        small("i.key"),
        small("c.body"),
        small("bi.fields"),
        bytes(&["i.key", "c.body", "bi.fields"])
    );
    let mut changes = session.fetch(AssertSqlSafe(sql), vec![from.into(), to.into()]).await?;
    let mut large = keep_within(&mut changes, &mut { RUN_BYTES })?;
    let open = loop {
        let Some(last) = changes.last() else {
            return Ok(Read { from: cursor, changes, whole: HashMap::new(), open: Vec::new(), baselines: HashMap::new() });
        };
        let last = last.cells().integer()?;
        match read_open(session, from, last).await? {
            Some(open) => break open,
            None if changes.len() == 1 => break all_open(session, from, last).await?,
            None => changes.truncate(changes.len() / 2),
        }
    };
    let last = changes.last().map_or(Ok(from), |row| row.cells().integer())?;
    large.retain(|position| *position <= last);
    let mut whole = HashMap::with_capacity(large.len());
    let sql = format!(
        "WITH given (position) AS ({{rows}}) SELECT c.position, i.key, c.body, bi.fields \
        FROM given JOIN changes c ON c.position = given.position {JOINS}"
    );
    for row in session.bulk(&sql, vec![Column::integers(large)]).await? {
        whole.insert(row.cells().integer()?, row);
    }
    let mut heads = Vec::new();
    for row in &changes {
        heads.extend(row.cells().skip(BASELINE).integer_or_none()?);
    }
    heads.sort_unstable();
    heads.dedup();
    let baselines = baselines::heads(session, heads).await?;
    Ok(Read { from: cursor, changes, whole, open, baselines })
}

/// The place of `h.baseline` in a row of changes.
const BASELINE: usize = 9;

/// The open drift of the items of a run, as [`open_by_item`] reads it, or nothing where it is too much.
async fn read_open(session: &mut Session, from: i64, to: i64) -> Result<Option<Vec<Row>>> {
    let sql = format!(
        "SELECT d.id, {}, {}, NULL, {}, d.item, d.field, d.change FROM drift d WHERE d.resolved_at IS NULL \
        AND d.item IN (SELECT c.item FROM changes c WHERE c.position > $1 AND c.position <= $2)",
        small("d.expected"),
        small("d.actual"),
        bytes(&["d.expected", "d.actual"])
    );
    let mut open = session.fetch(AssertSqlSafe(sql), vec![from.into(), to.into()]).await?;
    let all = open.len();
    let large = keep_within(&mut open, &mut { RUN_BYTES })?;
    if open.len() < all {
        return Ok(None);
    }
    if large.is_empty() { Ok(Some(open)) } else { all_open(session, from, to).await.map(Some) }
}

async fn all_open(session: &mut Session, from: i64, to: i64) -> Result<Vec<Row>> {
    let sql = "SELECT d.id, d.expected, d.actual, NULL, 0, d.item, d.field, d.change FROM drift d WHERE d.resolved_at IS NULL \
        AND d.item IN (SELECT c.item FROM changes c WHERE c.position > $1 AND c.position <= $2)";
    session.fetch(sql, vec![from.into(), to.into()]).await
}

/// Costs computing, and needs no database.
pub(crate) fn decode(read: Read) -> Result<JudgeInput> {
    let mut open = open_by_item(&read.open)?;
    let changes = read.changes.iter().map(|row| unjudged(row, &read.whole, &mut open, &read.baselines)).collect::<Result<_>>()?;
    Ok(JudgeInput { from: read.from, changes })
}

fn unjudged(
    row: &Row,
    whole: &HashMap<i64, Row>,
    open: &mut HashMap<i64, Vec<OpenDrift>>,
    baselines: &HashMap<i64, BaselineHead>,
) -> Result<UnjudgedChange> {
    let position = row.cells().integer()?;
    let mut parts = whole.get(&position).unwrap_or(row).cells().skip(1);
    let (key, body) = (parts.text()?, parts.blob()?);
    let mut cells = row.cells().skip(5);
    let item_row = cells.integer()?;
    let (host, received_at) = (host_from_bytes(&cells.blob()?)?, cells.time()?);
    let item = encoding::item(cells.integer()?, &key)?;
    let change = encoding::change_from_bytes(item, &body)?;
    let baseline = match cells.integer_or_none()? {
        None => None,
        Some(id) => {
            let head = baselines.get(&id).ok_or_else(|| encoding::corrupt("baseline", "is not there"))?;
            let (absent, fields) = (cells.integer_or_none()?, parts.blob_or_none()?);
            Some((head.name.clone(), expectation(absent, fields, head, &change.item)?))
        }
    };
    let open = open.remove(&item_row).unwrap_or_default();
    Ok(UnjudgedChange { position: Position(position), host, item_row, change, received_at, baseline, open })
}

/// From the columns `absent` and `fields` of the baseline's item, both NULL where it does not list it.
pub(crate) fn expectation(
    absent: Option<i64>,
    fields: Option<Vec<u8>>,
    head: &BaselineHead,
    item: &trueline_drift::ItemId,
) -> Result<Expectation> {
    match (absent, fields) {
        (None, _) => Ok(head.unlisted(item)),
        (Some(0), Some(fields)) => head.listed(&fields),
        (Some(0), None) => Err(encoding::corrupt("baseline item", "has no fields")),
        (Some(_), _) => Ok(Expectation::Absent),
    }
}

/// Rows of `id, expected, actual, (free), bytes, item, field, change`.
pub(crate) fn open_by_item(rows: &[Row]) -> Result<HashMap<i64, Vec<OpenDrift>>> {
    let mut open: HashMap<i64, Vec<OpenDrift>> = HashMap::new();
    for row in rows {
        let mut cells = row.cells().skip(1);
        let (expected, actual) = (value_from_bytes(cells.blob_or_none()?)?, value_from_bytes(cells.blob_or_none()?)?);
        let mut cells = row.cells().skip(5);
        open.entry(cells.integer()?).or_default().push(OpenDrift {
            field: FieldName::new(&cells.text()?),
            expected,
            actual,
            explained: cells.integer_or_none()?.is_some(),
        });
    }
    Ok(open)
}

/// `false`, and nothing is to be committed, where the cursor or the hosts' baselines have moved.
pub(crate) async fn record(session: &mut Session, output: &JudgeOutput) -> Result<bool> {
    let JudgeCursor { position: from, assignments } = output.from;
    if output.to < from {
        return Err(StoreError::Invalid { subject: "judgements", reason: "end before they begin".to_owned() });
    }
    if output.to == from {
        return Ok(true);
    }
    let block = Block::new(from, output.to, &output.judgements)?;
    session.lock(Lock::Drift).await?;
    let sql = "UPDATE cursors SET position = $1 WHERE name = 'judged' AND position = $2 \
        AND EXISTS (SELECT 1 FROM cursors a WHERE a.name = 'assignments' AND a.position = $3)";
    if session.execute(sql, vec![output.to.0.into(), from.0.into(), assignments.into()]).await? == 0 {
        return Ok(false);
    }
    let sql = "INSERT INTO judgements (first, last, verdicts, body) VALUES ($1, $2, $3, $4)";
    session.execute(sql, vec![block.first.into(), block.last.into(), block.mask().into(), block.body().into()]).await?;
    tally(session, &block).await?;
    drift_writing::write(session, &output.drift).await?;
    Ok(true)
}

/// Microseconds of one tally.
pub(crate) const MINUTE: i64 = 60_000_000;

async fn tally(session: &mut Session, block: &Block) -> Result<()> {
    let runs: Vec<_> = block.runs().collect();
    let sql = "WITH given (first, last, verdict) AS ({rows}) \
        INSERT INTO tallies (tenant, minute, verdict, changes) \
        SELECT h.tenant, c.received_at / 60000000, given.verdict, count(*) \
        FROM given JOIN changes c ON c.position BETWEEN given.first AND given.last JOIN hosts h ON h.id = c.host \
        WHERE true GROUP BY 1, 2, 3 \
        ON CONFLICT (tenant, minute, verdict) DO UPDATE SET changes = tallies.changes + excluded.changes";
    let columns = vec![
        Column::integers(runs.iter().map(|run| run.first)),
        Column::integers(runs.iter().map(|run| run.last)),
        Column::integers(runs.iter().map(|run| run.verdict.number())),
    ];
    session.bulk(sql, columns).await.map(drop)
}
