//! Secrets and state that every collector on this database shares.

use crate::session::Session;
use crate::{Result, encoding};

/// The first writer wins; everybody gets its value.
pub(crate) async fn keep(session: &mut Session, name: &str, value: &[u8]) -> Result<Vec<u8>> {
    session
        .execute("INSERT INTO kept (name, value) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING", vec![name.into(), value.into()])
        .await?;
    kept(session, name).await?.ok_or_else(|| encoding::corrupt("kept value", "was written and is not there"))
}

pub(crate) async fn kept(session: &mut Session, name: &str) -> Result<Option<Vec<u8>>> {
    let row = session.fetch_optional("SELECT value FROM kept WHERE name = $1", vec![name.into()]).await?;
    row.map(|row| row.cells().blob()).transpose()
}
