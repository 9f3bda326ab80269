//! The collector's background tasks: owned here, restarted with a pause when they fail, joined at the
//! end.
//!
//! Invariant: each task is idempotent and runs on a bell and on a timer, so that a lost bell heals
//! itself, and any collector of a database may run all of them.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use trueline_drift::Time;
use trueline_store::StoreError;

use crate::ca::CertificateAuthority;
use crate::hub::{Hub, Part, now};
use crate::tls::ServerLeaf;

pub const TIMER: Duration = Duration::from_secs(1);
/// How often it is proven that the database takes writes.
const PROOF: Duration = Duration::from_secs(5);
const PAUSE_FIRST: Duration = Duration::from_millis(250);
const PAUSE_MOST: Duration = Duration::from_secs(15);
/// Clocks of several collectors may differ by this much without a revocation being overlooked.
const REVOCATION_OVERLAP_SECONDS: i64 = 60;

/// Starts every background task. They end when `hub.shutdown` is cancelled.
pub fn start(hub: &Arc<Hub>, ca: Arc<CertificateAuthority>, leaf: Arc<ServerLeaf>, leaf_due: Duration) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    tasks.spawn(supervise(Arc::clone(hub), Part::Judge, crate::judge::run));
    tasks.spawn(supervise(Arc::clone(hub), Part::Compare, crate::compare::run));
    // Kept over failures: what was revoked while the database was away is found when it is back.
    let revoked_since = Arc::new(Mutex::new(now().plus_seconds(-REVOCATION_OVERLAP_SECONDS)));
    tasks.spawn(supervise(Arc::clone(hub), Part::Database, move |hub| end_revoked(hub, Arc::clone(&revoked_since))));
    tasks.spawn(supervise(Arc::clone(hub), Part::Database, prove_writes));
    tasks.spawn(renew_leaf(Arc::clone(hub), ca, leaf, leaf_due));
    tasks
}

/// Sleeps until the bell rings, `period` is over or the collector shuts down.
pub async fn rest_until(hub: &Hub, bell: &mut watch::Receiver<u64>, period: Duration) {
    tokio::select! {
        () = hub.shutdown.cancelled() => {}
        _ = bell.changed() => {}
        () = tokio::time::sleep(period) => {}
    }
}

/// Runs a task until it ends by itself; after an error again, with growing pauses.
async fn supervise<F, T>(hub: Arc<Hub>, part: Part, task: F)
where
    F: Fn(Arc<Hub>) -> T,
    T: Future<Output = Result<(), StoreError>>,
{
    let mut pause = PAUSE_FIRST;
    loop {
        let began = tokio::time::Instant::now();
        let Err(error) = task(Arc::clone(&hub)).await else { return };
        if began.elapsed() > PAUSE_MOST {
            pause = PAUSE_FIRST;
        }
        tracing::error!(part = part.name(), %error, "a background task failed; it is tried again");
        metrics::counter!("trueline_task_failures_total", "part" => part.name()).increment(1);
        hub.health.is_troubled(part, now(), &error);
        tokio::select! {
            () = hub.shutdown.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
        pause = (pause * 2).min(PAUSE_MOST);
    }
}

/// Writes a row now and then: a full disk refuses connecting hosts and people alike, and is a trouble even where nobody
/// sends records. That the database can be read says nothing of it.
async fn prove_writes(hub: Arc<Hub>) -> Result<(), StoreError> {
    while !hub.shutdown.is_cancelled() {
        hub.store.probe(now()).await?;
        hub.health.is_well(Part::Database);
        tokio::select! {
            () = hub.shutdown.cancelled() => {}
            () = tokio::time::sleep(PROOF) => {}
        }
    }
    Ok(())
}

/// Ends the streams and connections of hosts that were revoked, by whichever collector.
async fn end_revoked(hub: Arc<Hub>, since: Arc<Mutex<Time>>) -> Result<(), StoreError> {
    while !hub.shutdown.is_cancelled() {
        let asked_at = now();
        let from = *since.lock().unwrap_or_else(PoisonError::into_inner);
        for host in hub.store.hosts_revoked_since(from).await? {
            hub.end_host(host);
        }
        *since.lock().unwrap_or_else(PoisonError::into_inner) = asked_at.plus_seconds(-REVOCATION_OVERLAP_SECONDS);
        tokio::select! {
            () = hub.shutdown.cancelled() => {}
            () = tokio::time::sleep(TIMER) => {}
        }
    }
    Ok(())
}

async fn renew_leaf(hub: Arc<Hub>, ca: Arc<CertificateAuthority>, leaf: Arc<ServerLeaf>, mut due: Duration) {
    loop {
        tokio::select! {
            () = hub.shutdown.cancelled() => return,
            () = tokio::time::sleep(due) => {}
        }
        due = match leaf.renew(&ca, now()) {
            Ok(due) => {
                hub.health.is_well(Part::Certificates);
                tracing::info!("renewed the server certificate");
                due
            }
            Err(error) => {
                tracing::error!(%error, "cannot renew the server certificate; tried again in an hour");
                hub.health.is_troubled(Part::Certificates, now(), error);
                Duration::from_secs(3600)
            }
        };
    }
}
