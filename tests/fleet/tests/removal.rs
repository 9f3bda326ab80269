//! A running service under its package manager's hands: installed with the power failing, downgraded, removed, installed
//! again, purged.

use std::time::Duration;

use anyhow::{Context, ensure};
use trueline_fleet::collector::{Collector, Setting, Watched};
use trueline_fleet::host::Host;
use trueline_fleet::needs;
use trueline_fleet::packages::{Package, Packages};
use trueline_fleet::root::Root;
use trueline_fleet::scene::FOLDER;
use trueline_fleet::story::story;
use trueline_tests::wait;

const LIMIT: Duration = Duration::from_secs(300);

/// What has the product's name anywhere on a host, but for the archive to install from and what logs and apt remember.
const LEFT: &str = "find / /run /tmp -xdev \\( -path /srv/trueline -o -path /etc/apt -o -path /var/lib/apt -o -path /var/cache \
                    -o -path /var/log \\) -prune -o -name '*trueline*' -print";

async fn apt(host: &Host, words: &str) -> anyhow::Result<()> {
    host.root(&format!("DEBIAN_FRONTEND=noninteractive apt-get -q -y {words}")).await.map(drop)
}

async fn version(host: &Host, package: Package) -> anyhow::Result<String> {
    host.root(&format!("dpkg-query -W -f '${{Version}}' {}", package.name())).await
}

/// Of the package's service; `None` where it does not run.
async fn main_process(host: &Host, package: Package) -> anyhow::Result<Option<u32>> {
    let shown = host.root(&format!("systemctl show -p MainPID -p ActiveState {}", package.name())).await?;
    let value = |name| shown.lines().find_map(|line| line.split_once('=').filter(|(found, _)| *found == name)).map(|(_, value)| value);
    let pid = value("MainPID").with_context(|| format!("systemctl says {shown}"))?.parse()?;
    Ok((value("ActiveState") == Some("active")).then_some(pid))
}

/// Upgraded and downgraded, the service runs as what is installed.
async fn comes_and_goes_back(host: &Host, packages: &Packages, package: Package) -> anyhow::Result<()> {
    let (name, first, before) = (package.name(), version(host, package).await?, main_process(host, package).await?);
    packages.publish_later(host, package).await?;
    apt(host, &format!("install {name}")).await?;
    let (later, between) = (version(host, package).await?, main_process(host, package).await?);
    packages.publish(host).await?;
    apt(host, &format!("install --allow-downgrades {name}={first}")).await?;
    let after = main_process(host, package).await?;
    ensure!(later != first && version(host, package).await? == first, "{name} was not downgraded from {later} to {first}");
    let running = [before, between, after];
    let is_new = running.iter().all(Option::is_some) && before != between && between != after;
    ensure!(is_new, "{name} was not restarted as another version: its processes were {running:?}");
    Ok(())
}

/// It has stopped, and its program is gone.
async fn is_removed(host: &Host, package: Package) -> anyhow::Result<()> {
    let name = package.name();
    ensure!(main_process(host, package).await?.is_none(), "{name} is removed and runs");
    let running = host.root(&format!("pgrep -a -f '^/usr/bin/{name}' || true")).await?;
    ensure!(running.is_empty(), "processes outlive the removal of {name}: {running}");
    ensure!(host.root(&format!("ls /usr/bin/{name}")).await.is_err(), "the program of {name} is left");
    Ok(())
}

/// Removed with its state; back as the same.
async fn goes_and_comes_back(host: &Host, package: Package) -> anyhow::Result<()> {
    let name = package.name();
    let contents = format!("find /var/lib/{name} -type f -name '*.pem' -exec sha256sum {{}} + | sort");
    let before = host.root(&contents).await?;
    ensure!(!before.is_empty(), "{name} has no key or certificate");
    apt(host, &format!("remove {name}")).await?;
    is_removed(host, package).await?;
    ensure!(host.root(&contents).await? == before, "removing {name} touched its identity");
    host.root(&format!("mkdir -p {FOLDER}; date > {FOLDER}/while-removed")).await?;
    apt(host, &format!("install {name}")).await?;
    ensure!(main_process(host, package).await?.is_some(), "{name} does not run after it was installed again");
    Ok(())
}

/// Purged while it runs: nothing is left but the locked user.
async fn leaves_nothing(host: &Host, package: Package) -> anyhow::Result<()> {
    let name = package.name();
    ensure!(main_process(host, package).await?.is_some(), "{name} does not run");
    apt(host, &format!("purge {name}")).await?;
    is_removed(host, package).await?;
    let left = host.root(LEFT).await?;
    ensure!(left.is_empty(), "purging {name} left\n{left}");
    let units = host.root(&format!("systemctl list-units --all --no-legend --plain '{name}*'")).await?;
    ensure!(units.is_empty(), "systemd knows of it still: {units}");
    host.root(&format!("getent passwd {name} | grep -q nologin$")).await.map(drop)
}

async fn connected(collector: &Collector, id: &str) -> anyhow::Result<()> {
    let is_connected = async || Ok((collector.shown(id).await?["state"] == "connected").then_some(()));
    wait::until("the host to be connected", LIMIT, is_connected).await
}

#[tokio::test]
async fn running_services_are_downgraded_removed_installed_again_and_purged() -> anyhow::Result<()> {
    let Some(packages) = needs::packages() else { return Ok(()) };
    story(&[Root::Collector, Root::Plain], async |fleet| {
        let collector = Collector::install(fleet, &packages, Setting::default()).await?;
        let mut host = fleet.running("web", Root::Plain).await?;
        packages.publish(&host).await?;
        host.root(&format!("echo '{} collector' >> /etc/hosts", collector.host.address())).await?;
        host.write("/etc/trueline/enroll.env", "0600", collector.enrolment_file(&collector.join_token(1).await?)).await?;

        // The power fails between unpacking and configuring: /run is empty when it goes on.
        host.root("sync; dpkg --unpack /srv/trueline/trueline-agent.deb").await?;
        host.cut_power().await?;
        host.boot().await?;
        ensure!(main_process(&host, Package::Agent).await?.is_none(), "it runs before it is configured");
        host.root("dpkg --configure -a").await?;
        ensure!(main_process(&host, Package::Agent).await?.is_some(), "an installation that the power cut off does not start the agent");
        let id = collector.inventoried("web").await?;
        let web = Watched { host, id };

        comes_and_goes_back(&web.host, &packages, Package::Agent).await?;
        connected(&collector, &web.id).await?;
        goes_and_comes_back(&web.host, Package::Agent).await?;
        web.equals_disk(&collector, FOLDER).await?;
        let gap = "the time without an agent to be told as a gap";
        wait::until(gap, LIMIT, async || Ok(collector.gaps(&web.id, "agent_down").await?.pop())).await?;

        comes_and_goes_back(&collector.host, &packages, Package::Collector).await?;
        goes_and_comes_back(&collector.host, Package::Collector).await?;
        collector.ready().await?;
        web.host.root(&format!("date > {FOLDER}/after")).await?;
        web.equals_disk(&collector, FOLDER).await?;
        connected(&collector, &web.id).await?;
        let hosts = collector.rest().all("/hosts", &[]).await?;
        ensure!(hosts.len() == 1 && hosts[0]["id"] == web.id, "it came back as another host: {hosts:?}");

        leaves_nothing(&web.host, Package::Agent).await?;
        // What its administrator put beside the configuration is the administrator's.
        collector.host.root("rm /etc/trueline/rest.pem /etc/trueline/rest.key").await?;
        apt(&collector.host, "purge trueline").await?;
        leaves_nothing(&collector.host, Package::Collector).await
    })
    .await
}
