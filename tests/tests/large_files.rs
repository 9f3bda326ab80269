//! Files of 10 GB, end to end: streamed through little memory, beside all else and not in its way, within the
//! rate that the watch list sets, and never a reason not to end.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde_json::Value;
use sha2::{Digest, Sha256};
use trueline_tests::agent::Watch;
use trueline_tests::collector::Setting;
use trueline_tests::daemon::write;
use trueline_tests::database::Engine;
use trueline_tests::scene::{LIMIT, Scene};
use trueline_tests::state::item;
use trueline_tests::{needs, process, wait};

/// Of holes: they are hashed like anything else and take no space.
const SIZE: u64 = 10 << 30;
/// Of `SIZE` zeros (sha256sum), and with one byte in the middle set to `x` or `y`.
const ZEROS: &str = "732377e7f4a2abdc13ddfa1eb4c9c497fd2a2b294674d056cf51581b47dd586d";
const WITH_X: &str = "9dddb7f628325112e2eaf5587a3651cb885c9b2c87b3ea67e2c24e8ae783fc51";
const WITH_Y: &str = "9a15d0da4699977bac4d46eab7f0d77b8db03fff2792a594cea51160938b0b71";

const LARGE: &str = "large.img";
const SMALL: &str = "small.conf";

/// A large file and a small one, watched.
async fn scene(size: u64, scan_bytes_per_second: Option<u64>) -> anyhow::Result<Scene> {
    let watch = Watch { scan_bytes_per_second, ..Watch::default() };
    Scene::of(Engine::Sqlite, Setting::default(), watch, |watched| {
        File::create(watched.join(LARGE))?.set_len(size)?;
        write(&watched.join(SMALL), "before\n")
    })
    .await
}

/// The large file and the small one.
fn files(scene: &Scene) -> [PathBuf; 2] {
    [LARGE, SMALL].map(|name| scene.watched.join(name))
}

/// The changes of a file, newest first.
async fn changes(scene: &Scene, path: &Path) -> anyhow::Result<Vec<Value>> {
    scene.collector.rest().all("/changes", &[("host", scene.agent.host()), ("item", &item(path))]).await
}

async fn change(scene: &Scene, path: &Path) -> anyhow::Result<Value> {
    wait::until(&format!("a change of {}", path.display()), LIMIT, async || Ok(changes(scene, path).await?.into_iter().next()))
        .await
        .with_context(|| format!("the agent's log:\n{}", scene.agent.log_tail()))
}

/// Waits until the collector holds this digest of the file.
async fn ends_with(scene: &Scene, path: &Path, digest: &str) -> anyhow::Result<()> {
    let (host, name) = (scene.agent.host(), item(path));
    wait::until(&format!("the digest {digest} of {name}"), LIMIT, async || {
        let rows = scene.collector.rest().all(&format!("/hosts/{host}/items"), &[("kind", "file")]).await?;
        Ok(rows.into_iter().find(|row| row["item"] == name.as_str() && row["fields"]["sha256"] == digest).map(drop))
    })
    .await
    .with_context(|| format!("the agent's log:\n{}", scene.agent.log_tail()))
}

/// Waits until a thread of the agent reads a file aside, or none does.
async fn is_read_aside(scene: &Scene, expected: bool) -> anyhow::Result<()> {
    wait::until("the agent to begin or end reading the large file", LIMIT, async || {
        let threads = std::fs::read_dir(format!("/proc/{}/task", scene.agent.pid()))?;
        let mut names = threads.filter_map(|thread| std::fs::read_to_string(thread.ok()?.path().join("comm")).ok());
        Ok((names.any(|name| name.trim() == "large file") == expected).then_some(()))
    })
    .await
}

/// Sets the byte in the middle, which no sensor could guess from the size.
fn set_middle(path: &Path, byte: u8) -> anyhow::Result<()> {
    Ok(File::options().write(true).open(path)?.write_all_at(&[byte], SIZE / 2)?)
}

#[tokio::test]
async fn a_file_of_10_gib_is_hashed_in_little_memory_and_nothing_waits_for_it() -> anyhow::Result<()> {
    if !needs::daemons() || !needs::fanotify() {
        return Ok(());
    }
    let scene = scene(SIZE, None).await?;
    let [large, small] = files(&scene);
    set_middle(&large, b'x')?;
    is_read_aside(&scene, true).await?;
    write(&small, "while the large one was read\n")?;
    let folder = large.with_file_name("new");
    std::fs::create_dir(&folder)?;
    write(&folder.join("new.conf"), "new\n")?;
    let change_of_large = change(&scene, &large).await?;
    for path in [&small, &folder.join("new.conf")] {
        let other = change(&scene, path).await?;
        ensure!(other["sequence"].as_u64() < change_of_large["sequence"].as_u64(), "{} waited for the large file: {other}", path.display());
    }
    let digests = change_of_large["fields"].as_array().and_then(|fields| fields.iter().find(|field| field["name"] == "sha256"));
    let digests = digests.with_context(|| format!("no digest has changed: {change_of_large}"))?;
    ensure!(digests["before"] == ZEROS && digests["after"] == WITH_X, "other digests than those of the file: {digests}");
    let actor = &change_of_large["actor"];
    ensure!(actor["process"]["pid"] == std::process::id(), "not this process is named: {actor}");
    let memory = process::memory(scene.agent.pid())?;
    ensure!(memory.peak < 64 * 1024, "the agent took {} KiB at its peak", memory.peak);
    Ok(())
}

#[tokio::test]
async fn reading_within_a_rate_is_slow_and_ends_with_the_agent() -> anyhow::Result<()> {
    if !needs::daemons() || !needs::fanotify() {
        return Ok(());
    }
    const RATE: u64 = 16 << 20;
    let mut scene = scene(SIZE, Some(RATE)).await?;
    let [large, small] = files(&scene);
    let middling = large.with_file_name("middling.img");
    let began = Instant::now();
    File::create(&middling)?.set_len(4 * RATE)?;
    change(&scene, &middling).await?;
    // Nobody can be faster than this; the first tenth of a second's bytes are free.
    ensure!(began.elapsed() >= Duration::from_secs(3), "64 MiB at 16 MiB a second took {:?}", began.elapsed());

    // At this rate it takes ten minutes; to end must not.
    set_middle(&large, b'y')?;
    is_read_aside(&scene, true).await?;
    write(&small, "meanwhile\n")?;
    change(&scene, &small).await?;
    scene.agent.stop().await?;
    ensure!(changes(&scene, &large).await?.is_empty(), "half a file was reported");
    // What a start has to find is not held to the rate.
    scene.agent.restart()?;
    ends_with(&scene, &large, WITH_Y).await
}

#[tokio::test]
async fn what_was_read_of_a_file_that_was_replaced_meanwhile_is_not_believed() -> anyhow::Result<()> {
    if !needs::daemons() || !needs::fanotify() {
        return Ok(());
    }
    // Four seconds of reading, and the same once more.
    const RATE: u64 = 16 << 20;
    let scene = scene(4 * RATE, Some(RATE)).await?;
    let [large, small] = files(&scene);
    File::options().append(true).open(&large)?.set_len(4 * RATE + 1)?;
    is_read_aside(&scene, true).await?;
    let next = large.with_file_name("next");
    write(&next, "small now\n")?;
    std::fs::rename(&next, &large)?;
    let digest = hex::encode(Sha256::digest("small now\n"));
    ends_with(&scene, &large, &digest).await?;
    is_read_aside(&scene, false).await?;
    // What the reading came to has been dealt with before this is.
    write(&small, "after it\n")?;
    change(&scene, &small).await?;
    let told = changes(&scene, &large).await?;
    ensure!(told.len() == 1, "the file is told to have changed back: {told:#?}");

    File::create(&large)?.set_len(4 * RATE)?;
    is_read_aside(&scene, true).await?;
    std::fs::remove_file(&large)?;
    is_read_aside(&scene, false).await?;
    std::fs::remove_file(&small)?;
    wait::until("the small file to be gone", LIMIT, async || {
        Ok((changes(&scene, &small).await?.first().context("no change")?["kind"] == "removed").then_some(()))
    })
    .await?;
    let last = changes(&scene, &large).await?.into_iter().next().context("no change")?;
    ensure!(last["kind"] == "removed", "a file that is gone is told to be there: {last:#}");
    Ok(())
}
