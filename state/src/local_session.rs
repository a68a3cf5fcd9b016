//! Sessions of the in-process stores.
//!
//! They die as etcd's do: a lease with a TTL, renewed every third of it. One task a session renews it, ends it when its
//! time is up, and outlives the handle just long enough for that: a handle that is dropped without `close` is a process
//! that died, and its keys go after the TTL.

use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;

use crate::clock::Clock;
use crate::liveness::{Liveness, RENEWALS_IN_TTL};
use crate::{Session, SessionId};

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

pub(crate) struct LocalSession {
    id: SessionId,
    liveness: Liveness,
    host: Weak<dyn Host>,
}

impl std::fmt::Debug for LocalSession {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LocalSession").field("id", &self.id).field("liveness", &self.liveness).finish_non_exhaustive()
    }
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
        let liveness = Liveness::new(ttl, sent_at, Arc::clone(&clock));
        let session = Arc::new(Self { id: id.clone(), liveness, host: Weak::clone(&host) });
        tokio::spawn(look_after(id, ttl, clock, host, Arc::downgrade(&session)));
        session
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
        if let Some(session) = session.upgrade()
            && !session.liveness.slack().is_zero()
        {
            let sent_at = clock.now();
            // Held from before the renewal to after it: when `renew(false)` returns, none is on its way.
            let mut renewal = session.liveness.renewal();
            if renewal.on && host.renew(&id) {
                renewal.sent_at = sent_at;
            }
        }
        host.expire().await;
    }
    if let Some(session) = session.upgrade() {
        session.liveness.mark_lost();
    }
}

#[async_trait]
impl Session for LocalSession {
    fn id(&self) -> &SessionId {
        &self.id
    }

    fn slack(&self) -> Duration {
        self.liveness.slack()
    }

    async fn lost(&self) {
        self.liveness.lost().await;
    }

    fn renew(&self, on: bool) {
        self.liveness.renewal().on = on;
    }

    async fn close(&self) {
        self.liveness.mark_lost();
        if let Some(host) = self.host.upgrade() {
            host.end(&self.id).await;
        }
    }
}
