//! The core behind a lock, with news for those who watch it: what the in-process stores have in common.
//!
//! A watch is a cursor into the core's log and a signal that there is something new: it buffers nothing, so a slow
//! watcher costs nothing, and one that falls behind a compaction is told so.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, Weak};

use futures::StreamExt as _;
use tokio::sync::watch;

use super::Core;
use crate::{Error, Keyspace, Revision, WatchBatch, WatchStream};

/// See the module.
#[derive(Debug)]
pub(crate) struct Shared {
    /// Held for the length of one transaction, one page, or one batch of changes; never across an await.
    core: Mutex<Core>,
    /// For each keyspace, the newest visible revision that wrote to it.
    news: [watch::Sender<Revision>; Keyspace::ALL.len()],
}

impl Shared {
    pub(crate) fn new(core: Core) -> Self {
        Self { core: Mutex::new(core), news: std::array::from_fn(|_| watch::Sender::new(0)) }
    }

    pub(crate) fn core(&self) -> MutexGuard<'_, Core> {
        // A panic inside the core is a bug of ours; the tables it leaves are no worse than what went before it, but a
        // store that may be wrong must not go on.
        self.core.lock().expect("no other thread panicked while it held the core")
    }

    /// Lets readers and watches see what was written.
    pub(crate) fn publish(&self, mut core: MutexGuard<'_, Core>) {
        let from = core.publish();
        let to = core.visible();
        let mut touched = [false; Keyspace::ALL.len()];
        for revision in from..=to {
            for (written, _) in core.written(revision) {
                touched[written.keyspace as usize] = true;
            }
        }
        drop(core);
        for (news, touched) in self.news.iter().zip(touched) {
            if touched {
                news.send_replace(to);
            }
        }
    }

    /// Follows the log. The stream ends with `Unavailable` when the store is closed under it.
    pub(crate) fn watch(self: &Arc<Self>, keyspace: Keyspace, prefix: &str, from: Revision) -> WatchStream {
        let cursor = Cursor {
            shared: Arc::downgrade(self),
            news: self.news[keyspace as usize].subscribe(),
            keyspace,
            prefix: prefix.to_owned(),
            next: from.max(super::FIRST_REVISION + 1),
            taken: VecDeque::new(),
            over: false,
        };
        futures::stream::unfold(cursor, |mut cursor| async move {
            let item = cursor.next_item().await?;
            Some((item, cursor))
        })
        .boxed()
    }
}

/// Where a watch is in the log.
struct Cursor {
    shared: Weak<Shared>,
    news: watch::Receiver<Revision>,
    keyspace: Keyspace,
    prefix: String,
    next: Revision,
    taken: VecDeque<WatchBatch>,
    over: bool,
}

impl Cursor {
    async fn next_item(&mut self) -> Option<Result<WatchBatch, Error>> {
        loop {
            if let Some(batch) = self.taken.pop_front() {
                return Some(Ok(batch));
            }
            if self.over {
                return None;
            }
            // Marked as seen before the log is read: what comes after the reading wakes us again.
            self.news.borrow_and_update();
            let read = self.shared.upgrade().map(|shared| {
                let core = shared.core();
                core.changes(self.keyspace, &self.prefix, self.next).map(|read| (read, core.visible()))
            });
            match read {
                None => {
                    self.over = true;
                    return Some(Err(Error::Unavailable("the store was closed".to_owned())));
                }
                Some(Err(error)) => {
                    self.over = true;
                    return Some(Err(error));
                }
                Some(Ok(((batches, next), visible))) => {
                    self.taken.extend(batches);
                    self.next = next;
                    if self.taken.is_empty() && next > visible {
                        // An error means that the store was closed; the next round says so.
                        let _ = self.news.changed().await;
                    }
                }
            }
        }
    }
}
