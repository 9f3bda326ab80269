//! One life of the stream: hello, welcome, frames up, acknowledgements and errands down.

use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, Interval, MissedTickBehavior};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Streaming};
use tracing::{debug, info, warn};
use trueline_drift::document::parse_yaml;
use trueline_drift::watch::WatchPolicy;
use trueline_drift::{Epoch, ItemKey, Sequence, Time, text};
use trueline_proto::v1::link_client::LinkClient;
use trueline_proto::v1::{self, from_agent, from_collector};
use trueline_proto::{MESSAGE_LIMIT, PROTOCOL, RunId};

use super::credential::{self, Credential, SAVE_AGAIN, Upkeep};
use super::fit::{Fit, fits};
use super::window::Window;
use super::{Backoff, ConnectError, Errand, LinkParts, ScanAnswer, connect};
use crate::clock;
use crate::identity::IdentityError;
use crate::sensor::{operations, unwatched};
use crate::spool::{Spool, SpoolError};

/// Most payload in one message.
const MESSAGE_BYTES: usize = 512 * 1024;
/// How long a stop may wait for what is already spooled to be acknowledged.
const DRAIN: Duration = Duration::from_secs(3);
const WELCOME_TIMEOUT: Duration = Duration::from_secs(15);
/// How long a message may wait for the collector to read those before it.
const SEND_TIMEOUT: Duration = Duration::from_secs(30);
/// Both of the collector's databases count to 2^63 - 1, and a greater epoch must be left.
const EPOCH_LIMIT: u64 = i64::MAX as u64 - 1;

#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error("the collector refused: {message}")]
    Refused { message: String },
    /// Frames that do not continue what the collector has.
    #[error("the collector refused: {message}")]
    Discontinued { message: String },
    #[error("the collector ended the stream")]
    Ended,
    #[error("the collector did not greet within {} s", WELCOME_TIMEOUT.as_secs())]
    NoWelcome,
    #[error("the collector read nothing for {} s", SEND_TIMEOUT.as_secs())]
    Stuck,
    #[error("the collector did not renew the certificate within {seconds} s")]
    NoRenewal { seconds: u64 },
    #[error("the spool's numbers do not fit the collector's: {reason}; numbering anew what is not acknowledged")]
    OtherNumbers { reason: String },
    #[error("the collector broke the protocol: {reason}")]
    Protocol { reason: &'static str },
    #[error(transparent)]
    Spool(#[from] SpoolError),
}

impl From<tonic::Status> for StreamError {
    fn from(status: tonic::Status) -> Self {
        let message = text::bounded(&text::printable(status.message().as_bytes()), 300).into_owned();
        if status.code() == Code::DataLoss { Self::Discontinued { message } } else { Self::Refused { message } }
    }
}

pub(super) enum Ended {
    Stopped,
    /// Reconnect at once, under the new certificate.
    Renewed,
}

struct Stream<'a> {
    parts: &'a LinkParts,
    up: mpsc::Sender<v1::FromAgent>,
    window: Window,
    /// The collector's newest policy, until the observer has room for it. Should the stream end first, the next Hello
    /// has the collector send it again.
    policy: Option<Errand>,
}

type Down = Streaming<v1::FromCollector>;

/// Runs until the stream breaks, the certificate is renewed, or the agent stops.
pub(super) async fn run(
    credential: &mut Credential,
    parts: &LinkParts,
    answers: &mut mpsc::Receiver<ScanAnswer>,
    backoff: &mut Backoff,
    stop: &CancellationToken,
) -> Result<Ended, StreamError> {
    match live(credential, parts, answers, backoff, stop).await {
        Err(StreamError::Discontinued { message }) => Err(begin_anew(&parts.spool, parts.spool.epoch(), message).await),
        ended => ended,
    }
}

async fn live(
    credential: &mut Credential,
    parts: &LinkParts,
    answers: &mut mpsc::Receiver<ScanAnswer>,
    backoff: &mut Backoff,
    stop: &CancellationToken,
) -> Result<Ended, StreamError> {
    let begin = async {
        let channel = connect::channel(&credential.identity.link, credential.identity.client_config()?).await?;
        Ok::<_, StreamError>((channel.clone(), Stream::open(channel, parts).await?))
    };
    let overdue = async {
        stop.cancelled().await;
        tokio::time::sleep(DRAIN).await;
    };
    let (channel, (mut stream, mut down, greeting)) = tokio::select! {
        () = overdue => return Ok(Ended::Stopped),
        begun = begin => begun?,
    };
    let identity = &credential.identity;
    info!(collector = %identity.link, host = %identity.host, acknowledged = %stream.window.sent, "linked");
    backoff.reset();
    credential.set_clock(greeting.collector_time);
    stream.parts.status.link_is_up();
    stream.parts.status.trouble("link", None);
    let mut heartbeat = greeting.heartbeat;
    // Tasks of their own, so that acknowledgements are taken meanwhile; they end with the stream.
    let mut upkeep: JoinSet<Result<Upkeep, StreamError>> = JoinSet::new();
    let renewal = tokio::time::sleep(credential.until_renewal());
    tokio::pin!(renewal);
    let mut save_again = tokio::time::interval_at(Instant::now() + SAVE_AGAIN, SAVE_AGAIN);
    loop {
        // Subscribed before it is looked at: what is appended in between wakes the loop.
        let mut newest = stream.parts.spool.subscribe();
        let has_more = stream.window.has_room() && stream.window.sent < stream.parts.spool.newest();
        tokio::select! {
            () = stop.cancelled() => {
                stream.drain(&mut down).await;
                return Ok(Ended::Stopped);
            }
            message = down.message() => match message? {
                Some(message) => stream.take(message).await?,
                None => return Err(StreamError::Ended),
            },
            sent = stream.send_frames(), if has_more => stream.note_sent(sent?),
            _ = newest.changed(), if !has_more => {}
            _ = heartbeat.tick() => stream.send_heartbeat()?,
            answer = answers.recv() => {
                let Some(answer) = answer else { return Ok(Ended::Stopped) };
                let v1 = v1::ScanFinished { id: answer.id, items: answer.items, changed: answer.changed, fault: answer.fault };
                stream.send(from_agent::Message::ScanFinished(v1)).await?;
            }
            place = parts.errands.reserve(), if stream.policy.is_some() => {
                if let (Ok(place), Some(policy)) = (place, stream.policy.take()) {
                    place.send(policy);
                }
            }
            () = &mut renewal, if upkeep.is_empty() => {
                credential.ask();
                let (identity, status) = (credential.identity.clone(), Arc::clone(&parts.status));
                upkeep.spawn(credential::renew(identity, channel.clone(), status));
            }
            _ = save_again.tick(), if upkeep.is_empty() && !credential.identity.is_saved() => {
                let (identity, status) = (credential.identity.clone(), Arc::clone(&parts.status));
                upkeep.spawn(async move { Ok(Upkeep::Saved(credential::save(identity, status).await)) });
            }
            Some(done) = upkeep.join_next() => {
                match done.unwrap_or(Err(StreamError::Protocol { reason: "renewing the certificate failed" })) {
                    Ok(Upkeep::Renewed(identity)) => {
                        credential.identity = identity;
                        return Ok(Ended::Renewed);
                    }
                    Ok(Upkeep::Saved(identity)) => credential.identity = identity,
                    Err(error) => {
                        let again = credential.until_renewal();
                        warn!(%error, again_s = again.as_secs(), "the certificate could not be renewed; trying again");
                        renewal.as_mut().reset(Instant::now() + again);
                    }
                }
            }
        }
    }
}

/// Of this process: what it draws is written nowhere, so that a copy of the host's disk does not have it.
fn present_run() -> RunId {
    static RUN: OnceLock<RunId> = OnceLock::new();
    *RUN.get_or_init(|| RunId::new(rand::random()))
}

/// What the welcome said beyond where to go on.
struct Greeting {
    heartbeat: Interval,
    collector_time: Time,
}

impl<'a> Stream<'a> {
    /// Says hello and waits for the welcome.
    async fn open(channel: tonic::transport::Channel, parts: &'a LinkParts) -> Result<(Self, Down, Greeting), StreamError> {
        let (up, outbound) = mpsc::channel(8);
        let facts = tokio::task::spawn_blocking(crate::facts::read).await.unwrap_or_default();
        let hello = v1::Hello {
            protocol: PROTOCOL,
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            facts: Some(facts.into()),
            epoch: parts.spool.epoch().0,
            oldest_sequence: parts.spool.oldest().0,
            newest_sequence: parts.spool.newest().0,
            policy_version: *parts.policy_version.borrow(),
            run_id: Some(present_run().to_wire()),
        };
        up.send(v1::FromAgent { message: Some(from_agent::Message::Hello(hello)) }).await.map_err(|_| StreamError::Ended)?;
        let mut client = LinkClient::new(channel).max_decoding_message_size(MESSAGE_LIMIT).max_encoding_message_size(MESSAGE_LIMIT);
        let greeting = async {
            let mut down = client.stream(ReceiverStream::new(outbound)).await?.into_inner();
            match down.message().await?.ok_or(StreamError::Ended)?.message {
                Some(from_collector::Message::Welcome(welcome)) => Ok((down, welcome)),
                _ => Err(StreamError::Protocol { reason: "its first message is not a welcome" }),
            }
        };
        let (down, welcome) = tokio::time::timeout(WELCOME_TIMEOUT, greeting).await.map_err(|_| StreamError::NoWelcome)??;
        let acknowledged = Sequence(welcome.acknowledged_sequence);
        check(&parts.spool, acknowledged, Epoch(welcome.epoch)).await?;
        release(&parts.spool, acknowledged).await;
        let mut heartbeat = tokio::time::interval(Duration::from_secs(u64::from(welcome.heartbeat_seconds.clamp(1, 3600))));
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let window = Window::after(acknowledged);
        let greeting = Greeting { heartbeat, collector_time: Time::from_micros(welcome.collector_time) };
        Ok((Self { parts, up, window, policy: None }, down, greeting))
    }

    async fn send(&self, message: from_agent::Message) -> Result<(), StreamError> {
        let message = v1::FromAgent { message: Some(message) };
        let sent = tokio::time::timeout(SEND_TIMEOUT, self.up.send(message)).await.map_err(|_| StreamError::Stuck)?;
        sent.map_err(|_| StreamError::Ended)
    }

    /// Where frames are waiting to leave, these tell that the agent lives; the next heartbeat says the rest.
    fn send_heartbeat(&self) -> Result<(), StreamError> {
        match self.up.try_send(v1::FromAgent { message: Some(self.heartbeat_message()) }) {
            Err(mpsc::error::TrySendError::Closed(_)) => Err(StreamError::Ended),
            _ => Ok(()),
        }
    }

    /// Sends the next frames of the spool; the last sequence and the bytes, for the window. Cancel safe:
    /// the message leaves after the last wait.
    async fn send_frames(&self) -> Result<Option<(Sequence, usize)>, StreamError> {
        let place = self.up.clone().reserve_owned().await.map_err(|_| StreamError::Ended)?;
        let (spool, after) = (Arc::clone(&self.parts.spool), self.window.sent);
        let frames = tokio::task::spawn_blocking(move || spool.frames_after(after, MESSAGE_BYTES))
            .await
            .map_err(|_| StreamError::Protocol { reason: "reading the spool failed" })??;
        let Some(last) = frames.last() else { return Ok(None) };
        let last = Sequence(last.first_sequence + u64::from(last.count) - 1);
        let bytes = frames.iter().map(|frame| frame.payload.len()).sum();
        place.send(v1::FromAgent { message: Some(from_agent::Message::Frames(v1::Frames { frames })) });
        Ok(Some((last, bytes)))
    }

    fn note_sent(&mut self, sent: Option<(Sequence, usize)>) {
        if let Some((last, bytes)) = sent {
            self.window.send(last, bytes);
        }
    }

    async fn take(&mut self, message: v1::FromCollector) -> Result<(), StreamError> {
        match message.message {
            Some(from_collector::Message::Acknowledgement(acknowledgement)) => {
                let upto = Sequence(acknowledgement.sequence);
                if upto > self.window.sent {
                    return Err(StreamError::Protocol { reason: "it acknowledged what was never sent" });
                }
                self.window.acknowledge(upto);
                release(&self.parts.spool, upto).await;
            }
            Some(from_collector::Message::Policy(policy)) if policy.version == 0 => self.policy = Some(Errand::OwnPolicy),
            Some(from_collector::Message::Policy(policy)) => {
                match parse_yaml::<WatchPolicy>("policy from the collector", &policy.document) {
                    Ok(parsed) if parsed.faults().is_empty() => {
                        self.policy = Some(Errand::Policy(Box::new(WatchPolicy { version: policy.version, ..parsed })));
                    }
                    Ok(parsed) => warn!(faults = ?parsed.faults(), "the collector's policy is not usable; keeping the present one"),
                    Err(error) => warn!(%error, "the collector's policy is not usable; keeping the present one"),
                }
            }
            Some(from_collector::Message::Scan(scan)) => {
                let id = text::bounded(&text::printable(scan.id.as_bytes()), 100).into_owned();
                let errand = Errand::Scan { id, scope: text::bounded(&scan.scope, ItemKey::LIMIT).into_owned() };
                if self.parts.errands.try_send(errand).is_err() {
                    warn!("too many requests of the collector are waiting; one was refused");
                }
            }
            Some(from_collector::Message::Welcome(_)) => return Err(StreamError::Protocol { reason: "it greeted twice" }),
            None => debug!("a message of a newer protocol was passed over"),
        }
        Ok(())
    }

    fn heartbeat_message(&self) -> from_agent::Message {
        let LinkParts { spool, status, sensors, coverage, .. } = self.parts;
        let read = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        let coverage = coverage();
        let mut troubles = status.troubles();
        troubles.extend(unwatched(&coverage));
        let operations = operations(&coverage).into_iter().map(Into::into).collect();
        from_agent::Message::Heartbeat(v1::Heartbeat {
            sent_at: clock::now().micros(),
            operations,
            sensors: coverage
                .into_iter()
                .map(|sensor| v1::Sensor {
                    name: sensor.name.to_owned(),
                    scope: sensor.scope,
                    watching: sensor.watching,
                    reason: sensor.reason,
                })
                .collect(),
            counters: Some(v1::Counters {
                events: read(&sensors.events),
                changes: read(&status.changes),
                overflows: read(&sensors.overflows),
                events_dropped: read(&sensors.dropped),
                changes_held: read(&status.held),
                items: read(&status.items),
                read_failures: read(&status.read_failures),
                transients: read(&status.transients),
            }),
            spool: Some(v1::SpoolState {
                bytes: spool.bytes(),
                limit_bytes: spool.limit().bytes,
                oldest_sequence: spool.oldest().0,
                newest_sequence: spool.newest().0,
                holding_since: status.holding_since().map(trueline_drift::Time::micros),
            }),
            troubles,
            policy_version: *self.parts.policy_version.borrow(),
        })
    }

    /// Sends what is spooled and waits for its acknowledgement, for a short while.
    async fn drain(&mut self, down: &mut Down) {
        let drained = async {
            loop {
                let newest = self.parts.spool.newest();
                if self.window.sent < newest && self.window.has_room() {
                    let sent = self.send_frames().await?;
                    self.note_sent(sent);
                    continue;
                }
                if self.parts.spool.acknowledged() >= newest {
                    return Ok::<(), StreamError>(());
                }
                let message = down.message().await?.ok_or(StreamError::Ended)?;
                self.take(message).await?;
            }
        };
        match tokio::time::timeout(DRAIN, drained).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => debug!(%error, "the stream ended while draining; the spool keeps the rest"),
            Err(_) => debug!("stopping before the collector acknowledged all; the spool keeps the rest"),
        }
    }
}

/// Marks the spool to begin anew where its numbers do not fit the collector's. Before anything is released: what the
/// collector acknowledges of another story is not what lies here.
async fn check(spool: &Arc<Spool>, acknowledged: Sequence, welcome_epoch: Epoch) -> Result<(), StreamError> {
    if welcome_epoch.0 > EPOCH_LIMIT {
        return Err(StreamError::Protocol { reason: "its epoch is greater than an epoch can be" });
    }
    match fits(acknowledged, spool.oldest(), spool.newest(), spool.epoch(), welcome_epoch) {
        Fit::Fits => Ok(()),
        Fit::Not(reason) => Err(begin_anew(spool, welcome_epoch, reason.to_owned()).await),
    }
}

/// Marks the spool; what then ends the stream.
async fn begin_anew(spool: &Arc<Spool>, after: Epoch, reason: String) -> StreamError {
    let spool = Arc::clone(spool);
    match tokio::task::spawn_blocking(move || spool.begin_anew_after(after)).await {
        Ok(Ok(())) => StreamError::OtherNumbers { reason },
        Ok(Err(error)) => error.into(),
        Err(_) => StreamError::Protocol { reason: "marking the spool failed" },
    }
}

/// Lets acknowledged records leave the spool, off the runtime: files are deleted.
async fn release(spool: &Arc<Spool>, upto: Sequence) {
    let spool = Arc::clone(spool);
    let released = tokio::task::spawn_blocking(move || spool.acknowledge(upto)).await;
    if let Ok(Err(error)) = released {
        warn!(%error, "acknowledged records could not be released from the spool");
    }
}
