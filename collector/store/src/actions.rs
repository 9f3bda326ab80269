//! What the product and its operators did.

use trueline_drift::TenantId;

use crate::cursor::{after, listed, rows_wanted};
use crate::session::{Query, Row, Session};
use crate::{Action, Listed, NewAction, Page, Result};

pub(crate) async fn note(session: &mut Session, new: NewAction) -> Result<()> {
    let sql = "INSERT INTO actions (tenant, at, actor, action, subject, detail) VALUES ($1, $2, $3, $4, $5, $6)";
    let cells = vec![new.tenant.0.into(), new.at.into(), new.actor.into(), new.action.into(), new.subject.into(), new.detail.into()];
    session.execute(sql, cells).await.map(drop)
}

fn read(row: &Row) -> Result<Action> {
    let mut cells = row.cells();
    Ok(Action {
        id: cells.integer()?,
        at: cells.time()?,
        actor: cells.text()?,
        action: cells.text()?,
        subject: cells.text()?,
        detail: cells.text_or_none()?,
    })
}

pub(crate) async fn list(session: &mut Session, tenant: &TenantId, page: &Page) -> Result<Listed<Action>> {
    let mut query = Query::new("SELECT id, at, actor, action, subject, detail FROM actions");
    query
        .with(" WHERE tenant = ", tenant.0.as_str())
        .with_some(" AND id < ", after::<i64>(page, "actions")?)
        .with(" ORDER BY id DESC LIMIT ", rows_wanted(page));
    let actions = query.fetch(session).await?.iter().map(read).collect::<Result<_>>()?;
    Ok(listed(actions, page, "actions", |action: &Action| action.id))
}
