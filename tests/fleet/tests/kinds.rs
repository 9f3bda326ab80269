//! Every kind of item on a real host: an administrator does what changes one, and the collector tells which field of which item is
//! now what. Whole files of settings, of whom nobody is asked who did it: that is `people`'s and `system`'s.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use trueline_drift::ItemKind;
use trueline_fleet::collector::{Collector, Setting, Watched};
use trueline_fleet::needs;
use trueline_fleet::root::Root;
use trueline_fleet::story::story;
use trueline_fleet::tool::Call;
use trueline_tests::wait;

/// Longer than what is read every so often may take to show.
const LIMIT: Duration = Duration::from_secs(90);

/// What root does, and what is told of it.
struct Act {
    command: &'static str,
    /// Its beginning where the rest is a fingerprint.
    item: &'static str,
    kind: &'static str,
    /// A field, and what it became: `null` is gone.
    field: &'static str,
    becomes: fn() -> Value,
}

/// A file of the machine, which has another path where a host sees it.
const PROBE: &str = "probe-swap";

const CREATED: &str = "created";
const MODIFIED: &str = "modified";

const ACTS: &[Act] = &[
    Act {
        command: "install -m 0755 /bin/true /usr/local/bin/probe",
        item: "file:/usr/local/bin/probe",
        kind: CREATED,
        field: "mode",
        becomes: || json!("0755"),
    },
    Act {
        command: "chmod 6757 /usr/local/sbin/run-me",
        item: "file:/usr/local/sbin/run-me",
        kind: MODIFIED,
        field: "setuid",
        becomes: || json!(true),
    },
    Act { command: "mkdir /etc/probe.d", item: "file:/etc/probe.d", kind: CREATED, field: "type", becomes: || json!("folder") },
    Act {
        command: "echo 'bash hold' | dpkg --set-selections",
        item: "package:bash",
        kind: MODIFIED,
        field: "hold",
        becomes: || json!(true),
    },
    Act { command: "chsh -s /bin/sh bob", item: "user:bob", kind: MODIFIED, field: "shell", becomes: || json!("/bin/sh") },
    Act { command: "passwd -d bob", item: "user:bob", kind: MODIFIED, field: "locked", becomes: || json!(false) },
    Act { command: "chage -E 2030-01-01 bob", item: "user:bob", kind: MODIFIED, field: "expires_at", becomes: || json!("2030-01-01") },
    Act { command: "gpasswd -A alice users", item: "group:users", kind: MODIFIED, field: "administrators", becomes: || json!(["alice"]) },
    Act { command: "gpasswd -a bob sudo", item: "group:sudo", kind: MODIFIED, field: "members", becomes: || json!(["bob"]) },
    Act { command: "systemctl mask cron", item: "unit:cron.service", kind: MODIFIED, field: "enabled", becomes: || json!("masked") },
    Act { command: "systemctl stop cron", item: "unit:cron.service", kind: MODIFIED, field: "active", becomes: || json!(false) },
    Act {
        command: "printf '[Timer]\\nOnCalendar=daily\\nUnit=cron.service\\n' > /etc/systemd/system/probe.timer",
        item: "timer:probe.timer",
        kind: CREATED,
        field: "schedule",
        becomes: || json!(["OnCalendar=daily"]),
    },
    Act {
        command: "echo 'LANG=C.UTF-8' > /etc/default/locale",
        item: "locale:/etc/default/locale",
        kind: "",
        field: "lang",
        becomes: || json!("C.UTF-8"),
    },
    Act {
        command: "mkdir -p /etc/chrony && echo 'server 10.0.0.123 iburst' > /etc/chrony/chrony.conf",
        item: "time_sync:chrony",
        kind: CREATED,
        field: "servers",
        becomes: || json!(["10.0.0.123 iburst"]),
    },
    Act {
        command: "systemd-run --unit=probe-port systemd-socket-activate -l 127.0.0.1:4242 /bin/cat",
        item: "listener:tcp 127.0.0.1:4242",
        kind: CREATED,
        field: "unit",
        becomes: || json!("probe-port.service"),
    },
    Act {
        command: "mkdir -p /etc/ssh/sshd_config.d && echo 'PermitRootLogin forced-commands-only' > /etc/ssh/sshd_config.d/00-probe.conf",
        item: "sshd:global",
        kind: MODIFIED,
        field: "config.PermitRootLogin",
        becomes: || json!("forced-commands-only"),
    },
    Act {
        command: "ip link add probe0 type bridge && ip addr add 10.99.0.1/24 dev probe0 && ip link set probe0 up",
        item: "interface:probe0",
        kind: "",
        field: "addresses",
        becomes: || json!(["10.99.0.1/24"]),
    },
    Act {
        command: "ip route add blackhole 10.98.0.0/16",
        item: "route:10.98.0.0/16",
        kind: CREATED,
        field: "type",
        becomes: || json!("blackhole"),
    },
    Act {
        command: "echo 'kernel.kptr_restrict = 2' > /etc/sysctl.d/90-probe.conf",
        item: "sysctl:kernel.kptr_restrict",
        kind: MODIFIED,
        field: "configured_by",
        becomes: || json!("/etc/sysctl.d/90-probe.conf:1"),
    },
    Act {
        command: "sysctl -w net.ipv4.ip_default_ttl=99",
        item: "sysctl:net.ipv4.ip_default_ttl",
        kind: MODIFIED,
        field: "value",
        becomes: || json!("99"),
    },
    Act {
        command: "mount -t tmpfs -o noexec,size=1m none /mnt",
        item: "mount:/mnt",
        kind: CREATED,
        field: "type",
        becomes: || json!("tmpfs"),
    },
    Act {
        command: "nft add table inet probe && nft add chain inet probe early '{ type filter hook input priority 0; policy drop; }'; nft flush chain inet probe early; nft chain inet probe early '{ policy accept; }'",
        item: "firewall:chain inet probe early",
        kind: CREATED,
        field: "hook",
        becomes: || json!("input"),
    },
    Act {
        command: "echo 'deb [trusted=yes] http://mirror.test/debian bookworm main contrib' > /etc/apt/sources.list.d/probe.list",
        item: "repository:http://mirror.test/debian bookworm",
        kind: CREATED,
        field: "components",
        becomes: || json!(["contrib", "main"]),
    },
    Act {
        command: "mkdir -p /etc/selinux && echo SELINUX=permissive > /etc/selinux/config",
        item: "lsm:selinux",
        kind: "",
        field: "configured",
        becomes: || json!("permissive"),
    },
    Act {
        command: "echo 'tmpfs /srv/probe tmpfs noexec,size=1m 0 0' >> /etc/fstab",
        item: "fstab:/srv/probe",
        kind: CREATED,
        field: "options",
        becomes: || json!(["noexec", "size=1m"]),
    },
    Act {
        command: "openssl req -x509 -newkey rsa:2048 -nodes -keyout /dev/null -subj '/CN=Probe Root' -days 7 \
                  -out /usr/local/share/ca-certificates/probe.crt && update-ca-certificates",
        item: "certificate:Probe Root ",
        kind: CREATED,
        field: "subject",
        becomes: || json!("CN=Probe Root"),
    },
    Act {
        command: "ssh-keygen -q -t ed25519 -N '' -C probe -f /root/probe && \
                  printf 'no-pty %s\\n' \"$(cat /root/probe.pub)\" >> /home/bob/.ssh/authorized_keys",
        item: "authorized_key:bob SHA256:",
        kind: CREATED,
        field: "options",
        becomes: || json!(["no-pty"]),
    },
    Act {
        command: "echo 'bob ALL=(root) NOPASSWD: /usr/bin/id' > /etc/sudoers.d/probe",
        item: "sudo_rule:bob ALL=(root) /usr/bin/id",
        kind: CREATED,
        field: "tags",
        becomes: || json!(["NOPASSWD"]),
    },
    Act {
        command: "echo '5 4 * * * bob /usr/local/bin/probe --up' > /etc/cron.d/probe",
        item: "cron_job:bob /usr/local/bin/probe --up",
        kind: CREATED,
        field: "schedule",
        becomes: || json!("5 4 * * *"),
    },
    Act {
        command: "echo '@reboot /usr/local/bin/probe' | crontab -u bob -",
        item: "cron_job:bob /usr/local/bin/probe",
        kind: CREATED,
        field: "schedule",
        becomes: || json!("@reboot"),
    },
    Act {
        command: "echo /usr/local/bin/probe | at -M now + 2 days",
        item: "at_job:",
        kind: CREATED,
        field: "user",
        becomes: || json!("root"),
    },
    Act {
        command: "echo 'LD_PRELOAD=/tmp/probe.so' >> /etc/environment",
        item: "environment:LD_PRELOAD",
        kind: CREATED,
        field: "value",
        becomes: || json!("/tmp/probe.so"),
    },
    Act {
        command: "echo '@sudo hard nofile 77' > /etc/security/limits.d/probe.conf",
        item: "limits:@sudo hard nofile",
        kind: CREATED,
        field: "value",
        becomes: || json!("77"),
    },
    Act {
        command: "printf 'auth sufficient pam_permit.so\\n' > /etc/pam.d/probe",
        item: "pam_rule:probe",
        kind: CREATED,
        field: "auth",
        becomes: || json!(["sufficient pam_permit.so"]),
    },
    Act {
        command: "echo '10.0.0.9 Update.Test' >> /etc/hosts",
        item: "hosts_entry:update.test",
        kind: CREATED,
        field: "addresses",
        becomes: || json!(["10.0.0.9"]),
    },
    Act {
        command: "printf 'nameserver 10.0.0.53\\nsearch probe.test\\n' > /etc/resolv.conf",
        item: "resolver:/etc/resolv.conf",
        kind: "",
        field: "nameservers",
        becomes: || json!(["10.0.0.53"]),
    },
    Act {
        command: "echo elsewhere > /etc/hostname",
        item: "hostname:static",
        kind: MODIFIED,
        field: "name",
        becomes: || json!("elsewhere"),
    },
    Act { command: "hostname elsewhere", item: "hostname:running", kind: MODIFIED, field: "name", becomes: || json!("elsewhere") },
    Act {
        command: "ln -sf /usr/share/zoneinfo/Asia/Tokyo /etc/localtime",
        item: "timezone:/etc/localtime",
        kind: "",
        field: "zone",
        becomes: || json!("Asia/Tokyo"),
    },
];

/// Kinds that nothing here changes, and where they are seen on a real host instead.
const ELSEWHERE: &[(ItemKind, &str)] = &[
    (ItemKind::Session, "people.rs"),
    (ItemKind::Run, "transactions"),
    (ItemKind::KernelModule, "sensor/tests/notices.rs of the agent, in the virtual machine: not every kernel here loads modules"),
    (ItemKind::Kernel, "below: what a running kernel is stays until it is started anew"),
    (ItemKind::Hardware, "below: the same"),
    (ItemKind::Swap, "below: of the machine, whose kernel the hosts share"),
    (ItemKind::BlockDevice, "below: the same"),
    (ItemKind::Container, "the agent's tests on what a runtime wrote: no image can be had here"),
];

#[test]
fn no_kind_is_forgotten() {
    let acted: BTreeSet<&str> = ACTS.iter().filter_map(|act| act.item.split(':').next()).collect();
    let forgotten: Vec<_> = ItemKind::ALL
        .into_iter()
        .filter(|kind| !acted.contains(kind.name()) && !ELSEWHERE.iter().any(|(elsewhere, _)| elsewhere == kind))
        .collect();
    assert!(forgotten.is_empty(), "no test on a real host: {forgotten:?}");
}

#[tokio::test]
async fn each_kind_tells_what_an_administrator_changed() -> anyhow::Result<()> {
    let Some(packages) = needs::packages() else { return Ok(()) };
    story(&[Root::Collector, Root::Plain], async |fleet| {
        let collector = Collector::install(fleet, &packages, Setting::default()).await?;
        let web = Watched::install(fleet, &collector, &packages, "web").await?;
        // systemd-nspawn gives its hosts kernel settings that they cannot write.
        web.host.root("mount -o remount,rw,bind /proc/sys").await?;
        web.host.root("install -m 0755 /bin/true /usr/local/sbin/run-me").await?;
        found(&collector, &web, "file:/usr/local/sbin/", "run-me", CREATED).await?;
        // Until the host has started nothing is told of what is active.
        let items = format!("/hosts/{}/items", web.id);
        wait::until("what is told of cron to say that it is active", LIMIT, async || {
            let units = collector.rest().all(&items, &[("kind", "unit")]).await?;
            Ok(units.iter().any(|unit| unit["item"] == "unit:cron.service" && unit["fields"]["active"] == true).then_some(()))
        })
        .await?;
        let mut missing = Vec::new();
        for act in ACTS {
            web.host.root(act.command).await.with_context(|| format!("doing `{}`", act.command))?;
        }
        for act in ACTS {
            if let Err(error) = told(&collector, &web, act).await {
                missing.push(format!("{}: {error:#}", act.command));
            }
        }
        ensure!(missing.is_empty(), "{}", missing.join("\n"));
        of_the_machine(&collector, &web).await
    })
    .await
}

/// Waits until the item's field became what it is to become, by a change of the right kind.
async fn told(collector: &Collector, web: &Watched, act: &Act) -> anyhow::Result<()> {
    let mut seen = Vec::new();
    let subject = format!("the change of {}", act.item);
    let waited = wait::until(&subject, LIMIT, async || {
        let whole = !act.item.ends_with([':', ' ']);
        seen = collector.changes(&web.id, whole.then_some(act.item)).await?;
        seen.retain(|change| change["item"].as_str().is_some_and(|item| item.starts_with(act.item)));
        let is_it = |change: &&Value| {
            let field = change["fields"].as_array().into_iter().flatten().find(|field| field["name"] == act.field);
            (act.kind.is_empty() || change["kind"] == act.kind) && field.is_some_and(|field| field["after"] == (act.becomes)())
        };
        Ok(seen.iter().find(is_it).map(drop))
    });
    waited.await.with_context(|| {
        let told: Vec<String> = seen.iter().map(|change| format!("{} {}", change["kind"], change["fields"])).collect();
        format!("told instead: {}", told.join("; "))
    })
}

/// What the host shares with the machine that it runs on.
async fn of_the_machine(collector: &Collector, web: &Watched) -> anyhow::Result<()> {
    let release = web.host.root("uname -r").await?;
    let path = format!("/hosts/{}/items", web.id);
    let kernels = collector.rest().all(&path, &[("kind", "kernel")]).await?;
    let [kernel] = &*kernels else { anyhow::bail!("one kernel runs: {kernels:?}") };
    ensure!(kernel["item"] == "kernel:running" && kernel["fields"]["release"] == release.trim(), "{kernel:#}");
    let processors = web.host.root("nproc --all").await?;
    let parts = collector.rest().all(&path, &[("kind", "hardware")]).await?;
    let counted = parts.iter().find(|part| part["item"] == "hardware:cpu").map(|part| part["fields"]["count"].to_string());
    ensure!(counted.as_deref() == Some(processors.trim()), "{processors} processors are told as {parts:?}");
    let file = web.host.folder().join(PROBE);
    let file = file.to_str().context("the folder of a host has a plain name")?;
    Call::new("fallocate").args(["-l", "2M", file]).run().await?;
    Call::new("chmod").args(["0600", file]).run().await?;
    Call::new("mkswap").arg(file).run().await?;
    let device = Call::new("losetup").args(["--find", "--show", "--read-only", file]).run().await?;
    let told_of_loop = found(collector, web, "block_device:loop/", PROBE, CREATED).await;
    Call::new("losetup").args(["--detach", device.trim()]).run().await?;
    told_of_loop?;
    Call::new("swapon").arg(file).run().await?;
    let told_of_swap = found(collector, web, "swap:", PROBE, CREATED).await;
    Call::new("swapoff").arg(file).run().await?;
    told_of_swap?;
    found(collector, web, "swap:", PROBE, "removed").await
}

/// Waits for such a change of an item with this beginning and end.
async fn found(collector: &Collector, web: &Watched, beginning: &str, end: &str, kind: &str) -> anyhow::Result<()> {
    wait::until(&format!("a change of {beginning}…{end}"), LIMIT, async || {
        let changes = collector.changes(&web.id, None).await?;
        let is_it = |change: &Value| {
            let item = change["item"].as_str().unwrap_or_default();
            item.starts_with(beginning) && item.ends_with(end) && change["kind"] == kind
        };
        Ok(changes.iter().any(is_it).then_some(()))
    })
    .await
}
