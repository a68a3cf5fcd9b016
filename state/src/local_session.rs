//! Sessions of the in-process stores.
//!
//! They die as etcd's do: a lease with a TTL, renewed every third of it. One task a session renews it, ends it when its
//! time is up, and outlives the handle just long enough for that: a handle that is dropped without `close` is a process
//! that died, and its keys go after the TTL.

use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;

use crate::clock::Clock;
use crate::{Error, Session, SessionId};

/// A session counts as lost this part of its TTL before the store may end it: the two clocks may drift apart, and a
/// decision made just before needs time to be carried out.
pub(crate) const MARGIN_PARTS: u32 = 10;
/// Renewed this many times in each TTL, so that two renewals may fail before it is lost.
pub(crate) const RENEWALS_IN_TTL: u32 = 3;
/// A shorter TTL cannot be kept alive reliably; etcd's own smallest is 1 s.
pub const SESSION_TTL_MIN: Duration = Duration::from_millis(100);

/// The store, as a session's task needs it. Held weakly: a session does not keep a store open.
#[async_trait]
pub(crate) trait Host: Send + Sync + 'static {
    /// Gives the lease another TTL; false: it is over.
    fn renew(&self, id: &SessionId) -> bool;
    /// When the lease ends; `None`: it has ended.
    fn expires_at(&self, id: &SessionId) -> Option<Duration>;
    /// Ends what is due.
    async fn expire(&self);
    /// Ends this one.
    async fn end(&self, id: &SessionId);
}

#[derive(Debug)]
struct Renewal {
    on: bool,
    sent_at: Duration,
}

pub(crate) struct LocalSession {
    id: SessionId,
    ttl: Duration,
    clock: Arc<dyn Clock>,
    host: Weak<dyn Host>,
    /// Two words read together, by the handle's users and by the task.
    renewal: Mutex<Renewal>,
    lost: watch::Sender<bool>,
}

impl std::fmt::Debug for LocalSession {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LocalSession").field("id", &self.id).field("ttl", &self.ttl).finish_non_exhaustive()
    }
}

/// What every store asks of a TTL.
pub(crate) fn check_ttl(ttl: Duration) -> Result<(), Error> {
    if ttl < SESSION_TTL_MIN {
        return Err(Error::Fatal(format!("a session's TTL of {ttl:?} is shorter than {SESSION_TTL_MIN:?}")));
    }
    Ok(())
}

impl LocalSession {
    /// A handle to a session that the store granted at `sent_at`, and the task that looks after it.
    pub(crate) fn start(
        id: SessionId,
        ttl: Duration,
        sent_at: Duration,
        clock: Arc<dyn Clock>,
        host: Weak<dyn Host>,
    ) -> Arc<Self> {
        let session = Arc::new(Self {
            id: id.clone(),
            ttl,
            clock: Arc::clone(&clock),
            host: Weak::clone(&host),
            renewal: Mutex::new(Renewal { on: true, sent_at }),
            lost: watch::Sender::new(false),
        });
        tokio::spawn(look_after(id, ttl, clock, host, Arc::downgrade(&session)));
        session
    }

    fn renewal(&self) -> MutexGuard<'_, Renewal> {
        self.renewal.lock().expect("two assignments do not panic")
    }

    fn mark_lost(&self) {
        self.lost.send_replace(true);
    }
}

async fn look_after(
    id: SessionId,
    ttl: Duration,
    clock: Arc<dyn Clock>,
    host: Weak<dyn Host>,
    session: Weak<LocalSession>,
) {
    loop {
        let next_renewal = clock.now() + ttl / RENEWALS_IN_TTL;
        let Some(expires_at) = host.upgrade().and_then(|host| host.expires_at(&id)) else { break };
        clock.sleep_until(next_renewal.min(expires_at)).await;
        let Some(host) = host.upgrade() else { break };
        if let Some(session) = session.upgrade() {
            let sent_at = clock.now();
            // Held from before the renewal to after it: `renew(false)` returns when none is on its way.
            let mut renewal = session.renewal();
            if renewal.on && !*session.lost.borrow() && host.renew(&id) {
                renewal.sent_at = sent_at;
            }
        }
        host.expire().await;
        if host.expires_at(&id).is_none() {
            break;
        }
    }
    if let Some(session) = session.upgrade() {
        session.mark_lost();
    }
}

#[async_trait]
impl Session for LocalSession {
    fn id(&self) -> &SessionId {
        &self.id
    }

    fn slack(&self) -> Duration {
        if *self.lost.borrow() {
            return Duration::ZERO;
        }
        let until = self.renewal().sent_at + self.ttl - self.ttl / MARGIN_PARTS;
        until.saturating_sub(self.clock.now())
    }

    async fn lost(&self) {
        let mut lost = self.lost.subscribe();
        loop {
            if *lost.borrow_and_update() {
                return;
            }
            // Time may be up before the task has noticed.
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

    fn renew(&self, on: bool) {
        self.renewal().on = on;
    }

    async fn close(&self) {
        self.mark_lost();
        if let Some(host) = self.host.upgrade() {
            host.end(&self.id).await;
        }
    }
}
