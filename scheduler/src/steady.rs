//! The time of day, as far as it can be relied on.

use std::time::Instant;

use muster_graph::ids::Millis;

/// Follows the wall clock forwards only. When that is set back, time goes on from where it was, at its usual pace: backoffs and
/// deadlines neither stand still until it has caught up, nor come twice.
#[derive(Debug)]
pub(crate) struct SteadyTime {
    since: Instant,
    at: Millis,
}

impl SteadyTime {
    pub(crate) fn new(now: Instant) -> Self {
        Self { since: now, at: 0 }
    }

    /// The time when the wall clock says `wall`.
    pub(crate) fn at(&mut self, wall: Millis, now: Instant) -> Millis {
        let passed = now.saturating_duration_since(self.since).as_millis();
        let steady = self.at.saturating_add(Millis::try_from(passed).unwrap_or(Millis::MAX));
        if wall > steady {
            (self.since, self.at) = (now, wall);
        }
        wall.max(steady)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn time_goes_on_when_the_clock_is_set_back_and_follows_it_forwards() {
        let start = Instant::now();
        let mut time = SteadyTime::new(start);
        let mut at = |wall, passed_us| time.at(wall, start + Duration::from_micros(passed_us));
        assert_eq!(at(5_000_000, 0), 5_000_000);
        assert_eq!(at(5_000_010, 10_000), 5_000_010);
        // An hour back: asked ever so often, no part of a millisecond is lost.
        for passed_us in (10_000..20_000).step_by(100) {
            assert_eq!(at(1_400_000, passed_us), 5_000_010 + (passed_us - 10_000) / 1_000);
        }
        assert_eq!(at(1_400_010, 20_000), 5_000_020);
        // Mended, and then ahead.
        assert_eq!(at(5_000_030, 30_000), 5_000_030);
        assert_eq!(at(9_000_000, 40_000), 9_000_000);
    }
}
