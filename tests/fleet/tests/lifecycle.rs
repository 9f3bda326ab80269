//! What happens to a host and its collector over the years: upgrades, restarts, renewals, a revocation, a disk set back.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::Value;
use trueline_fleet::collector::{Collector, Setting, Watched};
use trueline_fleet::host::Host;
use trueline_fleet::needs;
use trueline_fleet::packages::{NEW_PROGRAM, Package};
use trueline_fleet::root::Root;
use trueline_fleet::scene::{FOLDER, Scene};
use trueline_fleet::story::story;
use trueline_tests::wait;

const LIMIT: Duration = Duration::from_secs(300);

/// Makes a file every few milliseconds, until it is stopped.
const WRITER: &str = "n=0; while :; do n=$((n+1)); echo $n > /etc/story/file-$n; sleep 0.03; done";

async fn version(host: &Host, package: Package) -> anyhow::Result<String> {
    host.root(&format!("dpkg-query -W -f '${{Version}}' {}", package.name())).await
}

/// Waits until the host speaks with its collector.
async fn connected(collector: &Collector, id: &str) -> anyhow::Result<Value> {
    wait::until("the host to be connected", LIMIT, async || {
        let shown = collector.shown(id).await?;
        Ok((shown["state"] == "connected").then_some(shown))
    })
    .await
}

/// Enrols the host anew, as its administrator does, which makes of it another host; its id, once it was told in full.
async fn enrol_again(collector: &Collector, host: &Host) -> anyhow::Result<String> {
    let file = collector.enrolment_file(&collector.join_token(1).await?);
    let again = format!(
        "systemctl stop trueline-agent; set -a; {}; \
         trueline-agent enroll --collector \"$TRUELINE_COLLECTOR\" --ca-sha256 \"$TRUELINE_CA_SHA256\" --force",
        file.trim_end().replace('\n', "; ")
    );
    let said = host.root(&again).await?;
    let id = said.split_once("enrolled as ").and_then(|(_, rest)| rest.split(';').next());
    let id = id.with_context(|| format!("`enroll` said: {said}"))?.to_owned();
    host.root("systemctl start trueline-agent").await?;
    wait::until("the first inventory of the new host", LIMIT, async || {
        let shown = collector.shown(&id).await?;
        Ok(shown["inventory_completed_at"].is_string().then_some(()))
    })
    .await?;
    Ok(id)
}

#[tokio::test]
async fn agent_and_collector_are_upgraded_and_restarted_while_a_host_changes() -> anyhow::Result<()> {
    let Some(packages) = needs::packages() else { return Ok(()) };
    story(&[Root::Collector, Root::Plain], async |fleet| {
        let Scene { collector, watched: web } = Scene::begin(fleet, &packages, "web").await?;
        collector.capture_baseline(&web.id, "before").await?;
        web.host.keep_running("writer", WRITER).await?;

        packages.publish_later(&web.host, Package::Agent).await?;
        let before = web.host.root("systemctl show -P MainPID trueline-agent").await?;
        web.host.install(&["trueline-agent"]).await?;
        ensure!(version(&web.host, Package::Agent).await?.ends_with("+later"), "the agent was not upgraded");
        let after = web.host.root("systemctl show -P MainPID trueline-agent").await?;
        ensure!(before != after && after.trim() != "0", "the upgraded agent was not started: {before} {after}");
        connected(&collector, &web.id).await?;

        collector.host.root("systemctl restart trueline-collector").await?;
        collector.ready().await?;
        packages.publish_later(&collector.host, Package::Collector).await?;
        let before = collector.host.root("systemctl show -P MainPID trueline-collector").await?;
        collector.host.install(&["trueline-collector"]).await?;
        ensure!(version(&collector.host, Package::Collector).await?.ends_with("+later"), "the collector was not upgraded");
        let after = collector.host.root("systemctl show -P MainPID trueline-collector").await?;
        ensure!(before != after && after.trim() != "0", "the upgraded collector was not started: {before} {after}");
        collector.ready().await?;
        // The schema as an older version would have left it, so that the start has steps to take.
        collector.host.root("systemctl stop trueline-collector").await?;
        let added = ["baselines DROP COLUMN whole", "items DROP COLUMN shipped_by", "hosts DROP COLUMN enrolment_key"];
        let dropped: String = added.map(|column| format!("ALTER TABLE {column}; ")).concat();
        collector.sql(&(dropped + "DROP TABLE change_groups; UPDATE schema_version SET version = 1")).await?;
        collector.host.root("systemctl start trueline-collector").await?;
        collector.ready().await?;
        let baselines = collector.rest().all("/baselines", &[]).await?;
        ensure!(baselines.iter().all(|baseline| baseline["whole"] == true), "the schema did not take its step: {baselines:?}");
        connected(&collector, &web.id).await?;

        web.host.root("systemctl stop writer").await?;
        web.equals_disk(&collector, FOLDER).await?;
        let mut created: BTreeMap<String, usize> = BTreeMap::new();
        for change in collector.changes(&web.id, None).await?.iter().filter(|change| change["kind"] == "created") {
            *created.entry(change["item"].as_str().unwrap_or_default().to_owned()).or_default() += 1;
        }
        let files = web.host.root(&format!("ls {FOLDER}")).await?;
        for file in files.lines() {
            let told = created.get(&format!("file:{FOLDER}/{file}"));
            ensure!(told == Some(&1), "{file} was made once and is told as made {told:?} times");
        }
        let gaps = collector.rest().all("/coverage", &[("host", &web.id)]).await?;
        ensure!(gaps.iter().all(|gap| gap["reason"] == "agent_down"), "an upgrade is a moment without an agent, no more: {gaps:?}");

        Ok(())
    })
    .await
}

/// An upgrade of the agent under its own eyes is one thing to decide: its package.
#[tokio::test]
async fn an_upgrade_of_the_agent_is_drift_of_its_package_with_the_files_folded_under_it() -> anyhow::Result<()> {
    let Some(packages) = needs::packages() else { return Ok(()) };
    story(&[Root::Collector, Root::Plain], async |fleet| {
        let Scene { collector, watched: web } = Scene::begin(fleet, &packages, "web").await?;
        collector.capture_baseline(&web.id, "before").await?;
        packages.publish_later(&web.host, Package::Agent).await?;
        web.host.install(&["trueline-agent"]).await?;
        connected(&collector, &web.id).await?;
        let listed = async |query: &[(&str, &str)]| {
            let query: Vec<(&str, &str)> =
                [("host", web.id.as_str()), ("state", "open")].into_iter().chain(query.iter().copied()).collect();
            let drift = collector.rest().all("/drift", &query).await?;
            let name = |drift: &Value| Some(format!("{} {}", drift["item"].as_str()?, drift["field"].as_str()?));
            anyhow::Ok(drift.iter().filter_map(name).collect::<BTreeSet<String>>())
        };
        let parts = wait::until("the package and its files to be told", LIMIT, async || {
            let parts = listed(&[("folded_under", "package:trueline-agent")]).await?;
            let awaited = ["file:/usr/bin/trueline-agent sha256".to_owned(), format!("file:{NEW_PROGRAM} exists")];
            Ok(awaited.iter().all(|part| parts.contains(part)).then_some(parts))
        })
        .await?;
        let apart = listed(&[]).await?;
        // The story's own folder came while the baseline was captured, and all stories' hosts see the devices of one machine.
        let stranger = |drift: &str| drift.starts_with(&format!("file:{FOLDER} ")) || drift.starts_with("block_device:loop");
        let is_own = |drift: &&String| !drift.starts_with("package:trueline-agent ") && !stranger(drift);
        let others: Vec<&String> = apart.iter().filter(is_own).collect();
        ensure!(others.is_empty(), "an upgrade of the agent made drift of {others:?}, beside what is folded: {parts:?}");
        ensure!(apart.contains("package:trueline-agent version"), "the upgrade itself is no drift: {apart:?}");

        // A file of the package that another hand changes is a matter of its own at once.
        web.host.root(&format!("echo planted >> {NEW_PROGRAM}")).await?;
        wait::until("the altered file to stand for itself", LIMIT, async || {
            let is_raised = |drift: &String| drift.starts_with(&format!("file:{NEW_PROGRAM} "));
            Ok(listed(&[]).await?.iter().any(is_raised).then_some(()))
        })
        .await
    })
    .await
}

#[tokio::test]
async fn certificates_are_renewed_and_a_revoked_host_is_refused() -> anyhow::Result<()> {
    let Some(packages) = needs::packages() else { return Ok(()) };
    story(&[Root::Collector, Root::Plain, Root::Plain], async |fleet| {
        let collector = Collector::install(fleet, &packages, Setting { certificate_seconds: Some(15) }).await?;
        let (web, mail) = tokio::try_join!(
            Watched::install(fleet, &collector, &packages, "web"),
            Watched::install(fleet, &collector, &packages, "mail")
        )?;
        web.host.root(&format!("mkdir {FOLDER}")).await?;
        web.host.keep_running("writer", WRITER).await?;
        let first_expiry = collector.shown(&web.id).await?["certificate_expires_at"].as_str().context("no expiry")?.to_owned();
        wait::until("the agent to live on renewed certificates alone", LIMIT, async || {
            let actions = collector.rest().all("/actions", &[]).await?;
            let renewed =
                actions.iter().filter(|action| action["action"] == "certificate.renew" && action["subject"] == format!("host:{}", web.id));
            let last = renewed.filter_map(|action| action["at"].as_str()).max();
            Ok(last.is_some_and(|last| last > first_expiry.as_str()).then_some(()))
        })
        .await?;
        web.host.root("systemctl stop writer").await?;
        web.equals_disk(&collector, FOLDER).await?;
        let gaps = collector.rest().all("/coverage", &[("host", &web.id)]).await?;
        ensure!(gaps.is_empty(), "renewing left gaps: {gaps:?}");

        collector.rest().post(&format!("/hosts/{}/revoke", mail.id), &Value::Null).await?;
        wait::until("the revoked host to say why it is refused", LIMIT, async || {
            let said = mail.host.journal(Some("trueline-agent")).await?;
            Ok(said.contains("this host's certificate was revoked").then_some(()))
        })
        .await?;
        let before = collector.changes(&mail.id, None).await?.len();
        mail.host.root("echo x > /etc/after-the-revocation").await?;
        web.host.root(&format!("echo last > {FOLDER}/last")).await?;
        web.equals_disk(&collector, FOLDER).await?;
        ensure!(collector.changes(&mail.id, None).await?.len() == before, "a revoked host's change was taken in");
        ensure!(collector.shown(&mail.id).await?["state"] == "revoked", "the host is not shown as revoked");
        // It goes on watching, and is no failed unit.
        mail.host.root("systemctl is-active trueline-agent").await?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_host_whose_disk_was_set_back_is_noticed_and_can_enrol_again() -> anyhow::Result<()> {
    let Some(packages) = needs::packages() else { return Ok(()) };
    // Its own, the collector's, and the older one.
    story(&[Root::Collector, Root::Plain, Root::Plain], async |fleet| {
        let Scene { collector, watched: mut database } = Scene::begin(fleet, &packages, "database").await?;
        database.host.root(&format!("echo old > {FOLDER}/old")).await?;
        database.equals_disk(&collector, FOLDER).await?;
        database.host.snapshot("older").await?;
        database.host.root(&format!("for n in $(seq 20); do echo $n > {FOLDER}/newer-$n; sleep 0.02; done")).await?;
        database.equals_disk(&collector, FOLDER).await?;
        let before = collector.shown(&database.id).await?;

        database.host.set_back("older").await?;
        let after = wait::until("the collector to notice that the host was set back", LIMIT, async || {
            let shown = collector.shown(&database.id).await?;
            Ok((shown["epoch"].as_u64() > before["epoch"].as_u64()).then_some(shown))
        })
        .await?;
        ensure!(after["id"] == before["id"], "it is another host");
        database.equals_disk(&collector, FOLDER).await?;
        wait::until("the lost records to be told as a gap", LIMIT, async || Ok(collector.gaps(&database.id, "set_back").await?.pop()))
            .await?;

        // Enrolled again it is a new host, and the old one can go.
        let id = enrol_again(&collector, &database.host).await?;
        ensure!(id != database.id, "it is the same host");
        collector.rest().post(&format!("/hosts/{}/revoke", database.id), &Value::Null).await?;
        let renewed = Watched { id, host: database.host };
        renewed.equals_disk(&collector, FOLDER).await?;
        ensure!(connected(&collector, &renewed.id).await?["state"] == "connected", "the new host is not connected");
        let foreign = renewed.host.root("find /var/lib/trueline-agent ! -user trueline-agent").await?;
        ensure!(foreign.is_empty(), "enrolling as root left what the service cannot write: {foreign}");
        Ok(())
    })
    .await
}

/// A disk copied after its host was enrolled: the same key, the same certificate, the same machine-id, and here even the same
/// kernel and boot id.
#[tokio::test]
async fn two_hosts_with_one_identity_are_noticed_and_one_of_them_stays() -> anyhow::Result<()> {
    const SAID: &str = "another machine speaks as this host";
    let Some(packages) = needs::packages() else { return Ok(()) };
    story(&[Root::Collector, Root::Plain, Root::Plain, Root::Plain], async |fleet| {
        let Scene { collector, watched: mut original } = Scene::begin(fleet, &packages, "original").await?;
        original.host.snapshot("golden").await?;
        connected(&collector, &original.id).await?;
        let mut twin = fleet.copy("twin", &original.host, "golden").await?;
        twin.boot().await?;
        let Watched { id, host: original } = original;
        let is_told = async |host: &Host| anyhow::Ok(host.journal(Some("trueline-agent")).await?.contains(SAID));
        let is_twin = wait::until("one of the two to be told that there is another", LIMIT, async || {
            let told = (is_told(&original).await?, is_told(&twin).await?);
            Ok((told.0 || told.1).then_some(told.1))
        })
        .await?;
        let (stays, refused) = if is_twin { (original, twin) } else { (twin, original) };
        wait::until("the host to be in trouble", LIMIT, async || {
            let troubles = collector.shown(&id).await?["status"]["troubles"].take();
            let is_it = |trouble: &Value| trouble.as_str().is_some_and(|text| text.contains("another machine has this host's identity"));
            Ok(troubles.as_array().is_some_and(|troubles| troubles.iter().any(is_it)).then_some(()))
        })
        .await?;

        let stays = Watched { id, host: stays };
        stays.host.root(&format!("echo stays > {FOLDER}/stays")).await?;
        stays.equals_disk(&collector, FOLDER).await?;
        ensure!(!is_told(&stays.host).await?, "both were turned away");
        let noted = collector.actions("host.duplicated", &format!("host:{}", stays.id)).await?;
        ensure!(noted == 1, "it was noted {noted} times");

        let renewed = Watched { id: enrol_again(&collector, &refused).await?, host: refused };
        ensure!(renewed.id != stays.id, "it is the same host");
        renewed.host.root(&format!("echo renewed > {FOLDER}/renewed")).await?;
        renewed.equals_disk(&collector, FOLDER).await?;
        stays.equals_disk(&collector, FOLDER).await?;
        connected(&collector, &renewed.id).await?;
        connected(&collector, &stays.id).await.map(drop)
    })
    .await
}
