//! Coverage gaps.

use trueline_drift::{CoverageGap, HostId, Time};

#[derive(Debug, Clone, Default)]
pub struct GapFilter {
    pub host: Option<HostId>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GapRow {
    pub id: i64,
    pub host: HostId,
    pub host_name: String,
    pub received_at: Time,
    pub gap: CoverageGap,
}
