//! What the parts of a collector share: the store, the bells between them, the live streams and the
//! state of health.
//!
//! Invariants: a bell only hastens work that a timer would do anyway; a stream is registered for
//! exactly as long as it runs; health says what is wrong now, not what once was.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use trueline_drift::{HostId, Time};
use trueline_store::Store;

use crate::tls::HostConnections;

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
pub struct Streams(Mutex<HashMap<HostId, LiveStream>>);

#[derive(Debug)]
struct LiveStream {
    number: u64,
    end: CancellationToken,
    errands: mpsc::Sender<Errand>,
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
        let mut streams = self.hub.streams.0.lock().unwrap_or_else(PoisonError::into_inner);
        if streams.get(&self.host).is_some_and(|stream| stream.number == self.number) {
            streams.remove(&self.host);
        }
    }
}

impl Streams {
    pub fn is_connected(&self, host: HostId) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains_key(&host)
    }

    pub fn count(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Ends the host's stream at once, if it has one here.
    pub fn end(&self, host: HostId) {
        if let Some(stream) = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&host) {
            stream.end.cancel();
        }
    }

    /// `false` where the host is not connected here or already has too many errands waiting.
    pub fn send(&self, host: HostId, errand: Errand) -> bool {
        let streams = self.0.lock().unwrap_or_else(PoisonError::into_inner);
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
            seats: AtomicU64::new(0),
            shutdown,
        })
    }

    /// Ends what a host has here that was revoked: its stream at once, its connections when they have told it so.
    pub fn end_host(&self, host: HostId) {
        self.streams.end(host);
        self.connections.end(host);
    }

    /// Registers a stream; an older one of the same host is ended.
    pub fn seat(self: &Arc<Self>, host: HostId) -> StreamSeat {
        let end = self.shutdown.child_token();
        let (sender, errands) = mpsc::channel(8);
        let mut streams = self.streams.0.lock().unwrap_or_else(PoisonError::into_inner);
        let number = self.seats.fetch_add(1, Ordering::Relaxed);
        let seat = StreamSeat { hub: Arc::clone(self), host, number, end: end.clone(), errands };
        if let Some(old) = streams.insert(host, LiveStream { number, end, errands: sender }) {
            old.end.cancel();
        }
        seat
    }
}

/// The present, from the system's clock: the one place where the collector reads it.
pub fn now() -> Time {
    let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Time::from_micros(i64::try_from(since_epoch.as_micros()).unwrap_or(i64::MAX))
}
