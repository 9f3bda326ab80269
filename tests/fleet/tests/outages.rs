//! A host without a network, and a host whose power fails: what changed meanwhile arrives, in order, once.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, ensure};
use trueline_fleet::needs;
use trueline_fleet::root::Root;
use trueline_fleet::scene::{FOLDER, Scene};
use trueline_fleet::story::story;
use trueline_tests::wait;

const LIMIT: Duration = Duration::from_secs(300);

#[tokio::test]
async fn what_changed_while_a_host_was_cut_off_arrives_in_order_and_once() -> anyhow::Result<()> {
    let Some(packages) = needs::packages() else { return Ok(()) };
    const FILES: usize = 40;
    // Of the whole cut.
    const SECONDS: usize = 120;
    story(&[Root::Collector, Root::Plain], async |fleet| {
        let Scene { collector, watched: web } = Scene::begin(fleet, &packages, "web").await?;
        web.host.cut_network().await?;
        // One after the other, each of them settled before the next, for as long as the host is cut off.
        let script = format!("for n in $(seq 10 {}); do echo $n > {FOLDER}/$n; sleep {}; done", FILES + 9, SECONDS / FILES);
        web.host.keep_running("writer", &script).await?;
        wait::until("the last of the changes", LIMIT, async || {
            Ok(web.host.root("systemctl is-active writer").await.is_err().then_some(()))
        })
        .await?;
        ensure!(collector.shown(&web.id).await?["state"] == "silent", "the collector does not miss a host that is cut off");
        ensure!(collector.changes(&web.id, Some(&format!("file:{FOLDER}/10"))).await?.is_empty(), "the network was not cut");
        web.host.root(&format!("rm {FOLDER}/10")).await?;
        web.host.restore_network().await?;
        web.equals_disk(&collector, FOLDER).await?;

        let changes = collector.changes(&web.id, None).await?;
        let sequences: Vec<u64> = changes.iter().filter_map(|change| change["sequence"].as_u64()).collect();
        ensure!(sequences.is_sorted_by(|before, after| before < after), "sequences repeat or go back: {sequences:?}");
        let created = changes.iter().filter(|change| change["kind"] == "created");
        let names: Vec<&str> = created.filter_map(|change| change["item"].as_str()?.strip_prefix("file:/etc/story/")).collect();
        let expected: Vec<String> = (10..FILES + 10).map(|number| number.to_string()).collect();
        ensure!(names == expected, "made in order, each once, but told as {names:?}");
        let removed = changes.iter().filter(|change| change["kind"] == "removed" && change["item"] == format!("file:{FOLDER}/10"));
        ensure!(removed.count() == 1, "the removal was not told once");
        let gaps = collector.rest().all("/coverage", &[("host", &web.id)]).await?;
        ensure!(gaps.is_empty(), "nothing was missed, and yet: {gaps:?}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_host_whose_power_failed_while_it_changed_tells_the_gap_and_the_changes() -> anyhow::Result<()> {
    let Some(packages) = needs::packages() else { return Ok(()) };
    story(&[Root::Collector, Root::Plain], async |fleet| {
        let Scene { collector, watched: mut web } = Scene::begin(fleet, &packages, "web").await?;
        // Some files stay, some change again and again, some go; what is on the disk is decided by the power alone.
        let script = format!(
            "n=0; while :; do n=$((n+1)); echo $n > {FOLDER}/again-$((n % 7)); echo $n > {FOLDER}/new-$n; \
             [ $n -lt 9 ] || rm -f {FOLDER}/new-$((n - 8)); [ $((n % 5)) -ne 0 ] || sync -f {FOLDER}; done"
        );
        web.host.keep_running("writer", &script).await?;
        wait::until("changes to come in", LIMIT, async || {
            Ok((collector.changes(&web.id, Some(&format!("file:{FOLDER}/again-1"))).await?.len() >= 3).then_some(()))
        })
        .await?;
        web.host.cut_power().await?;
        let before = collector.shown(&web.id).await?["acknowledged"].as_u64().context("nothing acknowledged")?;
        web.host.boot().await?;
        let gap = wait::until("the gap to be told", LIMIT, async || Ok(collector.gaps(&web.id, "agent_down").await?.pop())).await?;
        ensure!(gap["scope"] == "*", "the gap is not of the whole host: {gap}");
        web.equals_disk(&collector, FOLDER).await?;
        // No record told twice, none overwritten by another under the same number.
        let mut told: BTreeMap<(u64, u64), usize> = BTreeMap::new();
        for change in collector.changes(&web.id, None).await? {
            let place = change["epoch"].as_u64().zip(change["sequence"].as_u64()).context("a change without a place")?;
            *told.entry(place).or_default() += 1;
        }
        ensure!(told.values().all(|times| *times == 1), "a record was taken twice");
        let shown = collector.shown(&web.id).await?;
        ensure!(shown["acknowledged"].as_u64() > Some(before) || shown["epoch"].as_u64() > Some(1), "nothing came after the power cut");
        web.host.root("systemctl is-active trueline-agent").await?;
        Ok(())
    })
    .await
}
