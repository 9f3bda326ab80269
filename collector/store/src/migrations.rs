//! The schema and its versions. A step, once released, is never edited: what is wrong with it is
//! mended by the next one.
//!
//! All steps that are due run in one transaction under a lock, so that collectors that start together
//! do not meet, and a step that fails leaves the schema as it was.

use crate::session::{Lock, Session};
use crate::{Result, SchemaStep, StoreError};

struct Step {
    sqlite: &'static str,
    postgres: &'static str,
}

/// In order; the schema's version is how many of them were taken. A kind of item that older programs cannot read is a step of its own.
const STEPS: &[Step] = &[
    Step { sqlite: include_str!("../migrations/sqlite/0001_first.sql"), postgres: include_str!("../migrations/postgres/0001_first.sql") },
    Step {
        sqlite: include_str!("../migrations/sqlite/0002_whole_baselines.sql"),
        postgres: include_str!("../migrations/postgres/0002_whole_baselines.sql"),
    },
    Step {
        sqlite: include_str!("../migrations/sqlite/0003_parts_of_packages.sql"),
        postgres: include_str!("../migrations/postgres/0003_parts_of_packages.sql"),
    },
    Step {
        sqlite: include_str!("../migrations/sqlite/0004_enrolment_again.sql"),
        postgres: include_str!("../migrations/postgres/0004_enrolment_again.sql"),
    },
    Step {
        sqlite: include_str!("../migrations/sqlite/0005_groups_of_changes.sql"),
        postgres: include_str!("../migrations/postgres/0005_groups_of_changes.sql"),
    },
    Step { sqlite: include_str!("../migrations/sqlite/0006_runs.sql"), postgres: include_str!("../migrations/postgres/0006_runs.sql") },
    Step { sqlite: include_str!("../migrations/sqlite/0007_kinds.sql"), postgres: include_str!("../migrations/postgres/0007_kinds.sql") },
];

pub(crate) async fn migrate(session: &mut Session, tell: &(dyn Fn(SchemaStep) + Send + Sync)) -> Result<()> {
    session.lock(Lock::Schema).await?;
    session.script("CREATE TABLE IF NOT EXISTS schema_version (version BIGINT NOT NULL)").await?;
    let row = session.fetch_optional("SELECT version FROM schema_version", Vec::new()).await?;
    let taken = match &row {
        Some(row) => row.cells().count()? as usize,
        None => {
            session.execute("INSERT INTO schema_version (version) VALUES (0)", Vec::new()).await?;
            0
        }
    };
    if taken > STEPS.len() {
        let known = STEPS.len();
        return Err(StoreError::Migration(format!(
            "it is at version {taken} and this program knows {known}: a newer trueline-collector has used this database; use that one"
        )));
    }
    for (number, step) in STEPS.iter().enumerate().skip(taken) {
        tell(SchemaStep { number: number + 1, of: STEPS.len() });
        session.script(if session.is_sqlite() { step.sqlite } else { step.postgres }).await?;
    }
    let version = i64::try_from(STEPS.len()).unwrap_or(i64::MAX);
    session.execute("UPDATE schema_version SET version = $1", vec![version.into()]).await?;
    Ok(())
}
