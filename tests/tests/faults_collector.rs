//! Faults of the collector, against each database: killed while it takes changes in, and out of disk.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::ensure;
use serde_json::Value;
use trueline_drift::RecordBody;
use trueline_tests::bounded_disk::BoundedDisk;
use trueline_tests::collector::{Collector, Setting};
use trueline_tests::content::numbered_change;
use trueline_tests::database::{Database, Engine};
use trueline_tests::fleet::Member;
use trueline_tests::{needs, wait};

const LIMIT: Duration = Duration::from_secs(90);

async fn member(collector: &Collector, name: &str) -> anyhow::Result<Member> {
    let token = collector.join_token(1).await?;
    Member::enrol(collector.enrolment(), collector.ca_sha256()?, &token, name).await
}

fn numbered(numbers: std::ops::Range<u64>) -> Vec<RecordBody> {
    numbers.map(|number| RecordBody::Changed(Box::new(numbered_change(number)))).collect()
}

/// Fails unless the host's changes are those numbered 0 to `count`, each once and in order.
async fn each_once_in_order(collector: &Collector, host: &str, count: u64) -> anyhow::Result<()> {
    let mut changes = collector.rest().all("/changes", &[("host", host)]).await?;
    // Newest first, as people read them.
    changes.reverse();
    let size = |change: &Value| change["fields"].as_array()?.iter().find(|field| field["name"] == "size")?["after"].as_u64();
    let numbers: Vec<Option<u64>> = changes.iter().map(size).collect();
    let wanted: Vec<Option<u64>> = (0..count).map(Some).collect();
    let first = numbers.iter().zip(&wanted).position(|(held, wanted)| held != wanted);
    ensure!(numbers == wanted, "{} changes held, {count} sent; the first difference is at {first:?}", numbers.len());
    let sequences: Vec<Option<u64>> = changes.iter().map(|change| change["sequence"].as_u64()).collect();
    ensure!(sequences == (1..=count).map(Some).collect::<Vec<_>>(), "sequences are not 1 to {count} in order");
    Ok(())
}

async fn killed_while_taking_changes_in(engine: Engine) -> anyhow::Result<()> {
    if !needs::daemons() || !engine.present() {
        return Ok(());
    }
    const MEMBERS: usize = 10;
    const EACH: u64 = 1000;
    let folder = tempfile::tempdir()?;
    let database = Database::start(engine, folder.path()).await?;
    let mut collector = Collector::start(&database, Setting::default()).await?;
    let durable = Arc::new(AtomicU64::new(0));
    let mut senders = Vec::new();
    let mut hosts = Vec::new();
    for index in 0..MEMBERS {
        let mut member = member(&collector, &format!("member-{index}")).await?;
        // Few bytes on their way at once, so that the collector dies with much still to come.
        member.window = 4096;
        member.durable = Arc::clone(&durable);
        for first in (0..EACH).step_by(20) {
            member.append(numbered(first..first + 20))?;
        }
        hosts.push(member.host_id.clone());
        let agents = collector.agents();
        senders.push(tokio::spawn(async move { member.deliver_through_faults(agents, LIMIT).await }));
    }
    for share in [2000, 6000] {
        wait::until("part of the changes to be durable", LIMIT, async || Ok((durable.load(Ordering::Relaxed) >= share).then_some(())))
            .await?;
        collector.kill().await?;
        ensure!(durable.load(Ordering::Relaxed) < MEMBERS as u64 * EACH, "the collector was killed too late to prove anything");
        collector.restart().await?;
    }
    for sender in senders {
        sender.await??;
    }
    for host in &hosts {
        each_once_in_order(&collector, host, EACH).await?;
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

#[tokio::test]
async fn a_full_disk_under_the_database_is_told_and_healed_from() -> anyhow::Result<()> {
    if !needs::daemons() || !needs::mount() {
        return Ok(());
    }
    const CHANGES: u64 = 20_000;
    let disk = BoundedDisk::mount(96)?;
    let database = Database::start(Engine::Sqlite, disk.path()).await?;
    let collector = Collector::start(&database, Setting { data_dir: Some(disk.path().join("data")), ..Setting::default() }).await?;
    let mut member = member(&collector, "member").await?;
    member.append(numbered(0..100))?;
    let mut session = member.connect(collector.agents()).await?;
    member.deliver(&mut session).await?;
    drop(session);
    ensure!(collector.rest().status("/readyz").await?.0 == 200, "not ready before the fault");

    let filling = disk.fill()?;
    for first in (100..CHANGES).step_by(100) {
        member.append(numbered(first..first + 100))?;
    }
    let host = member.host_id.clone();
    let agents = collector.agents();
    let sender = tokio::spawn(async move { member.deliver_through_faults(agents, LIMIT).await });
    let said = wait::until("readyz to tell of the full disk", LIMIT, async || {
        let (status, body) = collector.rest().status("/readyz").await?;
        Ok((status == 503).then_some(body))
    })
    .await?;
    ensure!(said.contains("full"), "readyz does not say that the disk is full: {said}");
    ensure!(!sender.is_finished(), "changes were acknowledged although there was no space for them");

    drop(filling);
    sender.await??;
    wait::until("readyz to be well again", LIMIT, async || Ok((collector.rest().status("/readyz").await?.0 == 200).then_some(()))).await?;
    each_once_in_order(&collector, &host, CHANGES).await
}
