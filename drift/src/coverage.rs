//! Intervals in which changes may have been missed, and what was done about them.

use serde::{Deserialize, Serialize};

use crate::Time;

/// A coverage gap. Nothing is missed silently: a gap is reported like a change, and the scope is
/// read again at once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CoverageGap {
    /// What was not watched: `file:/etc`, `sysctl:*`, or `*` for the whole host.
    pub scope: String,
    pub reason: GapReason,
    pub began_at: Time,
    /// When the scope had been read again; absent while the gap is open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Time>,
    /// Events or changes known to be lost or merged; absent where the kernel does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost: Option<u64>,
    /// What was done: `rescanned 214,332 items, 3 had changed`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GapReason {
    AgentDown,
    QueueOverflow,
    SensorLost,
    SpoolFull,
    SpoolDamaged,
    WatchLimit,
    PolicyChange,
    SetBack,
}

impl GapReason {
    pub const ALL: [Self; 8] = [
        Self::AgentDown,
        Self::QueueOverflow,
        Self::SensorLost,
        Self::SpoolFull,
        Self::SpoolDamaged,
        Self::WatchLimit,
        Self::PolicyChange,
        Self::SetBack,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            Self::AgentDown => "agent_down",
            Self::QueueOverflow => "queue_overflow",
            Self::SensorLost => "sensor_lost",
            Self::SpoolFull => "spool_full",
            Self::SpoolDamaged => "spool_damaged",
            Self::WatchLimit => "watch_limit",
            Self::PolicyChange => "policy_change",
            Self::SetBack => "set_back",
        }
    }

    /// For people.
    pub const fn explanation(self) -> &'static str {
        match self {
            Self::AgentDown => "the agent was not running",
            Self::QueueOverflow => "the kernel's event queue overflowed",
            Self::SensorLost => "a sensor stopped or could not start",
            Self::SpoolFull => "the spool was full or its disk was; changes were held back and merged",
            Self::SpoolDamaged => "part of the agent's spool or state could not be read back",
            Self::WatchLimit => "the host's limit of inotify watches was reached",
            Self::PolicyChange => "the watch list changed",
            Self::SetBack => "the host or its collector went back to an older state, and records in between are lost",
        }
    }
}
