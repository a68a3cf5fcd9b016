//! Time, injected: sessions live and die by a [`Clock`], so that tests and simulations decide when.

use std::fmt::Debug;
use std::time::Duration;

use async_trait::async_trait;

/// A monotonic clock.
#[async_trait]
pub trait Clock: Debug + Send + Sync + 'static {
    /// Time since an origin of the clock's own; never goes back.
    fn now(&self) -> Duration;
    /// Waits until `now` is at least this.
    async fn sleep_until(&self, at: Duration);
}

/// Tokio's clock: real time, or a test's paused time.
#[derive(Debug, Clone)]
pub struct TokioClock {
    origin: tokio::time::Instant,
}

impl TokioClock {
    /// A clock that begins now. Where time is to be paused, make it inside the runtime.
    #[must_use]
    pub fn new() -> Self {
        Self { origin: tokio::time::Instant::now() }
    }
}

impl Default for TokioClock {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl Clock for TokioClock {
    fn now(&self) -> Duration {
        tokio::time::Instant::now().saturating_duration_since(self.origin)
    }

    async fn sleep_until(&self, at: Duration) {
        tokio::time::sleep_until(self.origin + at).await;
    }
}

/// The clock that goes on while the machine is suspended (`CLOCK_BOOTTIME`). A laptop that slept for an hour must find
/// its session lost at once, not an hour later.
#[derive(Debug, Clone, Copy, Default)]
pub struct BootClock;

/// A sleep of tokio's stands still while the machine is suspended, so a long one is cut into pieces and the boot clock
/// read again after each.
const SLEEP_PIECE: Duration = Duration::from_secs(1);

#[async_trait]
impl Clock for BootClock {
    fn now(&self) -> Duration {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        // Neither can be negative or out of range: it is the time since the machine was started.
        Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
    }

    async fn sleep_until(&self, at: Duration) {
        while let Some(left) = at.checked_sub(self.now()).filter(|left| !left.is_zero()) {
            tokio::time::sleep(left.min(SLEEP_PIECE)).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn tokios_clock_follows_paused_time() {
        let clock = TokioClock::new();
        let before = clock.now();
        clock.sleep_until(before + Duration::from_secs(3600)).await;
        assert_eq!(clock.now() - before, Duration::from_secs(3600));
    }

    #[test]
    fn the_boot_clock_moves_forward() {
        let before = BootClock.now();
        assert!(before > Duration::ZERO);
        assert!(BootClock.now() >= before);
    }
}
