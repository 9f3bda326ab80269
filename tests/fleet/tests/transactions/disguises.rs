//! Programs that root, as alice through sudo, makes look like a package manager or like Puppet: each change is told with what
//! really ran, and is no transaction.

use anyhow::{Context, ensure};
use trueline_fleet::host::Login;

use crate::Scene;
use crate::told::runs_under;

/// Each writes a file of its own name, and lives on for a moment.
const SCRIPT: &str = r#"
cd /etc/disguised
write() { echo "echo hello > /etc/disguised/$1; sleep 0.3; exit 0"; }

# A copy of a shell under apt's name.
cp /bin/dash /tmp/apt-get
/tmp/apt-get -c "$(write copied)"

# Other arguments, another name.
bash -c 'exec -a /usr/bin/apt-get /bin/sh -c "$0"' "$(write argv0)"
python3 -c 'import ctypes, time
ctypes.CDLL(None).prctl(15, b"apt-get", 0, 0, 0)
open("/etc/disguised/prctl", "w").write("hello")
time.sleep(0.3)'

# In a mount namespace of its own a shell lies over apt.
unshare --mount --propagation private sh -c 'mount --bind /bin/dash /usr/bin/apt-get; /usr/bin/apt-get -c "$0"; exit 0' "$(write mounted)"

# And a script over Puppet.
printf '#!/bin/sh\n%s\n' "$(write script)" > /root/script
chmod 755 /root/script
unshare --mount --propagation private sh -c 'mount --bind /root/script /usr/bin/puppet; /usr/bin/puppet apply x; exit 0'

# A child that was there before its maker became apt.
mkfifo /tmp/go
sh -c 'sh -c "read -r go < /tmp/go; echo hello > /etc/disguised/before; sleep 0.3; exit 0" & exec apt-get --version' > /dev/null
echo go > /tmp/go

# A process that writes, and then becomes apt.
python3 -c 'import os
written = open("/etc/disguised/after", "w")
written.write("hello")
written.flush()
os.execv("/usr/bin/apt-get", ["apt-get", "--version"])' > /dev/null

# A script by the name of one that upgrades.
printf '#!/bin/sh\n%s\n' "$(write named)" > /root/unattended-upgrade
chmod 755 /root/unattended-upgrade
/root/unattended-upgrade
"#;

/// What is told to have run, by the file that it wrote.
const DISGUISED: [(&str, &str); 7] = [
    ("copied", "/tmp/apt-get"),
    ("argv0", "/usr/bin/dash"),
    ("prctl", "/usr/bin/python3.11"),
    ("mounted", "/usr/bin/apt-get"),
    ("script", "/usr/bin/dash"),
    ("before", "/usr/bin/dash"),
    ("named", "/usr/bin/dash"),
];

pub async fn programs_that_look_like_others(scene: &Scene) -> anyhow::Result<()> {
    let host = &scene.web.host;
    host.root("mkdir /etc/disguised").await?;
    host.write("/root/disguises", "0700", SCRIPT).await?;
    host.ssh(Login::Alice, "sudo sh -eu /root/disguises").await?;
    for (name, exe) in DISGUISED {
        let change = scene.change(&format!("file:/etc/disguised/{name}"), |_| true).await?;
        ensure!(change["transaction"].is_null(), "{name} is believed: {change:#}");
        let actor = &change["actor"];
        ensure!(actor["certainty"] == "exact" && actor["process"]["exe"] == exe, "{name}: {actor:#}");
        ensure!(actor["user"]["login_name"] == "alice" && actor["sudo"]["by"] == "alice", "{name}: {actor:#}");
        runs_under(actor, &["/usr/bin/sudo", "/usr/sbin/sshd"]).with_context(|| name.to_owned())?;
    }
    // Both programs took part: neither is chosen.
    let after = scene.change("file:/etc/disguised/after", |_| true).await?;
    let (actor, run) = (&after["actor"], &after["transaction"]);
    ensure!(run.is_null() || run["certainty"] == "correlated", "it is believed: {after:#}");
    let is_told = actor["process"]["exe"] == "/usr/bin/python3.11" || (actor["certainty"] != "exact" && actor["reason"].is_string());
    ensure!(is_told && actor["user"]["login_name"] == "alice" && actor["sudo"]["by"] == "alice", "{actor:#}");
    Ok(())
}
