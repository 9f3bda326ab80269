//! Hosts, their certificates, and what their agents last said.

use trueline_drift::judge::BaselineName;
use trueline_drift::{Epoch, Facts, HostId, Sequence, TenantId, Time};

use crate::comparing::JUDGED;
use crate::cursor::{after, listed, rows_wanted};
use crate::encoding::{self, from_json, host_bytes, host_from_bytes, json};
use crate::session::{Query, Row, Session};
use crate::stream::Stream;
use crate::{Comparison, Credential, Host, HostStatus, Listed, NewCertificate, Page, Result, StoreError, StreamPosition, folding};

/// Hosts `h` as [`host`] reads them; conditions follow.
fn select() -> Query {
    let mut query = Query::new(&format!(
        "SELECT h.uuid, h.tenant, h.facts, h.agent_version, h.enrolled_at, h.last_seen_at, h.revoked_at, \
        (SELECT max(c.expires_at) FROM certificates c WHERE c.host = h.id), h.epoch, h.acknowledged, h.inventory_at, h.items, \
        (SELECT count(*) FROM drift d WHERE d.host = h.id AND d.resolved_at IS NULL), \
        (SELECT count(*) FROM drift d WHERE d.host = h.id AND d.resolved_at IS NULL AND {}), \
        CASE WHEN h.inventory_epoch = h.epoch AND h.compared_generation >= h.generation AND ",
        folding::is_folded()
    ));
    query.text(JUDGED).text(" THEN 1 ELSE 0 END, b.name, b.version, h.status FROM hosts h LEFT JOIN baselines b ON b.id = h.baseline");
    query
}

fn host(row: &Row) -> Result<Host> {
    let mut cells = row.cells();
    let mut host = Host {
        id: host_from_bytes(&cells.blob()?)?,
        tenant: TenantId(cells.text()?),
        facts: from_json("facts", &cells.text()?)?,
        agent_version: cells.text_or_none()?,
        enrolled_at: cells.time()?,
        last_seen_at: cells.time_or_none()?,
        revoked_at: cells.time_or_none()?,
        certificate_expires_at: cells.time_or_none()?,
        epoch: Epoch(cells.count()?),
        acknowledged: Sequence(cells.count()?),
        inventory_completed_at: cells.time_or_none()?,
        items: cells.count()?,
        open_drifts: cells.count()?,
        folded_drifts: cells.count()?,
        comparison: Some(if cells.integer()? == 1 { Comparison::Current } else { Comparison::Pending }),
        baseline: match (cells.text_or_none()?, cells.integer_or_none()?) {
            (Some(name), Some(version)) => Some(BaselineName { name, version: u64::try_from(version).unwrap_or(0) }),
            _ => None,
        },
        status: from_json("status", &cells.text()?)?,
    };
    // The first count was of all.
    host.open_drifts = host.open_drifts.saturating_sub(host.folded_drifts);
    host.comparison = host.comparison.filter(|_| host.baseline.is_some());
    Ok(host)
}

pub(crate) fn stream_number(subject: &'static str, number: u64) -> Result<i64> {
    i64::try_from(number).map_err(|_| StoreError::Invalid { subject, reason: format!("{number} is beyond {}", i64::MAX) })
}

pub(crate) async fn add_certificate(session: &mut Session, new: NewCertificate) -> Result<()> {
    let sql = "INSERT INTO certificates (serial, host, issued_at, expires_at) SELECT $1, id, $2, $3 FROM hosts WHERE uuid = $4";
    let cells = vec![new.serial.into(), new.issued_at.into(), new.expires_at.into(), host_bytes(new.host).into()];
    if session.execute(sql, cells).await? == 1 { Ok(()) } else { Err(unknown(new.host)) }
}

pub(crate) fn unknown(host: HostId) -> StoreError {
    StoreError::Invalid { subject: "host", reason: format!("{host} is not enrolled") }
}

pub(crate) async fn credential(session: &mut Session, serial: &str) -> Result<Option<Credential>> {
    let sql = "SELECT h.uuid, h.tenant, h.revoked_at FROM certificates c JOIN hosts h ON h.id = c.host WHERE c.serial = $1";
    let row = session.fetch_optional(sql, vec![serial.into()]).await?;
    row.map(|row| {
        let mut cells = row.cells();
        Ok(Credential { host: host_from_bytes(&cells.blob()?)?, tenant: TenantId(cells.text()?), revoked_at: cells.time_or_none()? })
    })
    .transpose()
}

pub(crate) async fn revoke(session: &mut Session, tenant: &TenantId, host: HostId, now: Time) -> Result<bool> {
    let sql = "UPDATE hosts SET revoked_at = $1, enrolment_key = NULL WHERE uuid = $2 AND tenant = $3 AND revoked_at IS NULL";
    Ok(session.execute(sql, vec![now.into(), host_bytes(host).into(), tenant.0.as_str().into()]).await? == 1)
}

pub(crate) async fn revoked_since(session: &mut Session, since: Time) -> Result<Vec<HostId>> {
    let rows = session.fetch("SELECT uuid FROM hosts WHERE revoked_at >= $1 ORDER BY revoked_at", vec![since.into()]).await?;
    rows.iter().map(|row| host_from_bytes(&row.cells().blob()?)).collect()
}

pub(crate) async fn one(session: &mut Session, tenant: &TenantId, id_or_name: &str) -> Result<Option<Host>> {
    if let Ok(id) = id_or_name.parse::<HostId>() {
        let mut query = select();
        query.with(" WHERE h.tenant = ", tenant.0.as_str()).with(" AND h.uuid = ", host_bytes(id));
        return query.fetch(session).await?.first().map(host).transpose();
    }
    let mut query = select();
    query
        .with(" WHERE h.tenant = ", tenant.0.as_str())
        .with(" AND h.name = ", id_or_name)
        .text(" ORDER BY CASE WHEN h.revoked_at IS NULL THEN 0 ELSE 1 END, h.id LIMIT 2");
    let mut found = query.fetch(session).await?.iter().map(host).collect::<Result<Vec<_>>>()?;
    // A host that was enrolled anew leaves revoked namesakes behind: those do not make the name ambiguous.
    let ambiguous = found.len() == 2 && found[0].revoked_at.is_some() == found[1].revoked_at.is_some();
    Ok(if ambiguous || found.is_empty() { None } else { Some(found.swap_remove(0)) })
}

pub(crate) async fn list(session: &mut Session, tenant: &TenantId, page: &Page) -> Result<Listed<Host>> {
    let mut query = select();
    query.with(" WHERE h.tenant = ", tenant.0.as_str());
    if let Some((name, id)) = after::<(String, HostId)>(page, "hosts")? {
        query.with(" AND (h.name, h.uuid) > (", name).with(", ", host_bytes(id)).text(")");
    }
    query.with(" ORDER BY h.name, h.uuid LIMIT ", rows_wanted(page));
    let hosts = query.fetch(session).await?.iter().map(host).collect::<Result<_>>()?;
    Ok(listed(hosts, page, "hosts", |host: &Host| (host.facts.hostname.clone(), host.id)))
}

/// A host's row and its stream.
pub(crate) fn stream(cells: &mut crate::session::Cells<'_>) -> Result<Stream> {
    Ok(Stream {
        revoked: cells.integer_or_none()?.is_some(),
        epoch: Epoch(cells.count()?),
        acknowledged: Sequence(cells.count()?),
        link: encoding::link_from_bytes(&cells.blob()?)?,
    })
}

pub(crate) async fn connected(
    session: &mut Session,
    host: HostId,
    facts: &Facts,
    agent_version: &str,
    epoch: Epoch,
    now: Time,
) -> Result<StreamPosition> {
    // The same lock as an append: the stream must not move in between.
    session.lock(crate::session::Lock::Log).await?;
    let sql = "SELECT revoked_at, epoch, acknowledged, link FROM hosts WHERE uuid = $1";
    let row = session.fetch_optional(sql, vec![host_bytes(host).into()]).await?.ok_or_else(|| unknown(host))?;
    let stream = stream(&mut row.cells())?;
    let position = stream.position(epoch);
    let standing = if epoch > stream.epoch { (epoch, position) } else { (stream.epoch, stream.position(stream.epoch)) };
    let sql = "UPDATE hosts SET name = $1, facts = $2, agent_version = $3, last_seen_at = $4, enrolment_key = NULL, epoch = $5, \
        acknowledged = $6, link = $7 WHERE uuid = $8";
    let cells = vec![
        facts.hostname.as_str().into(),
        json(facts).into(),
        agent_version.into(),
        now.into(),
        stream_number("epoch", standing.0.0)?.into(),
        stream_number("sequence", standing.1.acknowledged.0)?.into(),
        standing.1.link.0.to_vec().into(),
        host_bytes(host).into(),
    ];
    session.execute(sql, cells).await?;
    Ok(position)
}

pub(crate) async fn note_status(session: &mut Session, host: HostId, status: &HostStatus, now: Time) -> Result<()> {
    let sql = "UPDATE hosts SET status = $1, last_seen_at = $2 WHERE uuid = $3";
    session.execute(sql, vec![json(status).into(), now.into(), host_bytes(host).into()]).await.map(drop)
}
