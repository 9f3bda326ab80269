//! The one place where the agent reads the system's clock.

use std::time::{SystemTime, UNIX_EPOCH};

use trueline_drift::Time;

pub fn now() -> Time {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Time::from_micros(i64::try_from(since_epoch.as_micros()).unwrap_or(i64::MAX))
}
