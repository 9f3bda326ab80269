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

mod scope;
pub mod settle;
mod sink;
mod sweep;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use tracing::{info, warn};
use trueline_drift::diff::diff;
use trueline_drift::watch::WatchPolicy;
use trueline_drift::{
    Actor, Cause, Change, CoverageGap, GapReason, ItemId, ItemKey, ItemKind, Observation, RecordBody, Sequence, Time, text,
};

use crate::clock;
use crate::collect::{Collectors, Reading};
use crate::link::{Errand, ScanAnswer};
use crate::sensor::{Coverage, Depth, Loss, Sensors, Signal, Target, View};
use crate::state::{InventoryComplete, Scope as StateScope, Seen, State, StateError, Stored, StoredPolicy};
use crate::status::{Phase, Progress, Status};

pub use scope::Scope;
pub use settle::{Patience, Settle, Settled};
pub use sink::{ReplayError, Sink, SinkError, SpoolSink, catch_up};
use sweep::Sweep;
pub use sweep::{Plan, Why};

/// Longest sleep: how soon a stop or an errand is noticed.
const LONGEST_WAIT: Duration = Duration::from_millis(250);
/// Between offers of a batch that was not taken.
const OFFER_AGAIN: Duration = Duration::from_millis(250);
/// How often the agent notes that it is alive: the precision of a gap after a crash.
const ALIVE_EVERY: Duration = Duration::from_secs(5);
/// Settings that no sensor watches are read this often; those that one does, ten times less.
const POLL_UNWATCHED: Duration = Duration::from_secs(30);
const BATCH: usize = 512;
/// Items of a scan that are handed on together.
const GATHERED: usize = 2048;
/// How long they may wait for each other.
const GATHERING: Duration = Duration::from_millis(200);
/// Folders that wait to be read one by one; beyond, all files are read again.
const TREES: usize = 1000;
/// Before a sweep that failed is tried again.
const RETRY: Duration = Duration::from_secs(30);

/// Records and the readings they came from, on their way to the sink and then the state.
#[derive(Default)]
struct Offer {
    records: Vec<RecordBody>,
    updates: HashMap<ItemId, Option<Stored>>,
    /// Set once the sink took the records.
    taken: Option<Sequence>,
}

impl Offer {
    fn is_empty(&self) -> bool {
        self.records.is_empty() && self.updates.is_empty()
    }
}

/// What the rest of the agent gives the observer.
pub struct ObserverParts<S> {
    pub collectors: Collectors,
    pub policy: Arc<WatchPolicy>,
    pub state: Arc<State>,
    pub sink: S,
    pub status: Arc<Status>,
    pub sensors: Option<Arc<Sensors>>,
    pub scan_threads: usize,
    /// Touched while the agent lives.
    pub alive_file: Option<PathBuf>,
    pub answers: Option<tokio::sync::mpsc::Sender<ScanAnswer>>,
    pub policy_version: tokio::sync::watch::Sender<u64>,
}

pub struct Observer<S> {
    parts: ObserverParts<S>,
    settle: Settle,
    plans: VecDeque<Plan>,
    sweep: Option<Sweep>,
    offer: Offer,
    offer_again: Option<Instant>,
    holding_since: Option<Time>,
    /// Nobody takes records any more.
    is_closed: bool,
    /// What was last known to be complete: creations happened after this.
    complete_at: Time,
    /// Whether everything was told in this epoch.
    is_inventoried: bool,
    /// Set when the present watch list was read in full, until the state knows.
    covers_anew: bool,
    /// Sweeps that failed, and when to try each again.
    retries: Vec<(Instant, Plan)>,
    handed_on: Instant,
    /// Kept in the state once its record is handed on.
    inventory_to_note: Option<InventoryComplete>,
    next_full_scan: Instant,
    next_poll: Instant,
    next_alive: Instant,
}

impl<S: Sink> Observer<S> {
    /// `plans` are carried out in order before anything else is planned.
    pub fn new(parts: ObserverParts<S>, plans: Vec<Plan>) -> Self {
        let full_scan = Duration::from_secs(parts.policy.full_scan_seconds);
        let is_inventoried = !plans.iter().any(|plan| matches!(plan.why, Why::Inventory));
        Self {
            parts,
            settle: Settle::new(Patience::default()),
            plans: plans.into(),
            sweep: None,
            offer: Offer::default(),
            offer_again: None,
            holding_since: None,
            is_closed: false,
            complete_at: clock::now(),
            is_inventoried,
            covers_anew: false,
            retries: Vec::new(),
            handed_on: Instant::now(),
            inventory_to_note: None,
            next_full_scan: Instant::now() + full_scan,
            next_poll: Instant::now() + POLL_UNWATCHED,
            next_alive: Instant::now(),
        }
    }

    /// Runs until `stop` is set or nobody takes the records any more.
    pub fn run(mut self, signals: &Receiver<Signal>, errands: &mut tokio::sync::mpsc::Receiver<Errand>, stop: &AtomicBool) {
        while !stop.load(Ordering::Relaxed) {
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
            if !settled.is_empty() {
                self.examine(settled);
                self.hand_on();
                continue;
            }
            self.work_on_sweep();
        }
        // What has settled already is worth a last look; the rest is found after the restart.
        if self.hand_on() {
            let rest = self.settle.take_due(Instant::now() + Duration::from_secs(60), BATCH);
            self.examine(rest);
            self.hand_on();
        }
        if let Err(error) = self.parts.state.flush() {
            warn!(%error, "the state could not be synced; the spool repeats what is missing");
        }
        self.note_alive();
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
        if (self.sweep.is_some() || !self.plans.is_empty()) && !is_waiting {
            wait = Duration::ZERO;
        }
        if !is_waiting && let Some(due) = self.settle.next_due() {
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
            Signal::Touched(touch) => self.settle.touch(touch, Instant::now()),
            Signal::Lost(loss) => {
                warn!(scope = %loss.scope, reason = loss.reason.name(), "events were lost; reading the scope again");
                self.plan(Plan { scope: Scope::parse(&loss.scope), why: Why::Lost(loss) });
            }
        }
    }

    /// What already waits to be read needs no second reading.
    fn plan(&mut self, plan: Plan) {
        if matches!(plan.why, Why::Lost(_) | Why::Asked { .. } | Why::NewPolicy { .. }) {
            self.put_off_schedule();
        }
        let waits_already = self.plans.iter().any(|waiting| match (&waiting.why, &plan.why) {
            (Why::Schedule, Why::Schedule) => waiting.scope == plan.scope,
            (Why::Tree { .. }, Why::Tree { .. }) => waiting.scope.holds(&plan.scope),
            _ => false,
        });
        if waits_already {
            return;
        }
        if matches!(plan.why, Why::Tree { .. }) && self.plans.len() >= TREES {
            // More new folders than are worth a reading each.
            self.plans.retain(|waiting| !matches!(waiting.why, Why::Tree { .. }));
            let loss = Loss { scope: "file:*".to_owned(), reason: GapReason::QueueOverflow, began_at: clock::now(), lost: None };
            return self.plan(Plan { scope: Scope::Kind(ItemKind::File), why: Why::Lost(loss) });
        }
        let covers = |waiting: &Plan| {
            waiting.scope == plan.scope && matches!((&waiting.why, &plan.why), (Why::Lost(a), Why::Lost(b)) if a.reason == b.reason)
        };
        match self.plans.iter_mut().find(|waiting| covers(waiting)) {
            Some(Plan { why: Why::Lost(waiting), .. }) => {
                if let (Why::Lost(loss), Some(sum)) = (&plan.why, waiting.lost.as_mut()) {
                    *sum += loss.lost.unwrap_or(0);
                }
            }
            _ => {
                // What is due by the clock alone can wait.
                let is_scheduled = |waiting: &Plan| matches!(waiting.why, Why::Schedule);
                let place = match plan.why {
                    Why::Schedule => self.plans.len(),
                    _ => self.plans.iter().position(is_scheduled).unwrap_or(self.plans.len()),
                };
                self.plans.insert(place, plan);
            }
        }
    }

    fn accept(&mut self, errand: Errand) {
        match errand {
            Errand::Scan { id, scope } => self.plan(Plan { scope: Scope::parse(&scope), why: Why::Asked { id } }),
            Errand::Policy(policy) => self.change_policy(*policy),
        }
    }

    fn change_policy(&mut self, policy: WatchPolicy) {
        let policy = View::new(&policy).policy().clone();
        if policy == *self.parts.policy {
            return;
        }
        info!(version = policy.version, "the watch list changes");
        let document = trueline_drift::document::to_yaml(&policy);
        if let Err(error) = self.parts.state.set_policy(&StoredPolicy { version: policy.version, document }) {
            warn!(%error, "the new watch list could not be kept; staying with the present one");
            return;
        }
        let before = std::mem::replace(&mut self.parts.policy, Arc::new(policy));
        self.parts.collectors.set_policy(Arc::clone(&self.parts.policy));
        if let Some(sensors) = &self.parts.sensors {
            sensors.update(&sensor_policy(&self.parts.policy, &self.parts.collectors));
        }
        self.parts.policy_version.send_replace(self.parts.policy.version);
        self.next_full_scan = Instant::now() + Duration::from_secs(self.parts.policy.full_scan_seconds);
        self.plan(Plan { scope: Scope::All, why: Why::NewPolicy { before, since: clock::now() } });
    }

    fn keep_time(&mut self) {
        let now = Instant::now();
        let due = self.retries.extract_if(.., |(due, _)| now >= *due);
        self.plans.extend(due.map(|(_, plan)| plan));
        if now >= self.next_alive {
            self.next_alive = now + ALIVE_EVERY;
            self.note_alive();
            match self.parts.state.flush() {
                Ok(()) => self.parts.sink.applied(self.parts.state.durable_spooled()),
                Err(error) => warn!(%error, "the state could not be synced; the spool keeps what is missing"),
            }
        }
        if now >= self.next_full_scan {
            self.next_full_scan = now + Duration::from_secs(self.parts.policy.full_scan_seconds);
            self.plan(Plan { scope: Scope::All, why: Why::Schedule });
        }
        if now >= self.next_poll {
            let is_watched = |row: &Coverage| row.watching && row.scope.starts_with("sysctl:");
            let watched = self.parts.sensors.as_ref().is_some_and(|sensors| sensors.coverage().iter().any(is_watched));
            self.next_poll = now + if watched { POLL_UNWATCHED * 10 } else { POLL_UNWATCHED };
            if self.parts.policy.watches_kind(ItemKind::Sysctl) {
                self.plan(Plan { scope: Scope::Kind(ItemKind::Sysctl), why: Why::Schedule });
            }
        }
    }

    /// While changes are held back the agent is not alive in the sense of the gap that a crash would
    /// leave.
    fn note_alive(&self) {
        if self.holding_since.is_none()
            && let Some(path) = &self.parts.alive_file
            && let Err(error) = touch_file(path)
        {
            warn!(path = %path.display(), %error, "cannot note that the agent is alive");
        }
    }

    /// Reads what has settled and notes what changed.
    fn examine(&mut self, settled: Vec<Settled>) {
        let mut kinds: BTreeMap<ItemKind, Actor> = BTreeMap::new();
        for touched in settled {
            let actor = settle::actor_of(&touched);
            match &touched.target {
                Target::Sysctl(name) => {
                    if self.parts.policy.watches_sysctl(name)
                        && let Ok(key) = ItemKey::from_text(name)
                    {
                        self.read_and_compare(&ItemId::new(ItemKind::Sysctl, key), Cause::Event, &actor);
                    }
                }
                Target::Path(path) => {
                    for kind in self.parts.collectors.kinds_behind(path) {
                        kinds.insert(kind, actor.clone());
                    }
                    self.examine_path(path, touched.depth, &actor);
                }
            }
        }
        for (kind, actor) in kinds {
            if let Err(fault) = self.compare_kind(kind, Cause::Event, &actor, None) {
                self.read_later(Scope::Kind(kind), &fault);
            }
        }
    }

    fn examine_path(&mut self, path: &[u8], depth: Depth, actor: &Actor) {
        let printable = text::printable(path);
        if !self.parts.policy.watches_path(&printable) {
            return;
        }
        let item = match ItemKey::from_bytes(path) {
            Ok(key) => ItemId::new(ItemKind::File, key),
            Err(error) => return self.note_failure(&text::bounded(&printable, 80), &error),
        };
        let was_folder = self.stored(&item).ok().flatten().is_some_and(|stored| is_folder(&stored.fields));
        let now_folder = self.read_and_compare(&item, Cause::Event, actor).is_some_and(|fields| is_folder(&fields));
        // What lies in a folder comes and goes with it, by the same hand.
        if (was_folder && !now_folder) || (now_folder && depth == Depth::Tree) {
            self.plan(Plan { scope: Scope::Path(printable.into_owned()), why: Why::Tree { actor: Box::new(actor.clone()) } });
        }
    }

    /// The items of a scope that the state holds.
    fn known_items(&self, scope: &StateScope) -> Result<Vec<ItemId>, String> {
        let mut items: Vec<ItemId> = Vec::new();
        loop {
            let more = self.parts.state.unseen(scope, &mut Seen::new(), items.last(), BATCH).map_err(|error| error.to_string())?;
            if more.is_empty() {
                return Ok(items);
            }
            items.extend(more);
        }
    }

    /// Reads an item and notes what changed; its fields, if it is there.
    fn read_and_compare(&mut self, item: &ItemId, cause: Cause, actor: &Actor) -> Option<trueline_drift::Fields> {
        match self.parts.collectors.read_item(item, None) {
            Ok(reading) => {
                let fields = reading.as_ref().map(|reading| reading.fields.clone());
                self.compare(item.clone(), reading, cause, actor, self.novelty(item));
                fields
            }
            Err(error) => {
                self.note_failure(item.key.as_str(), &error);
                if cause == Cause::Event {
                    self.read_later(Scope::of(item), &error);
                }
                None
            }
        }
    }

    /// An event that could not be followed by a reading is a loss like any other.
    fn read_later(&mut self, scope: Scope, reason: &dyn std::fmt::Display) {
        warn!(%scope, %reason, "it will be read again");
        let loss = Loss { scope: scope.to_string(), reason: GapReason::SensorLost, began_at: clock::now(), lost: None };
        self.plan(Plan { scope, why: Why::Lost(loss) });
    }

    /// Reads all items of a kind that has no scan of its own. Items new to the state are created
    /// unless `novelty` says otherwise.
    fn compare_kind(
        &mut self,
        kind: ItemKind,
        cause: Cause,
        actor: &Actor,
        novelty: Option<&dyn Fn(&ItemId) -> Novelty>,
    ) -> Result<u64, String> {
        let listed = self.parts.collectors.read_kind(kind).map_err(|error| {
            self.note_failure(kind.name(), &error);
            error.to_string()
        })?;
        let mut missing: HashSet<ItemId> = self.known_items(&StateScope::kind(kind))?.into_iter().collect();
        let count = listed.len() as u64;
        for (item, reading) in listed {
            missing.remove(&item);
            let novelty = novelty.map_or_else(|| self.novelty(&item), |novelty| novelty(&item));
            self.compare(item, Some(reading), cause, actor, novelty);
        }
        for item in missing {
            self.compare(item, None, cause, actor, Novelty::Created);
        }
        Ok(count)
    }

    /// The heart: what was known, what is now, and a record of the difference.
    fn compare(&mut self, item: ItemId, reading: Option<Reading>, cause: Cause, actor: &Actor, novelty: Novelty) {
        if cause == Cause::Event
            && let Some(sweep) = &mut self.sweep
        {
            sweep.note_touched(item.clone());
        }
        let now = clock::now();
        let stored = match self.stored(&item) {
            Ok(stored) => stored,
            // Compared with nothing it would be called new.
            Err(error) => return self.read_later(Scope::of(&item), &error),
        };
        let (fields, stamp) = match reading {
            Some(reading) => (Some(reading.fields), reading.stamp),
            None => (None, None),
        };
        let update = fields.clone().map(|fields| Stored { fields, observed_at: now, stamp });
        let (before, observed_after, known_stamp) = match stored {
            Some(stored) => (Some(stored.fields), stored.observed_at, Some(stored.stamp)),
            None => (None, self.complete_at, None),
        };
        if before.is_none() && novelty == Novelty::FirstSight {
            if let Some(fields) = fields {
                self.offer.records.push(RecordBody::Observed(Observation { item: item.clone(), fields, observed_at: now }));
                self.offer.updates.insert(item, update);
            }
            return;
        }
        let is_retelling = !self.is_inventoried;
        let Some(difference) = diff(before, fields.clone()) else {
            if let Some(fields) = fields.filter(|_| is_retelling) {
                // Known here from an epoch before: the collector has yet to hear of it in this one.
                self.offer.records.push(RecordBody::Observed(Observation { item: item.clone(), fields, observed_at: now }));
                self.offer.updates.insert(item, update);
                return;
            }
            // The same to everybody but the next quick scan.
            if known_stamp.is_some_and(|known| known != stamp) {
                self.offer.updates.insert(item, update);
            }
            return;
        };
        self.parts.status.changes.fetch_add(1, Ordering::Relaxed);
        let change = Change {
            item: item.clone(),
            kind: difference.kind,
            fields: difference.fields,
            unchanged: difference.unchanged,
            observed_after,
            observed_at: now,
            cause,
            actor: actor.clone(),
            transaction: None,
        };
        self.offer.records.push(RecordBody::Changed(Box::new(change)));
        self.offer.updates.insert(item, update);
    }

    /// Whether an item that the state does not know can be called new.
    fn novelty(&self, item: &ItemId) -> Novelty {
        let reasons = self.sweep.iter().map(|sweep| &sweep.plan.why).chain(self.plans.iter().map(|plan| &plan.why));
        let is_new_in_view = reasons.filter_map(Why::policy_before).any(|before| !before.watches(item));
        if self.is_inventoried && !is_new_in_view { Novelty::Created } else { Novelty::FirstSight }
    }

    fn stored(&self, item: &ItemId) -> Result<Option<Stored>, StateError> {
        match self.offer.updates.get(item) {
            Some(update) => Ok(update.clone()),
            None => self.parts.state.lookup(item),
        }
    }

    fn note_failure(&self, subject: &str, error: &dyn std::fmt::Display) {
        self.parts.status.read_failures.fetch_add(1, Ordering::Relaxed);
        warn!(subject, %error, "an item could not be read");
    }

    /// Whether the offer should still grow: large commits of sorted rows are what makes an inventory
    /// cheap. Only what a scan found waits; what an event showed is handed on at once.
    fn is_gathering(&self) -> bool {
        let is_scanning = self.sweep.as_ref().is_some_and(Sweep::is_scanning);
        let is_young = self.handed_on.elapsed() < GATHERING;
        is_scanning && is_young && self.offer_again.is_none() && self.offer.updates.len() < GATHERED
    }

    /// Hands the offer to the sink and then to the state. `true` when nothing is left of it.
    fn hand_on(&mut self) -> bool {
        if self.offer_again.is_some_and(|again| Instant::now() < again) {
            return false;
        }
        if self.parts.state.is_closed()
            && let Err(error) = self.parts.sink.restore(&self.parts.state)
        {
            self.hold(&SinkError::Full(error.to_string()));
            return false;
        }
        if self.offer.is_empty() {
            self.release();
            return true;
        }
        if self.offer.taken.is_none() && !self.offer.records.is_empty() {
            match self.parts.sink.put(&self.offer.records) {
                Ok(last) => self.offer.taken = Some(last),
                Err(error) => {
                    self.hold(&error);
                    return false;
                }
            }
        }
        let mut updates: Vec<(ItemId, Option<Stored>)> =
            self.offer.updates.iter().map(|(item, update)| (item.clone(), update.clone())).collect();
        updates.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        let spooled = self.offer.taken.map(|sequence| (self.parts.sink.epoch(), sequence));
        if let Err(error) = self.parts.state.apply(&updates, spooled) {
            // What the sink has, it can tell again.
            if let Err(again) = self.parts.sink.restore(&self.parts.state) {
                self.hold(&SinkError::Full(format!("{error}; {again}")));
                return false;
            }
        }
        self.offer = Offer::default();
        self.handed_on = Instant::now();
        if let Some(complete) = self.inventory_to_note.take()
            && let Err(error) = self.parts.state.set_inventory_complete(complete)
        {
            warn!(%error, "the end of the inventory could not be kept; it is taken again at the next start");
        }
        if std::mem::take(&mut self.covers_anew)
            && let Err(error) = self.parts.state.set_covered(&trueline_drift::document::to_yaml(&*self.parts.policy))
        {
            warn!(%error, "the watch list of this inventory could not be kept; what it added is read again at the next start");
        }
        self.parts.sink.applied(self.parts.state.durable_spooled());
        self.release();
        true
    }

    /// Notes that nothing can be handed on now.
    fn hold(&mut self, error: &SinkError) {
        self.offer_again = Some(Instant::now() + OFFER_AGAIN);
        if self.holding_since.is_none() {
            let now = clock::now();
            warn!(%error, "holding changes back until there is room");
            self.holding_since = Some(now);
            self.parts.status.hold_since(Some(now));
        }
        self.parts.status.held.store((self.offer.records.len() + self.settle.len()) as u64, Ordering::Relaxed);
        self.parts.status.trouble("spool", Some(format!("changes are held back: {error}")));
        self.is_closed = matches!(error, SinkError::Closed);
    }

    /// After a hold: says that readings came late, for changes in between were merged.
    fn release(&mut self) {
        self.offer_again = None;
        let Some(since) = self.holding_since.take() else { return };
        info!("there is room again; what was held is handed on");
        self.parts.status.hold_since(None);
        self.parts.status.trouble("spool", None);
        self.offer.records.push(RecordBody::Gap(CoverageGap {
            scope: "*".to_owned(),
            reason: GapReason::SpoolFull,
            began_at: since,
            ended_at: Some(clock::now()),
            lost: None,
            remedy: Some(format!(
                "nothing was dropped; {} items waited to be read, and what changed twice meanwhile is one change",
                self.settle.len()
            )),
        }));
    }

    fn report_progress(&self, phase: Phase, items: u64, bytes: u64) {
        self.parts.status.advance(Progress { phase, items, bytes });
    }
}

/// What an item that the state does not know is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Novelty {
    /// New to the agent: it was not watched before.
    FirstSight,
    /// New on the host.
    Created,
}

fn is_folder(fields: &trueline_drift::Fields) -> bool {
    fields.value("type") == Some(&trueline_drift::Value::text("folder"))
}

/// What the sensors must watch: the policy's paths and what the derived kinds are read from.
pub fn sensor_policy(policy: &WatchPolicy, collectors: &Collectors) -> WatchPolicy {
    let mut paths = policy.paths.clone();
    paths.extend(collectors.extra_paths());
    WatchPolicy { paths, ..policy.clone() }
}

fn touch_file(path: &std::path::Path) -> std::io::Result<()> {
    let file = std::fs::OpenOptions::new().create(true).append(true).open(path)?;
    file.set_modified(std::time::SystemTime::now())
}
