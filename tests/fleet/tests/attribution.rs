//! A person's edit over ssh and sudo, under that person's name.

use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::Value;
use trueline_fleet::collector::{Collector, Setting, Watched};
use trueline_fleet::host::Login;
use trueline_fleet::needs;
use trueline_fleet::root::Root;
use trueline_fleet::story::story;
use trueline_tests::wait;

const LIMIT: Duration = Duration::from_secs(300);
const ITEM: &str = "file:/etc/ssh/sshd_config";

/// The drift of the item in this state; nothing else of the host has any.
async fn drifts(collector: &Collector, id: &str, state: &str) -> anyhow::Result<Vec<Value>> {
    collector.rest().all("/drift", &[("host", id), ("item", ITEM), ("state", state)]).await
}

#[tokio::test]
async fn an_edit_of_sshd_config_with_sudo_is_drift_of_the_user_who_logged_in() -> anyhow::Result<()> {
    let Some(packages) = needs::packages() else { return Ok(()) };
    story(&[Root::Collector, Root::Plain], async |fleet| {
        let collector = Collector::install(fleet, &packages, Setting::default()).await?;
        let web = Watched::install(fleet, &collector, &packages, "web").await?;
        collector.capture_baseline(&web.id, "before").await?;
        let before = web.host.root("sha256sum < /etc/ssh/sshd_config").await?;
        web.host
            .ssh(
                Login::Alice,
                "sudo cp -p /etc/ssh/sshd_config /root/kept; sudo sh -c 'echo PermitRootLogin yes >> /etc/ssh/sshd_config; sleep 0.2'",
            )
            .await?;
        let drift = wait::until("the drift of sshd_config's content", LIMIT, async || {
            Ok(drifts(&collector, &web.id, "open").await?.into_iter().find(|drift| drift["field"] == "sha256"))
        })
        .await?;
        ensure!(drift["expected"].as_str().is_some_and(|expected| before.starts_with(expected)), "{drift}");
        let after = web.host.root("sha256sum < /etc/ssh/sshd_config").await?;
        ensure!(drift["actual"].as_str().is_some_and(|actual| after.starts_with(actual)), "{drift}");
        let actor = &drift["actor"];
        ensure!(actor["user"]["login_name"] == "alice" && actor["user"]["login_uid"] == 1000, "another did it: {actor}");
        ensure!(actor["user"]["name"] == "root" && actor["user"]["uid"] == 0, "not as root: {actor}");
        ensure!(actor["session"]["id"].is_string(), "no session is named: {actor}");
        ensure!(actor["certainty"] == "strong" || actor["certainty"] == "exact", "{actor}");

        // As another: who resolves it is told, too.
        web.host.ssh(Login::Bob, "sudo sh -c 'cp -p /root/kept /etc/ssh/sshd_config; sleep 0.2'").await?;
        wait::until("all drift of sshd_config to be resolved", LIMIT, async || {
            let open = collector.rest().all("/drift", &[("host", &web.id), ("item", ITEM), ("state", "unresolved")]).await?;
            Ok(open.is_empty().then_some(()))
        })
        .await?;
        ensure!(drifts(&collector, &web.id, "resolved").await?.iter().any(|drift| drift["field"] == "sha256"), "it was not resolved");
        let changes = collector.changes(&web.id, Some(ITEM)).await?;
        let last = changes.last().context("no change")?;
        ensure!(last["actor"]["user"]["login_name"] == "bob", "another put it back: {last}");

        // An editor that ends with its write is gone before anybody can look at it.
        web.host.ssh(Login::Alice, "sudo sed -i '$ a PermitRootLogin yes' /etc/ssh/sshd_config").await?;
        let drift = wait::until("the drift of an edit by sed", LIMIT, async || {
            Ok(drifts(&collector, &web.id, "open").await?.into_iter().find(|drift| drift["field"] == "sha256"))
        })
        .await?;
        let actor = &drift["actor"];
        let is_unknown = actor["certainty"] == "unknown" && actor["reason"].is_string() && actor["user"]["login_name"].is_null();
        let may_be_unknown = is_unknown && !needs::process_feed();
        ensure!(actor["user"]["login_name"] == "alice" || may_be_unknown, "neither alice nor honestly unknown: {actor}");
        Ok(())
    })
    .await
}
