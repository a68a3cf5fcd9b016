//! Which schedulers are known, which one is home, and when one was last heard.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use std::time::Duration;

use tokio::sync::watch;

use crate::clock;

/// Addresses kept beside the configured ones.
const LEARNED_MAX: usize = 64;

/// Shared by all parts that talk to schedulers.
#[derive(Debug)]
pub(crate) struct Home {
    /// From the options: never forgotten.
    configured: Vec<Arc<str>>,
    /// As the schedulers say; locked to copy it.
    learned: Mutex<Vec<Arc<str>>>,
    current: watch::Sender<Option<Arc<str>>>,
    last_heard_ms: AtomicU64,
    /// After how long out of reach this executor is declared lost; 0: not known yet.
    cluster_limit_ms: AtomicU64,
    /// The shortest time that anything here may be out of reach: the cluster's, or that of a job with attempts here.
    limit: watch::Sender<Duration>,
}

/// While no limit is known.
const NO_LIMIT: Duration = Duration::MAX;

impl Home {
    pub(crate) fn new(schedulers: &[String]) -> Self {
        Self {
            configured: schedulers.iter().map(|address| normal(address)).collect(),
            learned: Mutex::new(Vec::new()),
            current: watch::Sender::new(None),
            last_heard_ms: AtomicU64::new(clock::boot_ms()),
            cluster_limit_ms: AtomicU64::new(0),
            limit: watch::Sender::new(NO_LIMIT),
        }
    }

    /// The shortest time that anything here may be out of reach, and when it changes. Heartbeats and reconnecting keep
    /// well within it.
    pub(crate) fn limit(&self) -> watch::Receiver<Duration> {
        self.limit.subscribe()
    }

    /// Something is here that may be out of reach for no longer than this.
    pub(crate) fn shorten_limit(&self, limit_ms: u64) {
        let limit = Duration::from_millis(limit_ms);
        self.limit.send_if_modified(|known| {
            limit_ms > 0 && limit < *known && {
                *known = limit;
                true
            }
        });
    }

    /// What is here may be out of reach for so long; `None`: nothing here has a limit of its own.
    pub(crate) fn set_limit(&self, limit_ms: Option<u64>) {
        let cluster = Some(self.cluster_limit_ms.load(Ordering::Relaxed)).filter(|limit| *limit > 0);
        let limit = limit_ms.into_iter().chain(cluster).min().map_or(NO_LIMIT, Duration::from_millis);
        self.limit.send_if_modified(|known| std::mem::replace(known, limit) != limit);
    }

    /// A scheduler says when the cluster declares executors lost.
    pub(crate) fn set_cluster_limit(&self, limit_ms: u64) {
        self.cluster_limit_ms.store(limit_ms, Ordering::Relaxed);
        self.shorten_limit(limit_ms);
    }

    /// The home scheduler, if there is one now.
    pub(crate) fn address(&self) -> Option<Arc<str>> {
        self.current.borrow().clone()
    }

    /// Waits for a home.
    pub(crate) async fn wait(&self) -> Arc<str> {
        let mut current = self.current.subscribe();
        let found = current.wait_for(Option::is_some).await.expect("the sender lives as long as self");
        found.clone().expect("just waited for it")
    }

    pub(crate) fn set(&self, address: Option<Arc<str>>) {
        self.current.send_replace(address);
    }

    /// A scheduler says which ones live.
    pub(crate) fn learn(&self, addresses: &[String]) {
        if addresses.is_empty() {
            return;
        }
        let new: Vec<Arc<str>> = addresses.iter().take(LEARNED_MAX).map(|address| normal(address)).collect();
        let mut learned = self.learned.lock().expect("no holder of this lock panics");
        if *learned != new {
            tracing::info!(schedulers = ?new, "the live schedulers, as one of them says");
            *learned = new;
        }
    }

    /// All addresses to try, without repetition.
    pub(crate) fn candidates(&self) -> Vec<Arc<str>> {
        let mut all = self.learned.lock().expect("no holder of this lock panics").clone();
        all.extend(self.configured.iter().cloned());
        let mut seen = std::collections::HashSet::new();
        all.retain(|address| !address.is_empty() && seen.insert(address.clone()));
        all
    }

    /// Some scheduler answered just now.
    pub(crate) fn heard(&self) {
        self.last_heard_ms.store(clock::boot_ms(), Ordering::Relaxed);
    }

    /// How long none has answered.
    pub(crate) fn silence_ms(&self) -> u64 {
        clock::boot_ms().saturating_sub(self.last_heard_ms.load(Ordering::Relaxed))
    }
}

/// The same address is the same scheduler, however it is written.
pub(crate) fn normal(address: &str) -> Arc<str> {
    let address = address.trim();
    Arc::from(address.strip_prefix("http://").unwrap_or(address).trim_end_matches('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn learned_addresses_come_first_and_configured_ones_are_never_forgotten() {
        let home = Home::new(&["http://a:1/".to_owned(), "b:1".to_owned()]);
        assert_eq!(home.candidates(), ["a:1".into(), "b:1".into()]);
        home.learn(&["c:1".to_owned(), "a:1".to_owned()]);
        assert_eq!(home.candidates(), ["c:1".into(), "a:1".into(), "b:1".into()]);
        home.learn(&[]);
        assert_eq!(home.candidates().len(), 3);
    }
}
