//! What a host hands in, and what became of it.

use trueline_drift::{Epoch, HostId, RecordBody, Sequence};
use trueline_proto::ChainLink;

/// A run of one host's records, decoded and within the frame's limits.
#[derive(Debug, Clone)]
pub struct Batch {
    pub host: HostId,
    pub epoch: Epoch,
    pub first: Sequence,
    pub records: Vec<RecordBody>,
    /// The chain before and after; a batch that continues the host's stream must continue its chain.
    pub previous: ChainLink,
    pub link: ChainLink,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AppendOutcome {
    /// Durable up to here. `changes` of them were new changes.
    Accepted {
        acknowledged: Sequence,
        changes: u64,
    },
    /// The stream of this host stands elsewhere.
    SequenceGap {
        expected: Sequence,
        got: Sequence,
    },
    /// The numbers continue but the hash chain does not: the spool is not the one seen before.
    BrokenChain {
        at: Sequence,
    },
    UnknownHost,
    /// The host is known, and revoked.
    Revoked,
    /// The epoch is older than the one the host uses now.
    StaleEpoch {
        current: Epoch,
    },
}
