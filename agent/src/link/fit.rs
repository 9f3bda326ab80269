//! Whether the spool's numbers and the collector's belong to the same story. Pure.
//!
//! They part when one side goes back to an older state: the collector's database to a backup, this host
//! to a snapshot. What is then numbered alike is not the same, and nothing would be taken, or be sent.

use trueline_drift::{Epoch, Sequence};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fit {
    Fits,
    /// What does not fit, for people.
    Not(&'static str),
}

/// `acknowledged` is the collector's, of `epoch`; `oldest` and `newest` are what the spool holds, newest + 1 and newest
/// when it holds nothing. `welcome_epoch` is the one that the collector is at; 0 where it does not say.
pub fn fits(acknowledged: Sequence, oldest: Sequence, newest: Sequence, epoch: Epoch, welcome_epoch: Epoch) -> Fit {
    if welcome_epoch > epoch {
        Fit::Not("it knows a later spool of this host, which was set back to an older one")
    } else if acknowledged > newest {
        Fit::Not("it has records of this spool that are not in it: this host was set back to an older state")
    } else if acknowledged.next() < oldest {
        Fit::Not("it lacks records that it had acknowledged: its database was set back to an older state")
    } else {
        Fit::Fits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fit(acknowledged: u64, oldest: u64, newest: u64, welcome_epoch: u64) -> Fit {
        fits(Sequence(acknowledged), Sequence(oldest), Sequence(newest), Epoch(5), Epoch(welcome_epoch))
    }

    #[test]
    fn what_continues_at_or_after_the_oldest_record_fits() {
        for (acknowledged, oldest, newest) in [(0, 1, 0), (0, 1, 9), (4, 5, 9), (7, 5, 9), (9, 5, 9), (9, 10, 9)] {
            for epoch in [5, 0] {
                assert_eq!(fit(acknowledged, oldest, newest, epoch), Fit::Fits, "{acknowledged} {oldest} {newest} {epoch}");
            }
        }
    }

    #[test]
    fn a_side_that_went_back_does_not_fit() {
        for (acknowledged, oldest, newest, epoch) in
            [(3, 5, 9, 5), (0, 5, 9, 5), (8, 10, 9, 5), (10, 5, 9, 5), (1, 1, 0, 5), (u64::MAX, 1, 9, 5), (0, 1, 9, 6)]
        {
            assert_ne!(fit(acknowledged, oldest, newest, epoch), Fit::Fits, "{acknowledged} {oldest} {newest} {epoch}");
        }
    }
}
