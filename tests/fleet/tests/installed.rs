//! Hosts that install the agent with one file and one command, and a collector installed from its package.

use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::Value;
use trueline_fleet::collector::{Collector, Setting, Watched};
use trueline_fleet::needs;
use trueline_fleet::root::Root;
use trueline_fleet::story::story;
use trueline_tests::wait;

const LIMIT: Duration = Duration::from_secs(300);

#[tokio::test]
async fn three_hosts_install_the_agent_with_one_line_and_appear_with_their_facts() -> anyhow::Result<()> {
    let Some(packages) = needs::packages() else { return Ok(()) };
    story(&[Root::Collector, Root::Plain, Root::Plain, Root::Plain], async |fleet| {
        let collector = Collector::install(fleet, &packages, Setting::default()).await?;
        let collected = async |name| Watched::install(fleet, &collector, &packages, name).await;
        let (web, mail) = tokio::try_join!(collected("web"), collected("mail"))?;
        let files = collected("files").await?;
        for watched in [&web, &mail, &files] {
            let shown = collector.shown(&watched.id).await?;
            ensure!(shown["state"] == "connected" && shown["name"] == watched.host.name(), "{shown}");
            let kernel = watched.host.root("uname -r").await?;
            let machine = watched.host.read("/etc/machine-id").await?;
            let facts = &shown["facts"];
            ensure!(facts["hostname"] == watched.host.name() && facts["kernel"] == kernel.trim(), "{facts}");
            ensure!(facts["os"].as_str().is_some_and(|os| os.contains("Debian") && os.contains("12")), "{facts}");
            ensure!(facts["machine_id"] == String::from_utf8_lossy(&machine).trim(), "{facts}");
            let status = wait::until("the host to tell of its sensors", LIMIT, async || {
                let status = collector.shown(&watched.id).await?["status"].take();
                Ok(status["sensors"].is_array().then_some(status))
            })
            .await?;
            let is_watching =
                |sensor: &Value| sensor["name"].as_str().is_some_and(|name| name.contains("fanotify")) && sensor["watching"] == true;
            let sensors = status["sensors"].as_array().context("no sensors")?;
            ensure!(sensors.iter().any(is_watching), "the packaged agent does not watch with fanotify: {status}");
            ensure!(status["troubles"].as_array().is_none_or(Vec::is_empty), "the packaged agent is in trouble: {status}");
            let owner = watched.host.root("ps -o user= -C trueline-agent").await?;
            ensure!(owner.trim().starts_with("truelin"), "the agent runs as {owner}");
            // Its capabilities are not those of what it starts.
            let sets = "grep -h ^CapAmb /proc/$(systemctl show -P MainPID trueline-agent)/task/*/status | sort -u";
            let ambient = watched.host.root(sets).await?;
            ensure!(ambient.split_whitespace().collect::<Vec<_>>() == ["CapAmb:", "0000000000000000"], "the agent hands on {ambient}");
        }
        let database = collector.host.root("runuser -u postgres -- psql -Atc 'select count(*) from hosts' trueline").await?;
        ensure!(database.trim() == "3", "PostgreSQL knows {database} hosts");
        Ok(())
    })
    .await
}
