//! What an operator does to a running system, with the real daemons: HTTPS, another watch policy, stopping the
//! collector.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::json;
use trueline_tests::agent::{Agent, Watch};
use trueline_tests::binaries::Program;
use trueline_tests::collector::{Collector, RestTls, Setting};
use trueline_tests::daemon::{self, write};
use trueline_tests::database::{Database, Engine};
use trueline_tests::numbered::{Senders, each_once_in_order};
use trueline_tests::scene::{changed, file};
use trueline_tests::state::{equals_disk, item};
use trueline_tests::{needs, wait};

const LIMIT: Duration = Duration::from_secs(90);

/// A folder of its own beneath `folder`, by its real path.
fn watched(folder: &tempfile::TempDir, name: &str) -> anyhow::Result<PathBuf> {
    let path = folder.path().canonicalize()?.join(name);
    std::fs::create_dir(&path)?;
    Ok(path)
}

/// Waits until something is in the log of the collector.
async fn logged(collector: &Collector, what: &str) -> anyhow::Result<()> {
    wait::until(&format!("`{what}` in the collector's log"), LIMIT, async || Ok(collector.log().contains(what).then_some(())))
        .await
        .with_context(|| collector.log_tail())
}

fn certificate_for_loopback(folder: &Path) -> anyhow::Result<RestTls> {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()])?;
    let tls = RestTls { certificate: folder.join("rest.pem"), key: folder.join("rest.key") };
    write(&tls.certificate, made.cert.pem())?;
    write(&tls.key, made.signing_key.serialize_pem())?;
    Ok(tls)
}

#[tokio::test]
async fn rest_and_console_are_served_over_https() -> anyhow::Result<()> {
    if !needs::daemons() {
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let database = Database::start(Engine::Sqlite, folder.path()).await?;
    let tls = certificate_for_loopback(folder.path())?;
    let collector = Collector::start(&database, Setting { rest_tls: Some(tls), ..Setting::default() }).await?;
    let rest = collector.rest();
    ensure!(rest.status("/readyz").await?.0 == 200, "not ready");
    rest.all("/hosts", &[]).await?;

    let login = rest.post("/tokens", &json!({ "kind": "login" })).await?;
    let link = format!("/login?token={}", login["token"].as_str().context("no login token")?);
    let opened = rest.ask(&link, &[]).await?;
    let cookie = opened.headers().get("set-cookie").context("logging in set no cookie")?.to_str()?.to_owned();
    for word in ["Secure", "HttpOnly", "SameSite=Strict"] {
        ensure!(cookie.contains(word), "the session's cookie is not {word}");
    }
    let session = cookie.split(';').next().unwrap_or_default();
    let page = rest.ask("/", &[("cookie", session)]).await?;
    ensure!(page.status() == 200 && page.text().await?.contains("No host yet"), "the console does not show its first page");
    let stranger = rest.ask("/", &[]).await?;
    ensure!(stranger.status().is_redirection(), "the console answered {} without a session", stranger.status());

    let plain = rest.plain("/healthz").await;
    ensure!(plain.is_err(), "the port of HTTPS answered plain HTTP: {plain:?}");
    Ok(())
}

#[tokio::test]
async fn plain_http_for_other_machines_is_refused_at_start() -> anyhow::Result<()> {
    if !needs::daemons() {
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let data_dir = folder.path().join("data").display().to_string();
    let any = "127.0.0.1:0";
    let others = ["--listen-agents", any, "--listen-enrolment", any];
    let served = ["serve", "--data-dir", &data_dir, "--listen-rest", "0.0.0.0:0"].into_iter().chain(others);
    let refused = daemon::run(Program::Collector, served).await;
    let refused = refused.err().context("it was served")?.to_string();
    ensure!(refused.contains("plain HTTP is served on loopback only: set rest_certificate and rest_key"), "it said {refused}");
    Ok(())
}

/// Waits until the host shows that it is under this version of the policy.
async fn has_policy(collector: &Collector, agent: &Agent, version: u64) -> anyhow::Result<()> {
    wait::until(&format!("the host to be under policy {version}"), LIMIT, async || {
        Ok((agent.shown(collector).await?["status"]["policy_version"] == version).then_some(()))
    })
    .await
    .with_context(|| format!("the agent's log:\n{}", agent.log_tail()))
}

async fn another_policy(engine: Engine) -> anyhow::Result<()> {
    if !needs::daemons() || !needs::fanotify() || !engine.present() {
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let (own, first, second) = (watched(&folder, "own")?, watched(&folder, "first")?, watched(&folder, "second")?);
    write(&file(&first, 0), "there before\n")?;
    write(&file(&second, 0), "there before\n")?;
    let policy = folder.path().join("watch.yaml");
    let text = |version: u64, key: &str, paths: &[&PathBuf]| format!("version: {version}\n{key}: {paths:?}\nkinds: [file]\nexclude: []\n");
    write(&policy, text(1, "paths", &[&first]))?;

    let database = Database::start(engine, folder.path()).await?;
    let mut collector = Collector::start(&database, Setting { watch_policy: Some(policy.clone()), ..Setting::default() }).await?;
    // What its own configuration says counts for nothing beside the collector's word.
    let agent = Agent::start(&collector, &Watch::paths([&own])).await?;
    equals_disk(&collector, &agent, &first, LIMIT).await?;

    write(&policy, text(2, "paths", &[&first, &second]))?;
    collector.reload()?;
    wait::until("the newly watched file to be known", LIMIT, async || {
        let items = collector.rest().all(&format!("/hosts/{}/items", agent.host()), &[("kind", "file")]).await?;
        Ok(items.iter().any(|known| known["item"] == item(&file(&second, 0)).as_str()).then_some(()))
    })
    .await
    .with_context(|| format!("the agent's log:\n{}", agent.log_tail()))?;
    write(&file(&second, 1), "new\n")?;
    let change = changed(&collector, &agent, &file(&second, 1)).await?;
    ensure!(change["actor"]["certainty"] != "unknown", "the change in the new folder was found by a scan, not seen: {change}");

    has_policy(&collector, &agent, 2).await?;

    // A host that is away meanwhile has version 2, and would not be sent this.
    write(&policy, text(2, "paths", &[&first]))?;
    collector.reload()?;
    logged(&collector, "the policy has changed and is still version 2").await?;
    write(&policy, text(3, "path", &[&first]))?;
    collector.reload()?;
    logged(&collector, &format!("{}:2:1: unknown key `path`: did you mean `paths`?", policy.display())).await?;
    write(&file(&second, 2), "the old policy is in force\n")?;
    changed(&collector, &agent, &file(&second, 2)).await?;
    has_policy(&collector, &agent, 2).await?;

    collector.stop().await?;
    collector.set(|setting| setting.watch_policy = None);
    collector.restart().await?;
    has_policy(&collector, &agent, 0).await?;
    write(&file(&own, 0), "the host's own watch list is in force\n")?;
    changed(&collector, &agent, &file(&own, 0)).await.map(drop)
}

#[tokio::test]
async fn a_policy_read_again_reaches_agents_and_a_faulty_one_changes_nothing_on_sqlite() -> anyhow::Result<()> {
    another_policy(Engine::Sqlite).await
}

#[tokio::test]
async fn a_policy_read_again_reaches_agents_and_a_faulty_one_changes_nothing_on_postgres() -> anyhow::Result<()> {
    another_policy(Engine::Postgres).await
}

async fn terminated_while_taking_changes_in(engine: Engine) -> anyhow::Result<()> {
    if !needs::daemons() || !engine.present() {
        return Ok(());
    }
    const MEMBERS: usize = 4;
    const EACH: u64 = 2000;
    let folder = tempfile::tempdir()?;
    let database = Database::start(engine, folder.path()).await?;
    let mut collector = Collector::start(&database, Setting::default()).await?;
    let senders = Senders::start(&collector, MEMBERS, EACH, LIMIT).await?;
    senders.have_delivered(1000).await?;
    // Fails where it does not end by itself with success.
    collector.stop().await?;
    ensure!(collector.log().contains("the collector has stopped"), "it did not stop in order:\n{}", collector.log_tail());
    ensure!(senders.durable() < MEMBERS as u64 * EACH, "the collector was stopped too late to prove anything");
    collector.restart().await?;
    // What was acknowledged was not sent again: it is there, or the numbers have holes.
    for host in senders.finish().await? {
        each_once_in_order(&collector, &host, EACH).await?;
    }
    Ok(())
}

#[tokio::test]
async fn sigterm_loses_no_acknowledged_change_on_sqlite() -> anyhow::Result<()> {
    terminated_while_taking_changes_in(Engine::Sqlite).await
}

#[tokio::test]
async fn sigterm_loses_no_acknowledged_change_on_postgres() -> anyhow::Result<()> {
    terminated_while_taking_changes_in(Engine::Postgres).await
}
