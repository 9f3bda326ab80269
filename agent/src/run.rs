//! The agent as a service: opens what is on disk, starts sensors, observer and link, and stops them
//! in the order that loses nothing.

mod disk;
mod report;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::warn;
use trueline_drift::document::parse_yaml;
use trueline_drift::watch::WatchPolicy;
use trueline_drift::{GapReason, HostId, ItemKind, Time};
use trueline_systemd::watchdog::Heartbeat;

use crate::actor::complete::Completion;
use crate::actor::login::{Logins, Sessions};
use crate::collect::Collectors;
use crate::config::Config;
use crate::identity::IdentityError;
use crate::link::{self, Configuration, Configured, Errand, LinkEnd, LinkParts};
use crate::observer::{Observer, ObserverParts, Plan, RETRY, ReplayError, Scope, SpoolSink, Why, sensor_policy};
use crate::sensor::{Coverage, Loss, SensorCounters, SensorError, Sensors, View, unwatched};
use crate::service::Confinement;
use crate::spool::{Damage, Recovery, Spool, SpoolError};
use crate::state::{State, StateError};
use crate::status::{Progress, Status};

pub use disk::{Opened, open, redaction_key};
pub use report::Draft;

/// Signals between sensors and observer: small, for what waits belongs in the kernel's queue.
const SIGNALS: usize = 1024;

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
    host: HostId,
    /// Where the link goes.
    collector: String,
    data_dir: PathBuf,
    status: Arc<Status>,
    sensors: Arc<Sensors>,
    sessions: Option<Sessions>,
    counters: Arc<SensorCounters>,
    spool: Arc<Spool>,
    policy_version: watch::Receiver<u64>,
    errands: mpsc::Sender<Errand>,
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
        covered(&self.sensors, self.sessions.as_ref())
    }

    /// What an operator should know of its parts, and of what they do not watch.
    pub fn troubles(&self) -> Vec<String> {
        let mut troubles = self.status.troubles();
        troubles.extend(unwatched(&self.coverage()));
        troubles
    }

    pub fn status(&self) -> &Status {
        &self.status
    }

    /// Has the observer take up what the host's own configuration says now; the answer comes once it has. `None` where
    /// too much else waits to be told to it: ask again.
    pub fn configure(&self, watch: WatchPolicy, scan_threads: usize) -> Option<Receiver<Configured>> {
        let (outcome, answer) = sync_channel(1);
        let configuration = Configuration { watch, scan_threads, outcome };
        self.errands.try_send(Errand::Configure(Box::new(configuration))).ok().map(|()| answer)
    }

    /// Whether a part of it ended by itself: it must be stopped, and perhaps started anew.
    pub fn has_ended(&self) -> bool {
        self.observer.is_finished() || self.link.is_finished()
    }

    /// Stops watching, spools what was seen, gives the link a moment to send it, and joins. Blocks for
    /// a few seconds, and where the observer waits for `rpm` for as long as that is granted.
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
    open(config)?.start_within(&Confinement::default())
}

impl Opened {
    /// Starts the agent with every thread confined but those of the sensors. To be called outside of the confinement.
    pub fn start_within(self, confinement: &Confinement) -> Result<RunningAgent, RunError> {
        let Self { config, identity, key, state, spool, recovery, alive_file, since, dropped } = self;
        // With the real paths of what is named by a link: sensors report those, and items are keyed by them.
        let policy = Arc::new(View::new(&present_policy(&state, &config.watch)?).policy().clone());
        let collectors = Collectors::new(Arc::clone(&policy), key);
        let collectors = collectors.before_confinement().map_err(|source| RunError::Thread { what: "holders", source })?;
        let (signal_sender, signals) = sync_channel(SIGNALS);
        let counters = Arc::new(SensorCounters::default());
        let watched = sensor_policy(&policy, &collectors);
        // Sensors first: what changes during the first scan is then seen by one or the other.
        let sensors = Arc::new(
            Sensors::start_with(config.sensor.into(), &watched, signal_sender, Arc::clone(&counters))?.and_audit(config.audit, &watched)?,
        );

        let status = Arc::new(Status::default());
        let mut plans = first_plans(&state, &spool, &recovery, &policy, since)?;
        if dropped > 0 {
            // The present identity's stream begins with what the one before did not tell.
            let loss = Loss { scope: "*".to_owned(), reason: GapReason::AgentDown, began_at: since, lost: Some(dropped) };
            plans.push(Plan { scope: Scope::All, why: Why::Lost(loss) });
        }

        let (errand_sender, mut errands) = mpsc::channel(16);
        let (answer_sender, answers) = mpsc::channel(16);
        let policy_version = watch::Sender::new(policy.version);
        let completion = Completion::start(confinement);
        let sessions = completion.logins().map(Logins::sessions).filter(|_| policy.watches_kind(ItemKind::Session));
        let link_parts = LinkParts {
            spool: Arc::clone(&spool),
            status: Arc::clone(&status),
            sensors: Arc::clone(&counters),
            coverage: {
                let (sensors, sessions) = (Arc::clone(&sensors), sessions.clone());
                Arc::new(move || covered(&sensors, sessions.as_ref()))
            },
            errands: errand_sender.clone(),
            policy_version: policy_version.subscribe(),
        };
        let (shown_version, shown_spool) = (policy_version.subscribe(), Arc::clone(&spool));
        let parts = ObserverParts {
            collectors,
            policy,
            own_policy: Arc::new(config.watch.clone()),
            state,
            sink: SpoolSink(spool),
            completion,
            status: Arc::clone(&status),
            sensors: Some(Arc::clone(&sensors)),
            scan_threads: config.scan_threads,
            retry_after: RETRY,
            alive_file: Some(alive_file),
            answers: Some(answer_sender),
            policy_version,
        };
        let stop_observer = Arc::new(AtomicBool::new(false));
        let (stopping, confined) = (Arc::clone(&stop_observer), confinement.clone());
        let observer = std::thread::Builder::new()
            .name("observer".to_owned())
            .spawn(move || {
                confined.enter();
                Observer::new(parts, plans).run(&signals, &mut errands, &stopping);
            })
            .map_err(|source| RunError::Thread { what: "observer", source })?;
        let stop_link = CancellationToken::new();
        let (stopping, confined) = (stop_link.clone(), confinement.clone());
        let (host, collector, heartbeat) = (identity.host, identity.link.clone(), Arc::clone(&status.heartbeats.link));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(4)
            .thread_keep_alive(Duration::from_secs(60))
            .build()
            .map_err(|source| RunError::Thread { what: "runtime", source })?;
        let link = std::thread::Builder::new()
            .name("link".to_owned())
            .spawn(move || {
                confined.enter();
                let end = runtime.block_on(async {
                    tokio::select! {
                        end = link::run(identity, link_parts, answers, stopping) => end,
                        never = beat(&heartbeat) => never,
                    }
                });
                if end == LinkEnd::Stopped {
                    // What is left looks up a name, which may take half a minute, or waits for a dead disk. Where the agent starts
                    // over, it is waited for: it may hold the spool.
                    runtime.shutdown_background();
                }
                end
            })
            .map_err(|source| RunError::Thread { what: "link", source })?;
        Ok(RunningAgent {
            host,
            collector,
            data_dir: config.data_dir,
            status,
            sensors,
            sessions,
            counters,
            spool: shown_spool,
            policy_version: shown_version,
            errands: errand_sender,
            stop_observer,
            stop_link,
            observer,
            link,
        })
    }
}

/// What the sensors watch, and whether sessions are told.
fn covered(sensors: &Sensors, sessions: Option<&Sessions>) -> Vec<Coverage> {
    let mut rows = sensors.coverage();
    rows.extend(sessions.map(Sessions::coverage));
    rows
}

/// Beats for as long as the runtime goes on.
pub async fn beat(heartbeat: &Heartbeat) -> ! {
    let mut every = tokio::time::interval(Duration::from_secs(1));
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        every.tick().await;
        heartbeat.beat();
    }
}

/// What must be read before live events are enough.
fn first_plans(state: &State, spool: &Spool, recovery: &Recovery, policy: &Arc<WatchPolicy>, since: Time) -> Result<Vec<Plan>, StateError> {
    let all = |why| Plan { scope: Scope::All, why };
    let complete = state.inventory_complete()?;
    if complete.is_none_or(|complete| complete.epoch != spool.epoch()) {
        // Never told in full in this epoch, be it the first one, or one that began after damage.
        let mut plans = vec![all(Why::Inventory)];
        if complete.is_some() || recovery.damaged.is_some() {
            let (reason, lost) = began_anew_for(recovery);
            plans.push(all(Why::Lost(Loss { scope: "*".to_owned(), reason, began_at: since, lost })));
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

/// Why what was told before is told anew, and how many records are known to be lost.
fn began_anew_for(recovery: &Recovery) -> (GapReason, Option<u64>) {
    match &recovery.damaged {
        // Whole, and of another story than the collector's: what one of the two has forgotten, nobody counts.
        Some(damage) if recovery.renumbered && damage.lost.is_empty() => (GapReason::SetBack, None),
        damage => (GapReason::SpoolDamaged, damage.as_ref().and_then(lost_records)),
    }
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
