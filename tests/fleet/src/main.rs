//! `fleet`: hosts for people. The same hosts as the tests have, to look around on.

use std::os::unix::process::CommandExt;
use std::path::Path;

use anyhow::{Context, bail};
use clap::{Parser, Subcommand};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use trueline_fleet::claim::{Claim, RunNumber};
use trueline_fleet::fleet::Fleet;
use trueline_fleet::host::Host;
use trueline_fleet::packages::Packages;
use trueline_fleet::root::{self, Root};
use trueline_fleet::{keeper, teardown};
use trueline_tests::wait;

#[derive(Parser)]
#[command(name = "fleet", about = "Real Debian hosts on this machine: made in seconds, gone with this program")]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make and boot hosts, and keep them until this program ends
    Up {
        /// How many besides the collector's
        #[arg(default_value_t = 1, value_parser = clap::value_parser!(u8).range(0..=16))]
        hosts: u8,
        /// One more, with PostgreSQL
        #[arg(long)]
        collector: bool,
        /// Offer the packages of `packaging/build` to apt on each host
        #[arg(long)]
        packages: bool,
    },
    /// Log in to a host of a run: as root unless USER@ says otherwise
    Ssh {
        /// As `fleet up` named it
        #[arg(value_name = "[USER@]HOST")]
        host: String,
        command: Vec<String>,
        /// Of this run, where several have a host of the name
        #[arg(long)]
        run: Option<u8>,
    },
    /// End a run that `fleet up` of this checkout made, or all of them
    Down { run: Option<u8> },
    /// Remove what killed runs left
    Clean {
        /// And the cached Debian roots
        #[arg(long)]
        cache: bool,
    },
    /// Wait for the end of a run and remove it
    #[command(name = keeper::SUBCOMMAND, hide = true)]
    Keep { run: String },
}

fn main() -> anyhow::Result<()> {
    match CommandLine::parse().command {
        Command::Keep { run } => keeper::keep(RunNumber::parse(&run)?),
        Command::Clean { cache } => clean(cache),
        Command::Ssh { host, command, run } => ssh(&host, &command, run),
        Command::Down { run } => block_on(down(run)),
        Command::Up { hosts, collector, packages } => block_on(up(hosts, collector, packages)),
    }
}

fn block_on(work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(Box::pin(work))
}

async fn up(hosts: u8, collector: bool, packages: bool) -> anyhow::Result<()> {
    if !trueline_fleet::needs::hosts() {
        bail!("hosts cannot be made here");
    }
    let packages = if packages { Some(Packages::find()?) } else { None };
    let collector = collector.then(|| ("collector".to_owned(), Root::Collector));
    let plain = (1..=hosts).map(|number| (format!("host-{number}"), Root::Plain));
    let hosts: Vec<(String, Root)> = collector.into_iter().chain(plain).collect();
    let fleet = Fleet::create(&hosts.iter().map(|(_, root)| *root).collect::<Vec<_>>()).await?;
    let mut running: Vec<Host> = Vec::new();
    for (name, root) in hosts {
        let host = fleet.running(&name, root).await?;
        if let Some(packages) = &packages {
            packages.publish(&host).await?;
        }
        println!("{name}  {}  fleet ssh {name}", host.address());
        running.push(host);
    }
    println!("run {}: Ctrl-C or `fleet down {0}` ends it", fleet.number());
    // Whatever ends this process, the keeper sees it.
    std::future::pending().await
}

fn ssh(host: &str, command: &[String], run: Option<u8>) -> anyhow::Result<()> {
    let (user, name) = host.split_once('@').unwrap_or(("root", host));
    for number in Claim::held()?.into_iter().filter(|number| run.is_none_or(|run| run == number.as_u8())) {
        let file = root::folder()?.join("runs").join(number.to_string()).join(name).join("ssh");
        let Ok(text) = std::fs::read_to_string(&file) else { continue };
        let mut words: Vec<String> = text.lines().map(str::to_owned).collect();
        let place = words.pop().context("the host's file is empty")?;
        let address = place.rsplit('@').next().unwrap_or(&place);
        let failed =
            std::process::Command::new(&words[0]).args(&words[1..]).arg(format!("{user}@{address}")).arg("--").args(command).exec();
        return Err(failed).context("starting ssh");
    }
    bail!("no host `{name}` runs: `fleet up` makes some")
}

async fn down(run: Option<u8>) -> anyhow::Result<()> {
    let own = root::folder()?;
    let is_own = |number: &RunNumber| number.reservation().is_some_and(|(folder, _)| folder.starts_with(&own));
    let wanted = |number: &RunNumber| run.is_none_or(|run| run == number.as_u8());
    let numbers: Vec<RunNumber> = Claim::held()?.into_iter().filter(|number| wanted(number) && is_own(number)).collect();
    if let (Some(run), []) = (run, &numbers[..]) {
        bail!("no run {run} of this checkout is there");
    }
    for number in numbers {
        let owner = number.owner()?;
        // By the time it is read the number of a dead run's process may be anybody's.
        if is_up(owner) {
            kill(Pid::from_raw(owner), Signal::SIGTERM).with_context(|| format!("ending process {owner}"))?;
        } else if Path::new("/proc").join(owner.to_string()).exists() {
            println!("run {number} is process {owner}'s, which is no `fleet up`: it ends with that");
            continue;
        }
        let is_gone = async || Ok((!number.is_known()).then_some(()));
        wait::until("the run to be removed", std::time::Duration::from_secs(60), is_gone).await?;
        println!("run {number} is removed");
    }
    Ok(())
}

/// Whether this process is a `fleet up`.
fn is_up(pid: i32) -> bool {
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let mut words = line.split(|byte| *byte == 0);
    words.next().is_some_and(|program| program.ends_with(b"fleet")) && words.next() == Some(b"up")
}

fn clean(cache: bool) -> anyhow::Result<()> {
    println!("{} runs removed", teardown::remove_abandoned()?);
    let folder = root::folder()?.join("cache");
    if cache && folder.exists() {
        std::fs::remove_dir_all(&folder).with_context(|| format!("removing {}", folder.display()))?;
    }
    Ok(())
}
