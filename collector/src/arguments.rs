//! The collector's command line: its commands, flags and help.
//!
//! In the library, so that manual pages and completions are made from the definitions that the daemon itself reads.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::config::Settings;

/// Takes in the changes of a fleet, judges them against baselines and keeps what follows.
#[derive(Debug, Parser)]
#[command(name = "trueline-collector", version, max_term_width = 100)]
pub struct CommandLine {
    /// Configuration, TOML [default: /etc/trueline/collector.toml where there is one]
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Keeps the CA and the SQLite database [default: /var/lib/trueline-collector]
    #[arg(long, global = true, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// sqlite:PATH or postgres://USER@HOST/NAME [default: collector.db in the data directory]
    #[arg(long, global = true, value_name = "URI", env = "TRUELINE_DATABASE", hide_env_values = true)]
    pub database: Option<String>,
    /// How log lines look on standard error; the journal gets fields instead
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the collector until SIGTERM or SIGINT; SIGHUP reads the watch policy again
    ///
    /// Under systemd it tells the service manager when it serves, what it does and that it lives, and logs to the
    /// journal with fields.
    Serve(Box<ServeFlags>),
    /// Bring the database's schema up to date
    Migrate,
    /// Make a token directly in the database and print it once
    Token(TokenFlags),
    /// Show where the CA's certificate lies and the SHA-256 that agents pin
    Ca,
}

#[derive(Debug, Args)]
pub struct ServeFlags {
    /// Agents' link, mutual TLS [default: 0.0.0.0:9440]
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub listen_agents: Option<SocketAddr>,
    /// Enrolment [default: 0.0.0.0:9441]
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub listen_enrolment: Option<SocketAddr>,
    /// REST and console [default: 127.0.0.1:8089]
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub listen_rest: Option<SocketAddr>,
    /// A DNS name or address under which agents reach this collector; may be repeated
    #[arg(long = "name", value_name = "NAME")]
    pub names: Vec<String>,
    /// host:port of the link as agents should dial it
    #[arg(long, value_name = "HOST:PORT")]
    pub link_address: Option<String>,
    /// Lifetime of agents' certificates [default: 86400]
    #[arg(long, value_name = "SECONDS")]
    pub certificate_seconds: Option<u64>,
    /// Lifetime of the collector's own certificate on the agents' ports [default: 7776000]
    #[arg(long, value_name = "SECONDS")]
    pub server_certificate_seconds: Option<u64>,
    /// Between two signs of life of an agent, 1 to 3600 [default: 10]
    #[arg(long, value_name = "SECONDS")]
    pub heartbeat_seconds: Option<u32>,
    /// PEM certificate chain for REST and console over HTTPS
    #[arg(long, value_name = "FILE", requires = "rest_key")]
    pub rest_certificate: Option<PathBuf>,
    /// PEM private key of that certificate
    #[arg(long, value_name = "FILE", requires = "rest_certificate")]
    pub rest_key: Option<PathBuf>,
    /// What agents watch, YAML, sent to each of them; read again at SIGHUP
    #[arg(long, value_name = "FILE")]
    pub watch_policy: Option<PathBuf>,
    /// Print the bound addresses and the CA's SHA-256 as one line of JSON on standard output
    #[arg(long)]
    pub announce: bool,
}

#[derive(Debug, Args)]
pub struct TokenFlags {
    /// What it is good for
    #[arg(long, value_enum)]
    pub kind: Kind,
    /// Of an API token: viewer reads, operator acknowledges and captures, admin makes tokens and revokes
    #[arg(long, value_enum, default_value_t = RoleName::Viewer)]
    pub role: RoleName,
    /// Who or what it is for
    #[arg(long)]
    pub name: String,
    /// How long it is good for: 90s, 30m, 24h, 7d [default: 24h for join, for ever for api]
    #[arg(long, value_name = "DURATION", value_parser = seconds)]
    pub expires: Option<u64>,
    /// How often it may be used [default: as often as wanted]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub uses: Option<u32>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Kind {
    /// Lets hosts enrol
    Join,
    /// Speaks to the REST API
    Api,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum RoleName {
    Viewer,
    Operator,
    Admin,
}

impl ServeFlags {
    /// What the flags say, over `common`'s data directory and database.
    pub fn settings(self, common: Settings) -> Settings {
        Settings {
            listen_agents: self.listen_agents,
            listen_enrolment: self.listen_enrolment,
            listen_rest: self.listen_rest,
            names: (!self.names.is_empty()).then_some(self.names),
            link_address: self.link_address,
            certificate_seconds: self.certificate_seconds,
            server_certificate_seconds: self.server_certificate_seconds,
            heartbeat_seconds: self.heartbeat_seconds,
            rest_certificate: self.rest_certificate,
            rest_key: self.rest_key,
            watch_policy: self.watch_policy,
            ..common
        }
    }
}

/// `90s`, `30m`, `24h`, `7d`
fn seconds(text: &str) -> Result<u64, String> {
    let wrong = || format!("`{text}` is not a duration: write 90s, 30m, 24h or 7d");
    let unit = match text.chars().last() {
        Some('s') => 1,
        Some('m') => 60,
        Some('h') => 3_600,
        Some('d') => 86_400,
        _ => return Err(wrong()),
    };
    let count: u64 = text[..text.len() - 1].parse().map_err(|_| wrong())?;
    count.checked_mul(unit).filter(|seconds| (1..=3_650 * 86_400).contains(seconds)).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_with_their_unit_and_bounded() {
        assert_eq!(seconds("24h"), Ok(86_400));
        assert_eq!(seconds("7d"), Ok(604_800));
        for wrong in ["", "h", "24", "0s", "-1h", "99999999999999999d", "1µ"] {
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_command_line_is_well_formed() {
        use clap::CommandFactory;
        CommandLine::command().debug_assert();
    }
}
