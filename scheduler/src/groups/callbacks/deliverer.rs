//! The deliverer of callbacks: one scheduler at a time, the one that holds the lock, empties the outbox.
//!
//! What is known here is only when to look at a record again, and where it leads; every try reads the record anew. So a watch brings what is new
//! sooner, and a list now and then would bring it alone. A receiver that does not answer holds up its own callbacks, and no others.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt as _};
use muster_graph::ids::Millis;
use muster_proto::storage::CallbackRecord;
use muster_state::{Change, Entry, Error, Guard, Key, Keyspace, Op, Scan, StateBackend, Txn, codec, keys};
use tokio::time::Instant;

use super::post::{self, Outcome};
use super::{TRIED_FOR, backoff};
use crate::load::send_until_known;
use crate::shared::Shared;

/// The lock's name.
const LOCK: &str = "callbacks";
/// After an error of the store.
const PAUSE: Duration = Duration::from_secs(1);
/// A watch only makes sooner what a list alone would bring about.
const LIST_EVERY: Duration = Duration::from_secs(20);
/// Tries under way at once.
const AT_ONCE_MAX: usize = 64;
/// Of these to one host and port.
const AT_ONE_PLACE_MAX: usize = 4;
/// Callbacks that are kept in mind: those that are due next. A list finds the others when there is room.
const KNOWN_MAX: usize = 10_000;

/// Delivers whenever it holds the lock, for ever.
pub(crate) async fn keep(shared: Arc<Shared>) {
    loop {
        let session = shared.presence().session;
        let lock = tokio::select! {
            lock = shared.options.state.lock(LOCK, &session) => lock,
            () = session.lost() => Err(Error::SessionLost),
        };
        match lock {
            Ok(lock) => tokio::select! {
                () = Deliverer::new(&shared, lock.guard()).work() => {}
                () = session.lost() => {}
            },
            Err(error) => tracing::debug!(%error, "no place in the queue of the deliverers of callbacks"),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

pub(super) struct Deliverer<'a> {
    shared: &'a Shared,
    state: &'a dyn StateBackend,
    /// Holds as long as the lock is held.
    held: Guard,
    /// When to look at which record, and where it leads.
    waiting: BTreeMap<(Millis, String), Arc<str>>,
    /// Records of which a try is under way, and where it leads.
    under_way: HashMap<String, Arc<str>>,
    tries: FuturesUnordered<BoxFuture<'a, String>>,
}

impl<'a> Deliverer<'a> {
    pub(super) fn new(shared: &'a Shared, held: Guard) -> Self {
        Self {
            shared,
            state: &*shared.options.state,
            held,
            waiting: BTreeMap::new(),
            under_way: HashMap::new(),
            tries: FuturesUnordered::new(),
        }
    }

    /// Without an end: whose lock is gone writes nothing, and its session ends soon.
    pub(super) async fn work(mut self) {
        loop {
            // In doubt of the store nobody is told what it says.
            if self.shared.health.is_trusted()
                && let Err(error) = self.deliver().await
            {
                tracing::info!(%error, "callbacks are delivered again soon");
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// What waits, and then for a while what comes.
    async fn deliver(&mut self) -> Result<(), Error> {
        let until = Instant::now() + LIST_EVERY;
        self.waiting.clear();
        let mut scan = Scan::default();
        let listed = loop {
            let page = self.state.scan(Keyspace::Outbox, scan.clone()).await?;
            page.entries.into_iter().for_each(|entry| self.learn(&entry));
            match page.next {
                Some(after) => scan = Scan { after: Some(after), at: Some(page.revision), ..scan },
                None => break page.revision,
            }
        };
        let mut watch = self.state.watch(Keyspace::Outbox, "", listed + 1).await?;
        loop {
            self.begin();
            let next = self.waiting.first_key_value().map_or(Millis::MAX, |((at, _), _)| *at);
            // What is due already waits for a try to end.
            let pause = match next.saturating_sub(self.shared.now()) {
                0 => LIST_EVERY,
                pause => Duration::from_millis(pause),
            };
            tokio::select! {
                () = tokio::time::sleep_until(until) => return Ok(()),
                () = tokio::time::sleep(pause) => {}
                Some(name) = self.tries.next(), if !self.tries.is_empty() => {
                    self.under_way.remove(&name);
                }
                batch = watch.next() => {
                    let Some(batch) = batch else { return Ok(()) };
                    for change in batch?.changes {
                        if let Change::Put(entry) = change {
                            self.learn(&entry);
                        }
                    }
                }
            }
        }
    }

    fn learn(&mut self, entry: &Entry) {
        let key = Key::new(Keyspace::Outbox, entry.name.clone());
        match codec::decode::<CallbackRecord>(&key, &entry.value) {
            Ok(record) => {
                let place = Arc::from(post::place(&record.url));
                self.waiting.insert((record.next_try_at_ms, entry.name.clone()), place);
                if self.waiting.len() > KNOWN_MAX {
                    self.waiting.pop_last();
                }
            }
            Err(error) => tracing::error!(name = entry.name, %error, "a callback cannot be read; it is not delivered"),
        }
    }

    /// Begins tries of what is due, as far as there is room.
    fn begin(&mut self) {
        let now = self.shared.now();
        let mut at_places: HashMap<Arc<str>, usize> = HashMap::new();
        for place in self.under_way.values() {
            *at_places.entry(Arc::clone(place)).or_default() += 1;
        }
        let mut room = AT_ONCE_MAX.saturating_sub(self.under_way.len());
        let mut begun = Vec::new();
        for ((at, name), place) in &self.waiting {
            if room == 0 || *at > now {
                break;
            }
            let there = at_places.entry(Arc::clone(place)).or_default();
            if *there < AT_ONE_PLACE_MAX && !self.under_way.contains_key(name) {
                (*there, room) = (*there + 1, room - 1);
                begun.push((*at, name.clone()));
            }
        }
        for (at, name) in begun {
            let Some((_, place)) = self.waiting.remove_entry(&(at, name.clone())) else { continue };
            self.under_way.insert(name.clone(), place);
            let (shared, held) = (self.shared, self.held.clone());
            self.tries.push(Box::pin(async move {
                if let Err(error) = try_once(shared, held, &name).await {
                    tracing::info!(name, %error, "what became of a callback could not be written; it is tried again");
                }
                name
            }));
        }
    }
}

/// One try of what a record says now, and what follows from it.
async fn try_once(shared: &Shared, held: Guard, name: &str) -> Result<(), Error> {
    let state = &*shared.options.state;
    let key = Key::new(Keyspace::Outbox, name);
    let Some(entry) = state.get(&key).await? else { return Ok(()) };
    let mut record: CallbackRecord = codec::decode(&key, &entry.value)?;
    if record.next_try_at_ms > shared.now() {
        return Ok(());
    }
    let outcome = post::post(&record, shared.options.callback_secret.as_ref(), shared.now()).await;
    let now = shared.now();
    let (namespace, group, url) = (record.namespace.clone(), record.path.clone(), record.url.clone());
    let too_old = now.saturating_sub(record.completed_at_ms) > TRIED_FOR;
    let op = match outcome {
        Outcome::Delivered => {
            shared.metrics.callback("delivered");
            tracing::info!(namespace, group, url, "the callback has heard of the group's completion");
            Op::Delete(key.clone())
        }
        Outcome::Failed(why) if !too_old => {
            shared.metrics.callback("failed");
            record.tries += 1;
            record.next_try_at_ms = now + backoff(record.tries, rand::random());
            tracing::info!(namespace, group, url, tries = record.tries, why, "a callback failed; it is tried again");
            Op::Put { key: key.clone(), value: codec::encode(&record)?, session: None }
        }
        outcome => {
            shared.metrics.callback("given_up");
            tracing::warn!(namespace, group, url, tries = record.tries + 1, ?outcome, "a callback is given up");
            Op::Delete(key.clone())
        }
    };
    let epoch = Guard::AtRevision(keys::epoch(), shared.presence().identity.epoch_revision);
    let guards = vec![epoch, held, Guard::AtRevision(key, entry.mod_revision)];
    // Refused: another scheduler delivers now.
    send_until_known(state, Txn { guards, ops: vec![op], ..Txn::default() }).await.map(drop)
}
