//! Ansible on this machine, which manages hosts over ssh.

use std::time::Duration;

use anyhow::Context;

use crate::host::{Host, Login};
use crate::tool::Call;

const LIMIT: Duration = Duration::from_secs(300);

/// How a module comes to the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transfer {
    /// As a file that Python then runs: Ansible's default.
    Copied,
    /// To Python's standard input.
    Piped,
}

/// What Ansible says of a playbook that it plays on this host as alice, with these variables.
pub async fn play(host: &Host, playbook: &str, variables: &serde_json::Value, transfer: Transfer) -> anyhow::Result<String> {
    let folder = host.folder().join("ansible");
    std::fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    let login = format!("ansible_user={} ansible_ssh_private_key_file={}", Login::Alice.name(), host.key().display());
    let inventory = format!("{} ansible_host={} {login}\n", host.name(), host.address());
    // Nothing of the machine's own settings, no file but in the folder, no connection that outlives the call.
    for (name, text) in
        [("playbook.yml", playbook), ("inventory", &inventory), ("values.json", &variables.to_string()), ("ansible.cfg", "")]
    {
        std::fs::write(folder.join(name), text).with_context(|| format!("writing Ansible's {name}"))?;
    }
    let (home, settings) = (folder.display(), folder.join("ansible.cfg"));
    let call = Call::new("env").arg(format!("HOME={home}")).arg(format!("ANSIBLE_CONFIG={}", settings.display()));
    let call = call.arg(format!("ANSIBLE_PIPELINING={}", u8::from(transfer == Transfer::Piped))).args([
        "LC_ALL=C.UTF-8",
        "ANSIBLE_NOCOLOR=1",
        "ANSIBLE_HOST_KEY_CHECKING=0",
        "ANSIBLE_SSH_ARGS=-F none -o ControlMaster=no -o UserKnownHostsFile=/dev/null",
        "ansible-playbook",
    ]);
    let call = call.arg("--inventory").arg(folder.join("inventory")).arg(folder.join("playbook.yml"));
    call.arg(format!("--extra-vars=@{}", folder.join("values.json").display())).within(LIMIT).run().await
}
