//! Which schedulers are known, which one is home, and when one was last heard.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

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
}

impl Home {
    pub(crate) fn new(schedulers: &[String]) -> Self {
        Self {
            configured: schedulers.iter().map(|address| normal(address)).collect(),
            learned: Mutex::new(Vec::new()),
            current: watch::Sender::new(None),
            last_heard_ms: AtomicU64::new(clock::boot_ms()),
        }
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
        let mut learned = self.learned.lock().expect("no holder of this lock panics");
        *learned = addresses.iter().take(LEARNED_MAX).map(|address| normal(address)).collect();
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
