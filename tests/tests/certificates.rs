//! Certificates over their lives, with the real daemons: renewed on both sides while changes come, and taken away.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::Value;
use trueline_tests::agent::{Agent, Watch};
use trueline_tests::collector::Setting;
use trueline_tests::daemon::write;
use trueline_tests::database::Engine;
use trueline_tests::scene::Scene;
use trueline_tests::state::{equals_disk, item};
use trueline_tests::{needs, wait};

const LIMIT: Duration = Duration::from_secs(90);

/// How often the collector's log says this of the agent's host.
fn told(scene: &Scene, what: &str) -> usize {
    let host = format!("host={}", scene.agent.host());
    scene.collector.log().lines().filter(|line| line.contains(what) && line.contains(&host)).count()
}

async fn agent_renews(engine: Engine) -> anyhow::Result<()> {
    if !needs::daemons() || !needs::fanotify() || !engine.present() {
        return Ok(());
    }
    const SECONDS: u64 = 10;
    const RENEWALS: usize = 4;
    let scene = Scene::new(engine, Setting { certificate_seconds: Some(SECONDS), ..Setting::default() }, 0).await?;
    let first_expiry = scene.agent.shown(&scene.collector).await?["certificate_expires_at"].as_str().context("no expiry")?.to_owned();
    let mut files = 0;
    // Until the certificate that it was enrolled with has run out, and others after it.
    wait::until("the agent to live on renewed certificates alone", LIMIT, async || {
        for _ in 0..5 {
            write(&scene.file(files), format!("{files}\n"))?;
            files += 1;
        }
        let actions = scene.collector.rest().get("/actions", &[]).await?;
        let actions = actions["items"].as_array().context("no actions")?;
        let renewals = actions.iter().filter(|action| action["action"] == "certificate.renew");
        let newest = actions.first().and_then(|action| action["at"].as_str()).unwrap_or_default();
        Ok((renewals.count() >= RENEWALS && newest > first_expiry.as_str()).then_some(()))
    })
    .await
    .with_context(|| format!("the agent's log:\n{}", scene.agent.log_tail()))?;
    scene.equals_disk().await?;
    let changes = scene.changes().await?;
    let sequences: Vec<u64> = changes.iter().filter_map(|change| change["sequence"].as_u64()).collect();
    ensure!(sequences.is_sorted_by(|before, after| before < after), "sequences repeat or go back");
    let mut created: BTreeMap<&str, usize> = BTreeMap::new();
    for change in changes.iter().filter(|change| change["kind"] == "created") {
        *created.entry(change["item"].as_str().unwrap_or_default()).or_default() += 1;
    }
    for number in 0..files {
        let item = item(&scene.file(number));
        ensure!(
            created.get(item.as_str()) == Some(&1),
            "{item} was made once and has {:?} changes that say so",
            created.get(item.as_str())
        );
    }
    let gaps = scene.collector.rest().all("/coverage", &[("host", scene.agent.host())]).await?;
    ensure!(gaps.is_empty(), "renewing left gaps: {gaps:?}");
    Ok(())
}

#[tokio::test]
async fn an_agent_renews_its_certificate_and_drops_no_change_on_sqlite() -> anyhow::Result<()> {
    agent_renews(Engine::Sqlite).await
}

#[tokio::test]
async fn an_agent_renews_its_certificate_and_drops_no_change_on_postgres() -> anyhow::Result<()> {
    agent_renews(Engine::Postgres).await
}

#[tokio::test]
async fn the_collector_renews_its_own_certificate_and_agents_stay() -> anyhow::Result<()> {
    if !needs::daemons() || !needs::fanotify() {
        return Ok(());
    }
    let scene = Scene::new(Engine::Sqlite, Setting { server_certificate_seconds: Some(3), ..Setting::default() }, 0).await?;
    // Renewed every two seconds: after three times the first has run out.
    wait::until("three renewals", LIMIT, async || {
        scene.collector.check_alive()?;
        Ok((scene.collector.log().matches("renewed the server certificate").count() >= 3).then_some(()))
    })
    .await?;
    write(&scene.file(0), "new\n")?;
    scene.equals_disk().await?;
    ensure!(told(&scene, "stream began") == 1, "the agent had to connect again:\n{}", scene.collector.log_tail());
    let another = Agent::start(&scene.collector, &Watch::paths([&scene.watched])).await?;
    equals_disk(&scene.collector, &another, &scene.watched, LIMIT).await
}

async fn revoked(engine: Engine) -> anyhow::Result<()> {
    if !needs::daemons() || !needs::fanotify() || !engine.present() {
        return Ok(());
    }
    let scene = Scene::new(engine, Setting::default(), 0).await?;
    write(&scene.file(0), "before\n")?;
    scene.equals_disk().await?;
    let before = scene.changes().await?.len();
    scene.collector.rest().post(&format!("/hosts/{}/revoke", scene.agent.host()), &Value::Null).await?;
    let said = || scene.agent.log().matches("the collector refused: this host's certificate was revoked").count();
    wait::until("the agent to say why its link is down", LIMIT, async || Ok((said() >= 1).then_some(())))
        .await
        .with_context(|| scene.agent.log_tail())?;
    ensure!(
        told(&scene, "stream ended: this host's certificate was revoked") >= 1,
        "the stream ended otherwise:\n{}",
        scene.collector.log_tail()
    );
    write(&scene.file(1), "after\n")?;
    let refusals = said();
    wait::until("the agent to be refused again", LIMIT, async || Ok((said() > refusals).then_some(()))).await?;
    ensure!(scene.agent.shown(&scene.collector).await?["state"] == "revoked", "the host is not shown as revoked");
    ensure!(scene.changes().await?.len() == before, "a revoked host's change was taken in");
    Ok(())
}

#[tokio::test]
async fn revoking_ends_an_agents_stream_and_the_agent_says_so_on_sqlite() -> anyhow::Result<()> {
    revoked(Engine::Sqlite).await
}

#[tokio::test]
async fn revoking_ends_an_agents_stream_and_the_agent_says_so_on_postgres() -> anyhow::Result<()> {
    revoked(Engine::Postgres).await
}
