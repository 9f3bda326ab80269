//! The collector as a service: a real process, with a socket in place of the service manager's.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};
use trueline_store::testing;

/// Guards against a test that would hang; nothing is measured.
const GUARD: Duration = Duration::from_secs(60);
/// Between two looks at something that is awaited.
const BETWEEN: Duration = Duration::from_millis(20);
/// Debian's and Fedora's `nobody`.
const NOBODY: u32 = 65_534;
/// TimeoutStopSec of the unit: what has not ended by then is killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(45);

fn collector() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_trueline-collector"));
    for variable in ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "TRUELINE_DATABASE", "RUST_LOG", "JOURNAL_STREAM"] {
        command.env_remove(variable);
    }
    command.stdin(Stdio::null());
    command
}

/// What a test run of `serve` is given.
fn serving(data_dir: &Path, more: &[&str]) -> Vec<String> {
    let data_dir = data_dir.display().to_string();
    let mut words = vec!["serve", "--announce", "--data-dir", &data_dir];
    for port in ["--listen-agents", "--listen-enrolment", "--listen-rest"] {
        words.extend([port, "127.0.0.1:0"]);
    }
    words.extend(more);
    words.into_iter().map(str::to_owned).collect()
}

/// A collector's process. Dropping it kills it.
struct Process(Child);

impl Process {
    fn ended(&mut self) -> ExitStatus {
        let deadline = Instant::now() + GUARD;
        loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "it did not end");
            std::thread::sleep(BETWEEN);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Its first line, from a thread that ends with what it reads from.
fn first_line(stdout: ChildStdout) -> String {
    let (sender, line) = mpsc::channel();
    std::thread::spawn(move || {
        let mut text = String::new();
        let read = BufReader::new(stdout).read_line(&mut text);
        let _ = sender.send(read.map(|_| text));
    });
    line.recv_timeout(GUARD).expect("it says nothing").unwrap()
}

/// A collector under a service manager that is this test.
struct Service {
    process: Process,
    manager: UnixDatagram,
    heard: Vec<String>,
}

impl Service {
    fn start(folder: &Path, mut command: Command) -> Self {
        let path = folder.join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        manager.set_read_timeout(Some(GUARD)).unwrap();
        let process = Process(command.env("NOTIFY_SOCKET", &path).stdout(Stdio::piped()).spawn().unwrap());
        Self { process, manager, heard: Vec::new() }
    }

    /// Listens until a notification begins like this.
    fn hear(&mut self, beginning: &str) -> String {
        let deadline = Instant::now() + GUARD;
        let mut buffer = [0; 4096];
        loop {
            assert!(Instant::now() < deadline, "no {beginning} among {:?}", self.heard);
            let length = self.manager.recv(&mut buffer).unwrap_or_else(|error| panic!("no {beginning} ({error}) after {:?}", self.heard));
            let text = String::from_utf8(buffer[..length].to_vec()).unwrap();
            self.heard.push(text.clone());
            if text.starts_with(beginning) {
                return text;
            }
        }
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.process.0.id().try_into().unwrap()), signal).unwrap();
    }

    fn ended(&mut self) -> ExitStatus {
        self.process.ended()
    }
}

#[test]
fn it_is_ready_when_it_takes_connections_and_says_what_it_does_and_that_it_stops() {
    let folder = tempfile::tempdir().unwrap();
    let policy = folder.path().join("watch.yaml");
    fs::write(&policy, "version: 1\npaths: [/etc]\n").unwrap();
    let mut command = collector();
    command.args(serving(&folder.path().join("data"), &["--watch-policy", policy.to_str().unwrap()])).env("WATCHDOG_USEC", "800000");
    let mut service = Service::start(folder.path(), command);

    service.hear("READY=1");
    assert_eq!(service.heard[0], "STATUS=opening the database", "{:?}", service.heard);
    let line = first_line(service.process.0.stdout.take().unwrap());
    let announced: serde_json::Value = serde_json::from_str(&line).unwrap();
    for port in ["agents", "enrolment", "rest"] {
        TcpStream::connect(announced[port].as_str().unwrap()).unwrap_or_else(|error| panic!("{port}: {error}"));
    }
    let status = service.hear("STATUS=");
    assert_eq!(status, "STATUS=no hosts yet, 0 connected, 0 changes in the last minute, judged to now");
    for _ in 0..5 {
        service.hear("WATCHDOG=1");
    }

    // A policy with a fault changes nothing and is told; a good one ends the trouble.
    let reload = |service: &mut Service, text: &str| {
        fs::write(&policy, text).unwrap();
        service.signal(Signal::SIGHUP);
        let reloading = service.hear("RELOADING=1");
        assert!(reloading.contains("\nMONOTONIC_USEC="), "{reloading}");
    };
    reload(&mut service, "version: 2\npath: [/etc]\n");
    let fault = service.hear("STATUS=the watch policy stays as it was: ");
    assert!(fault.contains("unknown key `path`: did you mean `paths`?"), "{fault}");
    service.hear("READY=1");
    reload(&mut service, "version: 2\npaths: [/etc/ssh]\n");
    service.hear("READY=1");
    service.hear("STATUS=no hosts yet");

    service.signal(Signal::SIGTERM);
    service.hear("STOPPING=1");
    service.hear("STATUS=stopping");
    assert_eq!(service.ended().code(), Some(0));
}

#[test]
fn what_another_start_does_not_mend_has_an_exit_code_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let bad = folder.path().join("collector.toml");
    fs::write(&bad, "listen_agent = '127.0.0.1:0'\n").unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let data = folder.path().join("data");
    for (more, code) in [
        (&["--config", bad.to_str().unwrap()][..], 78),
        (&["--watch-policy", bad.to_str().unwrap()], 78),
        // Its file system may be mounted later.
        (&["--watch-policy", "/nowhere/watch.yaml"], 1),
        (&["--database", "sqlite:"], 78),
        (&["--listen-rest", "0.0.0.0:0"], 78),
        (&["--listen-agents", &taken], 1),
        (&["--database", "postgres://127.0.0.1:1/none"], 1),
        (&["--heartbeat", "1"], 2),
    ] {
        let mut words = serving(&data, &[]);
        // A flag may stand once.
        if let Some(at) = words.iter().position(|word| *word == more[0]) {
            words.drain(at..at + 2);
        }
        words.extend(more.iter().map(|word| (*word).to_owned()));
        let mut process = Process(collector().args(words).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
        assert_eq!(process.ended().code(), Some(code), "{more:?}");
    }
}

#[test]
fn a_signal_is_heard_while_the_database_answers_nothing() {
    let server = match testing::postgres() {
        Ok(server) => server,
        Err(missing) => return testing::skip("a_signal_is_heard_while_the_database_answers_nothing", missing),
    };
    let folder = tempfile::tempdir().unwrap();
    let policy = folder.path().join("watch.yaml");
    fs::write(&policy, "version: 1\npaths: [/etc]\n").unwrap();
    let proxy = testing::Proxy::start(server).unwrap();
    let mut command = collector();
    let database = proxy.uri(server, "signals");
    command.args(serving(&folder.path().join("data"), &["--watch-policy", policy.to_str().unwrap(), "--database", &database]));
    let mut service = Service::start(folder.path(), command);
    service.hear("READY=1");

    proxy.silence_on(Some("BEGIN"));
    fs::write(&policy, "version: 2\npaths: [/etc]\n").unwrap();
    service.signal(Signal::SIGHUP);
    service.hear("RELOADING=1");
    service.heard.clear();
    let began = Instant::now();
    service.signal(Signal::SIGTERM);
    service.hear("STOPPING=1");
    assert!(!service.heard.iter().any(|said| said.starts_with("READY=1")), "it waited for the reload: {:?}", service.heard);
    assert_eq!(service.ended().code(), Some(0));
    assert!(began.elapsed() < STOP_TIMEOUT, "{:?}", began.elapsed());
    assert!(proxy.silenced() > 0, "the database was not asked");
}

/// Everything beneath a folder, itself too.
fn everything(folder: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::from([folder.to_owned()]);
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        found.extend(if path.is_dir() { everything(&path) } else { BTreeSet::from([path]) });
    }
    found
}

#[test]
fn what_it_makes_is_its_users_alone_whatever_the_umask() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let mut command = Command::new("sh");
    command.args(["-c", "umask 0; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_trueline-collector")]).args(serving(&data, &[]));
    let mut service = Service::start(folder.path(), command);
    service.hear("READY=1");
    let found = everything(&data);
    for path in &found {
        let mode = fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode, if path.is_dir() { 0o700 } else { 0o600 }, "{}: {mode:o}", path.display());
    }
    let names: Vec<&str> = found.iter().filter_map(|path| path.file_name()?.to_str()).collect();
    for name in ["collector.db", "collector.db-wal", "root.key"] {
        assert!(names.contains(&name), "{names:?}");
    }
    service.signal(Signal::SIGTERM);
    assert_eq!(service.ended().code(), Some(0));
}

/// Otherwise the running test is reported as skipped, or fails where `TRUELINE_TEST_REQUIRE` is set.
fn is_root() -> bool {
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    if !geteuid().is_root() {
        assert!(std::env::var_os("TRUELINE_TEST_REQUIRE").is_none(), "{test} cannot run and must: needs root");
        let _ = std::io::stderr().write_all(format!("skipped: {test}: needs root\n").as_bytes());
    }
    geteuid().is_root()
}

#[test]
fn root_leaves_nothing_that_the_services_user_cannot_read() {
    if !is_root() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o711)).unwrap();
    let data = folder.path().join("data");
    fs::create_dir(&data).unwrap();
    std::os::unix::fs::chown(&data, Some(NOBODY), Some(NOBODY)).unwrap();
    let config = folder.path().join("collector.toml");
    fs::write(&config, format!("data_dir = '{}'\n", data.display())).unwrap();
    fs::set_permissions(&config, fs::Permissions::from_mode(0o600)).unwrap();
    for words in [&["ca"][..], &["migrate"], &["token", "--kind", "join", "--name", "web1"]] {
        let output = collector().arg("--config").arg(&config).args(words).output().unwrap();
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    let found = everything(&data);
    assert!(found.contains(&data.join("collector.db")) && found.contains(&data.join("ca/root.key")), "{found:?}");
    for path in found {
        let metadata = fs::metadata(&path).unwrap();
        assert_eq!((metadata.uid(), metadata.gid()), (NOBODY, NOBODY), "{}", path.display());
    }
}
