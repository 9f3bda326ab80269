//! The collector's daemon and what must work before its REST API does: migration, first tokens, the CA.

use std::io::IsTerminal;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Parser, Subcommand, ValueEnum};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;
use trueline_collector::ca::CertificateAuthority;
use trueline_collector::config::{Config, ConfigError, Settings};
use trueline_collector::hub::now;
use trueline_collector::serve::{Serving, create_data_dir, serve};
use trueline_collector::token::TokenText;
use trueline_drift::TenantId;
use trueline_store::{NewAction, NewToken, Role, TokenKind};

/// Records are decoded on one thread and freed on another, many small values each: with the C library's allocator that
/// is half of the collector's processor time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Takes in the changes of a fleet, judges them against baselines and keeps what follows.
#[derive(Debug, Parser)]
#[command(name = "trueline-collector", version)]
struct CommandLine {
    /// TOML; default: /etc/trueline/collector.toml where it exists
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Keeps the CA and the SQLite database [default: /var/lib/trueline-collector]
    #[arg(long, global = true, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// sqlite:PATH or postgres://… [default: collector.db in the data directory]
    #[arg(long, global = true, value_name = "URI", env = "TRUELINE_DATABASE", hide_env_values = true)]
    database: Option<String>,
    /// How log lines look on standard error
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the collector until SIGTERM or SIGINT; SIGHUP reads the watch policy again
    Serve(Box<ServeFlags>),
    /// Bring the database's schema up to date
    Migrate,
    /// Make a token directly in the database and print it once
    Token(TokenFlags),
    /// Show where the CA's certificate lies and the SHA-256 that agents pin
    Ca,
}

#[derive(Debug, Args)]
struct ServeFlags {
    /// Agents' link, mutual TLS [default: 0.0.0.0:9440]
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen_agents: Option<SocketAddr>,
    /// Enrolment [default: 0.0.0.0:9441]
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen_enrolment: Option<SocketAddr>,
    /// REST and console [default: 127.0.0.1:8089]
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen_rest: Option<SocketAddr>,
    /// A DNS name or address under which agents reach this collector; may be repeated
    #[arg(long = "name", value_name = "NAME")]
    names: Vec<String>,
    /// host:port of the link as agents should dial it
    #[arg(long, value_name = "HOST:PORT")]
    link_address: Option<String>,
    /// Lifetime of agents' certificates [default: 86400]
    #[arg(long, value_name = "SECONDS")]
    certificate_seconds: Option<u64>,
    /// Lifetime of the collector's own certificate on the agents' ports [default: 7776000]
    #[arg(long, value_name = "SECONDS")]
    server_certificate_seconds: Option<u64>,
    /// [default: 10]
    #[arg(long, value_name = "SECONDS")]
    heartbeat_seconds: Option<u32>,
    #[arg(long, value_name = "FILE", requires = "rest_key")]
    rest_certificate: Option<PathBuf>,
    #[arg(long, value_name = "FILE", requires = "rest_certificate")]
    rest_key: Option<PathBuf>,
    /// YAML, sent to every agent
    #[arg(long, value_name = "FILE")]
    watch_policy: Option<PathBuf>,
    /// Print the bound addresses and the CA's SHA-256 as one line of JSON on standard output
    #[arg(long)]
    announce: bool,
}

#[derive(Debug, Args)]
struct TokenFlags {
    #[arg(long, value_enum)]
    kind: Kind,
    /// Of an API token
    #[arg(long, value_enum, default_value_t = RoleName::Viewer)]
    role: RoleName,
    #[arg(long)]
    name: String,
    /// How long it is good for: 90s, 30m, 24h, 7d. Join tokens end after 24h unless said otherwise
    #[arg(long, value_parser = seconds)]
    expires: Option<u64>,
    /// How often it may be used
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    uses: Option<u32>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Kind {
    Join,
    Api,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum RoleName {
    Viewer,
    Operator,
    Admin,
}

fn main() -> ExitCode {
    let line = CommandLine::parse();
    log_to_stderr(line.log_format);
    let run = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")
        .and_then(|runtime| runtime.block_on(run(line)));
    match run {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("trueline-collector: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn log_to_stderr(format: LogFormat) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let logging = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(std::io::stderr().is_terminal()).with_writer(std::io::stderr);
    match format {
        LogFormat::Text => logging.init(),
        LogFormat::Json => logging.json().init(),
    }
}

async fn run(line: CommandLine) -> anyhow::Result<()> {
    let file = Settings::read(line.config.as_deref())?;
    let common = Settings { data_dir: line.data_dir, database: line.database, ..Settings::default() };
    match line.command {
        Command::Serve(flags) => {
            let announce = flags.announce;
            let policy = PolicyPath { given: flags.watch_policy.clone(), config: line.config };
            run_daemon(flags.settings(common).or(file).into_config()?, announce, policy).await
        }
        Command::Migrate => {
            let config = common.or(file).into_config()?;
            create_data_dir(&config)?;
            trueline_store::open(&config.database).await?;
            println!("the schema is up to date");
            Ok(())
        }
        Command::Token(flags) => make_token(common.or(file).into_config()?, flags).await,
        Command::Ca => {
            let config = common.or(file).into_config()?;
            create_data_dir(&config)?;
            let ca = CertificateAuthority::open(&config.data_dir, now())?;
            println!("{}\n{}", ca.path().display(), ca.sha256());
            Ok(())
        }
    }
}

impl ServeFlags {
    fn settings(self, common: Settings) -> Settings {
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

/// Where the watch policy is said to lie: on the command line, or in a configuration that may have been edited.
struct PolicyPath {
    given: Option<PathBuf>,
    config: Option<PathBuf>,
}

impl PolicyPath {
    fn now(&self) -> Result<Option<PathBuf>, ConfigError> {
        match &self.given {
            Some(path) => Ok(Some(path.clone())),
            None => Ok(Settings::read(self.config.as_deref())?.watch_policy),
        }
    }
}

async fn reload(serving: &Serving, policy: &PolicyPath) -> Result<(), ConfigError> {
    serving.reload(policy.now()?).await
}

async fn run_daemon(config: Config, announce: bool, policy: PolicyPath) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    let shutdown = CancellationToken::new();
    let serving = serve(config, shutdown.clone()).await?;
    if announce {
        let addresses = serving.addresses;
        let line = serde_json::json!({
            "agents": addresses.agents,
            "enrolment": addresses.enrolment,
            "rest": addresses.rest,
            "ca_sha256": serving.ca_sha256,
        });
        println!("{line}");
    }
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hang_up.recv() => match reload(&serving, &policy).await {
                Ok(()) => tracing::info!("the watch policy was read again"),
                Err(error) => tracing::error!(%error, "the watch policy stays as it was"),
            },
        }
    }
    tracing::info!("shutting down");
    shutdown.cancel();
    serving.join.await.context("the collector did not stop cleanly")
}

async fn make_token(config: Config, flags: TokenFlags) -> anyhow::Result<()> {
    create_data_dir(&config)?;
    let store = trueline_store::open(&config.database).await?;
    let now = now();
    let (kind, expires) = match flags.kind {
        Kind::Join => (TokenKind::Join, Some(flags.expires.unwrap_or(86_400))),
        Kind::Api => (TokenKind::Api, flags.expires),
    };
    let role = match flags.role {
        RoleName::Viewer => Role::Viewer,
        RoleName::Operator => Role::Operator,
        RoleName::Admin => Role::Admin,
    };
    let text = TokenText::random(kind);
    let new = NewToken {
        tenant: TenantId::main(),
        kind,
        role,
        name: flags.name,
        digest: text.digest(),
        created_at: now,
        expires_at: expires.map(|seconds| now.plus_seconds(i64::try_from(seconds).unwrap_or(i64::MAX))),
        uses: flags.uses,
    };
    let token = store.add_token(new).await?;
    let action = NewAction {
        tenant: TenantId::main(),
        at: now,
        actor: "collector".to_owned(),
        action: "token.create".to_owned(),
        subject: format!("token:{}", token.name),
        detail: Some("on the collector's command line".to_owned()),
    };
    store.note_action(action).await?;
    println!("{}", text.as_str());
    Ok(())
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
