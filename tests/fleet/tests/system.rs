//! Who did it where no file event tells of it, or none of the right process: a person over ssh with sudo adds users, mounts, writes a kernel
//! setting, changes the packet filter, and has the first process enable a unit.

use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::Value;
use trueline_fleet::collector::{Collector, Setting, Watched};
use trueline_fleet::host::Login;
use trueline_fleet::needs;
use trueline_fleet::root::Root;
use trueline_fleet::story::story;
use trueline_tests::wait;

const LIMIT: Duration = Duration::from_secs(60);
/// A program that does its work at once after it started, on a machine that is busy, may do so before the agent has looked: then it is
/// told that the program is not known, which is right, and it is asked to do it again.
const TURNS: usize = 5;

/// Something that alice does with sudo, with the turn's number for `{}`.
struct Act {
    command: &'static str,
    item: &'static str,
    kind: &'static str,
    program: &'static str,
}

const ACTS: [Act; 8] = [
    Act { command: "useradd -m carol{}", item: "user:carol{}", kind: "created", program: "/usr/sbin/useradd" },
    Act { command: "userdel -r carol{}", item: "user:carol{}", kind: "removed", program: "/usr/sbin/userdel" },
    Act { command: "mount -t tmpfs -o size=1m none /mnt/{}", item: "mount:/mnt/{}", kind: "created", program: "/usr/bin/mount" },
    Act { command: "umount /mnt/{}", item: "mount:/mnt/{}", kind: "removed", program: "/usr/bin/umount" },
    Act {
        command: "sysctl -w net.ipv4.ip_default_ttl=10{}",
        item: "sysctl:net.ipv4.ip_default_ttl",
        kind: "modified",
        program: "/usr/sbin/sysctl",
    },
    Act { command: "nft add table inet probe{}", item: "firewall:table inet probe{}", kind: "created", program: "/usr/sbin/nft" },
    Act {
        command: "nft add chain inet probe{} early",
        item: "firewall:chain inet probe{} early",
        kind: "created",
        program: "/usr/sbin/nft",
    },
    Act { command: "nft delete table inet probe{}", item: "firewall:table inet probe{}", kind: "removed", program: "/usr/sbin/nft" },
];

#[tokio::test]
async fn what_no_file_event_tells_of_has_an_actor() -> anyhow::Result<()> {
    let Some(packages) = needs::packages() else { return Ok(()) };
    story(&[Root::Collector, Root::Plain], async |fleet| {
        let collector = Collector::install(fleet, &packages, Setting::default()).await?;
        let web = Watched::install(fleet, &collector, &packages, "web").await?;
        let turns: Vec<String> = (0..TURNS).map(|turn| format!("/mnt/{turn}")).collect();
        // systemd-nspawn gives its hosts kernel settings that they cannot write.
        web.host.root(&format!("mkdir {} && mount -o remount,rw,bind /proc/sys", turns.join(" "))).await?;
        let mut unnamed: Vec<&Act> = ACTS.iter().collect();
        for turn in 0..TURNS {
            let mut left = Vec::new();
            // All of a turn, so that what one makes the next one can take away.
            for act in &ACTS {
                let is_named = act.done(&collector, &web, turn).await.with_context(|| format!("{} (turn {turn})", act.command))?;
                if !is_named && unnamed.iter().any(|unnamed| std::ptr::eq(*unnamed, act)) {
                    left.push(act);
                }
            }
            unnamed = left;
            if unnamed.is_empty() {
                break;
            }
        }
        ensure!(unnamed.is_empty(), "never named in {TURNS} turns: {:?}", unnamed.iter().map(|act| act.command).collect::<Vec<_>>());
        who_asked_for_a_unit(&collector, &web).await.context("systemctl enable")
    })
    .await
}

impl Act {
    /// Whether all of it was named; nobody else ever is.
    async fn done(&self, collector: &Collector, web: &Watched, turn: usize) -> anyhow::Result<bool> {
        let with_turn = |text: &str| text.replace("{}", &turn.to_string());
        let (command, item) = (with_turn(self.command), with_turn(self.item));
        let earlier = collector.changes(&web.id, Some(&item)).await?.len();
        web.host.ssh(Login::Alice, &format!("sudo {command}")).await?;
        let change = wait::until(&format!("the change of {item}"), LIMIT, async || {
            let changes = collector.changes(&web.id, Some(&item)).await?;
            Ok(changes.into_iter().skip(earlier).find(|change| change["kind"] == self.kind))
        })
        .await?;
        let actor = &change["actor"];
        ensure!(actor["certainty"] == "exact" || actor["certainty"] == "strong", "{actor:#}");
        ensure!(actor["sudo"]["by"] == "alice" && actor["sudo"]["command"] == command.as_str(), "{actor:#}");
        ensure!(actor["slice"] == "user-1000.slice" && actor["session"]["id"].is_string(), "{actor:#}");
        let process = &actor["process"];
        if process["exe"].is_null() || actor["session"]["certainty"] == "unknown" {
            // Between sudo and what it runs the user is not sure either; and a login that has just begun is looked up.
            ensure!(actor["reason"].is_string() || actor["session"]["certainty"] == "unknown", "{actor:#}");
            let user = &actor["user"];
            ensure!(user.is_null() || (user["uid"] == 0 && user["login_name"] == "alice"), "{actor:#}");
            return Ok(false);
        }
        ensure!(actor["user"]["uid"] == 0 && actor["user"]["login_name"] == "alice", "{actor:#}");
        ensure!(actor["session"]["kind"] == "ssh" && actor["session"]["user"] == "alice", "{actor:#}");
        ensure!(actor["session"]["key"].is_string() && actor["session"]["origin"]["address"].is_string(), "{actor:#}");
        ensure!(process["exe"] == self.program, "{actor:#}");
        let argv: Vec<&str> = process["argv"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        ensure!(argv.join(" ").ends_with(command.as_str()), "{actor:#}");
        Ok(true)
    }
}

/// The first process made the links; that it was asked to is nowhere told, so whoever seems to have is offered and not named.
async fn who_asked_for_a_unit(collector: &Collector, web: &Watched) -> anyhow::Result<()> {
    let unit = "[Service]\nExecStart=/bin/true\n[Install]\nWantedBy=multi-user.target\n";
    web.host.write("/etc/systemd/system/probe.service", "0644", unit).await?;
    let wanted = "/etc/systemd/system/multi-user.target.wants/probe.service";
    web.host.ssh(Login::Alice, "sudo systemctl enable probe").await?;
    for (item, kind) in [("unit:probe.service".to_owned(), "modified"), (format!("file:{wanted}"), "created")] {
        let change = wait::until(&format!("the change of {item}"), LIMIT, async || {
            let changes = collector.changes(&web.id, Some(&item)).await?;
            Ok(changes.into_iter().find(|change| change["kind"] == kind))
        })
        .await?;
        let actor = &change["actor"];
        ensure!(actor["process"]["pid"] == 1 && actor["process"]["exe"] == "/usr/lib/systemd/systemd", "{actor:#}");
        ensure!(actor["session"].is_null() && actor["sudo"].is_null(), "the first process is nobody's: {actor:#}");
        // Her login at least; what sudo said of it may come to the journal's readers only after the change was told.
        let offered = change["candidates"]["offered"].as_array().context("nobody is offered")?;
        ensure!(offered.iter().any(|candidate| candidate["session"]["user"] == "alice"), "{change:#}");
        let is_asked =
            |candidate: &Value| candidate["sudo"]["command"].as_str().is_some_and(|command| command.ends_with("systemctl enable probe"));
        let sudo = offered.iter().filter(|candidate| is_asked(candidate));
        ensure!(sudo.into_iter().all(|candidate| candidate["matched"] == "object_and_time"), "{change:#}");
    }
    Ok(())
}
