//! Where a host's stream of records stands, and what a batch may do to it. Pure: both databases ask
//! here.

use trueline_drift::{Epoch, Sequence};
use trueline_proto::ChainLink;

use crate::{AppendOutcome, StreamPosition};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stream {
    pub revoked: bool,
    pub epoch: Epoch,
    pub acknowledged: Sequence,
    pub link: ChainLink,
}

/// The part of a batch that decides.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Offer {
    pub epoch: Epoch,
    pub first: Sequence,
    pub records: u64,
    pub previous: ChainLink,
    pub link: ChainLink,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Decision {
    /// Take the records after the first `skip`, which were taken before. The stream has moved on.
    Take {
        skip: u64,
    },
    Refuse(AppendOutcome),
}

impl Stream {
    /// Where the stream stands for an epoch: a greater one than was seen begins anew, an older one is over.
    pub fn position(&self, epoch: Epoch) -> StreamPosition {
        if epoch == self.epoch {
            StreamPosition { epoch, acknowledged: self.acknowledged, link: self.link }
        } else {
            StreamPosition { epoch: epoch.max(self.epoch), acknowledged: Sequence(0), link: ChainLink::START }
        }
    }

    /// Decides on the offer, and moves the stream if it is taken.
    ///
    /// A batch that overlaps what was taken is taken from there on; its chain is not compared, because
    /// the link at that place lies within the batch.
    pub fn offer(&mut self, offer: &Offer) -> Decision {
        if self.revoked {
            return Decision::Refuse(AppendOutcome::Revoked);
        }
        if offer.epoch < self.epoch {
            return Decision::Refuse(AppendOutcome::StaleEpoch { current: self.epoch });
        }
        let stands = self.position(offer.epoch);
        let expected = stands.acknowledged.next();
        if offer.first > expected || offer.first.0 == 0 {
            return Decision::Refuse(AppendOutcome::SequenceGap { expected, got: offer.first });
        }
        let end = offer.first.0.saturating_add(offer.records);
        if end <= expected.0 {
            return Decision::Take { skip: offer.records };
        }
        if offer.first == expected && offer.previous != stands.link {
            return Decision::Refuse(AppendOutcome::BrokenChain { at: offer.first });
        }
        self.epoch = offer.epoch;
        self.acknowledged = Sequence(end - 1);
        self.link = offer.link;
        Decision::Take { skip: expected.0 - offer.first.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(byte: u8) -> ChainLink {
        ChainLink([byte; 32])
    }

    fn stream() -> Stream {
        Stream { revoked: false, epoch: Epoch(5), acknowledged: Sequence(10), link: link(1) }
    }

    fn offer(epoch: u64, first: u64, records: u64, previous: u8) -> Offer {
        Offer { epoch: Epoch(epoch), first: Sequence(first), records, previous: link(previous), link: link(2) }
    }

    #[test]
    fn what_continues_is_taken_and_what_was_taken_is_dropped() {
        for (offered, skip, acknowledged) in [
            (offer(5, 11, 3, 1), 0, 13),
            (offer(5, 9, 4, 9), 2, 12),
            (offer(5, 1, 10, 9), 10, 10),
            (offer(5, 11, 0, 9), 0, 10),
            (offer(6, 1, 4, 0), 0, 4),
        ] {
            let mut stream = stream();
            assert_eq!(stream.offer(&offered), Decision::Take { skip }, "{offered:?}");
            assert_eq!(stream.acknowledged, Sequence(acknowledged), "{offered:?}");
        }
    }

    #[test]
    fn holes_broken_chains_and_old_epochs_are_refused_and_move_nothing() {
        for (offered, outcome) in [
            (offer(5, 12, 1, 1), AppendOutcome::SequenceGap { expected: Sequence(11), got: Sequence(12) }),
            (offer(6, 11, 1, 1), AppendOutcome::SequenceGap { expected: Sequence(1), got: Sequence(11) }),
            (offer(5, 0, 1, 1), AppendOutcome::SequenceGap { expected: Sequence(11), got: Sequence(0) }),
            (offer(5, 11, 1, 7), AppendOutcome::BrokenChain { at: Sequence(11) }),
            (offer(6, 1, 1, 7), AppendOutcome::BrokenChain { at: Sequence(1) }),
            (offer(4, 11, 1, 1), AppendOutcome::StaleEpoch { current: Epoch(5) }),
        ] {
            let mut stream = stream();
            assert_eq!(stream.offer(&offered), Decision::Refuse(outcome), "{offered:?}");
            assert_eq!(stream, self::stream(), "{offered:?}");
        }
    }

    #[test]
    fn a_revoked_host_may_add_nothing() {
        let mut stream = Stream { revoked: true, ..stream() };
        assert_eq!(stream.offer(&offer(5, 11, 1, 1)), Decision::Refuse(AppendOutcome::Revoked));
    }
}
