//! Faults of the collector, against each database: killed while it takes changes in, and out of disk.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context, ensure};
use trueline_tests::bounded_disk::{BoundedDisk, Filling};
use trueline_tests::cluster::Cluster;
use trueline_tests::collector::{Collector, Setting};
use trueline_tests::database::{Database, Engine};
use trueline_tests::numbered::{Senders, each_once_in_order, member, numbered};
use trueline_tests::{needs, wait};

const LIMIT: Duration = Duration::from_secs(90);

async fn killed_while_taking_changes_in(engine: Engine) -> anyhow::Result<()> {
    if !needs::daemons() || !engine.present() {
        return Ok(());
    }
    const MEMBERS: usize = 10;
    const EACH: u64 = 1000;
    let folder = tempfile::tempdir()?;
    let database = Database::start(engine, folder.path()).await?;
    let mut collector = Collector::start(&database, Setting::default()).await?;
    let senders = Senders::start(&collector, MEMBERS, EACH, 2 * LIMIT).await?;
    for share in [2000, 6000] {
        senders.have_delivered(share).await?;
        collector.kill().await?;
        ensure!(senders.durable() < MEMBERS as u64 * EACH, "the collector was killed too late to prove anything");
        collector.restart().await?;
    }
    for host in senders.finish().await? {
        each_once_in_order(&collector, &host, EACH).await?;
    }
    let all = MEMBERS as u64 * EACH;
    wait::until("every change judged once", LIMIT, async || Ok((collector.judged().await? == all).then_some(()))).await
}

#[tokio::test]
async fn every_change_is_there_once_in_order_after_kills_on_sqlite() -> anyhow::Result<()> {
    killed_while_taking_changes_in(Engine::Sqlite).await
}

#[tokio::test]
async fn every_change_is_there_once_in_order_after_kills_on_postgres() -> anyhow::Result<()> {
    killed_while_taking_changes_in(Engine::Postgres).await
}

/// What a collector whose database is out of space may say of it.
struct Words {
    /// Any of these, in readiness.
    ready: &'static [&'static str],
    /// Any of these, on the console's first page.
    console: &'static [&'static str],
}

/// The statement that found no space, as it is told.
const FULL: Words = Words { ready: &["disk is full"], console: &["database&#39;s disk is full: free space on it"] };

/// Where the server itself went down for want of space. Whoever asks cannot be told why: a token cannot be looked up.
const DOWN: Words =
    Words { ready: &["See that the database runs and its disk has space"], console: &["disk is full", "cannot reach its database"] };

/// Fills the disk under the database while changes come, and gives the space back. What is told meanwhile
/// must be in `words`, nothing may be acknowledged, and all must be there in the end, without any help.
///
/// `worsen` is done to a full disk with its filling.
async fn filled_and_freed(
    collector: &Collector,
    disk: &BoundedDisk,
    words: &Words,
    worsen: impl AsyncFnOnce(&mut Filling) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    const CHANGES: u64 = 20_000;
    let mut member = member(collector, "member").await?;
    member.append(numbered(0..100))?;
    let mut session = member.connect(collector.agents()).await?;
    member.deliver(&mut session).await?;
    drop(session);
    ensure!(collector.rest().status("/readyz").await?.0 == 200, "not ready before the fault");
    let pid = collector.pid();

    let mut filling = disk.fill()?;
    for first in (100..CHANGES).step_by(100) {
        member.append(numbered(first..first + 100))?;
    }
    let (host, durable) = (member.host_id.clone(), Arc::clone(&member.durable));
    let agents = collector.agents();
    // It lasts through all the waits below.
    let sender = tokio::spawn(async move { member.deliver_through_faults(agents, 4 * LIMIT).await });
    worsen(&mut filling).await?;
    let told = |text: &str, words: &[&str]| words.iter().any(|word| text.contains(word));
    let mut last = String::new();
    wait::until("readiness to tell of the full disk", LIMIT, async || {
        // What a server frees by itself, as it clears up or starts again, is taken as well.
        filling.top_up()?;
        let (status, body) = collector.rest().status("/readyz").await?;
        last = format!("{status}: {body}");
        Ok((status == 503 && told(&body, words.ready)).then_some(()))
    })
    .await
    .with_context(|| last.clone())?;
    let acknowledged = durable.load(Ordering::Relaxed);
    wait::until("the console to tell of it", LIMIT, async || {
        filling.top_up()?;
        let (status, page) = collector.rest().status("/").await?;
        last = format!("{status}: {page}");
        Ok(told(&page, words.console).then_some(()))
    })
    .await
    .with_context(|| last.clone())?;
    let (status, body) = collector.rest().status("/readyz").await?;
    ensure!(status == 503, "it became well while the disk was full: {status}: {body}");
    let later = durable.load(Ordering::Relaxed);
    ensure!(later == acknowledged && later < CHANGES, "acknowledged without space for them: {later}, before that {acknowledged}");

    drop(filling);
    sender.await??;
    wait::until("readiness to be well again", LIMIT, async || Ok((collector.rest().status("/readyz").await?.0 == 200).then_some(())))
        .await?;
    each_once_in_order(collector, &host, CHANGES).await?;
    wait::until("every change judged once", LIMIT, async || Ok((collector.judged().await? == CHANGES).then_some(()))).await?;
    let (status, page) = collector.rest().status("/").await?;
    ensure!(status == 200 && !told(&page, words.console), "the console still tells of it: {page}");
    collector.check_alive()?;
    ensure!(collector.pid() == pid, "the collector was started again");
    Ok(())
}

#[tokio::test]
async fn a_full_disk_under_sqlite_is_told_and_healed_from() -> anyhow::Result<()> {
    if !needs::daemons() || !needs::mount() {
        return Ok(());
    }
    let disk = BoundedDisk::mount(96)?;
    let database = Database::start(Engine::Sqlite, disk.path()).await?;
    let collector = Collector::start(&database, Setting { data_dir: Some(disk.path().join("data")), ..Setting::default() }).await?;
    filled_and_freed(&collector, &disk, &FULL, async |_| Ok(())).await
}

/// PostgreSQL refuses statements for want of space, and stays up.
#[tokio::test]
async fn full_tables_of_postgres_are_told_and_healed_from() -> anyhow::Result<()> {
    if !needs::daemons() || !needs::mount() || !needs::postgres() {
        return Ok(());
    }
    let disk = BoundedDisk::mount(160)?;
    let log = tempfile::tempdir()?;
    let cluster = Cluster::start(disk.path(), Some(log.path())).await?;
    let database = Database::kept(Engine::Postgres, cluster.uri());
    let collector = Collector::start(&database, Setting::default()).await?;
    filled_and_freed(&collector, &disk, &FULL, async |_| Ok(())).await?;
    ensure!(cluster.starts() == 1, "PostgreSQL ended, which this test is not about; its log:\n{}", cluster.log());
    Ok(())
}

/// PostgreSQL cannot write its log, panics, and cannot come up until there is space.
#[tokio::test]
async fn postgres_that_panics_on_a_full_disk_is_told_and_healed_from() -> anyhow::Result<()> {
    if !needs::daemons() || !needs::mount() || !needs::postgres() {
        return Ok(());
    }
    let disk = BoundedDisk::mount(192)?;
    let cluster = Cluster::start(disk.path(), None).await?;
    let database = Database::kept(Engine::Postgres, cluster.uri());
    let collector = Collector::start(&database, Setting::default()).await?;
    let down = async |filling: &mut Filling| {
        cluster.exhaust_log(|| filling.top_up()).await?;
        wait::until("PostgreSQL to have been started in vain", LIMIT, async || {
            filling.top_up()?;
            Ok((cluster.starts() >= 3).then_some(()))
        })
        .await
    };
    filled_and_freed(&collector, &disk, &DOWN, down).await
}
