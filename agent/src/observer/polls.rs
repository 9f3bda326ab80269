//! When a kind is read again though nothing was told of it.
//!
//! Pure: time is an argument. Invariant: one kind at a time is due, so that what was touched never waits for more than one of them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use trueline_drift::ItemKind;

use crate::sensor::Coverage;

/// Where a sensor tells of all that happens to the kind, it is read so many times less often.
const TOLD: u32 = 10;

#[derive(Debug, Default)]
pub(super) struct Polls {
    next: BTreeMap<ItemKind, Instant>,
}

impl Polls {
    /// A kind whose turn it is, of those that are to be read this often each.
    pub fn take_due(
        &mut self,
        polled: &[(ItemKind, Duration)],
        now: Instant,
        coverage: impl FnOnce() -> Vec<Coverage>,
    ) -> Option<ItemKind> {
        self.next.retain(|kind, _| polled.iter().any(|(polled, _)| polled == kind));
        for (kind, every) in polled {
            self.next.entry(*kind).or_insert(now + *every);
        }
        let (kind, every) = polled.iter().copied().filter(|(kind, _)| self.next[kind] <= now).min_by_key(|(kind, _)| self.next[kind])?;
        let scope = format!("{kind}:*");
        let is_told = coverage().iter().any(|row| row.watching && row.scope == scope);
        self.next.insert(kind, now + if is_told { every * TOLD } else { every });
        Some(kind)
    }

    /// No later than this, and once.
    pub fn soon(&mut self, kind: ItemKind, at: Instant) {
        self.next.entry(kind).and_modify(|next| *next = at.min(*next)).or_insert(at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVERY: Duration = Duration::from_secs(30);

    fn told() -> Vec<Coverage> {
        vec![Coverage { name: "fanotify", scope: "sysctl:*".to_owned(), watching: true, reason: None }]
    }

    #[test]
    fn each_kind_has_its_turn_and_one_that_is_told_of_seldom() {
        let polled = [(ItemKind::Sysctl, EVERY), (ItemKind::Mount, EVERY)];
        let (mut polls, start) = (Polls::default(), Instant::now());
        assert_eq!(polls.take_due(&polled, start, told), None);
        let turns: Vec<_> = (0..700).filter_map(|second| polls.take_due(&polled, start + Duration::from_secs(second), told)).collect();
        let count = |kind| turns.iter().filter(|turn| **turn == kind).count();
        assert_eq!((count(ItemKind::Mount), count(ItemKind::Sysctl)), (23, 3));
        polls.soon(ItemKind::Sysctl, start + Duration::from_secs(701));
        assert_eq!(polls.take_due(&polled, start + Duration::from_secs(701), told), Some(ItemKind::Sysctl));
        assert_eq!(polls.take_due(&[], start + Duration::from_secs(9_999), told), None);
    }
}
