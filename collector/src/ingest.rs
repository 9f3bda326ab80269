//! Taking records in: batches of many hosts, one durable transaction for all that wait.
//!
//! Invariants:
//! - A batch is answered only after its group is committed. Nothing waits on purpose: a group is what
//!   gathered while the one before was committed.
//! - Records that wait for their commit never take more memory than [`BUDGET_KIB`], as they are kept and not as they
//!   came; who wants more waits, and so, over HTTP/2, does the agent, which keeps them in its spool. A frame takes
//!   many times its size while it is decoded: no more than a few are at once, see [`Slot`].
//! - While the database is away or full the group is kept and tried again. A batch that the database
//!   refuses for good is answered alone; the others of its group are taken.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use trueline_store::{AppendOutcome, Batch, Prepared, StoreError, prepare};

use crate::hub::{Hub, Part, now};

/// Most records in one transaction, give or take a batch.
const GROUP_RECORDS: usize = 8_192;
/// Batches of up to this many records are encoded on the runtime's own threads.
const INLINE_RECORDS: usize = 32;
const QUEUE_BATCHES: usize = 1_024;
const BUDGET_KIB: usize = 64 * 1024;
/// Frames decoded at once, at most, however many processors there are.
const SLOTS_MOST: usize = 16;
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_MOST: Duration = Duration::from_secs(5);
/// How long the database still gets what was taken in after shutdown began. Agents keep what is not acknowledged.
const DRAIN_LIMIT: Duration = Duration::from_secs(10);
/// A commit that takes longer is a trouble before it is known to have failed.
const SLOW: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, thiserror::Error)]
pub enum IngestError {
    #[error("the collector is shutting down")]
    Closed,
    #[error("the records could not be stored: {0}")]
    Refused(String),
}

type Answer = Result<AppendOutcome, IngestError>;

struct Job {
    batch: Prepared,
    answer: oneshot::Sender<Answer>,
    room: Room,
}

/// Memory set aside for records that wait, given back when it is dropped.
#[derive(Debug)]
struct Room(#[expect(dead_code, reason = "given back by being dropped")] OwnedSemaphorePermit);

/// Leave to decode one frame, from before it is opened until its batch was handed in. Whoever has one may wait for room, and
/// whoever has room waits for nothing but the commit.
#[derive(Debug)]
pub struct Slot(#[expect(dead_code, reason = "given back by being dropped")] OwnedSemaphorePermit);

/// Where streams hand in their batches.
#[derive(Debug, Clone)]
pub struct Ingest {
    jobs: mpsc::Sender<Job>,
    budget: Arc<Semaphore>,
    slots: Arc<Semaphore>,
}

/// The other end: what [`Intake::run`] commits.
#[derive(Debug)]
pub struct Intake {
    jobs: mpsc::Receiver<Job>,
}

pub fn ingest() -> (Ingest, Intake) {
    let (sender, receiver) = mpsc::channel(QUEUE_BATCHES);
    let slots = 2 * std::thread::available_parallelism().map_or(1, usize::from);
    let ingest =
        Ingest { jobs: sender, budget: Arc::new(Semaphore::new(BUDGET_KIB)), slots: Arc::new(Semaphore::new(slots.min(SLOTS_MOST))) };
    (ingest, Intake { jobs: receiver })
}

impl Ingest {
    pub async fn slot(&self) -> Result<Slot, IngestError> {
        Arc::clone(&self.slots).acquire_owned().await.map(Slot).map_err(|_| IngestError::Closed)
    }

    /// Hands a batch in; the receiver hears of it when it is durable or refused.
    pub async fn submit(&self, batch: Batch, slot: Slot) -> Result<oneshot::Receiver<Answer>, IngestError> {
        let batch = if batch.records.len() <= INLINE_RECORDS {
            prepare(batch)
        } else {
            // Many streams encode at once, and none of them on the runtime's own threads.
            let prepared = tokio::task::spawn_blocking(move || prepare(batch)).await;
            prepared.map_err(|error| IngestError::Refused(error.to_string()))?
        };
        let kib = u32::try_from(batch.bytes().div_ceil(1024).clamp(1, BUDGET_KIB)).unwrap_or(u32::MAX);
        let room = Arc::clone(&self.budget).acquire_many_owned(kib).await.map(Room).map_err(|_| IngestError::Closed)?;
        drop(slot);
        let (answer, outcome) = oneshot::channel();
        self.jobs.send(Job { batch, answer, room }).await.map_err(|_| IngestError::Closed)?;
        Ok(outcome)
    }
}

impl Intake {
    /// Commits until `closed`, and then what waits already. A connection that its peer does not end keeps an [`Ingest`] alive:
    /// it keeps nobody waiting.
    pub async fn run(mut self, hub: Arc<Hub>, closed: CancellationToken) {
        let mut drain = Drain::default();
        loop {
            let first = tokio::select! {
                biased;
                first = self.jobs.recv() => first,
                () = closed.cancelled(), if !self.jobs.is_closed() => {
                    self.jobs.close();
                    continue;
                }
            };
            let Some(first) = first else { return };
            let mut records = first.batch.records();
            let mut group = vec![first];
            while records < GROUP_RECORDS
                && let Ok(job) = self.jobs.try_recv()
            {
                records += job.batch.records();
                group.push(job);
            }
            metrics::gauge!("trueline_ingest_queue_batches").set(self.jobs.len() as f64);
            hub.pulses.ingest.at_work(commit(&hub, group, &mut drain)).await;
        }
    }
}

/// Until when the database is still tried after shutdown began, for all that waits together.
#[derive(Default)]
struct Drain(Option<Instant>);

impl Drain {
    /// The database's answer; none where it owes it for too long after shutdown began.
    async fn answer<T>(&mut self, hub: &Hub, appending: impl Future<Output = T>) -> Option<T> {
        let over = async {
            hub.shutdown.cancelled().await;
            let until = *self.0.get_or_insert_with(|| Instant::now() + DRAIN_LIMIT);
            tokio::time::sleep_until(until.into()).await;
        };
        tokio::select! {
            biased;
            () = over => None,
            answer = appending => Some(answer),
            never = say_slow(hub) => match never {},
        }
    }

    fn is_over(&mut self) -> bool {
        Instant::now() >= *self.0.get_or_insert_with(|| Instant::now() + DRAIN_LIMIT)
    }
}

async fn say_slow(hub: &Hub) -> Infallible {
    tokio::time::sleep(SLOW).await;
    let reason = format!("the database has not answered a commit for {} seconds", SLOW.as_secs());
    tracing::warn!(reason, "records wait; agents keep theirs");
    hub.health.is_troubled(Part::Ingest, now(), reason);
    std::future::pending().await
}

/// Commits a group and answers each of its batches.
async fn commit(hub: &Hub, group: Vec<Job>, drain: &mut Drain) {
    let (batches, waiting): (Vec<Prepared>, Vec<_>) = group.into_iter().map(|job| (job.batch, (job.answer, job.room))).unzip();
    let answers: Vec<Answer> = match append(hub, &batches, drain).await {
        Ok(outcomes) => {
            note_outcomes(hub, &batches, &outcomes);
            outcomes.into_iter().map(Ok).collect()
        }
        Err(AppendFailure::GaveUp) => batches.iter().map(|_| Err(IngestError::Closed)).collect(),
        Err(AppendFailure::Final(error)) => {
            tracing::error!(%error, batches = batches.len(), "a group of batches was refused by the database; trying each alone");
            let mut answers = Vec::with_capacity(batches.len());
            for batch in batches {
                answers.push(alone(hub, batch, drain).await);
            }
            answers
        }
    };
    for ((answer, _room), outcome) in waiting.into_iter().zip(answers) {
        // A stream that ended meanwhile hears of it at its next Hello.
        let _ = answer.send(outcome);
    }
}

async fn alone(hub: &Hub, batch: Prepared, drain: &mut Drain) -> Answer {
    let batches = [batch];
    match append(hub, &batches, drain).await {
        Ok(outcomes) => {
            note_outcomes(hub, &batches, &outcomes);
            outcomes.into_iter().next().ok_or_else(|| IngestError::Refused("the store gave no answer".to_owned()))
        }
        Err(AppendFailure::GaveUp) => Err(IngestError::Closed),
        Err(AppendFailure::Final(error)) => {
            tracing::error!(%error, host = %batches[0].host(), first = batches[0].first().0, "a batch was refused by the database");
            hub.health.is_troubled(Part::Ingest, now(), &error);
            Err(IngestError::Refused(error.to_string()))
        }
    }
}

enum AppendFailure {
    /// The database stayed away for too long after shutdown began.
    GaveUp,
    Final(StoreError),
}

/// Appends, and while the database is away or full tries again.
async fn append(hub: &Hub, batches: &[Prepared], drain: &mut Drain) -> Result<Vec<AppendOutcome>, AppendFailure> {
    let mut pause = RETRY_FIRST;
    loop {
        let began = Instant::now();
        let answer = drain.answer(hub, hub.store.append_prepared(batches, now()));
        let Some(answer) = hub.pulses.ingest.waiting(answer).await else { return Err(AppendFailure::GaveUp) };
        let error = match answer {
            Ok(outcomes) if outcomes.len() == batches.len() => {
                metrics::histogram!("trueline_ingest_append_seconds").record(began.elapsed().as_secs_f64());
                hub.health.is_well(Part::Ingest);
                hub.health.is_well(Part::Database);
                return Ok(outcomes);
            }
            Ok(outcomes) => {
                let reason = format!("{} outcomes for {} batches", outcomes.len(), batches.len());
                return Err(AppendFailure::Final(StoreError::Corrupt { subject: "append", reason }));
            }
            Err(error) if error.is_passing() => error,
            Err(error) => return Err(AppendFailure::Final(error)),
        };
        metrics::counter!("trueline_ingest_retries_total").increment(1);
        if !hub.health.troubles().contains_key(&Part::Ingest) {
            tracing::error!(%error, "records wait until the database takes them; agents keep theirs");
        }
        hub.health.is_troubled(Part::Ingest, now(), &error);
        hub.health.is_troubled(Part::Database, now(), &error);
        if hub.shutdown.is_cancelled() {
            if drain.is_over() {
                return Err(AppendFailure::GaveUp);
            }
            hub.pulses.ingest.waiting(tokio::time::sleep(pause)).await;
        } else {
            let until_shutdown = hub.shutdown.run_until_cancelled(tokio::time::sleep(pause));
            hub.pulses.ingest.waiting(until_shutdown).await;
        }
        pause = (pause * 2).min(RETRY_MOST);
    }
}

fn note_outcomes(hub: &Hub, batches: &[Prepared], outcomes: &[AppendOutcome]) {
    let (mut records, mut changes, mut inventory) = (0, 0, false);
    for (batch, outcome) in batches.iter().zip(outcomes) {
        // What is refused the stream counts, with its peer.
        if let AppendOutcome::Accepted { changes: new, .. } = outcome {
            records += batch.records() as u64;
            changes += new;
            inventory |= batch.ends_inventory();
        }
    }
    metrics::counter!("trueline_ingest_records_total").increment(records);
    metrics::counter!("trueline_ingest_changes_total").increment(changes);
    hub.changes_taken.fetch_add(changes, Ordering::Relaxed);
    metrics::counter!("trueline_ingest_batches_total").increment(batches.len() as u64);
    if changes > 0 {
        hub.appended.ring();
    }
    if inventory {
        hub.compare.ring();
    }
    if records > 0 {
        hub.news.ring();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;
    use trueline_drift::{Epoch, HostId, Observation, RecordBody, Sequence, Time};
    use trueline_proto::ChainLink;
    use trueline_store::testing;

    fn batch(records: usize) -> Batch {
        let observed = |number: usize| {
            RecordBody::Observed(Observation {
                item: format!("file:/{number}").parse().unwrap(),
                fields: trueline_drift::Fields::new(),
                observed_at: Time::from_seconds(1),
            })
        };
        Batch {
            host: HostId(uuid::Uuid::nil()),
            epoch: Epoch(1),
            first: Sequence(1),
            records: (0..records).map(observed).collect(),
            previous: ChainLink::START,
            link: ChainLink::START,
        }
    }

    #[tokio::test]
    async fn records_are_charged_for_what_they_take_and_not_for_what_they_came_as() {
        let (ingest, mut intake) = ingest();
        let slot = ingest.slot().await.unwrap();
        let free = ingest.budget.available_permits();
        let _answer = ingest.submit(batch(4_000), slot).await.unwrap();
        let job = intake.jobs.try_recv().unwrap();
        let charged = (free - ingest.budget.available_permits()) * 1024;
        assert!(charged >= job.batch.bytes(), "{charged} of {}", job.batch.bytes());
        // On the wire a record as short as these has some twenty bytes.
        assert!(charged > 4_000 * 64, "{charged}");
        drop(job);
        assert_eq!(ingest.budget.available_permits(), free);
    }

    /// A connection that its peer does not end keeps what it hands records in with.
    #[tokio::test]
    async fn what_was_handed_in_is_committed_and_the_end_waits_for_nobody_who_could_hand_in_more() {
        let folder = tempfile::tempdir().unwrap();
        let store = trueline_store::open(&format!("sqlite:{}", folder.path().join("collector.db").display())).await.unwrap();
        let hub = Hub::new(store, CancellationToken::new());
        let (ingest, intake) = ingest();
        let answer = ingest.submit(batch(1), ingest.slot().await.unwrap()).await.unwrap();
        let closed = CancellationToken::new();
        closed.cancel();
        let limit = Duration::from_secs(60);
        tokio::time::timeout(limit, intake.run(hub, closed)).await.expect("it ends");
        // Of a host that nobody knows: the store answers, and refuses.
        assert!(answer.await.is_ok());
        assert!(matches!(ingest.submit(batch(1), ingest.slot().await.unwrap()).await, Err(IngestError::Closed)));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_commit_that_the_database_does_not_answer_is_a_trouble_and_holds_up_no_shutdown() {
        let server = match testing::postgres() {
            Ok(server) => server,
            Err(missing) => return testing::skip("a_commit_that_the_database_does_not_answer", missing),
        };
        let limit = Duration::from_secs(60);
        let proxy = testing::Proxy::start(server).unwrap();
        let store = trueline_store::open(&proxy.uri(server, "intake")).await.unwrap();
        let hub = Hub::new(store, CancellationToken::new());
        proxy.silence_on(Some(testing::COMMIT));
        let (ingest, intake) = ingest();
        let closed = CancellationToken::new();
        let running = tokio::spawn(intake.run(Arc::clone(&hub), closed.clone()));
        let mut answers = Vec::new();
        for _ in 0..2 {
            answers.push(ingest.submit(batch(1), ingest.slot().await.unwrap()).await.unwrap());
        }
        let told = async {
            while !hub.health.troubles().contains_key(&Part::Ingest) {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(limit, told).await.expect("it is told");
        assert!(proxy.silenced() > 0);
        let began = Instant::now();
        hub.shutdown.cancel();
        closed.cancel();
        tokio::time::timeout(limit, running).await.expect("it ends").unwrap();
        assert!(began.elapsed() < 2 * DRAIN_LIMIT, "for both together: {:?}", began.elapsed());
        for answer in answers {
            assert!(matches!(answer.await.unwrap(), Err(IngestError::Closed)));
        }
    }

    #[tokio::test]
    async fn a_batch_waits_for_room_and_others_for_its_slot() {
        let (ingest, intake) = ingest();
        let all = Arc::clone(&ingest.budget).acquire_many_owned(BUDGET_KIB as u32).await.unwrap();
        let slots = ingest.slots.available_permits();
        let slot = ingest.slot().await.unwrap();
        let mut waiting = Box::pin(ingest.submit(batch(1), slot));
        assert!((&mut waiting).now_or_never().is_none());
        assert_eq!((ingest.slots.available_permits(), intake.jobs.len()), (slots - 1, 0));
        drop(all);
        waiting.await.unwrap();
        assert_eq!((ingest.slots.available_permits(), intake.jobs.len()), (slots, 1));
    }
}
