//! What one scheduler at a time does: the one that holds a lock. A lock alone protects nothing; its guard does, in every write.

use std::sync::Arc;
use std::time::Duration;

use muster_state::{Error, Guard, Lock, Session};

use crate::shared::Shared;

/// After an error of the store, and after the lock went.
const PAUSE: Duration = Duration::from_secs(1);

/// Waits in the queue of a lock, as long as the session lives.
pub(crate) async fn lock(shared: &Shared, name: &str, session: &Arc<dyn Session>) -> Result<Box<dyn Lock>, Error> {
    tokio::select! {
        lock = shared.options.state.lock(name, session) => lock,
        () = session.lost() => Err(Error::SessionLost),
    }
}

/// Works whenever this scheduler holds the lock, for ever. The work is given up when the session is lost, and may end when a write was refused because the
/// lock is another's: then it waits for it anew. `what` it is, for the log.
pub(crate) async fn whenever_held<F: Future<Output = ()>>(
    shared: Arc<Shared>,
    name: &str,
    what: &str,
    work: impl Fn(Arc<Shared>, Guard) -> F,
) {
    loop {
        let session = shared.presence().session;
        match lock(&shared, name, &session).await {
            Ok(lock) => {
                tracing::info!("this scheduler {what}");
                tokio::select! {
                    () = work(Arc::clone(&shared), lock.guard()) => {}
                    () = session.lost() => {}
                }
                tracing::info!("this scheduler {what} no more");
            }
            Err(error) => tracing::debug!(lock = name, %error, "no place in the queue of a lock"),
        }
        tokio::time::sleep(PAUSE).await;
    }
}
