//! Who did it, from the process to the key that let its user in: a person over ssh with sudo, a job of cron, a timer of systemd.

use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::Value;
use trueline_fleet::collector::{Collector, Setting, Watched};
use trueline_fleet::host::{Host, Login};
use trueline_fleet::needs;
use trueline_fleet::root::Root;
use trueline_fleet::story::story;
use trueline_fleet::tool::Call;
use trueline_tests::wait;

/// A job of cron may have to wait for the next minute.
const LIMIT: Duration = Duration::from_secs(120);

#[tokio::test]
async fn a_change_names_its_whole_chain() -> anyhow::Result<()> {
    let Some(packages) = needs::packages() else { return Ok(()) };
    story(&[Root::Collector, Root::Plain], async |fleet| {
        let collector = Collector::install(fleet, &packages, Setting::default()).await?;
        let web = Watched::install(fleet, &collector, &packages, "web").await?;
        a_person_over_ssh_with_sudo(&collector, &web).await.context("over ssh with sudo")?;
        a_program_that_is_called_sudo(&collector, &web).await.context("by a program that is called sudo")?;
        a_job_of_cron(&collector, &web).await.context("by cron")?;
        a_timer(&collector, &web).await.context("by a timer")
    })
    .await
}

/// The actor of the first change of this item.
async fn actor(collector: &Collector, web: &Watched, item: &str) -> anyhow::Result<Value> {
    let awaited = format!("a change of {item}");
    let question = async || Ok(collector.changes(&web.id, Some(item)).await?.into_iter().next());
    let actor = wait::until(&awaited, LIMIT, question).await?["actor"].clone();
    eprintln!("{item}: {}", serde_json::to_string_pretty(&actor)?);
    Ok(actor)
}

/// The programs of the process and its parents, nearest first.
fn programs(actor: &Value) -> Vec<&str> {
    let parents = actor["parents"].as_array().map(Vec::as_slice).unwrap_or_default();
    std::iter::once(&actor["process"]).chain(parents).filter_map(|process| process["exe"].as_str()).collect()
}

async fn sha256(host: &Host, path: &str) -> anyhow::Result<String> {
    Ok(host.root(&format!("sha256sum {path}")).await?[..64].to_owned())
}

async fn fingerprint(host: &Host) -> anyhow::Result<String> {
    let line = Call::new("ssh-keygen").arg("-lf").arg(host.key()).run().await?;
    line.split(' ').nth(1).map(str::to_owned).context("ssh-keygen names no fingerprint")
}

async fn a_person_over_ssh_with_sudo(collector: &Collector, web: &Watched) -> anyhow::Result<()> {
    // A terminal of its own, as a person has; `tee` lives as long as somebody types.
    let typed = "tty > /tmp/typed-on; (echo one; sleep 0.3) | sudo tee /etc/by-alice";
    let edit = format!("echo $SSH_CONNECTION; script -qec 'sh -c \"{typed}\"' /dev/null >/dev/null || true");
    let connection = web.host.ssh(Login::Alice, &edit).await?;
    let (address, port) =
        connection.split_once(' ').and_then(|(address, rest)| Some((address, rest.split(' ').next()?))).context("no address")?;
    let actor = actor(collector, web, "file:/etc/by-alice").await?;
    ensure!(actor["certainty"] == "exact" || actor["certainty"] == "strong", "{}", actor["certainty"]);

    let process = &actor["process"];
    ensure!(process["exe"] == "/usr/bin/tee" && process["argv"][1] == "/etc/by-alice", "{process}");
    ensure!(process["pid"].is_u64() && process["started_at"].is_string() && process["cwd"] == "/home/alice", "{process}");
    ensure!(process["sha256"] == sha256(&web.host, "/usr/bin/tee").await?.as_str(), "{process}");
    let chain = programs(&actor);
    for program in ["/usr/bin/sudo", "/usr/bin/script", "/usr/sbin/sshd", "/usr/lib/systemd/systemd"] {
        ensure!(chain.contains(&program), "{program} is missing: {chain:?}");
    }

    let user = &actor["user"];
    ensure!(user["uid"] == 0 && user["euid"] == 0 && user["name"] == "root", "{user}");
    ensure!(user["login_uid"] == 1000 && user["login_name"] == "alice", "{user}");

    let session = &actor["session"];
    ensure!(session["kind"] == "ssh" && session["certainty"] == "strong" && session["user"] == "alice", "{session}");
    ensure!(
        session["origin"]["address"] == address && session["origin"]["port"].as_u64() == port.parse().ok(),
        "{session}, not {address} port {port}"
    );
    ensure!(session["key"] == fingerprint(&web.host).await?.as_str(), "{session}");
    ensure!(session["began_at"].is_string() && session["id"].is_string(), "{session}");

    let sudo = &actor["sudo"];
    ensure!(sudo["by"] == "alice" && sudo["as_user"] == "root" && sudo["certainty"] == "strong", "{sudo}");
    ensure!(sudo["command"] == "tee /etc/by-alice", "{sudo}");
    // The one that alice sits at: sudo runs the command on another, of its own.
    let typed_on = web.host.root("cat /tmp/typed-on").await?;
    ensure!(typed_on.trim().strip_prefix("/dev/") == sudo["terminal"].as_str(), "typed on {typed_on}: {sudo}");

    let unit = actor["unit"].as_str().unwrap_or_default();
    ensure!(unit.starts_with("session-") && unit.ends_with(".scope"), "unit {unit}");
    ensure!(actor["slice"] == "user-1000.slice", "slice {}", actor["slice"]);
    its_session_is_an_item(collector, web, &actor["session"]).await
}

/// The login that the actor names, and sudo within it, from their beginning to their end.
async fn its_session_is_an_item(collector: &Collector, web: &Watched, session: &Value) -> anyhow::Result<()> {
    let id = session["id"].as_str().context("a session without an id")?;
    let items = format!("/hosts/{}/items", web.id);
    let (login, sudo) = wait::until("the session and its sudo to end", LIMIT, async || {
        let items = collector.rest().all(&items, &[("kind", "session")]).await?;
        let find = |named: &dyn Fn(&str) -> bool| {
            let item = items.iter().find(|item| item["item"].as_str().is_some_and(named))?;
            let fields = &item["fields"];
            fields["ended_at"].is_string().then(|| fields.clone())
        };
        let login = find(&|item| item == format!("session:{id}"));
        let sudo = find(&|item| item.starts_with(&format!("session:{id}/sudo-")));
        Ok(login.zip(sudo))
    })
    .await?;
    let (address, port) = (session["origin"]["address"].as_str().unwrap_or_default(), &session["origin"]["port"]);
    ensure!(login["type"] == "ssh" && login["user"] == "alice" && login["key"] == session["key"], "{login}");
    ensure!(login["origin"] == format!("{address} port {port}") && login["began_at"] == session["began_at"], "{login}, not {session}");
    ensure!(sudo["type"] == "sudo" && sudo["user"] == "alice" && sudo["as_user"] == "root" && sudo["within"] == id, "{sudo}");
    ensure!(sudo["command"] == "/usr/bin/tee /etc/by-alice", "{sudo}");
    // A user could have said this of himself before he ran sudo.
    ensure!(sudo["certainty"] == "correlated" && login["certainty"] == "strong", "{login}, {sudo}");

    let changes = collector.rest().all("/changes", &[("session", id), ("host", &web.id)]).await?;
    let items: Vec<&str> = changes.iter().filter_map(|change| change["item"].as_str()).collect();
    for item in ["file:/etc/by-alice".to_owned(), format!("session:{id}")] {
        ensure!(items.contains(&item.as_str()), "{item} is none of what the session changed: {items:?}");
    }
    Ok(())
}

async fn a_program_that_is_called_sudo(collector: &Collector, web: &Watched) -> anyhow::Result<()> {
    web.host.root("install -o bob -d /etc/of-bob").await?;
    let forged = "cp /bin/sh ./sudo; ./sudo -c '(echo one; sleep 0.3) > /etc/of-bob/note'";
    web.host.ssh(Login::Bob, forged).await?;
    let actor = actor(collector, web, "file:/etc/of-bob/note").await?;
    let sudo = &actor["sudo"];
    ensure!(sudo.is_null() || sudo["certainty"] == "correlated", "a copied shell passes for sudo: {sudo}");
    ensure!(actor["user"]["name"] == "bob" && actor["session"]["user"] == "bob", "{actor}");
    Ok(())
}

async fn a_job_of_cron(collector: &Collector, web: &Watched) -> anyhow::Result<()> {
    let job = "* * * * * alice (date; sleep 0.3) | tee /etc/of-alice/by-cron\n";
    web.host.root("install -o alice -d /etc/of-alice").await?;
    web.host.write("/etc/cron.d/job", "0644", job).await?;
    let actor = actor(collector, web, "file:/etc/of-alice/by-cron").await?;
    ensure!(actor["certainty"] == "exact" || actor["certainty"] == "strong", "{actor}");
    let chain = programs(&actor);
    ensure!(chain.contains(&"/usr/sbin/cron") && chain.last() == Some(&"/usr/lib/systemd/systemd"), "{chain:?}");
    let user = &actor["user"];
    ensure!(user["name"] == "alice" && user["login_name"] == "alice", "{user}");
    let session = &actor["session"];
    ensure!(session["kind"] == "cron" && session["user"] == "alice" && session["origin"].is_null(), "{session}");
    ensure!(session["key"].is_null() && session["id"].is_string() && session["began_at"].is_string(), "{session}");
    ensure!(actor["unit"] == "cron.service" && actor["slice"] == "system.slice" && actor["sudo"].is_null(), "{actor}");
    let transaction = &collector.changes(&web.id, Some("file:/etc/of-alice/by-cron")).await?[0]["transaction"];
    ensure!(transaction["kind"] == "cron", "not a job of cron: {transaction}");
    Ok(())
}

async fn a_timer(collector: &Collector, web: &Watched) -> anyhow::Result<()> {
    let script = "(date; sleep 0.3) | tee /etc/by-timer";
    web.host.root(&format!("systemd-run --quiet --on-active=1 --unit=nightly sh -c '{script}'")).await?;
    let actor = actor(collector, web, "file:/etc/by-timer").await?;
    ensure!(actor["certainty"] == "exact" || actor["certainty"] == "strong", "{actor}");
    ensure!(actor["unit"] == "nightly.service" && actor["slice"] == "system.slice", "{actor}");
    ensure!(actor["session"].is_null() && actor["sudo"].is_null() && actor["user"]["login_uid"].is_null(), "nobody logged in: {actor}");
    ensure!(programs(&actor).last() == Some(&"/usr/lib/systemd/systemd"), "{actor}");
    let transaction = &collector.changes(&web.id, Some("file:/etc/by-timer")).await?[0]["transaction"];
    ensure!(transaction["kind"] == "timer" && transaction["name"] == "nightly.service", "not the timer's: {transaction}");
    Ok(())
}
