//! One host: its power switch, its network cable, its disk, and the ways into it.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::Child;
use trueline_tests::wait;

use crate::boot_slot::BootSlot;
use crate::cgroup::Cgroup;
use crate::fleet::Run;
use crate::guest;
use crate::image::Image;
use crate::network::{Port, machine};
use crate::root::CachedRoot;
use crate::tool::Call;

const BOOT: &str = include_str!("boot.sh");
/// Goes into the control group $1 and becomes the rest.
const JOIN: &str = r#"echo $$ > "$1"; shift; exec "$@""#;
/// What a host must know that is not on the disk it begins with: $1 its name, $2 its address, $3 the machine's.
const NAME_IT: &str = r#"
echo "$1" > etc/hostname
grep -qs ' machine$' etc/hosts || printf '127.0.0.1 localhost\n%s machine\n' "$3" > etc/hosts
echo "$2 $1" >> etc/hosts
"#;
/// EXT4_IOC_SHUTDOWN with NOLOGFLUSH: from now on nothing reaches the disk, as when the power fails.
const STOP_WRITING: &str = "import fcntl,os,struct,sys; fcntl.ioctl(os.open(sys.argv[1], os.O_RDONLY), 0x8004587d, struct.pack('I', 2))";

const BOOT_LIMIT: Duration = Duration::from_secs(120);
const OFF_LIMIT: Duration = Duration::from_secs(90);
/// For one command on a host: an installation on a busy machine.
const COMMAND_LIMIT: Duration = Duration::from_secs(180);

/// Who logs in. Each may become root by sudo.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Login {
    Root,
    Alice,
    Bob,
}

impl Login {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::Alice => "alice",
            Self::Bob => "bob",
        }
    }
}

#[derive(Debug)]
pub struct Host {
    name: String,
    port: Port,
    cgroup: Cgroup,
    image: Image,
    root: CachedRoot,
    folder: PathBuf,
    /// nspawn's process, while the host is on.
    machine: Option<Child>,
    // Last: what it removes is in use by all before.
    #[expect(dead_code, reason = "held: the run lasts as long as a host of it")]
    run: Arc<Run>,
}

impl Host {
    pub(crate) async fn make(run: Arc<Run>, name: &str, root: CachedRoot, port: Port, cgroup: Cgroup) -> anyhow::Result<Self> {
        let folder = run.folder().join(name);
        std::fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
        let image = Image::copy_of(&root, &folder).await?;
        image.edit(NAME_IT, &[name, &port.address().to_string(), &machine(run.number).to_string()]).await?;
        port.make().await?;
        let ssh = Self::ssh_command(&root.key, Login::Root, port.address());
        std::fs::write(folder.join("ssh"), ssh.join("\n"))?;
        Ok(Self { name: name.to_owned(), port, cgroup, image, root, folder, machine: None, run })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn address(&self) -> Ipv4Addr {
        self.port.address()
    }

    /// For what belongs to the host on this machine.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The private key that its users let in.
    pub fn key(&self) -> &Path {
        &self.root.key
    }

    /// The command line into a host, its last word `USER@ADDRESS`.
    fn ssh_command(key: &Path, login: Login, address: Ipv4Addr) -> Vec<String> {
        let options = [
            "BatchMode=yes",
            "ConnectTimeout=10",
            "LogLevel=ERROR",
            "StrictHostKeyChecking=no",
            "UserKnownHostsFile=/dev/null",
            "IdentitiesOnly=yes",
        ];
        let mut words = vec!["ssh".to_owned(), "-F".to_owned(), "none".to_owned(), "-i".to_owned(), key.display().to_string()];
        words.extend(options.iter().flat_map(|option| ["-o".to_owned(), (*option).to_owned()]));
        words.push(format!("{}@{address}", login.name()));
        words
    }

    /// What another host begins with that is to be a copy of this one.
    pub(crate) fn as_root(&self, snapshot: &str) -> CachedRoot {
        CachedRoot { image: self.image.snapshot_path(snapshot), ..self.root.clone() }
    }

    /// From the switch to every unit started and sshd answering.
    pub async fn boot(&mut self) -> anyhow::Result<()> {
        ensure!(self.machine.is_none(), "{} is on already", self.name);
        let _slot = BootSlot::take().await?;
        self.cgroup.make()?;
        let console = File::options().create(true).append(true).open(self.console())?;
        let mut command = std::process::Command::new("sh");
        command.args(["-euc", JOIN, "join"]).arg(self.cgroup.door());
        command.args(["unshare", "--mount", "--propagation", "private", "sh", "-c", BOOT, "boot"]);
        command.arg(self.image.path()).arg(self.image.mount_point()).arg(&self.name).arg(self.port.namespace());
        command.stdin(Stdio::null()).stdout(console.try_clone()?).stderr(console);
        // Ctrl-C is for the run, whose keeper ends the hosts.
        command.process_group(0);
        let mut command = tokio::process::Command::from(command);
        self.machine = Some(command.kill_on_drop(true).spawn().with_context(|| format!("starting {}", self.name))?);
        self.up().await.with_context(|| format!("{} does not come up; its console:\n{}", self.name, self.console_tail()))
    }

    async fn up(&mut self) -> anyhow::Result<()> {
        let state = wait::until("systemd to have started everything", BOOT_LIMIT, async || {
            if let Some(machine) = &mut self.machine
                && let Some(status) = machine.try_wait()?
            {
                bail!("nspawn ended with {status}");
            }
            if guest::init(&self.cgroup).is_none() {
                return Ok(None);
            }
            let asked = guest::call(&self.cgroup, "systemctl")?.arg("is-system-running").output().await?;
            let state = String::from_utf8_lossy(&asked.stdout).trim().to_owned();
            Ok(["running", "degraded"].contains(&state.as_str()).then_some(state))
        });
        if state.await? == "degraded" {
            bail!("units failed:\n{}", self.root("systemctl --failed --no-pager").await?);
        }
        let sshd = SocketAddr::from((self.address(), 22));
        wait::until("sshd", BOOT_LIMIT, async || Ok(tokio::net::TcpStream::connect(sshd).await.ok().map(drop))).await
    }

    fn console(&self) -> PathBuf {
        self.folder.join("console")
    }

    fn console_tail(&self) -> String {
        let text = String::from_utf8_lossy(&std::fs::read(self.console()).unwrap_or_default()).into_owned();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }

    /// Switched off in order, and its disk let go.
    pub async fn shut_down(&mut self) -> anyhow::Result<()> {
        let machine = self.machine.as_ref().and_then(Child::id).with_context(|| format!("{} is off", self.name))?;
        // Which nspawn passes on to the host's PID 1 as the wish to power off.
        signal(machine, Signal::SIGTERM)?;
        self.off().await
    }

    /// The power fails: what was not synced is lost, nothing is told.
    pub async fn cut_power(&mut self) -> anyhow::Result<()> {
        let init = guest::init(&self.cgroup).with_context(|| format!("{} is off", self.name))?;
        Call::new("python3").args(["-c", STOP_WRITING]).arg(format!("/proc/{init}/root")).run().await?;
        signal(init, Signal::SIGKILL)?;
        self.off().await
    }

    async fn off(&mut self) -> anyhow::Result<()> {
        let mut machine = self.machine.take().with_context(|| format!("{} is off", self.name))?;
        let ended = tokio::time::timeout(OFF_LIMIT, machine.wait()).await;
        ended.with_context(|| format!("{} did not go off within {} s", self.name, OFF_LIMIT.as_secs()))??;
        let is_empty = async || Ok((!self.cgroup.is_populated()).then_some(()));
        wait::until("the host's processes to end", OFF_LIMIT, is_empty).await?;
        self.image.detached().await?;
        let is_removed = async || Ok(self.cgroup.remove().ok());
        wait::until("the host's control groups to be free", OFF_LIMIT, is_removed).await
    }

    pub async fn reboot(&mut self) -> anyhow::Result<()> {
        self.shut_down().await?;
        self.boot().await
    }

    /// Goes off, keeps its disk as it is then under this name, and comes up again.
    pub async fn snapshot(&mut self, name: &str) -> anyhow::Result<()> {
        self.shut_down().await?;
        self.image.snapshot(name).await?;
        self.boot().await
    }

    /// Goes off, and comes up again with the disk that was kept under this name.
    pub async fn set_back(&mut self, name: &str) -> anyhow::Result<()> {
        self.shut_down().await?;
        self.image.restore(name).await?;
        self.boot().await
    }

    /// Every process stands still.
    pub async fn freeze(&self) -> anyhow::Result<()> {
        self.cgroup.freeze()?;
        wait::until("the host to stand still", OFF_LIMIT, async || Ok(self.cgroup.is_frozen().then_some(()))).await
    }

    pub fn thaw(&self) -> anyhow::Result<()> {
        self.cgroup.thaw()
    }

    pub async fn cut_network(&self) -> anyhow::Result<()> {
        self.port.cut().await
    }

    pub async fn restore_network(&self) -> anyhow::Result<()> {
        self.port.restore().await
    }

    /// A command line, as this user after a login over ssh: with PAM, a session and a login uid.
    pub async fn ssh(&self, login: Login, command: &str) -> anyhow::Result<String> {
        let words = Self::ssh_command(&self.root.key, login, self.address());
        let call = Call::new(&words[0]).args(&words[1..]).arg("--").arg(command).within(COMMAND_LIMIT);
        call.run().await.with_context(|| format!("as {} on {}", login.name(), self.name))
    }

    /// A shell script as root, from outside: without login, network or unit, also while the network is cut.
    pub async fn root(&self, script: &str) -> anyhow::Result<String> {
        let call = guest::call(&self.cgroup, "sh")?.args(["-euc", script]).within(COMMAND_LIMIT);
        call.run().await.with_context(|| format!("in {}", self.name))
    }

    /// A file, its folder made where there is none.
    pub async fn write(&self, path: &str, mode: &str, contents: impl Into<Vec<u8>>) -> anyhow::Result<()> {
        let script = r#"mkdir -p "$(dirname "$1")"; umask 077; cat > "$1.new"; chmod "$2" "$1.new"; mv "$1.new" "$1""#;
        let call = guest::call(&self.cgroup, "sh")?.args(["-euc", script, "write", path, mode]).input(contents);
        call.run().await.map(drop).with_context(|| format!("writing {path} on {}", self.name))
    }

    /// A file of this machine.
    pub async fn copy_in(&self, from: &Path, to: &str, mode: &str) -> anyhow::Result<()> {
        let contents = tokio::fs::read(from).await.with_context(|| format!("reading {}", from.display()))?;
        self.write(to, mode, contents).await
    }

    pub async fn read(&self, path: &str) -> anyhow::Result<Vec<u8>> {
        let output = guest::call(&self.cgroup, "cat")?.args(["--", path]).output().await?;
        ensure!(output.status.success(), "reading {path} on {}: {}", self.name, String::from_utf8_lossy(&output.stderr));
        Ok(output.stdout)
    }

    /// Packages of the host's archive, by name.
    pub async fn install(&self, packages: &[&str]) -> anyhow::Result<String> {
        self.root(&format!("DEBIAN_FRONTEND=noninteractive apt-get -q -y install {}", packages.join(" "))).await
    }

    /// What a unit has said since the host was made; all units where none is named.
    pub async fn journal(&self, unit: Option<&str>) -> anyhow::Result<String> {
        let call = guest::call(&self.cgroup, "journalctl")?.args(["--no-pager", "--quiet", "--output=short-precise"]);
        call.args(unit.map(|unit| format!("--unit={unit}"))).run().await
    }

    /// A line of shell that goes on writing until it is stopped: a unit of the host's own, by this name.
    pub async fn keep_running(&self, unit: &str, script: &str) -> anyhow::Result<()> {
        let call = guest::call(&self.cgroup, "systemd-run")?.args(["--quiet", "--collect", "--unit", unit, "sh", "-euc", script]);
        call.run().await.map(drop)
    }

    /// Off for good.
    pub async fn destroy(mut self) -> anyhow::Result<()> {
        if self.machine.is_some() {
            self.cgroup.kill()?;
            self.off().await?;
        }
        std::fs::remove_dir_all(&self.folder).with_context(|| format!("removing {}", self.folder.display()))
    }
}

fn signal(pid: u32, signal: Signal) -> anyhow::Result<()> {
    kill(Pid::from_raw(i32::try_from(pid)?), signal).with_context(|| format!("sending {signal} to {pid}"))
}
