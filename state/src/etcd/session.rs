//! Sessions on etcd: a lease, the session's key with it, and a task that renews it.
//!
//! Each renewal has a deadline and is answered on the stream it was sent on before the next one is sent, so an answer
//! always belongs to the newest request and the time of *its* sending is known. A stream that does not answer in time is
//! dropped, and the next renewal goes to the next member. A lease that is over (TTL 0) is never granted again: the
//! session is lost, and its process opens another one.

use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use etcd_client::{LeaseKeepAliveStream, LeaseKeeper};

use super::Inner;
use super::calls::Nature;
use crate::liveness::{Liveness, RENEWALS_IN_TTL};
use crate::{Session, SessionId};

/// After a renewal that failed, the next one follows after this part of the TTL.
const RETRIES_IN_TTL: u32 = 20;

pub(super) struct EtcdSession {
    id: SessionId,
    lease: i64,
    liveness: Liveness,
    inner: Arc<Inner>,
}

impl std::fmt::Debug for EtcdSession {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EtcdSession").field("id", &self.id).field("lease", &self.lease).finish_non_exhaustive()
    }
}

impl EtcdSession {
    /// A handle, and the task that renews it. The task ends when the handle is dropped; then the lease runs out.
    pub(super) fn start(id: SessionId, lease: i64, liveness: Liveness, inner: Arc<Inner>) -> Arc<Self> {
        let session = Arc::new(Self { id, lease, liveness, inner });
        tokio::spawn(keep_alive(Arc::downgrade(&session)));
        session
    }
}

/// A stream of renewals on one member.
struct Stream {
    keeper: LeaseKeeper,
    answers: LeaseKeepAliveStream,
    member: usize,
}

/// What a renewal brought.
enum Answer {
    Alive,
    Gone,
    Failed,
}

async fn keep_alive(session: Weak<EtcdSession>) {
    let mut stream: Option<Stream> = None;
    let mut pause = None;
    loop {
        {
            let Some(session) = session.upgrade() else { return };
            let liveness = &session.liveness;
            let pause = pause.take().unwrap_or(liveness.ttl / RENEWALS_IN_TTL);
            let (clock, until) = (Arc::clone(&liveness.clock), liveness.clock.now() + pause.min(liveness.slack()));
            // The handle may be dropped meanwhile.
            drop(session);
            clock.sleep_until(until).await;
        }
        let Some(session) = session.upgrade() else { return };
        if session.liveness.slack().is_zero() {
            // Lost by our own reckoning. Its keys may as well go now: nobody may act on them any more.
            session.liveness.mark_lost();
            session.revoke().await;
            return;
        }
        if !session.liveness.renewal().on {
            continue;
        }
        let sent_at = session.liveness.clock.now();
        match session.renew_once(&mut stream).await {
            Answer::Alive => session.liveness.renewal().sent_at = sent_at,
            Answer::Gone => {
                tracing::warn!(session = session.id.0, "etcd has ended the session");
                session.liveness.mark_lost();
                return;
            }
            Answer::Failed => pause = Some(session.liveness.ttl / RETRIES_IN_TTL),
        }
    }
}

impl EtcdSession {
    async fn renew_once(&self, stream: &mut Option<Stream>) -> Answer {
        let members = &self.inner.members;
        let deadline = (self.liveness.ttl / RENEWALS_IN_TTL).min(self.liveness.slack());
        let member = stream.as_ref().map_or_else(|| members.current(), |stream| stream.member);
        let renewing = async {
            let Some(open) = stream else {
                // Opening sends the first renewal and waits for its answer.
                let mut client = members.client(member).await?.lease_client();
                return match client.keep_alive(self.lease).await {
                    Ok((keeper, answers)) => {
                        *stream = Some(Stream { keeper, answers, member });
                        Ok(Answer::Alive)
                    }
                    Err(etcd_client::Error::LeaseKeepAliveError(why)) if why.contains("lease not found") => {
                        Ok(Answer::Gone)
                    }
                    Err(error) => Err(error),
                };
            };
            open.keeper.keep_alive().await?;
            Ok(match open.answers.message().await? {
                Some(answer) if answer.ttl() > 0 => Answer::Alive,
                Some(_) => Answer::Gone,
                None => Answer::Failed,
            })
        };
        let answer = match tokio::time::timeout(deadline, renewing).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => {
                tracing::debug!(session = self.id.0, %error, "a renewal failed");
                Answer::Failed
            }
            Err(_) => Answer::Failed,
        };
        if matches!(answer, Answer::Failed) {
            *stream = None;
            members.leave(member);
        }
        answer
    }

    /// One call's worth of trying; what does not succeed is done by the lease's end.
    async fn revoke(&self) {
        let lease = self.lease;
        let revoked = self
            .inner
            .members
            .call(Nature::Repeatable, |client| async move { client.lease_client().revoke(lease).await })
            .await;
        if let Err(error) = revoked
            && !matches!(error, crate::Error::SessionLost)
        {
            tracing::debug!(session = self.id.0, %error, "the lease could not be revoked; it runs out");
        }
    }
}

#[async_trait]
impl Session for EtcdSession {
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
        self.revoke().await;
    }
}
