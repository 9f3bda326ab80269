//! What changes a host by itself or from afar: unattended-upgrades, Ansible, Puppet.

use anyhow::{Context, ensure};
use trueline_fleet::ansible::{self, Transfer};
use trueline_fleet::archive::{self, Deb, ORIGIN};
use trueline_fleet::host::Login;

use crate::Scene;
use crate::packages::rested;
use crate::told::{is_nobodys, is_run, processes, runs_under};

const TIMER: &str = "apt-daily-upgrade.timer";
const SERVICE: &str = "apt-daily-upgrade.service";
const UNATTENDED: &str = "/usr/bin/unattended-upgrade";

pub async fn unattended_upgrades(scene: &Scene) -> anyhow::Result<()> {
    let host = &scene.web.host;
    let nightly = |version| Deb::new("nightly", version).file("/usr/lib/nightly/part").postinst("echo configured > /etc/nightly");
    archive::publish(host, &[nightly(1)]).await?;
    host.install(&["nightly"]).await?;
    archive::publish(host, &[nightly(2)]).await?;
    let settings = format!("Unattended-Upgrade::Origins-Pattern {{ \"origin={ORIGIN}\"; }};\nAPT::Periodic::Unattended-Upgrade \"1\";\n");
    host.write("/etc/apt/apt.conf.d/99story", "0644", settings).await?;
    // Debian's own timer and service, at another time of the day.
    let now = "[Timer]\nOnCalendar=\nOnActiveSec=100ms\nAccuracySec=1ms\nRandomizedDelaySec=0\nPersistent=false\n";
    host.write(&format!("/etc/systemd/system/{TIMER}.d/now.conf"), "0644", now).await?;
    rested(host, "nightly").await?;
    host.root(&format!("rm /etc/systemd/system/{TIMER}; systemctl daemon-reload; systemctl start {TIMER}")).await?;

    let is_its = |change: &serde_json::Value| change["actor"]["unit"] == SERVICE;
    let package = scene.change("package:nightly", is_its).await?;
    let part = scene.change("file:/usr/lib/nightly/part", is_its).await?;
    let by_script = scene.change("file:/etc/nightly", is_its).await?;
    ensure!(part["shipped_by"] == "package:nightly" && by_script["shipped_by"].is_null(), "{part:#}\n{by_script:#}");
    for change in [&package, &part, &by_script] {
        let (actor, run) = (&change["actor"], &change["transaction"]);
        is_nobodys(actor)?;
        ensure!(actor["slice"] == "system.slice", "{actor:#}");
        runs_under(actor, &["/usr/bin/python3.11", "/usr/bin/dash"])?;
        for script in [UNATTENDED, "/usr/lib/apt/apt.systemd.daily"] {
            ensure!(processes(actor).any(|process| process["script"] == script), "{script} is missing: {actor:#}");
        }
        is_run(run, "unattended_upgrades", "exact", ["", "unattended-upgrade", ""])?;
        is_run(&run["within"], "timer", "correlated", [SERVICE, "", ""])?;
        ensure!(run["id"] == package["transaction"]["id"] && run["within"]["within"].is_null(), "another run: {run:#}");
    }
    let run = scene.ended_run(package["transaction"]["id"].as_str().context("no identity")?).await?;
    ensure!(run["tool"] == "unattended_upgrades" && run["result"] == "succeeded", "{run:#}");
    let packages: Vec<&str> = run["packages"].as_array().into_iter().flatten().filter_map(|package| package.as_str()).collect();
    ensure!(packages.iter().any(|package| package.starts_with("upgrade nightly:") && package.ends_with(" 1 -> 2")), "{run:#}");
    Ok(())
}

pub async fn ansible(scene: &Scene) -> anyhow::Result<()> {
    let host = &scene.web.host;
    archive::publish(host, &[Deb::new("played", 1).file("/usr/lib/played/part")]).await?;
    let tasks = [
        "copy: {dest: /etc/by-ansible, content: hello}",
        "apt: {name: played, state: present}",
        "shell: echo hello > /etc/by-ansible-shell",
    ];
    let tasks: String = tasks.iter().map(|task| format!("    - {task}\n")).collect();
    let playbook = format!("- hosts: all\n  become: true\n  gather_facts: false\n  tasks:\n{tasks}");
    ansible::play(host, &playbook, &serde_json::json!({}), Transfer::Copied).await?;

    let by = format!("alice from {}", scene.address().await?);
    // Whoever logs in can imitate Ansible's modules: it is no surer than that.
    for (item, module) in [("file:/etc/by-ansible", "copy"), ("package:played", "apt"), ("file:/etc/by-ansible-shell", "command")] {
        let change = scene.change(item, |change| change["kind"] == "created").await?;
        scene.is_alices(&change["actor"]).await.with_context(|| item.to_owned())?;
        let innermost = &change["transaction"];
        let play = if module == "apt" { &innermost["within"] } else { innermost };
        let command = play["command"].as_str().unwrap_or_default();
        let file = command.strip_prefix("python3.11 /home/alice/.ansible/tmp/ansible-tmp-").context("another command")?;
        ensure!(file.ends_with(&format!("/AnsiballZ_{module}.py")), "{play:#}");
        is_run(play, "ansible", "correlated", [module, command, &by])?;
        ensure!(play["within"].is_null(), "{play:#}");
    }
    let package = scene.change("package:played", |change| change["kind"] == "created").await?;
    let apt = &package["transaction"];
    let command = apt["command"].as_str().unwrap_or_default();
    ensure!(command.starts_with("apt-get ") && command.ends_with(" install played=1"), "{apt:#}");
    is_run(apt, "apt", "exact", ["install", command, "alice"])?;
    runs_under(&package["actor"], &["/usr/bin/apt-get", "/usr/bin/python3.11", "/usr/bin/sudo"])?;
    let part = scene.change("file:/usr/lib/played/part", |change| change["kind"] == "created").await?;
    ensure!(part["shipped_by"] == "package:played" && part["transaction"] == *apt, "{part:#}");
    let of_play = scene.changes_of("transaction", apt["within"]["id"].as_str().context("no identity")?).await?;
    ensure!(of_play.iter().any(|change| change["item"] == "package:played"), "what apt did is not found by the play: {of_play:#?}");

    let run = scene.ended_run(apt["within"]["id"].as_str().context("no identity")?).await?;
    ensure!(run["tool"] == "ansible" && run["certainty"] == "correlated" && run["requested_by"] == by.as_str(), "{run:#}");
    ensure!(run["controller"] == scene.address().await?.as_str(), "{run:#}");
    // Each module came over a connection of its own here.
    ensure!(run["modules"] == serde_json::json!(["apt"]), "{run:#}");
    let run = scene.ended_run(apt["id"].as_str().context("no identity")?).await?;
    ensure!(run["within"] == apt["within"]["id"] && run["result"] == "succeeded", "{run:#}");

    // Without a file for the module there is no name either.
    let playbook =
        "- hosts: all\n  become: true\n  gather_facts: false\n  tasks:\n    - copy: {dest: /etc/by-ansible-piped, content: hello}\n";
    ansible::play(host, playbook, &serde_json::json!({}), Transfer::Piped).await?;
    let change = scene.change("file:/etc/by-ansible-piped", |change| change["kind"] == "created").await?;
    scene.is_alices(&change["actor"]).await?;
    is_run(&change["transaction"], "ansible", "correlated", ["", "/usr/bin/python3", &by])?;
    Ok(())
}

pub async fn puppet(scene: &Scene) -> anyhow::Result<()> {
    let host = &scene.web.host;
    let manifest = "file { '/etc/by-puppet': ensure => file, content => 'hello' }\n\
                    exec { '/bin/sh -c \"echo hello > /etc/by-puppet-exec\"': }\n";
    host.write("/root/site.pp", "0644", manifest).await?;
    host.ssh(Login::Alice, "sudo puppet apply /root/site.pp").await?;
    let file = scene.change("file:/etc/by-puppet", |change| change["kind"] == "created").await?;
    let by_exec = scene.change("file:/etc/by-puppet-exec", |change| change["kind"] == "created").await?;
    let process = &file["actor"]["process"];
    ensure!(process["exe"] == "/usr/bin/ruby3.1" && process["script"] == "/usr/bin/puppet", "{process}");
    runs_under(&by_exec["actor"], &["/usr/bin/ruby3.1", "/usr/bin/sudo"])?;
    for change in [&file, &by_exec] {
        scene.is_alices(&change["actor"]).await?;
        is_run(&change["transaction"], "puppet", "exact", ["apply", "puppet apply /root/site.pp", "alice"])?;
        ensure!(change["transaction"]["id"] == file["transaction"]["id"], "another run: {change:#}");
    }
    let run = scene.ended_run(file["transaction"]["id"].as_str().context("no identity")?).await?;
    ensure!(run["tool"] == "puppet" && run["result"] == "changed" && run["requested_by"] == "alice", "{run:#}");
    ensure!(run["catalogue_version"].is_string(), "{run:#}");
    Ok(())
}
