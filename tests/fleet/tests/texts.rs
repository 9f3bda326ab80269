//! What is told of the texts of files: lines where no format is known, and what an operator of the host calls a secret as a digest alone.

use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use trueline_fleet::collector::{Collector, Setting, Watched};
use trueline_fleet::needs;
use trueline_fleet::root::Root;
use trueline_fleet::story::story;
use trueline_tests::wait;

const LIMIT: Duration = Duration::from_secs(60);
const MOTD: &str = "/etc/motd.d/10-site";
/// Told as settings, once as fields of their file and once as items of their own.
const SETTINGS: [(&str, &str, &str); 2] =
    [("file:/etc/default/site", "config.DOOR_CODE", "/etc/default/site"), ("environment:DOOR_CODE", "value", "/etc/environment")];

#[tokio::test]
async fn texts_are_told_by_line_and_without_what_the_operator_calls_a_secret() -> anyhow::Result<()> {
    let Some(packages) = needs::packages() else { return Ok(()) };
    story(&[Root::Collector, Root::Plain], async |fleet| {
        let collector = Collector::install(fleet, &packages, Setting::default()).await?;
        let web = Watched::install(fleet, &collector, &packages, "web").await?;
        by_line(&collector, &web).await.context("lines")?;
        without_a_secret(&collector, &web).await.context("secrets")
    })
    .await
}

async fn by_line(collector: &Collector, web: &Watched) -> anyhow::Result<()> {
    web.host.root("mkdir -p /etc/motd.d").await?;
    let text = |place: &str, password: &str| format!("welcome\nto {place}\npassword = {password}\n");
    web.host.write(MOTD, "0644", text("this", "hunter2secret")).await?;
    let item = format!("file:{MOTD}");
    changed(collector, web, &item, 1).await?;
    web.host.write(MOTD, "0644", text("that", "hunter3secret")).await?;
    let change = changed(collector, web, &item, 2).await?;
    let lines = &change["lines"];
    ensure!(lines["removed"] == 2 && lines["added"] == 2 && lines["is_smallest"] == true, "{change:#}");
    let told = lines["told"].as_array().context("no lines")?;
    ensure!(told.iter().any(|line| *line == json!({"side": "removed", "number": 2, "text": "to this"})), "{change:#}");
    ensure!(told.iter().any(|line| *line == json!({"side": "added", "number": 2, "text": "to that"})), "{change:#}");
    ensure!(!change.to_string().contains("hunter"), "{change:#}");
    // A restart forgets none of what the next difference needs.
    web.host.root("systemctl restart trueline-agent").await?;
    web.host.write(MOTD, "0644", text("other", "hunter3secret")).await?;
    let change = changed(collector, web, &item, 3).await?;
    ensure!(change["lines"]["told"][0]["text"] == "to that" && change["lines"]["told"][1]["text"] == "to other", "{change:#}");
    Ok(())
}

async fn without_a_secret(collector: &Collector, web: &Watched) -> anyhow::Result<()> {
    for (item, field, path) in SETTINGS {
        web.host.root(&format!("echo DOOR_CODE=4711 >> {path}")).await?;
        value(collector, web, item, field, |told| told == "4711").await?;
    }
    web.host.root("sed -i \"s/^\\[redaction\\]/&\\nmask_names = ['door_code']/\" /etc/trueline/agent.toml").await?;
    web.host.root("systemctl restart trueline-agent").await?;
    for (item, field, path) in SETTINGS {
        let masked = value(collector, web, item, field, |told| told.starts_with("keyed:")).await?;
        let changes = collector.changes(&web.id, Some(item)).await?;
        ensure!(changes.len() == 1, "what is masked otherwise is told as changed: {changes:#?}");
        web.host.root(&format!("sed -i s/4711/4712/ {path}")).await?;
        value(collector, web, item, field, |told| told.starts_with("keyed:") && told != masked).await?;
        let change = changed(collector, web, item, 2).await?;
        // The command that changed it says the code itself: what is masked is what files say.
        let told =
            change["fields"].as_array().into_iter().flatten().find(|told| told["name"] == field).context("the field did not change")?;
        let is_masked = |value: &Value| value.as_str().is_some_and(|value| value.starts_with("keyed:"));
        ensure!(is_masked(&told["before"]) && is_masked(&told["after"]) && change["lines"].is_null(), "{change:#}");
    }
    Ok(())
}

/// The newest change of an item that has changed so often.
async fn changed(collector: &Collector, web: &Watched, item: &str, times: usize) -> anyhow::Result<Value> {
    wait::until(&format!("{item} to change for the {times}. time"), LIMIT, async || {
        let changes = collector.changes(&web.id, Some(item)).await?;
        Ok(changes.into_iter().nth(times - 1))
    })
    .await
}

/// A field of an item, once it is as asked for.
async fn value(collector: &Collector, web: &Watched, item: &str, field: &str, is_it: impl Fn(&str) -> bool) -> anyhow::Result<String> {
    let (kind, _) = item.split_once(':').context("an item")?;
    wait::until(&format!("{field} of {item}"), LIMIT, async || {
        let items = collector.rest().all(&format!("/hosts/{}/items", web.id), &[("kind", kind)]).await?;
        let told = items.iter().find(|found| found["item"] == item).and_then(|found| found["fields"][field].as_str());
        Ok(told.filter(|told| is_it(told)).map(str::to_owned))
    })
    .await
}
