//! What the parts of a collector share: the store, the bells between them, the live streams and the
//! state of health.
//!
//! Invariants: a bell only hastens work that a timer would do anyway; a stream is registered for
//! exactly as long as it runs; health says what is wrong now, not what once was.

mod lives;

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use trueline_drift::{HostId, Time};
use trueline_store::Store;

use crate::pulse::Pulses;
use crate::tls::HostConnections;

pub use lives::{Life, Twin};

use lives::Lives;

/// Parts of the collector whose state an operator should know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    Database,
    Ingest,
    Judge,
    Compare,
    Certificates,
}

impl Part {
    pub const ALL: [Self; 5] = [Self::Database, Self::Ingest, Self::Judge, Self::Compare, Self::Certificates];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Database => "database",
            Self::Ingest => "ingest",
            Self::Judge => "judge",
            Self::Compare => "compare",
            Self::Certificates => "certificates",
        }
    }
}

/// What is wrong with a part, and since when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    pub since: Time,
    pub reason: String,
}

/// The present troubles of each part.
#[derive(Debug, Default)]
pub struct Health(Mutex<BTreeMap<Part, Trouble>>);

impl Health {
    pub fn is_well(&self, part: Part) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&part);
    }

    /// Notes a trouble; the time of the first note stays while it lasts.
    pub fn is_troubled(&self, part: Part, now: Time, reason: impl std::fmt::Display) {
        let reason = reason.to_string();
        let mut troubles = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        troubles.entry(part).and_modify(|trouble| trouble.reason.clone_from(&reason)).or_insert(Trouble { since: now, reason });
    }

    pub fn troubles(&self) -> BTreeMap<Part, Trouble> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Tells sleeping tasks that there is something to do. Ringing twice before anybody wakes is one ring.
#[derive(Debug, Clone)]
pub struct Bell(watch::Sender<u64>);

impl Default for Bell {
    fn default() -> Self {
        Self(watch::Sender::new(0))
    }
}

impl Bell {
    pub fn ring(&self) {
        self.0.send_modify(|rings| *rings = rings.wrapping_add(1));
    }

    /// Each listener hears every ring after it began to listen, merged.
    pub fn listen(&self) -> watch::Receiver<u64> {
        self.0.subscribe()
    }
}

/// What the collector asks of a connected agent.
#[derive(Debug, Clone)]
pub enum Errand {
    Scan { id: String, scope: String },
}

/// The live streams, at most one for each host: a newer one ends the older.
#[derive(Debug, Default)]
pub struct Streams {
    live: Mutex<HashMap<HostId, LiveStream>>,
    /// Of every host that was connected since the collector started. Locked within `live`.
    lives: Mutex<HashMap<HostId, Lives>>,
}

#[derive(Debug)]
struct LiveStream {
    number: u64,
    end: CancellationToken,
    errands: mpsc::Sender<Errand>,
    /// Of the agent at its other end, where it told.
    life: Option<Life>,
}

/// Held by the task that runs a stream.
#[derive(Debug)]
pub struct StreamSeat {
    hub: Arc<Hub>,
    host: HostId,
    number: u64,
    /// Cancelled when the stream must end: revoked, or replaced.
    pub end: CancellationToken,
    pub errands: mpsc::Receiver<Errand>,
}

impl Drop for StreamSeat {
    fn drop(&mut self) {
        let mut streams = self.hub.streams.live.lock().unwrap_or_else(PoisonError::into_inner);
        if streams.get(&self.host).is_some_and(|stream| stream.number == self.number) {
            streams.remove(&self.host);
        }
    }
}

impl Streams {
    pub fn is_connected(&self, host: HostId) -> bool {
        self.live.lock().unwrap_or_else(PoisonError::into_inner).contains_key(&host)
    }

    /// Whether another machine has lately tried to speak as this host, which one does.
    pub fn has_twin(&self, host: HostId, now: Time) -> bool {
        let lives = self.lives.lock().unwrap_or_else(PoisonError::into_inner);
        lives.get(&host).is_some_and(|lives| lives.has_twin(now))
    }

    pub fn count(&self) -> usize {
        self.live.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Ends the host's stream at once, if it has one here.
    pub fn end(&self, host: HostId) {
        if let Some(stream) = self.live.lock().unwrap_or_else(PoisonError::into_inner).get(&host) {
            stream.end.cancel();
        }
    }

    /// `false` where the host is not connected here or already has too many errands waiting.
    pub fn send(&self, host: HostId, errand: Errand) -> bool {
        let streams = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        streams.get(&host).is_some_and(|stream| stream.errands.try_send(errand).is_ok())
    }
}

/// One for its stream, one for a renewal, and some that it has lost and that are not known to be dead yet.
const HOST_CONNECTIONS: usize = 8;

#[derive(Debug)]
pub struct Hub {
    pub store: Arc<dyn Store>,
    /// Rung when changes were appended: the judge listens.
    pub appended: Bell,
    /// Rung when something new can be shown: event streams listen.
    pub news: Bell,
    /// Rung when a host's state must be compared with its baseline.
    pub compare: Bell,
    pub streams: Streams,
    /// Of hosts that have shown a certificate, with a stream or without.
    pub connections: Arc<HostConnections>,
    pub health: Health,
    /// Of the background tasks.
    pub pulses: Pulses,
    /// Changes that became durable here.
    pub changes_taken: AtomicU64,
    /// Numbers the streams, so that an ended one never frees the seat of another.
    seats: AtomicU64,
    /// Cancelled once, at shutdown.
    pub shutdown: CancellationToken,
}

impl Hub {
    pub fn new(store: Arc<dyn Store>, shutdown: CancellationToken) -> Arc<Self> {
        Arc::new(Self {
            store,
            appended: Bell::default(),
            news: Bell::default(),
            compare: Bell::default(),
            streams: Streams::default(),
            connections: HostConnections::new(HOST_CONNECTIONS),
            health: Health::default(),
            pulses: Pulses::default(),
            changes_taken: AtomicU64::new(0),
            seats: AtomicU64::new(0),
            shutdown,
        })
    }

    /// Ends what a host has here that was revoked: its stream at once, its connections when they have told it so.
    pub fn end_host(&self, host: HostId) {
        self.streams.end(host);
        self.connections.end(host);
    }

    /// Registers a stream; an older one of the same host is ended. Of two machines with one identity one stays, and the
    /// other is turned away: see [`lives`].
    pub fn seat(self: &Arc<Self>, host: HostId, life: Option<Life>, now: Time) -> Result<StreamSeat, Twin> {
        let end = self.shutdown.child_token();
        let (sender, errands) = mpsc::channel(8);
        let mut streams = self.streams.live.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(life) = &life {
            let connected = streams.get(&host).map(|stream| stream.life.as_ref());
            let mut lives = self.streams.lives.lock().unwrap_or_else(PoisonError::into_inner);
            lives.entry(host).or_default().admit(life, connected, now)?;
        }
        let number = self.seats.fetch_add(1, Ordering::Relaxed);
        let seat = StreamSeat { hub: Arc::clone(self), host, number, end: end.clone(), errands };
        if let Some(old) = streams.insert(host, LiveStream { number, end, errands: sender, life }) {
            old.end.cancel();
        }
        Ok(seat)
    }
}

/// The present, from the system's clock: the one place where the collector reads it.
pub fn now() -> Time {
    let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Time::from_micros(i64::try_from(since_epoch.as_micros()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use trueline_proto::RunId;

    use super::*;

    async fn hub() -> (tempfile::TempDir, Arc<Hub>) {
        let folder = tempfile::tempdir().expect("a folder");
        let store = trueline_store::open(&format!("sqlite:{}", folder.path().join("collector.db").display())).await.expect("a store");
        (folder, Hub::new(store, CancellationToken::new()))
    }

    const HOST: HostId = HostId(uuid::Uuid::nil());

    fn run(number: u8) -> Option<Life> {
        Life::told(Some(RunId::new([number; 16])), None)
    }

    #[tokio::test]
    async fn of_two_lives_one_stays_and_the_other_does_not_end_its_stream() {
        let (_folder, hub) = hub().await;
        let now = Time::from_seconds(1_000);
        let seat = |life| hub.seat(HOST, life, now);
        let original = seat(run(1)).expect("the first");
        let copy = seat(run(2)).expect("nobody can tell it from a restart");
        assert!(original.end.is_cancelled() && !copy.end.is_cancelled());
        assert!(seat(run(1)).is_err() && !hub.streams.has_twin(HOST, now));
        assert!(seat(run(1)).is_err() && hub.streams.has_twin(HOST, now));
        assert!(!copy.end.is_cancelled(), "there would be no end to it");
        drop((original, copy));
        assert!(!hub.streams.is_connected(HOST));
        drop(seat(run(1)).expect("where the other is gone, this one speaks"));
    }

    #[tokio::test]
    async fn a_stream_whose_agent_tells_nothing_takes_over() {
        let (_folder, hub) = hub().await;
        let seats: Vec<_> = [None, run(1), run(1), None]
            .into_iter()
            .map(|life| hub.seat(HOST, life, Time::from_seconds(1)).expect("it is accused of nothing"))
            .collect();
        let ended: Vec<bool> = seats.iter().map(|seat| seat.end.is_cancelled()).collect();
        assert_eq!(ended, [true, true, true, false]);
    }
}
