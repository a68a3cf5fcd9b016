//! A watch on etcd that resumes by itself.
//!
//! It asks for one revision more than it needs and throws that one away. A compaction at revision R removes deletions
//! made at R, so a watch from exactly R could silently miss them; asking for R − 1 makes etcd say "compacted" instead.
//! Invariants: batches come in the order of revisions, each revision once and whole; the events of one response are
//! never separated by a reconnection, since `next` moves only when all of them are queued.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use etcd_client::{EventType, WatchOptions};
use futures::StreamExt as _;

use super::Inner;
use super::calls::{Nature, classify};
use super::layout::end_of;
use crate::{Change, Entry, Error, Keyspace, Revision, WatchBatch, WatchStream};

/// The first pause before a watch is opened again; doubles up to the longest.
const PAUSE: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// A response is cut at etcd's request size (1.5 MiB); one transaction's events are never larger than that.
const DECODE_BYTES_MAX: usize = 16 << 20;

struct Cursor {
    inner: Arc<Inner>,
    keyspace: Keyspace,
    prefix: Vec<u8>,
    /// Everything before it has been queued.
    next: Revision,
    queued: VecDeque<WatchBatch>,
    /// The stream, and the member that it is on.
    stream: Option<(etcd_client::WatchStream, usize)>,
    /// Events of a response whose last fragment has not come yet.
    fragments: Vec<(Revision, Change)>,
    pause: Duration,
    over: bool,
}

pub(super) fn watch(inner: Arc<Inner>, keyspace: Keyspace, prefix: &str, from: Revision) -> WatchStream {
    let prefix = inner.layout.stored(keyspace, prefix);
    let cursor = Cursor {
        inner,
        keyspace,
        prefix,
        // An empty etcd is at revision 1: the first write is 2.
        next: from.max(2),
        queued: VecDeque::new(),
        stream: None,
        fragments: Vec::new(),
        pause: PAUSE,
        over: false,
    };
    futures::stream::unfold(cursor, |mut cursor| async move {
        let item = cursor.next_item().await?;
        Some((item, cursor))
    })
    .boxed()
}

/// The oldest revision that can be watched from; `None`: it cannot be found out now.
pub(super) async fn oldest_revision(inner: &Inner) -> Option<Revision> {
    let deadline = tokio::time::Instant::now() + inner.members.options.call_timeout;
    let asking = async {
        let client = inner.members.client(inner.members.current()).await.ok()?;
        let options = WatchOptions::new().with_start_revision(1);
        let mut stream =
            client.watch_client().watch(inner.layout.stored(Keyspace::Meta, ""), Some(options)).await.ok()?;
        while let Some(response) = stream.message().await.ok()? {
            if response.compact_revision() > 0 {
                return Some(response.compact_revision().unsigned_abs() + 1);
            }
        }
        None
    };
    tokio::time::timeout_at(deadline, asking).await.ok().flatten()
}

impl Cursor {
    async fn next_item(&mut self) -> Option<Result<WatchBatch, Error>> {
        loop {
            if let Some(batch) = self.queued.pop_front() {
                return Some(Ok(batch));
            }
            if self.over {
                return None;
            }
            if let Err(error) = self.step().await {
                self.over = true;
                return Some(Err(error));
            }
        }
    }

    /// Opens the stream, or takes one response. An error is the watch's end.
    async fn step(&mut self) -> Result<(), Error> {
        let Some((stream, member)) = &mut self.stream else { return self.open().await };
        let member = *member;
        match stream.message().await {
            Ok(Some(response)) => self.take(&response, member),
            Ok(None) => {
                self.close(member);
                Ok(())
            }
            Err(error) => {
                self.close(member);
                unless_retryable(classify(&error, Nature::Repeatable))
            }
        }
    }

    async fn open(&mut self) -> Result<(), Error> {
        let member = self.inner.members.current();
        let opening = async {
            let client = self.inner.members.client(member).await?;
            let start = i64::try_from(self.next - 1).unwrap_or(i64::MAX);
            let options = WatchOptions::new()
                .with_range(end_of(&self.prefix))
                .with_start_revision(start)
                .with_progress_notify()
                .with_fragment();
            let mut client = client.watch_client().max_decoding_message_size(DECODE_BYTES_MAX);
            client.watch(self.prefix.clone(), Some(options)).await
        };
        match tokio::time::timeout(self.inner.members.options.call_timeout, opening).await {
            Ok(Ok(stream)) => {
                self.stream = Some((stream, member));
                return Ok(());
            }
            Ok(Err(error)) => unless_retryable(classify(&error, Nature::Repeatable))?,
            Err(_) => {}
        }
        self.inner.members.leave(member);
        tokio::time::sleep(self.pause).await;
        self.pause = (self.pause * 2).min(PAUSE_MAX);
        Ok(())
    }

    /// The stream broke. What it had begun to say will be said again.
    fn close(&mut self, member: usize) {
        self.stream = None;
        self.fragments.clear();
        self.inner.members.leave(member);
    }

    fn take(&mut self, response: &etcd_client::WatchResponse, member: usize) -> Result<(), Error> {
        if response.compact_revision() > 0 {
            let oldest = response.compact_revision().unsigned_abs() + 1;
            return Err(Error::Compacted { asked: self.next, oldest });
        }
        if response.canceled() {
            let reason = response.cancel_reason();
            if reason.contains("permission denied") {
                return Err(Error::Fatal(format!("etcd refuses the watch: {reason}")));
            }
            tracing::debug!(reason, "etcd ended a watch; it goes on from where it was");
            self.close(member);
            return Ok(());
        }
        self.pause = PAUSE;
        for event in response.events() {
            if let Some(change) = self.change(event)? {
                self.fragments.push(change);
            }
        }
        if response.0.fragment {
            return Ok(());
        }
        let mut batches: BTreeMap<Revision, Vec<Change>> = BTreeMap::new();
        for (revision, change) in self.fragments.drain(..) {
            batches.entry(revision).or_default().push(change);
        }
        if let Some((&last, _)) = batches.last_key_value() {
            self.next = last + 1;
        } else if !response.created()
            && response.events().is_empty()
            && let Some(header) = response.header()
        {
            // A sign of progress: nothing up to there was for us.
            self.next = self.next.max(header.revision().unsigned_abs() + 1);
        }
        self.queued.extend(batches.into_iter().map(|(revision, changes)| WatchBatch { revision, changes }));
        Ok(())
    }

    /// `None`: it was queued before.
    fn change(&self, event: &etcd_client::Event) -> Result<Option<(Revision, Change)>, Error> {
        let Some(kv) = event.kv() else { return Ok(None) };
        let revision = kv.mod_revision().unsigned_abs();
        if revision < self.next {
            return Ok(None);
        }
        let name = self.inner.layout.name(self.keyspace, kv.key())?;
        let change = match event.event_type() {
            EventType::Put => Change::Put(Entry {
                name,
                value: bytes::Bytes::copy_from_slice(kv.value()),
                create_revision: kv.create_revision().unsigned_abs(),
                mod_revision: revision,
            }),
            EventType::Delete => Change::Deleted { name, revision },
        };
        Ok(Some((revision, change)))
    }
}

fn unless_retryable(error: Error) -> Result<(), Error> {
    if error.is_retryable() { Ok(()) } else { Err(error) }
}
