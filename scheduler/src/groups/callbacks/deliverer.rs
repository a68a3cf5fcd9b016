//! The deliverer of callbacks: one scheduler at a time, the one that holds the lock, empties the outbox.
//!
//! What is known here is only when to look at a record again, and where it leads; every try reads the record anew. So a watch brings what is new
//! sooner, and a list now and then would bring it alone.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt as _};
use muster_proto::storage::CallbackRecord;
use muster_state::{Change, Entry, Error, Guard, Key, Keyspace, Op, Scan, StateBackend, Txn, TxnOutcome, codec, keys};
use tokio::time::Instant;

use super::post::{self, Outcome};
use super::queue::Queue;
use super::{TRIED_FOR, backoff};
use crate::load::send_until_known;
use crate::shared::Shared;
use crate::singleton;

/// The lock's name.
const LOCK: &str = "callbacks";
/// After an error of the store.
const PAUSE: Duration = Duration::from_secs(1);
/// A watch only makes sooner what a list alone would bring about.
const LIST_EVERY: Duration = Duration::from_secs(20);
/// Delivers whenever it holds the lock, for ever.
pub(crate) async fn keep(shared: Arc<Shared>) {
    singleton::whenever_held(shared, LOCK, "delivers the groups' callbacks", work).await;
}

/// As long as the lock is held.
async fn work(shared: Arc<Shared>, held: Guard) {
    let shared = &*shared;
    let mut deliverer = Deliverer {
        shared,
        state: &*shared.options.state,
        held,
        queue: Queue::default(),
        tries: FuturesUnordered::new(),
    };
    loop {
        // In doubt of the store nobody is told what it says.
        if shared.health.is_trusted() {
            match deliverer.deliver().await {
                Ok(()) => continue,
                Err(End::Superseded) => return,
                Err(End::Store(error)) => tracing::info!(%error, "callbacks are delivered again soon"),
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Why delivering ended.
enum End {
    /// The lock is another's.
    Superseded,
    Store(Error),
}

impl From<Error> for End {
    fn from(error: Error) -> Self {
        Self::Store(error)
    }
}

struct Deliverer<'a> {
    shared: &'a Shared,
    state: &'a dyn StateBackend,
    /// Holds as long as the lock is held.
    held: Guard,
    queue: Queue,
    /// Each ends with the name of its record.
    tries: FuturesUnordered<BoxFuture<'a, (String, Result<(), End>)>>,
}

impl Deliverer<'_> {
    /// What waits, and then for a while what comes.
    async fn deliver(&mut self) -> Result<(), End> {
        let until = Instant::now() + LIST_EVERY;
        self.queue.forget_waiting();
        let mut scan = Scan::default();
        let listed = loop {
            let page = self.state.scan(Keyspace::Outbox, scan.clone()).await?;
            page.entries.iter().for_each(|entry| self.learn(entry));
            match page.next {
                Some(after) => scan = Scan { after: Some(after), at: Some(page.revision), ..scan },
                None => break page.revision,
            }
        };
        let mut watch = self.state.watch(Keyspace::Outbox, "", listed + 1).await?;
        loop {
            self.begin();
            let now = self.shared.now();
            let next = self.queue.next_after(now).map_or(LIST_EVERY, |at| Duration::from_millis(at - now));
            tokio::select! {
                () = tokio::time::sleep_until(until.min(Instant::now() + next)) => {
                    if Instant::now() >= until {
                        return Ok(());
                    }
                }
                Some((name, ended)) = self.tries.next(), if !self.tries.is_empty() => {
                    self.queue.ended(&name);
                    match ended {
                        Err(End::Store(error)) => {
                            tracing::info!(name, %error, "what became of a callback could not be written; it is tried again");
                        }
                        ended => ended?,
                    }
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
            Ok(record) => self.queue.learn(&entry.name, &post::place(&record.url), record.next_try_at_ms),
            Err(error) => tracing::error!(name = entry.name, %error, "a callback cannot be read; it is not delivered"),
        }
    }

    /// Begins tries of what is due, as far as there is room.
    fn begin(&mut self) {
        while let Some(name) = self.queue.begin(self.shared.now()) {
            let (shared, held) = (self.shared, self.held.clone());
            self.tries.push(Box::pin(async move {
                let ended = try_once(shared, held, &name).await;
                (name, ended)
            }));
        }
    }
}

/// One try of what a record says now, and what follows from it.
async fn try_once(shared: &Shared, held: Guard, name: &str) -> Result<(), End> {
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
    let guards = vec![epoch, held.clone(), Guard::AtRevision(key, entry.mod_revision)];
    let txn = Txn { guards, ops: vec![op], ..Txn::default() };
    if let TxnOutcome::Committed(_) = send_until_known(state, txn).await? {
        return Ok(());
    }
    // By an earlier sending of this, or by another deliverer.
    match send_until_known(state, Txn { guards: vec![held], ..Txn::default() }).await? {
        TxnOutcome::Committed(_) => Ok(()),
        TxnOutcome::Refused { .. } => Err(End::Superseded),
    }
}
