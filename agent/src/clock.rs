//! The one place where the agent reads the system's clock.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use trueline_drift::Time;

/// By the clock that the kernel stamps inodes with: what changes from now on gets no earlier ctime.
pub fn inode_now() -> Time {
    let coarse = nix::time::clock_gettime(nix::time::ClockId::CLOCK_REALTIME_COARSE).map_or(Duration::ZERO, Duration::from);
    Time::from_micros(i64::try_from(coarse.as_micros()).unwrap_or(i64::MAX))
}

/// The longest step of [`inode_now`]: 1 to 10 ms.
pub fn inode_tick() -> Duration {
    const SLOWEST: Duration = Duration::from_millis(10);
    nix::time::clock_getres(nix::time::ClockId::CLOCK_REALTIME_COARSE).map_or(SLOWEST, Duration::from)
}

pub fn now() -> Time {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Time::from_micros(i64::try_from(since_epoch.as_micros()).unwrap_or(i64::MAX))
}
