//! A fair lock out of a store's own means, the same for every backend: a queue of leased keys in the order of their
//! creation (the recipe of etcd's own concurrency package).
//!
//! Invariants:
//! - A place in the queue is a key `Locks/<name>/<session>-<number>` leased to the session, written by a task that runs to
//!   its end whatever becomes of the caller. So a call that is dropped at any moment leaves no place behind, not even
//!   one whose write lands late.
//! - Each waiter watches only the place before its own; nobody is woken in vain, and nobody overtakes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use tokio::sync::oneshot;

use crate::{
    Error, Guard, Key, Keyspace, Lock, Op, Revision, Scan, Session, SessionId, StateBackend, Txn, TxnOutcome, limits,
};

/// Between attempts to settle an unknown outcome, or to reach a store that is not available.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// Tells apart the places of one session, over all locks and calls of this process.
static NEXT_PLACE: AtomicU64 = AtomicU64::new(1);

/// Waits for the lock. There is no deadline: the caller drops the future when it has waited long enough.
pub(crate) async fn acquire(
    backend: Arc<dyn StateBackend>,
    name: &str,
    session: &Arc<dyn Session>,
) -> Result<Box<dyn Lock>, Error> {
    if name.is_empty() {
        return Err(Error::Fatal("a lock has an empty name".to_owned()));
    }
    let unique = NEXT_PLACE.fetch_add(1, Ordering::Relaxed);
    let key = Key::new(Keyspace::Locks, format!("{name}/{}-{unique:016x}", session.id().0));
    limits::check_name(&key)?;
    let place = enter(backend, key, Arc::clone(session)).await?;
    let queue = format!("{name}/");
    loop {
        let outcome = tokio::select! {
            biased;
            () = session.lost() => return Err(Error::SessionLost),
            outcome = place.wait_for_turn(&queue) => outcome,
        };
        match outcome {
            Ok(true) => return Ok(Box::new(place)),
            Ok(false) => {}
            Err(error) if error.is_retryable() || matches!(error, Error::Compacted { .. }) => {
                tokio::time::sleep(RETRY_PAUSE).await;
            }
            Err(error) => return Err(error),
        }
    }
}

/// A place in the queue, and the lock once it is the first. Given up on drop.
struct Place {
    backend: Arc<dyn StateBackend>,
    session: Arc<dyn Session>,
    key: Key,
    create_revision: Revision,
    runtime: tokio::runtime::Handle,
}

impl std::fmt::Debug for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Place").field("key", &self.key.name).field("create_revision", &self.create_revision).finish()
    }
}

impl Lock for Place {
    fn guard(&self) -> Guard {
        // Written once, so its mod revision is its create revision: stronger than mere presence.
        Guard::AtRevision(self.key.clone(), self.create_revision)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.runtime.spawn(leave(Arc::clone(&self.backend), Arc::clone(&self.session), self.key.clone()));
    }
}

/// Writes the place. The write is settled in a task of its own, so that dropping this future cannot leave it half done.
async fn enter(backend: Arc<dyn StateBackend>, key: Key, session: Arc<dyn Session>) -> Result<Place, Error> {
    let (answer, answered) = oneshot::channel();
    tokio::spawn(async move {
        let entered = settle_entry(&*backend, &key, &session).await;
        let place = entered.map(|create_revision| Place {
            backend,
            session,
            key,
            create_revision,
            runtime: tokio::runtime::Handle::current(),
        });
        // Nobody waits any more: the place comes back here and is given up by its drop.
        let _ = answer.send(place);
    });
    answered.await.unwrap_or_else(|_| Err(Error::Unavailable("the runtime is shutting down".to_owned())))
}

async fn settle_entry(backend: &dyn StateBackend, key: &Key, session: &Arc<dyn Session>) -> Result<Revision, Error> {
    let id: &SessionId = session.id();
    let txn = Txn {
        guards: vec![Guard::Absent(key.clone()), Guard::SessionAlive(id.clone())],
        ops: vec![Op::Put { key: key.clone(), value: Bytes::new(), session: Some(id.clone()) }],
        read_on_failure: vec![key.clone()],
    };
    let mut unsettled = false;
    loop {
        match backend.put_txn(txn.clone()).await {
            Ok(TxnOutcome::Committed(revision)) => return Ok(revision),
            Ok(TxnOutcome::Refused { read, .. }) => {
                // Only we write this key: if it is there, an earlier sending had landed.
                return match read.into_iter().flatten().next() {
                    Some(entry) => Ok(entry.create_revision),
                    None => Err(Error::SessionLost),
                };
            }
            Err(Error::Unknown(_)) => unsettled = true,
            // Once a sending may have landed, the question must be answered; before that, the caller decides.
            Err(Error::Unavailable(_)) if unsettled => {}
            Err(error) => return Err(error),
        }
        if session.slack().is_zero() {
            return Err(Error::SessionLost);
        }
        tokio::time::sleep(RETRY_PAUSE).await;
    }
}

/// Deletes the place. While the session lives nobody else would, so this does not give up before it.
async fn leave(backend: Arc<dyn StateBackend>, session: Arc<dyn Session>, key: Key) {
    loop {
        match backend.delete(&key).await {
            Err(error) if error.is_retryable() && !session.slack().is_zero() => {
                tokio::time::sleep(RETRY_PAUSE).await;
            }
            Err(error) => {
                tracing::warn!(key = key.name, %error, "a lock is left to its session's end");
                return;
            }
            Ok(_) => return,
        }
    }
}

impl Place {
    /// True: it is ours. False: something changed, look again.
    async fn wait_for_turn(&self, queue: &str) -> Result<bool, Error> {
        let (revision, before) = self.predecessor(queue).await?;
        let Some(before) = before else { return Ok(true) };
        let mut changes = self.backend.watch(Keyspace::Locks, &before, revision + 1).await?;
        // Numbers have one width, so no other place begins with this name; and it is written once, so this is its end.
        match changes.next().await {
            Some(Err(error)) => Err(error),
            Some(Ok(_)) | None => Ok(false),
        }
    }

    /// The place just before ours, if there is one, and the revision at which that was seen.
    async fn predecessor(&self, queue: &str) -> Result<(Revision, Option<String>), Error> {
        let mut scan = Scan { prefix: queue.to_owned(), ..Scan::default() };
        let mut before: Option<(Revision, String)> = None;
        let mut ours = false;
        loop {
            let page = self.backend.scan_keys(Keyspace::Locks, scan.clone()).await?;
            for entry in page.entries {
                // A lock `a/b` keeps its queue below `a/`, the queue of lock `a`.
                if entry.name[queue.len()..].contains('/') {
                    continue;
                }
                ours |= entry.name == self.key.name;
                if entry.create_revision < self.create_revision
                    && before.as_ref().is_none_or(|(revision, _)| entry.create_revision > *revision)
                {
                    before = Some((entry.create_revision, entry.name));
                }
            }
            scan.at = Some(page.revision);
            scan.after = page.next;
            if scan.after.is_none() {
                if !ours {
                    return Err(Error::SessionLost);
                }
                return Ok((page.revision, before.map(|(_, name)| name)));
            }
        }
    }
}
