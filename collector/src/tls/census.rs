//! Who has how many connections: the caps of a port, for each address and for each host, and how a host's are ended.
//!
//! Invariant: whoever is counted in is counted out when its [`Place`] is dropped; what is not counted takes no memory.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

use tokio_util::sync::CancellationToken;
use trueline_drift::HostId;

/// How many of something each peer has at once.
#[derive(Debug)]
pub struct Census<K: Eq + Hash + Copy> {
    each: usize,
    count: Mutex<HashMap<K, usize>>,
}

/// Counted in a [`Census`] for as long as it lives.
#[derive(Debug)]
pub struct Place<K: Eq + Hash + Copy> {
    census: Arc<Census<K>>,
    peer: K,
}

impl<K: Eq + Hash + Copy> Census<K> {
    pub fn new(each: usize) -> Arc<Self> {
        Arc::new(Self { each: each.max(1), count: Mutex::default() })
    }

    /// `None` where the peer has as many as it may.
    pub fn enter(self: &Arc<Self>, peer: K) -> Option<Place<K>> {
        let mut count = self.count.lock().unwrap_or_else(PoisonError::into_inner);
        let here = count.entry(peer).or_default();
        if *here >= self.each {
            return None;
        }
        *here += 1;
        Some(Place { census: Arc::clone(self), peer })
    }
}

impl<K: Eq + Hash + Copy> Drop for Place<K> {
    fn drop(&mut self) {
        let mut count = self.census.count.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(here) = count.get_mut(&self.peer) {
            *here -= 1;
            if *here == 0 {
                count.remove(&self.peer);
            }
        }
    }
}

/// The address that is counted: of IPv6 the network of 64 bits, which one peer may have to itself.
pub fn neighbourhood(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
        address => address,
    }
}

/// The connections of every host to this collector.
#[derive(Debug)]
pub struct HostConnections {
    census: Arc<Census<HostId>>,
    /// Cancelled to end what the host has; those that come after begin with a new one.
    ends: Mutex<HashMap<HostId, CancellationToken>>,
}

/// A connection among those of its host.
#[derive(Debug)]
pub struct HostConnection {
    hosts: Arc<HostConnections>,
    /// Dropped by hand, before it is looked whether others are left.
    place: Option<Place<HostId>>,
    /// Cancelled to end this one.
    pub end: CancellationToken,
}

impl HostConnections {
    pub fn new(each: usize) -> Arc<Self> {
        Arc::new(Self { census: Census::new(each), ends: Mutex::default() })
    }

    /// `None` where the host has as many as it may.
    pub fn enter(self: &Arc<Self>, host: HostId) -> Option<HostConnection> {
        let mut ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
        let place = self.census.enter(host)?;
        let end = ends.entry(host).or_default();
        if end.is_cancelled() {
            *end = CancellationToken::new();
        }
        Some(HostConnection { hosts: Arc::clone(self), place: Some(place), end: end.child_token() })
    }

    /// Ends every connection that the host has now, as soon as what is said on it may have been heard.
    pub fn end(&self, host: HostId) {
        if let Some(end) = self.ends.lock().unwrap_or_else(PoisonError::into_inner).get(&host) {
            end.cancel();
        }
    }
}

impl Drop for HostConnection {
    fn drop(&mut self) {
        let mut ends = self.hosts.ends.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = self.place.take() {
            let host = place.peer;
            drop(place);
            if !self.hosts.census.count.lock().unwrap_or_else(PoisonError::into_inner).contains_key(&host) {
                ends.remove(&host);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_peer_has_so_many_places_and_gives_them_back() {
        let census = Census::new(2);
        let places = [census.enter(1), census.enter(1)];
        assert!(places.iter().all(Option::is_some) && census.enter(1).is_none());
        assert!(census.enter(2).is_some(), "another peer is not concerned");
        drop(places);
        assert!(census.enter(1).is_some());
        assert!(census.count.lock().unwrap().is_empty());
    }

    #[test]
    fn a_network_of_ipv6_counts_as_one_and_a_mapped_address_as_itself() {
        let of = |text: &str| neighbourhood(text.parse().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:2"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("::ffff:10.0.0.1"), of("10.0.0.1"));
        assert_ne!(of("10.0.0.1"), of("10.0.0.2"));
    }

    #[test]
    fn ending_a_hosts_connections_ends_those_it_has_and_none_that_come_later() {
        let hosts = HostConnections::new(2);
        let (one, other) = (HostId(uuid::Uuid::from_u128(1)), HostId(uuid::Uuid::from_u128(2)));
        let (first, second, elsewhere) = (hosts.enter(one).unwrap(), hosts.enter(one).unwrap(), hosts.enter(other).unwrap());
        assert!(hosts.enter(one).is_none());
        hosts.end(one);
        assert!(first.end.is_cancelled() && second.end.is_cancelled() && !elsewhere.end.is_cancelled());
        drop(first);
        assert!(!hosts.enter(one).unwrap().end.is_cancelled());
        drop((second, elsewhere));
        assert!(hosts.ends.lock().unwrap().is_empty());
    }
}
