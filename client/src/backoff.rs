//! How long to wait before the next round over all schedulers.

use std::time::Duration;

/// Exponential backoff with full jitter: each delay is drawn from the whole range up to a bound that doubles, so that
/// clients that failed together do not come back together.
#[derive(Debug)]
pub(crate) struct Backoff {
    bound: Duration,
    first: Duration,
    max: Duration,
}

impl Backoff {
    pub(crate) fn new(first: Duration, max: Duration) -> Self {
        Self { bound: first.min(max), first, max }
    }

    /// The next delay.
    pub(crate) fn next(&mut self) -> Duration {
        let bound = self.bound;
        self.bound = bound.saturating_mul(2).min(self.max);
        bound.mul_f64(rand::random_range(0.0..=1.0))
    }

    /// After a success.
    pub(crate) fn reset(&mut self) {
        self.bound = self.first.min(self.max);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_stay_below_a_bound_that_doubles_up_to_the_maximum() {
        let ms = Duration::from_millis;
        let mut backoff = Backoff::new(ms(10), ms(35));
        for bound in [10, 20, 35, 35] {
            assert!(backoff.next() <= ms(bound));
        }
        backoff.reset();
        assert!(backoff.next() <= ms(10));
    }
}
