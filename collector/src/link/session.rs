//! One agent's stream, from Hello to its end.
//!
//! Invariants: frames are taken in order without holes, each continuing the hash chain of the one
//! before; at most [`IN_FLIGHT`] of them wait for their commit; an acknowledgement is sent only after
//! it. A stream that breaks a rule is ended with the reason, and no other stream notices. `DATA_LOSS` says
//! that its frames do not continue what is here, so that the agent numbers them anew.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::FutureExt;
use futures_util::stream::{FuturesOrdered, StreamExt};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tonic::{Status, Streaming};
use trueline_drift::{Facts, Sequence};
use trueline_proto::{ChainLink, v1};
use trueline_store::{Batch, NewAction, StoreError};

use super::end::{End, broken, chain_broken, refused, sequence_gap};
use super::greeting::Greeting;
use super::progress::{Answer, Progress, last_of, open};
use super::status::{host_status, short};
use super::{Policy, check_credential};
use crate::enrolment::unavailable;
use crate::hub::{Errand, Hub, StreamSeat, now};
use crate::ingest::Ingest;
use crate::tls::{Peer, PeerIdentity, Refusal, Refusals};

/// Frames of one stream between decoding and commit.
const IN_FLIGHT: usize = 16;
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);
/// For what is said at the end of a stream.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(5);
/// A stream is dead after this many heartbeats that did not come.
const HEARTBEATS_MISSED: u32 = 4;
/// Payloads up to this many bytes are decoded on the runtime's own threads.
const INLINE_LIMIT: usize = 16 * 1024;

pub struct Session {
    pub hub: Arc<Hub>,
    pub refusals: Arc<Refusals>,
    pub ingest: Ingest,
    pub policy: watch::Receiver<Policy>,
    pub heartbeat_seconds: u32,
    pub peer: Peer,
    pub identity: PeerIdentity,
    pub outbox: mpsc::Sender<Result<v1::FromCollector, Status>>,
}

impl Session {
    pub async fn run(self, mut inbound: Streaming<v1::FromAgent>) {
        let end = match self.take_seat(&mut inbound).await {
            Err(end) => end,
            Ok((mut seat, greeting)) => {
                let end = self.serve(&mut seat, greeting, inbound).await;
                drop(seat);
                self.hub.news.ring();
                end
            }
        };
        let (status, is_news) = match end {
            End::Gone => (None, !self.refusals.knows(&self.peer)),
            End::Said(status) => (Some(status), true),
            End::Refused(refusal, status) => {
                let is_news = self.note(refusal, &status);
                (Some(status), is_news)
            }
            End::Asked => {
                let (refusal, status) = self.asked().await;
                let is_news = refusal.is_none_or(|refusal| self.note(refusal, &status));
                (Some(status), is_news)
            }
        };
        let (host, peer) = (self.identity.host, self.peer.address.ip());
        let reason = status.as_ref().map_or("the agent left", Status::message);
        // What is refused again and again is counted, and was told once.
        if is_news {
            tracing::info!(%host, %peer, "stream ended: {}", short(reason));
        } else {
            tracing::debug!(%host, %peer, "stream ended: {}", short(reason));
        }
        if let Some(status) = status {
            // A peer that does not read its messages does not read this one either.
            let _ = tokio::time::timeout(FAREWELL_TIMEOUT, self.outbox.send(Err(status))).await;
        }
    }

    /// Whether that is news.
    fn note(&self, refusal: Refusal, status: &Status) -> bool {
        self.refusals.note(&self.peer, refusal, format_args!("host {}: {}", self.identity.host, status.message()))
    }

    /// Credential and Hello, and with them the right to speak for the host: who has it not does not end the stream that the
    /// host has.
    async fn take_seat(&self, inbound: &mut Streaming<v1::FromAgent>) -> Result<(StreamSeat, Greeting), End> {
        self.may_speak().await?;
        let greeting = self.hear_hello(inbound).await?;
        let host = self.identity.host;
        match self.hub.seat(host, greeting.life.clone(), now()) {
            Ok(seat) => Ok((seat, greeting)),
            Err(twin) => {
                let reason = "another machine speaks as this host: a disk was copied after its host was enrolled. Enrol this one anew, \
                    with a join token: trueline-agent enroll --force";
                let end = refused(Refusal::IdentityInUse, Status::failed_precondition(reason));
                if twin.is_news {
                    self.note_twin(&greeting.facts).await;
                }
                Err(end)
            }
        }
    }

    async fn note_twin(&self, facts: &Facts) {
        let (host, peer) = (self.identity.host, self.peer.address.ip());
        let action = NewAction {
            tenant: self.identity.tenant.clone(),
            at: now(),
            actor: "collector".to_owned(),
            action: "host.duplicated".to_owned(),
            subject: format!("host:{host}"),
            detail: Some(format!("{} at {peer} has the identity of another machine that is connected", facts.hostname)),
        };
        if let Err(error) = self.hub.store.note_action(action).await {
            tracing::error!(%error, %host, "two machines with one identity could not be noted in the log of actions");
        }
    }

    async fn may_speak(&self) -> Result<(), End> {
        check_credential(&self.hub, &self.identity).await.map_err(|(refusal, status)| match refusal {
            Some(refusal) => End::Refused(refusal, status),
            None => End::Said(status),
        })
    }

    /// Why the hub ended the stream.
    async fn asked(&self) -> (Option<Refusal>, Status) {
        if self.hub.shutdown.is_cancelled() {
            return (None, Status::unavailable("the collector is shutting down; connect again"));
        }
        match check_credential(&self.hub, &self.identity).await {
            Err(refused) => refused,
            Ok(()) => (None, Status::aborted("a newer stream of this host took over")),
        }
    }

    async fn serve(&self, seat: &mut StreamSeat, greeting: Greeting, mut inbound: Streaming<v1::FromAgent>) -> End {
        match self.begin(seat, greeting).await {
            Ok((mut progress, mut policy)) => {
                let end = match self.exchange(seat, &mut inbound, &mut progress, &mut policy).await {
                    Ok(()) => End::Gone,
                    Err(end) => end,
                };
                if self.hub.shutdown.is_cancelled() {
                    // What is being committed is still acknowledged, so that it need not be sent twice.
                    let _ = tokio::time::timeout(FAREWELL_TIMEOUT, self.finish(&mut progress)).await;
                }
                end
            }
            Err(end) => end,
        }
    }

    async fn hear_hello(&self, inbound: &mut Streaming<v1::FromAgent>) -> Result<Greeting, End> {
        let first = tokio::select! {
            () = self.hub.shutdown.cancelled() => return Err(End::Asked),
            first = tokio::time::timeout(HELLO_TIMEOUT, inbound.message()) => first,
        };
        let Ok(first) = first else {
            let status = Status::deadline_exceeded(format!("no Hello within {} s", HELLO_TIMEOUT.as_secs()));
            return Err(End::Refused(Refusal::Slow, status));
        };
        let message = first.map_err(broken)?.ok_or(End::Gone)?.message;
        let Some(v1::from_agent::Message::Hello(hello)) = message else {
            return Err(refused(Refusal::Protocol, Status::invalid_argument("the first message must be Hello")));
        };
        Greeting::check(hello)
    }

    /// Welcome, policy.
    async fn begin(&self, seat: &StreamSeat, greeting: Greeting) -> Result<(Progress, watch::Receiver<Policy>), End> {
        // Whoever was revoked while it had no seat was not ended.
        self.may_speak().await?;
        let Greeting { facts, epoch, version, policy_version, .. } = greeting;
        let position = self
            .hub
            .store
            .host_connected(self.identity.host, &facts, &version, epoch, now())
            .await
            .map_err(|error| End::Said(unavailable(error)))?;
        let welcome = v1::Welcome {
            acknowledged_sequence: position.acknowledged.0,
            heartbeat_seconds: self.heartbeat_seconds,
            collector_time: now().micros(),
            epoch: position.epoch.0,
        };
        self.say(seat, v1::from_collector::Message::Welcome(welcome)).await?;
        let (host, peer) = (self.identity.host, self.peer.address.ip());
        if self.refusals.knows(&self.peer) {
            tracing::debug!(%host, %peer, hostname = facts.hostname, version, "stream began");
        } else {
            tracing::info!(%host, %peer, hostname = facts.hostname, version, "stream began");
        }
        self.hub.news.ring();
        let mut policy = self.policy.clone();
        let current = policy.borrow_and_update().clone();
        // None here and one there: it was withdrawn.
        let document = told(&current);
        if document.version != policy_version {
            self.say(seat, v1::from_collector::Message::Policy(document)).await?;
        }
        let progress = Progress {
            epoch,
            taken: position.acknowledged,
            link: position.link,
            durable: position.acknowledged,
            acknowledged: None,
            in_flight: FuturesOrdered::new(),
        };
        Ok((progress, policy))
    }

    async fn exchange(
        &self,
        seat: &mut StreamSeat,
        inbound: &mut Streaming<v1::FromAgent>,
        progress: &mut Progress,
        policy: &mut watch::Receiver<Policy>,
    ) -> Result<(), End> {
        let patience = Duration::from_secs(u64::from(self.heartbeat_seconds.max(3) * HEARTBEATS_MISSED));
        let expiry = Instant::now() + Duration::from_micros(u64::try_from(self.identity.expires_at.micros_since(now())).unwrap_or(0));
        let mut heard_at = Instant::now();
        let mut status_at: Option<Instant> = None;
        // A task of its own: polled only here, it could sit on the database's one writer while the frames
        // handed in below wait for it.
        let mut status_write: JoinSet<Result<(), StoreError>> = JoinSet::new();
        let mut policy_lives = true;
        loop {
            let may_read = progress.in_flight.len() < IN_FLIGHT;
            tokio::select! {
                biased;
                () = seat.end.cancelled() => return Err(End::Asked),
                Some(answer) = progress.in_flight.next(), if !progress.in_flight.is_empty() => {
                    heard_at = Instant::now();
                    self.settle(seat, progress, answer).await?;
                }
                message = inbound.message(), if may_read => {
                    heard_at = Instant::now();
                    let Some(message) = message.map_err(broken)? else { return Ok(()) };
                    match message.message {
                        Some(v1::from_agent::Message::Frames(frames)) => self.take(seat, progress, frames).await?,
                        Some(v1::from_agent::Message::Heartbeat(heartbeat)) => {
                            let pause = Duration::from_secs(u64::from(self.heartbeat_seconds)) / 2;
                            if status_write.is_empty() && status_at.is_none_or(|at| at.elapsed() >= pause) {
                                status_at = Some(Instant::now());
                                let (hub, host, status) = (Arc::clone(&self.hub), self.identity.host, host_status(heartbeat));
                                status_write.spawn(async move { hub.store.host_status(host, &status, now()).await });
                            }
                        }
                        Some(v1::from_agent::Message::ScanFinished(finished)) => {
                            let fault = finished.fault.as_deref().map(short).unwrap_or_default();
                            tracing::info!(host = %self.identity.host, scan = short(&finished.id), items = finished.items, changed = finished.changed, fault, "scan finished");
                            self.hub.news.ring();
                        }
                        Some(v1::from_agent::Message::Hello(_)) => {
                            return Err(refused(Refusal::Protocol, Status::invalid_argument("a second Hello in one stream")));
                        }
                        None => return Err(refused(Refusal::MessageInvalid, Status::invalid_argument("a message without content"))),
                    }
                }
                Some(written) = status_write.join_next(), if !status_write.is_empty() => {
                    if let Ok(Err(error)) = written {
                        tracing::warn!(host = %self.identity.host, %error, "a host's status could not be kept");
                    }
                }
                Some(errand) = seat.errands.recv() => {
                    let Errand::Scan { id, scope } = errand;
                    self.say(seat, v1::from_collector::Message::Scan(v1::ScanRequest { id, scope })).await?;
                }
                changed = policy.changed(), if policy_lives => {
                    policy_lives = changed.is_ok();
                    let current = policy.borrow_and_update().clone();
                    if policy_lives {
                        self.say(seat, v1::from_collector::Message::Policy(told(&current))).await?;
                    }
                }
                () = tokio::time::sleep_until(heard_at + patience), if progress.in_flight.is_empty() => {
                    return Err(End::Said(Status::deadline_exceeded(format!("nothing heard for {} s", patience.as_secs()))));
                }
                () = tokio::time::sleep_until(expiry) => {
                    let status = Status::unauthenticated("the certificate of this connection has expired; renew it and connect again");
                    return Err(refused(Refusal::CertificateExpired, status));
                }
            }
        }
    }

    /// Hands the frames of one message in, in order.
    async fn take(&self, seat: &StreamSeat, progress: &mut Progress, frames: v1::Frames) -> Result<(), End> {
        let mut repeated = false;
        for frame in frames.frames {
            let first = Sequence(frame.first_sequence);
            let last = match last_of(&frame) {
                Some(last) => last,
                None => {
                    return Err(refused(Refusal::FrameInvalid, Status::invalid_argument(format!("frame {first} has impossible numbers"))));
                }
            };
            if last <= progress.taken {
                metrics::counter!("trueline_ingest_duplicates_total").increment(u64::from(frame.count));
                repeated = true;
                continue;
            }
            let expected = progress.taken.next();
            if first != expected {
                return Err(sequence_gap(expected, first));
            }
            while progress.in_flight.len() >= IN_FLIGHT {
                let Some(answer) = next_or_end(seat, progress.in_flight.next()).await? else { break };
                self.settle(seat, progress, answer).await?;
            }
            let slot = next_or_end(seat, self.ingest.slot()).await??;
            let (epoch, previous, count) = (progress.epoch, progress.link, frame.count);
            let link = ChainLink::from_bytes(&frame.link);
            let decoded = if frame.payload.len() <= INLINE_LIMIT {
                open(epoch, previous, &frame)
            } else {
                match tokio::task::spawn_blocking(move || open(epoch, previous, &frame)).await {
                    Ok(decoded) => decoded,
                    Err(_) => return Err(End::Said(Status::internal("decoding a frame failed; see the collector's log"))),
                }
            };
            let opened = decoded.map_err(|error| refused(Refusal::FrameInvalid, Status::invalid_argument(error.to_string())))?;
            if link != Some(opened.link) {
                return Err(chain_broken(first));
            }
            debug_assert_eq!(opened.records.len(), count as usize);
            let batch = Batch { host: self.identity.host, epoch, first, records: opened.records, previous, link: opened.link };
            let answer = next_or_end(seat, self.ingest.submit(batch, slot)).await??;
            progress.in_flight.push_back(answer);
            progress.taken = last;
            progress.link = opened.link;
        }
        if repeated && progress.in_flight.is_empty() {
            // The agent did not hear the acknowledgement of what it sent again.
            progress.acknowledged = None;
            self.acknowledge(seat, progress).await?;
        }
        Ok(())
    }

    /// Takes one answer and all that are there already, and acknowledges them together.
    async fn settle(&self, seat: &StreamSeat, progress: &mut Progress, answer: Answer) -> Result<(), End> {
        let mut failure = progress.note(answer).err();
        while failure.is_none()
            && let Some(Some(answer)) = progress.in_flight.next().now_or_never()
        {
            failure = progress.note(answer).err();
        }
        self.acknowledge(seat, progress).await?;
        failure.map_or(Ok(()), Err)
    }

    async fn acknowledge(&self, seat: &StreamSeat, progress: &mut Progress) -> Result<(), End> {
        if progress.acknowledged == Some(progress.durable) || progress.durable.0 == 0 {
            return Ok(());
        }
        progress.acknowledged = Some(progress.durable);
        self.say(seat, v1::from_collector::Message::Acknowledgement(v1::Acknowledgement { sequence: progress.durable.0 })).await
    }

    /// Waits for what was handed in and acknowledges it, whatever the seat says.
    async fn finish(&self, progress: &mut Progress) {
        while let Some(answer) = progress.in_flight.next().await {
            if progress.note(answer).is_err() {
                break;
            }
        }
        if progress.durable.0 > 0 && progress.acknowledged != Some(progress.durable) {
            let message = v1::from_collector::Message::Acknowledgement(v1::Acknowledgement { sequence: progress.durable.0 });
            // The peer may be gone already; it asks at its next Hello.
            let _ = self.outbox.send(Ok(v1::FromCollector { message: Some(message) })).await;
        }
    }

    async fn say(&self, seat: &StreamSeat, message: v1::from_collector::Message) -> Result<(), End> {
        let message = v1::FromCollector { message: Some(message) };
        next_or_end(seat, self.outbox.send(Ok(message))).await?.map_err(|_| End::Gone)
    }
}

/// As agents are told. The version zero, which no policy has, sends them back to their own configuration.
fn told(policy: &Policy) -> v1::WatchPolicy {
    policy
        .as_ref()
        .map_or_else(v1::WatchPolicy::default, |policy| v1::WatchPolicy { version: policy.version, document: policy.text.clone() })
}

async fn next_or_end<T>(seat: &StreamSeat, next: impl Future<Output = T>) -> Result<T, End> {
    tokio::select! {
        biased;
        () = seat.end.cancelled() => Err(End::Asked),
        next = next => Ok(next),
    }
}
