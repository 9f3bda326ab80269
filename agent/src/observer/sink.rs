//! Where the observer's records go: the spool of a service, or the standard output of `watch`.

use std::sync::Arc;

use trueline_drift::{Epoch, RecordBody, Sequence};

use crate::spool::{AppendError, Spool, SpoolError};
use crate::state::{State, StateError};

/// Takes records in order. After an error nothing was taken, and the same records may be offered again.
pub trait Sink: Send {
    /// Keeps the records and returns the last one's sequence.
    fn put(&mut self, records: &[RecordBody]) -> Result<Sequence, SinkError>;

    /// Of the sequences that [`Self::put`] returns.
    fn epoch(&self) -> Epoch;

    /// The state has everything up to here on disk.
    fn applied(&mut self, durable: (Epoch, Sequence));

    /// Brings a state that failed to write up to what was put.
    fn restore(&mut self, state: &State) -> Result<(), SinkError>;
}

/// Why records must wait.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    /// Waiting may help: the collector takes records, or space returns.
    #[error("{0}")]
    Full(String),
    /// Nobody reads any more.
    #[error("nobody takes the records any more")]
    Closed,
    #[error("{0}")]
    Broken(String),
}

pub struct SpoolSink(pub Arc<Spool>);

impl Sink for SpoolSink {
    fn put(&mut self, records: &[RecordBody]) -> Result<Sequence, SinkError> {
        self.0.append(records.to_vec()).map_err(|error| match error {
            AppendError::Full { .. } | AppendError::NoSpace { .. } => SinkError::Full(error.to_string()),
            other => SinkError::Broken(other.to_string()),
        })
    }

    fn epoch(&self) -> Epoch {
        self.0.epoch()
    }

    fn applied(&mut self, (epoch, sequence): (Epoch, Sequence)) {
        if epoch != self.0.epoch() {
            return;
        }
        if let Err(error) = self.0.mark_applied(sequence) {
            tracing::warn!(%error, "applied records could not be released from the spool");
        }
    }

    fn restore(&mut self, state: &State) -> Result<(), SinkError> {
        replay(&self.0, state).map_err(|error| SinkError::Full(error.to_string()))
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    #[error(transparent)]
    Spool(#[from] SpoolError),
    #[error(transparent)]
    State(#[from] StateError),
}

/// Reopens the state and applies the spool's records that it lacks.
fn replay(spool: &Spool, state: &State) -> Result<(), ReplayError> {
    state.reopen()?;
    catch_up(spool, state).map(drop)
}

/// Applies the spool's records that the state lacks; how many there were.
pub fn catch_up(spool: &Spool, state: &State) -> Result<u64, ReplayError> {
    let (epoch, sequence) = state.spooled();
    let known = if epoch == spool.epoch() { sequence } else { Sequence(0) };
    let after = Sequence(known.0.max(spool.oldest().0.saturating_sub(1)));
    let records = spool.records_after(after).map(|record| record.map_err(ReplayError::from));
    state.replay(spool.epoch(), records)
}
