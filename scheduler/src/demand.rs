//! Unmet demand, told to peers. Executors that fetch their work ask one scheduler, their home; if another has tasks and
//! nobody to give them to, it says so in the store, and the home sends the executor on: after each answer, whether it had
//! work itself or not, and to one after the other of those who want, so that all of them, the home too, have their turns.
//!
//! Only a hint: a demand that is told late or for too long costs a poll in vain. It is leased, so it goes with its scheduler.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use muster_state::{Change, Error, Key, Keyspace, Op, SessionId, Txn};
use tokio::sync::watch;

use crate::shared::Shared;

/// A demand that is met sooner is not worth a write.
const WORTH_TELLING: Duration = Duration::from_millis(50);
/// Between two writes, and after an error.
const PAUSE: Duration = Duration::from_millis(500);

/// What is known of demand, here and elsewhere.
#[derive(Debug)]
pub(crate) struct Demand {
    /// Whether tasks wait here that nobody takes.
    unmet: watch::Sender<bool>,
    /// The sessions of the schedulers that say so of theirs.
    elsewhere: watch::Sender<BTreeSet<SessionId>>,
}

impl Default for Demand {
    fn default() -> Self {
        Self { unmet: watch::channel(false).0, elsewhere: watch::channel(BTreeSet::new()).0 }
    }
}

impl Demand {
    pub(crate) fn set_unmet(&self, unmet: bool) {
        self.unmet.send_if_modified(|known| std::mem::replace(known, unmet) != unmet);
    }

    pub(crate) fn is_unmet(&self) -> bool {
        *self.unmet.borrow()
    }
}

/// The live peer with unmet demand whose turn it is for an executor that went to `last` before; its address.
pub(crate) fn peer_after(shared: &Shared, last: &str) -> Option<String> {
    let mine = shared.presence().identity.session;
    let live = shared.peers.live();
    let wanting = shared.demand.elsewhere.borrow();
    let others = wanting.iter().filter(|session| **session != mine).filter_map(|session| live.get(session));
    // One whose record cannot be read has no address.
    turn_after(last, others.map(|peer| peer.address.clone()).filter(|address| !address.is_empty()))
}

/// The next of these in their order; after the last one, the first.
fn turn_after(last: &str, wanting: impl Iterator<Item = String>) -> Option<String> {
    wanting.min_by(|one, other| (one.as_str() <= last, one).cmp(&(other.as_str() <= last, other)))
}

/// Waits until there is one; see [`peer_after`].
pub(crate) async fn of_a_peer(shared: &Shared, last: &str) -> String {
    let mut changes = shared.demand.elsewhere.subscribe();
    loop {
        changes.mark_unchanged();
        if let Some(peer) = peer_after(shared, last) {
            return peer;
        }
        if changes.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// Tells of this scheduler's demand, for ever.
pub(crate) async fn keep_telling(shared: Arc<Shared>) {
    let mut unmet = shared.demand.unmet.subscribe();
    let mut told: Option<SessionId> = None;
    loop {
        let session = shared.presence().identity.session;
        let wanted = *unmet.borrow_and_update() && shared.peers.live().len() > 1;
        let known = told.as_ref() == Some(&session);
        if wanted != known {
            if wanted {
                tokio::time::sleep(WORTH_TELLING).await;
                if !*unmet.borrow() {
                    continue;
                }
            }
            let key = Key::new(Keyspace::Demand, session.0.clone());
            let op = if wanted {
                Op::Put { key, value: bytes::Bytes::new(), session: Some(session.clone()) }
            } else {
                Op::Delete(key)
            };
            match shared.options.state.put_txn(Txn { ops: vec![op], ..Txn::default() }).await {
                Ok(_) => told = wanted.then_some(session),
                Err(error) => tracing::debug!(%error, "demand could not be told"),
            }
            tokio::time::sleep(PAUSE).await;
        }
        // Looked at now and then as well: peers and sessions change too.
        let _ = tokio::time::timeout(PAUSE, unmet.changed()).await;
    }
}

/// Follows the peers' demand, for ever.
pub(crate) async fn follow(shared: Arc<Shared>) {
    loop {
        if let Err(error) = follow_once(&shared).await {
            tracing::info!(%error, "following the peers' demand again");
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn follow_once(shared: &Shared) -> Result<(), Error> {
    let state = &*shared.options.state;
    let page = state.get_from_prefix(Keyspace::Demand, "").await?;
    let all = page.entries.into_iter().map(|entry| SessionId(entry.name)).collect();
    shared.demand.elsewhere.send_replace(all);
    let mut watch = state.watch(Keyspace::Demand, "", page.revision + 1).await?;
    while let Some(batch) = watch.next().await {
        let changes = batch?.changes;
        shared.demand.elsewhere.send_modify(|known| {
            for change in changes {
                match change {
                    Change::Put(entry) => known.insert(SessionId(entry.name)),
                    Change::Deleted { name, .. } => known.remove(&SessionId(name)),
                };
            }
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::turn_after;

    #[test]
    fn those_who_want_take_turns() {
        let wanting = || ["c:1", "a:1", "b:1"].map(str::to_owned).into_iter();
        let mut last = String::new();
        let mut turns = Vec::new();
        for _ in 0..4 {
            last = turn_after(&last, wanting()).unwrap();
            turns.push(last.clone());
        }
        assert_eq!(turns, ["a:1", "b:1", "c:1", "a:1"]);
        assert_eq!(turn_after("b:0", wanting()).unwrap(), "b:1", "whoever was last may want nothing any more");
        assert_eq!(turn_after("a:1", std::iter::empty()), None);
    }
}
