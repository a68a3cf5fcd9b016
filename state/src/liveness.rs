//! How long a session certainly still lives, seen from its own process: the same reckoning for every store.
//!
//! Invariant: once lost, always lost. A renewal that succeeds after the slack was used up changes nothing, since others may
//! have acted on the loss already; the process opens another session under another id.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::watch;

use crate::Error;
use crate::clock::Clock;

/// A session counts as lost this part of its TTL before the store may end it: the two clocks may drift apart, and a
/// decision made just before needs time to be carried out.
const MARGIN_PARTS: u32 = 10;
/// Renewed this many times in each TTL, so that two renewals may fail before it is lost.
pub(crate) const RENEWALS_IN_TTL: u32 = 3;
/// A shorter TTL cannot be kept alive reliably. etcd grants whole seconds, and no less than its election needs.
pub const SESSION_TTL_MIN: Duration = Duration::from_millis(100);

/// What every store asks of a TTL.
pub(crate) fn check_ttl(ttl: Duration) -> Result<(), Error> {
    if ttl < SESSION_TTL_MIN {
        return Err(Error::Fatal(format!("a session's TTL of {ttl:?} is shorter than {SESSION_TTL_MIN:?}")));
    }
    Ok(())
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Liveness {
    pub(crate) ttl: Duration,
    pub(crate) clock: Arc<dyn Clock>,
    /// Two words read together, by the session's users and by its task.
    renewal: Mutex<Renewal>,
    lost: watch::Sender<bool>,
}

/// Where renewing stands.
#[derive(Debug)]
pub(crate) struct Renewal {
    /// Somebody wants the session to live.
    pub(crate) on: bool,
    /// When the last renewal that was answered was sent.
    pub(crate) sent_at: Duration,
}

impl Liveness {
    /// Of a session whose granting was sent at `sent_at`.
    pub(crate) fn new(ttl: Duration, sent_at: Duration, clock: Arc<dyn Clock>) -> Self {
        Self { ttl, clock, renewal: Mutex::new(Renewal { on: true, sent_at }), lost: watch::Sender::new(false) }
    }

    pub(crate) fn renewal(&self) -> MutexGuard<'_, Renewal> {
        self.renewal.lock().expect("assignments do not panic")
    }

    pub(crate) fn is_lost(&self) -> bool {
        *self.lost.borrow()
    }

    pub(crate) fn mark_lost(&self) {
        self.lost.send_replace(true);
    }

    /// See [`crate::Session::slack`].
    pub(crate) fn slack(&self) -> Duration {
        if self.is_lost() {
            return Duration::ZERO;
        }
        let until = self.renewal().sent_at + self.ttl - self.ttl / MARGIN_PARTS;
        until.saturating_sub(self.clock.now())
    }

    /// See [`crate::Session::lost`].
    pub(crate) async fn lost(&self) {
        let mut lost = self.lost.subscribe();
        loop {
            if *lost.borrow_and_update() {
                return;
            }
            // Time may be up before the session's task has noticed.
            let left = self.slack();
            if left.is_zero() {
                self.mark_lost();
                return;
            }
            let until = self.clock.now() + left;
            tokio::select! {
                biased;
                _ = lost.changed() => {}
                () = self.clock.sleep_until(until) => {}
            }
        }
    }
}
