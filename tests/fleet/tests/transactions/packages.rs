//! Packages that a person installs and upgrades: their files, what their scripts do besides, and one that is not what it says.

use anyhow::{Context, ensure};
use serde_json::Value;
use trueline_fleet::archive::{self, Deb};
use trueline_fleet::host::{Host, Login};
use trueline_tests::wait;

use crate::Scene;
use crate::told::{LIMIT, is_run, runs_under};

const MOTD: &str = "file:/etc/motd";
const BAD: &str = "file:/usr/lib/tampered/bad";
const OWN: &str = "file:/etc/by-alice";
const PARTS: [&str; 3] = ["file:/usr/lib/story", "file:/usr/lib/story/part-1", "file:/usr/lib/story/part-2"];

fn debs(version: u32) -> [Deb; 2] {
    let story = Deb::new("story", version).file("/usr/lib/story/part-1").file("/usr/lib/story/part-2");
    let tampered = Deb::new("tampered", version).file("/usr/lib/tampered/good").file("/usr/lib/tampered/bad");
    [story.postinst("echo configured >> /etc/motd"), tampered.tampered("/usr/lib/tampered/bad")]
}

pub async fn installed_and_upgraded_by_a_person(scene: &Scene) -> anyhow::Result<()> {
    let host = &scene.web.host;
    archive::publish(host, &debs(1)).await?;
    scene.collector.capture_baseline(&scene.web.id, "before").await?;
    let install = "sudo DEBIAN_FRONTEND=noninteractive apt-get -q -y install story tampered && echo note | sudo tee /etc/by-alice";
    host.ssh(Login::Alice, install).await?;
    let installed = one_run(scene, &|change| change["kind"] == "created", "install", "apt-get -q -y install story tampered").await?;
    drifts(scene, &installed).await?;
    told_of_itself(scene, &installed, ["install story:amd64 1", "install tampered:amd64 1"]).await?;

    archive::publish(host, &debs(2)).await?;
    rested(host, "story").await?;
    host.ssh(Login::Alice, "sudo DEBIAN_FRONTEND=noninteractive apt-get -q -y upgrade").await?;
    let is_later = |change: &Value| change["transaction"]["id"].is_string() && change["transaction"]["id"] != installed.as_str();
    let upgraded = one_run(scene, &is_later, "upgrade", "apt-get -q -y upgrade").await?;
    let package = scene.change("package:story", is_later).await?;
    let version = package["fields"].as_array().into_iter().flatten().find(|field| field["name"] == "version");
    ensure!(version.is_some_and(|field| field["before"] == "1" && field["after"] == "2"), "{package:#}");

    told_of_itself(scene, &upgraded, ["upgrade story:amd64 1 -> 2", "upgrade tampered:amd64 1 -> 2"]).await?;
    together(scene, &installed, &upgraded).await
}

const MANY: usize = 500;

/// A package that is installed as it is already changes nothing: its run alone is told. What that costs is printed.
pub async fn installed_once_more(scene: &Scene) -> anyhow::Result<()> {
    let host = &scene.web.host;
    archive::publish(host, &[Deb::new("many", 1).files("/usr/lib/many", MANY)]).await?;
    host.ssh(Login::Alice, "sudo DEBIAN_FRONTEND=noninteractive apt-get -q -y install many").await?;
    let is_created = |change: &Value| change["kind"] == "created";
    let package = scene.change("package:many", is_created).await?;
    let origin = package["fields"].as_array().into_iter().flatten().find(|field| field["name"] == "origin");
    ensure!(origin.is_some_and(|field| field["after"] == serde_json::json!(["/srv/story/."])), "{package:#}");
    let run = package["transaction"]["id"].as_str().context("no run")?.to_owned();
    scene.ended_run(&run).await?;
    // The files, and their folder.
    wait::until("all files to be folded under their package", LIMIT, async || {
        let installed = scene.changes_of("transaction", &run).await?;
        let parts = installed.iter().filter(|change| change["shipped_by"] == "package:many").count();
        Ok((parts == MANY + 1).then_some(()))
    })
    .await?;

    rested(host, "many").await?;
    let before = agents_processor_time(host).await?;
    host.ssh(Login::Alice, "sudo DEBIAN_FRONTEND=noninteractive apt-get -q -y install --reinstall many").await?;
    let items = format!("/hosts/{}/items", scene.web.id);
    wait::until("the end of the run that installed them again", LIMIT, async || {
        let runs = scene.collector.rest().all(&items, &[("kind", "run")]).await?;
        let is_it = |run: &&Value| run["fields"].to_string().contains("--reinstall") && run["fields"]["ended_at"].is_string();
        Ok(runs.iter().find(is_it).map(drop))
    })
    .await?;
    // Told after all that came before it.
    host.ssh(Login::Alice, "echo x | sudo tee /etc/by-alice-last").await?;
    scene.change("file:/etc/by-alice-last", is_created).await?;
    println!("the agent's processor time for {MANY} files installed once more: {:.2} s", agents_processor_time(host).await? - before);
    let changes = scene.collector.changes(&scene.web.id, None).await?;
    let is_again = |change: &&Value| change["transaction"]["id"] != run.as_str();
    let is_its = |change: &&Value| {
        let item = change["item"].as_str().unwrap_or_default();
        item.starts_with("file:/usr/lib/many") || item == "package:many"
    };
    let again: Vec<&Value> = changes.iter().filter(is_again).filter(is_its).collect();
    ensure!(again.is_empty(), "told once more: {again:#?}");
    Ok(())
}

/// In seconds, of all its threads: proc_pid_stat(5), in ticks of 10 ms.
async fn agents_processor_time(host: &Host) -> anyhow::Result<f64> {
    let stat = host.root("cat /proc/$(systemctl show -P MainPID trueline-agent)/stat").await?;
    let mut fields = stat.rsplit(')').next().unwrap_or_default().split_ascii_whitespace().skip(11).map(str::parse::<u32>);
    let mut ticks = || fields.next().context("a short stat")?.context("no number");
    Ok(f64::from(ticks()? + ticks()?) / 100.0)
}

/// What apt's own history says of the run.
async fn told_of_itself(scene: &Scene, run: &str, packages: [&str; 2]) -> anyhow::Result<()> {
    let told = scene.ended_run(run).await?;
    ensure!(told["tool"] == "apt" && told["certainty"] == "exact" && told["requested_by"] == "alice", "{told:#}");
    ensure!(told["record"] == "/var/log/apt/history.log" && told["result"] == "succeeded", "{told:#}");
    ensure!(told["requested_by_record"] == "alice (1000)" && told["error"].is_null(), "{told:#}");
    let listed: Vec<&str> = told["packages"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    // The architecture is what the package says: it may be `all`.
    let is_told = |package: &str| listed.iter().any(|listed| listed.replace(":all", ":amd64") == package);
    ensure!(packages.into_iter().all(is_told), "{packages:?} are not all among {listed:?}");
    Ok(())
}

/// For some time the agent takes what a package has of the version before for what comes with its files: they would be told, and
/// not folded.
pub async fn rested(host: &Host, package: &str) -> anyhow::Result<()> {
    let old = format!("find /var/lib/dpkg/info/{package}.md5sums ! -newerct '3 seconds ago'");
    wait::until("the package to have been installed a while ago", LIMIT, async || Ok((!host.root(&old).await?.is_empty()).then_some(())))
        .await
}

/// All that one run of apt did, by what this tells its changes from others. The run's identity.
async fn one_run(scene: &Scene, is_its: &impl Fn(&Value) -> bool, name: &str, command: &str) -> anyhow::Result<String> {
    let package = scene.change("package:story", is_its).await?;
    scene.is_alices(&package["actor"]).await?;
    ensure!(package["actor"]["process"]["exe"] == "/usr/bin/dpkg", "{package:#}");
    runs_under(&package["actor"], &["/usr/bin/apt-get", "/usr/bin/sudo"])?;
    ensure!(package["actor"]["sudo"]["command"].as_str().is_some_and(|sudo| sudo.ends_with(command)), "{package:#}");
    let run = &package["transaction"];
    is_run(run, "apt", "exact", [name, command, "alice"])?;
    ensure!(run["within"].is_null(), "{run:#}");
    let id = run["id"].as_str().context("the run has no identity")?.to_owned();

    for item in PARTS.into_iter().filter(|item| name == "install" || item.contains("part")) {
        let part = scene.change(item, is_its).await?;
        ensure!(part["shipped_by"] == "package:story" && part["transaction"]["id"] == id.as_str(), "not folded: {part:#}");
        scene.is_alices(&part["actor"]).await?;
    }
    // Its script's doing is the run's, and no part of the package.
    let motd = scene.change(MOTD, |change| change["transaction"]["id"] == id.as_str()).await?;
    ensure!(motd["shipped_by"].is_null(), "{motd:#}");
    scene.is_alices(&motd["actor"]).await?;
    let process = &motd["actor"]["process"];
    ensure!(process["exe"] == "/usr/bin/dash" && process["script"] == "/var/lib/dpkg/info/story.postinst", "{process}");
    runs_under(&motd["actor"], &["/usr/bin/dpkg", "/usr/bin/apt-get", "/usr/bin/sudo"])?;

    let bad = scene.change(BAD, is_its).await?;
    ensure!(bad["shipped_by"].is_null() && bad["transaction"]["id"] == id.as_str(), "folded, or not of the run: {bad:#}");
    let good = scene.change("file:/usr/lib/tampered/good", is_its).await?;
    ensure!(good["shipped_by"] == "package:tampered" && good["transaction"]["id"] == id.as_str(), "{good:#}");
    Ok(id)
}

/// The package stands for its parts; what its script did, and the file that is not as its manifest says, stand for themselves.
async fn drifts(scene: &Scene, run: &str) -> anyhow::Result<()> {
    let listed = async |query: &[(&str, &str)]| {
        let query = [&[("host", scene.web.id.as_str()), ("state", "open")], query].concat();
        scene.collector.rest().all("/drift", &query).await
    };
    let raised = ["package:story", "package:tampered", MOTD, BAD];
    let drifts = wait::until("the drift of what apt did", LIMIT, async || {
        let drifts = listed(&[]).await?;
        Ok(raised.iter().all(|item| drifts.iter().any(|drift| drift["item"] == *item)).then_some(drifts))
    });
    for drift in drifts.await?.iter().filter(|drift| raised.iter().any(|item| drift["item"] == *item)) {
        ensure!(drift["folded_under"].is_null() && drift["transaction"]["id"] == run, "{drift:#}");
    }
    wait::until("the package's files to be folded under it", LIMIT, async || {
        let parts = listed(&[("folded_under", "package:story")]).await?;
        Ok(PARTS.iter().all(|item| parts.iter().any(|part| part["item"] == *item)).then_some(()))
    })
    .await
}

/// One question for all that a run did, and one for all that was done in a login.
async fn together(scene: &Scene, installed: &str, upgraded: &str) -> anyhow::Result<()> {
    let holds = |changes: &[Value], item: &str| changes.iter().any(|change| change["item"] == item);
    let everything = ["package:story", "package:tampered", MOTD, BAD, PARTS[1], PARTS[2]];
    let mut sessions = Vec::new();
    for id in [installed, upgraded] {
        let of_run = scene.changes_of("transaction", id).await?;
        ensure!(everything.iter().all(|item| holds(&of_run, item)), "of run {id} there are only {of_run:#?}");
        ensure!(of_run.iter().all(|change| change["transaction"]["id"] == id), "another run's: {of_run:#?}");
        let session = of_run[0]["actor"]["session"]["id"].as_str().context("a change of nobody's session")?;
        let of_session = scene.changes_of("session", session).await?;
        ensure!(everything.iter().all(|item| holds(&of_session, item)), "of session {session} there are only {of_session:#?}");
        ensure!(of_session.iter().all(|change| change["actor"]["session"]["id"] == session), "{of_session:#?}");
        sessions.push((session.to_owned(), holds(&of_session, OWN)));
    }
    // What she did besides, in the first login, is of no run.
    ensure!(sessions[0].0 != sessions[1].0 && sessions[0].1 && !sessions[1].1, "{sessions:?}");
    let own = scene.change(OWN, |_| true).await?;
    scene.is_alices(&own["actor"]).await?;
    ensure!(own["transaction"].is_null() && own["actor"]["process"]["exe"] == "/usr/bin/tee", "{own:#}");
    Ok(())
}
