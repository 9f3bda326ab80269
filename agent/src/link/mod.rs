//! The link to the collector: one mutual-TLS stream that sends the spool and takes what comes back.
//!
//! Invariants: nothing leaves the spool before the collector says that it is durable; at most a
//! window of bytes is under way; a broken stream costs a resend and never a change. The link decides
//! nothing about items.

mod backoff;
mod connect;
mod credential;
mod fit;
mod stream;
mod window;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use trueline_drift::watch::WatchPolicy;

use crate::identity::Identity;
use crate::spool::Spool;
use crate::status::Status;

pub use backoff::Backoff;
pub use connect::{ConnectError, channel, check_address, pinned_channel};
pub use stream::StreamError;

use credential::Credential;

/// What the collector asks of the observer.
#[derive(Debug)]
pub enum Errand {
    Policy(Box<WatchPolicy>),
    /// The collector has no policy, or has none any more: the host's own configuration counts.
    OwnPolicy,
    Scan {
        id: String,
        scope: String,
    },
    /// Not of the collector's: the host's own configuration was read again.
    Configure(Box<Configuration>),
}

/// What of the host's own configuration can change while the agent runs.
#[derive(Debug)]
pub struct Configuration {
    pub watch: WatchPolicy,
    pub scan_threads: usize,
    /// Told what came of it.
    pub outcome: std::sync::mpsc::SyncSender<Configured>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Configured {
    /// The host's own watch list is in force.
    InForce,
    /// The collector's watch list of this version is; the host's own counts should the collector take it back.
    Overruled {
        version: u64,
    },
    Failed {
        reason: String,
    },
}

/// What the observer answers to [`Errand::Scan`].
#[derive(Debug, Clone)]
pub struct ScanAnswer {
    pub id: String,
    pub items: u64,
    pub changed: u64,
    pub fault: Option<String>,
}

/// Sensor coverage as the heartbeat reports it.
pub type CoverageReader = Arc<dyn Fn() -> Vec<crate::sensor::Coverage> + Send + Sync>;

/// Everything a stream needs of the rest of the agent.
pub struct LinkParts {
    pub spool: Arc<Spool>,
    pub status: Arc<Status>,
    pub sensors: Arc<crate::sensor::SensorCounters>,
    pub coverage: CoverageReader,
    pub errands: mpsc::Sender<Errand>,
    pub policy_version: watch::Receiver<u64>,
}

/// The agent still watches meanwhile. Starting over takes an inventory: a collector that finds fault with every
/// epoch must not make it a loop without rest.
const START_OVER_WAIT: Duration = Duration::from_secs(5);

/// Why the link ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkEnd {
    Stopped,
    /// The spool's numbers do not fit the collector's and it is marked to begin anew: the agent must open it again.
    StartOver,
}

/// Keeps a stream up until `stop`, reconnecting with jittered exponential waits, and the certificate
/// fresh. On return nothing of the identity is being written any more; other work for the disk or the network may still
/// be under way on the runtime, and none of it is missed.
pub async fn run(identity: Identity, parts: LinkParts, mut answers: mpsc::Receiver<ScanAnswer>, stop: CancellationToken) -> LinkEnd {
    let mut credential = Credential::new(identity);
    let end = keep_up(&mut credential, &parts, &mut answers, &stop).await;
    if !credential.identity.is_saved() {
        credential::save(credential.identity, parts.status).await;
    }
    credential::written().await;
    end
}

async fn keep_up(
    credential: &mut Credential,
    parts: &LinkParts,
    answers: &mut mpsc::Receiver<ScanAnswer>,
    stop: &CancellationToken,
) -> LinkEnd {
    let mut backoff = Backoff::of_link();
    while !stop.is_cancelled() {
        parts.status.use_certificate((&credential.identity).into());
        match stream::run(credential, parts, answers, &mut backoff, stop).await {
            Ok(stream::Ended::Stopped) => break,
            Ok(stream::Ended::Renewed) => {
                info!(until = %credential.identity.valid_until, "certificate renewed; continuing under the new one");
            }
            Err(error @ StreamError::OtherNumbers { .. }) => {
                warn!(collector = %credential.identity.link, %error, "starting over");
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = tokio::time::sleep(START_OVER_WAIT) => {}
                }
                return LinkEnd::StartOver;
            }
            Err(error) => {
                let wait = backoff.next_wait(rand::random());
                let link = &credential.identity.link;
                let trouble = match credential.expired_at() {
                    Some(at) => format!("the link to {link} is down: the certificate expired at {at}: enrol this host again ({error})"),
                    None => format!("the link to {link} is down: {error}"),
                };
                warn!(retry_ms = wait.as_millis() as u64, "{trouble}");
                parts.status.link_is_down(error.to_string());
                parts.status.trouble("link", Some(trouble));
                tokio::select! {
                    () = stop.cancelled() => break,
                    () = tokio::time::sleep(wait) => {}
                }
            }
        }
    }
    LinkEnd::Stopped
}
