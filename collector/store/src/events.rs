//! The event stream: what happened after a place in each of its three logs.

use trueline_drift::TenantId;

use crate::session::Session;
use crate::{EventPosition, Events, Result, changes, drifts, gaps};

pub(crate) async fn position(session: &mut Session) -> Result<EventPosition> {
    let mut position = EventPosition::default();
    for row in session.fetch("SELECT name, position FROM cursors", Vec::new()).await? {
        let mut cells = row.cells();
        let (name, at) = (cells.text()?, cells.integer()?);
        match name.as_str() {
            // A change is news once it is judged.
            "judged" => position.changes = at,
            "drift_log" => position.drift = at,
            "gaps" => position.gaps = at,
            _ => {}
        }
    }
    Ok(position)
}

pub(crate) async fn after(session: &mut Session, tenant: &TenantId, after: EventPosition, limit: u32) -> Result<Events> {
    Ok(Events {
        changes: changes::judged_after(session, tenant, after.changes, limit).await?,
        drift: drifts::logged_after(session, tenant, after.drift, limit).await?,
        gaps: gaps::received_after(session, tenant, after.gaps, limit).await?,
    })
}
