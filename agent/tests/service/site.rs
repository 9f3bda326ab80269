//! A host for the agent under test, and the service manager's end of what it tells.

use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, PKCS_ECDSA_P256_SHA256};
use serde_json::Value;

pub const AGENT: &str = env!("CARGO_BIN_EXE_trueline-agent");
/// Ends a test that would hang, and decides nothing else.
pub const PATIENCE: Duration = Duration::from_secs(60);
pub const HOST: &str = "01000000-0000-7000-8000-000000000000";

/// Whether a part that the running test needs is there; said by name where not.
pub fn need(present: bool, reason: &str) -> bool {
    assert!(present || std::env::var_os("TRUELINE_TEST_REQUIRE").is_none(), "{reason}");
    if !present {
        eprintln!("skipped: {}: {reason}", std::thread::current().name().unwrap_or("a test"));
    }
    present
}

pub fn is_root() -> bool {
    need(nix::unistd::geteuid().is_root(), "needs root")
}

/// A host with folders to watch, enrolled or not, and the service manager's end of its notifications.
pub struct Site {
    folder: tempfile::TempDir,
    pub manager: UnixDatagram,
}

impl Site {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in ["watched", "other", "data", "run"] {
            std::fs::create_dir(folder.path().join(name)).unwrap();
        }
        let manager = UnixDatagram::bind(folder.path().join("notify")).unwrap();
        manager.set_read_timeout(Some(PATIENCE)).unwrap();
        let site = Self { folder, manager };
        std::fs::write(site.path("watched/file.conf"), "one").unwrap();
        site.configure("");
        site
    }

    /// With an identity whose collector nobody reaches.
    pub fn enrolled() -> Self {
        let site = Self::new();
        site.enrol("127.0.0.1:1");
        site
    }

    /// Gives it an identity with its collector's link there, as somebody does by hand.
    pub fn enrol(&self, link: &str) {
        let identity = self.path("data/identity");
        std::fs::create_dir_all(&identity).unwrap();
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, HOST);
        let certificate = params.self_signed(&key).unwrap().pem();
        std::fs::write(identity.join("ca.pem"), &certificate).unwrap();
        std::fs::write(identity.join("host.pem"), key.serialize_pem() + &certificate).unwrap();
        std::fs::write(identity.join("membership.json"), format!("{{\"host\":\"{HOST}\",\"link\":\"{link}\"}}")).unwrap();
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().canonicalize().unwrap().join(name)
    }

    /// Its configuration: the folder `watched`, and these lines before that.
    pub fn configure(&self, lines: &str) {
        let (data, watched) = (self.path("data"), self.path("watched"));
        self.write_config(&format!("data_dir = {data:?}\nsensor = 'inotify'\n{lines}\n[watch]\npaths = [{watched:?}]\nkinds = ['file']\n"));
    }

    pub fn write_config(&self, text: &str) {
        std::fs::write(self.path("agent.toml"), text).unwrap();
    }

    pub fn command(&self, subcommand: &str) -> Command {
        self.prepared(Command::new(AGENT), subcommand)
    }

    /// `program` is the agent's, or becomes it with the arguments that follow.
    pub fn prepared(&self, mut command: Command, subcommand: &str) -> Command {
        command.arg(subcommand).arg("--config").arg(self.path("agent.toml")).stdin(Stdio::null()).stdout(Stdio::piped());
        for variable in
            ["TRUELINE_COLLECTOR", "TRUELINE_JOIN_TOKEN", "TRUELINE_CA_SHA256", "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"]
        {
            command.env_remove(variable);
        }
        command.env("RUNTIME_DIRECTORY", self.path("run"));
        command
    }

    pub fn run(&self, variables: &[(&str, &str)]) -> Agent {
        let mut command = self.command("run");
        command.envs(variables.iter().copied());
        self.spawn(command)
    }

    /// As [`Self::run`], from a command that becomes the agent.
    pub fn spawn(&self, mut command: Command) -> Agent {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.path("log")).unwrap();
        let child = command.env("NOTIFY_SOCKET", self.path("notify")).stderr(log).spawn().unwrap();
        Agent { child, log: self.path("log") }
    }

    /// The next notification that begins like this; those before it are passed over.
    pub fn notified(&self, beginning: &str) -> String {
        self.notified_where(beginning, |text| text.starts_with(beginning))
    }

    pub fn notified_where(&self, what: &str, is_it: impl Fn(&str) -> bool) -> String {
        let deadline = Instant::now() + PATIENCE;
        let mut passed = Vec::new();
        let mut buffer = [0; 4096];
        while Instant::now() < deadline {
            let Ok(length) = self.manager.recv(&mut buffer) else { break };
            let text = String::from_utf8(buffer[..length].to_vec()).unwrap();
            if is_it(&text) {
                return text;
            }
            passed.push(text);
        }
        let log = std::fs::read_to_string(self.path("log")).unwrap_or_default();
        panic!("the manager was never told: {what}; it was told {passed:#?}; the agent's log:\n{log}")
    }

    /// What `status` says, and whether it calls the agent healthy.
    pub fn status(&self) -> (Value, bool) {
        let output = self.command("status").arg("--json").output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let report = serde_json::from_str(&text).unwrap_or_else(|_| panic!("{text}{}", String::from_utf8_lossy(&output.stderr)));
        (report, output.status.success())
    }

    pub fn status_where(&self, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
        let began = Instant::now();
        loop {
            let (report, _) = self.status();
            if holds(&report) {
                return report;
            }
            assert!(began.elapsed() < PATIENCE, "waited in vain: {what}; the last status: {report:#}");
            std::thread::yield_now();
        }
    }
}

/// A running agent; killed when dropped.
pub struct Agent {
    child: Child,
    log: PathBuf,
}

impl Agent {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), signal).unwrap();
    }

    pub fn end(&mut self) -> ExitStatus {
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(began.elapsed() < PATIENCE, "the agent did not end; its log:\n{}", self.log());
            std::thread::yield_now();
        }
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    /// The value of a field of /proc/PID/task/TID/status, by the thread's name.
    pub fn threads(&self, field: &str) -> Vec<(String, String)> {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap();
        let statuses = tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("status")).ok());
        let value = |status: &str, name: &str| {
            status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap_or_default().trim().to_owned()
        };
        statuses.map(|status| (value(&status, "Name"), value(&status, field))).collect()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn names(report: &Value) -> String {
    report["troubles"].as_array().unwrap().iter().map(|trouble| trouble.as_str().unwrap()).collect::<Vec<_>>().join("; ")
}
