//! The agent's command line: its commands, flags and help.
//!
//! In the library, so that manual pages and completions are made from the definitions that the daemon itself reads.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use trueline_drift::ItemKind;

use crate::alone::watch::Output;
use crate::process::feed::FeedChoice;

/// Watches this host and reports every change with who made it.
#[derive(Parser)]
#[command(name = "trueline-agent", version, max_term_width = 100)]
pub struct CommandLine {
    /// Configuration, TOML [default: /etc/trueline/agent.toml where there is one]
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Subcommand)]
pub enum Command {
    /// Print live changes, each with its actor, without any collector
    Watch {
        #[command(flatten)]
        alone: Alone,
        /// Learn of processes in this way alone, to see what the others are worth
        #[arg(long, value_name = "FEED", value_enum, default_value_t, hide = true)]
        processes: FeedChoice,
    },
    /// Read every item once and print the inventory
    Scan {
        #[command(flatten)]
        alone: Alone,
        /// Threads that read [default: as configured, scan_threads]
        #[arg(long, value_name = "N")]
        threads: Option<usize>,
        /// Of this kind of item alone, as file or session; may be given again
        #[arg(long, value_name = "KIND", conflicts_with = "paths")]
        kind: Vec<ItemKind>,
    },
    /// Try each kind of change on a canary and say which sensors see it
    CheckCoverage {
        /// Where to put the canary [default: a temporary folder]
        #[arg(long, value_name = "DIR")]
        dir: Option<PathBuf>,
        /// One JSON object a line
        #[arg(long)]
        json: bool,
        /// Make changes in this canary, as the standard input says
        #[arg(long, value_name = "DIR", hide = true)]
        hand: Option<PathBuf>,
    },
    /// Make this host known to a collector
    Enroll {
        /// The collector's enrolment, HOST:9441
        #[arg(long, value_name = "HOST:PORT", env = "TRUELINE_COLLECTOR")]
        collector: String,
        /// A join token: `trueline tokens create --kind join`
        #[arg(long, env = "TRUELINE_JOIN_TOKEN", hide_env_values = true)]
        token: String,
        /// SHA-256 of the collector's CA certificate
        #[arg(long, value_name = "HEX", env = "TRUELINE_CA_SHA256")]
        ca_sha256: String,
        /// Where the link is [default: where the collector says]
        #[arg(long, value_name = "HOST:PORT")]
        link: Option<String>,
        /// Keeps identity, state and spool [default: as configured, /var/lib/trueline-agent]
        #[arg(long, value_name = "DIR")]
        data_dir: Option<PathBuf>,
        /// Give up the present identity although it has records that its collector lacks
        #[arg(long)]
        force: bool,
    },
    /// Watch and stream to the collector, until stopped
    ///
    /// A host that is not enrolled enrols itself first, where TRUELINE_COLLECTOR, TRUELINE_JOIN_TOKEN and TRUELINE_CA_SHA256
    /// are in the environment. SIGHUP reads the configuration again; SIGTERM sends what was seen and ends.
    Run {
        /// Keeps identity, state and spool [default: as configured, /var/lib/trueline-agent]
        #[arg(long, value_name = "DIR")]
        data_dir: Option<PathBuf>,
    },
    /// Say how the agent on this host is doing
    ///
    /// Exit code 0: it runs and nothing troubles it; 1: it does not run, or something does.
    Status {
        /// One JSON document
        #[arg(long)]
        json: bool,
        /// Keeps identity, state and spool [default: as configured, /var/lib/trueline-agent]
        #[arg(long, value_name = "DIR")]
        data_dir: Option<PathBuf>,
    },
}

#[derive(Args)]
pub struct Alone {
    /// Files and folders; the configured watch list without any
    #[arg(value_name = "PATH")]
    pub paths: Vec<PathBuf>,
    /// One JSON object a line
    #[arg(long)]
    pub json: bool,
}

impl Alone {
    pub fn output(&self) -> Output {
        if self.json { Output::JsonLines } else { Output::Text }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_well_formed() {
        CommandLine::command().debug_assert();
    }
}
