//! One life of the stream: hello, welcome, frames up, acknowledgements and errands down.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, Interval, MissedTickBehavior};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Streaming;
use tracing::{debug, info, warn};
use trueline_drift::document::parse_yaml;
use trueline_drift::watch::WatchPolicy;
use trueline_drift::{Sequence, text};
use trueline_proto::v1::link_client::LinkClient;
use trueline_proto::v1::{self, from_agent, from_collector};
use trueline_proto::{MESSAGE_LIMIT, PROTOCOL};

use super::{Backoff, ConnectError, Errand, LinkParts, ScanAnswer, connect, renew, until_renewal};
use crate::clock;
use crate::identity::{Identity, IdentityError};
use crate::spool::{Spool, SpoolError};

/// Most payload in one message, and most that may be under way without an acknowledgement.
const MESSAGE_BYTES: usize = 512 * 1024;
const WINDOW_BYTES: usize = 2 * 1024 * 1024;
/// How long a stop may wait for what is already spooled to be acknowledged.
const DRAIN: Duration = Duration::from_secs(3);
const WELCOME_TIMEOUT: Duration = Duration::from_secs(15);

#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error("the collector refused: {message}")]
    Refused { message: String },
    #[error("the collector ended the stream")]
    Ended,
    #[error("the collector did not greet within {} s", WELCOME_TIMEOUT.as_secs())]
    NoWelcome,
    #[error("the collector broke the protocol: {reason}")]
    Protocol { reason: &'static str },
    #[error(transparent)]
    Spool(#[from] SpoolError),
}

impl From<tonic::Status> for StreamError {
    fn from(status: tonic::Status) -> Self {
        Self::Refused { message: text::bounded(&text::printable(status.message().as_bytes()), 300).into_owned() }
    }
}

pub(super) enum Ended {
    Stopped,
    /// Reconnect at once, under the new certificate.
    Renewed,
}

/// What was sent and is not yet acknowledged.
#[derive(Debug, Default)]
struct Window {
    sent: Sequence,
    under_way: VecDeque<(Sequence, usize)>,
    bytes: usize,
}

impl Window {
    fn has_room(&self) -> bool {
        self.bytes < WINDOW_BYTES
    }

    fn send(&mut self, last: Sequence, bytes: usize) {
        self.sent = last;
        self.bytes += bytes;
        self.under_way.push_back((last, bytes));
    }

    fn acknowledge(&mut self, upto: Sequence) {
        while let Some((last, bytes)) = self.under_way.front()
            && *last <= upto
        {
            self.bytes -= bytes;
            self.under_way.pop_front();
        }
    }
}

struct Stream<'a> {
    parts: &'a LinkParts,
    up: mpsc::Sender<v1::FromAgent>,
    window: Window,
}

type Down = Streaming<v1::FromCollector>;

/// Runs until the stream breaks, the certificate is renewed, or the agent stops.
pub(super) async fn run(
    identity: &mut Identity,
    parts: &LinkParts,
    answers: &mut mpsc::Receiver<ScanAnswer>,
    backoff: &mut Backoff,
    stop: &CancellationToken,
) -> Result<Ended, StreamError> {
    let channel = connect::channel(&identity.link, identity.client_config()?).await?;
    let (mut stream, mut down, mut heartbeat) = Stream::open(channel.clone(), parts).await?;
    info!(collector = %identity.link, host = %identity.host, acknowledged = %stream.window.sent, "linked");
    backoff.reset();
    stream.parts.status.trouble("link", None);
    let renewal = tokio::time::sleep(until_renewal(identity));
    tokio::pin!(renewal);
    loop {
        let has_more = stream.window.has_room() && stream.window.sent < stream.parts.spool.newest();
        let mut newest = stream.parts.spool.subscribe();
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
            _ = heartbeat.tick() => {
                let heartbeat = stream.heartbeat_message();
                stream.send(heartbeat).await?;
            }
            answer = answers.recv() => {
                let Some(answer) = answer else { return Ok(Ended::Stopped) };
                let v1 = v1::ScanFinished { id: answer.id, items: answer.items, changed: answer.changed, fault: answer.fault };
                stream.send(from_agent::Message::ScanFinished(v1)).await?;
            }
            () = &mut renewal => match renew(identity, channel.clone()).await {
                Ok(renewed) => {
                    *identity = renewed;
                    return Ok(Ended::Renewed);
                }
                Err(error) => {
                    let left = Duration::from_micros(u64::try_from(identity.valid_until.micros_since(clock::now())).unwrap_or(0));
                    warn!(%error, left_s = left.as_secs(), "the certificate could not be renewed; trying again");
                    renewal.as_mut().reset(Instant::now() + (left / 10).clamp(Duration::from_secs(1), Duration::from_secs(600)));
                }
            },
        }
    }
}

impl<'a> Stream<'a> {
    /// Says hello and waits for the welcome.
    async fn open(channel: tonic::transport::Channel, parts: &'a LinkParts) -> Result<(Self, Down, Interval), StreamError> {
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
        release(&parts.spool, acknowledged).await;
        let mut heartbeat = tokio::time::interval(Duration::from_secs(u64::from(welcome.heartbeat_seconds.clamp(1, 3600))));
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let window = Window { sent: acknowledged, ..Window::default() };
        Ok((Self { parts, up, window }, down, heartbeat))
    }

    async fn send(&self, message: from_agent::Message) -> Result<(), StreamError> {
        self.up.send(v1::FromAgent { message: Some(message) }).await.map_err(|_| StreamError::Ended)
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
            Some(from_collector::Message::Policy(policy)) => {
                match parse_yaml::<WatchPolicy>("policy from the collector", &policy.document) {
                    Ok(parsed) if parsed.faults().is_empty() => {
                        let parsed = WatchPolicy { version: policy.version, ..parsed };
                        self.errand(Errand::Policy(Box::new(parsed))).await;
                    }
                    Ok(parsed) => warn!(faults = ?parsed.faults(), "the collector's policy is not usable; keeping the present one"),
                    Err(error) => warn!(%error, "the collector's policy is not usable; keeping the present one"),
                }
            }
            Some(from_collector::Message::Scan(scan)) => {
                let id = text::bounded(&text::printable(scan.id.as_bytes()), 100).into_owned();
                self.errand(Errand::Scan { id, scope: text::bounded(&scan.scope, 4096).into_owned() }).await;
            }
            Some(from_collector::Message::Welcome(_)) => return Err(StreamError::Protocol { reason: "it greeted twice" }),
            None => debug!("a message of a newer protocol was passed over"),
        }
        Ok(())
    }

    async fn errand(&self, errand: Errand) {
        if self.parts.errands.try_send(errand).is_err() {
            warn!("too many requests of the collector are waiting; one was refused");
        }
    }

    fn heartbeat_message(&self) -> from_agent::Message {
        let LinkParts { spool, status, sensors, coverage, .. } = self.parts;
        let read = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        from_agent::Message::Heartbeat(v1::Heartbeat {
            sent_at: clock::now().micros(),
            sensors: coverage()
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
            }),
            spool: Some(v1::SpoolState {
                bytes: spool.bytes(),
                limit_bytes: spool.limit().bytes,
                oldest_sequence: spool.oldest().0,
                newest_sequence: spool.newest().0,
                holding_since: status.holding_since().map(trueline_drift::Time::micros),
            }),
            troubles: status.troubles(),
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

/// Lets acknowledged records leave the spool, off the runtime: files are deleted.
async fn release(spool: &Arc<Spool>, upto: Sequence) {
    let spool = Arc::clone(spool);
    let released = tokio::task::spawn_blocking(move || spool.acknowledge(upto)).await;
    if let Ok(Err(error)) = released {
        warn!(%error, "acknowledged records could not be released from the spool");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_counts_what_is_under_way() {
        let mut window = Window::default();
        window.send(Sequence(10), WINDOW_BYTES - 1);
        assert!(window.has_room());
        window.send(Sequence(20), 1);
        assert!(!window.has_room());
        window.acknowledge(Sequence(15));
        assert!(window.has_room());
        window.acknowledge(Sequence(20));
        assert_eq!((window.bytes, window.sent), (0, Sequence(20)));
    }
}
