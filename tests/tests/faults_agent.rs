//! Faults of the agent and of what it stands on, with the real daemons and against each database: killed,
//! cut off, overrun, out of disk, bereaved of what it knew. Each time nothing may be missed silently, and
//! the state afterwards must equal the disk.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, ensure};
use trueline_tests::agent::Watch;
use trueline_tests::bounded_disk::BoundedDisk;
use trueline_tests::collector::Setting;
use trueline_tests::daemon::write;
use trueline_tests::database::Engine;
use trueline_tests::scene::{LIMIT, Scene, file, fill};
use trueline_tests::state::{gaps, item};
use trueline_tests::{needs, wait};

/// With so many files, and an agent that watches in this way.
async fn scene(engine: Engine, files: usize, watch: Watch) -> anyhow::Result<Scene> {
    Scene::of(engine, Setting::default(), watch, |watched| fill(watched, files)).await
}

/// The first closed gap with this reason.
async fn gap(scene: &Scene, reason: &str) -> anyhow::Result<serde_json::Value> {
    let what = format!("a closed coverage gap for {reason}");
    let found = wait::until(&what, LIMIT, async || {
        scene.agent.shown(&scene.collector).await?;
        let gaps = gaps(&scene.collector, scene.agent.host(), reason).await?;
        Ok(gaps.into_iter().find(|gap| gap["ended_at"].is_string()))
    });
    match found.await {
        Ok(gap) => Ok(gap),
        Err(error) => {
            let shown = scene.agent.shown(&scene.collector).await?;
            Err(error.context(format!("the agent's status: {}; its log:\n{}", shown["status"], scene.agent.log_tail())))
        }
    }
}

/// Items with at least one change.
async fn changed(scene: &Scene) -> anyhow::Result<BTreeSet<String>> {
    let mut items = BTreeSet::new();
    let note = |change: &mut serde_json::Value| items.extend(change["item"].as_str().map(str::to_owned));
    scene.collector.rest().each("/changes", &[("host", scene.agent.host())], note).await?;
    Ok(items)
}

async fn killed_and_changed_meanwhile(engine: Engine) -> anyhow::Result<()> {
    if !needs::daemons() || !needs::fanotify() || !engine.present() {
        return Ok(());
    }
    const FILES: usize = 300;
    let mut scene = scene(engine, FILES, Watch::default()).await?;
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
    let gap = gap(&scene, "agent_down").await?;
    ensure!(gap["began_at"].as_str() < gap["ended_at"].as_str(), "the gap has no length: {gap}");
    scene.equals_disk().await?;
    let mut expected: BTreeSet<String> = (0..FILES * 2 / 3).map(|index| item(&file(&scene.watched, index))).collect();
    expected.extend([FILES - 1, FILES].map(|index| item(&file(&scene.watched, index))));
    let changed = changed(&scene).await?;
    let missing: Vec<&String> = expected.difference(&changed).collect();
    ensure!(missing.is_empty(), "{} changed items were absorbed without a change, among them {:?}", missing.len(), missing.first());
    let untouched = item(&file(&scene.watched, FILES * 2 / 3));
    ensure!(!changed.contains(&untouched), "{untouched} was never touched and has a change");
    Ok(())
}

async fn cut_off_for_a_hundred_thousand_changes(engine: Engine) -> anyhow::Result<()> {
    if !needs::daemons() || !needs::fanotify() || !engine.present() {
        return Ok(());
    }
    const FILES: usize = 100_000;
    /// A quarter of what the records need.
    const SPOOL_MIB: u64 = 1;
    let data = tempfile::tempdir()?;
    let data_dir = data.path().join("agent");
    let watch = Watch { data_dir: Some(data_dir.clone()), spool_mib: Some(SPOOL_MIB), ..Watch::default() };
    let mut scene = scene(engine, 0, watch).await?;
    scene.collector.kill().await?;
    for number in 0..100 {
        let folder = scene.watched.join(format!("folder-{number:02}"));
        std::fs::create_dir(&folder)?;
        for index in 0..FILES / 100 {
            // Each with a digest of its own, which does not compress.
            write(&file(&folder, index), format!("{number} {index}\n"))?;
        }
    }
    let bound = SPOOL_MIB * 1024 * 1024;
    let is_nearly_full = async || Ok((segment_bytes(&data_dir.join("spool"))? > bound * 3 / 4).then_some(()));
    wait::until("the spool to be nearly full", LIMIT, is_nearly_full).await?;
    scene.collector.restart().await?;
    gap(&scene, "spool_full").await?;
    scene.equals_disk().await?;
    let bytes = segment_bytes(&data_dir.join("spool"))?;
    ensure!(bytes <= bound, "the spool has outgrown its bound of {bound} bytes: {bytes}");
    let changes = changed(&scene).await?.len();
    let all_gaps = scene.collector.rest().all("/coverage", &[("host", scene.agent.host())]).await?;
    let gaps: Vec<&str> = all_gaps.iter().filter_map(|gap| gap["reason"].as_str()).collect();
    // Each file and each folder, whether an event told of it or the rescan after a loss did.
    ensure!(changes >= FILES + 100, "{changes} items have changes, {} were made; gaps were reported for {gaps:?}", FILES + 100);
    Ok(())
}

/// What the spool's segments take on the disk.
fn segment_bytes(folder: &Path) -> anyhow::Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            bytes += segment_bytes(&entry.path())?;
        } else if entry.path().extension().is_some_and(|extension| extension == "seg") {
            // Deleted since it was listed.
            bytes += entry.metadata().map_or(0, |metadata| metadata.len());
        }
    }
    Ok(bytes)
}

/// Takes something from the agent's data while it is down and changes the host meanwhile.
async fn bereaved(engine: Engine, what: &str) -> anyhow::Result<()> {
    if !needs::daemons() || !needs::fanotify() || !engine.present() {
        return Ok(());
    }
    const FILES: usize = 300;
    let data = tempfile::tempdir()?;
    let watch = Watch { data_dir: Some(data.path().join("agent")), ..Watch::default() };
    let mut scene = scene(engine, FILES, watch).await?;
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
    gap(&scene, "spool_damaged").await?;
    scene.equals_disk().await?;
    let one_file_gone_and_one_changed = wait::until("drift of the two files alone", LIMIT, async || {
        let open = scene.collector.rest().all("/drift", &[("state", "open")]).await?;
        let items: BTreeSet<&str> = open.iter().filter_map(|drift| drift["item"].as_str()).collect();
        let expected = [0, 1].map(|index| item(&file(&scene.watched, index)));
        Ok((items == expected.iter().map(String::as_str).collect()).then_some(()))
    });
    one_file_gone_and_one_changed.await.with_context(|| format!("the agent's log:\n{}", scene.agent.log_tail()))
}

async fn overrun(engine: Engine, inotify: bool) -> anyhow::Result<()> {
    let has_sensor = if inotify { needs::inotify() } else { needs::fanotify() };
    if !needs::daemons() || !has_sensor || !engine.present() {
        return Ok(());
    }
    // The kernel holds 16,384 events for a reader that stands still.
    const FILES: usize = 20_000;
    let scene = scene(engine, 10, Watch { inotify, ..Watch::default() }).await?;
    scene.agent.pause()?;
    for index in 0..FILES {
        write(&file(&scene.watched, index), "new\n")?;
    }
    for index in (0..FILES).step_by(5) {
        std::fs::remove_file(file(&scene.watched, index))?;
    }
    scene.agent.resume()?;
    gap(&scene, "queue_overflow").await?;
    scene.equals_disk().await
}

async fn full_disk_under_the_spool(engine: Engine) -> anyhow::Result<()> {
    if !needs::daemons() || !needs::fanotify() || !needs::mount() || !engine.present() {
        return Ok(());
    }
    const FILES: usize = 3000;
    let disk = BoundedDisk::mount(16)?;
    let data_dir = Some(disk.path().join("agent"));
    let scene = scene(engine, 0, Watch { data_dir, ..Watch::default() }).await?;
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
    let changed = changed(&scene).await?;
    let missing = (0..FILES).filter(|index| !changed.contains(&item(&file(&scene.watched, *index)))).count();
    ensure!(missing == 0, "{missing} of {FILES} files made while the disk was full have no change");
    Ok(())
}

/// Tests of each fault, one for each database.
macro_rules! on_each_database {
    ($($name:ident => $fault:ident($($argument:expr),*);)*) => {
        mod on_sqlite {
            use super::*;
            $(#[tokio::test]
            async fn $name() -> anyhow::Result<()> {
                $fault(Engine::Sqlite $(, $argument)*).await
            })*
        }
        mod on_postgres {
            use super::*;
            $(#[tokio::test]
            async fn $name() -> anyhow::Result<()> {
                $fault(Engine::Postgres $(, $argument)*).await
            })*
        }
    };
}

on_each_database! {
    changes_made_while_a_killed_agent_is_down_are_reported => killed_and_changed_meanwhile();
    a_hundred_thousand_changes_without_a_collector_are_delivered_or_counted => cut_off_for_a_hundred_thousand_changes();
    a_lost_spool_leads_to_a_new_inventory_and_no_false_drift => bereaved("spool");
    a_damaged_state_leads_to_a_new_inventory_and_no_false_drift => bereaved("state.redb");
    an_overflow_of_fanotify_is_a_gap_and_the_state_equals_the_disk_after_it => overrun(false);
    an_overflow_of_inotify_is_a_gap_and_the_state_equals_the_disk_after_it => overrun(true);
    a_full_disk_under_the_spool_is_told_and_healed_from => full_disk_under_the_spool();
}
