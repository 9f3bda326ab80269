//! A real `trueline-agent`, enrolled with a real collector.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use serde_json::Value;
use trueline_drift::ItemKind;

use crate::binaries::Program;
use crate::collector::Collector;
use crate::daemon::{self, Daemon};
use crate::wait;

/// What an agent under test watches, and how.
#[derive(Debug, Clone, Default)]
pub struct Watch {
    pub paths: Vec<PathBuf>,
    /// All that the agent knows beside the files.
    pub every_kind: bool,
    /// Sysctls alone beside the files.
    pub sysctls: bool,
    /// inotify in the place of fanotify.
    pub inotify: bool,
    /// Where the agent keeps its state and spool; a folder of its own where not given.
    pub data_dir: Option<PathBuf>,
    /// Bound of the spool in MiB; the agent's own where not given.
    pub spool_mib: Option<u64>,
    /// Bound on background reading; none where not given.
    pub scan_bytes_per_second: Option<u64>,
    /// Between two scheduled scans; the agent's own where not given.
    pub full_scan_seconds: Option<u64>,
    /// Bound on the processor time of scheduled scans; the agent's own where not given.
    pub scan_core_percent: Option<u32>,
}

impl Watch {
    pub fn paths<P: AsRef<Path>>(paths: impl IntoIterator<Item = P>) -> Self {
        Self { paths: paths.into_iter().map(|path| path.as_ref().to_owned()).collect(), ..Self::default() }
    }

    /// The agent's configuration file.
    fn toml(&self, data_dir: &Path) -> String {
        let list = |texts: Vec<String>| texts.iter().map(|text| format!("{text:?}")).collect::<Vec<_>>().join(", ");
        let paths = list(self.paths.iter().map(|path| path.display().to_string()).collect());
        let mut kinds = vec!["file"];
        if self.every_kind {
            kinds = ItemKind::NAMES.to_vec();
        } else if self.sysctls {
            kinds.push("sysctl");
        }
        let kinds = list(kinds.into_iter().map(str::to_owned).collect());
        let mut text = format!("data_dir = {:?}\n", data_dir.display().to_string());
        if self.inotify {
            text.push_str("sensor = \"inotify\"\n");
        }
        if let Some(mebibytes) = self.spool_mib {
            text.push_str(&format!("spool_mib = {mebibytes}\n"));
        }
        text.push_str(&format!("\n[watch]\npaths = [{paths}]\nkinds = [{kinds}]\nexclude = []\n"));
        if let Some(bytes) = self.scan_bytes_per_second {
            text.push_str(&format!("scan_bytes_per_second = {bytes}\n"));
        }
        if let Some(seconds) = self.full_scan_seconds {
            text.push_str(&format!("full_scan_seconds = {seconds}\n"));
        }
        if let Some(percent) = self.scan_core_percent {
            text.push_str(&format!("scan_core_percent = {percent}\n"));
        }
        text
    }
}

#[derive(Debug)]
pub struct Agent {
    daemon: Daemon,
    config: PathBuf,
    host: String,
    folder: tempfile::TempDir,
}

impl Agent {
    /// Enrols this machine as one more host of the collector, and runs the agent.
    pub async fn start(collector: &Collector, watch: &Watch) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let data_dir = watch.data_dir.clone().unwrap_or_else(|| folder.path().join("agent"));
        let config = folder.path().join("agent.toml");
        daemon::write(&config, watch.toml(&data_dir))?;
        let host = enrol(collector, &config, &[]).await?;
        let daemon = run(&config, folder.path())?;
        Ok(Self { daemon, config, host, folder })
    }

    /// The host's identity at the collector.
    pub fn host(&self) -> &str {
        &self.host
    }

    pub fn pid(&self) -> u32 {
        self.daemon.pid()
    }

    pub fn log_tail(&self) -> String {
        self.daemon.log_tail()
    }

    /// All that it logged, in earlier runs too.
    pub fn log(&self) -> String {
        self.daemon.log()
    }

    /// Waits until the collector holds the whole first inventory; the host's identity.
    pub async fn inventoried(&self, collector: &Collector, limit: Duration) -> anyhow::Result<String> {
        wait::until("the first inventory at the collector", limit, async || {
            let host = self.shown(collector).await?;
            Ok(host["inventory_completed_at"].as_str().map(drop))
        })
        .await
        .with_context(|| format!("the agent's log:\n{}", self.log_tail()))?;
        Ok(self.host.clone())
    }

    /// What the collector says of the host. Fails where the agent has ended: nothing will change any more.
    pub async fn shown(&self, collector: &Collector) -> anyhow::Result<Value> {
        self.daemon.check_alive()?;
        collector.rest().get(&format!("/hosts/{}", self.host), &[]).await
    }

    /// Has it read this configuration.
    pub fn reload(&self, configuration: &str) -> anyhow::Result<()> {
        daemon::write(&self.config, configuration)?;
        self.daemon.hang_up()
    }

    /// SIGKILL.
    pub async fn kill(&mut self) -> anyhow::Result<()> {
        self.daemon.kill().await
    }

    pub async fn stop(&mut self) -> anyhow::Result<()> {
        self.daemon.stop().await
    }

    pub fn pause(&self) -> anyhow::Result<()> {
        self.daemon.pause()
    }

    pub fn resume(&self) -> anyhow::Result<()> {
        self.daemon.resume()
    }

    /// Enrols it once more, which makes of it another host from its next start on.
    pub async fn enrol_again(&mut self, collector: &Collector, flags: &[&str]) -> anyhow::Result<()> {
        self.host = enrol(collector, &self.config, flags).await?;
        Ok(())
    }

    /// The agent of another machine whose disk is a copy of this one's: `watch` names the folder with the copied data.
    pub fn of_copied_disk(&self, watch: &Watch) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let data_dir = watch.data_dir.as_ref().context("the copy has a folder of its own")?;
        let config = folder.path().join("agent.toml");
        daemon::write(&config, watch.toml(data_dir))?;
        let daemon = run(&config, folder.path())?;
        Ok(Self { daemon, config, host: self.host.clone(), folder })
    }

    /// Again, with the same state and spool.
    pub fn restart(&mut self) -> anyhow::Result<()> {
        self.daemon = run(&self.config, self.folder.path())?;
        Ok(())
    }
}

/// The host's identity at the collector.
async fn enrol(collector: &Collector, config: &Path, flags: &[&str]) -> anyhow::Result<String> {
    let (config, enrolment) = (config.display().to_string(), collector.enrolment().to_string());
    let token = collector.join_token(1).await?;
    let ca_sha256 = collector.ca_sha256_hex();
    let arguments = ["enroll", "--config", &config, "--collector", &enrolment, "--token", &token, "--ca-sha256", ca_sha256];
    let enrolled = daemon::run(Program::Agent, arguments.iter().chain(flags)).await?;
    let host = enrolled.split_once("enrolled as ").and_then(|(_, rest)| rest.split(';').next());
    Ok(host.with_context(|| format!("`enroll` said: {enrolled}"))?.to_owned())
}

fn run(config: &Path, folder: &Path) -> anyhow::Result<Daemon> {
    Daemon::start(Program::Agent, ["run", "--config", &config.display().to_string()], &folder.join("agent.log"))
}
