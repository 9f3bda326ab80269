//! The certificate over its life: when to ask for the next one, and what becomes of it.
//!
//! Invariants: certificates are valid by the collector's clock, so that one counts wherever it was told; whatever
//! the clocks say, the collector is not asked in a tight loop; a certificate that was issued is used even when it
//! cannot be written.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;
use tracing::warn;
use trueline_drift::Time;
use trueline_proto::v1::RenewRequest;
use trueline_proto::v1::link_client::LinkClient;

use super::StreamError;
use crate::clock;
use crate::identity::{Identity, IdentityError, KeyRequest};
use crate::status::Status;

/// How long the collector may take over a renewal.
const RENEWAL_TIMEOUT: Duration = Duration::from_secs(30);
/// How long until writing a certificate is tried again.
pub const SAVE_AGAIN: Duration = Duration::from_secs(60);

/// What the collector's clock showed, and when that was here. Goes on by the monotonic clock: this host's own may be set.
#[derive(Debug, Clone, Copy)]
struct CollectorClock {
    showed: Time,
    at: Instant,
}

/// The identity of the link, and what is known of its renewal.
pub struct Credential {
    pub identity: Identity,
    clock: Option<CollectorClock>,
    asked_at: Option<Instant>,
}

impl Credential {
    pub fn new(identity: Identity) -> Self {
        Self { identity, clock: None, asked_at: None }
    }

    /// Takes the time that a welcome told.
    pub fn set_clock(&mut self, collector_time: Time) {
        if collector_time > Time::default() {
            self.clock = Some(CollectorClock { showed: collector_time, at: Instant::now() });
        }
    }

    fn now(&self) -> Time {
        let Some(clock) = self.clock else { return clock::now() };
        clock.showed.plus_micros(i64::try_from(clock.at.elapsed().as_micros()).unwrap_or(i64::MAX))
    }

    /// When the certificate ran out, where it has.
    pub fn expired_at(&self) -> Option<Time> {
        Some(self.identity.valid_until).filter(|until| *until <= self.now())
    }

    /// How long until the collector should be asked for the next certificate.
    pub fn until_renewal(&self) -> Duration {
        let now = self.now();
        let asked = self.asked_at.map(|at| at.elapsed());
        wait(until(now, self.identity.renew_at()), until(now, self.identity.valid_until), asked)
    }

    /// Notes that the collector is asked now.
    pub fn ask(&mut self) {
        self.asked_at = Some(Instant::now());
    }
}

fn until(now: Time, then: Time) -> Duration {
    Duration::from_micros(u64::try_from(then.micros_since(now)).unwrap_or(0))
}

/// `due`: until two thirds of the certificate's life are over; `left`: until it runs out; `asked`: since the last request.
///
/// Requests are a minute apart at least, so that a wrong clock makes no flood. Only a certificate that
/// lives for a few minutes altogether is asked for more often, else it would run out in that minute.
fn wait(due: Duration, left: Duration, asked: Option<Duration>) -> Duration {
    const LEAST: Duration = Duration::from_secs(60);
    const MOST: Duration = Duration::from_secs(600);
    let Some(asked) = asked else { return due };
    let apart = match left {
        Duration::ZERO => LEAST,
        left => (left / 10).clamp(LEAST, MOST).min((left / 3).max(Duration::from_secs(1))),
    };
    due.max(apart.saturating_sub(asked))
}

/// What a task for the certificate came to.
pub enum Upkeep {
    Renewed(Identity),
    /// Tried to write what was only in memory.
    Saved(Identity),
}

/// Asks for the next certificate over the live channel, and writes it where it can be written.
pub async fn renew(identity: Identity, channel: tonic::transport::Channel, status: Arc<Status>) -> Result<Upkeep, StreamError> {
    let request = KeyRequest::new()?;
    let mut client = LinkClient::new(channel);
    let answer = tokio::time::timeout(RENEWAL_TIMEOUT, client.renew(RenewRequest { csr: request.csr.clone().into() }))
        .await
        .map_err(|_| StreamError::NoRenewal { seconds: RENEWAL_TIMEOUT.as_secs() })??
        .into_inner();
    let chain: Vec<Vec<u8>> = answer.certificates.iter().map(|certificate| certificate.to_vec()).collect();
    let renewed = identity.renew(&request, &chain)?;
    Ok(Upkeep::Renewed(save(renewed, status).await))
}

/// Held while a certificate is written, on behalf of a task that may be gone by then.
static WRITING: Mutex<()> = Mutex::const_new(());

/// Waits until no certificate is being written.
pub async fn written() {
    drop(WRITING.lock().await);
}

/// Writes an identity that is only in memory; it comes back as it is when that fails.
pub async fn save(identity: Identity, status: Arc<Status>) -> Identity {
    let kept = identity.clone();
    let writing = WRITING.lock().await;
    let write = move || {
        let saved = identity.save();
        drop(writing);
        saved
    };
    let saved = tokio::task::spawn_blocking(write)
        .await
        .unwrap_or_else(|error| Err(IdentityError::Answer { reason: format!("writing it failed: {error}") }));
    match saved {
        Ok(saved) => {
            status.trouble("certificate", None);
            saved
        }
        Err(error) => {
            warn!(%error, again_s = SAVE_AGAIN.as_secs(), "the renewed certificate is in memory alone");
            status.trouble("certificate", Some(format!("the renewed certificate is lost if the agent ends now: {error}")));
            kept
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn the_first_request_waits_for_two_thirds_of_the_life() {
        assert_eq!(wait(DAY, 2 * DAY, None), DAY);
        assert_eq!(wait(Duration::ZERO, DAY, None), Duration::ZERO, "overdue");
    }

    #[test]
    fn whatever_the_clock_says_requests_stay_a_minute_apart() {
        for left in [Duration::ZERO, seconds(180), seconds(600), DAY, 1000 * DAY] {
            assert!(wait(Duration::ZERO, left, Some(Duration::ZERO)) >= seconds(60), "{left:?}");
        }
        assert_eq!(wait(Duration::ZERO, DAY, Some(seconds(200))), seconds(400));
        assert_eq!(wait(Duration::ZERO, DAY, Some(seconds(2000))), Duration::ZERO);
        assert_eq!(wait(Duration::ZERO, Duration::ZERO, Some(seconds(20))), seconds(40));
    }

    #[test]
    fn a_certificate_of_one_minute_is_renewed_before_it_runs_out() {
        assert_eq!(wait(Duration::ZERO, seconds(60), Some(Duration::ZERO)), seconds(20));
        assert_eq!(wait(Duration::ZERO, seconds(1), Some(Duration::ZERO)), seconds(1));
    }
}
