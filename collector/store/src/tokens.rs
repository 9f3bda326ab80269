//! Tokens: made, listed, spent, revoked. Only their digests are here.

use trueline_drift::{TenantId, Time};

use crate::cursor::{after, listed, rows_wanted};
use crate::encoding::Numbered;
use crate::session::{Query, Row, Session};
use crate::{Listed, NewToken, Page, Result, Role, Spent, Standing, Token, TokenDigest, TokenKind};

const COLUMNS: &str = "id, tenant, kind, role, name, created_at, expires_at, uses_left, revoked_at";

fn token(row: &Row) -> Result<Token> {
    let mut cells = row.cells();
    Ok(Token {
        id: cells.integer()?,
        tenant: TenantId(cells.text()?),
        kind: TokenKind::from_number(cells.integer()?)?,
        role: Role::from_number(cells.integer()?)?,
        name: cells.text()?,
        created_at: cells.time()?,
        expires_at: cells.time_or_none()?,
        uses_left: cells.integer_or_none()?.map(|uses| u32::try_from(uses).unwrap_or(0)),
        revoked_at: cells.time_or_none()?,
    })
}

pub(crate) async fn add(session: &mut Session, new: NewToken) -> Result<Token> {
    let mut query = Query::new("INSERT INTO tokens (tenant, kind, role, name, digest, created_at, expires_at, uses_left) VALUES (");
    query
        .with("", new.tenant.0)
        .with(", ", new.kind.number())
        .with(", ", new.role.number())
        .with(", ", new.name)
        .with(", ", &new.digest.0[..])
        .with(", ", new.created_at)
        .with(", ", new.expires_at)
        .with(", ", new.uses)
        .text(") RETURNING ")
        .text(COLUMNS);
    token(&query.fetch_one(session).await?)
}

pub(crate) async fn list(session: &mut Session, tenant: &TenantId, page: &Page) -> Result<Listed<Token>> {
    let mut query = Query::new("SELECT ");
    query
        .text(COLUMNS)
        .with(" FROM tokens WHERE tenant = ", tenant.0.as_str())
        .with_some(" AND id < ", after::<i64>(page, "tokens")?)
        .with(" ORDER BY id DESC LIMIT ", rows_wanted(page));
    let tokens = query.fetch(session).await?.iter().map(token).collect::<Result<_>>()?;
    Ok(listed(tokens, page, "tokens", |token: &Token| token.id))
}

pub(crate) async fn by_digest(session: &mut Session, digest: &TokenDigest) -> Result<Option<Token>> {
    let mut query = Query::new("SELECT ");
    query.text(COLUMNS).with(" FROM tokens WHERE digest = ", &digest.0[..]);
    query.fetch(session).await?.first().map(token).transpose()
}

/// The token, which nobody else may use or revoke until the session ends.
pub(crate) async fn held(session: &mut Session, digest: &TokenDigest, kind: TokenKind) -> Result<Option<Token>> {
    // SQLite's only writer holds it anyhow; PostgreSQL locks a row that is written, whatever is written.
    let mut query = Query::new("UPDATE tokens SET uses_left = uses_left WHERE digest = ");
    query.value(&digest.0[..]).with(" AND kind = ", kind.number()).text(" RETURNING ").text(COLUMNS);
    query.fetch(session).await?.first().map(token).transpose()
}

/// One statement takes the use: of many that try at once, as many succeed as there are uses.
pub(crate) async fn spend(session: &mut Session, digest: &TokenDigest, kind: TokenKind, now: Time) -> Result<Spent> {
    let mut query = Query::new("UPDATE tokens SET uses_left = uses_left - 1");
    query
        .with(" WHERE digest = ", &digest.0[..])
        .with(" AND kind = ", kind.number())
        .with(" AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > ", now)
        .text(") AND (uses_left IS NULL OR uses_left > 0) RETURNING ")
        .text(COLUMNS);
    if let Some(row) = query.fetch(session).await?.first() {
        return Ok(Spent::Token(token(row)?));
    }
    Ok(match by_digest(session, digest).await? {
        Some(token) if token.kind == kind => Spent::Refused(match token.standing(now) {
            // Used up and given back in between cannot be: what is good now was revived by nobody.
            Standing::Good => Standing::UsedUp,
            standing => standing,
        }),
        _ => Spent::Unknown,
    })
}

pub(crate) async fn revoke(session: &mut Session, tenant: &TenantId, id: i64, now: Time) -> Result<bool> {
    let sql = "UPDATE tokens SET revoked_at = $1 WHERE id = $2 AND tenant = $3 AND revoked_at IS NULL";
    Ok(session.execute(sql, vec![now.into(), id.into(), tenant.0.as_str().into()]).await? == 1)
}
