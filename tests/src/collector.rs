//! A real `trueline-collector` on loopback ports, with an administrator's token.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Context;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::binaries::Program;
use crate::daemon::{self, Daemon};
use crate::database::Database;
use crate::rest::Rest;

/// What the daemon says when it is ready: one line of JSON.
#[derive(Debug, Clone, Deserialize)]
struct Announcement {
    agents: SocketAddr,
    enrolment: SocketAddr,
    rest: SocketAddr,
    ca_sha256: String,
}

/// What a test may set.
#[derive(Debug, Clone, Default)]
pub struct Setting {
    /// Where the collector keeps its CA; a folder of its own where not given.
    pub data_dir: Option<PathBuf>,
    /// YAML, sent to the agents.
    pub watch_policy: Option<PathBuf>,
    /// Life of the agents' certificates; the collector's own default where not given.
    pub certificate_seconds: Option<u64>,
    /// Life of the collector's own certificate.
    pub server_certificate_seconds: Option<u64>,
    /// Where agents are told that the link is; its own address where not given.
    pub link_address: Option<String>,
    /// REST over HTTPS.
    pub rest_tls: Option<RestTls>,
}

/// PEM files of a certificate that is its own issuer, for 127.0.0.1.
#[derive(Debug, Clone)]
pub struct RestTls {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

#[derive(Debug)]
pub struct Collector {
    daemon: Daemon,
    setting: Setting,
    database: String,
    announcement: Announcement,
    rest: Rest,
    folder: tempfile::TempDir,
}

impl Collector {
    pub async fn start(database: &Database, setting: Setting) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let data_dir = setting.data_dir.clone().unwrap_or_else(|| folder.path().join("collector"));
        let setting = Setting { data_dir: Some(data_dir.clone()), ..setting };
        let mut daemon = Daemon::start(Program::Collector, serving(&setting, database.uri(), None), &folder.path().join("collector.log"))?;
        let announcement = announced(&mut daemon).await?;
        let data_dir = data_dir.display().to_string();
        let token = daemon::run(
            Program::Collector,
            ["token", "--data-dir", &data_dir, "--database", database.uri(), "--kind", "api", "--role", "admin", "--name", "tests"],
        )
        .await?;
        let rest = match &setting.rest_tls {
            None => Rest::new(&format!("http://{}", announcement.rest), token.trim())?,
            Some(tls) => Rest::trusting(&format!("https://{}", announcement.rest), token.trim(), &std::fs::read(&tls.certificate)?)?,
        };
        Ok(Self { daemon, setting, database: database.uri().to_owned(), announcement, rest, folder })
    }

    /// SIGKILL.
    pub async fn kill(&mut self) -> anyhow::Result<()> {
        self.daemon.kill().await
    }

    pub async fn stop(&mut self) -> anyhow::Result<()> {
        self.daemon.stop().await
    }

    /// Again, with the same data and the same ports.
    pub async fn restart(&mut self) -> anyhow::Result<()> {
        let arguments = serving(&self.setting, &self.database, Some(&self.announcement));
        self.daemon = Daemon::start(Program::Collector, arguments, &self.folder.path().join("collector.log"))?;
        announced(&mut self.daemon).await?;
        Ok(())
    }

    /// At its next start it uses another database.
    pub fn use_database(&mut self, database: &Database) {
        database.uri().clone_into(&mut self.database);
    }

    /// At its next start it is set otherwise.
    pub fn set(&mut self, change: impl FnOnce(&mut Setting)) {
        change(&mut self.setting);
    }

    /// SIGHUP: the watch policy is read again.
    pub fn reload(&self) -> anyhow::Result<()> {
        self.daemon.hang_up()
    }

    pub fn pid(&self) -> u32 {
        self.daemon.pid()
    }

    /// Where it keeps its CA.
    pub fn data_dir(&self) -> PathBuf {
        self.setting.data_dir.clone().unwrap_or_else(|| self.folder.path().join("collector"))
    }

    pub fn agents(&self) -> SocketAddr {
        self.announcement.agents
    }

    pub fn enrolment(&self) -> SocketAddr {
        self.announcement.enrolment
    }

    pub fn ca_sha256_hex(&self) -> &str {
        &self.announcement.ca_sha256
    }

    pub fn ca_sha256(&self) -> anyhow::Result<[u8; 32]> {
        let bytes = hex::decode(&self.announcement.ca_sha256).context("the announced CA digest is not hexadecimal")?;
        bytes.try_into().ok().context("the announced CA digest is not 32 bytes")
    }

    pub fn rest(&self) -> &Rest {
        &self.rest
    }

    pub fn log_tail(&self) -> String {
        self.daemon.log_tail()
    }

    /// All that it logged, in earlier runs too.
    pub fn log(&self) -> String {
        self.daemon.log()
    }

    /// Fails where it has ended by itself.
    pub fn check_alive(&self) -> anyhow::Result<()> {
        self.daemon.check_alive()
    }

    pub async fn join_token(&self, uses: usize) -> anyhow::Result<String> {
        let made = self.rest.post("/tokens", &json!({ "kind": "join", "uses": uses })).await?;
        Ok(made["token"].as_str().context("the answer holds no token")?.to_owned())
    }

    /// Captured from the host's present state, everything closed, and the host held against it.
    pub async fn capture_baseline(&self, host: &str, name: &str) -> anyhow::Result<Value> {
        self.rest.post("/baselines/capture", &json!({ "host": host, "name": name, "assign": true })).await
    }

    pub async fn assign_baseline(&self, host: &str, name: &str) -> anyhow::Result<()> {
        self.rest.post(&format!("/hosts/{host}/baseline"), &json!({ "baseline": name })).await.map(drop)
    }

    /// How many changes of the last hour have a verdict.
    pub async fn judged(&self) -> anyhow::Result<u64> {
        let summary = self.rest.get("/summary", &[]).await?;
        Ok(["expected", "out_of_scope", "notable", "critical"].iter().filter_map(|verdict| summary[verdict].as_u64()).sum())
    }
}

async fn announced(daemon: &mut Daemon) -> anyhow::Result<Announcement> {
    let line = daemon.line().await?;
    serde_json::from_str(&line).with_context(|| format!("the collector announced `{line}`"))
}

/// The command line of `serve`: on ports the kernel chooses, or on those of an earlier run.
fn serving(setting: &Setting, database: &str, before: Option<&Announcement>) -> Vec<String> {
    let address = |of: fn(&Announcement) -> SocketAddr| before.map_or_else(|| "127.0.0.1:0".to_owned(), |before| of(before).to_string());
    let mut arguments = vec![
        "serve".to_owned(),
        "--announce".to_owned(),
        // What an agent tells of itself is awaited by tests.
        "--heartbeat-seconds".to_owned(),
        "1".to_owned(),
        "--database".to_owned(),
        database.to_owned(),
        "--listen-agents".to_owned(),
        address(|before| before.agents),
        "--listen-enrolment".to_owned(),
        address(|before| before.enrolment),
        "--listen-rest".to_owned(),
        address(|before| before.rest),
    ];
    let text = |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string());
    let number = |number: Option<u64>| number.map(|number| number.to_string());
    for (flag, value) in [
        ("--data-dir", text(&setting.data_dir)),
        ("--link-address", setting.link_address.clone()),
        ("--watch-policy", text(&setting.watch_policy)),
        ("--certificate-seconds", number(setting.certificate_seconds)),
        ("--server-certificate-seconds", number(setting.server_certificate_seconds)),
        ("--rest-certificate", setting.rest_tls.as_ref().map(|tls| tls.certificate.display().to_string())),
        ("--rest-key", setting.rest_tls.as_ref().map(|tls| tls.key.display().to_string())),
    ] {
        if let Some(value) = value {
            arguments.extend([flag.to_owned(), value]);
        }
    }
    arguments
}
