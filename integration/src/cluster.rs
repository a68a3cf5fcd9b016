//! Schedulers for tests.

use std::sync::Arc;
use std::time::Duration;

use muster_scheduler::{Handle, Options, Scheduler};
use muster_state::StateBackend;

use crate::processes;
use crate::world::World;

/// Logs of a test, as RUST_LOG says; shown when it fails.
pub fn logs() {
    let filter = tracing_subscriber::EnvFilter::from_default_env();
    // Set up by an earlier test of this process.
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_test_writer().try_init();
}

/// An executor of so many cores at a scheduler, with its files in the test's folder.
pub fn executor_options(
    world: &World,
    id: &str,
    mode: muster_executor::Mode,
    cores: u32,
    scheduler: &Handle,
) -> muster_executor::Options {
    let mut options = muster_executor::Options::new(world.path(id), vec![scheduler.address().to_string()]);
    options.id = Some(id.to_owned());
    options.mode = mode;
    options.supervisor = vec![processes::muster().into(), "supervise".into()];
    options.resources.cpu_milli = cores * 1000;
    options
}

/// What a scheduler over a store is told here: short times.
pub fn scheduler_options(name: &str, state: Arc<dyn StateBackend>) -> Options {
    Options {
        scheduler_id: name.to_owned(),
        session_ttl: Duration::from_secs(2),
        lost_after: Duration::from_secs(3),
        heartbeat: Duration::from_millis(300),
        scan_every: Duration::from_millis(200),
        ..Options::new(state)
    }
}

/// Starts a scheduler over a store, with short times.
pub async fn scheduler(name: &str, state: Arc<dyn StateBackend>) -> anyhow::Result<Handle> {
    Ok(Scheduler::start(scheduler_options(name, state)).await?)
}
