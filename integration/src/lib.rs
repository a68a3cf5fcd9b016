//! What whole-cluster tests are made of.

pub mod checker;
pub mod cluster;
pub mod cluster_of_processes;
pub mod jobs;
pub mod journal;
pub mod load;
pub mod metrics;
pub mod network;
pub mod processes;
pub mod recorder;
pub mod simulated;
pub mod word_count;
pub mod world;

/// Waits for a condition, looking every few milliseconds.
///
/// # Panics
/// When the deadline passes first; the message names what was waited for.
pub async fn eventually<F, T>(what: &str, seconds: u64, mut look: impl FnMut() -> F) -> T
where
    F: Future<Output = Option<T>>,
{
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(seconds);
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(tokio::time::Instant::now() < deadline, "waited {seconds} s in vain: {what}");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}

/// Whether the long forms are wanted: many more tasks, and bounds on times.
#[must_use]
pub fn is_soak() -> bool {
    std::env::var_os("MUSTER_SOAK").is_some_and(|value| value == "1")
}
