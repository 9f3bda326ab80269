//! Which programs lead runs, by the paths at which distributions and vendors install them.
//!
//! A path alone proves nothing: it counts only of a file that is shown to be the host's own.

use super::TransactionKind::{
    self, Ansible, Apt, Cfengine, Chef, CloudInit, ContainerBuild, Dnf, Dpkg, Puppet, Rpm, Salt, UnattendedUpgrades, Zypper,
};

/// Programs that the kernel executes itself.
const EXECUTABLES: &[(&str, TransactionKind)] = &[
    ("/usr/bin/apt", Apt),
    ("/usr/bin/apt-get", Apt),
    ("/usr/bin/aptitude", Apt),
    ("/usr/bin/aptitude-curses", Apt),
    ("/usr/bin/buildah", ContainerBuild),
    ("/usr/bin/dnf5", Dnf),
    ("/usr/bin/dpkg", Dpkg),
    ("/usr/bin/microdnf", Dnf),
    ("/usr/bin/rpm", Rpm),
    ("/usr/bin/zypper", Zypper),
    ("/usr/sbin/cf-agent", Cfengine),
    ("/var/cfengine/bin/cf-agent", Cfengine),
    ("/bin/rpm", Rpm),
];

/// Programs that an interpreter runs.
const SCRIPTS: &[(&str, TransactionKind)] = &[
    ("/opt/chef/bin/chef-client", Chef),
    ("/opt/cinc/bin/cinc-client", Chef),
    ("/opt/puppetlabs/bin/puppet", Puppet),
    ("/opt/puppetlabs/puppet/bin/puppet", Puppet),
    ("/opt/saltstack/salt/salt-call", Salt),
    ("/opt/saltstack/salt/salt-minion", Salt),
    ("/usr/bin/ansible", Ansible),
    ("/usr/bin/ansible-playbook", Ansible),
    ("/usr/bin/ansible-pull", Ansible),
    ("/usr/bin/chef-client", Chef),
    ("/usr/bin/chef-solo", Chef),
    ("/usr/bin/cloud-init", CloudInit),
    ("/usr/bin/dnf", Dnf),
    ("/usr/bin/dnf-3", Dnf),
    ("/usr/bin/dnf-automatic", Dnf),
    ("/usr/bin/puppet", Puppet),
    ("/usr/bin/salt-call", Salt),
    ("/usr/bin/salt-minion", Salt),
    ("/usr/bin/unattended-upgrade", UnattendedUpgrades),
    ("/usr/bin/unattended-upgrades", UnattendedUpgrades),
    ("/usr/bin/yum", Dnf),
];

const CRON: &[&str] = &["/usr/sbin/cron", "/usr/sbin/crond", "/usr/bin/crond", "/usr/sbin/fcron"];
const SSHD: &[&str] = &["/usr/sbin/sshd", "/usr/lib/openssh/sshd-session", "/usr/libexec/openssh/sshd-session"];

/// Interpreters that the scripts above and Ansible's modules are run by, as their files' names begin.
const INTERPRETERS: &[&str] = &["python", "platform-python", "ruby", "perl"];

/// They run wrappers around the scripts above.
const SHELLS: &[&str] = &["sh", "bash", "dash"];

/// Where distributions and vendors install interpreters. One elsewhere may be another root folder's, for which a script's path
/// means another file.
const INTERPRETERS_AT: &[&str] = &[
    "/bin",
    "/opt/chef/embedded/bin",
    "/opt/cinc/embedded/bin",
    "/opt/puppetlabs/puppet/bin",
    "/opt/saltstack/salt/bin",
    "/usr/bin",
    "/usr/libexec",
];

/// What the tools call what they do; the first of these among the arguments names the run.
const VERBS: &[&str] = &[
    "agent",
    "apply",
    "autopurge",
    "autoremove",
    "build",
    "build-dep",
    "dist-upgrade",
    "distro-sync",
    "downgrade",
    "dup",
    "erase",
    "full-upgrade",
    "install",
    "patch",
    "purge",
    "reinstall",
    "remove",
    "safe-upgrade",
    "satisfy",
    "update",
    "upgrade",
];

fn found(list: &[(&str, TransactionKind)], path: &str) -> Option<TransactionKind> {
    list.iter().find(|(known, _)| *known == path).map(|(_, kind)| *kind)
}

pub(super) fn executable(path: &str) -> Option<TransactionKind> {
    found(EXECUTABLES, path)
}

pub(super) fn script(path: &str) -> Option<TransactionKind> {
    found(SCRIPTS, path)
}

/// Whether a script at this path leads runs.
pub fn is_script(path: &str) -> bool {
    script(path).is_some()
}

/// Whether this is an interpreter that is there for all of the host's scripts.
pub(super) fn runs_scripts(exe: &str) -> bool {
    let is_placed = exe.rsplit_once('/').is_some_and(|(folder, _)| INTERPRETERS_AT.contains(&folder));
    is_placed && (is_interpreter(exe) || SHELLS.contains(&base(exe)))
}

pub(super) fn is_cron(path: &str) -> bool {
    CRON.contains(&path)
}

pub(super) fn is_sshd(path: &str) -> bool {
    SSHD.contains(&path)
}

pub(super) fn is_interpreter(path: &str) -> bool {
    INTERPRETERS.iter().any(|name| base(path).starts_with(name))
}

pub(super) fn is_verb(word: &str) -> bool {
    VERBS.contains(&word)
}

/// A build by an engine that also does other things.
pub(super) fn is_build(path: &str, arguments: &[String], maker: Option<&str>) -> bool {
    match path {
        "/usr/bin/podman" => arguments.iter().find(|argument| !argument.starts_with('-')).is_some_and(|verb| verb == "build"),
        // A builder starts the runtime itself, with a bundle of its own; what runs otherwise goes through containerd.
        "/usr/bin/runc" | "/usr/sbin/runc" | "/usr/bin/buildkit-runc" | "/usr/local/bin/buildkit-runc" => {
            maker.is_some_and(|maker| matches!(base(maker), "dockerd" | "buildkitd"))
                && arguments.iter().any(|argument| argument.starts_with('/') && argument.contains("/buildkit/"))
        }
        _ => false,
    }
}

pub(super) fn base(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// The command in `echo BECOME-SUCCESS-<32 letters> ; /usr/bin/python3`: what Ansible has a shell run as another user.
pub(super) fn ansible_become(line: &str) -> Option<&str> {
    let (mark, command) = line.strip_prefix("echo BECOME-SUCCESS-")?.split_once(" ; ")?;
    (mark.len() == 32 && mark.bytes().all(|byte| byte.is_ascii_lowercase())).then_some(command)
}

/// The module in `…/ansible-tmp-…/AnsiballZ_copy.py`: what Ansible copies to a host and runs there.
pub(super) fn ansible_module(path: &str) -> Option<&str> {
    let (folder, file) = path.rsplit_once('/')?;
    let module = file.strip_prefix("AnsiballZ_")?.strip_suffix(".py")?;
    let is_word = !module.is_empty() && module.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.'));
    (is_word && base(folder).starts_with("ansible-tmp-")).then_some(module)
}
