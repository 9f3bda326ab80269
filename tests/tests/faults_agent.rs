//! Faults of the agent and of what it stands on, with the real daemons: killed, cut off, overrun, out
//! of disk. Each time nothing may be missed silently, and the state afterwards must equal the disk.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};
use trueline_tests::agent::{Agent, Watch};
use trueline_tests::bounded_disk::BoundedDisk;
use trueline_tests::collector::{Collector, Setting};
use trueline_tests::daemon::write;
use trueline_tests::database::{Database, Engine};
use trueline_tests::state::{equals_disk, gaps, item};
use trueline_tests::{needs, wait};

const LIMIT: Duration = Duration::from_secs(120);

/// A collector, an agent and the folder that it watches.
struct Scene {
    collector: Collector,
    agent: Agent,
    watched: PathBuf,
    _database: Database,
    _folder: tempfile::TempDir,
}

impl Scene {
    async fn new(engine: Engine, files: usize, watch: Watch) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let watched = folder.path().canonicalize()?.join("watched");
        std::fs::create_dir(&watched)?;
        for index in 0..files {
            write(&file(&watched, index), format!("before {index}\n"))?;
        }
        Self::over(engine, folder, watched, watch).await
    }

    async fn over(engine: Engine, folder: tempfile::TempDir, watched: PathBuf, watch: Watch) -> anyhow::Result<Self> {
        let database = Database::start(engine, folder.path()).await?;
        let collector = Collector::start(&database, Setting::default()).await?;
        let agent = Agent::start(&collector, &Watch { paths: vec![watched.clone()], ..watch }).await?;
        agent.inventoried(&collector, LIMIT).await?;
        Ok(Self { collector, agent, watched, _database: database, _folder: folder })
    }

    async fn equals_disk(&self) -> anyhow::Result<()> {
        equals_disk(&self.collector, &self.agent, &self.watched, LIMIT).await
    }

    /// The first closed gap with this reason.
    async fn gap(&self, reason: &str) -> anyhow::Result<serde_json::Value> {
        let what = format!("a closed coverage gap for {reason}");
        let found = wait::until(&what, LIMIT, async || {
            self.agent.shown(&self.collector).await?;
            let gaps = gaps(&self.collector, self.agent.host(), reason).await?;
            Ok(gaps.into_iter().find(|gap| gap["ended_at"].is_string()))
        });
        match found.await {
            Ok(gap) => Ok(gap),
            Err(error) => {
                let shown = self.agent.shown(&self.collector).await?;
                Err(error.context(format!("the agent's status: {}; its log:\n{}", shown["status"], self.agent.log_tail())))
            }
        }
    }

    /// Items with at least one change.
    async fn changed(&self) -> anyhow::Result<BTreeSet<String>> {
        let changes = self.collector.rest().all("/changes", &[("host", self.agent.host())]).await?;
        Ok(changes.iter().filter_map(|change| change["item"].as_str().map(str::to_owned)).collect())
    }
}

fn file(folder: &Path, index: usize) -> PathBuf {
    folder.join(format!("file-{index:06}.conf"))
}

async fn killed_and_changed_meanwhile(engine: Engine) -> anyhow::Result<()> {
    if !needs::daemons() || !needs::fanotify() || !engine.present() {
        return Ok(());
    }
    const FILES: usize = 300;
    let mut scene = Scene::new(engine, FILES, Watch::default()).await?;
    // Dies with changes seen, changes half written and changes not yet looked at.
    for index in 0..FILES / 3 {
        write(&file(&scene.watched, index), "while it lived\n")?;
    }
    scene.agent.kill().await?;
    for index in FILES / 3..FILES * 2 / 3 {
        write(&file(&scene.watched, index), "while it was down\n")?;
    }
    std::fs::remove_file(file(&scene.watched, FILES - 1))?;
    write(&file(&scene.watched, FILES), "new while it was down\n")?;
    scene.agent.restart()?;
    let gap = scene.gap("agent_down").await?;
    ensure!(gap["began_at"].as_str() < gap["ended_at"].as_str(), "the gap has no length: {gap}");
    scene.equals_disk().await?;
    let mut expected: BTreeSet<String> = (0..FILES * 2 / 3).map(|index| item(&file(&scene.watched, index))).collect();
    expected.extend([FILES - 1, FILES].map(|index| item(&file(&scene.watched, index))));
    let changed = scene.changed().await?;
    let missing: Vec<&String> = expected.difference(&changed).collect();
    ensure!(missing.is_empty(), "{} changed items were absorbed without a change, among them {:?}", missing.len(), missing.first());
    let untouched = item(&file(&scene.watched, FILES * 2 / 3));
    ensure!(!changed.contains(&untouched), "{untouched} was never touched and has a change");
    Ok(())
}

#[tokio::test]
async fn changes_made_while_a_killed_agent_is_down_are_reported_on_sqlite() -> anyhow::Result<()> {
    killed_and_changed_meanwhile(Engine::Sqlite).await
}

#[tokio::test]
async fn changes_made_while_a_killed_agent_is_down_are_reported_on_postgres() -> anyhow::Result<()> {
    killed_and_changed_meanwhile(Engine::Postgres).await
}

#[tokio::test]
async fn a_hundred_thousand_changes_without_a_collector_are_delivered_or_counted() -> anyhow::Result<()> {
    if !needs::daemons() || !needs::fanotify() {
        return Ok(());
    }
    const FILES: usize = 100_000;
    let mut scene = Scene::new(Engine::Sqlite, 0, Watch::default()).await?;
    scene.collector.kill().await?;
    for folder in 0..100 {
        let folder = scene.watched.join(format!("folder-{folder:02}"));
        std::fs::create_dir(&folder)?;
        for index in 0..FILES / 100 {
            write(&file(&folder, index), "new\n")?;
        }
    }
    scene.collector.restart().await?;
    scene.equals_disk().await?;
    let host = scene.agent.shown(&scene.collector).await?;
    let spool = &host["status"]["spool"];
    ensure!(spool["bytes"].as_u64() <= spool["limit_bytes"].as_u64(), "the spool has outgrown its bound: {spool}");
    let changes = scene.changed().await?.len();
    let all_gaps = scene.collector.rest().all("/coverage", &[("host", scene.agent.host())]).await?;
    let gaps = all_gaps.iter().filter(|gap| gap["reason"] != "agent_down").count();
    // Each file and each folder, whether an event told of it or the rescan after a loss did.
    ensure!(changes >= FILES + 100, "{changes} items have changes, {} were made; {gaps} gaps were reported", FILES + 100);
    Ok(())
}

/// Takes something from the agent's data while it is down and changes the host meanwhile.
async fn bereaved(what: &str) -> anyhow::Result<()> {
    if !needs::daemons() || !needs::fanotify() {
        return Ok(());
    }
    const FILES: usize = 300;
    let data = tempfile::tempdir()?;
    let watch = Watch { data_dir: Some(data.path().join("agent")), ..Watch::default() };
    let mut scene = Scene::new(Engine::Sqlite, FILES, watch).await?;
    scene.collector.capture_baseline(scene.agent.host(), "before").await?;
    scene.agent.kill().await?;
    let lost = data.path().join("agent").join(what);
    if lost.is_dir() {
        std::fs::remove_dir_all(&lost)?
    } else {
        std::fs::write(&lost, b"not what it was")?
    }
    std::fs::remove_file(file(&scene.watched, 0))?;
    write(&file(&scene.watched, 1), "while nobody remembered\n")?;
    scene.agent.restart()?;
    scene.gap("spool_damaged").await?;
    scene.equals_disk().await?;
    let one_file_gone_and_one_changed = wait::until("drift of the two files alone", LIMIT, async || {
        let open = scene.collector.rest().all("/drift", &[("state", "open")]).await?;
        let items: BTreeSet<&str> = open.iter().filter_map(|drift| drift["item"].as_str()).collect();
        let expected = [0, 1].map(|index| item(&file(&scene.watched, index)));
        Ok((items == expected.iter().map(String::as_str).collect()).then_some(()))
    });
    one_file_gone_and_one_changed.await.with_context(|| format!("the agent's log:\n{}", scene.agent.log_tail()))
}

#[tokio::test]
async fn a_lost_spool_leads_to_a_new_inventory_and_no_false_drift() -> anyhow::Result<()> {
    bereaved("spool").await
}

#[tokio::test]
async fn a_damaged_state_leads_to_a_new_inventory_and_no_false_drift() -> anyhow::Result<()> {
    bereaved("state.redb").await
}

async fn overrun(watch: Watch) -> anyhow::Result<()> {
    let scene = Scene::new(Engine::Sqlite, 10, watch).await?;
    scene.agent.pause()?;
    // The kernel holds 16,384 events for a reader that stands still.
    for index in 0..40_000 {
        write(&file(&scene.watched, index), "new\n")?;
    }
    for index in (0..40_000).step_by(5) {
        std::fs::remove_file(file(&scene.watched, index))?;
    }
    scene.agent.resume()?;
    scene.gap("queue_overflow").await?;
    scene.equals_disk().await
}

#[tokio::test]
async fn an_overflow_of_fanotify_is_a_gap_and_the_state_equals_the_disk_after_it() -> anyhow::Result<()> {
    if !needs::daemons() || !needs::fanotify() {
        return Ok(());
    }
    overrun(Watch::default()).await
}

#[tokio::test]
async fn an_overflow_of_inotify_is_a_gap_and_the_state_equals_the_disk_after_it() -> anyhow::Result<()> {
    if !needs::daemons() || !needs::inotify() {
        return Ok(());
    }
    overrun(Watch { inotify: true, ..Watch::default() }).await
}

#[tokio::test]
async fn a_full_disk_under_the_spool_is_told_and_healed_from() -> anyhow::Result<()> {
    if !needs::daemons() || !needs::fanotify() || !needs::mount() {
        return Ok(());
    }
    const FILES: usize = 3000;
    let disk = BoundedDisk::mount(16)?;
    let data_dir = Some(disk.path().join("agent"));
    let scene = Scene::new(Engine::Sqlite, 0, Watch { data_dir, ..Watch::default() }).await?;
    let mut filling = disk.fill()?;
    for index in 0..FILES {
        write(&file(&scene.watched, index), "while the disk was full\n")?;
    }
    wait::until("the agent to tell that it cannot write", LIMIT, async || {
        // What acknowledged segments free is taken again: the disk stays full.
        filling.top_up()?;
        let status = scene.agent.shown(&scene.collector).await?["status"].clone();
        let troubled = status["troubles"].as_array().is_some_and(|troubles| !troubles.is_empty());
        Ok((troubled || status["spool"]["holding_since"].is_string()).then_some(()))
    })
    .await
    .with_context(|| format!("the agent's log:\n{}", scene.agent.log_tail()))?;
    drop(filling);
    scene.equals_disk().await?;
    wait::until("the agent to be well again", LIMIT, async || {
        let status = scene.agent.shown(&scene.collector).await?["status"].clone();
        let troubled = status["troubles"].as_array().is_some_and(|troubles| !troubles.is_empty());
        Ok((!troubled && !status["spool"]["holding_since"].is_string()).then_some(()))
    })
    .await?;
    let changed = scene.changed().await?;
    let missing = (0..FILES).filter(|index| !changed.contains(&item(&file(&scene.watched, *index)))).count();
    ensure!(missing == 0, "{missing} of {FILES} files made while the disk was full have no change");
    Ok(())
}
