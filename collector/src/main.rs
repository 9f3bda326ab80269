//! The collector's daemon and what must work before its REST API does: migration, first tokens, the CA.

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use futures_util::future::LocalBoxFuture;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use trueline_collector::arguments::{Command, CommandLine, Kind, LogFormat, RoleName, TokenFlags};
use trueline_collector::ca::CertificateAuthority;
use trueline_collector::config::{Config, ConfigError, DEFAULT_PATH, Settings};
use trueline_collector::hub::now;
use trueline_collector::serve::{ServeError, Serving, create_data_dir, serve_telling};
use trueline_collector::service::Service;
use trueline_collector::token::TokenText;
use trueline_drift::TenantId;
use trueline_store::{NewAction, NewToken, Role, TokenKind, sqlite_file};
use trueline_systemd::journal::{self, Destination};
use trueline_systemd::owner::become_owner;

/// Records are decoded on one thread and freed on another, many small values each: with the C library's allocator that
/// is half of the collector's processor time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// EX_CONFIG of sysexits.h: the service manager does not try again.
const LASTING: u8 = 78;
/// At the end, for a thread that waits for a file or the address of a name.
const THREADS_LIMIT: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    let line = CommandLine::parse();
    let format = match line.log_format {
        LogFormat::Text => journal::Format::TextWithTarget,
        LogFormat::Json => journal::Format::Json,
    };
    let log = journal::log("info", format);
    match act(line) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            match log {
                Destination::Journal => tracing::error!("{error:#}"),
                Destination::StandardError => eprintln!("trueline-collector: {error:#}"),
            }
            if is_lasting(&error) { ExitCode::from(LASTING) } else { ExitCode::FAILURE }
        }
    }
}

fn is_lasting(error: &anyhow::Error) -> bool {
    let config = error.downcast_ref::<ConfigError>().is_some_and(ConfigError::is_lasting);
    config || error.downcast_ref::<ServeError>().is_some_and(ServeError::is_lasting)
}

fn act(line: CommandLine) -> anyhow::Result<()> {
    let file = Settings::read(line.config.as_deref())?;
    let common = Settings { data_dir: line.data_dir, database: line.database, ..Settings::default() };
    let (command, settings) = match line.command {
        Command::Serve(flags) => {
            let policy = PolicyPath { given: flags.watch_policy.clone(), config: line.config };
            (Task::Serve { announce: flags.announce, policy }, flags.settings(common))
        }
        Command::Migrate => (Task::Migrate, common),
        Command::Token(flags) => (Task::Token(flags), common),
        Command::Ca => (Task::Ca, common),
    };
    let config = settings.or(file).into_config()?;
    // Before there is a runtime with threads, and before anything is made that the service could not read.
    if let Some(user) = become_owner(&config.data_dir)? {
        tracing::debug!(%user, data_dir = %config.data_dir.display(), "goes on as the data directory's owner");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start the runtime")?;
    let done = runtime.block_on(async {
        match command {
            Task::Serve { announce, policy } => Box::pin(run_daemon(config, announce, policy)).await,
            Task::Migrate => migrate(config).await,
            Task::Token(flags) => make_token(config, flags).await,
            Task::Ca => show_ca(&config),
        }
    });
    runtime.shutdown_timeout(THREADS_LIMIT);
    done
}

/// What to do with the configuration.
enum Task {
    Serve { announce: bool, policy: PolicyPath },
    Migrate,
    Token(TokenFlags),
    Ca,
}

async fn migrate(config: Config) -> anyhow::Result<()> {
    create_data_dir(&config)?;
    trueline_store::open_telling(&config.database, &|step| eprintln!("step {} of {}", step.number, step.of))
        .await
        .map_err(ServeError::from)?;
    println!("the schema is up to date");
    Ok(())
}

fn show_ca(config: &Config) -> anyhow::Result<()> {
    create_data_dir(config)?;
    let ca = CertificateAuthority::open(&config.data_dir, now())?;
    println!("{}\n{}", ca.path().display(), ca.sha256());
    Ok(())
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

async fn reload(serving: &Serving, policy: Arc<PolicyPath>) -> Result<(), ConfigError> {
    let read = tokio::task::spawn_blocking(move || policy.now()).await;
    let path = read.map_err(|error| ConfigError::File { path: DEFAULT_PATH.into(), source: io::Error::other(error) })??;
    serving.reload(path).await
}

async fn run_daemon(config: Config, announce: bool, policy: PolicyPath) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    let service = Service::from_environment();
    let shutdown = CancellationToken::new();
    let step = Mutex::new(None);
    let tell = |next| *step.lock().unwrap_or_else(PoisonError::into_inner) = next;
    let start = Box::pin(service.starting(&step, serve_telling(config, shutdown.clone(), &tell)));
    let serving = tokio::select! {
        serving = start => serving?,
        // Steps of the schema that were not committed have not been taken.
        _ = terminate.recv() => return Ok(()),
        _ = interrupt.recv() => return Ok(()),
    };
    let ended = CancellationToken::new();
    let mut told = service.serves(&serving.hub, &ended).await;
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
    let policy = Arc::new(policy);
    // Dropped at the end, however far it is: a database that does not answer is no reason not to hear a signal.
    let mut reloading: Option<LocalBoxFuture<'_, Result<(), ConfigError>>> = None;
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            // A part of it ended by itself.
            () = shutdown.cancelled() => break,
            _ = hang_up.recv(), if reloading.is_none() => {
                reloading = Some(Box::pin(service.reloading(reload(&serving, Arc::clone(&policy)))));
            }
            Some(done) = async { Some(reloading.as_mut()?.await) } => {
                reloading = None;
                match done {
                    Ok(()) => tracing::info!("the watch policy was read again"),
                    Err(error) => tracing::error!(%error, "the watch policy stays as it was"),
                }
            }
        }
    }
    drop(reloading);
    tracing::info!("shutting down");
    service.stopping().await;
    shutdown.cancel();
    let joined = serving.join.await;
    ended.cancel();
    while told.join_next().await.is_some() {}
    Ok(joined.context("the collector did not stop cleanly")??)
}

async fn make_token(config: Config, flags: TokenFlags) -> anyhow::Result<()> {
    create_data_dir(&config)?;
    let is_new = sqlite_file(&config.database).filter(|path| !path.exists());
    let store = trueline_store::open(&config.database).await.map_err(ServeError::from)?;
    if let Some(path) = is_new {
        // Not seldom the collector serves from another one, and the token is good for nothing.
        let path = path.display();
        eprintln!("trueline-collector: made a new database, {path}: the token is good for a collector that serves from it");
    }
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
