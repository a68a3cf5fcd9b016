//! Recording etcd: one watch on each member, all of them merged into one history, so that the death of a member neither
//! delays nor tears it.
//!
//! **Invariants.** A member's stream is whole from the revision on at which it began, and it begins where the merged
//! history ends, so that a revision beyond the history's end is the next one of ours. What etcd says of each key besides
//! (how often it was written since it came to be) must agree with what was recorded; and at the end so must the store.
//! Whatever does not is an error.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use etcd_client::{Client, ConnectOptions, EventType, GetOptions, WatchOptions};
use muster_state::{Keyspace, Revision};
use tokio::sync::watch;

use super::boot_us;
use crate::checker::{Change, Write};

/// One member's answer to a call, or to an attempt to connect.
const CALL_TIMEOUT: Duration = Duration::from_secs(3);
/// Between attempts at a member that does not answer.
const PAUSE: Duration = Duration::from_millis(50);
/// What is compacted before a stream has begun may be on its way on another one, for so long.
const COMPACTED_GRACE: Duration = Duration::from_secs(3);
/// How long the end of a recording may wait for a quorum.
const FINISH_TIMEOUT: Duration = Duration::from_secs(60);
/// A response is as large as the largest transaction; fragments of it are cut at etcd's request size.
const DECODE_BYTES_MAX: usize = 64 << 20;
/// Keys of one page of the comparison at the end.
const PAGE: i64 = 2_000;
/// The recorder's own key, in no keyspace of Muster's: what is written there marks a place in the history.
const MARKER: &str = "recorder";

/// What was recorded.
#[derive(Debug, Default)]
struct Recorded {
    /// Everything before it is recorded.
    next: Revision,
    writes: Vec<Write>,
    /// Of each key that is there: its last write, and how often it was written since it came to be.
    present: HashMap<Vec<u8>, (Revision, i64)>,
    /// Why this is no whole history.
    failure: Option<String>,
}

/// A recorder of one cluster's keys in etcd. Stops when dropped.
#[derive(Debug)]
pub struct Etcd {
    endpoints: Vec<String>,
    root: String,
    recorded: Arc<Mutex<Recorded>>,
    progress: watch::Receiver<Revision>,
    followers: tokio::task::JoinSet<()>,
}

impl Etcd {
    /// Follows the keys of `cluster` on these members (`host:port`) from the first revision on. Start it before anything
    /// compacts.
    #[must_use]
    pub fn start(endpoints: &[String], cluster: &str) -> Self {
        let root = format!("/muster/{cluster}/");
        // An empty etcd is at revision 1: the first write is 2.
        let recorded = Arc::new(Mutex::new(Recorded { next: 2, ..Recorded::default() }));
        let (sender, progress) = watch::channel(0);
        let mut followers = tokio::task::JoinSet::new();
        for endpoint in endpoints {
            let follower = Follower {
                endpoint: endpoint.clone(),
                root: root.clone(),
                recorded: Arc::clone(&recorded),
                progress: sender.clone(),
            };
            followers.spawn(follower.follow());
        }
        Self { endpoints: endpoints.to_vec(), root, recorded, progress, followers }
    }

    /// What was recorded so far. It may lag behind the store.
    #[must_use]
    pub fn so_far(&self) -> Vec<Write> {
        self.recorded.lock().expect("nothing panics while holding it").writes.clone()
    }

    /// Waits until everything is recorded that is in the store by now, compares the two, and gives the history.
    ///
    /// # Errors
    /// If some of the past was missed, or the store does not answer.
    pub async fn finish(mut self) -> anyhow::Result<Vec<Write>> {
        let finishing = async {
            let marked = self.mark().await;
            let seen = self.progress.wait_for(|seen| *seen >= marked).await.map(|_| ());
            let failure = self.recorded.lock().expect("nothing panics while holding it").failure.clone();
            if let Some(failure) = failure {
                bail!("the recording is not whole: {failure}");
            }
            seen.context("every follower has ended")?;
            self.compare(marked).await
        };
        tokio::time::timeout(FINISH_TIMEOUT, finishing)
            .await
            .with_context(|| format!("the recording was not complete within {FINISH_TIMEOUT:?}"))??;
        self.followers.shutdown().await;
        Ok(std::mem::take(&mut self.recorded.lock().expect("nothing panics while holding it").writes))
    }

    /// Writes beside Muster's own keys; the revision at which it did. Watches tell revisions in order, so whoever has heard
    /// of this one has heard of all before it.
    async fn mark(&self) -> Revision {
        loop {
            for endpoint in &self.endpoints {
                let marking = async {
                    let mut client = connect(endpoint).await?;
                    let answer = client.put(format!("{}{MARKER}", self.root), "", None).await?;
                    Ok::<_, etcd_client::Error>(answer.header().map_or(0, |header| header.revision().unsigned_abs()))
                };
                if let Ok(Ok(revision)) = tokio::time::timeout(CALL_TIMEOUT, marking).await {
                    return revision;
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// What is in the store at a revision must be what the history leaves there.
    async fn compare(&self, at: Revision) -> anyhow::Result<()> {
        let mut last = None;
        for endpoint in &self.endpoints {
            match tokio::time::timeout(FINISH_TIMEOUT / 4, self.compare_with(endpoint, at)).await {
                Ok(Ok(compared)) => return compared,
                Ok(Err(error)) => last = Some(error.to_string()),
                Err(_) => last = Some("no answer".to_owned()),
            }
        }
        bail!("no member could be compared with the recording: {last:?}")
    }

    /// The outer error: this member does not answer.
    async fn compare_with(&self, endpoint: &str, at: Revision) -> Result<anyhow::Result<()>, etcd_client::Error> {
        let client = connect(endpoint).await?;
        let mut kv = client.kv_client().max_decoding_message_size(DECODE_BYTES_MAX);
        let mut from = self.root.clone().into_bytes();
        let end = end_of(&self.root);
        let mut there = HashMap::new();
        loop {
            let options = GetOptions::new()
                .with_range(end.clone())
                .with_limit(PAGE)
                .with_keys_only()
                .with_revision(i64::try_from(at).unwrap_or(i64::MAX));
            let page = kv.get(from.clone(), Some(options)).await?;
            for entry in page.kvs() {
                there.insert(entry.key().to_vec(), (entry.mod_revision().unsigned_abs(), entry.version()));
            }
            match page.kvs().last() {
                Some(last) if page.more() => from = [last.key(), b"\0"].concat(),
                _ => break,
            }
        }
        let recorded = self.recorded.lock().expect("nothing panics while holding it");
        // What was written after the mark is not compared.
        let moved: std::collections::HashSet<Vec<u8>> = recorded
            .writes
            .iter()
            .rev()
            .take_while(|write| write.revision > at)
            .flat_map(|write| &write.changes)
            .map(|change| format!("{}{}/{}", self.root, change.keyspace.name(), change.name).into_bytes())
            .collect();
        let keys = there.keys().chain(recorded.present.keys()).filter(|key| !moved.contains(*key));
        for key in keys {
            if there.get(key) != recorded.present.get(key) {
                return Ok(Err(anyhow::anyhow!(
                    "the recording missed something: of {} the store has (revision, version) {:?}, the recording {:?}",
                    String::from_utf8_lossy(key),
                    there.get(key),
                    recorded.present.get(key),
                )));
            }
        }
        Ok(Ok(()))
    }
}

async fn connect(endpoint: &str) -> Result<Client, etcd_client::Error> {
    let options = ConnectOptions::new().with_connect_timeout(CALL_TIMEOUT).with_timeout(CALL_TIMEOUT);
    Client::connect([format!("http://{endpoint}")], Some(options)).await
}

/// The first key after all that begin with this. It ends with '/', and '0' is the character after that.
fn end_of(root: &str) -> Vec<u8> {
    format!("{}0", root.trim_end_matches('/')).into_bytes()
}

/// One member's watch.
struct Follower {
    endpoint: String,
    root: String,
    recorded: Arc<Mutex<Recorded>>,
    progress: watch::Sender<Revision>,
}

/// Events of one key, as etcd tells them.
struct Told {
    revision: Revision,
    key: Vec<u8>,
    version: i64,
    value: Option<Bytes>,
}

impl Follower {
    /// For ever: a member that went may come back.
    async fn follow(self) {
        loop {
            if let Err(why) = self.follow_once().await {
                tracing::debug!(endpoint = self.endpoint, %why, "following etcd from where the recording is, again");
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    fn next(&self) -> Revision {
        self.recorded.lock().expect("nothing panics while holding it").next
    }

    async fn follow_once(&self) -> anyhow::Result<()> {
        let next = self.next();
        let opening = async {
            // Without a time-out for the stream itself, which is to last.
            let options = ConnectOptions::new().with_connect_timeout(CALL_TIMEOUT);
            let client = Client::connect([format!("http://{}", self.endpoint)], Some(options)).await?;
            // One revision more than is needed: a compaction at R removes deletions made at R, which a watch from exactly
            // R would silently miss; asked for R - 1, etcd says "compacted" instead.
            let start = i64::try_from(next - 1)?;
            let options = WatchOptions::new().with_range(end_of(&self.root)).with_start_revision(start).with_fragment();
            let mut watches = client.watch_client().max_decoding_message_size(DECODE_BYTES_MAX);
            Ok::<_, anyhow::Error>(watches.watch(self.root.clone(), Some(options)).await?)
        };
        let mut stream = tokio::time::timeout(CALL_TIMEOUT, opening).await??;
        let mut fragments = Vec::new();
        while let Some(response) = stream.message().await? {
            let compacted = response.compact_revision().unsigned_abs();
            if compacted > 0 {
                // Another member's stream may have it on its way.
                let given_up_at = tokio::time::Instant::now() + COMPACTED_GRACE;
                while self.next() <= next && compacted >= next {
                    if tokio::time::Instant::now() >= given_up_at {
                        self.fail(format!("revision {next} is compacted, the store begins after {compacted}"));
                        break;
                    }
                    tokio::time::sleep(PAUSE).await;
                }
                bail!("compacted up to {compacted}");
            }
            ensure!(!response.canceled(), "etcd ended the watch: {}", response.cancel_reason());
            for event in response.events() {
                let kv = event.kv().context("an event without a key")?;
                let value = (event.event_type() == EventType::Put).then(|| Bytes::copy_from_slice(kv.value()));
                let revision = kv.mod_revision().unsigned_abs();
                fragments.push(Told { revision, key: kv.key().to_vec(), version: kv.version(), value });
            }
            if !response.0.fragment {
                self.record(std::mem::take(&mut fragments));
            }
        }
        bail!("the stream ended")
    }

    fn fail(&self, why: String) {
        let mut recorded = self.recorded.lock().expect("nothing panics while holding it");
        tracing::error!(why, "the recording is not whole");
        recorded.failure.get_or_insert(why);
        drop(recorded);
        // Whoever waits for the end need not wait any longer.
        self.progress.send_replace(Revision::MAX);
    }

    /// Takes in what is beyond the recording's end.
    fn record(&self, told: Vec<Told>) {
        let at_us = boot_us();
        let mut failure = None;
        let mut recorded = self.recorded.lock().expect("nothing panics while holding it");
        let from = recorded.next;
        for told in told.into_iter().filter(|told| told.revision >= from) {
            if let Err(why) = recorded.take(&self.root, told, at_us) {
                failure = Some(why);
                break;
            }
        }
        let seen = recorded.next - 1;
        drop(recorded);
        match failure {
            Some(why) => self.fail(why),
            None => {
                self.progress.send_if_modified(|known| {
                    let newer = seen > *known;
                    *known = seen.max(*known);
                    newer
                });
            }
        }
    }
}

impl Recorded {
    fn take(&mut self, root: &str, told: Told, at_us: u64) -> Result<(), String> {
        let Told { revision, key, version, value } = told;
        let text = String::from_utf8_lossy(&key).into_owned();
        let (known, versions) = self.present.get(&key).copied().unwrap_or((0, 0));
        match &value {
            Some(_) if version == versions + 1 => drop(self.present.insert(key, (revision, version))),
            Some(_) => {
                return Err(format!(
                    "{text} is at version {version} in revision {revision}, and was at {versions} in {known}"
                ));
            }
            None if versions > 0 => drop(self.present.remove(&key)),
            None => return Err(format!("{text} is deleted in revision {revision}, and was not there")),
        }
        if revision >= self.next {
            self.next = revision + 1;
        }
        let rest = text.strip_prefix(root).ok_or_else(|| format!("{text} was not asked for"))?;
        if rest == MARKER {
            return Ok(());
        }
        let (keyspace, name) = rest.split_once('/').ok_or_else(|| format!("{text} is in no keyspace"))?;
        let keyspace = Keyspace::ALL
            .into_iter()
            .find(|known| known.name() == keyspace)
            .ok_or_else(|| format!("{text} is in no keyspace that is known here"))?;
        let change = Change { keyspace, name: name.to_owned(), value };
        match self.writes.last_mut() {
            Some(write) if write.revision == revision => write.changes.push(change),
            _ => self.writes.push(Write { revision, at_us, changes: vec![change] }),
        }
        Ok(())
    }
}
