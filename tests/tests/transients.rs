//! Files that come and go faster than they can be read: none of them is lost, and nothing that stays is.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::Value;
use trueline_tests::agent::{Agent, Watch};
use trueline_tests::collector::{Collector, Setting};
use trueline_tests::daemon::write;
use trueline_tests::database::{Database, Engine};
use trueline_tests::state::equals_disk;
use trueline_tests::{needs, wait};

const LIMIT: Duration = Duration::from_secs(90);
const FILES: usize = 1000;

/// touch, write, rm.
fn come_and_go(folder: &Path) -> anyhow::Result<()> {
    for number in 0..FILES {
        let path = folder.join(number.to_string());
        std::fs::File::create(&path)?;
        std::fs::write(&path, "x")?;
        std::fs::remove_file(&path)?;
    }
    Ok(())
}

async fn changes(collector: &Collector, host: &str, beneath: &Path) -> anyhow::Result<Vec<Value>> {
    let beginning = format!("file:{}/", beneath.display());
    let changes = collector.rest().all("/changes", &[("host", host)]).await?;
    Ok(changes.into_iter().filter(|change| change["item"].as_str().is_some_and(|item| item.starts_with(&beginning))).collect())
}

fn count(changes: &[Value], kind: &str) -> usize {
    changes.iter().filter(|change| change["kind"] == kind).count()
}

#[tokio::test]
async fn each_file_that_comes_and_goes_is_counted_or_told_and_by_whom_where_it_lets_people_in() -> anyhow::Result<()> {
    if !needs::daemons() || !needs::fanotify() {
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let watched = folder.path().canonicalize()?.join("watched");
    let (plain, keys) = (watched.join("plain"), watched.join("home/.ssh"));
    std::fs::create_dir_all(&plain)?;
    std::fs::create_dir_all(&keys)?;
    let database = Database::start(Engine::Sqlite, folder.path()).await?;
    let collector = Collector::start(&database, Setting::default()).await?;
    let agent = Agent::start(&collector, &Watch::paths([&watched])).await?;
    let host = agent.inventoried(&collector, LIMIT).await?;
    // Away from the threads of the test.
    let (at_work, at_keys) = (plain.clone(), keys.clone());
    tokio::task::spawn_blocking(move || come_and_go(&at_work).and_then(|()| come_and_go(&at_keys))).await??;
    write(&plain.join("last"), "stays\n")?;
    wait::until("the file that stays", LIMIT, async || {
        let told = changes(&collector, &host, &plain).await?;
        Ok(told.iter().any(|change| change["item"].as_str().is_some_and(|item| item.ends_with("/last"))).then_some(()))
    })
    .await
    .with_context(|| agent.log_tail())?;

    // All that let people in: whether it was read or not. What was read lives for a moment and is gone again.
    let told = changes(&collector, &host, &keys).await?;
    ensure!((count(&told, "created"), count(&told, "removed")) == (FILES, FILES), "of {} changes", told.len());
    let own = std::process::id();
    let anonymous = told.iter().find(|change| change["actor"]["process"]["pid"] != own);
    ensure!(anonymous.is_none(), "somebody else: {anonymous:#?}");

    let (made, gone) = {
        let told = changes(&collector, &host, &plain).await?;
        (count(&told, "created") - 1, count(&told, "removed"))
    };
    ensure!(made == gone, "{made} came and {gone} went");
    let unread_keys =
        told.iter().filter(|change| change["kind"] == "created" && change["fields"].to_string().contains("it was gone before")).count();
    wait::until("the count of what came and went", LIMIT, async || {
        let counted = &agent.shown(&collector).await?["status"]["counters"]["transients"];
        let counted = counted.as_u64().with_context(|| format!("no count: {counted}"))?;
        let expected = (FILES - made + unread_keys) as u64;
        ensure!(counted <= expected, "{counted} are counted, of {expected}");
        Ok((counted == expected).then_some(()))
    })
    .await?;
    equals_disk(&collector, &agent, &watched, LIMIT).await
}
