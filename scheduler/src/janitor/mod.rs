//! The janitor: keeps the store small. One scheduler at a time is it, the one that holds the lock.
//!
//! Its duties: to forget the store's past ([`Compaction`]); to delete what nobody needs ([`sweep`]); to have members give
//! back free space before the quota is used up, and to end the state in which it is ([`relief`]).
//!
//! Invariants:
//! - Whatever it writes compares that it still holds the lock. Compaction, defragmentation and the disarming of an alarm are no
//!   writes and cannot be guarded, so a janitor that was superseded may still do them; and may: compaction goes
//!   through a guarded record first, never back, and never beyond what this janitor has itself seen to be old; the others
//!   lose nothing.
//! - It deletes only what it has read to be nobody's, in a transaction that compares that it still is. What it cannot
//!   read (a newer version's records) it leaves alone.
//! - Each round is bounded; there is always a next one.

mod compaction;
mod relief;
mod sweep;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use muster_proto::storage::JanitorRecord;
use muster_state::{Error, Guard, Op, Revision, Session, Txn, TxnOutcome, codec, keys};
use tokio::time::Instant;

use crate::load::send_until_known;
use crate::shared::Shared;
use crate::singleton;
use crate::store_watch;
use crate::updates;
use compaction::Compaction;
pub(crate) use relief::Relief;
use sweep::Sweep;

/// The lock's name.
const LOCK: &str = "janitor";
/// Between two rounds.
const EVERY: Duration = Duration::from_secs(15);
/// Between two rounds while the store is full.
const EVERY_WHEN_FULL: Duration = Duration::from_secs(1);
/// After an error of the store.
const PAUSE: Duration = Duration::from_secs(1);

/// Why a round was not done.
enum End {
    /// Its lock went to another one.
    Superseded,
    Store(Error),
}

impl From<Error> for End {
    fn from(error: Error) -> Self {
        Self::Store(error)
    }
}

/// Is the janitor whenever it holds the lock, for ever.
pub(crate) async fn keep(shared: Arc<Shared>) {
    let mut relief = Relief::default();
    loop {
        let session = shared.presence().session;
        match singleton::lock(&shared, LOCK, &session).await {
            Ok(lock) => {
                tracing::info!("this scheduler looks after the store");
                work(&shared, session, lock.guard()).await;
                tracing::info!("another scheduler looks after the store now");
            }
            // Nobody who stands in the queue may be left, and nobody else can enter it now.
            Err(Error::NoSpace(why)) => {
                shared.health.set_full(Some(why));
                // As in `work`: a store in doubt is left as it is, its past too.
                if !shared.health.is_trusted() {
                    tracing::debug!("the full store is in doubt: no room is made");
                } else if let Err(error) = relief.free(&*shared.options.state, shared.options.store_quota).await {
                    tracing::warn!(%error, "no room could be made in the store; again soon");
                }
            }
            Err(error) => tracing::debug!(%error, "no place in the queue of the store's janitors"),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Rounds, as long as the lock is held.
async fn work(shared: &Shared, session: Arc<dyn Session>, held: Guard) {
    let mut full = shared.health.full_changes();
    let mut janitor = Janitor {
        shared,
        held,
        compaction: Compaction::default(),
        sweep: Sweep::default(),
        relief: Relief::default(),
        jobs_swept: 0,
    };
    loop {
        // A store in doubt is left as it is: an operator may want to look at it.
        if shared.health.is_trusted() {
            match janitor.round().await {
                Ok(()) => {}
                Err(End::Store(error)) => tracing::info!(%error, "the store could not be looked after; again soon"),
                Err(End::Superseded) => return,
            }
        }
        let pause = if full.borrow_and_update().is_some() { EVERY_WHEN_FULL } else { EVERY };
        tokio::select! {
            () = session.lost() => return,
            _ = tokio::time::timeout(pause, full.changed()) => {}
        }
    }
}

struct Janitor<'a> {
    shared: &'a Shared,
    /// Holds as long as the lock is held.
    held: Guard,
    compaction: Compaction,
    sweep: Sweep,
    relief: Relief,
    jobs_swept: u64,
}

impl Janitor<'_> {
    async fn round(&mut self) -> Result<(), End> {
        let state = &*self.shared.options.state;
        let status = state.status().await?;
        let quota = store_watch::quota(&status, self.shared.options.store_quota);
        let full = store_watch::why_full(&status).is_some();
        let revision = state.revision().await?;
        if let Some(old) = self.compaction.due(Instant::now(), revision, status.in_use_bytes(), quota) {
            self.record(old).await?;
            state.compact(old).await?;
            self.compaction.done(old);
        }
        self.sweep().await?;
        updates::clean_up::clean_up(state, &self.held, self.shared.now()).await?;
        if full {
            self.relief.free(state, self.shared.options.store_quota).await?;
        } else if let Some(quota) = quota {
            self.relief = Relief::default();
            relief::give_back(state, &status, quota).await?;
        }
        Ok(())
    }

    /// Says what is done next. Whoever is not the janitor any more learns it here.
    async fn record(&self, compacted_to: Revision) -> Result<(), End> {
        let record = JanitorRecord {
            scheduler_id: self.shared.options.scheduler_id.clone(),
            at_ms: self.shared.now(),
            compacted_to,
            jobs_swept: self.jobs_swept,
        };
        match self.write(vec![Op::Put { key: keys::janitor(), value: codec::encode(&record)?, session: None }]).await {
            // In a full store it does without.
            Err(End::Store(Error::NoSpace(_))) => Ok(()),
            other => other,
        }
    }

    /// Writes, if it is still the janitor.
    async fn write(&self, ops: Vec<Op>) -> Result<(), End> {
        let txn = Txn { guards: vec![self.held.clone()], ops, read_on_failure: Vec::new() };
        match send_until_known(&*self.shared.options.state, txn).await? {
            TxnOutcome::Committed(_) => Ok(()),
            TxnOutcome::Refused { .. } => Err(End::Superseded),
        }
    }
}
