//! A PostgreSQL cluster on disks of the test's choice, started again whenever it ends, as systemd does.
//!
//! Invariant: the server ends with this value, and with this process however that ends.

use std::fs::OpenOptions;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, User};
use sqlx::{Connection as _, PgConnection};
use tokio::time::timeout;
use trueline_store::testing::programs;

use crate::wait;

const USER: &str = "postgres";
/// RestartSec of the unit this stands for.
const RESTART_PAUSE: Duration = Duration::from_millis(200);
/// For the server to start, and to use up its log.
const LIMIT: Duration = Duration::from_secs(60);

pub struct Cluster {
    programs: PathBuf,
    /// Sockets and the server's log: never on a disk that is filled.
    folder: tempfile::TempDir,
    supervised: Arc<Supervised>,
    supervisor: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Supervised {
    stopping: AtomicBool,
    starts: AtomicU32,
    server: Mutex<Option<Pid>>,
}

impl Cluster {
    /// A new cluster beneath `disk`, its write-ahead log beneath `wal` where that is given. Both folders
    /// are handed to the server's user. Needs root.
    pub async fn start(disk: &Path, wal: Option<&Path>) -> anyhow::Result<Self> {
        let programs = programs().map_err(|missing| anyhow::anyhow!("{missing}"))?;
        let folder = tempfile::Builder::new().prefix("trueline-cluster-").tempdir()?;
        let user = User::from_name(USER)?.context("there is no user postgres")?;
        for path in [Some(disk), wal, Some(folder.path())].into_iter().flatten() {
            chown(path, Some(user.uid.as_raw()), Some(user.gid.as_raw())).with_context(|| format!("giving {} away", path.display()))?;
        }
        let data = disk.join("cluster");
        let mut initdb = as_server(&programs.join("initdb"));
        // Small segments of the log, so that a small disk holds a few.
        initdb.args(["--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync", "--wal-segsize=1", "--username", USER, "--pgdata"]);
        initdb.arg(&data);
        if let Some(wal) = wal {
            initdb.arg("--waldir").arg(wal.join("wal"));
        }
        let made = initdb.stdin(Stdio::null()).output().context("running initdb")?;
        ensure!(made.status.success(), "initdb failed: {}", String::from_utf8_lossy(&made.stderr));

        let supervised = Arc::new(Supervised::default());
        let mut server = as_server(&programs.join("postgres"));
        server.arg("-D").arg(&data).arg("-k").arg(folder.path());
        server.args(["-c", "listen_addresses=", "-c", "shared_buffers=16MB", "-c", "min_wal_size=2MB", "-c", "max_wal_size=16MB"]);
        let log = folder.path().join("log");
        let supervisor = std::thread::Builder::new().name("cluster".to_owned()).spawn({
            let supervised = Arc::clone(&supervised);
            move || supervised.keep_running(server, &log)
        })?;
        let cluster = Self { programs, folder, supervised, supervisor: Some(supervisor) };
        wait::until("PostgreSQL to start", LIMIT, async || Ok(cluster.is_ready().then_some(())))
            .await
            .with_context(|| format!("its log:\n{}", cluster.log()))?;
        Ok(cluster)
    }

    pub fn uri(&self) -> String {
        format!("postgres://{USER}@localhost/{USER}?host={}", self.folder.path().display())
    }

    /// Uses up the write-ahead log's segments until the server cannot have another and goes down.
    pub async fn exhaust_log(&self, mut between: impl FnMut() -> anyhow::Result<()>) -> anyhow::Result<()> {
        timeout(LIMIT, self.switch_until_it_panics(&mut between)).await.context("the log was not used up in time")?
    }

    async fn switch_until_it_panics(&self, between: &mut impl FnMut() -> anyhow::Result<()>) -> anyhow::Result<()> {
        let mut connection = PgConnection::connect(&self.uri()).await.context("connecting to PostgreSQL")?;
        loop {
            between()?;
            // A record, so that the segment is not empty and the switch takes another.
            let switched = sqlx::raw_sql("SELECT pg_create_restore_point('full'); SELECT pg_switch_wal()").execute(&mut connection).await;
            match switched {
                Ok(_) => {}
                Err(_) if self.log().contains("PANIC") => return Ok(()),
                Err(error) => return Err(error).context("switching the write-ahead log"),
            }
        }
    }

    /// How often the server was started.
    pub fn starts(&self) -> u32 {
        self.supervised.starts.load(Ordering::Relaxed)
    }

    /// What the server logged in all its runs.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(self.folder.path().join("log")).unwrap_or_default()).into_owned()
    }

    fn is_ready(&self) -> bool {
        let mut asking = Command::new(self.programs.join("pg_isready"));
        asking.args(["-U", USER, "-h"]).arg(self.folder.path()).stdin(Stdio::null());
        asking.output().is_ok_and(|answer| answer.status.success())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.supervised.stopping.store(true, Ordering::Relaxed);
        if let Some(server) = *self.supervised.server.lock().unwrap_or_else(PoisonError::into_inner) {
            let _ = kill(server, Signal::SIGQUIT);
        }
        if let Some(supervisor) = self.supervisor.take() {
            let _ = supervisor.join();
        }
        if std::env::var_os("TRUELINE_TEST_LOG").is_some() || std::thread::panicking() {
            eprintln!("--- log of PostgreSQL ---\n{}\n---", self.log());
        }
    }
}

impl Supervised {
    fn keep_running(&self, mut command: Command, log: &Path) {
        loop {
            let mut child = {
                // Held over the look and the start, so that no server starts after the signal to end was sent.
                let mut server = self.server.lock().unwrap_or_else(PoisonError::into_inner);
                if self.stopping.load(Ordering::Relaxed) {
                    return;
                }
                let Ok(output) = OpenOptions::new().create(true).append(true).open(log) else { return };
                let Ok(errors) = output.try_clone() else { return };
                let Ok(child) = command.stdin(Stdio::null()).stdout(output).stderr(errors).spawn() else { return };
                *server = i32::try_from(child.id()).ok().map(Pid::from_raw);
                child
            };
            self.starts.fetch_add(1, Ordering::Relaxed);
            let _ = child.wait();
            *self.server.lock().unwrap_or_else(PoisonError::into_inner) = None;
            std::thread::sleep(RESTART_PAUSE);
        }
    }
}

/// PostgreSQL refuses to run as root. It is killed when the thread that started it ends.
fn as_server(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--reuid", USER, "--regid", USER, "--clear-groups", "--pdeathsig", "KILL", "--"]).arg(program);
    command
}
