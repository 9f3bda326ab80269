//! A container of the host's own: what it writes into a folder that the host lent it.

use anyhow::ensure;
use trueline_fleet::host::Login;

use crate::Scene;
use crate::told::runs_under;

pub async fn a_container(scene: &Scene) -> anyhow::Result<()> {
    let host = &scene.web.host;
    host.root("mkdir /etc/lent").await?;
    let box_of = "systemd-nspawn --quiet --machine=box --directory=/ --volatile=yes --bind=/etc/lent:/srv";
    host.ssh(Login::Alice, &format!("sudo {box_of} sh -c 'echo hello > /srv/by-box; exit 0' </dev/null")).await?;
    let change = scene.change("file:/etc/lent/by-box", |_| true).await?;
    let actor = &change["actor"];
    ensure!(actor["certainty"] == "exact" && actor["reason"].is_null(), "{actor:#}");
    ensure!(actor["container"]["id"] == "box" && actor["container"]["certainty"] == "exact", "no container: {actor:#}");
    ensure!(actor["unit"] == "machine-box.scope" && actor["slice"] == "machine.slice", "{actor:#}");
    ensure!(actor["process"]["exe"] == "/usr/bin/dash", "{actor:#}");
    runs_under(actor, &["/usr/bin/systemd-nspawn", "/usr/bin/sudo", "/usr/sbin/sshd"])?;
    // nspawn lets nobody's login into a container; who started it is told by sudo.
    ensure!(actor["user"]["uid"] == 0 && actor["user"]["login_uid"].is_null() && actor["session"].is_null(), "{actor:#}");
    ensure!(actor["sudo"]["by"] == "alice" && actor["sudo"]["certainty"] == "strong", "{actor:#}");
    ensure!(change["transaction"].is_null(), "{change:#}");
    Ok(())
}
