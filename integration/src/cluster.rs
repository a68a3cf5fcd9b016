//! Schedulers for tests.

use std::sync::Arc;
use std::time::Duration;

use muster_scheduler::{Handle, Options, Scheduler};
use muster_state::StateBackend;

/// Logs of a test, as RUST_LOG says; shown when it fails.
pub fn logs() {
    let filter = tracing_subscriber::EnvFilter::from_default_env();
    // Set up by an earlier test of this process.
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_test_writer().try_init();
}

/// Starts a scheduler over a store, with short times.
pub async fn scheduler(name: &str, state: Arc<dyn StateBackend>) -> anyhow::Result<Handle> {
    let options = Options {
        scheduler_id: name.to_owned(),
        session_ttl: Duration::from_secs(2),
        lost_after: Duration::from_secs(3),
        heartbeat: Duration::from_millis(300),
        scan_every: Duration::from_millis(200),
        ..Options::new(state)
    };
    Ok(Scheduler::start(options).await?)
}
