//! The link to the collector: one mutual-TLS stream that sends the spool and takes what comes back.
//!
//! Invariants: nothing leaves the spool before the collector says that it is durable; at most a
//! window of bytes is under way; a broken stream costs a resend and never a change. The link decides
//! nothing about items.

mod backoff;
mod connect;
mod stream;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use trueline_drift::watch::WatchPolicy;

use crate::clock;
use crate::identity::{Identity, IdentityError};
use crate::spool::Spool;
use crate::status::Status;

pub use backoff::Backoff;
pub use connect::{ConnectError, channel, pinned_channel};
pub use stream::StreamError;

/// What the collector asks of the observer.
#[derive(Debug)]
pub enum Errand {
    Policy(Box<WatchPolicy>),
    Scan { id: String, scope: String },
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

/// Keeps a stream up until `stop`, reconnecting with jittered exponential waits, and the certificate
/// fresh.
pub async fn run(mut identity: Identity, parts: LinkParts, mut answers: mpsc::Receiver<ScanAnswer>, stop: CancellationToken) {
    let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(60));
    while !stop.is_cancelled() {
        match stream::run(&mut identity, &parts, &mut answers, &mut backoff, &stop).await {
            Ok(stream::Ended::Stopped) => break,
            Ok(stream::Ended::Renewed) => {
                info!(until = %identity.valid_until, "certificate renewed; continuing under the new one");
                continue;
            }
            Err(error) => {
                let wait = backoff.next_wait(rand::random());
                warn!(collector = %identity.link, error = %error, retry_ms = wait.as_millis() as u64, "the link is down");
                parts.status.trouble("link", Some(format!("the link to {} is down: {error}", identity.link)));
                tokio::select! {
                    () = stop.cancelled() => break,
                    () = tokio::time::sleep(wait) => {}
                }
            }
        }
    }
}

/// Asks for the next certificate over the live channel.
async fn renew(identity: &Identity, channel: tonic::transport::Channel) -> Result<Identity, StreamError> {
    use trueline_proto::v1::RenewRequest;
    use trueline_proto::v1::link_client::LinkClient;
    let request = crate::identity::KeyRequest::new()?;
    let answer = LinkClient::new(channel).renew(RenewRequest { csr: request.csr.clone().into() }).await?.into_inner();
    let chain: Vec<Vec<u8>> = answer.certificates.iter().map(|certificate| certificate.to_vec()).collect();
    let identity = identity.clone();
    tokio::task::spawn_blocking(move || identity.renew(&request, &chain))
        .await
        .unwrap_or_else(|error| Err(IdentityError::Answer { reason: format!("writing it failed: {error}") }))
        .map_err(StreamError::from)
}

/// How long until the certificate should be renewed; zero when it is overdue.
fn until_renewal(identity: &Identity) -> Duration {
    Duration::from_micros(u64::try_from(identity.renew_at().micros_since(clock::now())).unwrap_or(0))
}
