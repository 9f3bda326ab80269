//! Who did it where it is easily mistaken: an editor that replaces the file, another user's shell by su, two people at one file, and
//! a pid that is used again.

use std::time::Duration;

use anyhow::{Context, bail, ensure};
use serde_json::Value;
use trueline_fleet::collector::{Collector, Setting, Watched};
use trueline_fleet::host::Login;
use trueline_fleet::needs;
use trueline_fleet::root::Root;
use trueline_fleet::story::story;
use trueline_tests::wait;

const LIMIT: Duration = Duration::from_secs(120);

#[tokio::test]
async fn people_are_told_apart() -> anyhow::Result<()> {
    let Some(packages) = needs::packages() else { return Ok(()) };
    story(&[Root::Collector, Root::Plain], async |fleet| {
        let collector = Collector::install(fleet, &packages, Setting::default()).await?;
        let web = Watched::install(fleet, &collector, &packages, "web").await?;
        an_editor_that_replaces_the_file(&collector, &web).await.context("by vim")?;
        another_users_shell(&collector, &web).await.context("by su")?;
        two_people_at_one_file(&collector, &web).await.context("two people at one file")?;
        a_pid_that_is_used_again(&collector, &web).await.context("a pid that is used again")
    })
    .await
}

/// The changes of this item, oldest first, once there is one of which the question holds.
async fn changes(collector: &Collector, web: &Watched, item: &str, is_it: impl Fn(&Value) -> bool) -> anyhow::Result<Vec<Value>> {
    let (what, mut seen) = (format!("the change of {item}"), Vec::new());
    let waited = wait::until(&what, LIMIT, async || {
        seen = collector.changes(&web.id, Some(item)).await?;
        Ok(seen.iter().any(&is_it).then_some(()))
    });
    let waited = waited.await;
    waited.with_context(|| format!("the changes of {item} are {seen:#?}"))?;
    Ok(seen)
}

fn is_sure(actor: &Value) -> bool {
    actor["certainty"] == "exact" || actor["certainty"] == "strong"
}

fn size_after(change: &Value) -> Option<u64> {
    change["fields"].as_array()?.iter().find(|field| field["name"] == "size")?["after"].as_u64()
}

fn runs_under<'a>(actor: &'a Value, program: &str) -> Option<&'a Value> {
    actor["parents"].as_array()?.iter().find(|parent| parent["exe"] == program)
}

/// vim writes another file, and puts it in the place of the first.
async fn an_editor_that_replaces_the_file(collector: &Collector, web: &Watched) -> anyhow::Result<()> {
    web.host.write("/etc/edited", "0644", "before\n").await?;
    changes(collector, web, "file:/etc/edited", |change| change["kind"] == "created").await?;
    // A terminal of its own, as a person has, and what is typed on it; it stays open until the editor has ended.
    let typed = r"printf 'Ohello\033:wq\r'; while [ ! -e /tmp/edited ]; do sleep 0.1; done";
    let edit = "sudo vim.tiny /etc/edited; touch /tmp/edited";
    web.host.ssh(Login::Alice, &format!("({typed}) | TERM=xterm script -qec '{edit}' /dev/null >/dev/null")).await?;
    ensure!(web.host.read("/etc/edited").await? == b"hello\nbefore\n", "vim did not write it");
    let changes = changes(collector, web, "file:/etc/edited", |change| size_after(change) == Some(13)).await?;
    let change = changes.iter().find(|change| size_after(change) == Some(13)).context("no change")?;
    let actor = &change["actor"];
    ensure!(is_sure(actor) && actor["process"]["exe"] == "/usr/bin/vim.tiny", "{actor:#}");
    ensure!(actor["process"]["argv"][1] == "/etc/edited", "{actor:#}");
    ensure!(actor["user"]["name"] == "root" && actor["user"]["login_name"] == "alice", "{actor:#}");
    ensure!(actor["session"]["kind"] == "ssh" && actor["session"]["user"] == "alice", "{actor:#}");
    ensure!(actor["session"]["key"].is_string() && actor["session"]["origin"]["address"].is_string(), "{actor:#}");
    ensure!(actor["sudo"]["by"] == "alice" && actor["sudo"]["command"] == "vim.tiny /etc/edited", "{actor:#}");
    ensure!(runs_under(actor, "/usr/bin/sudo").is_some() && runs_under(actor, "/usr/sbin/sshd").is_some(), "{actor:#}");
    ensure!(actor["slice"] == "user-1000.slice", "{actor:#}");
    Ok(())
}

/// Who knows bob's password and becomes bob stays who logged in.
async fn another_users_shell(collector: &Collector, web: &Watched) -> anyhow::Result<()> {
    web.host.root("install -o bob -d /etc/of-bob; echo bob:let-me-in | chpasswd").await?;
    web.host.ssh(Login::Alice, "echo let-me-in | su -c '(echo one; sleep 0.3) | tee /etc/of-bob/by-su' bob").await?;
    let changes = changes(collector, web, "file:/etc/of-bob/by-su", |_| true).await?;
    let actor = &changes[0]["actor"];
    ensure!(is_sure(actor) && actor["process"]["exe"] == "/usr/bin/tee", "{actor:#}");
    ensure!(actor["user"]["name"] == "bob" && actor["user"]["login_name"] == "alice", "{actor:#}");
    ensure!(actor["session"]["kind"] == "ssh" && actor["session"]["user"] == "alice", "{actor:#}");
    ensure!(runs_under(actor, "/usr/bin/su").is_some() && actor["sudo"].is_null(), "{actor:#}");
    Ok(())
}

/// Each writes contents of sizes of its own, so that a change tells by itself whose it was. Where both write at one moment neither may be
/// taken for the other; where one writes once the other's change is told, both are named.
async fn two_people_at_one_file(collector: &Collector, web: &Watched) -> anyhow::Result<()> {
    web.host.root("install -m 666 /dev/null /etc/shared").await?;
    let write = |letters: &str| format!("for turn in 1 2 3 4 5; do echo {letters}$turn > /etc/shared; sleep 0.17; done");
    let (ours, theirs) = (write("a"), write("bbbbbbbb"));
    let (alice, bob) = tokio::join!(web.host.ssh(Login::Alice, &ours), web.host.ssh(Login::Bob, &theirs));
    alice?;
    bob?;
    // A busy machine may tell so late that even then a change is no surer than perhaps: it has a few turns.
    for turn in 0..5 {
        let [of_alice, of_bob] = [20 + turn, 40 + turn];
        let mut all = Vec::new();
        for (login, size) in [(Login::Bob, of_bob), (Login::Alice, of_alice)] {
            web.host.ssh(login, &format!("echo {} > /etc/shared", "x".repeat(size - 1))).await?;
            all = changes(collector, web, "file:/etc/shared", |change| size_after(change) == Some(size as u64)).await?;
        }
        let mut named = Vec::new();
        for change in all.iter().filter(|change| is_sure(&change["actor"])) {
            let Some(size) = size_after(change).filter(|size| *size > 0) else { continue };
            let name = if size == 10 || size >= 40 { "bob" } else { "alice" };
            ensure!(change["actor"]["user"]["login_name"] == name, "it was {name}: {change:#}");
            named.push(size);
        }
        if [of_alice, of_bob].iter().all(|size| named.contains(&(*size as u64))) {
            return Ok(());
        }
        eprintln!("at turn {turn} not both were named surely: {all:#?}");
    }
    bail!("alice and bob, one after the other, were never both named")
}

/// Alice's process ends, and bob's gets its number.
async fn a_pid_that_is_used_again(collector: &Collector, web: &Watched) -> anyhow::Result<()> {
    web.host.root("install -m 777 -d /etc/numbered").await?;
    let script = "
        # nspawn lets nobody write there.
        mount -o remount,bind,rw /proc/sys
        write() { setpriv --reuid=$1 --regid=$1 --clear-groups sh -c 'echo x > /etc/numbered/'$1 & wait $!; echo $!; }
        for attempt in $(seq 100); do
            rm -f /etc/numbered/*
            first=$(write 1000)
            echo $((first - 1)) > /proc/sys/kernel/ns_last_pid
            setpriv --reuid=1001 --regid=1001 --clear-groups sh -c 'echo x > /etc/numbered/1001' &
            second=$!
            wait $second
            [ $first = $second ] && echo $first && exit
            sleep 0.1
        done
        exit 1";
    let pid: u64 = web.host.root(script).await?.trim().parse()?;
    for (uid, name) in [(1000, "alice"), (1001, "bob")] {
        let of_pid = |change: &Value| change["kind"] == "created" && change["actor"]["process"]["pid"] == pid;
        let all = changes(collector, web, &format!("file:/etc/numbered/{uid}"), of_pid).await?;
        let actor = &all.iter().find(|change| of_pid(change)).context("no change")?["actor"];
        let user = &actor["user"];
        // Without a feed of processes it may have ended before it could be looked at.
        let may_be_absent = user.is_null() && !needs::process_feed();
        ensure!(user["name"] == name || may_be_absent, "not {name}: {actor:#}");
        ensure!(is_sure(actor) || actor["reason"].is_string(), "{actor:#}");
    }
    Ok(())
}
