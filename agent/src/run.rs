//! The agent as a service: opens what is on disk, starts sensors, observer and link, and stops them
//! in the order that loses nothing.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::sync_channel;
use std::thread::JoinHandle;

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use trueline_drift::document::parse_yaml;
use trueline_drift::redact::RedactionKey;
use trueline_drift::watch::WatchPolicy;
use trueline_drift::{Epoch, GapReason, Time};

use crate::clock;
use crate::collect::Collectors;
use crate::config::Config;
use crate::enrol::unsent;
use crate::identity::{Identity, IdentityError};
use crate::link::{self, LinkEnd, LinkParts};
use crate::observer::{Observer, ObserverParts, Plan, RETRY, ReplayError, Scope, SpoolSink, Why, catch_up, sensor_policy};
use crate::sensor::{Coverage, Loss, SensorCounters, SensorError, Sensors, View};
use crate::spool::{Damage, Recovery, Spool, SpoolError, SpoolLimit};
use crate::state::{State, StateError};
use crate::status::{Progress, Status};

/// Signals between sensors and observer: small, for what waits belongs in the kernel's queue.
const SIGNALS: usize = 1024;
const STATE_CACHE: usize = 2 * 1024 * 1024;

#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error(transparent)]
    Spool(#[from] SpoolError),
    #[error(transparent)]
    State(#[from] StateError),
    #[error("the spool could not be applied to the state: {0}")]
    Replay(#[from] ReplayError),
    #[error(transparent)]
    Sensor(#[from] SensorError),
    #[error("cannot {operation} {}: {source}", path.display())]
    Io { operation: &'static str, path: PathBuf, source: std::io::Error },
    #[error("cannot start the agent's {what}: {source}")]
    Thread { what: &'static str, source: std::io::Error },
}

/// A running agent. Dropping it without [`Self::stop`] leaves its threads to end with the process.
pub struct RunningAgent {
    status: Arc<Status>,
    sensors: Arc<Sensors>,
    stop_observer: Arc<AtomicBool>,
    stop_link: CancellationToken,
    observer: JoinHandle<()>,
    link: JoinHandle<LinkEnd>,
}

/// What should follow a stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stopped {
    ForGood,
    /// The spool's numbers do not fit the collector's: the next start begins a new epoch.
    StartOver,
}

impl RunningAgent {
    pub fn progress(&self) -> watch::Receiver<Progress> {
        self.status.progress()
    }

    pub fn coverage(&self) -> Vec<Coverage> {
        self.sensors.coverage()
    }

    pub fn troubles(&self) -> Vec<String> {
        self.status.troubles()
    }

    /// Whether a part of it ended by itself: it must be stopped, and perhaps started anew.
    pub fn has_ended(&self) -> bool {
        self.observer.is_finished() || self.link.is_finished()
    }

    /// Stops watching, spools what was seen, gives the link a moment to send it, and joins. Blocks for
    /// a few seconds at most.
    pub fn stop(self) -> Stopped {
        self.stop_observer.store(true, Ordering::Relaxed);
        if self.observer.join().is_err() {
            warn!("the observer broke off");
        }
        self.stop_link.cancel();
        match self.link.join() {
            Ok(LinkEnd::StartOver) => Stopped::StartOver,
            Ok(LinkEnd::Stopped) => Stopped::ForGood,
            Err(_) => {
                warn!("the link broke off");
                Stopped::ForGood
            }
        }
    }
}

/// Starts the agent of an enrolled host.
pub fn start(config: Config) -> Result<RunningAgent, RunError> {
    let identity = Identity::load(&config.data_dir)?;
    let dropped = belong_to(&config.data_dir, &identity)?;
    let alive_file = config.data_dir.join("alive");
    let last_alive = modified(&alive_file);
    let key = redaction_key(&config.data_dir)?;

    let mark = clock::now().micros().to_string();
    let (state, set_aside) = State::open(&config.data_dir.join("state.redb"), STATE_CACHE, &mark)?;
    let state = Arc::new(state);
    let known = Some(state.spooled()).filter(|(epoch, _)| *epoch != Epoch::default());
    let limit = SpoolLimit { bytes: config.spool_mib * 1024 * 1024, ..SpoolLimit::default() };
    let new_epoch = || Epoch(u64::try_from(clock::now().micros()).unwrap_or(1));
    let folder = config.data_dir.join("spool");
    let (mut spool, mut recovery) = Spool::open(&folder, limit, known, new_epoch)?;
    if set_aside.is_some() {
        // What was removed while nobody remembers it is told by an inventory in a new epoch alone.
        spool.begin_anew_after(recovery.epoch)?;
        drop(spool);
        (spool, recovery) = Spool::open(&folder, limit, None, new_epoch)?;
    }
    let spool = Arc::new(spool);
    if recovery.truncated_bytes > 0 {
        info!(bytes = recovery.truncated_bytes, "the torn end of the spool was cut off; its changes are found again");
    }
    let replayed = catch_up(&spool, &state)?;
    if replayed > 0 {
        info!(records = replayed, "the state was brought up to the spool");
    }

    // With the real paths of what is named by a link: sensors report those, and items are keyed by them.
    let policy = Arc::new(View::new(&present_policy(&state, &config.watch)?).policy().clone());
    let collectors = Collectors::new(Arc::clone(&policy), key);
    let (signal_sender, signals) = sync_channel(SIGNALS);
    let counters = Arc::new(SensorCounters::default());
    let watched = sensor_policy(&policy, &collectors);
    // Sensors first: what changes during the first scan is then seen by one or the other.
    let sensors = Arc::new(Sensors::start_with(config.sensor.into(), &watched, signal_sender, Arc::clone(&counters))?);

    let status = Arc::new(Status::default());
    if let Some(aside) = &set_aside {
        warn!(to = %aside.to.display(), reason = %aside.reason, "the state was damaged and set aside; taking the inventory again");
    }
    let since = last_alive.map_or_else(clock::now, |alive| alive.min(clock::now()));
    let mut plans = first_plans(&state, &spool, &recovery, &policy, since)?;
    if dropped > 0 {
        // The present identity's stream begins with what the one before did not tell.
        let loss = Loss { scope: "*".to_owned(), reason: GapReason::AgentDown, began_at: since, lost: Some(dropped) };
        plans.push(Plan { scope: Scope::All, why: Why::Lost(loss) });
    }

    let (errand_sender, mut errands) = mpsc::channel(16);
    let (answer_sender, answers) = mpsc::channel(16);
    let policy_version = watch::Sender::new(policy.version);
    let link_parts = LinkParts {
        spool: Arc::clone(&spool),
        status: Arc::clone(&status),
        sensors: counters,
        coverage: {
            let sensors = Arc::clone(&sensors);
            Arc::new(move || sensors.coverage())
        },
        errands: errand_sender,
        policy_version: policy_version.subscribe(),
    };
    let parts = ObserverParts {
        collectors,
        policy,
        own_policy: Arc::new(config.watch.clone()),
        state,
        sink: SpoolSink(spool),
        status: Arc::clone(&status),
        sensors: Some(Arc::clone(&sensors)),
        scan_threads: config.scan_threads,
        retry_after: RETRY,
        alive_file: Some(alive_file),
        answers: Some(answer_sender),
        policy_version,
    };
    let stop_observer = Arc::new(AtomicBool::new(false));
    let stopping = Arc::clone(&stop_observer);
    let observer = std::thread::Builder::new()
        .name("observer".to_owned())
        .spawn(move || Observer::new(parts, plans).run(&signals, &mut errands, &stopping))
        .map_err(|source| RunError::Thread { what: "observer", source })?;
    let stop_link = CancellationToken::new();
    let stopping = stop_link.clone();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(4)
        .thread_keep_alive(std::time::Duration::from_secs(60))
        .build()
        .map_err(|source| RunError::Thread { what: "runtime", source })?;
    let link = std::thread::Builder::new()
        .name("link".to_owned())
        .spawn(move || runtime.block_on(link::run(identity, link_parts, answers, stopping)))
        .map_err(|source| RunError::Thread { what: "link", source })?;
    Ok(RunningAgent { status, sensors, stop_observer, stop_link, observer, link })
}

/// What must be read before live events are enough.
fn first_plans(state: &State, spool: &Spool, recovery: &Recovery, policy: &Arc<WatchPolicy>, since: Time) -> Result<Vec<Plan>, StateError> {
    let all = |why| Plan { scope: Scope::All, why };
    let complete = state.inventory_complete()?;
    if complete.is_none_or(|complete| complete.epoch != spool.epoch()) {
        // Never told in full in this epoch, be it the first one, or one that began after damage.
        let mut plans = vec![all(Why::Inventory)];
        if complete.is_some() || recovery.damaged.is_some() {
            let lost = recovery.damaged.as_ref().and_then(lost_records);
            plans.push(all(Why::Lost(Loss { scope: "*".to_owned(), reason: GapReason::SpoolDamaged, began_at: since, lost })));
        }
        return Ok(plans);
    }
    let mut plans = Vec::new();
    let covered = state.covered()?.and_then(|document| parse_yaml::<WatchPolicy>("covered policy", &document).ok());
    if let Some(before) = covered.filter(|covered| *covered != **policy) {
        plans.push(all(Why::NewPolicy { before: Arc::new(before), since }));
    }
    plans.push(all(Why::Restart { since }));
    Ok(plans)
}

/// How many records are known to be lost; nothing where the end of the loss is not known.
fn lost_records(damage: &Damage) -> Option<u64> {
    damage.lost.iter().map(|lost| Some(lost.last?.0 - lost.first.0 + 1)).sum()
}

/// The collector's policy where it sent one, else the configured.
fn present_policy(state: &State, configured: &WatchPolicy) -> Result<WatchPolicy, StateError> {
    let Some(stored) = state.policy()? else { return Ok(configured.clone()) };
    match parse_yaml::<WatchPolicy>("kept policy", &stored.document) {
        Ok(policy) => Ok(WatchPolicy { version: stored.version, ..policy }),
        Err(error) => {
            warn!(%error, "the kept policy cannot be read; using the configured watch list");
            Ok(configured.clone())
        }
    }
}

/// State and spool belong to one identity: a host that was enrolled anew is a new host, and its
/// collector knows nothing of it. How many records of the host before are dropped.
fn belong_to(data_dir: &Path, identity: &Identity) -> Result<u64, RunError> {
    let path = data_dir.join("belongs_to");
    let owner = identity.host.to_string();
    let mut dropped = 0;
    match std::fs::read_to_string(&path) {
        Ok(text) if text == owner => return Ok(0),
        // A file that a power cut left empty says nothing.
        Ok(text) if text.is_empty() => {}
        Ok(_) => {
            dropped = match unsent(data_dir) {
                Ok(count) => count,
                Err(error @ SpoolError::InUse { .. }) => return Err(error.into()),
                Err(error) => {
                    warn!(%error, "how many records of the host before are dropped is not known");
                    0
                }
            };
            info!(dropped, "the host was enrolled anew: its inventory is taken again");
            for name in ["spool", "state.redb"] {
                let old = data_dir.join(name);
                let removed = if old.is_dir() { std::fs::remove_dir_all(&old) } else { std::fs::remove_file(&old) };
                match removed {
                    Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                        return Err(RunError::Io { operation: "remove", path: old, source });
                    }
                    _ => {}
                }
            }
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(source) => return Err(RunError::Io { operation: "read", path, source }),
    }
    replace(&path, owner.as_bytes()).map_err(|source| RunError::Io { operation: "write", path, source })?;
    Ok(dropped)
}

/// Writes a file whole or not at all, readable by its owner alone.
fn replace(path: &Path, contents: &[u8]) -> std::io::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let temporary = path.with_extension("new");
    let mut file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    file.write_all(contents)?;
    file.sync_all()?;
    std::fs::rename(&temporary, path)
}

/// The key of this host's redaction digests, made once.
pub fn redaction_key(data_dir: &Path) -> Result<RedactionKey, RunError> {
    let path = data_dir.join("redaction.key");
    let fail = |operation, source| RunError::Io { operation, path: path.clone(), source };
    match std::fs::read(&path) {
        Ok(bytes) => match <[u8; 32]>::try_from(bytes) {
            Ok(key) => return Ok(RedactionKey::new(key)),
            Err(_) => warn!(path = %path.display(), "the redaction key is damaged; making another, which shows as changed passwords"),
        },
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(fail("read", error)),
    }
    let key: [u8; 32] = rand::random();
    replace(&path, &key).map_err(|error| fail("write", error))?;
    Ok(RedactionKey::new(key))
}

/// When the file was last touched: the agent was alive then.
fn modified(path: &Path) -> Option<Time> {
    let modified = std::fs::metadata(path).ok()?.modified().ok()?;
    let since = modified.duration_since(std::time::UNIX_EPOCH).ok()?;
    i64::try_from(since.as_micros()).ok().map(Time::from_micros)
}
