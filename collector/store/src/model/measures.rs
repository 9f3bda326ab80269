//! Measurements of what is stored.

use std::collections::BTreeMap;

use trueline_drift::{HostId, Time, Verdict};

/// How much there is, and what waits.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Measures {
    /// Hosts that are not revoked.
    pub hosts: u64,
    pub revoked_hosts: u64,
    /// Those of the hosts that were not heard of since the time asked for.
    pub unheard_hosts: Vec<HostId>,
    /// Items watched on all hosts.
    pub items: u64,
    /// Unresolved drift that is not folded under its package's.
    pub open_drifts: BTreeMap<Verdict, u64>,
    /// Unresolved drift that is.
    pub folded_drifts: BTreeMap<Verdict, u64>,
    /// Changes that wait to be judged, of all tenants.
    pub unjudged: u64,
    /// When the first of them was received.
    pub unjudged_since: Option<Time>,
    /// Hosts whose whole state waits to be compared with their baseline.
    pub uncompared_hosts: u64,
}
