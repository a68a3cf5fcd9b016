//! Times on the wire are milliseconds since the Unix epoch, 0 for "not yet". Here they become text.

use std::time::Duration;

use jiff::Timestamp;

use crate::quantity::duration_for_people;

/// RFC 3339 in UTC with milliseconds, always of the same length; `None` for "not yet".
pub(crate) fn rfc3339(at_ms: u64) -> Option<String> {
    let at = timestamp(at_ms)?;
    Some(at.strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string())
}

/// How long ago, for people; `-` for "not yet".
pub(crate) fn age(at_ms: u64, now: Timestamp) -> String {
    match timestamp(at_ms) {
        Some(_) => duration_for_people(between(at_ms, millis(now))),
        None => "-".to_owned(),
    }
}

/// How long something took, or has taken until now; `-` if it has not begun.
pub(crate) fn taken(started_ms: u64, finished_ms: u64, now: Timestamp) -> String {
    match (started_ms, finished_ms) {
        (0, _) => "-".to_owned(),
        (started, 0) => duration_for_people(between(started, millis(now))),
        (started, finished) => duration_for_people(between(started, finished)),
    }
}

fn between(earlier_ms: u64, later_ms: u64) -> Duration {
    // Clocks of different machines: a negative age would only confuse.
    Duration::from_millis(later_ms.saturating_sub(earlier_ms))
}

fn millis(at: Timestamp) -> u64 {
    u64::try_from(at.as_millisecond()).unwrap_or(0)
}

fn timestamp(at_ms: u64) -> Option<Timestamp> {
    if at_ms == 0 {
        return None;
    }
    i64::try_from(at_ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_utc_with_milliseconds_and_absent_ones_stay_absent() {
        assert_eq!(rfc3339(1_800_000_000_007).as_deref(), Some("2027-01-15T08:00:00.007Z"));
        assert_eq!(rfc3339(0), None);
        assert_eq!(rfc3339(u64::MAX), None, "not a time at all");
        let now = Timestamp::from_millisecond(1_800_000_060_000).expect("a time");
        assert_eq!(age(1_800_000_000_000, now), "1m00s");
        assert_eq!(age(1_800_000_070_000, now), "0.0s", "another machine's clock is ahead");
        assert_eq!(taken(0, 0, now), "-");
        assert_eq!(taken(1_800_000_000_000, 1_800_000_001_500, now), "1.5s");
    }
}
