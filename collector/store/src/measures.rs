//! Measurements for an operator's monitoring: counts by index, no change is read but one.

use sqlx::AssertSqlSafe;
use trueline_drift::{TenantId, Time, Verdict};

use crate::encoding::{Numbered, host_from_bytes};
use crate::folding::{is_folded_under, packages};
use crate::session::Session;
use crate::{Measures, Result};

pub(crate) async fn measure(session: &mut Session, tenant: &TenantId, heard_since: Time) -> Result<Measures> {
    let tenant = tenant.0.as_str();
    let mut measures = Measures::default();
    let sql = "SELECT count(*), count(revoked_at), CAST(coalesce(sum(CASE WHEN revoked_at IS NULL THEN items END), 0) AS BIGINT), \
        count(CASE WHEN revoked_at IS NULL AND baseline IS NOT NULL AND generation > compared_generation THEN 1 END) \
        FROM hosts WHERE tenant = $1";
    let row = session.fetch_one(sql, vec![tenant.into()]).await?;
    let mut cells = row.cells();
    let all = cells.count()?;
    measures.revoked_hosts = cells.count()?;
    measures.hosts = all - measures.revoked_hosts;
    (measures.items, measures.uncompared_hosts) = (cells.count()?, cells.count()?);

    let sql = "SELECT uuid FROM hosts WHERE tenant = $1 AND revoked_at IS NULL AND (last_seen_at IS NULL OR last_seen_at < $2)";
    for row in session.fetch(sql, vec![tenant.into(), heard_since.into()]).await? {
        measures.unheard_hosts.push(host_from_bytes(&row.cells().blob()?)?);
    }

    let sql = format!(
        "SELECT open.verdict, open.folded, count(*) FROM (SELECT d.verdict, {} AS folded \
        FROM drift d CROSS JOIN items i LEFT JOIN {} AS s ON s.host = i.host AND s.fingerprint = i.shipped_by \
        WHERE i.id = d.item AND d.tenant = $1 AND d.resolved_at IS NULL) AS open GROUP BY 1, 2",
        is_folded_under(),
        packages()
    );
    for row in session.fetch(AssertSqlSafe(sql), vec![tenant.into()]).await? {
        let mut cells = row.cells();
        let (verdict, is_folded) = (Verdict::from_number(cells.integer()?)?, cells.integer()? == 1);
        let counts = if is_folded { &mut measures.folded_drifts } else { &mut measures.open_drifts };
        counts.insert(verdict, cells.count()?);
    }

    // Positions have no holes.
    let sql = "SELECT l.position - j.position, (SELECT c.received_at FROM changes c WHERE c.position = j.position + 1) \
        FROM cursors l, cursors j WHERE l.name = 'changes' AND j.name = 'judged'";
    let row = session.fetch_one(sql, Vec::new()).await?;
    let mut cells = row.cells();
    (measures.unjudged, measures.unjudged_since) = (cells.count()?, cells.time_or_none()?);
    Ok(measures)
}
