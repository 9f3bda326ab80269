//! For tests and measurements, behind the feature `testing`, never part of a daemon: hosts that hand in, and
//! a PostgreSQL of a test's own, a fresh cluster in a temporary folder, reached by a Unix socket, with
//! fsync on as in production.
//!
//! The server ends with the process that started it, however that ends: a shell between the two waits
//! for the end of its standard input, which is the test's to hold.

mod proxy;
mod sender;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

pub use proxy::{COMMIT, Proxy};
pub use sender::{Sender, enrol, judgement};

/// Where Debian keeps each version's programs.
const VERSIONS: &str = "/usr/lib/postgresql";
const USER: &str = "postgres";
const START_TIMEOUT: Duration = Duration::from_secs(60);
const KEEPER: &str = r#"folder=$1; shift; "$@" </dev/null >"$folder/log" 2>&1 & server=$!; read -r line; kill -INT "$server"; wait "$server"; rm -rf "$folder""#;

/// Why there is no PostgreSQL to test with.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Missing(String);

/// A running server. Dropping it stops it and removes its files.
pub struct Postgres {
    programs: PathBuf,
    keeper: Child,
    folder: tempfile::TempDir,
    databases: AtomicU32,
}

/// The one server of this process, started at the first call.
pub fn postgres() -> Result<&'static Postgres, &'static Missing> {
    static SERVER: OnceLock<Result<Postgres, Missing>> = OnceLock::new();
    SERVER.get_or_init(Postgres::start).as_ref()
}

/// Reports a test as skipped, past the test harness's capture; fails it where nothing may be missing.
///
/// # Panics
/// Where TRUELINE_TEST_REQUIRE is set.
pub fn skip(test: &str, reason: impl std::fmt::Display) {
    use std::io::Write as _;
    assert!(std::env::var_os("TRUELINE_TEST_REQUIRE").is_none(), "{test} may not be skipped: {reason}");
    let _ = writeln!(std::io::stderr(), "skipped: {test}: {reason}");
}

impl Postgres {
    pub fn start() -> Result<Self, Missing> {
        let programs = programs()?;
        let missing = |what: &'static str| move |error: std::io::Error| Missing(format!("{what}: {error}"));
        let folder = tempfile::Builder::new().prefix("trueline-pg-").tempdir().map_err(missing("no temporary folder"))?;
        let as_root = std::os::unix::fs::MetadataExt::uid(&folder.path().metadata().map_err(missing("no temporary folder"))?) == 0;
        if as_root {
            let (uid, gid) = user_of_server()?;
            std::os::unix::fs::chown(folder.path(), Some(uid), Some(gid)).map_err(missing("cannot give the folder away"))?;
        }
        let data = folder.path().join("data");
        let initdb = as_user(as_root, &programs.join("initdb"))
            .args(["--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync", "--username", USER, "--pgdata"])
            .arg(&data)
            .stdin(Stdio::null())
            .output()
            .map_err(missing("cannot run initdb"))?;
        if !initdb.status.success() {
            return Err(Missing(format!("initdb failed: {}", String::from_utf8_lossy(&initdb.stderr).trim())));
        }
        let server = as_user(as_root, &programs.join("postgres"));
        let keeper = Command::new("sh")
            .args(["-c", KEEPER, "keeper"])
            .arg(folder.path())
            .arg(server.get_program())
            .args(server.get_args())
            .arg("-D")
            .arg(&data)
            .arg("-k")
            .arg(folder.path())
            .args(["-c", "listen_addresses=", "-c", "max_connections=200", "-c", "shared_buffers=256MB", "-c", "max_wal_size=4GB"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(missing("cannot start PostgreSQL"))?;
        let server = Self { programs, keeper, folder, databases: AtomicU32::new(0) };
        server.wait_until_ready()?;
        Ok(server)
    }

    /// The address of a fresh, empty database.
    ///
    /// # Panics
    /// Where the server refuses to make it.
    pub fn uri(&self, name: &str) -> String {
        let number = self.databases.fetch_add(1, Ordering::Relaxed);
        let database = format!("{name}_{number}");
        let made = self.client("createdb").arg(&database).output().expect("createdb lies beside the server");
        assert!(made.status.success(), "createdb {database}: {}", String::from_utf8_lossy(&made.stderr));
        format!("postgres://{USER}@localhost/{database}?host={}", self.folder.path().display())
    }

    /// Of the process that all of the server's descend from, so that their cost can be measured.
    pub fn pid(&self) -> u32 {
        self.keeper.id()
    }

    fn client(&self, program: &str) -> Command {
        let mut command = Command::new(self.programs.join(program));
        command.args(["-U", USER, "-h"]).arg(self.folder.path()).stdin(Stdio::null());
        command
    }

    fn wait_until_ready(&self) -> Result<(), Missing> {
        let began = Instant::now();
        while began.elapsed() < START_TIMEOUT {
            if self.client("pg_isready").args(["-d", USER]).output().is_ok_and(|answer| answer.status.success()) {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let log = std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
        Err(Missing(format!("PostgreSQL did not start: {}", log.trim())))
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        let _ = self.keeper.wait();
    }
}

/// The newest version's programs.
pub fn programs() -> Result<PathBuf, Missing> {
    let newest = std::fs::read_dir(VERSIONS)
        .into_iter()
        .flatten()
        .flatten()
        .map(|version| version.path())
        .filter(|version| version.join("bin/postgres").exists())
        .max_by_key(|version| version.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse::<u32>().ok()));
    newest.map(|version| version.join("bin")).ok_or_else(|| Missing(format!("no PostgreSQL under {VERSIONS} (apt-get install postgresql)")))
}

/// PostgreSQL refuses to run as root.
fn as_user(as_root: bool, program: &Path) -> Command {
    if !as_root {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid", USER, "--regid", USER, "--clear-groups", "--"]).arg(program);
    command
}

fn user_of_server() -> Result<(u32, u32), Missing> {
    let users = std::fs::read_to_string("/etc/passwd").map_err(|error| Missing(format!("/etc/passwd: {error}")))?;
    users
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>())
        .find(|parts| parts.first() == Some(&USER))
        .and_then(|parts| Some((parts.get(2)?.parse().ok()?, parts.get(3)?.parse().ok()?)))
        .ok_or_else(|| Missing(format!("there is no user {USER} to run PostgreSQL as")))
}
