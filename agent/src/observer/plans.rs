//! What is still to be read, in which order, and why.
//!
//! Pure: time is an argument. Invariants: what already waits to be read is not planned twice, a loss is never dropped but
//! joined to one of the same scope and reason, and the number of single paths that wait is bounded: beyond it they
//! become one loss of all files. A plan that failed comes back by itself.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use trueline_drift::watch::WatchPolicy;
use trueline_drift::{Actor, Cause, GapReason, ItemId, ItemKind, Time};

use super::{Novelty, Scope};
use crate::scan::ScanMode;
use crate::sensor::Loss;
use crate::status::Phase;

/// Files and folders that wait to be read one by one; beyond, all files are read again.
const SINGLES: usize = 1000;

/// A scope that must be read, and why.
#[derive(Debug)]
pub struct Plan {
    pub scope: Scope,
    pub why: Why,
}

#[derive(Debug)]
pub enum Why {
    /// Every item for the first time.
    Inventory,
    /// The agent was not running from then until now.
    Restart {
        since: Time,
    },
    Lost(Loss),
    /// A folder appeared, or went, with all that lies in it.
    Tree {
        actor: Box<Actor>,
    },
    Asked {
        id: String,
    },
    /// Due by the clock alone: it waits for everything else.
    Schedule,
    NewPolicy {
        before: Arc<WatchPolicy>,
        since: Time,
    },
}

impl Why {
    /// A quick scan trusts an unchanged stamp; the others read all contents.
    pub(super) fn mode(&self) -> ScanMode {
        match self {
            Self::Restart { .. } | Self::Lost(_) => ScanMode::Quick,
            _ => ScanMode::Full,
        }
    }

    pub(super) fn actor(&self) -> Actor {
        match self {
            Self::Tree { actor } => actor.but("it was found in a folder that this process made, moved or removed"),
            Self::Restart { .. } => Actor::unknown("it was found at the agent's start: no sensor has told of it since it was last read"),
            Self::Lost(loss) => Actor::unknown(format!("it was found by reading again, because {}", loss.reason.explanation())),
            _ => Actor::unknown("it was found by a scan; no sensor reported it"),
        }
    }

    pub(super) fn cause(&self) -> Cause {
        match self {
            Self::Tree { .. } => Cause::Event,
            _ => Cause::Rescan,
        }
    }

    /// Why what it finds may have happened while no sensor heard of it. Elsewhere a change without an event is one that the
    /// sensors have yet to tell of, or one that they missed.
    pub(super) fn blind(&self) -> Option<&'static str> {
        match self {
            Self::Restart { .. } => Some("it may have changed while the agent was not running: this process touched it later"),
            Self::Lost(_) => Some("it may have changed while events were lost: this process touched it later"),
            _ => None,
        }
    }

    pub(super) fn phase(&self) -> Option<Phase> {
        match self {
            Self::Inventory => Some(Phase::Inventory),
            Self::Tree { .. } | Self::Schedule => None,
            _ => Some(Phase::Rescan),
        }
    }

    /// The watch list before, where this is about a new one.
    pub(super) fn policy_before(&self) -> Option<&WatchPolicy> {
        match self {
            Self::NewPolicy { before, .. } => Some(before),
            _ => None,
        }
    }

    /// Whether an item that the state does not know is seen for the first time or was created.
    pub(super) fn novelty(&self, item: &ItemId) -> Novelty {
        match self {
            Self::Inventory => Novelty::FirstSight,
            Self::NewPolicy { before, .. } if !before.watches(item) => Novelty::FirstSight,
            _ => Novelty::Created,
        }
    }
}

/// Plans in the order they are carried out, and those that failed.
pub(super) struct Plans {
    waiting: VecDeque<Plan>,
    retries: Vec<(Instant, Plan)>,
    retry_after: Duration,
}

impl Plans {
    pub(super) fn new(first: Vec<Plan>, retry_after: Duration) -> Self {
        Self { waiting: first.into(), retries: Vec::new(), retry_after }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Everything that is still to be done.
    pub(super) fn all(&self) -> impl Iterator<Item = &Plan> {
        self.waiting.iter().chain(self.retries.iter().map(|(_, plan)| plan))
    }

    /// The next plan; none that is due by the clock alone where `is_busy` with one of those.
    pub(super) fn next(&mut self, now: Instant, is_busy: bool) -> Option<Plan> {
        self.waiting.extend(self.retries.extract_if(.., |(due, _)| now >= *due).map(|(_, plan)| plan));
        self.waiting.pop_front_if(|plan| !(is_busy && matches!(plan.why, Why::Schedule)))
    }

    pub(super) fn retry(&mut self, plan: Plan, now: Instant) {
        self.retries.push((now + self.retry_after, plan));
    }

    pub(super) fn add(&mut self, plan: Plan, now: Time) {
        if self.waiting.iter().any(|waiting| waiting.includes(&plan)) {
            return;
        }
        if plan.is_single() && self.waiting.len() >= SINGLES {
            // More than are worth a reading each.
            let began_at =
                self.waiting.iter().filter(|waiting| waiting.is_single()).fold(now, |first, waiting| first.min(waiting.since(now)));
            self.waiting.retain(|waiting| !waiting.is_single());
            let loss = Loss { scope: "file:*".to_owned(), reason: GapReason::QueueOverflow, began_at, lost: None };
            return self.add(Plan { scope: Scope::Kind(ItemKind::File), why: Why::Lost(loss) }, now);
        }
        if self.waiting.iter_mut().any(|waiting| waiting.takes_in(&plan)) {
            return;
        }
        // A kind that cannot be read is tried again soon enough, and once.
        let is_kind = matches!(plan.scope, Scope::Kind(kind) if kind != ItemKind::File);
        if is_kind && self.retries.iter_mut().any(|(_, retry)| retry.takes_in(&plan)) {
            return;
        }
        let is_scheduled = |waiting: &Plan| matches!(waiting.why, Why::Schedule);
        let place = match plan.why {
            Why::Schedule => self.waiting.len(),
            _ => self.waiting.iter().position(is_scheduled).unwrap_or(self.waiting.len()),
        };
        self.waiting.insert(place, plan);
    }
}

impl Plan {
    /// Whether carrying this one out does all that the other asks.
    fn includes(&self, other: &Self) -> bool {
        match (&self.why, &other.why) {
            (Why::Schedule, Why::Schedule) => self.scope == other.scope,
            (Why::Tree { .. }, Why::Tree { .. }) => self.scope.holds(&other.scope),
            _ => false,
        }
    }

    /// Why who touches an item may not be who changed it, before this is carried out.
    pub(super) fn doubt(&self, item: &ItemId) -> Option<&'static str> {
        self.why.blind().filter(|_| self.scope.holds(&Scope::of(item)))
    }

    /// About one path alone, by no one's request.
    fn is_single(&self) -> bool {
        matches!((&self.scope, &self.why), (Scope::Path(_), Why::Tree { .. } | Why::Lost(_)))
    }

    fn since(&self, now: Time) -> Time {
        match &self.why {
            Why::Lost(loss) => loss.began_at,
            _ => now,
        }
    }

    /// Joins a loss to this one, if it is of the same scope and reason.
    fn takes_in(&mut self, other: &Self) -> bool {
        let (Why::Lost(loss), Why::Lost(more)) = (&mut self.why, &other.why) else { return false };
        if self.scope != other.scope || loss.reason != more.reason {
            return false;
        }
        if let Some(sum) = loss.lost.as_mut() {
            *sum += more.lost.unwrap_or(0);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loss(scope: &str, lost: u64) -> Plan {
        let loss = Loss { scope: scope.to_owned(), reason: GapReason::QueueOverflow, began_at: Time::from_seconds(1), lost: Some(lost) };
        Plan { scope: Scope::parse(scope), why: Why::Lost(loss) }
    }

    fn tree(path: &str) -> Plan {
        Plan { scope: Scope::Path(path.to_owned()), why: Why::Tree { actor: Box::new(Actor::unknown("test")) } }
    }

    fn plans() -> Plans {
        Plans::new(Vec::new(), Duration::from_secs(30))
    }

    fn scopes(plans: &mut Plans, now: Instant) -> Vec<String> {
        std::iter::from_fn(|| plans.next(now, false)).map(|plan| plan.scope.to_string()).collect()
    }

    #[test]
    fn a_kind_that_cannot_be_read_is_tried_again_once() {
        let (mut plans, now) = (plans(), Instant::now());
        plans.retry(loss("group:*", 0), now);
        plans.retry(loss("file:/etc", 0), now);
        for scope in ["group:*", "user:*", "file:/etc"] {
            plans.add(loss(scope, 0), Time::from_seconds(1));
        }
        assert_eq!(scopes(&mut plans, now), ["user:*", "file:/etc"]);
        assert_eq!(scopes(&mut plans, now + Duration::from_secs(31)), ["group:*", "file:/etc"]);
    }

    #[test]
    fn losses_of_one_scope_and_reason_become_one_and_add_up() {
        let (mut plans, now) = (plans(), Instant::now());
        plans.add(loss("file:/etc", 3), Time::from_seconds(1));
        plans.add(loss("file:/usr", 1), Time::from_seconds(1));
        plans.add(loss("file:/etc", 4), Time::from_seconds(2));
        let first = plans.next(now, false).unwrap();
        assert!(matches!(first.why, Why::Lost(Loss { lost: Some(7), .. })), "{first:?}");
        assert_eq!(scopes(&mut plans, now), ["file:/usr"]);
    }

    #[test]
    fn what_is_due_by_the_clock_waits_for_everything_else() {
        let (mut plans, now) = (plans(), Instant::now());
        let schedule = || Plan { scope: Scope::All, why: Why::Schedule };
        plans.add(schedule(), Time::from_seconds(1));
        plans.add(tree("/etc/new"), Time::from_seconds(1));
        plans.add(schedule(), Time::from_seconds(1));
        plans.add(tree("/etc/new/sub"), Time::from_seconds(1));
        assert_eq!(plans.next(now, true).unwrap().scope.to_string(), "file:/etc/new");
        assert!(plans.next(now, true).is_none());
        assert_eq!(scopes(&mut plans, now), ["*"]);
    }

    #[test]
    fn more_paths_than_are_worth_a_reading_each_are_one_loss_since_the_first() {
        let (mut plans, now) = (plans(), Instant::now());
        for number in 0..=SINGLES {
            plans.add(tree(&format!("/srv/{number}")), Time::from_seconds(5));
            plans.add(loss(&format!("file:/etc/{number}"), 1), Time::from_seconds(5));
        }
        let all = plans.next(now, false).unwrap();
        assert!(matches!(&all.why, Why::Lost(loss) if loss.scope == "file:*" && loss.began_at == Time::from_seconds(1)), "{all:?}");
    }

    #[test]
    fn each_plan_that_failed_comes_back_at_its_own_time() {
        let (mut plans, now) = (plans(), Instant::now());
        plans.retry(loss("file:/etc", 1), now);
        plans.retry(loss("file:/usr", 1), now + Duration::from_secs(10));
        assert!(plans.next(now + Duration::from_secs(29), false).is_none());
        assert_eq!(scopes(&mut plans, now + Duration::from_secs(30)), ["file:/etc"]);
        assert_eq!(plans.all().count(), 1);
        assert_eq!(scopes(&mut plans, now + Duration::from_secs(40)), ["file:/usr"]);
    }
}
