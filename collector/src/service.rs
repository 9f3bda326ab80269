//! What the service manager is told of the collector: that it serves, what it does, that it lives.
//!
//! Invariants: without a service manager nothing is told and nothing is measured for it. The watchdog is told from the
//! runtime, by way of its threads for blocking work, and only while the background tasks go on: see [`crate::pulse`].

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;
use trueline_drift::{TenantId, Time};
use trueline_store::{Measures, SchemaStep};
use trueline_systemd::notify::Notifier;
use trueline_systemd::watchdog::Watchdog;

use crate::config::ConfigError;
use crate::console::age::{age, grouped};
use crate::hub::{Hub, Part, Trouble, now};

/// How often the status is looked at; it is told where it changed.
const STATUS_EVERY: Duration = Duration::from_secs(10);
/// How long the database may take to be measured before the status goes without.
const MEASURE_LIMIT: Duration = Duration::from_secs(5);
/// The span that changes are counted over.
const MINUTE: Duration = Duration::from_secs(60);
/// How often a step of the schema asks for more time, and how much it asks for.
const EXTEND_EVERY: Duration = Duration::from_secs(10);
const EXTEND_BY: Duration = Duration::from_secs(60);
/// Changes wait this long at most where judging keeps up.
const KEEPS_UP_SECONDS: i64 = 5;

/// The service manager, as the collector sees it.
#[derive(Debug, Clone, Default)]
pub struct Service {
    notifier: Arc<Notifier>,
    /// Why the last reload changed nothing.
    reload_fault: Arc<Mutex<Option<String>>>,
}

impl Service {
    pub fn from_environment() -> Self {
        Self { notifier: Arc::new(Notifier::from_environment()), reload_fault: Arc::default() }
    }

    /// Waits for the start, and asks for time while a step of the schema is under way: it may rewrite a large table. Nothing
    /// else has reason to take long, and a start that hangs is the service manager's to end.
    pub async fn starting<T>(&self, step: &Mutex<Option<SchemaStep>>, start: impl Future<Output = T>) -> T {
        self.starting_told(EXTEND_EVERY, step, start).await
    }

    async fn starting_told<T>(&self, every: Duration, step: &Mutex<Option<SchemaStep>>, start: impl Future<Output = T>) -> T {
        self.status("opening the database".to_owned()).await;
        let mut start = std::pin::pin!(start);
        let mut tick = interval(every);
        // The first is at once, and nothing is late by then.
        tick.tick().await;
        loop {
            tokio::select! {
                done = &mut start => return done,
                _ = tick.tick() => {
                    let step = *step.lock().unwrap_or_else(PoisonError::into_inner);
                    self.status(starting_sentence(step)).await;
                    if step.is_some() {
                        self.tell(|notifier| notifier.extend_timeout(EXTEND_BY)).await;
                    }
                }
            }
        }
    }

    /// Says that connections are taken, and from now on what the collector does and that it lives, until `ended`.
    pub async fn serves(&self, hub: &Arc<Hub>, ended: &CancellationToken) -> JoinSet<()> {
        let mut tasks = JoinSet::new();
        if !self.notifier.is_connected() {
            return tasks;
        }
        self.tell(Notifier::ready).await;
        let watchdog = Watchdog::from_environment(hub.pulses.heartbeats());
        if let Some(watchdog) = watchdog {
            tasks.spawn(self.clone().keep_watchdog(watchdog, Arc::clone(hub), ended.clone()));
        }
        tasks.spawn(self.clone().keep_status(Arc::clone(hub)));
        tasks
    }

    /// Around a reload. What it came to stands in the status until a better one.
    pub async fn reloading(&self, reload: impl Future<Output = Result<(), ConfigError>>) -> Result<(), ConfigError> {
        self.tell(Notifier::reloading).await;
        let done = reload.await;
        let fault = done.as_ref().err().map(|error| format!("the watch policy stays as it was: {error}"));
        fault.clone_into(&mut self.reload_fault.lock().unwrap_or_else(PoisonError::into_inner));
        if let Some(fault) = fault {
            self.status(fault).await;
        }
        self.tell(Notifier::ready).await;
        done
    }

    pub async fn stopping(&self) {
        self.tell(Notifier::stopping).await;
        self.status("stopping: ending connections, committing what was taken in".to_owned()).await;
    }

    async fn status(&self, sentence: String) {
        self.tell(move |notifier| {
            notifier.status(&sentence);
        })
        .await;
    }

    /// A manager that does not listen holds up a thread for a second, not the runtime.
    async fn tell(&self, words: impl FnOnce(&Notifier) + Send + 'static) {
        if self.notifier.is_connected() {
            let notifier = Arc::clone(&self.notifier);
            // A thread that cannot be had shows in a watchdog that is not told.
            let _ = spawn_blocking(move || words(&notifier)).await;
        }
    }

    async fn keep_watchdog(self, mut watchdog: Watchdog, hub: Arc<Hub>, ended: CancellationToken) {
        let every = watchdog.every();
        loop {
            hub.pulses.speak_for_the_waiting();
            let notifier = Arc::clone(&self.notifier);
            let tended = spawn_blocking(move || {
                watchdog.tend(&notifier);
                watchdog
            });
            let Ok(back) = tended.await else { return };
            watchdog = back;
            if ended.run_until_cancelled(tokio::time::sleep(every)).await.is_none() {
                return;
            }
        }
    }

    async fn keep_status(self, hub: Arc<Hub>) {
        let mut tick = interval(STATUS_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut counted = Counted::default();
        while hub.shutdown.run_until_cancelled(tick.tick()).await.is_some() {
            let changes = counted.in_the_last_minute(Instant::now(), hub.changes_taken.load(Ordering::Relaxed));
            let Some(sentence) = hub.shutdown.run_until_cancelled(self.sentence(&hub, changes)).await else { return };
            self.status(sentence).await;
        }
    }

    async fn sentence(&self, hub: &Hub, changes: u64) -> String {
        let now = now();
        // Who is silent is of no account here.
        let measures = timeout(MEASURE_LIMIT, hub.store.measure(&TenantId::main(), Time::default())).await;
        let mut troubles: Vec<String> = self.reload_fault.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect();
        troubles.extend(trouble(&hub.health.troubles(), now));
        sentence(&troubles, measures.ok().and_then(Result::ok).as_ref(), hub.streams.count() as u64, changes, now)
    }
}

/// How many changes there were when, over a little more than a minute.
#[derive(Debug, Default)]
struct Counted(VecDeque<(Instant, u64)>);

impl Counted {
    fn in_the_last_minute(&mut self, at: Instant, count: u64) -> u64 {
        // The last count from before the minute is where it begins.
        while self.0.get(1).is_some_and(|(then, _)| at.duration_since(*then) >= MINUTE) {
            self.0.pop_front();
        }
        self.0.push_back((at, count));
        count - self.0.front().map_or(count, |(_, first)| *first)
    }
}

fn starting_sentence(step: Option<SchemaStep>) -> String {
    match step {
        Some(step) => format!("bringing the database's schema up to date: step {} of {}", step.number, step.of),
        None => "waiting for the database".to_owned(),
    }
}

/// All the parts that are in trouble, with the reason of the first: often it is that of the others too.
fn trouble(parts: &BTreeMap<Part, Trouble>, now: Time) -> Option<String> {
    let (_, first) = parts.first_key_value()?;
    let names: Vec<&str> = parts.keys().map(|part| part.name()).collect();
    let since = parts.values().map(|trouble| trouble.since).min()?;
    Some(format!("{} in trouble for {}: {}", names.join(", "), age(since, now), first.reason))
}

/// Troubles first: the line may be cut.
fn sentence(troubles: &[String], measures: Option<&Measures>, connected: u64, changes: u64, now: Time) -> String {
    let hosts = match measures.map(|measures| measures.hosts) {
        None => "the database does not answer".to_owned(),
        Some(0) => "no hosts yet".to_owned(),
        Some(1) => "1 host".to_owned(),
        Some(hosts) => format!("{} hosts", grouped(hosts)),
    };
    let mut words = vec![hosts, format!("{} connected", grouped(connected))];
    words.push(if changes == 1 {
        "1 change in the last minute".to_owned()
    } else {
        format!("{} changes in the last minute", grouped(changes))
    });
    let waits = |since: &Time| now.micros_since(*since) > KEEPS_UP_SECONDS * 1_000_000;
    words.extend(measures.map(|measures| match measures.unjudged_since.filter(waits) {
        Some(since) => format!("{} changes wait to be judged, for {}", grouped(measures.unjudged), age(since, now)),
        None => "judged to now".to_owned(),
    }));
    let mut all = troubles.to_vec();
    all.push(words.join(", "));
    all.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_says_what_matters_and_troubles_first() {
        let now = Time::from_seconds(1_000);
        let mut measures = Measures { hosts: 3, ..Measures::default() };
        assert_eq!(sentence(&[], Some(&measures), 2, 1_204, now), "3 hosts, 2 connected, 1,204 changes in the last minute, judged to now");
        (measures.unjudged, measures.unjudged_since) = (4_000, Some(now.plus_seconds(-2)));
        assert!(sentence(&[], Some(&measures), 2, 1, now).ends_with("1 change in the last minute, judged to now"));
        measures.unjudged_since = Some(now.plus_seconds(-90));
        assert!(sentence(&[], Some(&measures), 2, 1, now).ends_with("4,000 changes wait to be judged, for 1m 30s"));
        let since = |seconds: i64| Trouble { since: now.plus_seconds(-seconds), reason: format!("gone for {seconds} s") };
        let parts = BTreeMap::from([(Part::Judge, since(5)), (Part::Database, since(4))]);
        assert_eq!(
            sentence(&[trouble(&parts, now).unwrap()], None, 2, 0, now),
            "database, judge in trouble for 5s: gone for 4 s; the database does not answer, 2 connected, 0 changes in the last minute"
        );
    }

    #[tokio::test]
    async fn a_start_asks_for_time_only_while_a_step_of_the_schema_is_under_way() {
        const GUARD: Duration = Duration::from_secs(60);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let manager = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
        manager.set_read_timeout(Some(GUARD)).unwrap();
        let service = Service { notifier: Arc::new(Notifier::connect(path.as_os_str()).unwrap()), ..Service::default() };
        let step = Arc::new(Mutex::new(None));
        let (done, start) = tokio::sync::oneshot::channel::<()>();
        let starting = tokio::spawn({
            let step = Arc::clone(&step);
            async move { service.starting_told(Duration::from_millis(5), &step, start).await }
        });
        let heard = tokio::task::spawn_blocking(move || {
            let hear = || {
                let mut buffer = [0; 512];
                let length = manager.recv(&mut buffer).unwrap();
                String::from_utf8(buffer[..length].to_vec()).unwrap()
            };
            let mut heard = vec![hear(), hear()];
            *step.lock().unwrap() = Some(SchemaStep { number: 3, of: 4 });
            heard.extend([hear(), hear()]);
            heard
        });
        let heard = timeout(GUARD, heard).await.unwrap().unwrap();
        done.send(()).unwrap();
        timeout(GUARD, starting).await.unwrap().unwrap().unwrap();
        let schema = "STATUS=bringing the database's schema up to date: step 3 of 4";
        assert_eq!(heard, ["STATUS=opening the database", "STATUS=waiting for the database", schema, "EXTEND_TIMEOUT_USEC=60000000"]);
    }

    #[test]
    fn changes_are_counted_over_the_last_minute() {
        let (mut counted, start) = (Counted::default(), Instant::now());
        let mut at = |seconds, count| counted.in_the_last_minute(start + Duration::from_secs(seconds), count);
        assert_eq!(at(0, 5), 0);
        assert_eq!(at(10, 25), 20);
        assert_eq!(at(60, 30), 25);
        assert_eq!(at(70, 30), 5);
        assert_eq!(at(80, 31), 6, "since the count at 10 s, the last from before the minute");
        assert_eq!(at(200, 31), 0);
    }
}
