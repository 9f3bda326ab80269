//! What the judge reads and writes: the changes after the cursor with what is needed to judge them,
//! and their judgements with the drift that follows.

use std::collections::HashMap;

use trueline_drift::FieldName;
use trueline_drift::baseline::Expectation;
use trueline_drift::reconcile::OpenDrift;

use crate::baselines::{self, BaselineHead};
use crate::encoding::{self, Numbered, host_from_bytes, value_from_bytes};
use crate::judgements::Block;
use crate::session::{Cells, Column, Lock, Row, Session};
use crate::{JudgeCursor, JudgeInput, JudgeOutput, Position, Result, StoreError, UnjudgedChange, drift_writing};

/// What [`decode`] makes a [`JudgeInput`] of.
pub(crate) struct Read {
    from: JudgeCursor,
    changes: Vec<Row>,
    open: Vec<Row>,
    baselines: HashMap<i64, BaselineHead>,
}

/// One moment: the session is a snapshot.
pub(crate) async fn read(session: &mut Session, limit: u32) -> Result<Read> {
    let sql = "SELECT j.position, a.position FROM cursors j, cursors a WHERE j.name = 'judged' AND a.name = 'assignments'";
    let row = session.fetch_one(sql, Vec::new()).await?;
    let mut cells = row.cells();
    let (from, assignments) = (cells.integer()?, cells.integer()?);
    let cursor = JudgeCursor { position: Position(from), assignments };
    let sql = "SELECT c.position, c.item, h.uuid, i.kind, i.key, c.body, h.baseline, bi.absent, bi.fields \
        FROM changes c JOIN hosts h ON h.id = c.host JOIN items i ON i.id = c.item \
        LEFT JOIN baseline_items bi ON bi.baseline = h.baseline AND bi.fingerprint = i.fingerprint \
        WHERE c.position > $1 AND c.position <= $2 ORDER BY c.position";
    // Positions have no holes, so a bound is a limit; a bound tells the planner how few rows these are.
    let to = from.saturating_add(i64::from(limit));
    let changes = session.fetch(sql, vec![from.into(), to.into()]).await?;
    if changes.is_empty() {
        return Ok(Read { from: cursor, changes, open: Vec::new(), baselines: HashMap::new() });
    }
    let sql = "SELECT d.item, d.field, d.expected, d.actual, d.change FROM drift d WHERE d.resolved_at IS NULL \
        AND d.item IN (SELECT c.item FROM changes c WHERE c.position > $1 AND c.position <= $2)";
    let open = session.fetch(sql, vec![from.into(), to.into()]).await?;
    let sql = "SELECT DISTINCT h.baseline FROM changes c JOIN hosts h ON h.id = c.host \
        WHERE c.position > $1 AND c.position <= $2 AND h.baseline IS NOT NULL";
    let mut ids = Vec::new();
    for row in session.fetch(sql, vec![from.into(), to.into()]).await? {
        ids.push(row.cells().integer()?);
    }
    let baselines = baselines::heads(session, ids).await?;
    Ok(Read { from: cursor, changes, open, baselines })
}

/// Costs computing, and needs no database.
pub(crate) fn decode(read: Read) -> Result<JudgeInput> {
    let open = open_by_item(&read.open)?;
    let changes = read.changes.iter().map(|row| unjudged(row, &open, &read.baselines)).collect::<Result<_>>()?;
    Ok(JudgeInput { from: read.from, changes })
}

fn unjudged(row: &Row, open: &HashMap<i64, Vec<OpenDrift>>, baselines: &HashMap<i64, BaselineHead>) -> Result<UnjudgedChange> {
    let mut cells = row.cells();
    let (position, item_row) = (Position(cells.integer()?), cells.integer()?);
    let host = host_from_bytes(&cells.blob()?)?;
    let (kind, key) = (cells.integer()?, cells.text()?);
    let item = encoding::item(kind, &key)?;
    let change = encoding::change_from_bytes(item, &cells.blob()?)?;
    let baseline = match cells.integer_or_none()? {
        None => None,
        Some(id) => {
            let head = baselines.get(&id).ok_or_else(|| encoding::corrupt("baseline", "is not there"))?;
            Some((head.name.clone(), expectation(&mut cells, head, &change.item)?))
        }
    };
    let open = open.get(&item_row).cloned().unwrap_or_default();
    Ok(UnjudgedChange { position, host, item_row, change, baseline, open })
}

/// From the cells `absent, fields` of the baseline's item, both NULL where it does not list it.
pub(crate) fn expectation(cells: &mut Cells<'_>, head: &BaselineHead, item: &trueline_drift::ItemId) -> Result<Expectation> {
    let (absent, fields) = (cells.integer_or_none()?, cells.blob_or_none()?);
    match (absent, fields) {
        (None, _) => Ok(head.unlisted(item)),
        (Some(0), Some(fields)) => head.listed(&fields),
        (Some(0), None) => Err(encoding::corrupt("baseline item", "has no fields")),
        (Some(_), _) => Ok(Expectation::Absent),
    }
}

/// Rows of `item, field, expected, actual, change`.
pub(crate) fn open_by_item(rows: &[Row]) -> Result<HashMap<i64, Vec<OpenDrift>>> {
    let mut open: HashMap<i64, Vec<OpenDrift>> = HashMap::new();
    for row in rows {
        let mut cells = row.cells();
        let item = cells.integer()?;
        open.entry(item).or_default().push(OpenDrift {
            field: FieldName::new(&cells.text()?),
            expected: value_from_bytes(cells.blob_or_none()?)?,
            actual: value_from_bytes(cells.blob_or_none()?)?,
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
