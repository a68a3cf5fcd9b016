//! The only place that reads clocks, so that nobody mixes them up.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::faults;

/// Milliseconds since the Unix epoch, for people and for reports. It may jump.
pub(crate) fn wall_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| u64::try_from(since.as_millis()).expect("580 million years from now"))
}

/// Milliseconds since the machine started, suspend included. It never goes back, so limits are measured by it.
pub(crate) fn boot_ms() -> u64 {
    boot_us() / 1000
}

/// Microseconds since the machine started, suspend included.
pub(crate) fn boot_us() -> u64 {
    if faults::is_set("one-thread") {
        // A simulation's wall clock is its only one, and never jumps.
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        return u64::try_from(since.as_micros()).unwrap_or(u64::MAX);
    }
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    u64::try_from(now.tv_sec).unwrap_or(0) * 1_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0) / 1000
}
