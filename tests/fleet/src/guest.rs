//! Into a running host from outside, past its network: for what no user of it does.

use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};

use anyhow::Context;

use crate::cgroup::Cgroup;
use crate::tool::Call;

/// nsenter(1): every namespace of the process but the user's, and its root.
const ENTER: [&str; 7] = ["--mount", "--uts", "--ipc", "--net", "--pid", "--root", "--wdns=/"];

/// The host's PID 1, as this machine numbers it.
pub fn init(cgroup: &Cgroup) -> Option<u32> {
    cgroup.processes().into_iter().find(|pid| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:")).unwrap_or_default();
        // One number here, one in the host. What is a level deeper is a container of the host's.
        let numbers: Vec<&str> = numbers.split_whitespace().collect();
        numbers.len() == 2 && numbers[1] == "1"
    })
}

/// A program in the host, as its root, without a login: in nobody's session and no unit.
pub fn call(cgroup: &Cgroup, program: &str) -> anyhow::Result<Call> {
    let init = init(cgroup).context("the host is off")?;
    let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    Ok(Call::new("nsenter").arg(format!("--target={init}")).args(ENTER).args(["env", "-i", path, "LC_ALL=C.UTF-8"]).arg(program))
}

/// Whether the host's own file system takes no more writes: ext4 turns so when its disk has refused one.
pub fn is_read_only(cgroup: &Cgroup) -> bool {
    let mounts = init(cgroup).and_then(|init| std::fs::read_to_string(format!("/proc/{init}/mounts")).ok()).unwrap_or_default();
    let mut of_root = mounts.lines().filter_map(|line| line.split(' ').nth(1).zip(line.split(' ').nth(3))).filter(|(on, _)| *on == "/");
    of_root.any(|(_, options)| options.split(',').any(|option| ["ro", "emergency_ro", "shutdown"].contains(&option)))
}

/// The end of the journal, whatever state the host is in. For failures, also in a destructor: it waits.
pub fn journal_tail(cgroup: &Cgroup, lines: usize) -> String {
    let Some(init) = init(cgroup) else { return "(off)".to_owned() };
    let mut command = Command::new("timeout");
    command.args(["10", "nsenter", &format!("--target={init}")]).args(ENTER);
    command.args(["journalctl", "--no-pager", "--quiet", "--output=short-precise", &format!("--lines={lines}")]);
    match command.stdin(Stdio::null()).output() {
        Ok(output) if output.status.success() || output.status.signal().is_some() => String::from_utf8_lossy(&output.stdout).into_owned(),
        Ok(output) => format!("(journalctl: {})", String::from_utf8_lossy(&output.stderr)),
        Err(error) => format!("(journalctl: {error})"),
    }
}
