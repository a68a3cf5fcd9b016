//! A scheduler that cannot do its work must not keep its jobs from those who could: it stops renewing its session, and its
//! peers take over. It goes on renewing as soon as the work goes on; until then it claims nothing, and opens no new
//! session when its own is gone: it would take its own jobs over, and be stuck with them again.
//!
//! A renewal is a small call of its own, so it succeeds where a commit does not (a store that takes no writes, an engine
//! that does not turn); without this the session would live for ever, and the jobs stand still.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use crate::shared::Shared;

/// A commit that takes a session's TTL is out of the ordinary; so is one that takes this long, however short the TTL. An
/// election of etcd's takes less.
const STUCK_LEAST: Duration = Duration::from_secs(5);
/// How often the pulse is felt.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// What can be stuck.
const COMMIT: &str = "a commit does not come back";
const ENGINE: &str = "the engine does not turn";
/// No commit is in flight.
const NONE: u64 = u64::MAX;

/// When the engine last turned, and since when its oldest commit is under way, in milliseconds since the start.
#[derive(Debug)]
pub(crate) struct Pulse {
    began: Instant,
    turned_ms: AtomicU64,
    oldest_commit_ms: AtomicU64,
}

impl Default for Pulse {
    fn default() -> Self {
        Self { began: Instant::now(), turned_ms: AtomicU64::new(0), oldest_commit_ms: AtomicU64::new(NONE) }
    }
}

impl Pulse {
    fn since_start(&self, at: Instant) -> u64 {
        u64::try_from(at.duration_since(self.began).as_millis()).unwrap_or(NONE)
    }

    /// The engine has turned; its oldest commit in flight was sent then.
    pub(crate) fn beat(&self, now: Instant, oldest_commit: Option<Instant>) {
        self.turned_ms.store(self.since_start(now), Ordering::Relaxed);
        self.oldest_commit_ms.store(oldest_commit.map_or(NONE, |sent| self.since_start(sent)), Ordering::Relaxed);
    }

    /// For how long the oldest commit in flight has been under way.
    pub(crate) fn commit_under_way(&self, now: Instant) -> Duration {
        let sent = self.oldest_commit_ms.load(Ordering::Relaxed);
        Duration::from_millis(if sent == NONE { 0 } else { self.since_start(now).saturating_sub(sent) })
    }

    /// What does not move, if something has not for so long.
    fn stuck(&self, now: Instant, after: Duration) -> Option<&'static str> {
        let now = self.since_start(now);
        let long_ago = |at: &AtomicU64| {
            let at = at.load(Ordering::Relaxed);
            at != NONE && u128::from(now.saturating_sub(at)) > after.as_millis()
        };
        if long_ago(&self.oldest_commit_ms) {
            Some(COMMIT)
        } else if long_ago(&self.turned_ms) {
            Some(ENGINE)
        } else {
            None
        }
    }
}

/// What keeps this scheduler from its work, if something does.
pub(crate) fn stuck(shared: &Shared) -> Option<&'static str> {
    let after = shared.options.session_ttl.max(STUCK_LEAST);
    // In a full store every commit waits, whoever owns its job; and a session given up could not be opened again.
    let full = shared.health.full().is_some();
    shared.pulse.stuck(Instant::now(), after).filter(|why| !(full && *why == COMMIT))
}

/// Returns when nothing keeps this scheduler from its work.
pub(crate) async fn no_longer_stuck(shared: &Shared) {
    while stuck(shared).is_some() {
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Stops and resumes the session's renewal, for ever.
pub(crate) async fn keep(shared: Arc<Shared>) {
    let mut renewing = true;
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let stuck = stuck(&shared);
        match stuck {
            Some(why) if renewing => tracing::error!(why, "stuck: the session is not renewed until it goes on"),
            None if !renewing => tracing::info!("no longer stuck: the session is renewed again"),
            _ => {}
        }
        renewing = stuck.is_none();
        // Each time: the session may be another one by now.
        shared.presence().session.renew(renewing);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_that_does_not_come_back_is_noticed_and_so_is_its_return() {
        let pulse = Pulse::default();
        let (began, after) = (pulse.began, Duration::from_secs(5));
        let at = |ms| began + Duration::from_millis(ms);
        for ms in (0..=5_000).step_by(500) {
            pulse.beat(at(ms), Some(began));
            assert_eq!(pulse.stuck(at(ms), after), None);
        }
        pulse.beat(at(5_500), Some(began));
        assert_eq!(pulse.stuck(at(5_500), after), Some(COMMIT));
        assert_eq!(pulse.commit_under_way(at(5_500)), Duration::from_millis(5_500));
        pulse.beat(at(5_600), None);
        assert_eq!(pulse.commit_under_way(at(5_600)), Duration::ZERO);
        assert_eq!(pulse.stuck(at(5_600), after), None);
        assert_eq!(pulse.stuck(at(11_000), after), Some(ENGINE));
    }
}
