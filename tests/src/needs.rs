//! What a test needs from the machine. A missing part is said by name, straight to standard error
//! where the test harness cannot swallow it; where `TRUELINE_TEST_REQUIRE` is set it is a failure.

use std::io::Write;
use std::path::Path;
use std::process::Command;

/// `true` where the part is there. Otherwise reports the running test as skipped, or fails it.
pub fn need(present: bool, reason: &str) -> bool {
    if present {
        return true;
    }
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    assert!(std::env::var_os("TRUELINE_TEST_REQUIRE").is_none(), "{test} cannot run and must (TRUELINE_TEST_REQUIRE is set): {reason}");
    let line = format!("skipped: {test}: {reason}\n");
    // Not eprintln: the harness captures that of a passing test.
    let _ = std::io::stderr().write_all(line.as_bytes());
    false
}

pub fn root() -> bool {
    need(nix::unistd::geteuid().is_root(), "needs root")
}

/// What a file-system mark with directory handles wants of the process. Whether the file system at hand can name its
/// files to fanotify is not asked: an agent that falls back to inotify there fails the test that wants fanotify.
pub fn fanotify() -> bool {
    root() && need(status_capability(21), "needs CAP_SYS_ADMIN for a fanotify file-system mark")
}

/// A sysctl that can be written.
pub fn sysctl_write(path: &str) -> bool {
    let writable = std::fs::OpenOptions::new().write(true).open(path).is_ok();
    need(writable, &format!("needs {path} to be writable"))
}

pub fn mount() -> bool {
    root() && need(status_capability(21), "needs CAP_SYS_ADMIN to mount a small file system")
}

pub fn postgres() -> bool {
    need(postgres_present(), "needs PostgreSQL's server programs: apt-get install postgresql")
}

/// Where the tests' server looks for its programs, they are.
pub fn postgres_present() -> bool {
    trueline_store::testing::programs().is_ok()
}

/// The daemons and `trueline`, built by the workspace: they are other packages, so a test run of this package alone may lack them.
pub fn daemons() -> bool {
    use crate::binaries::Program;
    let missing = [Program::Agent, Program::Collector, Program::CommandLine].into_iter().find_map(|program| program.path().err());
    need(missing.is_none(), &missing.map(|error| error.to_string()).unwrap_or_default())
}

pub fn inotify() -> bool {
    need(Path::new("/proc/sys/fs/inotify/max_queued_events").exists(), "needs inotify")
}

/// `rpm` and `rpmbuild`, and the place of an rpm host's database.
pub fn rpm() -> bool {
    let runs = |program| Command::new(program).arg("--version").output().is_ok_and(|output| output.status.success());
    need(runs("rpm") && runs("rpmbuild") && Path::new("/var/lib/rpm").is_dir(), "needs rpm and rpmbuild: apt-get install rpm")
}

/// Whether this process has the capability of this number in its effective set (capabilities(7)).
fn status_capability(number: u32) -> bool {
    let Ok(status) = std::fs::read_to_string("/proc/self/status") else { return false };
    let Some(hex) = status.lines().find_map(|line| line.strip_prefix("CapEff:")) else { return false };
    u64::from_str_radix(hex.trim(), 16).is_ok_and(|set| set & (1 << number) != 0)
}
