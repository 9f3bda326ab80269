//! The observer: settle, read again, diff, hand on. The one thread that writes the state and the spool.
//!
//! Invariants:
//! - A value enters only by reading the item; an event merely names it. Events, restarts, losses,
//!   schedules and requests all end in [`Observer::compare`].
//! - Records are handed on before the state takes them, and a batch that is not taken is offered again
//!   unchanged. Meanwhile nothing is read: touches wait in [`settle`], then in the kernel's queue,
//!   whose overflow is a loss that is itself reported.
//! - Every loss ends with a gap record, after the scope was read again.
//! - What a scan read is never believed over what an event showed later.

mod activity;
mod aside;
mod candidates;
mod compare;
mod examine;
mod findings;
mod freshness;
mod interim;
mod kinds;
mod learnt;
mod lines;
mod links;
mod offer;
mod plans;
mod polls;
mod runs;
mod scope;
mod sessions;
pub mod settle;
mod sink;
mod sweep;
#[cfg(test)]
mod tests;
mod transients;
mod unpacking;

use std::collections::BTreeSet;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use tracing::{info, warn};
use trueline_drift::redact::{RedactionKey, Rules};
use trueline_drift::watch::WatchPolicy;
use trueline_drift::{Actor, ItemKind, Time};

use crate::actor::candidates::Activities;
use crate::actor::complete::Completion;
use crate::clock;
use crate::collect::Collectors;
use crate::link::{Configuration, Configured, Errand, ScanAnswer};
use crate::sensor::{Sensors, Signal, View};
use crate::state::{InventoryComplete, State, StateError, StoredPolicy};
use crate::status::{Phase, Progress, Status};

use activity::Activity;
use aside::Aside;
pub use aside::LARGE;
use compare::Novelty;
use findings::Findings;
use interim::Interim;
use links::Links;
use offer::{Hold, Offer};
use plans::Plans;
pub use plans::{Plan, Why};
use polls::Polls;
use runs::Runs;
pub use scope::Scope;
pub use settle::{Patience, Settle, Settled};
pub use sink::{ReplayError, Sink, SinkError, SpoolSink, catch_up};
use sweep::Sweep;
use unpacking::Unpacking;

/// Longest sleep: how soon a stop or an errand is noticed.
const LONGEST_WAIT: Duration = Duration::from_millis(250);
/// Between offers of a batch that was not taken.
const OFFER_AGAIN: Duration = Duration::from_millis(250);
/// How often the agent notes that it is alive: the precision of a gap after a crash.
const ALIVE_EVERY: Duration = Duration::from_secs(5);
/// Between a written setting and the reading of all: one that the kernel changed with it is then found.
const RIPPLE: Duration = Duration::from_secs(1);
/// For the next batch of a scan where nothing else is due.
const SCAN_WAIT: Duration = Duration::from_millis(2);
const BATCH: usize = 512;
/// Before a sweep that failed is tried again.
pub const RETRY: Duration = Duration::from_secs(30);

/// What the rest of the agent gives the observer.
pub struct ObserverParts<S> {
    pub collectors: Collectors,
    pub policy: Arc<WatchPolicy>,
    /// What the host's own configuration says: in force where the collector has no policy.
    pub own_policy: Arc<WatchPolicy>,
    pub state: Arc<State>,
    pub sink: S,
    /// Makes whole whom a sensor named.
    pub completion: Completion,
    pub status: Arc<Status>,
    pub sensors: Option<Arc<Sensors>>,
    pub scan_threads: usize,
    /// Before a sweep that failed is tried again.
    pub retry_after: Duration,
    /// Touched while the agent lives.
    pub alive_file: Option<PathBuf>,
    pub answers: Option<tokio::sync::mpsc::Sender<ScanAnswer>>,
    pub policy_version: tokio::sync::watch::Sender<u64>,
}

pub struct Observer<S> {
    parts: ObserverParts<S>,
    settle: Settle,
    unpacking: Unpacking,
    plans: Plans,
    sweep: Option<Sweep>,
    /// A scheduled scan that stepped aside: it goes on when nothing else is to be read.
    put_off: Option<Sweep>,
    findings: Findings,
    /// No write was told of what is being read for its event.
    unwritten: bool,
    /// Of files and of what the kernel holds, all that happened before this time was told; by the clock that inodes are stamped with.
    told_until: Time,
    kernel_told_until: Time,
    /// It looks for the last time: nothing is put off.
    is_leaving: bool,
    aside: Aside,
    links: Links,
    offer: Offer,
    offer_again: Option<Instant>,
    holding: Option<Hold>,
    /// Nobody takes records any more.
    is_closed: bool,
    /// Everything that was there then is known: what is not known was created after this.
    complete_at: Time,
    /// Whether everything was told in this epoch.
    is_inventoried: bool,
    /// Set when the present watch list was read in full, until the state knows.
    covers_anew: bool,
    handed_on: Instant,
    /// Kept in the state once its record is handed on.
    inventory_to_note: Option<InventoryComplete>,
    next_full_scan: Instant,
    polls: Polls,
    interim: Interim,
    activity: Activity,
    /// Kinds in view that could never be read yet: what they hold is not new once they can.
    unread: BTreeSet<ItemKind>,
    /// In which all items were last told.
    vocabulary: u64,
    /// Kept in the state once what was read is handed on.
    vocabulary_to_note: Option<u64>,
    /// Not all items have been read since what they are redacted by changed.
    masks_anew: bool,
    /// Set when they have, until the state knows.
    masked_anew: bool,
    /// The version of the sessions that was told.
    sessions_told: u64,
    next_sessions: Instant,
    /// When the last of those ended that were let go of.
    sessions_let_go: Option<Time>,
    /// What else went on, for changes that nobody was seen to make.
    activities: Activities,
    runs: Runs,
    /// Who wrote a setting since all were read.
    ripple: Option<Actor>,
    next_alive: Instant,
}

/// Whether the items of a state were redacted by something else. One that does not say was by this host's key alone.
fn masks_anew(state: &State, key: &RedactionKey) -> bool {
    let by = state.redaction().ok().flatten().unwrap_or_else(|| key.clone().with_rules(Rules::default()).fingerprint());
    by != key.fingerprint()
}

impl<S: Sink> Observer<S> {
    /// `plans` are carried out in order before anything else is planned.
    pub fn new(parts: ObserverParts<S>, plans: Vec<Plan>) -> Self {
        let full_scan = Duration::from_secs(parts.policy.full_scan_seconds);
        let since = plans.iter().find_map(|plan| match plan.why {
            Why::Restart { since } => Some(since),
            _ => None,
        });
        let is_inventoried = !plans.iter().any(|plan| matches!(plan.why, Why::Inventory));
        let parts = ObserverParts { collectors: parts.collectors.files_at_most(LARGE), ..parts };
        let activities = Activities::beneath(parts.collectors.root());
        let vocabulary = parts.state.vocabulary().ok().flatten().unwrap_or(0);
        let masks_anew = masks_anew(&parts.state, parts.collectors.key());
        let aside = Aside::new(parts.collectors.key().clone());
        Self {
            plans: Plans::new(plans, parts.retry_after),
            parts,
            settle: Settle::new(Patience::default()),
            unpacking: Unpacking::default(),
            sweep: None,
            put_off: None,
            findings: Findings::default(),
            unwritten: false,
            told_until: Time::default(),
            kernel_told_until: Time::default(),
            is_leaving: false,
            aside,
            links: Links::default(),
            offer: Offer::default(),
            offer_again: None,
            holding: None,
            is_closed: false,
            complete_at: since.unwrap_or_else(clock::now),
            is_inventoried,
            covers_anew: false,
            handed_on: Instant::now(),
            inventory_to_note: None,
            next_full_scan: Instant::now() + full_scan,
            polls: Polls::default(),
            interim: Interim::default(),
            activity: Activity::default(),
            unread: BTreeSet::new(),
            vocabulary,
            vocabulary_to_note: None,
            masks_anew,
            masked_anew: false,
            sessions_told: 0,
            next_sessions: Instant::now(),
            sessions_let_go: None,
            activities,
            runs: Runs::default(),
            ripple: None,
            next_alive: Instant::now(),
        }
    }

    /// Runs until `stop` is set or nobody takes the records any more.
    pub fn run(mut self, signals: &Receiver<Signal>, errands: &mut tokio::sync::mpsc::Receiver<Errand>, stop: &AtomicBool) {
        self.note_counts();
        while !stop.load(Ordering::Relaxed) {
            self.parts.status.heartbeats.observer.beat();
            self.listen(signals);
            while let Ok(errand) = errands.try_recv() {
                self.accept(errand);
            }
            self.keep_time();
            if (self.parts.state.is_closed() || !self.is_gathering()) && !self.hand_on() {
                if self.is_closed {
                    return;
                }
                continue;
            }
            let now = Instant::now();
            let settled = self.settle.take_due(now, BATCH);
            let mut settled = self.hold_back(settled, now);
            settled.extend(self.let_go(now, false));
            let is_quiet = settled.is_empty();
            if !is_quiet {
                self.examine(settled);
                if !self.hand_on() {
                    continue;
                }
            }
            // Also beside a steady stream of events, else what was lost would never be read again.
            self.work_aside();
            self.work_on_links();
            self.tell_found(Instant::now());
            if self.can_sweep() {
                self.work_on_sweep(if is_quiet { SCAN_WAIT } else { Duration::ZERO });
            }
        }
        // What has settled already is worth a last look; the rest is found after the restart.
        if self.hand_on() {
            self.is_leaving = true;
            let mut rest = self.settle.take_due(Instant::now() + Duration::from_secs(60), BATCH);
            rest.extend(self.let_go(Instant::now(), true));
            self.examine(rest);
            self.hand_on();
        }
        if let Err(error) = self.parts.state.flush() {
            warn!(%error, "the state could not be synced; the spool repeats what is missing");
        }
        self.note_alive();
    }

    /// A sweep ends only once all that it found is told.
    fn can_sweep(&self) -> bool {
        if self.sweep.as_ref().is_some_and(Sweep::is_read) { self.findings.is_empty() } else { self.findings.has_room() }
    }

    /// Takes signals until the next thing is due.
    fn listen(&mut self, signals: &Receiver<Signal>) {
        let is_waiting = self.offer_again.is_some();
        if is_waiting && self.settle.is_full() {
            // Backpressure: the rest stays with the kernel.
            std::thread::sleep(OFFER_AGAIN);
            return;
        }
        let now = Instant::now();
        let mut wait = LONGEST_WAIT;
        if (self.sweep.is_some() || !self.plans.is_empty()) && self.can_sweep() && !is_waiting {
            wait = Duration::ZERO;
        }
        let dues = [self.settle.next_due(), self.unpacking.next_due(), self.findings.due(now), self.links.next_due(now)];
        if !is_waiting && let Some(due) = dues.into_iter().flatten().min() {
            wait = wait.min(due.saturating_duration_since(now));
        }
        match signals.recv_timeout(wait) {
            Ok(signal) => self.heed(signal),
            Err(RecvTimeoutError::Timeout) => return,
            Err(RecvTimeoutError::Disconnected) => {
                // Without sensors there is still the schedule.
                std::thread::sleep(wait);
                return;
            }
        }
        // Each signal that is taken is heeded: taking one more than is heeded would lose it.
        for signal in signals.try_iter().take(BATCH) {
            self.heed(signal);
        }
    }

    fn heed(&mut self, signal: Signal) {
        match signal {
            Signal::Image(image) => self.parts.completion.note(*image, &self.parts.state),
            Signal::Touched(touch) => self.settle.touch(touch, Instant::now()),
            Signal::ToldUntil { files, kernel } => (self.told_until, self.kernel_told_until) = (files, kernel),
            Signal::CaughtUp(answer) => self.findings.note_caught_up(answer, Instant::now()),
            Signal::Lost(loss) => {
                warn!(scope = %loss.scope, reason = loss.reason.name(), "events were lost; reading the scope again");
                self.plan(Plan { scope: Scope::parse(&loss.scope), why: Why::Lost(loss) });
            }
        }
    }

    fn plan(&mut self, plan: Plan) {
        if !matches!(plan.why, Why::Schedule) {
            self.put_off_schedule();
        }
        self.plans.add(plan, clock::now());
    }

    fn accept(&mut self, errand: Errand) {
        match errand {
            Errand::Scan { id, scope } => self.plan(Plan { scope: Scope::parse(&scope), why: Why::Asked { id } }),
            Errand::Policy(policy) => {
                let policy = View::new(&policy).policy().clone();
                let document = trueline_drift::document::to_yaml(&policy);
                let kept = self.parts.state.set_policy(&StoredPolicy { version: policy.version, document });
                self.change_policy(policy, kept);
            }
            Errand::OwnPolicy => {
                let policy = View::new(&self.parts.own_policy).policy().clone();
                let kept = self.parts.state.forget_policy();
                self.change_policy(policy, kept);
            }
            Errand::Configure(configuration) => {
                let Configuration { watch, scan_threads, outcome } = *configuration;
                // Whoever asked may have given up waiting.
                let _ = outcome.send(self.configure(watch, scan_threads));
            }
        }
    }

    /// Takes what the host's own configuration says now.
    fn configure(&mut self, watch: WatchPolicy, scan_threads: usize) -> Configured {
        self.parts.scan_threads = scan_threads;
        self.parts.own_policy = Arc::new(watch);
        match self.parts.state.policy() {
            Ok(None) => {
                self.change_policy(View::new(&self.parts.own_policy).policy().clone(), Ok(()));
                Configured::InForce
            }
            Ok(Some(collectors)) => Configured::Overruled { version: collectors.version },
            Err(error) => Configured::Failed { reason: error.to_string() },
        }
    }

    fn change_policy(&mut self, policy: WatchPolicy, kept: Result<(), StateError>) {
        if let Err(error) = kept {
            warn!(%error, "the new watch list could not be kept; staying with the present one");
            return;
        }
        if policy == *self.parts.policy {
            return;
        }
        info!(version = policy.version, "the watch list changes");
        let before = std::mem::replace(&mut self.parts.policy, Arc::new(policy));
        self.parts.collectors.set_policy(Arc::clone(&self.parts.policy));
        if let Some(sensors) = &self.parts.sensors {
            sensors.update(&sensor_policy(&self.parts.policy, &self.parts.collectors));
        }
        self.parts.policy_version.send_replace(self.parts.policy.version);
        self.next_full_scan = Instant::now() + Duration::from_secs(self.parts.policy.full_scan_seconds);
        self.plan(Plan { scope: Scope::All, why: Why::NewPolicy { before, since: clock::now() } });
        if let Some(Sweep { plan, .. }) = self.put_off.take() {
            // It reads what the old list has.
            self.plan(plan);
        }
    }

    fn keep_time(&mut self) {
        let now = Instant::now();
        if now >= self.next_alive {
            self.next_alive = now + ALIVE_EVERY;
            self.note_alive();
            self.parts.status.trouble("logins", self.parts.completion.trouble());
            match self.parts.state.flush() {
                Ok(()) => self.parts.sink.applied(self.parts.state.durable_spooled()),
                Err(error) => warn!(%error, "the state could not be synced; the spool keeps what is missing"),
            }
        }
        if now >= self.next_full_scan {
            self.next_full_scan = now + Duration::from_secs(self.parts.policy.full_scan_seconds);
            self.plan(Plan { scope: Scope::All, why: Why::Schedule });
        }
        self.tell_sessions();
        self.look_at_runs(now);
        self.look_at_activity(now);
        // Nothing is read while an offer waits.
        if self.offer_again.is_none() {
            let polled: Vec<_> = self.parts.collectors.polled().chain(self.interim.polled()).chain(self.activity.polled()).collect();
            let coverage = || self.parts.sensors.as_ref().map_or_else(Vec::new, |sensors| sensors.coverage());
            if let Some(kind) = self.polls.take_due(&polled, now, coverage) {
                self.poll_kind(kind);
            }
        }
    }

    /// While changes are held back the agent is not alive in the sense of the gap that a crash would
    /// leave.
    fn note_alive(&self) {
        if self.holding.is_none()
            && let Some(path) = &self.parts.alive_file
            && let Err(error) = touch_file(path)
        {
            warn!(path = %path.display(), %error, "cannot note that the agent is alive");
        }
    }

    fn report_progress(&self, phase: Phase, items: u64, bytes: u64) {
        self.parts.status.advance(Progress { phase, items, bytes });
    }
}

/// What the sensors must watch: the policy's paths and what the derived kinds are read from.
pub fn sensor_policy(policy: &WatchPolicy, collectors: &Collectors) -> WatchPolicy {
    let mut paths = policy.paths.clone();
    paths.extend(collectors.extra_paths());
    WatchPolicy { paths, ..policy.clone() }
}

fn touch_file(path: &std::path::Path) -> std::io::Result<()> {
    let file = std::fs::OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
    file.set_modified(std::time::SystemTime::now())
}
