//! Enrolments that are broken off half way, by the disk or the network, with a real collector: however often it is tried,
//! there is one host in the end and one use of the token is spent.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use trueline_tests::binaries::Program;
use trueline_tests::bounded_disk::BoundedDisk;
use trueline_tests::collector::{Collector, Setting};
use trueline_tests::daemon::write;
use trueline_tests::database::{Database, Engine};
use trueline_tests::{needs, wait};

const LIMIT: Duration = Duration::from_secs(60);
const REFUSED: &str = "this host could not be enrolled yet";

/// A host with nothing to watch, whose agent enrols itself.
struct Host {
    folder: tempfile::TempDir,
    config: PathBuf,
    data: PathBuf,
}

impl Host {
    fn new(data: Option<&Path>) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let (config, watched) = (folder.path().join("agent.toml"), folder.path().join("watched"));
        std::fs::create_dir(&watched)?;
        let data = data.map_or_else(|| folder.path().join("data"), Path::to_owned);
        write(&config, format!("data_dir = {data:?}\nsensor = 'inotify'\n[watch]\npaths = [{watched:?}]\nkinds = ['file']\n"))?;
        Ok(Self { folder, config, data })
    }

    /// Killed when dropped.
    fn run(&self, collector: &Collector, enrolment: SocketAddr, token: &str) -> anyhow::Result<Child> {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.folder.path().join("log"))?;
        let mut command = Command::new(Program::Agent.path()?);
        command.arg("run").arg("--config").arg(&self.config).env_remove("RUNTIME_DIRECTORY").env_remove("NOTIFY_SOCKET");
        command.env("TRUELINE_COLLECTOR", enrolment.to_string()).env("TRUELINE_JOIN_TOKEN", token);
        command.env("TRUELINE_CA_SHA256", collector.ca_sha256_hex());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).kill_on_drop(true);
        command.spawn().context("starting the agent")
    }

    fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(self.folder.path().join("log")).unwrap_or_default()).into_owned()
    }

    async fn logged(&self, part: &str, times: usize) -> anyhow::Result<()> {
        let found = wait::until(part, LIMIT, async || Ok((self.log().matches(part).count() >= times).then_some(()))).await;
        found.with_context(|| format!("the agent's log:\n{}", self.log()))
    }
}

async fn hosts(collector: &Collector) -> anyhow::Result<Vec<Value>> {
    collector.rest().all("/hosts", &[]).await
}

/// Passes connections on; of those that begin while it is to, the collector's answer is kept from the agent: all that comes
/// after the handshake.
struct Proxy {
    at: SocketAddr,
    loses: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Proxy {
    async fn start(to: SocketAddr) -> anyhow::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let at = listener.local_addr()?;
        let (loses, now) = watch::channel(true);
        let task = tokio::spawn(async move {
            while let Ok((agent, _)) = listener.accept().await {
                if let Ok(collector) = TcpStream::connect(to).await {
                    tokio::spawn(pass(agent, collector, now.clone()));
                }
            }
        });
        Ok(Self { at, loses, task })
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The connection breaks once nothing is to be lost any more.
async fn pass(mut agent: TcpStream, mut collector: TcpStream, mut losing: watch::Receiver<bool>) -> std::io::Result<()> {
    let is_losing = *losing.borrow_and_update();
    let (mut of_agent, mut of_collector) = ([0; 16 * 1024], [0; 16 * 1024]);
    // The agent says nothing of its own before it has the whole of the collector's part of the handshake.
    let (mut has_answered, mut is_over) = (false, false);
    loop {
        tokio::select! {
            read = agent.read(&mut of_agent) => match read? {
                0 => return Ok(()),
                read => {
                    is_over |= has_answered;
                    collector.write_all(&of_agent[..read]).await?;
                }
            },
            read = collector.read(&mut of_collector) => match read? {
                0 => return Ok(()),
                read => {
                    has_answered = true;
                    if !is_losing || !is_over {
                        agent.write_all(&of_collector[..read]).await?;
                    }
                }
            },
            _ = losing.changed(), if is_losing => return Ok(()),
        }
    }
}

#[tokio::test]
async fn an_answer_that_is_lost_costs_no_second_use_of_the_token() -> anyhow::Result<()> {
    if !needs::daemons() {
        return Ok(());
    }
    let host = Host::new(None)?;
    let database = Database::start(Engine::Sqlite, host.folder.path()).await?;
    let collector = Collector::start(&database, Setting::default()).await?;
    let token = collector.join_token(1).await?;
    let proxy = Proxy::start(collector.enrolment()).await?;
    let _agent = host.run(&collector, proxy.at, &token)?;
    let known = wait::until("the collector to have let it in", LIMIT, async || Ok(hosts(&collector).await?.into_iter().next())).await?;
    ensure!(!host.log().contains("linked") && !host.data.join("identity/membership.json").exists(), "its answer came:\n{}", host.log());
    proxy.loses.send_replace(false);
    host.logged("linked", 1).await?;
    let found = hosts(&collector).await?;
    ensure!(found.len() == 1 && found[0]["id"] == known["id"], "there are more hosts than one: {found:?}");
    ensure!(host.log().contains(REFUSED), "{}", host.log());
    ensure!(!host.data.join("identity/pending.pem").exists(), "the key of the enrolment was left behind");
    Ok(())
}

#[tokio::test]
async fn a_full_disk_makes_no_host_before_the_key_is_kept_and_one_after() -> anyhow::Result<()> {
    if !needs::daemons() || !needs::mount() {
        return Ok(());
    }
    let disk = BoundedDisk::mount(8)?;
    let host = Host::new(Some(disk.path()))?;
    let database = Database::start(Engine::Sqlite, host.folder.path()).await?;
    let collector = Collector::start(&database, Setting::default()).await?;
    let token = collector.join_token(20).await?;
    let filling = disk.fill()?;
    let _agent = host.run(&collector, collector.enrolment(), &token)?;
    host.logged(REFUSED, 2).await?;
    ensure!(hosts(&collector).await?.is_empty(), "it asked with a key that it could not keep");

    // Room for the key, and for a part of the identity.
    let full = std::fs::OpenOptions::new().write(true).open(disk.path().join("filling"))?;
    full.set_len(full.metadata()?.len() - 2 * 4096)?;
    let known = wait::until("the collector to have let it in", LIMIT, async || Ok(hosts(&collector).await?.into_iter().next())).await?;
    let tries = host.log().matches(REFUSED).count();
    host.logged(REFUSED, tries + 2).await?;
    ensure!(!host.data.join("identity/membership.json").exists(), "the disk was not full:\n{}", host.log());
    drop((full, filling));
    host.logged("linked", 1).await?;
    let found = hosts(&collector).await?;
    ensure!(found.len() == 1 && found[0]["id"] == known["id"], "there are more hosts than one: {found:?}");
    let tokens = collector.rest().all("/tokens", &[]).await?;
    let left = tokens.iter().find(|token| token["kind"] == "join").map(|token| &token["uses_left"]);
    ensure!(left == Some(&Value::from(19)), "{tokens:?}");
    Ok(())
}

#[tokio::test]
async fn a_link_that_is_no_address_is_neither_kept_nor_shown() -> anyhow::Result<()> {
    if !needs::daemons() {
        return Ok(());
    }
    let host = Host::new(None)?;
    let database = Database::start(Engine::Sqlite, host.folder.path()).await?;
    let setting = Setting { link_address: Some("c:9440\u{1b}]0;x\u{7}".to_owned()), ..Setting::default() };
    let collector = Collector::start(&database, setting).await?;
    let (token, enrolment) = (collector.join_token(1).await?, collector.enrolment().to_string());
    let mut enroll = Command::new(Program::Agent.path()?);
    enroll.arg("enroll").arg("--config").arg(&host.config).args(["--collector", &enrolment, "--token", &token]);
    let output = enroll.args(["--ca-sha256", collector.ca_sha256_hex()]).stdin(Stdio::null()).output().await?;
    let said = [output.stdout, output.stderr].concat();
    ensure!(!output.status.success(), "it was taken: {said:?}");
    let said = String::from_utf8(said)?;
    ensure!(said.contains("is not an address: write HOST:PORT") && !said.contains(['\u{1b}', '\u{7}']), "{said:?}");
    ensure!(!host.data.join("identity/membership.json").exists(), "it was kept");
    Ok(())
}
