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
/// A watch only makes sooner what a list alone would bring about: so often everything is listed anew.
const LIST_EVERY: Duration = Duration::from_secs(20);

/// What is known of demand, here and elsewhere.
#[derive(Debug)]
pub(crate) struct Demand {
    /// Whether tasks wait here that nobody takes.
    unmet: watch::Sender<bool>,
    /// The sessions of the schedulers that say so in the store, this one's too.
    everywhere: watch::Sender<BTreeSet<SessionId>>,
}

impl Default for Demand {
    fn default() -> Self {
        Self { unmet: watch::channel(false).0, everywhere: watch::channel(BTreeSet::new()).0 }
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
    let wanting = shared.demand.everywhere.borrow();
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
    let mut changes = shared.demand.everywhere.subscribe();
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
///
/// What is told is what the store says, as this scheduler hears it like any other: not what was sent last. A write whose outcome
/// is unknown may have been done, or may be done after the next one; told by the sender's word, a demand could be missing for
/// ever.
pub(crate) async fn keep_telling(shared: Arc<Shared>) {
    let mut unmet = shared.demand.unmet.subscribe();
    loop {
        let session = shared.presence().identity.session;
        let wanted = *unmet.borrow_and_update() && shared.peers.live().len() > 1;
        let told = shared.demand.everywhere.borrow().contains(&session);
        if wanted != told {
            if wanted {
                tokio::time::sleep(WORTH_TELLING).await;
                if !*unmet.borrow() {
                    continue;
                }
            }
            let key = Key::new(Keyspace::Demand, session.0.clone());
            let op = if wanted {
                Op::Put { key, value: bytes::Bytes::new(), session: Some(session) }
            } else {
                Op::Delete(key)
            };
            if let Err(error) = shared.options.state.put_txn(Txn { ops: vec![op], ..Txn::default() }).await {
                tracing::debug!(%error, "demand could not be told");
            }
            tokio::time::sleep(PAUSE).await;
        }
        // Looked at now and then as well: peers, sessions and what the store says change too.
        let _ = tokio::time::timeout(PAUSE, unmet.changed()).await;
    }
}

/// Follows the demand of all schedulers, for ever.
pub(crate) async fn follow(shared: Arc<Shared>) {
    loop {
        match tokio::time::timeout(LIST_EVERY, follow_once(&shared)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::info!(%error, "following the peers' demand again"),
            Err(_) => continue,
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn follow_once(shared: &Shared) -> Result<(), Error> {
    let state = &*shared.options.state;
    let page = state.get_from_prefix(Keyspace::Demand, "").await?;
    let all = page.entries.into_iter().map(|entry| SessionId(entry.name)).collect();
    shared.demand.everywhere.send_replace(all);
    let mut watch = state.watch(Keyspace::Demand, "", page.revision + 1).await?;
    while let Some(batch) = watch.next().await {
        let changes = batch?.changes;
        shared.demand.everywhere.send_modify(|known| {
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
    use std::collections::BTreeMap;

    use muster_state::faults::{Fault, Faulty, Operation};
    use muster_state::{Memory, StateBackend};

    use super::*;

    async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
        let waiting = async {
            while !is_so().await {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), waiting).await.unwrap_or_else(|_| panic!("in vain: {what}"));
    }

    #[tokio::test]
    async fn a_demand_is_told_again_after_its_end_was_told_without_an_answer() {
        let state = Arc::new(Faulty::new(Arc::new(Memory::new())));
        let (shared, _engine) = Shared::without_engine(&(Arc::clone(&state) as Arc<dyn StateBackend>)).await;
        let mine = shared.presence().identity.session;
        let peers = [mine.clone(), SessionId("peer".to_owned())].map(|session| (session, Default::default()));
        shared.peers.set(BTreeMap::from(peers));
        let tasks = [tokio::spawn(keep_telling(Arc::clone(&shared))), tokio::spawn(follow(Arc::clone(&shared)))];
        let key = Key::new(Keyspace::Demand, mine.0);
        let is_told = async || state.get(&key).await.unwrap().is_some();
        shared.demand.set_unmet(true);
        until("it is told", is_told).await;
        let unknown = state.inject(Keyspace::Demand, Operation::Write, Fault::UnknownDone, 1);
        shared.demand.set_unmet(false);
        until("its end is told", async || unknown.fired() == 1 && !is_told().await).await;
        shared.demand.set_unmet(true);
        until("it is told again", is_told).await;
        tasks.iter().for_each(tokio::task::JoinHandle::abort);
    }

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
