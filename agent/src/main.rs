//! `trueline-agent`: the daemon and what it does alone.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use nix::sys::signal::Signal;
use trueline_agent::alone::watch::Output;
use trueline_agent::alone::{check_coverage, scan, watch};
use trueline_agent::arguments::{Command, CommandLine};
use trueline_agent::config::{Config, ConfigError};
use trueline_agent::enrol::{EnrolRequest, Turn, unsent};
use trueline_agent::identity::{Identity, IdentityError};
use trueline_agent::kernel;
use trueline_agent::service::first_start::{self, Invitation};
use trueline_agent::service::{self, Options, ServiceError, Signals};
use trueline_agent::status::report::{Health, Report};
use trueline_agent::status::socket;
use trueline_drift::watch::WatchPolicy;
use trueline_drift::{ItemKind, text};
use trueline_systemd::journal::{self, Destination, Format};
use trueline_systemd::owner::become_owner;

fn main() -> ExitCode {
    kernel::memory::limit_heaps(2);
    // What it writes is nobody else's.
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o077));
    let line = CommandLine::parse();
    // Read by now where the command line takes it; whatever is started from here on must not inherit it.
    let token = kernel::environment::take(first_start::TOKEN).and_then(|token| token.into_string().ok());
    let log = journal::log("info,notify=error", Format::Text);
    match act(line, token) {
        Ok(code) => code,
        Err(error) => {
            match log {
                Destination::Journal => tracing::error!("{error:#}"),
                Destination::StandardError => eprintln!("trueline-agent: {error:#}"),
            }
            error.downcast_ref::<ServiceError>().map_or(ExitCode::FAILURE, |error| ExitCode::from(error.exit_code()))
        }
    }
}

fn act(line: CommandLine, token: Option<String>) -> anyhow::Result<ExitCode> {
    let CommandLine { config: file, command } = line;
    let configured = || Config::load(file.as_deref());
    match command {
        Command::Run { data_dir } => {
            // It reads its configuration more than once.
            service::run(&Options { config: file, data_dir, invitation: Invitation::from_environment(token) })?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Status { json, data_dir } => status(data_dir.map_or_else(|| Ok(configured()?.data_dir), Ok), json),
        Command::Watch { alone, processes } => {
            let output = alone.output();
            let config = configured()?;
            let policy = policy(&config, &alone.paths)?;
            let signals = Signals::catch(&[Signal::SIGINT, Signal::SIGTERM]).context("taking signals")?;
            watch::run(policy, config.redaction, config.sensor.into(), processes, output, signals.stop)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Scan { alone, threads, kind } => {
            let output = if alone.json { scan::Output::JsonLines } else { scan::Output::Text };
            let config = configured()?;
            scan::run(&scan::narrowed(config.watch, kind), config.redaction, &alone.paths, output, threads.unwrap_or(config.scan_threads))
        }
        Command::CheckCoverage { hand: Some(canary), .. } => check_coverage::act(&canary),
        Command::CheckCoverage { dir, json, .. } => check_coverage::run(dir, if json { Output::JsonLines } else { Output::Text }),
        Command::Enroll { collector, token, ca_sha256, link, data_dir, force } => {
            let data_dir = data_dir.map_or_else(|| Ok(configured()?.data_dir), Ok::<_, ConfigError>)?;
            let ca_sha256 = first_start::parse_digest(&ca_sha256)
                .context("--ca-sha256 takes 64 hexadecimal digits: `trueline-collector ca` prints them")?;
            // The service's user must be able to use all that is made there.
            become_owner(&data_dir)?;
            make_data_dir(&data_dir)?;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let turn = runtime.block_on(Turn::wait(&data_dir))?;
            part_with_identity(&data_dir, force)?;
            let request = EnrolRequest { collector, token, ca_sha256, data_dir, link };
            let identity = runtime.block_on(async { turn.ask(request).await?.keep().await })?;
            println!("enrolled as {}; its link is {}", identity.host, identity.link);
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Prints how the agent is doing; what is on disk where it does not run.
fn status(data_dir: Result<PathBuf, ConfigError>, json: bool) -> anyhow::Result<ExitCode> {
    // With a configuration that cannot be read there is still the service to be asked.
    let running = socket::ask(data_dir.as_deref().ok()).context("asking the agent (root and its own user may)")?;
    let report = match (running, data_dir) {
        (Some(report), _) => report,
        (None, data_dir) => at_rest(&data_dir?)?,
    };
    let text = if json { serde_json::to_string_pretty(&report)? + "\n" } else { shown(&report) };
    match std::io::stdout().write_all(text.as_bytes()) {
        // Whoever reads it has read enough.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {}
        written => written.context("writing the status")?,
    }
    Ok(if report.health == Health::Healthy { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// For a terminal that is perhaps root's: what the agent says is its own, and may hold what others wrote.
fn shown(report: &Report) -> String {
    // A backslash is one already, or stands for what was made printable before.
    let printable = |line: &str| line.split('\\').map(|part| text::printable(part.as_bytes())).collect::<Vec<_>>().join("\\");
    report.to_string().lines().map(|line| printable(line) + "\n").collect()
}

/// An agent that does not run: who it is, and what to do next.
fn at_rest(data_dir: &Path) -> anyhow::Result<Report> {
    let identity = match Identity::load(data_dir) {
        Ok(identity) => Some(identity),
        Err(IdentityError::NotEnrolled { .. }) => None,
        Err(error) => return Err(error.into()),
    };
    let advice = match &identity {
        None => {
            "enrol this host: /etc/trueline/enroll.env and `systemctl start trueline-agent`, or `trueline-agent enroll` by hand".to_owned()
        }
        Some(identity) if identity.valid_until <= trueline_agent::clock::now() => {
            "its certificate has expired: enrol it again with `trueline-agent enroll`, then `systemctl start trueline-agent`".to_owned()
        }
        Some(_) => "`systemctl start trueline-agent`; why it ended: `journalctl -u trueline-agent`".to_owned(),
    };
    Ok(Report { advice: Some(advice), ..Report::of_disk(data_dir, identity.as_ref()) })
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
fn part_with_identity(data_dir: &Path, force: bool) -> anyhow::Result<()> {
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

fn make_data_dir(path: &Path) -> anyhow::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path).with_context(|| format!("making {}", path.display()))
}
