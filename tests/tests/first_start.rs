//! Becoming known to a real collector as a packaged host does: at the first start, from the environment; and by hand,
//! as root, for a service that runs as a user of its own.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, ensure};
use tokio::process::{Child, Command};
use trueline_tests::binaries::Program;
use trueline_tests::collector::{Collector, Setting};
use trueline_tests::daemon::{self, write};
use trueline_tests::database::{Database, Engine};
use trueline_tests::state::item;
use trueline_tests::{needs, wait};

const LIMIT: Duration = Duration::from_secs(60);
/// Of nobody.
const SERVICE_USER: u32 = 64_242;
/// What the agent's package runs it by.
const UNIT: &str = include_str!("../../systemd/trueline-agent.service");

/// The capabilities that the unit lists under this key, as setpriv(1) writes them.
fn capabilities(key: &str) -> anyhow::Result<String> {
    let values = UNIT.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    let words = values.flat_map(str::split_whitespace).map(|word| Some(format!("+{}", word.strip_prefix("CAP_")?.to_lowercase())));
    let listed: Vec<String> = words.collect::<Option<_>>().with_context(|| format!("{key} holds something else than CAP_…"))?;
    ensure!(!listed.is_empty(), "the unit has no {key}");
    Ok(listed.join(","))
}

/// A host with a folder to watch, and no identity yet.
struct Host {
    folder: tempfile::TempDir,
    config: PathBuf,
}

impl Host {
    fn new() -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let place = folder.path().canonicalize()?;
        // Other users get to what is theirs.
        std::fs::set_permissions(&place, std::fs::Permissions::from_mode(0o755))?;
        std::fs::create_dir(place.join("watched"))?;
        std::fs::create_dir(place.join("data"))?;
        let config = place.join("agent.toml");
        let [data, watched] = ["data", "watched"].map(|name| place.join(name));
        write(&config, format!("data_dir = {data:?}\n[watch]\npaths = [{watched:?}]\nkinds = ['file']\n"))?;
        Ok(Self { folder, config })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().canonicalize().expect("it is there while the test runs").join(name)
    }

    fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(self.path("log")).unwrap_or_default()).into_owned()
    }

    /// The agent as the service's main process; killed when dropped.
    fn run(&self, mut command: Command, variables: &[(&str, &str)]) -> anyhow::Result<Child> {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.path("log"))?;
        command.arg("run").arg("--config").arg(&self.config).envs(variables.iter().copied());
        command.env_remove("RUNTIME_DIRECTORY").env_remove("NOTIFY_SOCKET").stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        command.kill_on_drop(true).spawn().context("starting the agent")
    }

    async fn logged(&self, part: &str) -> anyhow::Result<()> {
        let found = wait::until(part, LIMIT, async || Ok(self.log().contains(part).then_some(()))).await;
        found.with_context(|| format!("the agent's log:\n{}", self.log()))
    }

    /// How the agent ends by itself.
    async fn ended(&self, agent: &mut Child) -> anyhow::Result<Option<i32>> {
        let status = tokio::time::timeout(LIMIT, agent.wait()).await.with_context(|| format!("it goes on; its log:\n{}", self.log()))?;
        Ok(status?.code())
    }
}

fn agent() -> anyhow::Result<Command> {
    Ok(Command::new(Program::Agent.path()?))
}

async fn inventoried(collector: &Collector, host: &Host) -> anyhow::Result<String> {
    let found = wait::until("the one host's inventory", LIMIT, async || {
        let hosts = collector.rest().all("/hosts", &[]).await?;
        ensure!(hosts.len() <= 1, "there are more hosts than one: {hosts:?}");
        Ok(hosts.first().filter(|host| host["inventory_completed_at"].is_string()).and_then(|host| Some(host["id"].as_str()?.to_owned())))
    })
    .await;
    found.with_context(|| format!("the agent's log:\n{}", host.log()))
}

#[tokio::test]
async fn a_host_enrols_itself_at_its_first_start_and_never_again() -> anyhow::Result<()> {
    if !needs::daemons() {
        return Ok(());
    }
    let host = Host::new()?;
    let database = Database::start(Engine::Sqlite, host.folder.path()).await?;
    let mut collector = Collector::start(&database, Setting::default()).await?;
    let (token, enrolment, digest) =
        (collector.join_token(1).await?, collector.enrolment().to_string(), collector.ca_sha256_hex().to_owned());
    let variables = [("TRUELINE_COLLECTOR", enrolment.as_str()), ("TRUELINE_JOIN_TOKEN", &token), ("TRUELINE_CA_SHA256", &digest)];

    // Its collector is not there yet.
    collector.stop().await?;
    let mut first = host.run(agent()?, &variables)?;
    host.logged("this host could not be enrolled yet").await?;
    collector.restart().await?;
    let id = inventoried(&collector, &host).await?;
    first.kill().await?;

    // The token is spent, and nobody asks for it.
    let mut second = host.run(agent()?, &variables)?;
    wait::until("the host to be back", LIMIT, async || Ok((host.log().matches("linked").count() >= 2).then_some(())))
        .await
        .with_context(|| format!("the agent's log:\n{}", host.log()))?;
    ensure!(inventoried(&collector, &host).await? == id, "it became another host");
    second.kill().await?;
    ensure!(!host.log().contains(&token), "the token is in the log");

    // Another host finds it spent: that is for good.
    let late = Host::new()?;
    let mut refused = late.run(agent()?, &variables)?;
    ensure!(late.ended(&mut refused).await? == Some(78), "{}", late.log());
    for part in ["the join token is used up", "trueline tokens create --kind join", "/etc/trueline/enroll.env"] {
        ensure!(late.log().contains(part), "{part} is not in: {}", late.log());
    }
    let other = "ab".repeat(32);
    let mut refused = late.run(agent()?, &[variables[0], variables[1], ("TRUELINE_CA_SHA256", &other)])?;
    ensure!(late.ended(&mut refused).await? == Some(78), "{}", late.log());
    ensure!(late.log().contains("compare TRUELINE_CA_SHA256 in /etc/trueline/enroll.env"), "{}", late.log());
    Ok(())
}

/// Everything beneath a folder, itself included.
fn all_beneath(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = vec![folder.to_owned()];
    if folder.symlink_metadata()?.is_dir() {
        for entry in std::fs::read_dir(folder)? {
            found.extend(all_beneath(&entry?.path())?);
        }
    }
    Ok(found)
}

#[tokio::test]
async fn what_root_enrols_for_the_services_user_is_that_users_who_then_sees_who_does_what() -> anyhow::Result<()> {
    if !needs::daemons() || !needs::fanotify() {
        return Ok(());
    }
    let host = Host::new()?;
    let database = Database::start(Engine::Sqlite, host.folder.path()).await?;
    let collector = Collector::start(&database, Setting::default()).await?;
    let data = host.path("data");
    std::os::unix::fs::chown(&data, Some(SERVICE_USER), Some(SERVICE_USER))?;
    std::fs::set_permissions(&data, std::fs::Permissions::from_mode(0o700))?;
    let (token, enrolment) = (collector.join_token(1).await?, collector.enrolment().to_string());
    let config = host.config.display().to_string();
    let flags = ["enroll", "--config", &config, "--collector", &enrolment, "--token", &token, "--ca-sha256", collector.ca_sha256_hex()];
    daemon::run(Program::Agent, flags).await?;
    let made = all_beneath(&data)?;
    ensure!(made.len() > 3, "little was made: {made:?}");
    for path in made {
        let metadata = path.symlink_metadata()?;
        ensure!((metadata.uid(), metadata.gid()) == (SERVICE_USER, SERVICE_USER), "{} is not the service's", path.display());
        ensure!(metadata.mode() & 0o077 == 0, "{} is for others too", path.display());
    }

    // As the unit runs it: that user with the unit's capabilities, none of which can come back. Its LimitRTPRIO= is left out: a
    // machine may not allow it, and the writer below waits to be looked at.
    let mut service = Command::new("setpriv");
    let (user, granted, bounding) =
        (SERVICE_USER.to_string(), capabilities("AmbientCapabilities")?, capabilities("CapabilityBoundingSet")?);
    service.args(["--reuid", &user, "--regid", &user, "--clear-groups", "--no-new-privs"]);
    service.args(["--inh-caps", &granted, "--ambient-caps", &granted, "--bounding-set", &format!("-all,{bounding}")]);
    service.arg(Program::Agent.path()?);
    let service = host.run(service, &[])?;
    let id = inventoried(&collector, &host).await?;
    let file = host.path("watched").join("file.conf");
    let script = r#"printf x > "$1"; read -r _"#;
    let mut writer = Command::new("sh").args(["-c", script, "sh"]).arg(&file).stdin(Stdio::piped()).kill_on_drop(true).spawn()?;
    let change = wait::until("the change with who made it", LIMIT, async || {
        let changes = collector.rest().all("/changes", &[("host", &id), ("item", &item(&file))]).await?;
        Ok(changes.into_iter().next())
    })
    .await
    .with_context(|| format!("the agent's log:\n{}", host.log()))?;
    let process = &change["actor"]["process"];
    ensure!(process["pid"].as_u64() == writer.id().map(u64::from), "another process is named: {change}");
    // What landlock and the loss of root must not hide.
    ensure!(process["exe"].is_string() && process["cwd"].is_string(), "its program is not known: {change}");
    drop(writer.stdin.take());
    writer.wait().await?;

    // Nobody but root and that user looks into it.
    let pid = service.id().context("it has ended")?;
    let owner = std::fs::metadata(format!("/proc/{pid}/mem"))?.uid();
    ensure!(owner == 0, "its memory is open to its own user");
    let report = daemon::run(Program::Agent, ["status", "--json", "--config", &config]).await?;
    let report: serde_json::Value = serde_json::from_str(&report)?;
    ensure!(report["health"] == "healthy" && report["link"]["state"] == "connected", "{report:#}");
    ensure!(std::fs::metadata(data.join("status.sock"))?.mode() & 0o777 == 0o600, "the socket's mode");
    for path in all_beneath(&data)? {
        ensure!(path.symlink_metadata()?.uid() == SERVICE_USER, "{} is not the service's", path.display());
    }
    Ok(())
}
