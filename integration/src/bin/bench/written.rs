//! What was written into etcd: how often and how much, by its own metrics; and of which kind, by reading its past.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use muster_state::testing::EtcdCluster;

use crate::scrape;

/// Where all keys of the cluster begin.
const ROOT: &str = "/muster/default/";
/// Written behind everything, so that one knows that everything was read.
const END: &str = "/muster/end-of-measurement";
/// A past that is not there within this will not come.
const PATIENCE: Duration = Duration::from_secs(60);
/// Of one answer: a thousand revisions, of which each may have some large records.
const DECODE_BYTES_MAX: usize = 512 << 20;
/// Records that are written once and never again.
const IMMUTABLE: [&str; 3] = ["plans", "deltas", "events"];

/// etcd's own counters.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Counters {
    /// Entries of its log that were committed.
    pub(crate) commits: f64,
    /// Keys and values that were put, in bytes.
    pub(crate) bytes: f64,
    /// The revision then.
    revision: i64,
}

impl Counters {
    /// As they are now. All members apply the same entries, so one of them tells for all.
    pub(crate) async fn read(etcd: &EtcdCluster) -> anyhow::Result<Self> {
        let text = scrape::text(&etcd.members[0].endpoint()).await?;
        let value = |name| scrape::sum(&text, name).with_context(|| format!("etcd does not tell {name}"));
        Ok(Self {
            commits: value("etcd_server_proposals_committed_total")?,
            bytes: value("etcd_debugging_mvcc_total_put_size_in_bytes")?,
            revision: value("etcd_debugging_mvcc_current_revision")? as i64,
        })
    }

    /// Commits and bytes since then.
    pub(crate) fn since(self, then: Self) -> (f64, f64) {
        (self.commits - then.commits, self.bytes - then.bytes)
    }
}

/// Records of one kind.
#[derive(Debug, Clone, Default, serde::Serialize)]
pub(crate) struct Kind {
    /// Records that were put.
    pub(crate) puts: u64,
    /// Keys that were deleted.
    pub(crate) deletes: u64,
    /// Keys and values that were put.
    pub(crate) bytes: u64,
    /// The largest value.
    pub(crate) largest: u64,
}

/// By keyspace.
#[derive(Debug, Clone, Default, serde::Serialize)]
pub(crate) struct Written(pub(crate) BTreeMap<String, Kind>);

impl Written {
    /// Reads all that was written since `then`.
    pub(crate) async fn since(etcd: &EtcdCluster, then: Counters) -> anyhow::Result<Self> {
        tokio::time::timeout(PATIENCE, Self::read(etcd, then.revision + 1)).await.context("etcd's past")?
    }

    async fn read(etcd: &EtcdCluster, from: i64) -> anyhow::Result<Self> {
        let mut client = etcd_client::Client::connect(etcd.endpoints(), None).await?;
        client.put(END, "", None).await?;
        let options = etcd_client::WatchOptions::new().with_range("/muster0").with_start_revision(from).with_fragment();
        let mut watches = client.watch_client().max_decoding_message_size(DECODE_BYTES_MAX);
        let mut stream = watches.watch("/muster/", Some(options)).await?;
        let mut written = Self::default();
        loop {
            let response = stream.message().await?.context("etcd ended the watch")?;
            ensure!(!response.canceled(), "etcd ended the watch: {}", response.cancel_reason());
            for event in response.events() {
                let Some(pair) = event.kv() else { continue };
                if pair.key() == END.as_bytes() {
                    return Ok(written);
                }
                let Some(name) = pair.key().strip_prefix(ROOT.as_bytes()) else { continue };
                let keyspace = String::from_utf8_lossy(name.split(|b| *b == b'/').next().unwrap_or(name)).into_owned();
                let kind = written.0.entry(keyspace).or_default();
                if event.event_type() == etcd_client::EventType::Delete {
                    kind.deletes += 1;
                } else {
                    kind.puts += 1;
                    kind.bytes += (pair.key().len() + pair.value().len()) as u64;
                    kind.largest = kind.largest.max(pair.value().len() as u64);
                }
            }
        }
    }

    /// The largest value of a record that is rewritten, and of any.
    pub(crate) fn largest(&self) -> (u64, u64) {
        let largest = |mutable: bool| {
            let kinds = self.0.iter().filter(|(name, _)| !mutable || !IMMUTABLE.contains(&name.as_str()));
            kinds.map(|(_, kind)| kind.largest).max().unwrap_or(0)
        };
        (largest(true), largest(false))
    }

    /// Records of these kinds that were put.
    pub(crate) fn puts(&self, kinds: &[&str]) -> u64 {
        kinds.iter().filter_map(|kind| self.0.get(*kind)).map(|kind| kind.puts).sum()
    }
}
