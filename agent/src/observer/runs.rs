//! Runs are told: each when the first change of it is, or when what it does to packages comes to nothing, and once more when it has ended,
//! with what its tool says of it.
//!
//! Invariants: only a run that a change was told of, or that wrote the database of packages, is an item; what was told of one stays as it
//! was first known, but for its modules, its end and what its own record adds; one that was followed ends in any case, at the latest when
//! it is noticed to be gone; an ended one leaves the state, and the collector's view, a day later and without a change.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::time::{Duration, Instant};

use trueline_drift::transaction::{TransactionId, TransactionKind};
use trueline_drift::{Actor, Cause, Certainty, Fields, ItemId, ItemKind, Time, Transaction, Value};

use super::compare::By;
use super::{Novelty, Observer, Sink};
use crate::actor::leader::Leader;
use crate::clock;
use crate::collect::Reading;
use crate::collect::run::{self, ENDED_AT, MODULES};
use crate::state::Scope as StateScope;

/// Between two looks at the leaders of those that have not ended.
const LOOK: Duration = Duration::from_secs(1);
const LET_GO: Duration = Duration::from_secs(600);
const KEPT_SECONDS: i64 = 24 * 3600;
/// Runs that are kept.
const KEPT: usize = 1000;
/// Those that are followed to their end at once. What more there are at work are told, and not their end.
const FOLLOWED: usize = 256;
/// Names of runs that are remembered as told.
const REMEMBERED: usize = 4096;
const MODULES_TOLD: usize = 64;

const SAID: &str = "the run ended by itself: this is what it says of itself";

#[derive(Debug, Default)]
pub(super) struct Runs {
    followed: BTreeMap<ItemId, Followed>,
    /// Spares the state: a run makes many changes.
    told: HashSet<TransactionId>,
    /// Whether those that an earlier life of the agent told are followed on.
    is_taken_up: bool,
    next_look: Option<Instant>,
    next_let_go: Option<Instant>,
}

#[derive(Debug)]
struct Followed {
    /// Absent where it had ended when it was looked for.
    leader: Option<Leader>,
    actor: Actor,
    transaction: Option<Transaction>,
    modules: BTreeSet<String>,
    /// It ended while no agent looked: of which time its own record would have to be is not known.
    is_lost: bool,
}

impl<S: Sink> Observer<S> {
    /// Tells the runs that a change was made in, where they are new. `whole` is the change's own actor, completed.
    pub(super) fn note_runs(&mut self, whole: &Actor, transaction: Option<&Transaction>) {
        if transaction.is_none() || !self.parts.policy.watches_kind(ItemKind::Run) {
            return;
        }
        for run in transaction.into_iter().flat_map(Transaction::outwards) {
            let (is_told, has_modules) = (self.runs.told.contains(&run.id), run.kind == TransactionKind::Ansible);
            if is_told && !has_modules {
                continue;
            }
            let Some(item) = run::item(run) else { continue };
            if is_told {
                self.note_module(&item, run, whole);
                continue;
            }
            if self.runs.told.len() >= REMEMBERED {
                self.runs.told.clear();
            }
            // Where the state cannot be read now, the run is told with its next change.
            let Ok(stored) = self.stored(&item) else { continue };
            self.runs.told.insert(run.id.clone());
            match stored {
                None => self.tell_run(item, run, whole),
                Some(_) if has_modules => self.note_module(&item, run, whole),
                Some(_) => {}
            }
        }
    }

    /// Who installs again what is installed changes nothing, and is told all the same.
    pub(super) fn note_work(&mut self, actor: &Actor) {
        if actor.certainty == Certainty::Unknown {
            return;
        }
        let (whole, transaction) = self.parts.completion.complete(actor, &self.parts.state);
        self.note_runs(&whole, transaction.as_ref());
    }

    fn tell_run(&mut self, item: ItemId, run: &Transaction, whole: &Actor) {
        let leader = self.parts.completion.leader(run, whole);
        let fields = run::fields(run, leader, whole);
        // A run that no process gives its name has no end that could be noticed.
        if let Some(process) = leader
            && self.runs.followed.len() < FOLLOWED
        {
            let followed = Followed {
                leader: process.started_at.and_then(|started| Leader::find(process.pid, started)),
                actor: whole.clone(),
                transaction: Some(run.clone()),
                modules: run.name.iter().cloned().collect(),
                is_lost: false,
            };
            self.runs.followed.insert(item.clone(), followed);
        }
        let novelty = self.novelty(&item);
        self.compare_run(item, fields, Cause::Event, By::Known(whole, Some(run)), novelty);
    }

    /// All modules of a play are one run, also one that is told only after its end.
    fn note_module(&mut self, item: &ItemId, run: &Transaction, whole: &Actor) {
        let Some(module) = &run.name else { return };
        if self.runs.followed.get(item).is_some_and(|followed| followed.modules.contains(module)) {
            return;
        }
        let Ok(Some(stored)) = self.stored(item) else { return };
        let mut modules = modules(&stored.fields);
        let is_new = modules.len() < MODULES_TOLD && modules.insert(module.clone());
        if let Some(followed) = self.runs.followed.get_mut(item) {
            followed.modules.insert(module.clone());
        }
        if is_new {
            let mut fields = stored.fields;
            fields.set(MODULES, Value::list(modules.into_iter().collect()));
            self.compare_run(item.clone(), fields, Cause::Event, By::Known(whole, Some(run)), Novelty::Created);
        }
    }

    fn compare_run(&mut self, item: ItemId, fields: Fields, cause: Cause, by: By<'_>, novelty: Novelty) {
        self.compare_by(item, Some(Reading::of(fields)), cause, by, novelty);
    }

    /// All that are known: nothing can be read of them, but an inventory tells of them again.
    pub(super) fn compare_runs(&mut self, cause: Cause) -> Result<u64, String> {
        let known = self.known_items(&StateScope::kind(ItemKind::Run))?;
        let count = known.len() as u64;
        let nobody = Actor::unknown("it was told before");
        for item in known {
            if let Some(stored) = self.stored(&item).map_err(|error| error.to_string())? {
                self.compare_run(item, stored.fields, cause, By::Known(&nobody, None), Novelty::FirstSight);
            }
        }
        Ok(count)
    }

    /// Whether those that are followed have ended.
    pub(super) fn look_at_runs(&mut self, now: Instant) {
        let is_due = |next: Option<Instant>| next.is_none_or(|next| now >= next);
        if self.offer_again.is_some() || !is_due(self.runs.next_look) || !self.parts.policy.watches_kind(ItemKind::Run) {
            return;
        }
        self.runs.next_look = Some(now + LOOK);
        if !self.runs.is_taken_up {
            self.runs.is_taken_up = self.take_up_runs().is_ok();
        }
        let is_over = |followed: &Followed| followed.leader.is_none_or(|leader| !leader.is_alive());
        let over: Vec<(ItemId, Followed)> = self.runs.followed.extract_if(.., |_, followed| is_over(followed)).collect();
        for (item, followed) in over {
            self.end_run(item, followed);
        }
        if is_due(self.runs.next_let_go) {
            self.runs.next_let_go = Some(now + LET_GO);
            if let Err(error) = self.let_go_of_runs() {
                self.note_failure("run", &error);
            }
        }
    }

    fn end_run(&mut self, item: ItemId, followed: Followed) {
        let stored = match self.stored(&item) {
            Ok(Some(stored)) => stored,
            Ok(None) => return,
            // Told at a later look.
            Err(_) => {
                self.runs.followed.insert(item, followed);
                return;
            }
        };
        let root = Some(self.parts.collectors.root()).filter(|_| !followed.is_lost);
        let fields = run::ended(stored.fields, clock::now(), root);
        let actor = followed.actor.but(SAID);
        self.compare_run(item, fields, Cause::Event, By::Known(&actor, followed.transaction.as_ref()), Novelty::Created);
    }

    /// Those that had not ended when the agent did.
    fn take_up_runs(&mut self) -> Result<(), String> {
        for item in self.known_items(&StateScope::kind(ItemKind::Run))? {
            if self.runs.followed.len() >= FOLLOWED {
                break;
            }
            let Some(stored) = self.stored(&item).map_err(|error| error.to_string())? else { continue };
            let Some(Value::Integer(pid)) = stored.fields.value("pid") else { continue };
            if stored.fields.value(ENDED_AT.as_str()).is_some() || self.runs.followed.contains_key(&item) {
                continue;
            }
            let began_at = run::time(&stored.fields, "began_at");
            let modules = modules(&stored.fields);
            let leader = u32::try_from(*pid).ok().zip(began_at).and_then(|(pid, began_at)| Leader::find(pid, began_at));
            let actor = Actor::unknown("it was seen to have ended by an agent that had not seen it begin");
            self.runs.followed.insert(item, Followed { leader, actor, transaction: None, modules, is_lost: leader.is_none() });
        }
        Ok(())
    }

    fn let_go_of_runs(&mut self) -> Result<(), String> {
        let now = clock::now();
        let mut rest: Vec<(Time, ItemId)> = Vec::new();
        for item in self.known_items(&StateScope::kind(ItemKind::Run))? {
            if self.runs.followed.contains_key(&item) {
                continue;
            }
            let Some(stored) = self.stored(&item).map_err(|error| error.to_string())? else { continue };
            rest.push((run::time(&stored.fields, "ended_at").unwrap_or(stored.observed_at), item));
        }
        rest.sort_unstable_by(|a, b| b.cmp(a));
        for (place, (at, item)) in rest.into_iter().enumerate() {
            if place >= KEPT || now.micros_since(at) > KEPT_SECONDS * 1_000_000 {
                self.unwatch(item);
            }
        }
        Ok(())
    }
}

fn modules(fields: &Fields) -> BTreeSet<String> {
    match fields.value(MODULES.as_str()) {
        Some(Value::List(modules)) => modules.iter().cloned().collect(),
        _ => BTreeSet::new(),
    }
}
