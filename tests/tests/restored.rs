//! A collector restored from a backup, with a real agent: the agent sends again what it still has, tells anew what it
//! has not, and the state comes to equal the disk.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use std::collections::BTreeSet;
use std::path::Path;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, ensure};
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _};
use trueline_tests::collector::Setting;
use trueline_tests::daemon::write;
use trueline_tests::database::{Database, Engine};
use trueline_tests::scene::Scene;
use trueline_tests::state::{gaps, item};
use trueline_tests::tree::Numbers;
use trueline_tests::{needs, wait};

const LIMIT: Duration = Duration::from_secs(90);

/// A copy of the database of a collector that is not running.
struct Backup {
    engine: Engine,
    folder: tempfile::TempDir,
    copy: String,
}

impl Backup {
    async fn take(database: &Database, folder: &Path) -> anyhow::Result<Self> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let backup = Self {
            engine: database.engine(),
            folder: tempfile::tempdir()?,
            copy: format!("backup_{}", NUMBER.fetch_add(1, Ordering::Relaxed)),
        };
        match backup.engine {
            Engine::Sqlite => copy_database(folder, backup.folder.path())?,
            Engine::Postgres => {
                let options = PgConnectOptions::from_str(database.uri())?;
                let name = options.get_database().context("the address names no database")?.to_owned();
                let mut connection = options.database("postgres").connect().await?;
                let copying = format!("CREATE DATABASE {} TEMPLATE {name}", backup.copy);
                sqlx::raw_sql(sqlx::AssertSqlSafe(copying)).execute(&mut connection).await?;
                connection.close().await?;
            }
        }
        Ok(backup)
    }

    /// The database as it was, in the place of what it is now.
    fn restore(self, database: &Database, folder: &Path) -> anyhow::Result<Database> {
        match self.engine {
            Engine::Sqlite => {
                copy_database(self.folder.path(), folder)?;
                Ok(Database::kept(Engine::Sqlite, database.uri().to_owned()))
            }
            Engine::Postgres => {
                let name = PgConnectOptions::from_str(database.uri())?.get_database().context("no database")?.to_owned();
                Ok(Database::kept(Engine::Postgres, database.uri().replacen(&name, &self.copy, 1)))
            }
        }
    }
}

/// SQLite's files, in the place of those that are there.
fn copy_database(from: &Path, to: &Path) -> anyhow::Result<()> {
    for name in ["collector.db", "collector.db-wal", "collector.db-shm"] {
        let _ = std::fs::remove_file(to.join(name));
        if from.join(name).exists() {
            std::fs::copy(from.join(name), to.join(name))?;
        }
    }
    Ok(())
}

/// What the agent has left of the records that the backup lacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Left {
    All,
    /// They were acknowledged, so many that they have left the spool.
    Nothing,
}

/// Links with so long targets that a thousand fill a segment of the spool.
fn fill_spool(folder: &Path) -> anyhow::Result<()> {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut numbers = Numbers::from_seed(11);
    for link in 0..1200 {
        let target: String = (0..4000).map(|_| char::from(LETTERS[numbers.below(64) as usize])).collect();
        std::os::unix::fs::symlink(target, folder.join(format!("link-{link:04}")))?;
    }
    Ok(())
}

/// Waits until the agent says that its configuration was refused.
async fn refused(scene: &Scene) -> anyhow::Result<()> {
    wait::until("a configuration to be refused", LIMIT, async || {
        let host = scene.agent.shown(&scene.collector).await?;
        let troubles = host["status"]["troubles"].as_array().map_or(&[][..], Vec::as_slice);
        let is_said = troubles.iter().any(|trouble| trouble.as_str().is_some_and(|trouble| trouble.contains("the present one stays")));
        Ok(is_said.then_some(()))
    })
    .await
    .with_context(|| format!("the agent's log:\n{}", scene.agent.log_tail()))
}

async fn restored_from_a_backup(engine: Engine, left: Left) -> anyhow::Result<()> {
    if !needs::daemons() || !needs::fanotify() || !engine.present() {
        return Ok(());
    }
    const FILES: usize = 60;
    let mut scene = Scene::new(engine, Setting::default(), FILES).await?;
    scene.collector.capture_baseline(scene.agent.host(), "before").await?;
    write(&scene.file(0), "before the backup\n")?;
    scene.changed(&scene.file(0)).await?;
    scene.collector.stop().await?;
    let backup = Backup::take(&scene.database, scene.folder()).await?;
    scene.collector.restart().await?;
    let at_backup = scene.agent.shown(&scene.collector).await?["acknowledged"].as_u64().context("nothing acknowledged")?;

    for index in 1..FILES / 2 {
        write(&scene.file(index), "after the backup\n")?;
    }
    std::fs::remove_file(scene.file(FILES - 1))?;
    write(&scene.file(FILES), "new after the backup\n")?;
    if left == Left::Nothing {
        fill_spool(&scene.watched)?;
    }
    scene.equals_disk().await?;
    // One with a fault, which is refused: a trouble until there is another, also of an agent that starts over.
    scene.agent.reload("spool_mib = 0\n")?;
    refused(&scene).await?;
    let epoch = wait::until("the spool to hold what it should", LIMIT, async || {
        let host = scene.agent.shown(&scene.collector).await?;
        let spool = &host["status"]["spool"];
        let released = spool["oldest_sequence"].as_u64() > Some(at_backup + 1);
        Ok((released == (left == Left::Nothing)).then(|| host["epoch"].as_u64()))
    })
    .await?;
    scene.collector.stop().await?;
    let restored = backup.restore(&scene.database, scene.folder())?;
    scene.collector.use_database(&restored);
    scene.collector.restart().await?;

    if left == Left::Nothing {
        wait::until(
            "a new epoch",
            LIMIT,
            async || Ok((scene.agent.shown(&scene.collector).await?["epoch"].as_u64() > epoch).then_some(())),
        )
        .await
        .with_context(|| format!("the agent's log:\n{}", scene.agent.log_tail()))?;
    }
    refused(&scene).await?;
    scene.equals_disk().await?;
    let departing: BTreeSet<String> = (0..FILES / 2).chain([FILES - 1, FILES]).map(|index| item(&scene.file(index))).collect();
    let untouched: BTreeSet<String> = (FILES / 2..FILES - 1).map(|index| item(&scene.file(index))).collect();
    wait::until("drift of each file that departs from the baseline", LIMIT, async || {
        let open = scene.collector.rest().all("/drift", &[("state", "open")]).await?;
        let items: BTreeSet<String> = open.iter().filter_map(|drift| Some(drift["item"].as_str()?.to_owned())).collect();
        ensure!(items.is_disjoint(&untouched), "there is drift of a file that was never touched");
        Ok(items.is_superset(&departing).then_some(()))
    })
    .await?;
    let shown = scene.agent.shown(&scene.collector).await?;
    let reported = async || gaps(&scene.collector, scene.agent.host(), "set_back").await;
    match left {
        Left::All => {
            let gaps = reported().await?;
            ensure!(shown["epoch"].as_u64() == epoch && gaps.is_empty(), "what was still there was not just sent again: {gaps:?}");
            let changes = scene.collector.rest().all("/changes", &[("host", scene.agent.host())]).await?;
            let items: BTreeSet<String> = changes.iter().filter_map(|change| Some(change["item"].as_str()?.to_owned())).collect();
            ensure!(items.is_superset(&departing), "changes are missing: {:?}", departing.difference(&items).collect::<Vec<_>>());
        }
        Left::Nothing => {
            let is_reported = async || Ok((!reported().await?.is_empty()).then_some(()));
            wait::until("the lost records to be reported as a gap", LIMIT, is_reported).await?;
        }
    }
    write(&scene.file(FILES + 1), "after the restore\n")?;
    scene.changed(&scene.file(FILES + 1)).await?;
    scene.equals_disk().await
}

#[tokio::test]
async fn a_restored_collector_is_told_anew_what_left_the_spool_on_sqlite() -> anyhow::Result<()> {
    restored_from_a_backup(Engine::Sqlite, Left::Nothing).await
}

#[tokio::test]
async fn a_restored_collector_is_told_anew_what_left_the_spool_on_postgres() -> anyhow::Result<()> {
    restored_from_a_backup(Engine::Postgres, Left::Nothing).await
}

#[tokio::test]
async fn a_restored_collector_is_sent_again_what_is_in_the_spool_on_sqlite() -> anyhow::Result<()> {
    restored_from_a_backup(Engine::Sqlite, Left::All).await
}

#[tokio::test]
async fn a_restored_collector_is_sent_again_what_is_in_the_spool_on_postgres() -> anyhow::Result<()> {
    restored_from_a_backup(Engine::Postgres, Left::All).await
}

/// Agents renew their certificates while nobody thinks of it: a backup is older than most of them.
async fn restored_from_before_a_renewal(engine: Engine) -> anyhow::Result<()> {
    if !needs::daemons() || !needs::fanotify() || !engine.present() {
        return Ok(());
    }
    let mut scene = Scene::new(engine, Setting { certificate_seconds: Some(30), ..Setting::default() }, 0).await?;
    scene.collector.stop().await?;
    let backup = Backup::take(&scene.database, scene.folder()).await?;
    scene.collector.restart().await?;
    let renewals = async |scene: &Scene| {
        let actions = scene.collector.rest().all("/actions", &[]).await?;
        anyhow::Ok(actions.iter().filter(|action| action["action"] == "certificate.renew").count())
    };
    let before = renewals(&scene).await?;
    wait::until("a renewal", LIMIT, async || Ok((renewals(&scene).await? > before).then_some(()))).await?;
    scene.collector.stop().await?;
    let restored = backup.restore(&scene.database, scene.folder())?;
    scene.collector.use_database(&restored);
    scene.collector.restart().await?;
    write(&scene.file(0), "after the restore\n")?;
    scene.equals_disk().await
}

#[tokio::test]
async fn a_restored_collector_knows_hosts_that_renewed_since_on_sqlite() -> anyhow::Result<()> {
    restored_from_before_a_renewal(Engine::Sqlite).await
}

#[tokio::test]
async fn a_restored_collector_knows_hosts_that_renewed_since_on_postgres() -> anyhow::Result<()> {
    restored_from_before_a_renewal(Engine::Postgres).await
}
