//! Hosts let in with a join token.
//!
//! Invariants: a host and the use of the token that let it in are one transaction; a token lets a key in once for as long
//! as the host is awaited, that is until it has connected or is revoked, so that one whose answer was lost may ask again.

use trueline_drift::HostId;
use trueline_proto::ChainLink;

use crate::encoding::{host_bytes, host_from_bytes, json};
use crate::session::Session;
use crate::{Enrolled, HostStatus, KeyDigest, NewHost, Result, Standing, Token, TokenKind, tokens};

pub(crate) async fn enrol(session: &mut Session, new: NewHost) -> Result<Enrolled> {
    let Some(mut token) = tokens::held(session, &new.token, TokenKind::Join).await? else { return Ok(Enrolled::Unknown) };
    let standing = token.standing(new.enrolled_at);
    if matches!(standing, Standing::Good | Standing::UsedUp)
        && let Some(id) = awaited(session, &token, new.key).await?
    {
        return Ok(Enrolled::Host { id, token });
    }
    if standing != Standing::Good {
        return Ok(Enrolled::Refused(standing));
    }
    session.execute("UPDATE tokens SET uses_left = uses_left - 1 WHERE id = $1", vec![token.id.into()]).await?;
    token.uses_left = token.uses_left.map(|uses| uses.saturating_sub(1));
    let sql = "INSERT INTO hosts (uuid, tenant, name, facts, status, join_token, enrolled_at, enrolment_key, epoch, acknowledged, link, \
        items, generation, compared_generation) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, 0, 0, $9, 0, 0, 0)";
    let cells = vec![
        host_bytes(new.id).into(),
        token.tenant.0.as_str().into(),
        new.facts.hostname.as_str().into(),
        json(&new.facts).into(),
        json(&HostStatus::default()).into(),
        token.id.into(),
        new.enrolled_at.into(),
        new.key.0.to_vec().into(),
        ChainLink::START.0.to_vec().into(),
    ];
    session.execute(sql, cells).await?;
    Ok(Enrolled::Host { id: new.id, token })
}

/// The host that this key was let in as, and that has not connected since.
async fn awaited(session: &mut Session, token: &Token, key: KeyDigest) -> Result<Option<HostId>> {
    let sql = "SELECT uuid FROM hosts WHERE join_token = $1 AND enrolment_key = $2";
    let row = session.fetch_optional(sql, vec![token.id.into(), key.0.to_vec().into()]).await?;
    row.map(|row| host_from_bytes(&row.cells().blob()?)).transpose()
}
