//! What the collector tells of a change, looked at link by link.

use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::Value;
use trueline_fleet::host::Login;
use trueline_fleet::tool::Call;
use trueline_tests::wait;

use crate::Scene;

/// For a change to come to the collector.
pub const LIMIT: Duration = Duration::from_secs(60);
const SYSTEMD: &str = "/usr/lib/systemd/systemd";

impl Scene {
    /// The first change of this item of which the question holds.
    pub async fn change(&self, item: &str, is_it: impl Fn(&Value) -> bool) -> anyhow::Result<Value> {
        let (what, mut seen) = (format!("the change of {item}"), Vec::new());
        let waited = wait::until(&what, LIMIT, async || {
            seen = self.collector.changes(&self.web.id, Some(item)).await?;
            Ok(seen.iter().find(|change| is_it(change)).cloned())
        });
        let found = waited.await;
        found.with_context(|| format!("the changes of {item} are {seen:#?}"))
    }

    /// The run as an item, once it has ended.
    pub async fn ended_run(&self, id: &str) -> anyhow::Result<Value> {
        let (items, item) = (format!("/hosts/{}/items", self.web.id), format!("run:{id}"));
        wait::until(&format!("the end of {item}"), LIMIT, async || {
            let runs = self.collector.rest().all(&items, &[("kind", "run")]).await?;
            let run = runs.into_iter().find(|run| run["item"] == item.as_str());
            Ok(run.map(|run| run["fields"].clone()).filter(|fields| fields["ended_at"].is_string()))
        })
        .await
    }

    pub async fn changes_of(&self, kind: &str, id: &str) -> anyhow::Result<Vec<Value>> {
        self.collector.rest().all("/changes", &[("host", &self.web.id), (kind, id)]).await
    }

    /// Alice's key, as sshd names it.
    pub async fn fingerprint(&self) -> anyhow::Result<String> {
        let line = Call::new("ssh-keygen").arg("-lf").arg(self.web.host.key()).run().await?;
        line.split(' ').nth(1).map(str::to_owned).context("ssh-keygen names no fingerprint")
    }

    /// Where alice's logins come from.
    pub async fn address(&self) -> anyhow::Result<String> {
        let connection = self.web.host.ssh(Login::Alice, "echo $SSH_CONNECTION").await?;
        connection.split(' ').next().map(str::to_owned).context("no address")
    }

    /// The process is sure, root's, and alice's by a login over ssh and sudo.
    pub async fn is_alices(&self, actor: &Value) -> anyhow::Result<()> {
        ensure!(actor["certainty"] == "exact" && actor["reason"].is_null(), "not sure: {actor:#}");
        ensure!(actor["process"]["sha256"].is_string(), "the program has no digest: {actor:#}");
        let user = &actor["user"];
        ensure!(user["uid"] == 0 && user["name"] == "root", "not as root: {user}");
        ensure!(user["login_uid"] == 1000 && user["login_name"] == "alice", "not alice's login: {user}");
        let session = &actor["session"];
        ensure!(session["kind"] == "ssh" && session["user"] == "alice" && session["certainty"] == "strong", "{session}");
        ensure!(session["origin"]["address"] == self.address().await?.as_str() && session["origin"]["port"].is_u64(), "{session}");
        ensure!(session["key"] == self.fingerprint().await?.as_str(), "{session}");
        ensure!(session["id"].is_string() && session["began_at"].is_string(), "{session}");
        let sudo = &actor["sudo"];
        ensure!(sudo["by"] == "alice" && sudo["as_user"] == "root" && sudo["certainty"] == "strong", "{sudo}");
        let unit = actor["unit"].as_str().unwrap_or_default();
        ensure!(unit.starts_with("session-") && unit.ends_with(".scope") && actor["slice"] == "user-1000.slice", "{actor:#}");
        runs_under(actor, &["/usr/bin/sudo", "/usr/sbin/sshd"])
    }
}

/// Nobody logged in for it.
pub fn is_nobodys(actor: &Value) -> anyhow::Result<()> {
    ensure!(actor["certainty"] == "exact" && actor["reason"].is_null(), "not sure: {actor:#}");
    ensure!(actor["user"]["uid"] == 0 && actor["user"]["login_uid"].is_null(), "{actor:#}");
    ensure!(actor["session"].is_null() && actor["sudo"].is_null(), "somebody is named: {actor:#}");
    Ok(())
}

/// The process and its parents, nearest first.
pub fn processes(actor: &Value) -> impl Iterator<Item = &Value> {
    std::iter::once(&actor["process"]).chain(actor["parents"].as_array().into_iter().flatten())
}

/// These programs stand above the process in this order, and the host's first process above all.
pub fn runs_under(actor: &Value, programs: &[&str]) -> anyhow::Result<()> {
    let chain: Vec<&str> = processes(actor).filter_map(|process| process["exe"].as_str()).collect();
    let mut above = chain.iter().skip(1);
    for program in programs {
        ensure!(above.any(|exe| exe == program), "{program} is missing, or in another place: {chain:?}");
    }
    ensure!(chain.last() == Some(&SYSTEMD), "the chain does not end with the first process: {chain:?}");
    let is_whole = |process: &Value| process["pid"].is_u64() && process["started_at"].is_string() && process["argv"].is_array();
    ensure!(processes(actor).all(is_whole), "{actor:#}");
    Ok(())
}

/// A run that is told in full: its kind, how sure that is, its name, its command and who asked for it.
pub fn is_run(run: &Value, kind: &str, certainty: &str, [name, command, requested_by]: [&str; 3]) -> anyhow::Result<()> {
    ensure!(run["kind"] == kind && run["certainty"] == certainty, "not {certainty} of {kind}: {run:#}");
    for (field, expected) in [("name", name), ("command", command), ("requested_by", requested_by)] {
        let told = run[field].as_str().unwrap_or_default();
        ensure!(told == expected, "{field} is `{told}`, not `{expected}`: {run:#}");
    }
    ensure!(run["id"].is_string() && run["began_at"].is_string(), "{run:#}");
    Ok(())
}
