//! The main job, with the real daemons: a host changes, the right drift appears with its actor, and is
//! resolved when the host is put back.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::Value;
use tokio::sync::Mutex;
use trueline_tests::agent::{Agent, Watch};
use trueline_tests::collector::{Collector, Setting};
use trueline_tests::daemon::write;
use trueline_tests::database::{Database, Engine};
use trueline_tests::state::item;
use trueline_tests::{needs, wait};

const LIMIT: Duration = Duration::from_secs(60);
const TTL: &str = "/proc/sys/net/ipv4/ip_default_ttl";

/// The kernel setting is the machine's one: it is changed by one test at a time.
static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

/// A kernel setting, put back when the test ends, however it ends.
struct Setback {
    before: String,
}

impl Setback {
    fn of_ttl() -> anyhow::Result<Self> {
        Ok(Self { before: std::fs::read_to_string(TTL)? })
    }
}

impl Drop for Setback {
    fn drop(&mut self) {
        let _ = std::fs::write(TTL, &self.before);
    }
}

/// A shell that writes a file and then stays until it is dropped, so that it can be asked who it is.
struct Writer(Child);

impl Writer {
    fn write(path: &Path, text: &str) -> anyhow::Result<Self> {
        let script = r#"printf '%s\n' "$2" > "$1"; read -r _"#;
        let child = Command::new("sh").args(["-c", script, "sh"]).arg(path).arg(text).stdin(Stdio::piped()).spawn();
        Ok(Self(child.context("starting sh")?))
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // Its standard input closes, and with that it ends.
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

async fn drift(collector: &Collector, item: &str, field: &str, state: &str) -> anyhow::Result<Value> {
    wait::until(&format!("{field} of {item} to be {state}"), LIMIT, async || {
        let rows = collector.rest().get("/drift", &[("item", item), ("state", state)]).await?;
        let found = rows["items"].as_array().and_then(|rows| rows.iter().find(|row| row["field"] == field).cloned());
        Ok(found)
    })
    .await
}

async fn main_job(engine: Engine) -> anyhow::Result<()> {
    if !needs::daemons() || !needs::fanotify() || !needs::sysctl_write(TTL) || !engine.present() {
        return Ok(());
    }
    let _alone = ONE_AT_A_TIME.lock().await;
    let folder = tempfile::tempdir()?;
    let watched = folder.path().canonicalize()?.join("etc");
    std::fs::create_dir(&watched)?;
    let config = watched.join("sshd_config");
    write(&config, "PermitRootLogin no\n")?;
    let setback = Setback::of_ttl()?;

    let database = Database::start(engine, folder.path()).await?;
    let collector = Collector::start(&database, Setting::default()).await?;
    let agent = Agent::start(&collector, &Watch { sysctls: true, ..Watch::paths([&watched]) }).await?;
    let host = agent.inventoried(&collector, LIMIT).await?;
    collector.capture_baseline(&host, "before").await?;
    let unresolved = collector.rest().all("/drift", &[("state", "unresolved")]).await?;
    ensure!(unresolved.is_empty(), "there is drift before anything has changed: {unresolved:?}");

    let writer = Writer::write(&config, "PermitRootLogin yes")?;
    let found = drift(&collector, &item(&config), "sha256", "open").await?;
    ensure!(found["host"] == host.as_str(), "the drift is of another host: {found}");
    let actor = &found["actor"];
    ensure!(actor["certainty"] == "strong" || actor["certainty"] == "exact", "the actor is not sure: {actor}");
    ensure!(actor["process"]["pid"] == writer.0.id(), "another process is named: {actor}");
    ensure!(actor["user"]["uid"] == nix::unistd::geteuid().as_raw(), "another user is named: {actor}");
    let before = found["expected"].as_str().context("no value was expected")?.to_owned();
    ensure!(found["actual"].as_str().is_some_and(|actual| actual != before), "expected and actual do not differ: {found}");

    let ttl = if setback.before.trim() == "63" { "62" } else { "63" };
    std::fs::write(TTL, ttl)?;
    let found = drift(&collector, "sysctl:net.ipv4.ip_default_ttl", "value", "open").await?;
    ensure!(found["actual"] == ttl && found["expected"] == setback.before.trim(), "the setting's drift is wrong: {found}");

    drop(writer);
    write(&config, "PermitRootLogin no\n")?;
    drop(setback);
    drift(&collector, &item(&config), "sha256", "resolved").await?;
    drift(&collector, "sysctl:net.ipv4.ip_default_ttl", "value", "resolved").await?;
    wait::until("no unresolved drift", LIMIT, async || {
        let rows = collector.rest().get("/drift", &[("state", "unresolved"), ("host", &host)]).await?;
        Ok(rows["items"].as_array().is_some_and(Vec::is_empty).then_some(()))
    })
    .await
}

#[tokio::test]
async fn a_change_becomes_drift_with_its_actor_and_is_resolved_on_sqlite() -> anyhow::Result<()> {
    main_job(Engine::Sqlite).await
}

#[tokio::test]
async fn a_change_becomes_drift_with_its_actor_and_is_resolved_on_postgres() -> anyhow::Result<()> {
    main_job(Engine::Postgres).await
}
