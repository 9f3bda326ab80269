//! `trueline-agent`: the daemon and what it does alone.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use trueline_agent::alone::watch::Output;
use trueline_agent::alone::{check_coverage, scan, watch};
use trueline_agent::config::Config;
use trueline_agent::enrol::{EnrolRequest, enrol, unsent};
use trueline_agent::identity::Identity;
use trueline_agent::{kernel, run};
use trueline_drift::watch::WatchPolicy;
use trueline_drift::{ItemKind, text};

#[derive(Parser)]
#[command(name = "trueline-agent", version, about = "Watches this host and reports every change with who made it")]
struct Cli {
    /// Configuration file; /etc/trueline/agent.toml where there is one
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Print live changes, each with its actor, without any collector
    Watch(Alone),
    /// Read every item once and print the inventory
    Scan {
        #[command(flatten)]
        alone: Alone,
        /// Threads that read; as configured (`scan_threads`) where not given
        #[arg(long)]
        threads: Option<usize>,
    },
    /// Try each kind of change on a canary and say which sensors see it
    CheckCoverage {
        /// Where to put the canary; a temporary folder by default
        #[arg(long, value_name = "DIR")]
        dir: Option<PathBuf>,
        #[arg(long)]
        json: bool,
    },
    /// Make this host known to a collector
    Enroll {
        /// The collector's enrolment, HOST:9441
        #[arg(long, value_name = "HOST:PORT")]
        collector: String,
        /// A join token: `trueline tokens create --kind join`
        #[arg(long, env = "TRUELINE_JOIN_TOKEN", hide_env_values = true)]
        token: String,
        /// SHA-256 of the collector's CA certificate
        #[arg(long, value_name = "HEX")]
        ca_sha256: String,
        /// Where the link is, if not where the collector says
        #[arg(long, value_name = "HOST:PORT")]
        link: Option<String>,
        #[arg(long, value_name = "DIR")]
        data_dir: Option<PathBuf>,
        /// Give up the present identity although it has records that its collector lacks
        #[arg(long)]
        force: bool,
    },
    /// Watch and stream to the collector, until stopped
    Run {
        #[arg(long, value_name = "DIR")]
        data_dir: Option<PathBuf>,
    },
}

#[derive(Args)]
struct Alone {
    /// Files and folders; the configured watch list without any
    #[arg(value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

impl Alone {
    fn output(&self) -> Output {
        if self.json { Output::JsonLines } else { Output::Text }
    }
}

fn main() -> ExitCode {
    kernel::memory::limit_heaps(2);
    // What it writes is nobody else's.
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o077));
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info,notify=error".into());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .init();
    match act(Cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("trueline-agent: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn act(cli: Cli) -> anyhow::Result<ExitCode> {
    let config = Config::load(cli.config.as_deref())?;
    match cli.command {
        Command::Watch(alone) => {
            let output = alone.output();
            let policy = policy(&config, &alone.paths)?;
            watch::run(policy, config.sensor.into(), output, stop_flag()?)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Scan { alone, threads } => {
            let output = if alone.json { scan::Output::JsonLines } else { scan::Output::Text };
            scan::run(&config.watch, &alone.paths, output, threads.unwrap_or(config.scan_threads))
        }
        Command::CheckCoverage { dir, json } => check_coverage::run(dir, if json { Output::JsonLines } else { Output::Text }),
        Command::Enroll { collector, token, ca_sha256, link, data_dir, force } => {
            let data_dir = data_dir.unwrap_or(config.data_dir);
            let digest = hex::decode(ca_sha256.trim()).ok().and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
            let ca_sha256 = digest.context("--ca-sha256 takes 64 hexadecimal digits: `trueline-collector ca` prints them")?;
            make_data_dir(&data_dir)?;
            part_with_identity(&data_dir, force)?;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let identity = runtime.block_on(enrol(EnrolRequest { collector, token, ca_sha256, data_dir, link }))?;
            println!("enrolled as {}; its link is {}", identity.host, identity.link);
            Ok(ExitCode::SUCCESS)
        }
        Command::Run { data_dir } => {
            let config = Config { data_dir: data_dir.unwrap_or_else(|| config.data_dir.clone()), ..config };
            make_data_dir(&config.data_dir)?;
            let stop = stop_flag()?;
            loop {
                let agent = run::start(config.clone())?;
                while !stop.load(Ordering::Relaxed) && !agent.has_ended() {
                    std::thread::park_timeout(std::time::Duration::from_secs(1));
                }
                let stopped = agent.stop();
                match stopped {
                    _ if stop.load(Ordering::Relaxed) => return Ok(ExitCode::SUCCESS),
                    run::Stopped::StartOver => {}
                    run::Stopped::ForGood => anyhow::bail!("a part of the agent ended by itself; its log says why"),
                }
            }
        }
    }
}

fn policy(config: &Config, paths: &[PathBuf]) -> anyhow::Result<WatchPolicy> {
    use std::os::unix::ffi::OsStrExt;
    if paths.is_empty() {
        return Ok(config.watch.clone());
    }
    let absolute = paths
        .iter()
        .map(|path| {
            let path = std::path::absolute(path).with_context(|| format!("making {} absolute", path.display()))?;
            let printable = text::printable(path.as_os_str().as_bytes());
            path.symlink_metadata()
                .with_context(|| format!("cannot watch `{printable}`; for one to come, watch the folder that it will be in"))?;
            Ok(text::printable(path.as_os_str().as_bytes()).into_owned())
        })
        .collect::<anyhow::Result<_>>()?;
    Ok(WatchPolicy { paths: absolute, kinds: vec![ItemKind::File], ..config.watch.clone() })
}

/// Refuses to become another host while records of the present one are unsent, unless they may be dropped.
fn part_with_identity(data_dir: &std::path::Path, force: bool) -> anyhow::Result<()> {
    let Ok(present) = Identity::load(data_dir) else { return Ok(()) };
    let unsent = unsent(data_dir).context("counting what the present identity has not sent")?;
    anyhow::ensure!(
        unsent == 0 || force,
        "this host is enrolled as {}, and up to {unsent} of its records have not reached the collector: \
         run the agent until they have, or drop them with --force",
        present.host
    );
    if unsent > 0 {
        eprintln!("up to {unsent} records of {} will be dropped; a coverage gap of the new host counts them", present.host);
    }
    Ok(())
}

fn make_data_dir(path: &std::path::Path) -> anyhow::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path).with_context(|| format!("making {}", path.display()))
}

/// A flag that SIGINT and SIGTERM set. The waiting thread ends with the process.
fn stop_flag() -> anyhow::Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&stop);
    let main = std::thread::current();
    let mut signals = nix::sys::signal::SigSet::empty();
    signals.add(nix::sys::signal::Signal::SIGINT);
    signals.add(nix::sys::signal::Signal::SIGTERM);
    // Blocked here, before any other thread exists, so that every thread inherits it.
    signals.thread_block().context("blocking signals")?;
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        if signals.wait().is_ok() {
            flag.store(true, Ordering::Relaxed);
            main.unpark();
        }
    })?;
    Ok(stop)
}
