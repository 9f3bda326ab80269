//! A daemon as a process of its own: started, paused, ended politely or at once, never left behind.

use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStdout, Command};

use crate::binaries::Program;

/// How long a daemon may take to come up or to end by itself.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running daemon. Dropping it kills it. What it logs goes to a file, which is shown where
/// `TRUELINE_TEST_LOG` is set or a test panics.
#[derive(Debug)]
pub struct Daemon {
    name: &'static str,
    child: Child,
    log: PathBuf,
    lines: Option<tokio::io::Lines<BufReader<ChildStdout>>>,
}

impl Daemon {
    pub fn start<Argument: AsRef<OsStr>>(
        program: Program,
        arguments: impl IntoIterator<Item = Argument>,
        log: &Path,
    ) -> anyhow::Result<Self> {
        let stderr = OpenOptions::new().create(true).append(true).open(log).with_context(|| format!("opening {}", log.display()))?;
        let mut command = Command::new(program.path()?);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::from(stderr)).kill_on_drop(true);
        let mut child = command.spawn().with_context(|| format!("starting {}", program.name()))?;
        let lines = child.stdout.take().map(|stdout| BufReader::new(stdout).lines());
        Ok(Self { name: program.name(), child, log: log.to_owned(), lines })
    }

    /// The next line on its standard output.
    pub async fn line(&mut self) -> anyhow::Result<String> {
        let lines = self.lines.as_mut().context("its standard output is closed")?;
        match tokio::time::timeout(PATIENCE, lines.next_line()).await {
            Ok(Ok(Some(line))) => Ok(line),
            Ok(_) => bail!("{} ended before it said anything; its log:\n{}", self.name, self.log_tail()),
            Err(_) => bail!("{} said nothing for {} s; its log:\n{}", self.name, PATIENCE.as_secs(), self.log_tail()),
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.id().unwrap_or(0)
    }

    /// Fails where the daemon has ended by itself, with what it said last.
    pub fn check_alive(&self) -> anyhow::Result<()> {
        // One that ended and was not waited for is still there, as a zombie.
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap_or_default();
        match stat.rsplit_once(") ") {
            Some((_, rest)) if !rest.starts_with('Z') => Ok(()),
            _ => bail!("{} has ended by itself; its log:\n{}", self.name, self.log_tail()),
        }
    }

    fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let pid = self.child.id().with_context(|| format!("{} has ended", self.name))?;
        kill(Pid::from_raw(i32::try_from(pid)?), signal).with_context(|| format!("sending {signal} to {}", self.name))
    }

    /// SIGKILL: no chance to finish anything.
    pub async fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill().await.with_context(|| format!("killing {}", self.name))
    }

    /// SIGTERM, and waits for it to end by itself.
    pub async fn stop(&mut self) -> anyhow::Result<()> {
        self.signal(Signal::SIGTERM)?;
        match tokio::time::timeout(PATIENCE, self.child.wait()).await {
            Ok(status) => {
                let status = status?;
                if status.success() { Ok(()) } else { bail!("{} ended with {status}; its log:\n{}", self.name, self.log_tail()) }
            }
            Err(_) => bail!("{} did not end within {} s of SIGTERM", self.name, PATIENCE.as_secs()),
        }
    }

    /// Stands still until [`Daemon::resume`].
    pub fn pause(&self) -> anyhow::Result<()> {
        self.signal(Signal::SIGSTOP)
    }

    pub fn resume(&self) -> anyhow::Result<()> {
        self.signal(Signal::SIGCONT)
    }

    /// SIGHUP.
    pub fn hang_up(&self) -> anyhow::Result<()> {
        self.signal(Signal::SIGHUP)
    }

    /// All that it logged, in earlier runs too.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// The end of what it logged.
    pub fn log_tail(&self) -> String {
        let text = self.log();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if std::env::var_os("TRUELINE_TEST_LOG").is_some() || std::thread::panicking() {
            eprintln!("--- log of {} ---\n{}\n---", self.name, self.log_tail());
        }
    }
}

/// Runs a program to its end, which must come soon; what it printed, or an error with all it said.
pub async fn run<Argument: AsRef<OsStr>>(program: Program, arguments: impl IntoIterator<Item = Argument>) -> anyhow::Result<String> {
    let mut command = Command::new(program.path()?);
    let running = command.args(arguments).stdin(Stdio::null()).kill_on_drop(true).output();
    let output = tokio::time::timeout(PATIENCE, running).await.with_context(|| format!("{} did not end by itself", program.name()))??;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        bail!("{} ended with {}: {}{}", program.name(), output.status, text, String::from_utf8_lossy(&output.stderr));
    }
    Ok(text)
}

/// A file written and closed, as an editor would leave it.
pub fn write(path: &Path, contents: impl AsRef<[u8]>) -> anyhow::Result<()> {
    std::io::Write::write_all(&mut File::create(path).with_context(|| format!("creating {}", path.display()))?, contents.as_ref())?;
    Ok(())
}
