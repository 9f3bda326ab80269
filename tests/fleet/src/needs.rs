//! What a machine must have for hosts to be made on it; the rest is in `trueline_tests::needs`.

use std::path::Path;

use trueline_tests::needs::{need, root};

use crate::cgroup;
use crate::packages::Packages;

/// Each program with the Debian package that has it.
const PROGRAMS: [(&str, &str); 10] = [
    ("debootstrap", "debootstrap"),
    ("systemd-nspawn", "systemd-container"),
    ("mkfs.ext4", "e2fsprogs"),
    ("ip", "iproute2"),
    ("ssh", "openssh-client"),
    ("ssh-keygen", "openssh-client"),
    ("unshare", "util-linux"),
    ("nsenter", "util-linux"),
    ("python3", "python3"),
    ("apt-ftparchive", "apt-utils"),
];

/// Hosts with systemd as PID 1.
pub fn hosts() -> bool {
    let missing = PROGRAMS.iter().find(|(program, _)| !has(program));
    let program = missing.map_or_else(String::new, |(program, package)| format!("needs {program}: apt-get install {package}"));
    root()
        && need(missing.is_none(), &program)
        && need(Path::new("/dev/loop-control").exists(), "needs loop devices (/dev/loop-control)")
        && need(Path::new("/sys/class/net").exists(), "needs network namespaces and bridges")
        && need(cgroup::is_usable(), "needs control groups of version 2 that can be frozen and killed")
}

/// Ansible, to manage hosts from this machine.
pub fn ansible() -> bool {
    need(has("ansible-playbook"), "needs ansible-playbook: apt-get install ansible-core")
}

/// That the kernel tells of each process, in hosts too: what makes most changes is gone before /proc could be read.
pub fn process_feed() -> bool {
    need(Path::new("/sys/kernel/btf/vmlinux").exists(), "needs a kernel that describes its types (/sys/kernel/btf/vmlinux), for eBPF")
}

fn has(program: &str) -> bool {
    ["/usr/sbin", "/usr/bin", "/sbin", "/bin"].iter().any(|folder| Path::new(folder).join(program).exists())
}

/// The same, and the product's packages to install on them.
pub fn packages() -> Option<Packages> {
    let found = Packages::find();
    let reason = found.as_ref().err().map(|error| format!("{error:#}")).unwrap_or_default();
    if hosts() && need(found.is_ok(), &reason) { found.ok() } else { None }
}
