//! Reading a scope again: the first inventory, restarts, losses, schedules, requests, new folders.
//!
//! One sweep runs at a time, and a scheduled one steps aside for any other and goes on after it. A sweep's scan has threads of its own and is consumed in small steps between
//! live events, which keep their latency. Invariants: a scan's reading that differs from the state is
//! read once more before it is believed; an item that an event showed during the sweep is left to the
//! event; what the scan did not meet is looked at before it is called removed.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tracing::{info, warn};
use trueline_drift::watch::WatchPolicy;
use trueline_drift::{CoverageGap, GapReason, ItemId, ItemKind, RecordBody, Time};

use super::findings::Finding;
use super::kinds::Telling;
use super::plans::{Plan, Why};
use super::{BATCH, Novelty, Observer, Scope, Sink, learnt};
use crate::clock;
use crate::collect::pace::{Meter, Pace};
use crate::kernel::memory;
use crate::kernel::thread::read_behind_others;
use crate::link::ScanAnswer;
use crate::scan::ScanMode;
use crate::scan::{self, Batch, Met, ScanOptions, ScanProgress, ScanSummary};
use crate::state::{InventoryComplete, Scope as StateScope, Seen};
use crate::status::Phase;

type Batches = Receiver<Batch>;

/// The threads that read the files of a sweep. Dropping it ends them.
struct Scan {
    batches: Option<Batches>,
    thread: Option<JoinHandle<Result<ScanSummary, scan::ScanError>>>,
    progress: Arc<ScanProgress>,
    pace: Option<Arc<Pace>>,
}

impl Scan {
    /// Waits for its end; `None` where it broke off.
    fn join(mut self) -> Option<Result<ScanSummary, scan::ScanError>> {
        self.batches = None;
        self.thread.take()?.join().ok()
    }
}

impl Drop for Scan {
    fn drop(&mut self) {
        self.progress.give_up.store(true, Ordering::Relaxed);
        self.batches = None;
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

pub(super) struct Sweep {
    pub(super) plan: Plan,
    /// Absent once the scan has ended.
    scan: Option<Scan>,
    began_at: Time,
    seen: Seen,
    touched: HashSet<ItemId>,
    items: u64,
    /// Those that are as they were stored.
    as_known: u64,
    changes_before: u64,
    kinds: Vec<ItemKind>,
    away: Away,
    fault: Option<String>,
}

impl Sweep {
    /// Whether more of the scan is to come.
    pub(super) fn is_scanning(&self) -> bool {
        self.scan.is_some()
    }

    /// All is read; what remains is to conclude it.
    pub(super) fn is_read(&self) -> bool {
        self.scan.is_none() && self.kinds.is_empty() && matches!(self.away, Away::Done)
    }

    /// Why who touched the item first may not be who changed it: it has not been read since no sensor heard of changes.
    pub(super) fn doubt(&self, item: &ItemId) -> Option<&'static str> {
        self.plan.doubt(item).filter(|_| match item.kind {
            ItemKind::File => !self.seen.holds(item),
            kind => self.kinds.contains(&kind),
        })
    }

    /// Whether an event has shown the item since the sweep began.
    pub(super) fn has_touched(&self, item: &ItemId) -> bool {
        self.touched.contains(item)
    }

    pub(super) fn note_touched(&mut self, item: ItemId) {
        self.touched.insert(item);
    }
}

/// How far the search for items that the scan did not meet is.
enum Away {
    After(Option<ItemId>),
    Done,
}

/// What there is to do next for a sweep.
enum Next {
    Batch(Batch),
    Wait,
    /// The scan has ended.
    Join,
    Kind(ItemKind),
    Away,
    Finish,
}

impl<S: Sink> Observer<S> {
    /// One bounded step of the sweep at hand, or the start of the next.
    pub(super) fn work_on_sweep(&mut self, patience: Duration) {
        let Some(sweep) = &mut self.sweep else {
            match self.plans.next(Instant::now(), self.put_off.is_some()) {
                Some(plan) => self.begin_sweep(plan),
                None => self.sweep = self.put_off.take(),
            }
            return;
        };
        let next = match sweep.scan.as_ref().and_then(|scan| scan.batches.as_ref()) {
            Some(batches) => match batches.recv_timeout(patience) {
                Ok(batch) => Next::Batch(batch),
                Err(RecvTimeoutError::Timeout) => Next::Wait,
                Err(RecvTimeoutError::Disconnected) => Next::Join,
            },
            None => match (sweep.kinds.pop(), &sweep.away) {
                (Some(kind), _) => Next::Kind(kind),
                (None, Away::After(_)) => Next::Away,
                (None, Away::Done) => Next::Finish,
            },
        };
        match next {
            Next::Batch(batch) => {
                let pace = self.sweep.as_ref().and_then(|sweep| sweep.scan.as_ref()?.pace.clone());
                let mut meter = Meter::default();
                meter.lap();
                self.take_batch(batch);
                if let Some(pace) = pace {
                    pace.charge(meter.lap());
                }
            }
            Next::Wait => {}
            Next::Join => self.join_scan(),
            Next::Kind(kind) => self.sweep_kind(kind),
            Next::Away => self.sweep_away(),
            Next::Finish => self.finish_sweep(),
        }
    }

    fn begin_sweep(&mut self, plan: Plan) {
        let policy = plan.scope.files_of(&self.parts.policy);
        let (mut scan, mut fault) = (None, None);
        if !policy.paths.is_empty() {
            match self.begin_scan(policy, &plan.why) {
                Ok(begun) => scan = Some(begun),
                Err(error) => fault = Some(format!("a scan could not be started: {error}")),
            }
        }
        if let (Scope::Path(path), Why::Asked { .. }, None) = (&plan.scope, &plan.why, &scan) {
            fault = fault.or_else(|| Some(format!("nothing at {path} is watched")));
        }
        // After another watch list also the kinds that are watched no longer.
        let is_read = |kind: &ItemKind| self.parts.policy.watches_kind(*kind) || plan.why.policy_before().is_some();
        let kinds = ItemKind::ALL.into_iter().filter(|kind| *kind != ItemKind::File && plan.scope.has_kind(*kind) && is_read(kind));
        let kinds = kinds.collect();
        let away = if plan.scope.has_kind(ItemKind::File) { Away::After(None) } else { Away::Done };
        if let Some(phase) = plan.why.phase() {
            self.report_progress(phase, 0, 0);
        }
        self.sweep = Some(Sweep {
            plan,
            scan,
            began_at: clock::now(),
            seen: Seen::new(),
            // A package manager wrote these: they are told when it is known whether a package ships them.
            touched: self.unpacking.items().collect(),
            items: 0,
            as_known: 0,
            changes_before: self.parts.status.changes.load(Ordering::Relaxed),
            kinds,
            away,
            fault,
        });
    }

    fn begin_scan(&self, policy: WatchPolicy, why: &Why) -> std::io::Result<Scan> {
        let (sender, batches) = sync_channel(8);
        let policy_now = &self.parts.policy;
        let pace = match why {
            Why::Schedule => Pace::new(policy_now.scan_bytes_per_second, policy_now.scan_core_percent).map(Arc::new),
            _ => None,
        };
        // What lies in files that are as they were is masked otherwise now.
        let mode = if self.masks_anew { ScanMode::Full } else { why.mode() };
        let options = ScanOptions { threads: self.parts.scan_threads, mode, pace: pace.clone() };
        let progress = Arc::new(ScanProgress::default());
        let (state, shared) = (Arc::clone(&self.parts.state), Arc::clone(&progress));
        let key = self.parts.collectors.key().clone();
        let read = move || {
            // Its workers too. Where the kernel refuses, it only competes with others.
            let _ = read_behind_others();
            scan::scan(&policy, &options, &key, &*state, sender, &shared)
        };
        let thread = std::thread::Builder::new().name("scan".to_owned()).spawn(read)?;
        Ok(Scan { batches: Some(batches), thread: Some(thread), progress, pace })
    }

    fn take_batch(&mut self, batch: Batch) {
        let Some(sweep) = &mut self.sweep else { return };
        sweep.items += batch.len() as u64;
        let phase = sweep.plan.why.phase();
        let bytes = sweep.scan.as_ref().map_or(0, |scan| scan.progress.bytes.load(Ordering::Relaxed));
        let items = sweep.items;
        let is_first = matches!(sweep.plan.why, Why::Inventory);
        let (cause, actor) = (sweep.plan.why.cause(), sweep.plan.why.actor());
        let mut work = Vec::with_capacity(batch.len());
        for met in batch {
            let (item, reading) = match met {
                Met::Read(item, reading) => (item, reading),
                Met::Known(item) => {
                    sweep.seen.insert(&item);
                    sweep.as_known += 1;
                    continue;
                }
            };
            sweep.seen.insert(&item);
            if !sweep.touched.contains(&item) {
                let novelty = sweep.plan.why.novelty(&item);
                work.push((item, reading, novelty));
            }
        }
        let is_blind = sweep.plan.why.blind().is_some();
        let mut as_known = 0;
        for (item, reading, novelty) in work {
            let is_news = match &self.stored(&item) {
                Ok(Some(stored)) => {
                    let is_as_known = stored.fields == reading.fields;
                    as_known += u64::from(is_as_known);
                    !is_as_known
                }
                Ok(None) => !is_first,
                Err(_) => true,
            };
            if is_news && novelty == Novelty::Created && !is_blind {
                self.findings.add(Finding {
                    item,
                    reading: Some(reading),
                    cause,
                    actor: actor.clone(),
                    novelty,
                    found_at: Instant::now(),
                    rounds: 0,
                });
            } else if is_news && novelty == Novelty::Created {
                // The reading may be older than the state: only what still holds is believed.
                let known = reading.stamp.as_ref().map(|stamp| (stamp, &reading.fields));
                self.read_and_compare(&item, known, cause, &actor);
            } else {
                self.compare(item, Some(reading), cause, &actor, novelty);
            }
        }
        if let Some(sweep) = &mut self.sweep {
            sweep.as_known += as_known;
        }
        if let Some(phase) = phase {
            self.report_progress(phase, items, bytes);
        }
    }

    fn sweep_kind(&mut self, kind: ItemKind) {
        let Some(sweep) = self.sweep.take() else { return };
        if !self.parts.policy.watches_kind(kind) {
            let unwatched = self.unwatch_kind(kind);
            self.sweep = Some(Sweep { fault: unwatched.err().or(sweep.fault), ..sweep });
            return;
        }
        let why = &sweep.plan.why;
        let is_first = self.unread.contains(&kind);
        let novelty = |item: &ItemId| if is_first { Novelty::FirstSight } else { why.novelty(item) };
        let telling = if why.blind().is_some() { Telling::AtOnce } else { Telling::CaughtUp };
        let compared = self.compare_kind(kind, why.cause(), &why.actor(), telling, Some(&novelty));
        let trouble = compared.as_ref().err().map(|fault| format!("no {kind} can be read: {fault}"));
        self.parts.status.trouble(kind.name(), trouble);
        self.sweep = Some(match compared {
            Ok(count) => {
                self.unread.remove(&kind);
                Sweep { items: sweep.items + count, ..sweep }
            }
            // One kind that cannot be read holds up no other: it is a gap of its own until it can. Of one that was read before, an
            // inventory without it would say that all of it is gone.
            Err(fault)
                if sweep.plan.scope == Scope::All
                    && !matches!(sweep.plan.why, Why::Asked { .. })
                    && self.parts.state.count(kind).is_ok_and(|known| known == 0) =>
            {
                if matches!(sweep.plan.why, Why::Inventory | Why::NewPolicy { .. }) {
                    self.unread.insert(kind);
                }
                self.read_later(Scope::Kind(kind), &fault);
                sweep
            }
            Err(fault) => Sweep { fault: Some(fault), ..sweep },
        });
    }

    fn join_scan(&mut self) {
        let Some(sweep) = &mut self.sweep else { return };
        let Some(scan) = sweep.scan.take() else { return };
        match scan.join() {
            Some(Ok(summary)) => {
                self.parts.status.read_failures.fetch_add(summary.failures, Ordering::Relaxed);
            }
            Some(Err(error)) => sweep.fault = Some(error.to_string()),
            None => sweep.fault = Some("the scan broke off".to_owned()),
        }
        // As many as are stored are as they were stored, and no event has come between: none of them is away.
        let is_all_there = sweep.plan.scope == Scope::All
            && sweep.touched.is_empty()
            && self.offer.updates.is_empty()
            && self.parts.state.count(ItemKind::File).is_ok_and(|stored| stored == sweep.as_known)
            && sweep.seen.count() == sweep.as_known;
        // What a scan that broke off did not meet is not gone.
        if sweep.fault.is_some() || is_all_there {
            sweep.away = Away::Done;
        }
    }

    /// Looks at the next items of the scope that the scan did not meet.
    fn sweep_away(&mut self) {
        let Some(sweep) = &mut self.sweep else { return };
        let Away::After(after) = &sweep.away else { return };
        let scope = match &sweep.plan.scope {
            Scope::Path(path) => StateScope::beneath(&trueline_drift::text::original(path)),
            _ => StateScope::kind(ItemKind::File),
        };
        let suspects = match self.parts.state.unseen(&scope, &mut sweep.seen, after.as_ref(), BATCH) {
            Ok(suspects) => suspects,
            Err(error) => {
                sweep.fault = Some(error.to_string());
                Vec::new()
            }
        };
        sweep.away = suspects.last().map_or(Away::Done, |last| Away::After(Some(last.clone())));
        let (cause, actor, is_blind) = (sweep.plan.why.cause(), sweep.plan.why.actor(), sweep.plan.why.blind().is_some());
        for item in suspects {
            if self.unpacking.holds(&item) {
                continue;
            }
            if !self.parts.policy.watches(&item) {
                self.unwatch(item);
            } else if is_blind {
                self.read_and_compare(&item, None, cause, &actor);
            } else {
                self.findings.add(Finding {
                    item,
                    reading: None,
                    cause,
                    actor: actor.clone(),
                    novelty: Novelty::Created,
                    found_at: Instant::now(),
                    rounds: 0,
                });
            }
        }
    }

    fn finish_sweep(&mut self) {
        let Some(sweep) = self.sweep.take() else { return };
        let changed = self.parts.status.changes.load(Ordering::Relaxed) - sweep.changes_before;
        if let Some(fault) = &sweep.fault {
            warn!(scope = %sweep.plan.scope, fault, "a scope could not be read in full");
        }
        // Whoever asked is answered.
        if !matches!(sweep.plan.why, Why::Asked { .. }) {
            let trouble = sweep.fault.as_ref().map(|fault| format!("{} could not be read in full: {fault}", sweep.plan.scope));
            self.parts.status.trouble("scan", trouble);
        }
        if sweep.fault.is_some() && !matches!(sweep.plan.why, Why::Asked { .. } | Why::Schedule) {
            // What it was for is still to be done, and what it would say is not yet true.
            self.plans.retry(sweep.plan, Instant::now());
            return;
        }
        self.conclude(sweep, changed);
        if self.plans.is_empty() && self.put_off.is_none() {
            let items = self.parts.state.len().unwrap_or(0);
            self.report_progress(Phase::Watching, items, 0);
            memory::return_free_pages();
        }
    }

    /// Lets a scheduled scan, which may be slow on purpose, wait for something that is not. Its threads stand still once
    /// nobody takes their batches.
    pub(super) fn put_off_schedule(&mut self) {
        if self.put_off.is_none() {
            self.put_off = self.sweep.take_if(|sweep| matches!(sweep.plan.why, Why::Schedule));
        }
    }

    /// Says what the sweep was for and what came of it.
    fn conclude(&mut self, sweep: Sweep, changed: u64) {
        let now = clock::now();
        let items = sweep.items;
        let took_ms = (now.micros() - sweep.began_at.micros()) / 1000;
        let gap = |reason, began_at, lost| CoverageGap {
            scope: sweep.plan.scope.to_string(),
            reason,
            began_at,
            ended_at: Some(now),
            lost,
            remedy: Some(format!("{items} items were read again; {changed} had changed")),
        };
        match &sweep.plan.why {
            Why::Inventory => {
                self.is_inventoried = true;
                self.offer.records.push(RecordBody::InventoryComplete { items, observed_at: now });
                self.inventory_to_note = Some(InventoryComplete { at: now, items, epoch: self.parts.sink.epoch() });
                self.covers_anew = true;
                info!(items, "inventory complete");
            }
            Why::Restart { since } => {
                let record = gap(GapReason::AgentDown, *since, None);
                self.offer.records.push(RecordBody::Gap(record));
                info!(items, changed, took_ms, "caught up after the restart");
            }
            Why::Lost(loss) => {
                let record = gap(loss.reason, loss.began_at, loss.lost);
                self.offer.records.push(RecordBody::Gap(record));
                info!(items, changed, scope = %sweep.plan.scope, "read again after a loss");
            }
            Why::NewPolicy { since, .. } => {
                self.covers_anew = true;
                let record = gap(GapReason::PolicyChange, *since, None);
                self.offer.records.push(RecordBody::Gap(record));
                self.offer.records.push(RecordBody::InventoryComplete { items, observed_at: now });
            }
            Why::Asked { id } => {
                let answer = ScanAnswer { id: id.clone(), items, changed, fault: sweep.fault.clone() };
                if let Some(answers) = &self.parts.answers
                    && answers.try_send(answer).is_err()
                {
                    warn!("the answer to a scan request could not be sent");
                }
            }
            Why::Tree { .. } | Why::Schedule => {}
        }
        if sweep.plan.scope == Scope::All && sweep.fault.is_none() {
            self.complete_at = sweep.began_at;
            self.note_vocabulary();
            self.masked_anew |= std::mem::take(&mut self.masks_anew);
        }
        self.note_counts();
    }

    /// All items have been read by this agent.
    fn note_vocabulary(&mut self) {
        if self.vocabulary < learnt::VOCABULARY {
            self.vocabulary = learnt::VOCABULARY;
            self.vocabulary_to_note = Some(self.vocabulary);
        }
    }
}
