//! The agent as a service: enrols where nobody has, runs, tells the service manager and operators how it is doing,
//! reads its configuration again when asked, and ends without loss.
//!
//! Invariants: one thread, the one that [`run`] is called on, speaks with the service manager, and it never waits for
//! long; what no restart can mend ends with [`UNUSABLE`], so that the service manager does not try again.

mod confinement;
mod desk;
pub mod first_start;
mod opening;
mod reload;
mod signals;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::unistd::Uid;
use tracing::{info, warn};
use trueline_systemd::notify::Notifier;
use trueline_systemd::owner::{self, OwnerError};
use trueline_systemd::watchdog::{Heartbeat, Watchdog};

use crate::config::{Config, ConfigError};
use crate::enrol::EnrolError;
use crate::identity::{Identity, IdentityError};
use crate::kernel;
use crate::run::{self, RunError, RunningAgent, Stopped};
use crate::status::socket::{self, StatusSocket};

pub use confinement::{Confinement, ConfinementError};
pub use signals::Signals;

use desk::Desk;
use first_start::{Enrolment, Invitation, InvitationError};
use opening::Awaited;
use reload::{Reload, Taken};

/// The exit code for what must be put right first: EX_CONFIG of sysexits(3).
pub const UNUSABLE: u8 = 78;

/// Between looks at what the agent does.
const TICK: Duration = Duration::from_secs(1);
/// Between status lines.
const LINE_EVERY: Duration = Duration::from_secs(5);

#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Invitation(#[from] InvitationError),
    #[error(
        "{error}; make a token with `trueline tokens create --kind join`, put it into /etc/trueline/enroll.env as {}, and start the \
         service again",
        first_start::TOKEN
    )]
    Refused { error: EnrolError },
    #[error(
        "{error}: compare {} in /etc/trueline/enroll.env with what `trueline-collector ca` prints on the collector",
        first_start::CA_SHA256
    )]
    OtherCa { error: EnrolError },
    #[error("{error}: look at {} in /etc/trueline/enroll.env", first_start::COLLECTOR)]
    Address { error: EnrolError },
    #[error(transparent)]
    Enrol(EnrolError),
    #[error(
        "{} belongs to user {owner}, and what another user makes there it could not use: `systemctl start trueline-agent`, or \
         name another folder with --data-dir",
        path.display()
    )]
    Foreign { path: PathBuf, owner: Uid },
    #[error(transparent)]
    Owner(#[from] OwnerError),
    #[error("cannot {operation}: {source}")]
    Io { operation: String, source: io::Error },
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error(transparent)]
    Run(#[from] RunError),
    #[error("a part of the agent ended by itself; its log says why")]
    Ended,
}

impl ServiceError {
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_) | Self::Invitation(_) | Self::Foreign { .. } | Self::Identity(IdentityError::Damaged { .. }) => UNUSABLE,
            Self::Refused { .. } | Self::OtherCa { .. } | Self::Address { .. } => UNUSABLE,
            Self::Enrol(_) | Self::Owner(_) | Self::Io { .. } | Self::Identity(_) | Self::Run(_) | Self::Ended => 1,
        }
    }
}

impl From<EnrolError> for ServiceError {
    fn from(error: EnrolError) -> Self {
        use crate::link::ConnectError;
        match error {
            EnrolError::Refused { .. } => Self::Refused { error },
            EnrolError::OtherCa | EnrolError::Connect(ConnectError::OtherCa { .. }) => Self::OtherCa { error },
            EnrolError::Connect(ConnectError::Address { .. }) => Self::Address { error },
            error => Self::Enrol(error),
        }
    }
}

/// What the command line and the environment say.
pub struct Options {
    pub config: Option<PathBuf>,
    pub data_dir: Option<PathBuf>,
    pub invitation: Invitation,
}

impl Options {
    fn config(&self) -> Result<Config, ConfigError> {
        let config = Config::load(self.config.as_deref())?;
        Ok(Config { data_dir: self.data_dir.clone().unwrap_or_else(|| config.data_dir.clone()), ..config })
    }
}

/// Runs until SIGTERM or SIGINT. To be called while the process has one thread.
pub fn run(options: &Options) -> Result<(), ServiceError> {
    let failed = |operation: &str| {
        let operation = operation.to_owned();
        move |source| ServiceError::Io { operation, source }
    };
    let config = options.config()?;
    keep_capabilities();
    let signals = Signals::catch(&[Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP]).map_err(failed("take signals"))?;
    hide_memory();
    prepare_data_dir(&config.data_dir)?;
    let socket_path = socket::path(&config.data_dir);
    let confinement = confine(&[Some(config.data_dir.as_path()), socket_path.parent()]);
    let desk = Arc::new(Desk::new(config.data_dir.clone(), confinement.describe()));
    info!(confinement = desk.confinement, "confined");
    let shown = Arc::clone(&desk);
    let inside = confinement.clone();
    // Not being asked is no reason not to watch.
    let _socket = StatusSocket::serve(&socket_path, move || inside.enter(), move || shown.report())
        .map_err(|error| warn!(path = %socket_path.display(), %error, "`trueline-agent status` cannot reach this agent"));

    let mut service = Service {
        options,
        configuration: Taken::whole(config),
        desk,
        confinement,
        signals,
        notifier: Notifier::from_environment(),
        is_ready: false,
    };
    let ran = service.enrol_if_new().and_then(|is_enrolled| if is_enrolled { service.watch() } else { Ok(()) });
    if let Err(error) = &ran {
        service.notifier.status(&error.to_string());
    }
    ran
}

/// What the unit lets the agent do is for the agent alone: `rpm`, which it asks for packages, reads what everybody may.
fn keep_capabilities() {
    if let Err(error) = kernel::capability::clear_ambient() {
        warn!(%error, "programs that the agent starts may have its capabilities");
    }
}

/// What is in the agent's memory, keys and contents of files, is for no core dump and for no debugger of its own user.
fn hide_memory() {
    if let Err(error) = nix::sys::prctl::set_dumpable(false) {
        warn!(%error, "the agent's memory may be dumped when it crashes");
    }
}

/// Makes the folder where it is not there. That of another user is refused: what is made there must be its own.
fn prepare_data_dir(path: &Path) -> Result<(), ServiceError> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|source| ServiceError::Io { operation: format!("make {}", path.display()), source })?;
    match owner::other_owner(path)? {
        Some(owner) => Err(ServiceError::Foreign { path: path.to_owned(), owner }),
        None => Ok(()),
    }
}

fn confine(folders: &[Option<&Path>]) -> Confinement {
    let folders: Vec<&Path> = folders.iter().copied().flatten().collect();
    Confinement::to(&folders).unwrap_or_else(|error| {
        warn!(%error, "running without confinement");
        Confinement::default()
    })
}

struct Service<'a> {
    options: &'a Options,
    configuration: Taken,
    desk: Arc<Desk>,
    confinement: Confinement,
    signals: Signals,
    notifier: Notifier,
    is_ready: bool,
}

impl Service<'_> {
    /// Enrols a host that has no identity. `false` where it was stopped before it could.
    fn enrol_if_new(&mut self) -> Result<bool, ServiceError> {
        match Identity::load(&self.configuration.config.data_dir) {
            Ok(_) => return Ok(true),
            Err(IdentityError::NotEnrolled { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        let request = self.options.invitation.clone().request(self.configuration.config.data_dir.clone())?;
        let collector = request.collector.clone();
        let heartbeat = Arc::new(Heartbeat::default());
        let mut watchdog = Watchdog::from_environment([("enrolment", Arc::clone(&heartbeat))]);
        self.notifier.status(&format!("enrolling this host at {collector}"));
        let enrolment = Enrolment::start(request, self.confinement.clone(), heartbeat)
            .map_err(|source| ServiceError::Io { operation: "start the enrolment".to_owned(), source })?;
        while !enrolment.has_ended() && !self.signals.is_stopping() {
            if let Some(trouble) = enrolment.trouble() {
                let trouble = format!("not enrolled yet, trying again: {trouble}");
                self.notifier.status(&trouble);
                self.desk.enrol(trouble);
                // Whoever waits for this start, a package's installation perhaps, has waited long enough.
                self.announce();
            }
            if let Some(watchdog) = &mut watchdog {
                watchdog.tend(&self.notifier);
            }
            std::thread::park_timeout(TICK / 5);
        }
        match enrolment.finish() {
            Some(enrolled) => Ok(enrolled.map(|_| true)?),
            None => {
                self.notifier.stopping();
                Ok(false)
            }
        }
    }

    fn announce(&mut self) {
        if !self.is_ready {
            self.is_ready = true;
            self.notifier.ready();
        }
    }

    /// Runs the agent, and anew where its spool must begin anew.
    fn watch(&mut self) -> Result<(), ServiceError> {
        loop {
            self.notifier.status("opening state and spool");
            self.desk.open();
            let agent = self.open()?;
            let heartbeats = &agent.status().heartbeats;
            let parts = [("observer", Arc::clone(&heartbeats.observer)), ("link", Arc::clone(&heartbeats.link))];
            let watchdog = Watchdog::from_environment(parts);
            self.configuration.tell(&agent);
            self.desk.run(agent);
            self.attend(watchdog);
            let is_stopping = self.signals.is_stopping();
            if is_stopping {
                self.notifier.stopping();
                self.notifier.status("stopping: sending what was seen");
            }
            let stopped = self.desk.close().map(|agent| agent.stop());
            match stopped {
                _ if is_stopping => return Ok(()),
                Some(Stopped::StartOver) => {}
                Some(Stopped::ForGood) | None => return Err(ServiceError::Ended),
            }
        }
    }

    /// Opens state and spool within the confinement, and starts the agent outside of it.
    fn open(&self) -> Result<RunningAgent, ServiceError> {
        let awaited = if self.is_ready { Awaited::Life } else { Awaited::Start };
        let no_thread = |source| ServiceError::Io { operation: "start a thread".to_owned(), source };
        let (config, confinement, desk) = (self.configuration.config.clone(), self.confinement.clone(), Arc::clone(&self.desk));
        let open = move || {
            confinement.enter();
            desk.let_go();
            run::open(config)
        };
        let opened = opening::attend(&self.notifier, "opening", awaited, open).map_err(no_thread)??;
        let confinement = self.confinement.clone();
        let start = move || opened.start_within(&confinement);
        Ok(opening::attend(&self.notifier, "starting", awaited, start).map_err(no_thread)??)
    }

    /// Looks after the running agent until it is to stop or a part of it has ended.
    fn attend(&mut self, mut watchdog: Option<Watchdog>) {
        let tick = watchdog.as_ref().map_or(TICK, |watchdog| TICK.min(watchdog.every()));
        let mut next_line = Instant::now();
        let mut reload: Option<Reload> = None;
        self.announce();
        while !self.signals.is_stopping() && self.desk.is_going_on() {
            if self.signals.take_reload() {
                self.notifier.reloading();
                reload = Some(Reload::begin(self.options.config(), &self.configuration.config));
            }
            if let Some(under_way) = &mut reload
                && let Some(taken) = self.desk.with_agent(|agent| under_way.go_on(agent)).flatten()
            {
                self.desk.with_agent(|agent| taken.tell(agent));
                self.configuration = taken;
                reload = None;
                self.notifier.ready();
                next_line = Instant::now();
            }
            if Instant::now() >= next_line {
                next_line = Instant::now() + LINE_EVERY;
                if let Some(line) = self.desk.with_agent(|agent| agent.line()) {
                    self.notifier.status(&line);
                }
            }
            if let Some(watchdog) = &mut watchdog {
                watchdog.tend(&self.notifier);
            }
            std::thread::park_timeout(if reload.is_some() { tick / 10 } else { tick });
        }
        if let Some(cut_short) = reload {
            self.configuration = cut_short.cut_short();
            self.notifier.ready();
        }
    }
}
