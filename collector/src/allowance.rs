//! How often each peer may do something within a period.
//!
//! Invariant: the table never holds more than [`ENTRIES`] peers, whoever comes.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The length of every allowance's period.
pub const PERIOD: Duration = Duration::from_secs(60);
const ENTRIES: usize = 4096;

/// So many times within [`PERIOD`], for each peer.
#[derive(Debug)]
pub struct Allowance<K> {
    most: u32,
    spent: Mutex<HashMap<K, (Instant, u32)>>,
}

impl<K: Copy + Eq + Hash> Allowance<K> {
    pub fn new(most: u32) -> Self {
        Self { most, spent: Mutex::default() }
    }

    pub fn is_left(&self, peer: K, now: Instant) -> bool {
        let spent = self.spent.lock().unwrap_or_else(PoisonError::into_inner);
        spent.get(&peer).is_none_or(|(since, times)| *times < self.most || now.duration_since(*since) >= PERIOD)
    }

    /// Counts one more time; `false` where that is more than the peer may.
    pub fn spend(&self, peer: K, now: Instant) -> bool {
        let mut spent = self.spent.lock().unwrap_or_else(PoisonError::into_inner);
        if spent.len() >= ENTRIES && !spent.contains_key(&peer) {
            spent.retain(|_, (since, _)| now.duration_since(*since) < PERIOD);
            if spent.len() >= ENTRIES
                && let Some(oldest) = spent.iter().min_by_key(|(_, (since, _))| *since).map(|(peer, _)| *peer)
            {
                spent.remove(&oldest);
            }
        }
        let (since, times) = spent.entry(peer).or_insert((now, 0));
        if now.duration_since(*since) >= PERIOD {
            (*since, *times) = (now, 0);
        }
        *times = times.saturating_add(1);
        *times <= self.most
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_peer_has_its_own_allowance_and_a_new_one_after_the_period() {
        let allowance = Allowance::new(3);
        let start = Instant::now();
        for _ in 0..3 {
            assert!(allowance.is_left("one", start));
            assert!(allowance.spend("one", start));
        }
        assert!(!allowance.is_left("one", start) && !allowance.spend("one", start));
        assert!(allowance.is_left("other", start) && allowance.spend("other", start));
        assert!(allowance.is_left("one", start + PERIOD) && allowance.spend("one", start + PERIOD));
    }

    #[test]
    fn the_table_stays_bounded_and_forgets_the_oldest() {
        let allowance = Allowance::new(1);
        let start = Instant::now();
        for number in 0..ENTRIES as u32 + 10 {
            allowance.spend(number, start + Duration::from_micros(u64::from(number)));
        }
        assert_eq!(allowance.spent.lock().unwrap().len(), ENTRIES);
        assert!(allowance.is_left(0, start) && !allowance.is_left(ENTRIES as u32 + 9, start));
    }
}
