//! Counts for the head of the console, from tallies: no change is read.

use sqlx::AssertSqlSafe;
use trueline_drift::{TenantId, Time, Verdict};

use crate::encoding::Numbered;
use crate::folding::{is_folded_under, packages};
use crate::judging::MINUTE;
use crate::session::{Row, Session};
use crate::{Result, Summary};

pub(crate) async fn summary(session: &mut Session, tenant: &TenantId, since: Time) -> Result<Summary> {
    let tenant = tenant.0.as_str();
    let mut summary = Summary::default();
    let sql = "SELECT count(*), CAST(coalesce(sum(items), 0) AS BIGINT) FROM hosts WHERE tenant = $1 AND revoked_at IS NULL";
    let row = session.fetch_one(sql, vec![tenant.into()]).await?;
    (summary.hosts, summary.items) = pair(&row)?;
    let sql = format!(
        "SELECT CAST(coalesce(sum(1 - open.folded), 0) AS BIGINT), CAST(coalesce(sum((1 - open.folded) * open.critical), 0) AS BIGINT), \
        CAST(coalesce(sum(open.folded), 0) AS BIGINT) \
        FROM (SELECT {} AS folded, CASE WHEN d.severity = $2 THEN 1 ELSE 0 END AS critical \
            FROM drift d CROSS JOIN items i LEFT JOIN {} AS s ON s.host = i.host AND s.fingerprint = i.shipped_by \
            WHERE i.id = d.item AND d.tenant = $1 AND d.resolved_at IS NULL) AS open",
        is_folded_under(),
        packages()
    );
    let critical = trueline_drift::Severity::Critical.number();
    let row = session.fetch_one(AssertSqlSafe(sql), vec![tenant.into(), critical.into()]).await?;
    let mut cells = row.cells();
    (summary.open_drifts, summary.open_critical, summary.folded_drifts) = (cells.count()?, cells.count()?, cells.count()?);
    let sql = "SELECT verdict, CAST(sum(changes) AS BIGINT) FROM tallies WHERE tenant = $1 AND minute >= $2 GROUP BY verdict";
    for row in session.fetch(sql, vec![tenant.into(), since.micros().div_euclid(MINUTE).into()]).await? {
        let mut cells = row.cells();
        let (verdict, changes) = (Verdict::from_number(cells.integer()?)?, cells.count()?);
        match verdict {
            Verdict::Expected => summary.expected = changes,
            Verdict::OutOfScope => summary.out_of_scope = changes,
            Verdict::Notable => summary.notable = changes,
            Verdict::Critical => summary.critical = changes,
        }
    }
    let sql = "SELECT count(*) FROM gaps g JOIN hosts h ON h.id = g.host WHERE h.tenant = $1 AND g.received_at >= $2";
    summary.gaps = session.fetch_one(sql, vec![tenant.into(), since.into()]).await?.cells().count()?;
    Ok(summary)
}

fn pair(row: &Row) -> Result<(u64, u64)> {
    let mut cells = row.cells();
    Ok((cells.count()?, cells.count()?))
}
