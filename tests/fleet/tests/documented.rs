//! README's and docs/install.md's words, typed as they stand there on fresh hosts: values are put in the place of the
//! placeholders, and nothing else is changed or added.

use std::time::Duration;

use anyhow::{Context, bail, ensure};
use serde_json::Value;
use trueline_fleet::ansible::{self, Transfer};
use trueline_fleet::fleet::Fleet;
use trueline_fleet::host::{Host, Login};
use trueline_fleet::needs;
use trueline_fleet::packages::Packages;
use trueline_fleet::root::Root;
use trueline_fleet::story::story;
use trueline_tests::docs::{self, Block, blocks};
use trueline_tests::wait;

const LIMIT: Duration = Duration::from_secs(300);
/// As the pages call the collector's host.
const COLLECTOR: &str = "collector.example.com";
/// Where the packages lie, on each host.
const PLACE: &str = "/root/packages";
/// Where cloud-init looks for what a cloud would give it.
const SEED: &str = "/var/lib/cloud/seed/nocloud";

/// A block, or a span in the prose, that the page must still have.
fn typed<'a>(page: &str, words: &'a str) -> anyhow::Result<&'a str> {
    ensure!(page.contains(&format!("`{words}`")), "the page no longer says `{words}`");
    Ok(words)
}

/// What one who reads the page puts in the place of its examples.
struct Reader {
    join_token: String,
    ca_sha256: String,
}

impl Reader {
    /// From what `trueline-collector token` and `trueline-collector ca` printed.
    fn of(printed: &str) -> anyhow::Result<Self> {
        let lines: Vec<&str> = printed.lines().collect();
        let [join_token, _certificate, ca_sha256] = lines[..] else { bail!("a token, a path and a digest are expected: {printed}") };
        Ok(Self { join_token: join_token.to_owned(), ca_sha256: ca_sha256.to_owned() })
    }

    fn fill(&self, words: &str) -> anyhow::Result<String> {
        let filled = words.replace("trueline-join-…", &self.join_token).replace("4c1d…", &self.ca_sha256);
        ensure!(!filled.contains('…'), "a placeholder is left: {filled}");
        Ok(filled)
    }
}

/// Root, logged in, in the folder that holds the packages. The first command that fails ends it.
async fn type_in(host: &Host, words: &str) -> anyhow::Result<String> {
    host.ssh(Login::Root, &format!("cd {PLACE}\nset -e\n{words}")).await
}

async fn fresh(fleet: &Fleet, packages: &Packages, name: &str, root: Root) -> anyhow::Result<Host> {
    let host = fleet.running(name, root).await?;
    packages.copy_to(&host, PLACE).await?;
    Ok(host)
}

/// A host that finds the collector by its name, as by DNS.
async fn fresh_beside(collector: &Host, fleet: &Fleet, packages: &Packages, name: &str, root: Root) -> anyhow::Result<Host> {
    let host = fresh(fleet, packages, name, root).await?;
    host.root(&format!("echo '{} {COLLECTOR}' >> /etc/hosts", collector.address())).await?;
    Ok(host)
}

/// As `trueline` shows it to the one who operates the collector.
async fn shown(collector: &Host, words: &str) -> anyhow::Result<Value> {
    let printed = type_in(collector, &format!("{words} --output json")).await?;
    serde_json::from_str(&printed).with_context(|| format!("`{words}` printed {printed}"))
}

/// Waits until the host speaks with its collector and has told its first inventory.
async fn is_watched(collector: &Host, name: &str) -> anyhow::Result<()> {
    wait::until(&format!("{name} to be connected and inventoried"), LIMIT, async || {
        let list = shown(collector, "trueline hosts list").await?;
        let hosts = list["items"].as_array().context("no list of hosts")?;
        let found = hosts.iter().find(|host| host["name"] == name);
        Ok(found.filter(|host| host["state"] == "connected" && host["inventory_completed_at"].is_string()).map(drop))
    })
    .await
}

/// The changed file is drift.
async fn drifts(collector: &Host, host: &Host) -> anyhow::Result<()> {
    host.root("echo changed >> /etc/motd").await?;
    wait::until("the changed file to be drift", LIMIT, async || {
        let list = shown(collector, "trueline drift list").await?;
        let drifts = list["items"].as_array().context("no list of drift")?;
        Ok(drifts.iter().any(|drift| drift["item"] == "file:/etc/motd" && drift["field"] == "sha256").then_some(()))
    })
    .await
}

/// The host's first start with what a cloud gives it, the packages in a repository of its own.
async fn begin_by_cloud_init(mut host: Host, packages: &Packages, user_data: String) -> anyhow::Result<Host> {
    packages.publish(&host).await?;
    host.write(&format!("{SEED}/meta-data"), "0600", "instance-id: first\nlocal-hostname: cloud\n").await?;
    host.write(&format!("{SEED}/user-data"), "0600", user_data).await?;
    host.root(&format!("cloud-init schema --config-file {SEED}/user-data")).await?;
    host.reboot().await?;
    let status = host.root("cloud-init status --wait --long").await?;
    ensure!(status.contains("status: done") && status.contains("DataSourceNoCloud"), "{status}");
    Ok(host)
}

/// The tasks in a playbook of their own, given twice: the second time there is nothing to do.
async fn begin_by_ansible(host: &Host, packages: &Packages, reader: &Reader, tasks: Block<'_>) -> anyhow::Result<()> {
    packages.publish(host).await?;
    let tasks: String = tasks.text.lines().map(|line| format!("    {line}\n")).collect();
    let playbook = format!("- hosts: all\n  become: true\n  tasks:\n{tasks}");
    let values = serde_json::json!({ "trueline_join_token": reader.join_token, "trueline_ca_sha256": reader.ca_sha256 });
    for expected in ["failed=0", "changed=0"] {
        let said = ansible::play(host, &playbook, &values, Transfer::Piped).await?;
        ensure!(said.contains(expected), "`{expected}` is not in what Ansible says:\n{said}");
    }
    Ok(())
}

#[tokio::test]
async fn the_install_section_of_readme_ends_with_a_host_whose_changed_file_is_drift() -> anyhow::Result<()> {
    let Some(packages) = needs::packages() else { return Ok(()) };
    let (readme, install) = (docs::read("README.md")?, docs::read("docs/install.md")?);
    let section = docs::section(&readme, "## Install")?;
    let [on_collector, on_host, operate] = blocks(&readme, "## Install")?[..] else { bail!("three blocks are expected") };
    story(&[Root::Plain, Root::Plain], async |fleet| {
        let collector = fresh(fleet, &packages, COLLECTOR, Root::Plain).await?;
        let printed = type_in(&collector, on_collector.text).await?;
        let tail: Vec<&str> = printed.lines().rev().take(3).collect();
        let reader = Reader::of(&tail.into_iter().rev().collect::<Vec<_>>().join("\n"))?;

        let web = fresh_beside(&collector, fleet, &packages, "web", Root::Plain).await?;
        type_in(&web, &reader.fill(on_host.text)?).await?;
        wait::until("the agent to say that it is well", LIMIT, async || {
            Ok(type_in(&web, typed(section, "trueline-agent status")?).await.ok())
        })
        .await?;

        let (context, capture) = operate.text.split_once("trueline baseline capture").context("no baseline is captured")?;
        type_in(&collector, context).await?;
        is_watched(&collector, "web").await?;
        type_in(&collector, &format!("trueline baseline capture{}", capture.replace("HOST", "web"))).await?;
        typed(section, "trueline drift list")?;
        drifts(&collector, &web).await?;

        // How it ends, in the words of the other page.
        type_in(&collector, &typed(&install, "trueline hosts revoke HOST")?.replace("HOST", "web")).await?;
        type_in(&web, typed(&install, "apt-get remove -y trueline-agent")?).await?;
        type_in(&web, typed(&install, "apt-get purge -y trueline-agent")?).await?;
        let left = web.root("ls -d /etc/trueline /var/lib/trueline-agent /usr/bin/trueline-agent 2>/dev/null || true").await?;
        ensure!(left.is_empty(), "after the purge there is still {left}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn hosts_come_by_cloud_init_ansible_and_hand_as_the_install_page_says() -> anyhow::Result<()> {
    let Some(packages) = needs::packages() else { return Ok(()) };
    if !needs::ansible() {
        return Ok(());
    }
    let page = docs::read("docs/install.md")?;
    let [install, postgres] = blocks(&page, "## The collector")?[..] else { bail!("two blocks are expected for the collector") };
    let [token, by_hand, cloud_init, ansible] = blocks(&page, "## Hosts, with one line")?[..] else {
        bail!("four blocks are expected for hosts")
    };
    let [context, baseline] = blocks(&page, "## Whoever operates it")?[..] else { bail!("two blocks are expected for operating") };
    ensure!(cloud_init.language == "yaml" && ansible.language == "yaml", "cloud-init's and Ansible's words are YAML");
    story(&[Root::Collector, Root::Plain, Root::Managed, Root::Managed], async |fleet| {
        let collector = fresh(fleet, &packages, COLLECTOR, Root::Collector).await?;
        type_in(&collector, install.text).await?;
        type_in(&collector, postgres.text).await?;
        let reader = Reader::of(&type_in(&collector, token.text).await?)?;
        type_in(&collector, context.text).await?;

        let (web, cloud, managed) = tokio::try_join!(
            fresh_beside(&collector, fleet, &packages, "web", Root::Plain),
            fresh_beside(&collector, fleet, &packages, "cloud", Root::Managed),
            fresh_beside(&collector, fleet, &packages, "managed", Root::Managed),
        )?;
        let (by_hand, user_data) = (reader.fill(by_hand.text)?, reader.fill(cloud_init.text)?);
        let (_, _cloud, ()) = tokio::try_join!(
            type_in(&web, &by_hand),
            begin_by_cloud_init(cloud, &packages, user_data),
            begin_by_ansible(&managed, &packages, &reader, ansible),
        )?;
        for name in ["web", "cloud", "managed"] {
            is_watched(&collector, name).await?;
        }
        let hosts = collector.root("runuser -u postgres -- psql -Atc 'select count(*) from hosts' trueline").await?;
        ensure!(hosts.trim() == "3", "PostgreSQL knows {hosts} hosts");

        type_in(&collector, &baseline.text.replace("HOST", "web")).await?;
        drifts(&collector, &web).await?;
        let login = type_in(&collector, typed(&page, "trueline tokens create --kind login")?).await?;
        ensure!(login.contains("http://127.0.0.1:8089/"), "no link for the console: {login}");
        Ok(())
    })
    .await
}
